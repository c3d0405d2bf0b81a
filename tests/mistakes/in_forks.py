"""Mistakes in rows that fork, and in what keeps groups together."""

from tests.mistakes import Mistake

FORKS, PARTS = "models/forks.py", "grpo/training/parts.py"
SAME = "tests/test_forks.py::test_logprobs_are_those_of_rows_of_their_own"
POSITIONS = "tests/test_forks.py::test_positions_go_on_from_the_prompt"
SEES = "tests/test_forks.py::test_who_sees_whom"
KEEPS = "tests/test_forks.py::test_what_a_stage_keeps_together"
GROUPS = "tests/test_forks.py::test_groups_stay_together"

MISTAKES = [
    Mistake("a forked row has the prompt's tokens of no completion", FORKS,
            "x_PGT[:, 0, : -fork.completion]", "x_PGT[:, 0, 1 : -fork.completion + 1]",
            "tests/test_forks.py::test_a_group_is_one_row"),
    Mistake("completions begin at position zero", FORKS,
            "place_PGC = length_P11 + ", "place_PGC = 0 * length_P11 + ", POSITIONS),
    Mistake("completions of a group go on from each other", FORKS,
            "jnp.cumsum(mask_PGC, axis=2)",
            "jnp.cumsum(completions_PT, axis=1).reshape(mask_PGC.shape)", POSITIONS),
    Mistake("padding of a forked row has a position", FORKS,
            "jnp.where(mask_PT > 0, place_PT - 1, -1)", "place_PT - 1", POSITIONS),
    Mistake("completions do not see the prompt", FORKS,
            "jnp.concatenate([prompt_BI, position_BC], axis=1)",
            "jnp.concatenate([0 * prompt_BI - 1, position_BC], axis=1)", SEES),
    Mistake("a completion has no window", FORKS,
            "visible(position_BC, key_BS, window)", "visible(position_BC, key_BS, None)", SEES),
    Mistake("completions read the keys of another prompt", FORKS,
            'repeat(k_PKHI, "P K H I -> (P G) K H I", G=fork.group)',
            'repeat(k_PKHI[::-1], "P K H I -> (P G) K H I", G=fork.group)', SAME),
    Mistake("completions of a group exchange their values", FORKS,
            '"P K (G C) H -> (P G) K C H", **behind)',
            '"P K (G C) H -> (P G) K C H", **behind)[::-1]', SAME),
    Mistake("a first token is scored by the state behind it", FORKS,
            "[first_PG1D, hidden_PGCD[:, :, :-1]]", "[hidden_PGCD[:, :, :1], hidden_PGCD[:, :, :-1]]",
            "tests/test_forks.py::test_the_state_before_each_token"),
    Mistake("microbatches cut groups", PARTS,
            '"(b m g) ... -> m (b g) ..."', '"(b g m) ... -> m (b g) ..."', GROUPS),
    Mistake("rows of parts are joined in another order", PARTS,
            '"m (b g) ... -> (b m g) ..."', '"m (b g) ... -> (m b g) ..."', GROUPS),
    Mistake("log-probs in parts forget the groups", "grpo/training/logprobs.py",
            "parts=parts, group=logprobs.group)", "parts=parts)",
            "tests/test_forks.py::test_rows_in_parts"),
    Mistake("an update forgets the groups", "grpo/training/train_step.py",
            "microbatches, group)\n    grad_norm", "microbatches)\n    grad_norm",
            "tests/test_forks.py::test_an_update_in_microbatches"),
    Mistake("devices are not counted when groups are cut", "grpo/runs/iteration_programs.py",
            "// (parts * devices)", "// parts", KEEPS),
    Mistake("whether prompts are shared is not read", "grpo/runs/iteration_programs.py",
            "if policy.share_prompts else 1", "if True else 1", KEEPS),
    Mistake("updates of a stage are not told of the groups", "grpo/runs/iteration_programs.py",
            "            group=logprobs.group,\n", "",
            "tests/test_forks.py::test_every_program_of_a_stage_shares_prompts"),
    Mistake("a tall weight's gradient is turned the wrong way", "models/attention.py",
            "jax.lax.optimization_barrier(flipped_grad).T",
            "jax.lax.optimization_barrier(flipped_grad.reshape(y.shape))",
            "tests/test_contract.py::test_values_and_gradients"),
    Mistake("all weights' gradients flip", "models/attention.py",
            "if y.ndim == 2 and y.shape[0] > y.shape[1]:", "if y.ndim == 2:",
            "tests/test_contract.py::test_a_cpu_does_not_copy_the_larger_side"),
]  # fmt: skip
