"""In going back to updates of supervised training and of preferences."""

from tests.mistakes import Mistake

PLACE, AGAIN, VERIFY = (f"grpo/replays/{name}.py" for name in ("place", "again", "verify"))
SCRATCH = "grpo/replays/scratch.py"
SFT, PAIRS, KIND = (f"grpo/replays/kinds/{name}.py" for name in ("sft", "preference", "kind"))
T = "tests/test_replay_stages.py::test_"
BITS = T + "any_update_is_made_again_bit_by_bit"
BESIDE = T + "an_update_under_other_fields_is_that_of_a_run_with_them"
REFERENCE = T + "what_the_reference_said_is_compared_where_the_stage_begins"
EXAMPLES = T + "examples_of_an_update_are_told"

MISTAKES = [
    Mistake("what the run's reference said is not made again", SCRATCH,
            "if found.path is not None and file.exists():", "if file.exists():", REFERENCE),
    Mistake("what the reference said does not go with a checkpoint", SCRATCH,
            "if found.path is not None and file.exists():", "if not file:", REFERENCE),
    Mistake("a stage writes into the run's own folder", SCRATCH,
            "if path in folders:", "if path in own:", REFERENCE),
    Mistake("what the reference said is not compared", VERIFY,
            "if found.path is None and there.exists() and here.exists():", "if False:", BITS),
    Mistake("another update is held to the run's reference", AGAIN,
            "    forget(scratch, config)\n", "", BESIDE),
    Mistake("what the reference says does not depend on which it is", PAIRS,
            '("reference", "microbatches")}', '("microbatches",)}', BESIDE),
    Mistake("prompts of solutions are shown as learnt", SFT,
            "is_mine_T[-C:] & np.asarray(rows.weight_BC[row] > 0)", "is_mine_T[-C:]", EXAMPLES),
    Mistake("a packed row is one example", SFT,
            "is_mine_T = mask_T == number", "is_mine_T = mask_T >= number", EXAMPLES),
    Mistake("solutions are learnt with their prompts in a forecast", SFT,
            "rows.mask_BT, rows.weight_BC > 0)", "rows.mask_BT, rows.weight_BC >= 0)", EXAMPLES),
    Mistake("the rejected completion is shown as the chosen one", PAIRS,
            'SIDES = ("chosen", "rejected")', 'SIDES = ("rejected", "chosen")',
            T + "pairs_of_an_update_are_told"),
    Mistake("log-probs of given texts at a temperature", KIND,
            "temperature=1.0, with_entropy=False", "temperature=0.7, with_entropy=False",
            T + "log_probs_of_tokens_against_logits"),
    Mistake("more examples are a change of the update alone", SFT,
            'may=("optimizer", "microbatches")', 'may=("optimizer", "microbatches", "batch")',
            T + "a_change_that_makes_no_sense_is_one_line"),
    Mistake("rewards are looked for where there are none", "grpo/replays/looked_into.py",
            "if wanted.by_reward and not place.kind.samples:", "if False:", T + "the_command"),
    Mistake("the first stage is meant where none is named", PLACE,
            "if len(only) == 1:", "if only:", T + "which_stage_is_meant"),
]
