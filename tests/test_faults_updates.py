"""What comes out of the optimizer is looked at: nothing that is not finite is kept, or saved."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo.algorithms.metrics import Metrics
from grpo.runs.stage_loop import StageLoop, TroubleError
from grpo.storage.snapshot import read_about
from grpo.training.optimizer import make_optimizer
from grpo.training.train_step import init_state, update
from tests.small_run import arrays, final, launch, rows, small, small_sft

# NumPy says so where a number of the config is beyond float32: what is wanted here.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
OPTIONS = {"b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "decayed": ".*",
           "clip_norm": 1.0}  # fmt: skip
GOOD = {"w": jnp.float32([1.0, -2.0]), "still": jnp.float32([3.0])}


def loss(trainable, frozen, batch):
    """Its gradient is finite, and 0 for `still`."""
    value = jnp.sum(trainable["w"] ** 2) + 0.0 * jnp.sum(trainable["still"])
    return value, Metrics({"loss": value}, {})


def optimizer(**changes):
    return make_optimizer(learning_rate=optax.constant_schedule(1e-2), **{**OPTIONS, **changes})


def stepped(chain, trainable=GOOD):
    """The state before and after an update, and its metrics."""
    state = init_state(trainable, chain)
    return state, *update(state, None, {}, loss=loss, optimizer=chain, microbatches=1)


def bits(state) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves((state.trainable, state.opt_state))]


@pytest.mark.parametrize(
    "chain",
    [optimizer(weight_decay=1e39), optimizer(eps=1e-60)],
    ids=["weight decay", "eps"],
)
def test_a_result_that_is_not_finite_is_skipped_bit_by_bit(chain):
    before, after, metrics = stepped(chain)
    # The fault is there: loss and gradient are fine, the result is not.
    assert np.isfinite(metrics["loss"]) and 0 < metrics["grad_norm"] < np.inf
    grads = jax.tree.map(jnp.zeros_like, GOOD) | {"w": 2 * GOOD["w"]}
    updates, _ = chain.update(grads, before.opt_state, before.trainable)
    assert not all(np.isfinite(x).all() for x in jax.tree.leaves(updates))
    assert bits(after) == bits(before)
    assert int(after.skipped) == 1 and float(metrics["update_norm"]) == 0.0


def test_a_healthy_update_is_kept():
    before, after, metrics = stepped(optimizer())
    assert bits(after) != bits(before) and int(after.skipped) == 0 < metrics["update_norm"]


def config(**changes):
    """A stage that ends after three updates, and gives up after two bad ones in a row."""
    run = small()
    run.patience = 2
    run.stages.sft, run.pipeline = small_sft(), ("sft",)
    run.stages.sft.update(evaluate_every=0, checkpoint_every=1)
    run.stages.sft.optimizer.update(**changes)
    return run


@pytest.mark.parametrize("is_adapter", [False, True], ids=["weight decay", "eps"])
def test_a_run_whose_optimizer_makes_no_numbers_fails_and_saves_none(folder, is_adapter):
    made = config(eps=1e-60) if is_adapter else config(weight_decay=1e39)
    if is_adapter:
        made.stages.sft.lora.update(rank=2, alpha=4.0, targets="q|v")
    workdir = folder / f"bad {is_adapter}"
    with pytest.raises(TroubleError, match="optimizer makes of it is not finite, 2 times in a row"):
        launch(made, workdir)
    assert not (workdir / "DONE").exists()
    got = rows(workdir, "metrics")
    assert [row["skipped"] for row in got] == [1.0, 2.0]
    assert all(row["grad_norm"] is not None and row["loss"] is not None for row in got)
    for step in (workdir / "checkpoints" / "sft").glob("[0-9]*"):
        assert not read_about(step).final
        stored = {name: data for name, data in arrays(step).items() if name.startswith("train")}
        assert stored and all(map(is_finite, stored.values()))


def is_finite(array: bytes) -> bool:
    """Of float32, which all that is trained here is."""
    return bool(np.isfinite(np.frombuffer(array.partition(b")")[2], np.float32)).all())


def test_the_same_run_with_an_optimizer_that_is_sound(folder):
    assert launch(config(), folder / "good") == 0
    assert [row["skipped"] for row in rows(folder / "good", "metrics")] == [0.0] * 3


@pytest.mark.parametrize("part", ["trainable", "opt_state"])
def test_what_is_not_finite_is_never_saved(folder, part, monkeypatch):
    """Wherever it comes from: here from outside of the update."""
    keep, seen, workdir = StageLoop.keep_update, [], folder / part

    def spoil(x):
        return x.at[..., -1].set(jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def spoilt(self, state, metrics, batch):
        if self.step == 1:
            seen.append(self.step)
            state = state._replace(**{part: jax.tree.map(spoil, getattr(state, part))})
        keep(self, state, metrics, batch)

    monkeypatch.setattr(StageLoop, "keep_update", spoilt)
    with pytest.raises(TroubleError, match="update 2: what is trained, or a moment of it, is not"):
        launch(config(), workdir)
    assert seen == [1]
    assert final(workdir, "sft").name == "00000001" and not (workdir / "DONE").exists()
