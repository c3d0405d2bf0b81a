"""Mistakes in what a run survives: kills, full disks, changed inputs, time that is up."""

from tests.mistakes import Mistake

TRAIN_STEP, LOOP = "grpo/training/train_step.py", "grpo/runs/stage_loop.py"
UPDATES = "tests/test_faults_updates.py"
SKIPPED = f"{UPDATES}::test_a_result_that_is_not_finite_is_skipped_bit_by_bit"
FIRST_ROW = "tests/test_faults_first_row.py"

MISTAKES = [
    Mistake("a trained tokenizer is written where it is read", "grpo/runs/open_policy.py",
            'replace(file, train_tokenizer(texts(), model["vocab"], model["whole"]))',
            'file.write_bytes(train_tokenizer(texts(), model["vocab"], model["whole"]))',
            f"{FIRST_ROW}::test_a_file_whose_draft_never_took_its_name"),
    Mistake("an environment.jsonl without a row ends every launch", "grpo/pipeline.py",
            "if rows and (changed := changes(rows[-1], here)):",
            "if changed := changes(rows[-1], here):",
            f"{FIRST_ROW}::test_a_journal_that_was_created_and_has_no_row"),
    Mistake("only loss and gradient are looked at", TRAIN_STEP,
            "    is_finite &= all_finite((trainable, opt_state))\n", "",
            f"{UPDATES}::test_a_run_whose_optimizer_makes_no_numbers_fails_and_saves_none"),
    Mistake("the optimizer's state may be anything", TRAIN_STEP,
            "all_finite((trainable, opt_state))", "all_finite(trainable)",
            SKIPPED),
    Mistake("the norm of the result is looked at", TRAIN_STEP,
            "all_finite((trainable, opt_state))", "jnp.isfinite(optax.tree.norm((trainable, opt_state)))",
            f"{UPDATES}::test_a_healthy_update_is_kept"),
    Mistake("parameters that are not finite are saved", LOOP,
            "if not self._finite(self.state.trainable):", "if False:",
            f"{UPDATES}::test_parameters_that_are_not_finite_are_never_saved"),
]  # fmt: skip
