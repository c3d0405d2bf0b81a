"""This project's side of side_by_side.py: one case, in a process of its own.

What is trained is float32, whatever the compute dtype: bfloat16 weights would round most updates
of this size away. So a bfloat16 rollout casts, and a LoRA rollout merges, in the timed part.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import work

from grpo.algorithms.distribution import Sampling
from grpo.algorithms.groups import Groups
from grpo.algorithms.losses import with_token_weights
from grpo.algorithms.presets import GRPO
from grpo.rollout.sampler import decoding_params, rollout, row_keys
from grpo.training.logprobs import Logprobs, make_policy_loss
from grpo.training.optimizer import make_optimizer
from grpo.training.train_step import init_state, make_train_step
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
OBJECTIVE = dataclasses.replace(GRPO, clip_low=work.CLIP, clip_high=work.CLIP, kl_coef=work.BETA)


def rollout_case(module: Gemma, trainable, frozen) -> Callable:
    """Completions of every prompt, from the parameters as they are trained."""
    prompt_ids_PI = jnp.asarray(work.draw_ids(work.PROMPT)[: work.PROMPTS])
    sampling = Sampling(work.TEMPERATURE, top_k=0, top_p=1.0, min_p=0.0)
    steps = iter(range(1 << 30))

    def run() -> None:
        params, adapter = (frozen, trainable) if frozen is not None else (trainable, None)
        params = decoding_params(
            params, adapter, lora_scale=LORA.scale, dtype=module.dtype, mesh=None
        )
        keys = row_keys(0, "train", next(steps), jnp.arange(work.ROWS))
        out = rollout(
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
        assert np.asarray(out.completion_mask_BC).all()

    return run


def logprobs_case(module: Gemma, trainable, frozen) -> Callable:
    """Log-probabilities of given completions."""
    scorer = Logprobs(module=module, temperature=work.TEMPERATURE, with_entropy=False)
    score = jax.jit(functools.partial(scorer, completion=work.NEW))
    ids_BT = jnp.asarray(work.draw_ids(work.LENGTH))
    variables = variables_of(trainable, frozen)
    return lambda: jax.block_until_ready(score(variables, ids_BT, jnp.ones_like(ids_BT)))


def train_case(module: Gemma, trainable, frozen, *, microbatches: int) -> Callable:
    """One update."""
    scorer = Logprobs(module=module, temperature=work.TEMPERATURE, with_entropy=False)
    ids_BT = jnp.asarray(work.draw_ids(work.LENGTH))
    mask_BT = jnp.ones_like(ids_BT)
    variables = variables_of(trainable, frozen)
    ref_BC, _ = jax.jit(functools.partial(scorer, completion=work.NEW))(variables, ids_BT, mask_BT)
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
    optimizer = make_optimizer(
        learning_rate=lambda _: work.PEAK_LR,
        eps=1e-8,
        decayed=".*",
        clip_norm=work.CLIP_NORM,
        **work.OPTIMIZER,
    )
    state = init_state(trainable, optimizer)
    step = make_train_step(
        make_policy_loss(scorer, OBJECTIVE),
        optimizer,
        microbatches=microbatches,
        state=state,
        frozen=frozen,
        rows=work.ROWS,
        mesh=None,
    )

    def run() -> None:
        nonlocal state
        state, metrics = step(state, frozen, batch)
        assert np.isfinite(metrics["loss"]) and not metrics["skipped"]
        jax.block_until_ready(state)

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
    "train4": functools.partial(train_case, microbatches=4),
}


def main(case: str, dtype: str, mode: str, repeats: str) -> None:
    """One case."""
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
