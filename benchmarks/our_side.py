"""This project's side of side_by_side.py: one case, in a process of its own.

What is trained is float32, whatever the compute dtype: bfloat16 weights would round most updates
of this size away. So a bfloat16 rollout casts, and a float32 LoRA rollout merges, in the timed
part. As in a stage, the prompt of a group is read once, in updates and log-probs too.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import work

from grpo.algorithms.distribution import Sampling
from grpo.algorithms.groups import Groups, groups_of
from grpo.algorithms.losses import with_token_weights
from grpo.algorithms.presets import GRPO
from grpo.algorithms.rewards_to_advantages import compiled_advantages
from grpo.rollout.sampler import Rollout, decoding_params, rollout, row_keys
from grpo.training.logprobs import Logprobs, logprobs_of_rows, make_policy_loss
from grpo.training.optimizer import make_optimizer
from grpo.training.train_step import TrainState, init_state, make_train_step
from models.config import gemma3
from models.gemma import Gemma, init_params
from models.lora import LoraConfig, init_adapter
from models.policy import variables_of

CONFIG = gemma3(
    work.LAYERS,
    work.WIDTH,
    work.FFN,
    work.HEADS,
    work.KV_HEADS,
    head_dim=work.HEAD_DIM,
    query_scalar=work.HEAD_DIM,
    window=work.WINDOW,
    vocab_size=work.VOCAB,
    max_positions=1024,
    global_rope_factor=1.0,
)
LORA = LoraConfig(rank=work.RANK, alpha=work.ALPHA)
PARTS = 4  # microbatches, and in a step the parts in which the reference reads the rows
OBJECTIVE = dataclasses.replace(GRPO, clip_low=work.CLIP, clip_high=work.CLIP, kl_coef=work.BETA)


def make_rollout(module: Gemma, frozen) -> Callable[[Any], Rollout]:
    """What writes completions of every prompt, from the parameters as they are trained."""
    prompt_ids_PI = jnp.asarray(work.draw_ids(work.PROMPT)[:: work.GROUP])
    sampling = Sampling(work.TEMPERATURE, top_k=0, top_p=1.0, min_p=0.0)
    steps = iter(range(1 << 30))

    def write(trainable) -> Rollout:
        params, adapter = (frozen, trainable) if frozen is not None else (trainable, None)
        params = decoding_params(
            params, adapter, lora_scale=LORA.scale, dtype=module.dtype, mesh=None
        )
        keys = row_keys(0, "train", next(steps), jnp.arange(work.ROWS))
        return rollout(
            module,
            params,
            prompt_ids_PI,
            jnp.ones_like(prompt_ids_PI),
            keys,
            sampling,
            jnp.array([-1]),
            group=work.GROUP,
            max_new_tokens=work.NEW,
        )

    return write


def make_scorer(module: Gemma) -> Logprobs:
    """How a stage computes log-probs."""
    return Logprobs(
        module=module, temperature=work.TEMPERATURE, with_entropy=False, group=work.GROUP
    )


def make_update(
    module: Gemma, trainable, frozen, microbatches: int
) -> tuple[TrainState, Callable[[TrainState, Groups], TrainState]]:
    """The state before the first update, and what updates it."""
    optimizer = make_optimizer(
        learning_rate=lambda _: work.PEAK_LR,
        eps=1e-8,
        decayed=".*",
        clip_norm=work.CLIP_NORM,
        **work.OPTIMIZER,
    )
    state = init_state(trainable, optimizer)
    step = make_train_step(
        make_policy_loss(make_scorer(module), OBJECTIVE),
        optimizer,
        microbatches=microbatches,
        state=state,
        frozen=frozen,
        rows=work.ROWS,
        mesh=None,
        group=work.GROUP,
    )

    def update(state: TrainState, batch: Groups) -> TrainState:
        state, metrics = step(state, frozen, batch)
        assert np.isfinite(metrics["loss"]) and not metrics["skipped"]
        return jax.block_until_ready(state)

    return state, update


def rollout_case(module: Gemma, trainable, frozen) -> Callable:
    """Completions of every prompt."""
    write = make_rollout(module, frozen)

    def run() -> None:
        assert np.asarray(write(trainable).completion_mask_BC).all()

    return run


def logprobs_case(module: Gemma, trainable, frozen) -> Callable:
    """Log-probabilities of given completions."""
    score = jax.jit(functools.partial(make_scorer(module), completion=work.NEW))
    ids_BT = jnp.asarray(work.draw_ids(work.LENGTH))
    variables = variables_of(trainable, frozen)
    return lambda: jax.block_until_ready(score(variables, ids_BT, jnp.ones_like(ids_BT)))


def train_case(module: Gemma, trainable, frozen, *, microbatches: int) -> Callable:
    """One update."""
    ids_BT = jnp.asarray(work.draw_ids(work.LENGTH))
    mask_BT = jnp.ones_like(ids_BT)
    variables = variables_of(trainable, frozen)
    score = jax.jit(functools.partial(make_scorer(module), completion=work.NEW))
    ref_BC, _ = score(variables, ids_BT, mask_BT)
    groups = Groups(
        ids_BT=ids_BT,
        mask_BT=mask_BT,
        completion_mask_BC=jnp.ones((work.ROWS, work.NEW), bool),
        truncated_B=jnp.zeros(work.ROWS, bool),
        sample_logprob_BC=None,
        advantage_B=jnp.asarray(work.draw_advantages()),
        ref_logprob_BC=ref_BC + 0.01,
    )
    batch = with_token_weights(groups, limit=work.NEW, objective=OBJECTIVE)
    state, update = make_update(module, trainable, frozen, microbatches)

    def run() -> None:
        nonlocal state
        state = update(state, batch)

    return run


def step_case(module: Gemma, trainable, frozen) -> Callable:
    """A step as a stage takes it; the reference is the parameters as they are now."""
    write, scorer = make_rollout(module, frozen), make_scorer(module)
    state, update = make_update(module, trainable, frozen, PARTS)
    reference = {"params": trainable if frozen is None else frozen}
    compare = compiled_advantages({"sum": 1.0}, limit=work.NEW, objective=OBJECTIVE)

    def by_group(x_B: Any) -> np.ndarray:
        return np.asarray(x_B, np.float32).reshape(work.PROMPTS, work.GROUP)

    def run() -> None:
        nonlocal state
        out = write(state.trainable)
        ref_BC = logprobs_of_rows(
            reference, out.ids_BT, out.mask_BT, logprobs=scorer, completion=work.NEW, parts=PARTS
        )
        reward_PG = by_group([work.reward(ids_C) for ids_C in np.asarray(out.completion_ids_BC)])
        advantage_PG, _ = compare(reward_PG, {"sum": reward_PG}, by_group(out.length_B), None)
        groups = groups_of(
            out._asdict(), {"advantage_B": advantage_PG.reshape(-1), "ref_logprob_BC": ref_BC}
        ).each(np.asarray)
        assert groups.completion_mask_BC.all()
        batch = with_token_weights(groups, limit=work.NEW, objective=OBJECTIVE)
        state = update(state, batch)

    return run


def products_case(module: Gemma, *_, **__) -> Callable:
    """A large product in the compute dtype, summed in float32."""
    x = jax.random.normal(jax.random.key(0), (work.SQUARE, work.SQUARE), module.dtype)
    dot = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
    return lambda: jax.block_until_ready(dot(x, x))


CASES = {
    "products": products_case,
    "rollout": rollout_case,
    "logprobs": logprobs_case,
    "train": functools.partial(train_case, microbatches=1),
    "train4": functools.partial(train_case, microbatches=PARTS),
    "step": step_case,
}


def main(case: str, dtype: str, mode: str, repeats: str) -> None:
    """One case."""
    work.pin()
    is_adapter = mode == "lora"
    module = Gemma(
        CONFIG, jnp.dtype(dtype), jnp.dtype(dtype) if is_adapter else jnp.float32, LORA.scale
    )
    params = init_params(CONFIG, jax.random.key(0), module.param_dtype)
    trainable, frozen = params, None
    if is_adapter:
        trainable, frozen = init_adapter(LORA, params, jax.random.key(1)), params
    run = CASES[case](module, trainable, frozen)
    work.measure("ours", case, dtype, mode, int(repeats), run)


if __name__ == "__main__":
    main(*sys.argv[1:])
