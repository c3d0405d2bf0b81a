"""One optimizer update, for every stage: a stage brings a loss.

    g = Σ_m ∇ loss(rows of microbatch m)    the loss adds up over rows: any cut gives the same g
    θ <- θ + Δ,  Δ = optimizer(g, θ)        unless the loss, ‖g‖ or ‖Δ‖ is not finite: then nothing
                                            moves, bit by bit, and the step counts as skipped

`loss(trainable, frozen, batch) -> (loss, Metrics)`. Trainable is the adapter, or the parameters;
only it has gradients and optimizer state. Frozen is whatever else the loss reads.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from grpo.algorithms.metrics import Metrics
from grpo.training.optimizer import optimizer_of
from grpo.training.parts import cut
from grpo.training.program import Program, shapes_on
from models.sharding import places, row_sharding, shardings

Array = jax.Array
Tree = Any
Loss = Callable[[Tree, Tree, Tree], tuple[Array, Metrics]]


class TrainState(NamedTuple):
    """What training changes."""

    step: Array  # updates asked for
    skipped: Array  # of these, how many were not finite
    trainable: Tree
    opt_state: Tree


def init_state(trainable: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update, on a copy: a train step donates its state."""
    trainable = jax.tree.map(jnp.copy, trainable)
    # The moments are float32 as the gradients are, whatever the weights.
    moments = optimizer.init(jax.tree.map(lambda x: x.astype(jnp.float32), trainable))
    return TrainState(jnp.int32(0), jnp.int32(0), trainable, moments)


def gradient(
    loss: Loss, trainable: Tree, frozen: Tree, batch: Tree, microbatches: int, group: int = 1
) -> tuple[Tree, Metrics]:
    """The gradient of the whole batch's loss, in float32, one microbatch at a time.

    A batch that does not divide is filled up with rows of zeros, which no loss counts. Rows of one
    `group` stay in one microbatch.
    """

    def one(batch: Tree) -> tuple[Tree, Metrics]:
        grads, metrics = jax.grad(loss, has_aux=True)(trainable, frozen, batch)
        return jax.tree.map(lambda g: g.astype(jnp.float32), grads), metrics

    if microbatches == 1:
        return one(batch)

    def add(total: tuple[Tree, Metrics], batch: Tree):
        grads, metrics = one(batch)
        return (jax.tree.map(jnp.add, total[0], grads), total[1].combine(metrics)), None

    parts = jax.tree.map(lambda x: cut(x, microbatches, group), batch)
    grads, metrics = jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), grads), metrics.empty()
    total, _ = jax.lax.scan(add, nothing, parts)
    return total


def all_finite(tree: Tree) -> Array:
    """Whether every number of a tree is finite."""
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, checks, jnp.bool_(True))


def update(
    state: TrainState,
    frozen: Tree,
    batch: Tree,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    microbatches: int,
    group: int = 1,
) -> tuple[TrainState, dict[str, Array]]:
    """The state after one update, and its metrics."""
    grads, metrics = gradient(loss, state.trainable, frozen, batch, microbatches, group)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)

    # By hand: optax.apply_if_finite gives up after some errors in a row and applies the NaN.
    # The norms are measured anyway; moments are finite wherever the gradient's is.
    update_norm = optax.tree.norm(updates)
    is_finite = jnp.isfinite(grad_norm) & jnp.isfinite(metrics.sums["loss"])
    is_finite &= jnp.isfinite(update_norm)
    keep = functools.partial(jax.tree.map, lambda new, old: jnp.where(is_finite, new, old))
    new = TrainState(
        step=state.step + 1,
        skipped=state.skipped + ~is_finite,
        trainable=keep(trainable, state.trainable),
        opt_state=keep(opt_state, state.opt_state),
    )
    return new, {
        **metrics.flat(),
        "grad_norm": grad_norm,
        "update_norm": jnp.where(is_finite, update_norm, 0.0),
        "skipped": new.skipped,
    }


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    microbatches: int,
    state: TrainState,
    frozen: Tree,
    rows: int,
    mesh: Mesh | None,
    group: int = 1,
) -> Callable[[TrainState, Tree, Tree], tuple[TrainState, dict[str, Array]]]:
    """`update`, compiled for states, frozen trees and batches of `rows` rows like these.

    The state is donated. On a mesh everything has its sharding: what is trained and its moments by
    the table of models/sharding.py, rows over `fsdp`, and what is not trained where it lies on the
    mesh, or by the table as well.
    """
    if mesh is None:
        return _train_step(loss, optimizer, microbatches, group)
    step = functools.partial(
        update, loss=loss, optimizer=optimizer, microbatches=microbatches, group=group
    )
    if rows % (microbatches * mesh.shape["fsdp"]):
        raise ValueError(
            f"{rows} rows in {microbatches} microbatches do not divide by "
            f"fsdp={mesh.shape['fsdp']}: every device would work on rows of the others"
        )
    where = shardings(state, mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(where, places(frozen, mesh), row_sharding(rows, 1, mesh)),
        out_shardings=(where, NamedSharding(mesh, P())),
    )


@functools.lru_cache(maxsize=16)
def _train_step(
    loss: Loss, optimizer: optax.GradientTransformation, microbatches: int, group: int
) -> Any:
    """On one device stages that are alike share what is compiled."""
    step = functools.partial(
        update, loss=loss, optimizer=optimizer, microbatches=microbatches, group=group
    )
    return jax.jit(step, donate_argnums=0)


class Trained(Protocol):
    """What is asked of a model that is trained: a policy, a reward model, a student."""

    @property
    def trainable(self) -> Tree: ...
    @property
    def frozen(self) -> Tree | None: ...
    @property
    def mesh(self) -> Mesh | None: ...


def update_program(
    loss: Loss,
    policy: Trained,
    *,
    optimizer: Mapping[str, Any],
    updates: int,
    microbatches: int,
    batches: Sequence[Tree],
    group: int = 1,
) -> Program:
    """The train step of a stage of so many updates; `batches` has a shape of each kind."""
    chain = optimizer_of(optimizer, updates)
    state = jax.eval_shape(lambda trainable: init_state(trainable, chain), policy.trainable)
    step = make_train_step(
        loss,
        chain,
        microbatches=microbatches,
        state=state,
        frozen=policy.frozen,
        rows=jax.tree.leaves(batches[0])[0].shape[0],
        mesh=policy.mesh,
        group=group,
    )
    state = shapes_on(policy.mesh, state)
    return Program(
        step,
        tuple((state, policy.frozen, batch) for batch in batches),
        facts={"loss": loss, "microbatches": microbatches, "group": group},
    )
