"""Mistakes about a teacher in the GRPO stage: the advantage, whose log-probs, what is refused."""

from tests.mistakes import Mistake

LOSS, OBJECTIVE = "grpo/algorithms/losses.py", "grpo/algorithms/objective.py"
FROZEN, STAGE = "grpo/rollout/frozen.py", "grpo/stages/grpo.py"
PROBLEMS, SECTIONS = "grpo/checks/problems.py", "grpo/checks/sections.py"
CONFIG = "configs/distill_gemma3_1b.py"
IN_LOSSES = "tests/test_losses.py::test_"
IN_TEACHER = "tests/test_teacher.py::test_"
BY_HAND, ORACLE = f"{IN_LOSSES}a_teacher_by_hand", f"{IN_LOSSES}against_the_oracle"
LEFT_OUT = f"{IN_TEACHER}tokens_that_only_the_teacher_has_are_left_out"
REFUSED = f"{IN_TEACHER}a_config_that_makes_no_sense_is_refused"
FINE = f"{IN_TEACHER}what_goes_together"
GOLDEN = "tests/test_golden_iteration.py::test_iterations[taught]"
OF_CONFIG = "tests/test_domain_configs.py::test_distillation_as_a_policy_gradient"

MISTAKES = [
    Mistake("away from the teacher", LOSS,
            "advantage_BC -= objective", "advantage_BC += objective", BY_HAND),
    Mistake("teacher_coef is not read", LOSS,
            "advantage_BC -= objective.teacher_coef * (", "advantage_BC -= (", BY_HAND),
    Mistake("the teacher is compared with the policy as it is by now", LOSS,
            "objective.teacher_coef * (old_BC", "objective.teacher_coef * (logprob_BC",
            f"{ORACLE}[grpo_taught-old]"),
    Mistake("the teacher in the GRPO stage learns", LOSS,
            "inside(jax.lax.stop_gradient(groups.teacher_logprob_BC), mask_BC)",
            "inside(groups.teacher_logprob_BC, mask_BC)",
            f"{IN_LOSSES}no_gradient_reaches_what_is_frozen"),
    Mistake("the distance to the teacher by the weights of the loss", LOSS,
            'sums["teacher/kl"] = masked_sum(old_BC - teacher_BC, share_BC)',
            'sums["teacher/kl"] = masked_sum(old_BC - teacher_BC, weight_BC)', BY_HAND),
    Mistake("the surrogate has the group's advantage alone", LOSS,
            "surrogate(ratio_BC, advantage_BC", "surrogate(ratio_BC, advantage_B1", BY_HAND),
    Mistake("what is held back goes by the group's advantage", LOSS,
            "_beyond(seen_BC, advantage_BC", "_beyond(seen_BC, advantage_B1",
            f"{IN_LOSSES}what_is_held_back_goes_by_the_advantage_of_the_token"),
    Mistake("what is stale goes by the group's advantage", LOSS,
            "is_stale_BC = (advantage_BC < 0)", "is_stale_BC = (advantage_B1 < 0)",
            f"{ORACLE}[off_policy_taught-old]"),
    Mistake("a coefficient without a teacher does nothing", LOSS,
            "objective.teacher_coef and teacher is None", "False",
            f"{IN_LOSSES}an_option_without_what_it_needs_is_an_error"),
    Mistake("a ratio of sequences beside an advantage of tokens", OBJECTIVE,
            'bool(self.teacher_coef) and self.ratio != "token"', "False", REFUSED),
    Mistake("a teacher from whom one moves away", OBJECTIVE,
            'in ("teacher_coef", "kl_coef"', 'in ("kl_coef"', REFUSED),
    Mistake("the teacher scores at temperature 1", FROZEN,
            "temperature=logprobs.temperature", "temperature=1.0", LEFT_OUT),
    Mistake("tokens that the policy lacks are in the teacher's softmax", FROZEN,
            "vocab=policy.config.vocab_size", "vocab=None", LEFT_OUT),
    Mistake("a vocabulary that is not cut", "grpo/training/logprobs.py",
            '["table"][: self.vocab]', '["table"]', LEFT_OUT),
    Mistake("the policy is its own teacher", FROZEN,
            'by(teacher, "teacher log-probs")', 'by(policy, "teacher log-probs")', GOLDEN),
    Mistake("the teacher is what its stage began with", STAGE,
            'policies.asked(stage["teacher"])', 'policies.start(stage["teacher"]).merged()',
            GOLDEN),
    Mistake("a coefficient without a teacher", SECTIONS,
            'if teacher is None and loss["teacher_coef"]:', "if False:", REFUSED),
    Mistake("a teacher without a coefficient", SECTIONS,
            '    if not loss["teacher_coef"]:\n', "    if False:\n", REFUSED),
    Mistake("groups that a teacher teaches are dropped", SECTIONS,
            '    if stage["dynamic_sampling"] != "off":\n', "    if False:\n", REFUSED),
    Mistake("nothing is normalised", SECTIONS,
            '"loss.decoupled=True": loss["decoupled"]', '"loss.decoupled=True": False', REFUSED),
    Mistake("a curriculum by rewards of which there are none", SECTIONS,
            'by == "reward" and order == "promoted"', "False", REFUSED),
    Mistake("a shuffle of rewards that count is refused", SECTIONS,
            '    if not pays(stage["rewards"]):\n', "    if True:\n", FINE),
    Mistake("neither rewards nor a teacher", SECTIONS,
            'if stage["teacher"] is None and not pays(rewards):', "if False:", FINE),
    Mistake("no teacher is looked for in the pipeline", PROBLEMS,
            'in ("policy", "teacher") if', 'in ("policy",) if', REFUSED),
    Mistake("no teacher is looked for", PROBLEMS,
            "if stage.get(field)]", "if field in stage]", FINE),
    Mistake("a total of no rewards is one number", "grpo/rewards/scores.py",
            "np.sum([np.zeros(completions), *weighed], axis=0)", "np.sum(weighed, axis=0)",
            "tests/test_rewards_table.py::test_nothing_that_counts_is_worth_nothing"),
    Mistake("rewards that pay nothing are hacked", "grpo/tools/hack.py",
            'if pays(stages[name].get("rewards", {}))', 'if "rewards" in stages[name]',
            f"{IN_TEACHER}rewards_that_pay_nothing_are_not_looked_at_for_hacks"),
    Mistake("the policy gradient is held to its start as well", CONFIG,
            'aggregation="token", kl_coef=0.0', 'aggregation="token"', OF_CONFIG),
    Mistake("the rehearsal of the policy gradient has fewer updates than its control", CONFIG,
            "update(iterations=60, prompts=16", "update(iterations=6, prompts=16", OF_CONFIG),
]  # fmt: skip
