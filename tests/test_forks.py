"""Rows that fork: the numbers are those of rows that each have their own prompt."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import tiny
from grpo.algorithms.metrics import Metrics
from grpo.runs.iteration_programs import iteration_programs, logprobs_of
from grpo.training.logprobs import Logprobs, logprobs_of_rows
from grpo.training.parts import cut, in_parts
from grpo.training.train_step import init_state, make_train_step
from models.forks import Fork, before_each, fork_positions, forked, seen
from models.gemma import Gemma, init_params
from models.lora import LoraConfig, init_adapter
from models.policy import Policy
from models.sharding import make_mesh, put, put_rows
from tests.helpers import SHALLOW, TINY, left_padded, shallow_params, tiny_ids, tiny_params

G, PROMPT, C = 3, 10, 12  # longer than the window of 8, each
FORK = Fork(group=2, completion=3)


def rows(prompts=2, group=G):
    """Ragged prompts, one of them as long as it may be, and ragged completions."""
    prompt, prompt_mask = left_padded([4, PROMPT, 1, 7][:prompts], PROMPT)
    lengths = np.array([C, 1, 5, 0, 7, C, 2, 3, 9, 11, 4, 6])[: prompts * group]
    own = (np.arange(C)[None, :] < lengths[:, None]).astype(np.int32)
    ids = [np.repeat(prompt, group, axis=0), tiny_ids(prompts * group, C, seed=1) * own]
    return np.concatenate(ids, 1), np.concatenate([np.repeat(prompt_mask, group, axis=0), own], 1)


def test_a_group_is_one_row():
    ids = np.array([[7, 8, 1, 2, 3], [7, 8, 4, 5, 6], [0, 9, 1, 1, 1], [0, 9, 2, 2, 2]])
    wanted = [[7, 8, 1, 2, 3, 4, 5, 6], [0, 9, 1, 1, 1, 2, 2, 2]]
    np.testing.assert_array_equal(forked(jnp.asarray(ids), FORK), wanted)


def test_positions_go_on_from_the_prompt():
    mask = np.array([[1, 1, 1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]])
    wanted = [[0, 1, 2, 3, 4, 2, -1, -1], [-1, 0, 1, 2, -1, -1, -1, -1]]
    np.testing.assert_array_equal(fork_positions(jnp.asarray(mask), FORK), wanted)


def test_who_sees_whom():
    """In a window of two; the rows are prompts of 2 and 1, and completions of 3, 1, 2 and 0."""
    mask = jnp.array([[1, 1, 1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0]])
    found = seen(fork_positions(mask, FORK), FORK, 2)
    np.testing.assert_array_equal(found.prompt_PII, [[[1, 0], [1, 1]], [[0, 0], [0, 1]]])
    none = [0, 0, 0, 0, 0]
    wanted = [
        [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]],
        [[0, 1, 1, 0, 0], none, none],
        [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], none],
        [none, none, none],
    ]
    np.testing.assert_array_equal(found.completion_BCS, wanted)


def test_the_state_before_each_token():
    hidden = jnp.arange(8.0)[None, :, None]
    np.testing.assert_array_equal(before_each(hidden, FORK)[..., 0], [[1, 2, 3], [1, 5, 6]])


CASES = {
    "gemma3": ("gemma3", {}),
    "gemma2": ("gemma2", {}),
    "fused": ("gemma3", {"attention": "fused"}),
    "loop": ("gemma3", {"unroll": 7, "remat": "full"}),
}


@pytest.mark.parametrize("case", CASES)
def test_logprobs_are_those_of_rows_of_their_own(case):
    """And entropies, and the gradients of both."""
    family, options = CASES[case]
    params, (ids, mask) = tiny_params(family), rows()
    weights = np.random.RandomState(2).standard_normal((2, *mask[:, -C:].shape)) * mask[:, -C:]

    def found(group):
        scorer = Logprobs(
            module=Gemma(TINY[family], **options), temperature=0.7, with_entropy=True, group=group
        )

        @jax.jit
        def both(params):
            def loss(params):
                scores = scorer({"params": params}, jnp.asarray(ids), jnp.asarray(mask), C)
                return sum(jnp.sum(w * x) for w, x in zip(weights, scores, strict=True)), scores

            return jax.grad(loss, has_aux=True)(params)

        return both(params)

    (grads, ours), (wanted_grads, wanted) = found(G), found(1)
    for x, y in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(x * mask[:, -C:], y * mask[:, -C:], atol=2e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted_grads), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()) + 1e-6)


def test_completions_of_a_group_do_not_see_each_other():
    scorer = Logprobs(module=Gemma(SHALLOW), temperature=1.0, with_entropy=False, group=G)
    score = jax.jit(functools.partial(scorer, completion=C))
    ids, mask = rows()
    mask[:, -C:] = 1
    before = np.asarray(score({"params": shallow_params()}, ids, mask)[0])
    ids[1, -C:] = tiny_ids(1, C, seed=9)
    after = np.asarray(score({"params": shallow_params()}, ids, mask)[0])
    others = np.arange(len(ids)) != 1
    np.testing.assert_array_equal(after[others], before[others])
    assert (after[1] != before[1]).all()


def test_a_prompt_is_computed_once():
    """FLOPs as the compiler counts them, of short completions behind a long prompt."""
    ids = jax.ShapeDtypeStruct((8, 66), jnp.int32)

    def flops(group):
        scorer = Logprobs(module=Gemma(SHALLOW), temperature=1.0, with_entropy=False, group=group)
        score = jax.jit(functools.partial(scorer, completion=2))
        program = score.lower({"params": shallow_params()}, ids, ids).compile()
        return (program.cost_analysis() or {})["flops"]

    assert flops(8) < 0.2 * flops(1)


def test_groups_stay_together():
    x = jnp.arange(12)
    wanted = [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]
    np.testing.assert_array_equal(cut(x, 2, 2), wanted)
    np.testing.assert_array_equal(cut(x[:6], 2, 2), [[0, 1, 4, 5], [2, 3, 0, 0]])
    found = in_parts(lambda x: x + 1, x[:, None], parts=4, group=2)
    np.testing.assert_array_equal(found[:, 0], x + 1)


def test_rows_in_parts():
    ids, mask = rows(4)
    scorer = Logprobs(module=Gemma(SHALLOW), temperature=0.7, with_entropy=False)
    score = functools.partial(
        logprobs_of_rows, {"params": shallow_params()}, ids, mask, completion=C, parts=2
    )
    ours = score(logprobs=dataclasses.replace(scorer, group=G))
    np.testing.assert_allclose(
        ours * mask[:, -C:], score(logprobs=scorer) * mask[:, -C:], atol=2e-5
    )


@pytest.mark.parametrize("mesh", [None, (2, 1), (2, 2)], ids=str)
def test_an_update_in_microbatches(mesh):
    """The same update as with prompts of their own; an adapter, whole groups in each microbatch."""
    mesh = make_mesh(*mesh) if mesh else None
    lora = LoraConfig(rank=2, alpha=2.0)
    adapter = init_adapter(lora, shallow_params(), jax.random.key(0))
    adapter = jax.tree.map(lambda x: x + 0.05, adapter)
    weights = jnp.asarray(np.random.RandomState(3).standard_normal((12, C)), jnp.float32)
    ids, mask = rows(4)

    @functools.cache
    def loss(group):
        module = Gemma(SHALLOW, lora_scale=lora.scale, mesh=mesh)
        scorer = Logprobs(module=module, temperature=1.0, with_entropy=False, group=group)

        def of(trainable, frozen, batch):
            ids, mask, weights = batch
            logprob, _ = scorer({"params": frozen, "lora": trainable}, ids, mask, C)
            value = jnp.sum(logprob * weights * mask[:, -C:])
            return value, Metrics(sums={"loss": jax.lax.stop_gradient(value)}, tops={})

        return of

    def after(group):
        optimizer = optax.sgd(1e-2)
        state = put(init_state(adapter, optimizer), mesh)
        frozen = put(shallow_params(), mesh)
        step = make_train_step(
            loss(group), optimizer, microbatches=2, state=state, frozen=frozen, rows=len(ids),
            mesh=mesh, group=group,
        )  # fmt: skip
        return step(state, frozen, put_rows((ids, mask, weights), mesh))

    (ours, metrics), (wanted, wanted_metrics) = after(G), after(1)
    np.testing.assert_allclose(metrics["loss"], wanted_metrics["loss"], rtol=1e-4, atol=1e-4)
    assert float(metrics["grad_norm"]) > 1
    moved = jax.tree.leaves(jax.tree.map(jnp.subtract, wanted.trainable, adapter))
    for a, b, c in zip(
        jax.tree.leaves(ours.trainable), jax.tree.leaves(wanted.trainable), moved, strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(c).max()) + 1e-7)


def policy_like(**fields):
    """A policy of shapes."""
    params = jax.eval_shape(lambda: init_params(SHALLOW, jax.random.key(0), jnp.float32))
    return Policy(config=SHALLOW, params=params, **fields)


@pytest.mark.parametrize(
    ("microbatches", "minibatches", "mesh", "group"),
    [(8, 1, None, 8), (16, 1, None, 8), (32, 1, None, 4), (64, 2, None, 1), (8, 1, (4, 1), 4)],
)
def test_what_a_stage_keeps_together(microbatches, minibatches, mesh, group):
    """16 groups of 8, in whole or in equal parts."""
    stage = tiny.get_config().stages.grpo
    stage.update(microbatches=microbatches, minibatches=minibatches)
    policy = policy_like(mesh=make_mesh(*mesh) if mesh else None)
    assert logprobs_of(stage, policy).group == group
    apart = dataclasses.replace(policy, share_prompts=False)
    assert logprobs_of(stage, apart).group == 1


def test_every_program_of_a_stage_shares_prompts():
    config = tiny.get_config().to_dict()
    for shares, group in ((True, 8), (False, 1)):
        programs = iteration_programs(config, "grpo", policy_like(share_prompts=shares), None)
        assert programs["log-probs"].static["logprobs"].group == group
        assert programs["update"].facts["group"] == group
