"""Tunix's side of side_by_side.py: one case, in a process of its own, in Tunix's own environment.

The calls are those of Tunix's GRPO learner: its sampler with the adapter unmerged, every prompt of
a group prefilled for itself, top_p = 1 as its rollout config has it; its log-probabilities; its
trainer's compiled step.
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import qwix
import work
from flax import nnx
from jax.sharding import Mesh
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.gemma3 import model as gemma3
from tunix.rl import common, function_registry, reshard, rl_cluster, trainer
from tunix.rl.grpo.grpo_learner import GRPOConfig, TrainExample

TARGETS = ".*q_einsum|.*kv_einsum|.*attn_vec_einsum|.*gate_proj|.*up_proj|.*down_proj"
PAD, EOS, NEVER = 0, 1, 1 << 29


class Digits:
    """'3 17 5' <-> [3, 17, 5]."""

    def encode(self, text: str, **_) -> list[int]:
        """Ids of a text."""
        return [int(token) for token in text.split()]

    def decode(self, ids, **_) -> str:
        """Text of some ids."""
        return " ".join(str(int(token)) for token in ids)

    def pad_id(self) -> int:
        """Padding."""
        return PAD

    def bos_id(self) -> int:
        """What the sampler puts in front."""
        return 2

    def eos_id(self) -> int:
        """The end of a text."""
        return EOS


def make_config(dtype: str) -> gemma3.ModelConfig:
    """The work's architecture."""
    return gemma3.ModelConfig(
        num_layers=work.LAYERS,
        num_embed=work.VOCAB,
        embed_dim=work.WIDTH,
        hidden_dim=work.FFN,
        num_heads=work.HEADS,
        head_dim=work.HEAD_DIM,
        num_kv_heads=work.KV_HEADS,
        sliding_window_size=work.WINDOW,
        local_base_frequency=10_000,
        global_base_frequency=1_000_000,
        param_dtype=jnp.dtype(dtype),
    )


def make_model(config: gemma3.ModelConfig, mode: str) -> nnx.Module:
    """Random weights: Tunix starts some of them at zero, which would make bad numbers cheap."""
    model = gemma3.Gemma3(config, rngs=nnx.Rngs(0))
    leaves, tree = jax.tree.flatten(nnx.state(model, nnx.Param))
    random = np.random.default_rng(0)
    drawn = [jnp.asarray(0.02 * random.normal(size=x.shape), x.dtype) for x in leaves]
    nnx.update(model, jax.tree.unflatten(tree, drawn))
    if mode == "full":
        return model
    provider = qwix.LoraProvider(module_path=TARGETS, rank=work.RANK, alpha=work.ALPHA)
    inputs = model.get_model_input()
    return qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(1), **inputs)


def rollout_case(model: nnx.Module, config: gemma3.ModelConfig) -> Callable:
    """Completions of every row's prompt."""
    prompts = work.draw_ids(work.PROMPT - 1)  # <bos> comes in front
    texts = [" ".join(map(str, ids)) for ids in prompts]
    cache = CacheConfig(work.LENGTH, config.num_layers, config.num_kv_heads, config.head_dim)
    sampler = Sampler(model, Digits(), cache)
    seeds = iter(range(1 << 30))

    def run() -> None:
        out = sampler(
            texts,
            max_generation_steps=work.NEW,
            max_prompt_length=work.PROMPT,
            temperature=work.TEMPERATURE,
            top_p=1.0,
            eos_tokens=[NEVER],
            seed=next(seeds),
        )
        assert all(len(tokens) == work.NEW for tokens in out.tokens)

    return run


def scorer(model: nnx.Module) -> Callable:
    """Log-probabilities of the work's completions."""
    graph, state = nnx.split(model)
    ids = jnp.asarray(work.draw_ids(work.LENGTH))

    def run() -> jax.Array:
        logprobs = common.compute_per_token_logps(
            graph,
            state,
            prompt_tokens=ids[:, : work.PROMPT],
            completion_tokens=ids[:, work.PROMPT :],
            pad_id=PAD,
            eos_id=EOS,
            temperature=work.TEMPERATURE,
        )
        return jax.block_until_ready(logprobs)

    return run


def train_case(model: nnx.Module) -> Callable:
    """One update."""
    ids = jnp.asarray(work.draw_ids(work.LENGTH))
    prompt_ids, completion_ids = ids[:, : work.PROMPT], ids[:, work.PROMPT :]
    example = TrainExample(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_ids != PAD,
        completion_ids=completion_ids,
        completion_mask=completion_ids != PAD,
        ref_per_token_logps=scorer(model)() + 0.01,
        advantages=jnp.asarray(work.draw_advantages()),
        old_per_token_logps=None,
    )
    algorithm = GRPOConfig(
        num_generations=work.GROUP, beta=work.BETA, epsilon=work.CLIP, kl_loss_mode="low_var_kl"
    )
    algorithm.temperature = work.TEMPERATURE  # else the learner's affair
    optimizer = optax.chain(
        optax.clip_by_global_norm(work.CLIP_NORM), optax.adamw(work.PEAK_LR, **work.OPTIMIZER)
    )
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optimizer, eval_every_n_steps=1 << 30, max_steps=None
    )
    loss = function_registry.get_policy_loss_fn("grpo")
    mesh = Mesh(np.array(jax.devices()).reshape(1, 1), ("fsdp", "tp"))
    model = reshard.reshard_model_to_mesh(model, mesh)
    with mesh:
        learner = trainer.Trainer(
            model, optimizer, training, custom_checkpoint_metadata_fn=lambda: {}
        )
        learner.with_loss_fn(
            lambda model, train_example: loss(model, train_example, algorithm, PAD, EOS),
            has_aux=True,
        )
        learner.with_gen_model_input_fn(lambda example: {"train_example": example})
        step, _ = learner.jit_train_and_eval_step()

    def run() -> None:
        with mesh:
            loss, *_ = step(example)
        assert np.isfinite(loss)
        jax.block_until_ready(nnx.state(model))

    return run


def main(case: str, dtype: str, mode: str, repeats: str) -> None:
    """One case."""
    work.pin()
    config = make_config(dtype)
    model = make_model(config, mode)
    run = {
        "rollout": lambda: rollout_case(model, config),
        "logprobs": lambda: scorer(model),
        "train": lambda: train_case(model),
    }[case]()
    work.measure("tunix", case, dtype, mode, int(repeats), run)


if __name__ == "__main__":
    main(*sys.argv[1:])
