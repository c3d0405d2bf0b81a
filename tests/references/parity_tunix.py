"""Tunix's side of grpo/tools/parity.py, in an environment that has Tunix: the extra `parity`.

    python -m tests.references.parity_tunix FOLDER

Reads FOLDER/model (as save_hf writes it), task.npz and walk.npz; writes theirs.npz. Modules are
called one by one on the inputs that our side kept; then come the whole model, Tunix's sampler, its
log-probs, advantages and losses, and one step of its own trainer.
"""

import importlib.metadata
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.gemma import model as tunix2
from tunix.models.gemma3 import model as tunix3
from tunix.rl import common, function_registry, reshard, rl_cluster, trainer
from tunix.rl.grpo.grpo_learner import GRPOConfig, TrainExample
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from grpo.parity.ours import NEVER, PIECES
from grpo.parity.task import BATCH_NEW, NEW, PROMPT, TEMPERATURE
from grpo.parity.words import GRPO, LOSSES, OPTIMIZER
from models import load_model
from models.config import GLOBAL, LOCAL
from tests.references import tunix_layout, tunix_losses, tunix_models

PAD, EOS = 0, 1


def layers(model, config, task, walk) -> dict:
    """Each piece of each layer on our inputs, and the whole model's logits."""
    mask = jnp.asarray(task["walk_mask"] != 0)
    positions, attention = build_positions_from_mask(mask), make_causal_attn_mask(mask)
    norm = "post_attention_norm" if config.family == "gemma3" else "post_attn_norm"
    names = dict.fromkeys(PIECES) | {"post_attention_norm": norm, "attention": "attn"}
    found = {name: [] for name in ("block", *PIECES)}
    for i, layer in enumerate(model.layers):
        x = jnp.asarray(walk["x"][i])
        between = x + walk["post_attention_norm"][i]
        given = dict(zip(PIECES[1:3], (walk[name][i] for name in PIECES[:2]), strict=True))
        given |= dict(zip(PIECES[4:], (walk[name][i] for name in PIECES[3:5]), strict=True))
        given |= {"pre_attention_norm": x, "pre_ffw_norm": between}
        for name in PIECES:
            module, value = getattr(layer, names[name] or name), jnp.asarray(given[name])
            if name == "attention":
                found[name].append(module(value, positions, None, attention)[1])
            else:
                found[name].append(module(value))
        found["block"].append(layer(x, positions, None, attention)[1])
    logits, _ = model(jnp.asarray(task["walk_ids"]), positions, None, attention)
    stacked = {name: np.stack(x) for name, x in found.items()}
    return stacked | {
        "embedding": model.embedder.encode(jnp.asarray(task["walk_ids"])),
        "visible": attention,
        "logits": logits,
        **rotations(config, task["rope"], walk["positions"]),
    }


def left_padded(model, task):
    """The logits of the walk's padded row with its padding in front, at the row's own columns."""
    mask, ids = task["walk_mask"][1:], task["walk_ids"][1:]
    padding = int(np.sum(mask == 0))
    ids, mask = (jnp.roll(jnp.asarray(x), padding, axis=1) for x in (ids, mask != 0))
    positions, attention = build_positions_from_mask(mask), make_causal_attn_mask(mask)
    logits, _ = model(ids, positions, None, attention)
    return jnp.roll(logits, -padding, axis=1)


def rotations(config, x, positions) -> dict:
    """The task's vectors, rotated as in layers of each kind."""
    x, positions = jnp.asarray(x), jnp.asarray(positions)
    if config.family == "gemma2":
        rotated = tunix2.apply_rope(x, positions, head_dim=config.head_dim)
        return {f"rope_{kind}": rotated for kind in (LOCAL, GLOBAL)}
    kinds = {LOCAL: (10_000, 1.0), GLOBAL: (1_000_000, config.global_rope_factor)}
    return {
        f"rope_{kind}": tunix3.apply_rope(
            x, positions, head_dim=config.head_dim, base_frequency=base, scale_factor=scale
        )
        for kind, (base, scale) in kinds.items()
    }


def forced(model, task, completion, temperature):
    """The trainer's log-probs of completions of the prompts."""
    return common.compute_per_token_logps(
        *nnx.split(model),
        prompt_tokens=jnp.asarray(task["prompt_ids"]),
        completion_tokens=jnp.asarray(completion),
        pad_id=PAD,
        eos_id=EOS,
        temperature=temperature,
    )


def sampled(model, config, task) -> dict:
    """What the sampler writes: greedily, drawn, and with stop tokens."""
    cache = CacheConfig(PROMPT + NEW, config.num_layers, config.num_kv_heads, config.head_dim)
    rows = zip(task["prompt_ids"], task["prompt_mask"], strict=True)
    # The sampler puts <bos> in front by itself.
    texts = np.array([" ".join(map(str, ids[mask == 1][1:])) for ids, mask in rows])

    def sample(stops, **options):
        sampler = Sampler(model, tunix_models.IntTokenizer(), cache)
        return sampler(
            texts, max_generation_steps=NEW, max_prompt_length=PROMPT, return_logprobs=True,
            eos_tokens=list(map(int, stops)), **options,
        )  # fmt: skip

    greedy = sample([NEVER])
    drawn = sample([NEVER], temperature=TEMPERATURE, top_p=1.0, seed=5)
    stopped = sample(task["stops"])
    tokens = np.stack(drawn.tokens).astype(np.int32)
    return {
        "greedy": np.stack(greedy.tokens).astype(np.int32),
        "greedy_logprob": np.asarray(greedy.logprobs, np.float32),
        "drawn": tokens,
        "drawn_logprob": np.asarray(drawn.logprobs, np.float32),
        "stopped_lengths": np.array([len(row) for row in stopped.tokens]),
        "of_ours": forced(model, task, task["ours_drawn"], TEMPERATURE),
        "of_ours_cold": forced(model, task, task["ours_drawn"], 1.0),
    }


def example_of(task):
    """The batch."""
    ids, mask = task["batch_ids"], task["batch_mask"]
    prompt = ids.shape[1] - BATCH_NEW
    arrays = {
        "prompt_ids": ids[:, :prompt],
        "prompt_mask": mask[:, :prompt] != 0,
        "completion_ids": ids[:, prompt:],
        "completion_mask": mask[:, prompt:] != 0,
        "advantages": task["advantages"],
        "old_per_token_logps": task["old"],
        "ref_per_token_logps": task["ref"],
    }
    return TrainExample(**{name: jnp.asarray(x) for name, x in arrays.items()})


def losses(model, task) -> dict:
    """The losses of the batch, and the one that its config's defaults make."""
    loss_fn, found = function_registry.get_policy_loss_fn("grpo"), {}
    default = {**GRPO, "kl_loss_mode": GRPOConfig().kl_loss_mode}
    for name, case in (LOSSES | {"default": default}).items():
        algorithm = tunix_losses.algorithm_of({**case, "temperature": TEMPERATURE})
        loss, aux = loss_fn(model, example_of(task), algorithm, PAD, EOS)
        found[f"loss:{name}"] = loss
        found |= {f"loss:{name}:{key}": aux[key] for key in tunix_losses.METRICS}
    ids = jnp.asarray(task["batch_ids"])
    found["logprobs"] = common.compute_per_token_logps(
        *nnx.split(model), prompt_tokens=ids[:, :-BATCH_NEW], completion_tokens=ids[:, -BATCH_NEW:],
        pad_id=PAD, eos_id=EOS, temperature=TEMPERATURE,
    )  # fmt: skip
    return found


def gradient(model, config, task):
    """The loss of GRPO and its gradient in our tree."""
    algorithm = tunix_losses.algorithm_of({**GRPO, "temperature": TEMPERATURE})
    loss_fn = function_registry.get_policy_loss_fn("grpo")
    example = example_of(task)
    (loss, _), grads = nnx.value_and_grad(
        lambda model: loss_fn(model, example, algorithm, PAD, EOS), has_aux=True
    )(model)
    return loss, tunix_layout.state_of(config, grads)


def trained(model, config, task):
    """The parameters after one step of Tunix's trainer, in our tree."""
    algorithm = tunix_losses.algorithm_of({**GRPO, "temperature": TEMPERATURE})
    loss_fn = function_registry.get_policy_loss_fn("grpo")
    adamw = {key: OPTIMIZER[key] for key in ("learning_rate", "b1", "b2", "eps", "weight_decay")}
    optimizer = optax.chain(optax.clip_by_global_norm(OPTIMIZER["clip_norm"]), optax.adamw(**adamw))
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optimizer, eval_every_n_steps=1 << 30, max_steps=None
    )
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    model = reshard.reshard_model_to_mesh(model, mesh)
    with mesh:
        learner = trainer.Trainer(
            model, optimizer, training, custom_checkpoint_metadata_fn=lambda: {}
        )
        learner.with_loss_fn(
            lambda model, train_example: loss_fn(model, train_example, algorithm, PAD, EOS),
            has_aux=True,
        )
        learner.with_gen_model_input_fn(lambda example: {"train_example": example})
        step, _ = learner.jit_train_and_eval_step()
        step(example_of(task))
    return tunix_layout.state_of(config, nnx.state(model, nnx.Param))


def flat(prefix: str, tree) -> dict:
    """A tree as arrays by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def main(folder: str) -> None:
    """Everything, one after the other."""
    where = pathlib.Path(folder)
    task, walk = (dict(np.load(where / f"{name}.npz")) for name in ("task", "walk"))
    policy = load_model(where / "model", dtype="float32")
    config, params = policy.config, policy.params
    model = tunix_models.make(tunix_layout.case_of(config))
    tunix_models.fill(model, tunix_layout.to_theirs(config, params))
    found = layers(model, config, task, walk)
    if config.family == "gemma2":
        found["left_padded"] = left_padded(model, task)
    found |= sampled(model, config, task)
    found |= losses(model, task)
    found |= {f"advantages:{k}": v for k, v in tunix_losses.run_advantages(task["rewards"]).items()}
    found["step:loss"], grads = gradient(model, config, task)
    found |= flat("step:gradient", grads)
    after = trained(model, config, task)
    found |= flat("step:moved", jax.tree.map(lambda a, b: np.asarray(a) - b, after, params))
    arrays: dict[str, Any] = {name: np.asarray(x) for name, x in found.items()}
    np.savez(where / "theirs.npz", **arrays)
    versions = {"google-tunix": importlib.metadata.version("google-tunix"), "jax": jax.__version__}
    (where / "about.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(*sys.argv[1:])
