"""Mistakes in what a token reads of a cache, and in rows that go on from a prompt."""

from tests.mistakes import Mistake

ATTENTION, CACHE = "models/cached_attention.py", "models/cache.py"
TESTS = "tests/test_cached_attention.py::"
HAND = f"{TESTS}test_rows_behind_prompts"
FAR = f"{TESTS}test_slots_are_read_up_to_the_next_size_beyond_those_filled"
WHOLE = f"{TESTS}test_completions_behind_a_prompt_equal_whole_rows"
STORED = f"{TESTS}test_a_stored_prompt_is_what_its_tokens_leave_in_an_empty_cache"

MISTAKES = [
    Mistake("all slots are read at every token", ATTENTION,
            "jnp.searchsorted(jnp.array(ends[:-1]), jnp.max(seen.place_BT) + 1)",
            "len(ends) - 1", FAR),
    Mistake("the slot of the token itself is not read", ATTENTION,
            "jnp.max(seen.place_BT) + 1)", "jnp.max(seen.place_BT))", FAR),
    Mistake("read as far as the shortest row", ATTENTION,
            "jnp.max(seen.place_BT) + 1)", "jnp.min(seen.place_BT) + 1)", FAR),
    Mistake("a chunk does not see the end of itself", ATTENTION,
            "return all_slots()", "return as_far_as(ends[-1] - 1)", HAND),
    Mistake("the prompt's scores are not capped", ATTENTION,
            'softcap(group_product("PKRH,PKHI->PKRI", q_BKTQH, keys.prompt.k_BKHS), cap)',
            'group_product("PKRH,PKHI->PKRI", q_BKTQH, keys.prompt.k_BKHS)', HAND),
    Mistake("a prompt's padding is seen", ATTENTION,
            "    score_BKTQI += unseen(seen.prompt_BTI)\n", "", HAND),
    Mistake("rows read the prompt of another group", ATTENTION,
            '"(P G) K T Q X -> P K (G T Q) X"', '"(G P) K T Q X -> P K (G T Q) X"', HAND),
    Mistake("a softmax for the prompt and one for the rest", ATTENTION,
            "(weight_BKTQI, weight_BKTQS), total_BKTQ1 = weights(score_BKTQI, score_BKTQS)",
            "(weight_BKTQI,), _ = weights(score_BKTQI)\n"
            "    (weight_BKTQS,), total_BKTQ1 = weights(score_BKTQS)", HAND),
    Mistake("rows that hold their prompts never go through their kernel", ATTENTION,
            "return attend(q_BTNH, k_BKHS, v_BKSH, own_BTS, cap)", "return jnp.zeros_like(q_BTNH)",
            f"{TESTS}test_rows_that_hold_their_prompts_go_through_their_kernel"),
    Mistake("twice as many slots as the size before", ATTENTION,
            "if size < slots), slots]", "if size < slots // 2), slots]",
            f"{TESTS}test_how_far_may_be_read"),
    Mistake("positions begin anew behind a prompt", "models/gemma.py",
            "place_BT + cache.start_B[:, None]", "place_BT + 0 * cache.start_B[:, None]", WHOLE),
    Mistake("the prompt is out of sight in a window", "models/gemma.py",
            "prompt_BTI = visible(position_BT, prompt_BI, window)",
            "prompt_BTI = visible(place_BT, prompt_BI, window)", WHOLE),
    Mistake("a local layer keeps the first columns of a prompt", CACHE,
            "read = LayerCache(read.k_BKHS[..., -w:], read.v_BKSH[:, :, -w:])",
            "read = LayerCache(read.k_BKHS[..., :w], read.v_BKSH[:, :, :w])", WHOLE),
    Mistake("a local layer keeps the whole prompt", CACHE,
            "            w = config.window\n", "            w = 0\n", WHOLE),
    Mistake("a stored prompt counts its padding", CACHE,
            "length_B=jnp.max(prompt.position_PI, axis=1) + 1",
            "length_B=jnp.full(prompts, columns, jnp.int32)", STORED),
    Mistake("a prompt of each row leaves no room for its completion", "grpo/rollout/sampler.py",
            "stored(prompt, config, max_new_tokens))", "stored(prompt, config))",
            "tests/test_sampler.py::test_a_row_is_the_same_on_any_mesh"),
    Mistake("a prompt is stored by its columns", CACHE,
            "write(slots, read, prompt.position_PI)",
            "write(slots, read, jnp.broadcast_to(jnp.arange(columns), prompt.position_PI.shape))",
            STORED),
]  # fmt: skip
