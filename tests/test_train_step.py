"""One update: the same for any cut of the batch and any mesh, in every mode; what may not move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo.algorithms.advantages import advantages
from grpo.algorithms.groups import Groups
from grpo.algorithms.losses import policy_loss
from grpo.algorithms.metrics import Metrics
from grpo.training.logprobs import Logprobs, make_policy_loss
from grpo.training.optimizer import make_optimizer
from grpo.training.train_step import gradient, init_state, make_train_step
from models.gemma import Gemma
from models.lora import LoraConfig, init_adapter
from models.policy import variables_of
from models.sharding import make_mesh, row_sharding, shardings
from tests.helpers import SHALLOW, left_padded, shallow_params, tiny_ids, weighed
from tests.test_losses import VARIANTS

PROMPT, C, ROWS, LIMIT = 6, 7, 8, 9
LORA = LoraConfig(rank=3, alpha=6)
MODULE = Gemma(SHALLOW, lora_scale=LORA.scale)


@functools.cache
def adapter():
    """An adapter whose both factors are in play."""
    fresh = init_adapter(LORA, shallow_params(), jax.random.key(0))
    leaves, structure = jax.tree.flatten(fresh)
    random = np.random.RandomState(5)
    drawn = [jnp.asarray(random.standard_normal(x.shape) * 0.1, x.dtype) for x in leaves]
    return jax.tree.unflatten(structure, drawn)


@functools.cache
def rollout_like():
    """Ragged completions of padded prompts, with everything a loss may ask for."""
    random = np.random.RandomState(0)
    prompt, prompt_mask = left_padded([3, 6, 1, 5, 6, 2, 4, 6], PROMPT)
    completion = tiny_ids(ROWS, C, seed=1)
    lengths = np.array([7, 1, 4, 7, 2, 0, 5, 3])
    mask = (np.arange(C)[None, :] < lengths[:, None]).astype(np.int32)
    ids, masks = np.concatenate([prompt, completion], 1), np.concatenate([prompt_mask, mask], 1)
    scorer = Logprobs(module=MODULE, temperature=0.9, with_entropy=False)
    logprob = np.asarray(
        jax.jit(scorer, static_argnums=3)(
            {"params": shallow_params(), "lora": adapter()}, ids, masks, C
        )[0]
    )

    def noise():
        return np.float32(logprob + random.standard_normal((ROWS, C)) * 0.6)

    return {
        "ids": ids, "mask": masks, "completion": mask, "truncated": lengths == C,
        "advantage": np.array([1, -1, -0.5, -0.8, 1.2, -0.3, -1.1, 0.7], np.float32),
        "old": noise(), "ref": noise(), "sample": noise(), "teacher": noise(),
    }  # fmt: skip


def batch_of(objective, data) -> Groups:
    return weighed(
        ids_BT=data["ids"], mask_BT=data["mask"],
        completion_mask_BC=data["completion"], truncated_B=data["truncated"],
        advantage_B=data["advantage"], old_logprob_BC=data["old"], ref_logprob_BC=data["ref"],
        sample_logprob_BC=data["sample"], teacher_logprob_BC=data["teacher"],
        limit=LIMIT, objective=objective,
    )  # fmt: skip


def padded(rows=0, prompt=0, completion=0) -> dict:
    """The same data with padding rows and columns."""
    data = dict(rollout_like())
    for name, x in data.items():
        if x.ndim == 2 and name in ("ids", "mask"):
            x = np.pad(x, ((0, rows), (prompt, completion)))
        else:
            x = np.pad(x, ((0, rows),) + ((0, completion),) * (x.ndim - 1))
        data[name] = x
    return data


def reordered(order) -> dict:
    return {name: x[order] for name, x in rollout_like().items()}


def all_modes_loss(scorer: Logprobs):
    """Every variant's loss from one forward pass, mixed by the batch's own coefficients.

    One program per cut of the batch then serves all modes.
    """

    def loss(trainable, frozen, batch):
        coefficients, groups, weights = batch
        variables = variables_of(trainable, frozen)
        completion = groups.completion_mask_BC.shape[1]
        logprob, entropy = scorer(variables, groups.ids_BT, groups.mask_BT, completion)
        total, metrics = jnp.float32(0.0), Metrics({}, {})
        for i, (name, objective) in enumerate(VARIANTS.items()):
            weighed_groups = groups._replace(weight_BC=weights[name])
            # The coefficient of a mode stands in every row: the first is as good as any.
            value, got = policy_loss(logprob, entropy, weighed_groups, objective=objective)
            total = total + coefficients[0, i] * value
            metrics = Metrics({**metrics.sums, **got.sums}, {**metrics.tops, **got.tops})
        return total, Metrics({**metrics.sums, "loss": total}, metrics.tops)

    return loss


def mixed_batch(data, name):
    """A batch for `all_modes_loss` with the coefficients of one mode."""
    batches = {mode: batch_of(objective, data) for mode, objective in VARIANTS.items()}
    weights = {mode: batch.weight_BC for mode, batch in batches.items()}
    one_hot = np.array([[mode == name for mode in VARIANTS]], np.float32)
    return np.repeat(one_hot, len(data["ids"]), 0), batches[name], weights


@functools.cache
def compiled(microbatches, mesh):
    """The gradient's program for a cut; batches of the same shapes share it."""
    module = dataclasses.replace(MODULE, mesh=make_mesh(*mesh) if mesh else None)
    loss = all_modes_loss(Logprobs(module=module, temperature=0.9, with_entropy=True))

    def run(trainable, frozen, batch):
        return gradient(loss, trainable, frozen, batch, microbatches)

    return jax.jit(run), module.mesh


def grads_of(name, data=None, microbatches=1, mesh=None):
    run, mesh = compiled(microbatches, mesh)
    trainable, frozen = adapter(), shallow_params()
    if mesh is not None:
        trainable = jax.device_put(trainable, shardings(trainable, mesh))
        frozen = jax.device_put(frozen, shardings(frozen, mesh))
    grads, metrics = run(trainable, frozen, mixed_batch(data or rollout_like(), name))
    return jax.tree.map(np.asarray, (grads, metrics.flat()))


@functools.cache
def reference(name):
    return grads_of(name)


def assert_same(got, want):
    """Gradients within 1e-5 of the largest of their leaf, metrics within 1e-5."""
    for a, b in zip(jax.tree.leaves(got[0]), jax.tree.leaves(want[0]), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()
        assert np.abs(b).max() > 1e-5
    for key in want[1]:
        np.testing.assert_allclose(got[1][key], want[1][key], rtol=1e-5, atol=1e-6, err_msg=key)


CUTS = {
    "2 microbatches": {"microbatches": 2},
    "4 microbatches": {"microbatches": 4},
    "8 microbatches": {"microbatches": 8},
    "3 microbatches, ragged": {"microbatches": 3},
    "5 microbatches, ragged": {"microbatches": 5},
    "padding rows": {"data": lambda: padded(rows=3)},
    "padding prompt columns": {"data": lambda: padded(prompt=4)},
    "padding completion columns": {"data": lambda: padded(completion=5)},
    "row order": {"data": lambda: reordered([3, 0, 7, 1, 6, 2, 5, 4])},
    "mesh (1, 1)": {"mesh": (1, 1)},
    "mesh (8, 1)": {"mesh": (8, 1)},
    "mesh (4, 2)": {"mesh": (4, 2)},
    "mesh (2, 4)": {"mesh": (2, 4)},
    "mesh (4, 2), 2 microbatches": {"mesh": (4, 2), "microbatches": 2},
}


@pytest.mark.parametrize("cut", CUTS)
def test_no_cut_changes_a_gradient_in_any_mode(cut):
    options = dict(CUTS[cut])
    if "data" in options:
        options["data"] = options["data"]()
    for name in VARIANTS:
        assert_same(grads_of(name, **options), reference(name))


def test_modes_differ():
    """Else the invariance of one would stand for all; rows that are the same loss are named."""
    flat = {
        name: np.concatenate([g.ravel() for g in jax.tree.leaves(reference(name)[0])])
        for name in VARIANTS
    }
    same = {
        frozenset((a, b))
        for a in flat
        for b in flat
        if a < b and np.allclose(flat[a], flat[b], rtol=1e-3, atol=1e-7)
    }
    equal = (
        ("grpo", "k3", "token_sequence"),  # one and the same, under three names
        ("dapo", "reinforce_pp", "maxrl"),  # these differ in advantages
    )
    assert same == {frozenset((a, b)) for names in equal for a in names for b in names if a != b}


OPTIONS = {
    "b1": 0.9, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.1, "decayed": ".*", "clip_norm": 0.1,
}  # fmt: skip


def optimizer(rate=1e-2):
    return make_optimizer(learning_rate=optax.constant_schedule(rate), **OPTIONS)


def stepper(is_adapter=True, mesh=None, microbatches=2, objective=VARIANTS["grpo"]):
    """(state, frozen, step) for the shallow model."""
    module = dataclasses.replace(MODULE, mesh=mesh)
    scorer = Logprobs(module=module, temperature=0.9, with_entropy=False)
    loss = make_policy_loss(scorer, objective)
    trainable, frozen = (adapter(), shallow_params()) if is_adapter else (shallow_params(), None)
    state = init_state(trainable, optimizer())
    step = make_train_step(
        loss, optimizer(), microbatches=microbatches, state=state, frozen=frozen, rows=ROWS,
        mesh=mesh,
    )  # fmt: skip
    return state, frozen, step


def updated(is_adapter, mesh=None, steps=2):
    state, frozen, step = stepper(is_adapter, mesh)
    if mesh is not None:
        state = jax.device_put(state, shardings(state, mesh))
        frozen = jax.device_put(frozen, shardings(frozen, mesh))
    for _ in range(steps):
        state, metrics = step(state, frozen, batch_of(VARIANTS["grpo"], rollout_like()))
    return state, metrics


@pytest.mark.parametrize("is_adapter", [True, False], ids=["adapter", "full"])
def test_a_mesh_changes_no_update(is_adapter):
    alone, metrics = updated(is_adapter)
    mesh = make_mesh(4, 2)
    spread, spread_metrics = updated(is_adapter, mesh)
    for a, b in zip(
        jax.tree.leaves(spread.trainable), jax.tree.leaves(alone.trainable), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for key in metrics:
        np.testing.assert_allclose(spread_metrics[key], metrics[key], rtol=2e-4, atol=1e-6)
    places = shardings(spread, mesh)
    for leaf, place in zip(jax.tree.leaves(spread), jax.tree.leaves(places), strict=True):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
    moments = jax.tree.leaves(spread.opt_state)
    assert any(not leaf.sharding.is_fully_replicated for leaf in moments)


def test_trainable_moves_and_frozen_does_not():
    before = jax.tree.map(np.array, (adapter(), shallow_params()))
    state, frozen, step = stepper()
    state, metrics = step(state, frozen, batch_of(VARIANTS["grpo"], rollout_like()))
    assert metrics["grad_norm"] > 0  # decay alone would move it too
    for old, new in zip(jax.tree.leaves(before[0]), jax.tree.leaves(state.trainable), strict=True):
        assert (old != np.asarray(new)).any()
    given = (adapter(), shallow_params())  # what the state was made of: neither moved nor donated
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(given), strict=True):
        np.testing.assert_array_equal(old, new)

    def sizes(tree):
        return sum(x.size for x in jax.tree.leaves(tree))

    assert sizes(state.opt_state) <= 2 * sizes(state.trainable) + 10  # moments of these leaves only


@pytest.mark.parametrize("bad", ["old", "advantage"])
def test_an_update_that_is_not_finite_is_skipped_bit_by_bit(bad):
    data = dict(rollout_like())
    good = batch_of(VARIANTS["grpo"], data)
    data[bad] = np.full_like(data[bad], np.nan)
    broken = batch_of(VARIANTS["grpo"], data)
    state, frozen, step = stepper()
    state, _ = step(state, frozen, good)
    before = jax.tree.map(np.asarray, state)
    for count in (1, 2, 3, 4, 5):
        state, metrics = step(state, frozen, broken)
        for old, new in zip(
            jax.tree.leaves((before.trainable, before.opt_state)),
            jax.tree.leaves((state.trainable, state.opt_state)), strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(old, new)
        assert (int(state.step), int(state.skipped), int(metrics["skipped"])) == (
            1 + count,
            count,
            count,
        )
        assert metrics["update_norm"] == 0
    state, metrics = step(state, frozen, good)
    assert np.isfinite(metrics["loss"]) and int(state.skipped) == 5
    clean, frozen, step = stepper()
    for _ in range(2):
        clean, _ = step(clean, frozen, good)
    for a, b in zip(
        jax.tree.leaves(clean.trainable), jax.tree.leaves(state.trainable), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_grad_norm_is_before_the_clip_and_update_norm_after():
    state, frozen, step = stepper(microbatches=1)
    batch = batch_of(VARIANTS["grpo"], rollout_like())
    scorer = Logprobs(module=MODULE, temperature=0.9, with_entropy=False)
    grads, _ = gradient(
        make_policy_loss(scorer, VARIANTS["grpo"]),
        state.trainable, frozen, batch, 1,
    )  # fmt: skip
    norm = float(
        np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in jax.tree.leaves(grads)))
    )
    before = jax.tree.map(np.asarray, state.trainable)
    state, metrics = step(state, frozen, batch)
    assert norm > OPTIONS["clip_norm"]
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    moved = sum(
        ((np.asarray(new, np.float64) - old) ** 2).sum()
        for new, old in zip(jax.tree.leaves(state.trainable), jax.tree.leaves(before), strict=True)
    )
    assert float(metrics["update_norm"]) == pytest.approx(moved**0.5, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_the_first_ratio_is_one(temperature):
    """Exactly, where the policy is its own old one; up to float32's last digits of a log-prob of
    about -10 where a forward pass told the old one and the gradient's graph the new one."""
    data, objective = dict(rollout_like()), VARIANTS["grpo"]
    scorer = Logprobs(module=MODULE, temperature=temperature, with_entropy=False)
    variables = {"params": shallow_params(), "lora": adapter()}
    data["old"] = jax.jit(scorer, static_argnums=3)(variables, data["ids"], data["mask"], C)[0]
    loss = make_policy_loss(scorer, objective)
    run = jax.jit(gradient, static_argnums=(0, 4))
    for old, bound in ((data["old"], 1e-5), (None, 1e-7)):
        batch = batch_of(objective, data | {"old": old})
        _, metrics = run(loss, adapter(), shallow_params(), batch, 2)
        assert float(metrics.sums["ratio/mean"]) == pytest.approx(1, abs=min(bound, 1e-6))
        assert float(metrics.tops["ratio/max"]) == pytest.approx(1, abs=bound)


def test_a_second_pass_uses_the_frozen_old_policy():
    state, frozen, step = stepper()
    data = dict(rollout_like())
    scorer = Logprobs(module=MODULE, temperature=0.9, with_entropy=False)
    variables = {"params": frozen, "lora": state.trainable}
    data["old"] = jax.jit(scorer, static_argnums=3)(variables, data["ids"], data["mask"], C)[0]
    batch = batch_of(VARIANTS["grpo"], data)
    state, first = step(state, frozen, batch)
    for _ in range(8):
        state, later = step(state, frozen, batch)
    assert float(first["ratio/max"]) == pytest.approx(1, abs=1e-5)
    assert abs(float(later["ratio/max"]) - 1) > 0.05
    assert float(later["clip/low"]) + float(later["clip/high"]) > 0


def test_the_reference_is_the_policy_without_its_adapter():
    """A fresh adapter's KL is 0, bit by bit; an update raises it."""
    fresh = init_adapter(LORA, shallow_params(), jax.random.key(0))
    data = dict(rollout_like())
    scorer = Logprobs(module=MODULE, temperature=0.9, with_entropy=False)
    score = jax.jit(scorer, static_argnums=3)
    ref = score({"params": shallow_params()}, data["ids"], data["mask"], C)[0]
    policy = score({"params": shallow_params(), "lora": fresh}, data["ids"], data["mask"], C)[0]
    np.testing.assert_array_equal(ref, policy)


@pytest.mark.parametrize("microbatches", [1, 3])
def test_a_batch_of_nothing_moves_nothing_but_decay(microbatches):
    data = {name: 0 * x for name, x in rollout_like().items()}
    state, frozen, step = stepper(microbatches=microbatches)
    _, metrics = step(state, frozen, batch_of(VARIANTS["grpo"], data))
    assert float(metrics["grad_norm"]) == 0 and float(metrics["loss"]) == 0
    assert all(np.isfinite(float(x)) for x in metrics.values())


def test_groups_rows_are_all_that_a_cut_needs():
    """Every field has rows first, or a cut would tear it."""
    groups = batch_of(VARIANTS["grpo"], rollout_like())
    assert isinstance(groups, Groups)
    assert {len(x) for x in jax.tree.leaves(groups)} == {ROWS}


def test_bfloat16_weights_keep_their_program_and_their_moments():
    """Moments are float32 from the start: nothing retraces, nothing changes its dtype."""
    traced = []

    def loss(trainable, frozen, batch):
        traced.append(1)
        value = jnp.sum(jnp.square(trainable["w"].astype(jnp.float32) - batch[0]))
        return value, Metrics({"loss": value}, {})

    state = init_state({"w": jnp.ones((3,), jnp.bfloat16)}, optimizer())
    types = jax.tree.map(lambda x: x.dtype, state)
    step = make_train_step(
        loss, optimizer(), microbatches=1, state=state, frozen=None, rows=1, mesh=None
    )
    for _ in range(3):
        state, _ = step(state, None, jnp.zeros((1, 3)))
    assert jax.tree.map(lambda x: x.dtype, state) == types
    assert len(traced) == 1
    assert all(x.dtype != jnp.bfloat16 for x in jax.tree.leaves(state.opt_state))


def test_rows_that_do_not_divide_over_a_mesh_are_refused():
    with pytest.raises(ValueError, match="8 rows in 4 microbatches do not divide by fsdp=4"):
        stepper(mesh=make_mesh(4, 2), microbatches=4)


def test_advantages_of_a_spread_batch_are_those_of_one_device():
    reward_PG = jnp.asarray(np.random.RandomState(0).standard_normal((8, 4)), jnp.float32)
    spread = jax.device_put(reward_PG, row_sharding(8, 2, make_mesh(8, 1)))
    for baseline, scale in (("group", "group"), ("batch", "batch"), ("leave_one_out", "none")):
        options = {"baseline": baseline, "scale": scale, "eps": 1e-6}
        run = jax.jit(functools.partial(advantages, **options))
        np.testing.assert_allclose(run(spread), run(reward_PG), atol=1e-6)
