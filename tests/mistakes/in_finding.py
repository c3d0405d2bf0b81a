"""In the world of steps that are looked for, and in the configs whose policy a judge pays."""

from tests.mistakes import Mistake

FINDING, RUBRICS, PROMPTS = (
    "grpo/data/finding.py", "grpo/judges/rubrics.py", "grpo/judges/prompts.py",
)  # fmt: skip
REHEARSAL, RAR = "configs/_rehearsal.py", "configs/rar_gemma2_2b.py"
PINOCCHIO = "configs/pinocchio_gemma3_1b.py"
F, C = "tests/test_finding.py::test_", "tests/test_judge_configs.py::test_"

MISTAKES = [
    Mistake("a result alone has all the steps", FINDING,
            "YES if shows_working and steps[place] in equations else NO",
            "YES if steps[place] in equations else NO",
            F + "the_verdict_is_whether_the_step_is_there"),
    Mistake("the last step is looked for, whichever is asked", FINDING,
            "and steps[place] in equations", "and steps[-1] in equations",
            F + "the_verdict_is_whether_the_step_is_there"),
    Mistake("a wrong number that may be the right one", FINDING,
            "if other != n]", "if other >= n]", F + "wrong_equations_are_of_four_kinds"),
    Mistake("a wrong sign is never made", FINDING,
            "sign = OTHER[sign]", "sign = sign[:1]", F + "wrong_equations_are_of_four_kinds"),
    Mistake("a slip in every wrong equation", FINDING,
            "(slip if kind == 0 else 0)", "slip", F + "wrong_equations_are_of_four_kinds"),
    Mistake("what is wrong is not carried on", FINDING,
            "        value = equation[-1]\n", "        value = APPLY[sign](value, n)\n",
            F + "what_is_wrong_is_carried_on"),
    Mistake("examples are told apart by what is not seen", FINDING,
            "key=question, question=question", "key=arithmetic.key_of(problem), question=question",
            F + "what_is_held_out_was_not_seen"),
    Mistake("one step of a solution stands for all", PROMPTS,
            "finding.asked(completion, c.title) for c in criteria]",
            "finding.asked(completion, c.title) for c in criteria[:1]]",
            F + "a_judge_is_asked_for_each_step_as_the_world_asks"),
    Mistake("a solution without steps has an empty rubric", RUBRICS,
            'example["checkpoints"] or [example["answer"]]', 'example["checkpoints"]',
            F + "a_solution_without_steps_is_asked_for_its_answer"),
    Mistake("steps are looked for in a rubric that has none", "grpo/checks/sections.py",
            'if prompt == "found" and rubric != STEPS:', 'if prompt == "found" and not rubric:',
            "tests/test_judged_reward.py::test_configs_that_make_no_sense"),
    Mistake("answers are compared in the rehearsal of a judge", REHEARSAL,
            "        del rewards.correct_answer  # nothing compares answers\n",
            "        pass\n", C + "a_rehearsal_is_the_same_in_small"),
    Mistake("the control of a judge is not shuffled", REHEARSAL,
            "    stages.shuffled.shuffle_rewards = True\n",
            "    stages.shuffled.shuffle_rewards = False\n",
            C + "the_control_differs_by_whose_reward_it_is"),
    Mistake("the judge that looks on is the one that is trained by", RAR,
            'base.reward(0.0, 0.0, 1.0, judge="look_on")',
            'base.reward(0.0, 0.0, 1.0, judge="rubric")', C + "rubrics_as_rewards"),
    Mistake("SimPO at the rate that ruins a model", PINOCCHIO,
            "learning_rate=5e-7", "learning_rate=1e-5", C + "pinocchio"),
]  # fmt: skip
