"""In what is asked of updates as they are made, and what is written down of tokens."""

from tests.mistakes import Mistake

STAGE, LOOP, PROGRAMS = (
    "grpo/stages/grpo.py", "grpo/runs/stage_loop.py", "grpo/diagnostics/programs.py",
)  # fmt: skip
APART, ROWS, FROZEN = (
    "grpo/diagnostics/by_reward.py", "grpo/rollout/rollouts_jsonl.py", "grpo/rollout/frozen.py",
)  # fmt: skip
CHECKS, PREFLIGHT = "grpo/checks/sections.py", "grpo/tools/preflight.py"
D, R, T = (
    f"tests/test_{name}.py::test_"
    for name in ("diagnostics", "diagnostics_in_a_run", "rollout_tokens")
)
ELSE, FORECAST = (
    R + "nothing_else_of_the_run_changes",
    R + "the_forecast_against_differences_and_logits",
)
BY_HAND, APART_BY_HAND = (
    D + "a_gradient_by_reward_by_hand",
    R + "the_gradient_by_reward_against_one_by_hand",
)
WAIT, CHANGES = R + "rows_wait_for_their_update_alone", T + "changes_by_hand"
REFUSED = D + "gradients_by_reward_where_there_are_none_are_refused"
RECKONED, ASKED = D + "a_preflight_reckons_with_them", D + "programs_are_those_that_are_asked_for"
ENTROPY = T + "the_entropy_is_of_what_each_token_was_drawn_from"

MISTAKES = [
    Mistake("another update is asked what the run's was", "grpo/replays/changes.py",
            "    stage |= dict.fromkeys(ASKED & stage.keys(), 0)\n", "",
            R + "an_update_under_other_fields_is_asked_nothing"),
    Mistake("the first iteration is not looked into", PROGRAMS,
            "iteration % every == 0", "iteration % every == every - 1",
            D + "every_so_many_iterations"),
    Mistake("every iteration is looked into unasked", PROGRAMS,
            "return every > 0 and iteration % every == 0", "return iteration % max(every, 1) == 0",
            D + "every_so_many_iterations"),
    Mistake("the update takes what the forecast begins with", STAGE,
            "jax.tree.map(jnp.copy, loop.state.trainable)", "loop.state.trainable", ELSE),
    Mistake("the forecast of a step that was not made", STAGE,
            "Made(asked.before, after,", "Made(asked.before, asked.before,", FORECAST),
    Mistake("rows that wait are written at once, and once more", LOOP,
            "        if not waits:\n", "        if True:\n", WAIT),
    Mistake("rows wait for an update that nobody looks into", STAGE,
            'waits=config["log"]["tokens"] and is_due(stage["forecast_every"], loop.iteration)',
            'waits=config["log"]["tokens"]', ELSE),
    Mistake("rows that wait are lost with a stage that fails", LOOP,
            "        self.write_rollouts(self._waiting)\n", "",
            R + "rows_that_wait_are_written_before_a_stage_fails"),
    Mistake("changes of tokens stand with the first rows", ROWS,
            "enumerate(row_B)", "enumerate(range(len(row_B)))", CHANGES),
    Mistake("a row that was left out has a change", ROWS,
            "if is_there_C.any():", "if True:", CHANGES),
    Mistake("small changes are zeros", ROWS,
            'float(f"{x:.4g}")', "round(float(x), 4)", CHANGES),
    Mistake("the realised change the other way", PROGRAMS,
            "after_BC - before_BC", "before_BC - after_BC", FORECAST),
    Mistake("rows without tokens count in a run's forecast", PROGRAMS,
            "fit(predicted_BC[mask_BC], realised_BC[mask_BC])",
            "fit(predicted_BC.reshape(-1), realised_BC.reshape(-1))", R + "a_replay_says_the_same"),
    Mistake("a gradient that is not its parts is told as if it were", PROGRAMS,
            "if not is_linear(parts, dtype):", "if parts.residual > 1e9:",
            D + "a_gradient_that_is_not_its_parts_says_no_more"),
    Mistake("short floats are to add up as long ones", APART,
            "max(LINEAR, ROUNDINGS * float(jnp.finfo(dtype).eps))", "LINEAR",
            R + "in_bfloat16_parts_add_up_but_for_rounding"),
    Mistake("the gradient by reward after the update", PROGRAMS,
            "programs[GRADIENT](made.before,", "programs[GRADIENT](made.after,", BY_HAND),
    Mistake("groups are torn in the gradient by reward", PROGRAMS,
            '"group": logprobs.group}', '"group": 1}', APART_BY_HAND),
    Mistake("every reward function has the whole advantage", PROGRAMS,
            "made.batch._replace(advantage_B=advantage_B)", "made.batch", BY_HAND),
    Mistake("advantages apart are those of the first rows", APART,
            "for one in apart])[row_B]", "for one in apart])[: len(row_B)]", APART_BY_HAND),
    Mistake("decoupled advantages are taken apart", CHECKS,
            'if loss["decoupled"]:', "if False:", REFUSED),
    Mistake("a gradient by rewards that there are not", CHECKS,
            "    if not is_paid:\n", "    if False:\n", REFUSED),
    Mistake("a stale batch is taken apart under a clip", CHECKS,
            'if stage["staleness"] and loss["surrogate"] != "cispo":', "if False:", REFUSED),
    Mistake("a stale batch is never taken apart", CHECKS,
            'if stage["staleness"] and loss["surrogate"] != "cispo":', 'if stage["staleness"]:',
            REFUSED),
    Mistake("the entropy at temperature 1", FROZEN,
            "with_entropy=True, entropy_learns=False",
            "with_entropy=True, entropy_learns=False, temperature=1.0", ENTROPY),
    Mistake("the entropy of the reference", FROZEN,
            'by(policy, "entropy")', 'by(reference or policy, "entropy")', ENTROPY),
    Mistake("a log-prob in place of the entropy", FROZEN,
            "return logprobs(variables, ids_BT, mask_BT, completion)[1]",
            "return logprobs(variables, ids_BT, mask_BT, completion)[0]", ENTROPY),
    Mistake("an entropy that nobody asked for", FROZEN,
            "    if logged:\n", "    if True:\n", ASKED),
    Mistake("a preflight forgets the gradients beside each other", PREFLIGHT,
            "gradients * device_bytes(in_float32(trainable))",
            "device_bytes(in_float32(trainable))", RECKONED),
    Mistake("a preflight forgets the copies of a forecast", PREFLIGHT,
            'device_bytes(in_float32(program.facts["copies"]))', "0", RECKONED),
    Mistake("a preflight forgets what a forecast saves", PREFLIGHT,
            "return saved // fsdp + device_bytes(in_float32(program.facts[",
            "return device_bytes(in_float32(program.facts[", RECKONED),
    Mistake("a forecast takes short weights as they are", PROGRAMS,
            "if x.dtype != jnp.float32]", "if x.size < 0]", RECKONED),
    Mistake("a reward without a weight has a gradient", "grpo/runs/iteration_programs.py",
            'sum(entry["weight"] != 0 for', 'sum(entry["weight"] >= 0 for', RECKONED),
    Mistake("what was predicted beyond what happened", "grpo/reporting/html/viewer.js",
            'valueAt(c, "realised_change", t) - valueAt(c, "predicted_change", t)',
            'valueAt(c, "predicted_change", t) - valueAt(c, "realised_change", t)',
            "tests/test_report_browser.py::test_tokens_are_coloured_by_what_is_there"),
]  # fmt: skip
