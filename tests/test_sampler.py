"""Completions: against plain decoding, against the trainer, and at every edge of stopping."""

import dataclasses
import functools
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.distribution import Sampling
from grpo.data.padding import PromptTooLongError, pad_prompts
from grpo.rollout import sampler
from grpo.rollout.sampler import decoding_params, rollout, row_keys
from grpo.training.logprobs import Logprobs
from models.gemma import Gemma, unstack
from models.lora import LoraConfig, init_adapter, merge
from models.sharding import make_mesh, shardings
from tests.helpers import SHALLOW, TINY, greedy, left_padded, shallow_params, tiny_params

GREEDY = Sampling(0.0, 0, 1.0, 0.0)
PLAIN = Sampling(1.0, 0, 1.0, 0.0)
NEVER = np.array([1000, 1001], np.int32)
IDS, MASK = left_padded([5, 9, 3, 1], 9)
GROUP, NEW = 3, 14  # nine prompt tokens and fourteen more: beyond the window of eight


def roll(
    sampling=PLAIN, stop=NEVER, ids=IDS, mask=MASK, rows=None, group=GROUP, new=NEW,
    dtype="float32", mesh=None, seed=1, params=None,
):  # fmt: skip
    """A rollout of the shallow model, as NumPy."""
    params = shallow_params(dtype) if params is None else params
    weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.dtype(dtype), mesh=mesh)
    module = Gemma(SHALLOW, jnp.dtype(dtype), mesh=mesh)
    keys = row_keys(
        seed, "train", 0, np.arange(len(ids) * group) if rows is None else np.asarray(rows)
    )
    got = rollout(module, weights, ids, mask, keys, sampling, stop, group=group, max_new_tokens=new)
    return jax.tree.map(np.asarray, got)


def trainer_logprob(got, temperature, dtype="float32", params=None):
    """The same completions scored by the training graph."""
    module = Gemma(SHALLOW, jnp.dtype(dtype))
    scorer = Logprobs(module=module, temperature=temperature, with_entropy=False)
    ids, mask = got.ids_BT, got.mask_BT
    variables = {"params": shallow_params(dtype) if params is None else params}
    return np.asarray(jax.jit(scorer, static_argnums=3)(variables, ids, mask, NEW)[0])


@pytest.mark.parametrize("family", TINY)
def test_greedy_is_plain_greedy_decoding(family):
    """Each prompt by itself, without padding, through the cache one token at a time."""
    config, params = TINY[family], tiny_params(family)
    weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.float32, mesh=None)
    got = rollout(
        Gemma(config), weights, IDS, MASK, row_keys(0, "train", 0, np.arange(8)), GREEDY, NEVER,
        group=2, max_new_tokens=NEW,
    )  # fmt: skip
    for ids, mask, completions in zip(
        IDS, MASK, np.reshape(got.completion_ids_BC, (4, 2, NEW)), strict=True
    ):
        want = greedy(config, params, ids[mask == 1][None], NEW, capacity=IDS.shape[1] + NEW)
        np.testing.assert_array_equal(completions, np.repeat(want, 2, axis=0))


CUTS = {"": (0, 1.0, 0.0), "top-k": (5, 1.0, 0.0), "top-p": (0, 0.8, 0.0), "min-p": (0, 1.0, 0.1)}


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("cut", CUTS)
def test_sampler_and_trainer_say_the_same(temperature, cut):
    got = roll(Sampling(temperature, *CUTS[cut]), stop=np.array([7, 40, 41], np.int32))
    gap = np.abs(trainer_logprob(got, temperature) - got.sample_logprob_BC)
    assert gap[got.completion_mask_BC].max() <= 1e-5
    assert got.sample_logprob_BC[got.completion_mask_BC].min() < -0.5


@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_in_bfloat16_they_agree_within_a_hundredth(temperature, stored):
    """Computing in bfloat16, whatever the weights are stored in."""
    params = shallow_params(stored)
    got = roll(Sampling(temperature, 0, 1.0, 0.0), dtype="bfloat16", params=params)
    gap = np.abs(trainer_logprob(got, temperature, "bfloat16", params) - got.sample_logprob_BC)
    assert gap.mean() < 1e-2


def test_an_adapter_is_merged():
    lora, params = LoraConfig(rank=3, alpha=6), shallow_params()
    adapter = jax.tree.map(lambda x: x + 0.05, init_adapter(lora, params, jax.random.key(0)))
    weights = decoding_params(params, adapter, lora_scale=lora.scale, dtype=jnp.float32, mesh=None)
    got = rollout(
        Gemma(SHALLOW), weights, IDS, MASK, row_keys(0, "train", 0, np.arange(12)), PLAIN, NEVER,
        group=GROUP, max_new_tokens=NEW,
    )  # fmt: skip
    scorer = Logprobs(
        module=Gemma(SHALLOW, lora_scale=lora.scale), temperature=1.0, with_entropy=False
    )
    ids, mask = got.ids_BT, got.mask_BT
    with_adapter = {"params": params, "lora": adapter}
    score = jax.jit(scorer, static_argnums=3)
    assert np.abs(score(with_adapter, ids, mask, NEW)[0] - got.sample_logprob_BC).max() <= 1e-5
    assert np.abs(score({"params": params}, ids, mask, NEW)[0] - got.sample_logprob_BC).max() > 0.1


def test_in_bfloat16_a_young_adapter_is_not_rounded_away():
    """A difference far below the spacing of bfloat16 numbers near the weights."""
    lora, params = LoraConfig(rank=3, alpha=6), shallow_params("bfloat16")
    adapter = jax.tree.map(lambda x: x + 1e-4, init_adapter(lora, params, jax.random.key(0)))
    weights = decoding_params(params, adapter, lora_scale=lora.scale, dtype=jnp.bfloat16, mesh=None)
    merged = merge(params, adapter, lora.scale)["layers"]["mlp"]["up"]["w"]
    assert (merged == params["layers"]["mlp"]["up"]["w"]).mean() > 0.9  # what merging would do
    for layer, (got, mine) in enumerate(
        zip(weights["lora"]["layers"], unstack(adapter)["layers"], strict=True)
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x, y.astype(jnp.bfloat16)), got, mine
        )
        assert (weights["params"]["layers"][layer]["mlp"]["up"]["w"]
                == params["layers"]["mlp"]["up"]["w"][layer]).all()  # fmt: skip
    # And it is applied: the completions are scored as the trainer scores them with the adapter.
    big = jax.tree.map(lambda x: x + 0.05, adapter)
    weights = decoding_params(params, big, lora_scale=lora.scale, dtype=jnp.bfloat16, mesh=None)
    module = Gemma(SHALLOW, jnp.bfloat16, lora_scale=lora.scale)
    got = rollout(
        module, weights, IDS, MASK, row_keys(0, "train", 0, np.arange(12)), PLAIN, NEVER,
        group=GROUP, max_new_tokens=NEW,
    )  # fmt: skip
    scorer = jax.jit(Logprobs(module=module, temperature=1.0, with_entropy=False), static_argnums=3)
    ids, mask = got.ids_BT, got.mask_BT
    for variables, limit in (({"params": params, "lora": big}, 2e-2), ({"params": params}, None)):
        gap = np.abs(scorer(variables, ids, mask, NEW)[0] - got.sample_logprob_BC).mean()
        assert gap < limit if limit else gap > 0.1


def test_a_group_shares_one_prefill():
    shared = roll()
    apart = roll(ids=np.repeat(IDS, GROUP, 0), mask=np.repeat(MASK, GROUP, 0), group=1)
    np.testing.assert_array_equal(shared.completion_ids_BC, apart.completion_ids_BC)
    np.testing.assert_allclose(shared.sample_logprob_BC, apart.sample_logprob_BC, atol=1e-5)
    assert len({tuple(row) for row in shared.completion_ids_BC}) == 12  # every row its own key


def test_a_row_is_the_same_in_any_batch():
    got = roll()
    for prompts in ([0], [2, 3], [1, 0, 3]):
        rows = [GROUP * p + g for p in prompts for g in range(GROUP)]
        some = roll(ids=IDS[prompts], mask=MASK[prompts], rows=rows)
        np.testing.assert_array_equal(some.completion_ids_BC, got.completion_ids_BC[rows])


@pytest.mark.parametrize(("fsdp", "tp"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_a_row_is_the_same_on_any_mesh(fsdp, tp):
    mesh = make_mesh(fsdp, tp)
    params = jax.device_put(shallow_params(), shardings(shallow_params(), mesh))
    got, alone = roll(mesh=mesh, group=4, params=params), roll(group=4)
    np.testing.assert_array_equal(got.completion_ids_BC, alone.completion_ids_BC)
    np.testing.assert_allclose(got.sample_logprob_BC, alone.sample_logprob_BC, atol=1e-5)


def test_seeds_steps_rows_and_tokens_draw_differently():
    keys = [row_keys(seed, "train", step, np.arange(4)) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(k) for key in keys for k in np.asarray(jax.random.key_data(key))}) == 16
    assert (roll(seed=1).completion_ids_BC == roll(seed=1).completion_ids_BC).all()
    assert (roll(seed=1).completion_ids_BC != roll(seed=2).completion_ids_BC).any()
    flat = roll(Sampling(1e4, 0, 1.0, 0.0)).completion_ids_BC  # every token as likely as any
    assert min(len(set(row)) for row in flat) > NEW / 2


@pytest.mark.parametrize(("fsdp", "tp"), [(8, 1), (4, 2)])
def test_decoding_gathers_no_weights(fsdp, tp):
    """Its weights are whole along fsdp, and the loop's program has no gather as large as one."""
    mesh = make_mesh(fsdp, tp)
    params = jax.device_put(shallow_params(), shardings(shallow_params(), mesh))
    weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.float32, mesh=mesh)
    for leaf in jax.tree.leaves(weights):
        assert "fsdp" not in leaf.sharding.spec
    keys = row_keys(0, "train", 0, np.arange(16))
    lowered = rollout.lower(
        Gemma(SHALLOW, mesh=mesh), weights, IDS, MASK, keys, PLAIN, NEVER,
        group=4, max_new_tokens=NEW,
    )  # fmt: skip
    program = lowered.compile().as_text()
    assert program
    in_loop = [line for line in program.splitlines() if "while/body" in line]
    assert any(" fusion(" in line for line in in_loop)
    gathered = [line for line in in_loop if re.search(r"\ball-gather(-start)?\(", line)]
    # The heads' logits are cut over tp, and gathered to be drawn from; over fsdp nothing is.
    assert tp > 1 or gathered == []
    smallest = min(leaf.size for leaf in jax.tree.leaves(weights) if leaf.ndim > 1)
    for line in gathered:
        shape = re.search(r"\[([\d,]*)\]", line)
        assert shape and math.prod(map(int, shape[1].split(","))) < smallest, line


def test_the_cache_is_cut_over_tp_and_never_gathered():
    """Rows over fsdp, the two key/value heads over tp: so the loop has it, and what fills it."""
    mesh = make_mesh(2, 2)
    params = jax.device_put(shallow_params(), shardings(shallow_params(), mesh))
    weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.float32, mesh=mesh)
    keys = row_keys(0, "train", 0, np.arange(16))
    lowered = rollout.lower(
        Gemma(SHALLOW, mesh=mesh), weights, IDS, MASK, keys, PLAIN, NEVER,
        group=4, max_new_tokens=NEW,
    )  # fmt: skip
    program = str(lowered.compile().as_text()).splitlines()
    rows = [f"f32[8,1,16,{slots}]" for slots in (SHALLOW.window, NEW)]
    prompts = [f"f32[2,1,16,{columns}]" for columns in (SHALLOW.window, IDS.shape[1])]
    loop = [
        line for line in program if re.search(r" while\(", line) and "jit(rollout)/while" in line
    ]
    for keys in rows + prompts:
        values = re.sub(r"16,(\d+)", r"\1,16", keys)
        assert any(line.count(keys) == 1 and line.count(values) == 1 for line in loop)
    gathers = [line for line in program if re.search(r"\ball-gather(-start)?\(", line)]
    assert gathers and not [line for line in gathers if re.search(r"f32\[[\d,]+,16[\],]", line)]


def test_padding_moves_nothing():
    wide = roll(ids=np.pad(IDS, ((0, 0), (7, 0))), mask=np.pad(MASK, ((0, 0), (7, 0))))
    got = roll()
    np.testing.assert_array_equal(wide.completion_ids_BC, got.completion_ids_BC)
    np.testing.assert_allclose(wide.sample_logprob_BC, got.sample_logprob_BC, atol=1e-5)


def expected_stop(ids_BC: np.ndarray, stop) -> np.ndarray:
    """The mask that follows from the tokens drawn without stopping."""
    lengths = [
        next((c + 1 for c, token in enumerate(row) if token in stop), len(row)) for row in ids_BC
    ]
    return np.arange(ids_BC.shape[1])[None, :] < np.array(lengths)[:, None]


def last_is_new(ids_BC: np.ndarray) -> int:
    """A row whose last token is none of those before."""
    return next(row for row, ids in enumerate(ids_BC) if ids[-1] not in ids[:-1])


@pytest.mark.parametrize(
    "choose",
    [
        lambda ids: [ids[0, 0]],  # the first token
        lambda ids: [ids[last_is_new(ids), -1]],  # the last slot
        lambda ids: [ids[0, -2], ids[3, 4]],  # several ids
        lambda ids: list(ids[:, 0]),  # all rows at once, at the start
        lambda ids: list(ids[:, 5]),
        lambda ids: [1000],  # never
    ],
    ids=["first", "last", "two ids", "all at once", "all by the sixth", "never"],
)
def test_stopping(choose):
    free = roll()
    stop = np.resize(np.array(choose(free.completion_ids_BC), np.int32), 12)
    got = roll(stop=stop)
    mask = expected_stop(free.completion_ids_BC, set(stop.tolist()))
    np.testing.assert_array_equal(got.completion_mask_BC, mask)
    np.testing.assert_array_equal(got.completion_ids_BC, free.completion_ids_BC * mask)
    np.testing.assert_array_equal(got.sample_logprob_BC * ~mask, 0)
    ended = np.array(
        [bool(set(row[m]) & set(stop)) for row, m in zip(free.completion_ids_BC, mask, strict=True)]
    )
    np.testing.assert_array_equal(got.truncated_B, ~ended)


def test_a_stop_token_in_the_last_slot_is_not_truncated():
    free = roll()
    row = last_is_new(free.completion_ids_BC)
    last = free.completion_ids_BC[row, -1]
    got = roll(stop=np.array([last, 1000], np.int32))
    assert (
        got.completion_mask_BC[row].sum()
        == expected_stop(free.completion_ids_BC, {last})[row].sum()
        == NEW
    )
    assert not got.truncated_B[row]


def test_tokens_like_padding_are_tokens():
    """Token 0 pads; where it was drawn it counts like any other."""
    got = roll(Sampling(50.0, 0, 1.0, 0.0), group=40)
    assert (got.completion_ids_BC == 0).sum() > 3
    assert got.completion_mask_BC.all()
    stopped = roll(Sampling(50.0, 0, 1.0, 0.0), group=40, stop=np.array([0, 1000], np.int32))
    assert (~stopped.truncated_B).sum() > 3
    lengths = stopped.completion_mask_BC.sum(1)[~stopped.truncated_B]
    rows = np.flatnonzero(~stopped.truncated_B)
    assert (got.completion_ids_BC[rows, lengths - 1] == 0).all()


@pytest.mark.parametrize("new", [1, 2])
def test_exactly_so_many_tokens(new):
    got = roll(new=new)
    assert got.completion_mask_BC.shape == (12, new) and got.completion_mask_BC.all()
    assert got.truncated_B.all()
    np.testing.assert_array_equal(got.completion_ids_BC, roll().completion_ids_BC[:, :new])


@pytest.mark.parametrize(("stop_at", "forwards"), [(0, 1), (5, 6), (None, NEW)])
def test_decoding_ends_with_the_last_row_and_feeds_no_last_token(monkeypatch, stop_at, forwards):
    seen = []
    unembed = sampler.unembed

    def counted(config, params, hidden_BTD):
        jax.debug.callback(lambda: seen.append(hidden_BTD.shape[1]))
        return unembed(config, params, hidden_BTD)

    free = roll(GREEDY, group=1, ids=IDS[:1], mask=MASK[:1]).completion_ids_BC[0]
    first = NEW if stop_at is None else list(free).index(free[stop_at])
    stop = NEVER if stop_at is None else np.array([free[stop_at], 1000], np.int32)
    monkeypatch.setattr(sampler, "unembed", counted)
    weights = decoding_params(shallow_params(), None, lora_scale=0.0, dtype=jnp.float32, mesh=None)
    run = functools.partial(inspect.unwrap(rollout), group=1, max_new_tokens=NEW)
    keys = row_keys(1, "train", 0, np.arange(1))
    jax.block_until_ready(run(Gemma(SHALLOW), weights, IDS[:1], MASK[:1], keys, GREEDY, stop))
    jax.effects_barrier()
    assert seen == [1] * min(forwards, first + 1)  # and of the prompt, one position's logits only


def test_weights_settings_and_stop_ids_are_arguments():
    """One program serves new weights, temperatures and stop ids, and uses them."""
    traced = []
    scaled = jax.tree.map(lambda x: x * 1.1, shallow_params())

    def run(*given):
        traced.append(1)
        return inspect.unwrap(rollout)(*given, group=1, max_new_tokens=4)

    step = jax.jit(run, static_argnums=0)
    got = []
    for params in (shallow_params(), scaled):
        weights = decoding_params(params, None, lora_scale=0.0, dtype=jnp.float32, mesh=None)
        for sampling in (PLAIN, GREEDY, Sampling(0.5, 3, 0.9, 0.1)):
            for stop in (NEVER, np.array([5, 6], np.int32)):
                keys = row_keys(0, "train", 0, np.arange(4))
                out = step(Gemma(SHALLOW), weights, IDS, MASK, keys, sampling, stop)
                got.append(float(jnp.sum(out.sample_logprob_BC)))
    assert len(traced) == 1 and len(set(got)) == 6


def test_prompts_go_to_the_smallest_bucket():
    ids_PI, mask_PI = pad_prompts([[5, 6], [7, 8, 9]], [8, 4])
    assert ids_PI.tolist() == [[0, 0, 5, 6], [0, 7, 8, 9]]
    assert mask_PI.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]
    with pytest.raises(PromptTooLongError, match="prompt 1 has 9 tokens, the longest bucket 8"):
        pad_prompts([[1], list(range(9))], [4, 8])
    with pytest.raises(ValueError, match="prompt 0 has no tokens"):
        pad_prompts([[]], [4])


def test_a_window_larger_than_everything():
    wide = dataclasses.replace(SHALLOW, window=64)
    weights = decoding_params(shallow_params(), None, lora_scale=0.0, dtype=jnp.float32, mesh=None)
    got = rollout(
        Gemma(wide), weights, IDS, MASK, row_keys(1, "train", 0, np.arange(4)), GREEDY, NEVER,
        group=1, max_new_tokens=NEW,
    )  # fmt: skip
    np.testing.assert_array_equal(
        got.completion_ids_BC[0], greedy(wide, shallow_params(), IDS[:1, 4:], NEW)[0]
    )
