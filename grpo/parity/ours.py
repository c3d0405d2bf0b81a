"""This code's side: every piece by itself on its own input, then the whole.

A piece that stands alone says where a difference begins; what the reference computes of a piece it
computes of the inputs that are kept here. Weights, activations and cache are float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from grpo.algorithms.distribution import Sampling
from grpo.algorithms.groups import Groups
from grpo.algorithms.losses import policy_loss, with_token_weights
from grpo.algorithms.objective import Objective
from grpo.parity.task import BATCH_NEW, NEW, TEMPERATURE
from grpo.parity.words import GRPO, LOSSES, OPTIMIZER, objective_of
from grpo.rollout.sampler import Rollout, decoding_params, rollout, row_keys
from grpo.training.logprobs import Logprobs, make_policy_loss
from grpo.training.optimizer import optimizer_of
from models.config import GLOBAL, LOCAL
from models.gemma import Embedder, layer_at, views
from models.layers import Block, rope, rope_angles, rotation
from models.policy import Policy, logits

Arrays = dict[str, Any]  # NumPy's
# The pieces of a layer, in order; what each is given is what stands before it.
PIECES = (
    "pre_attention_norm", "attention", "post_attention_norm", "pre_ffw_norm", "mlp",
    "post_ffw_norm",
)  # fmt: skip
NEVER = 2**29  # a stop token that no vocabulary has
GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
DRAWN = GREEDY._replace(temperature=TEMPERATURE)


def layers(policy: Policy, task: Arrays) -> Arrays:
    """What each piece of each layer makes of its input, the blocks' inputs `x`, and the logits."""
    config, params, dtype = policy.config, policy.params, policy.compute_dtype
    ids_BT, mask_BT = jnp.asarray(task["walk_ids"]), jnp.asarray(task["walk_mask"])
    view = views(config, mask_BT, None)
    embedder = Embedder(config, dtype, policy.param_dtype)
    x_BTD: Any = embedder.apply({"params": params["embedder"]}, ids_BT)
    block = Block(config, policy.param_dtype, 0.0, policy.attention)
    run = jax.jit(functools.partial(block.apply, capture_intermediates=True, mutable=True))
    found: dict[str, list[Any]] = {name: [] for name in ("x", "block", *PIECES)}
    for i, kind in enumerate(config.kinds):
        found["x"].append(x_BTD)
        layer = {"params": layer_at(params["layers"], i)}
        (x_BTD, _), state = run(layer, x_BTD, view[kind])
        for name in PIECES:
            (out,) = state["intermediates"][name]["__call__"]
            found[name].append(out[0] if name == "attention" else out)
        found["block"].append(x_BTD)
    position_BT = jnp.maximum(view[GLOBAL].place_BT, 0)
    angles = {
        LOCAL: rope_angles(position_BT, config.head_dim, config.local_theta, 1.0),
        GLOBAL: rope_angles(
            position_BT, config.head_dim, config.global_theta, config.global_rope_factor
        ),
    }
    rotations = {kind: rotation(angle) for kind, angle in angles.items()}
    rotated = {f"rope_{kind}": rope(task["rope"], by) for kind, by in rotations.items()}
    arrays = {name: np.stack(x) for name, x in found.items()} | {
        "visible": view[GLOBAL].visible_BTS,
        "positions": position_BT,
        "logits": logits(policy, task["walk_ids"], task["walk_mask"]),
        **rotated,
    }
    return {name: np.asarray(x) for name, x in arrays.items()}


def completions(policy: Policy, task: Arrays, sampling: Sampling, stops: Any) -> Rollout:
    """One completion of every prompt, through the cache."""
    weights = decoding_params(
        policy.params, None, lora_scale=0.0, dtype=policy.compute_dtype, mesh=None
    )
    rows_B = jnp.arange(len(task["prompt_ids"]))
    return rollout(
        policy.module, weights, task["prompt_ids"], task["prompt_mask"],
        row_keys(0, "evaluate", 0, rows_B), sampling, jnp.asarray(stops), group=1,
        max_new_tokens=NEW,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("scorer", "completion"))
def _score(scorer: Logprobs, params: Any, ids_BT: Any, mask_BT: Any, completion: int) -> Any:
    return scorer({"params": params}, ids_BT, mask_BT, completion)


def logprobs(
    policy: Policy, ids_BT: Any, mask_BT: Any, completion: int, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """The trainer's log-probs of the last tokens of rows, and the entropies."""
    scorer = Logprobs(module=policy.module, temperature=temperature, with_entropy=True)
    found = _score(scorer, policy.params, jnp.asarray(ids_BT), jnp.asarray(mask_BT), completion)
    return np.asarray(found[0]), np.asarray(found[1])


def completion_logprobs(policy: Policy, task: Arrays, completion_BC: np.ndarray) -> np.ndarray:
    """The trainer's log-probs of given completions of the prompts, each of them whole."""
    ids_BT = np.concatenate([task["prompt_ids"], completion_BC], axis=1)
    mask_BT = np.concatenate([task["prompt_mask"], np.ones_like(completion_BC)], axis=1)
    return logprobs(policy, ids_BT, mask_BT, completion_BC.shape[1], TEMPERATURE)[0]


def groups(task: Arrays, objective: Objective) -> Groups:
    """The batch, with weights; `old` and `ref` are log-probs that the task was given."""
    return with_token_weights(
        Groups(
            ids_BT=task["batch_ids"], mask_BT=task["batch_mask"],
            completion_mask_BC=task["batch_mask"][:, -BATCH_NEW:],
            truncated_B=task["batch_mask"][:, -1], sample_logprob_BC=None,
            advantage_B=task["advantages"], old_logprob_BC=task["old"],
            ref_logprob_BC=task["ref"],
        ),
        limit=BATCH_NEW, objective=objective,
    )  # fmt: skip


def losses(logprob_BC: np.ndarray, entropy_BC: np.ndarray, task: Arrays) -> Arrays:
    """The losses of the batch by their names, each with its metrics."""
    found = {}
    for name, case in LOSSES.items():
        objective = objective_of(case)
        loss, metrics = policy_loss(
            jnp.asarray(logprob_BC), jnp.asarray(entropy_BC), groups(task, objective),
            objective=objective,
        )  # fmt: skip
        found[name] = np.float32(loss)
        found |= {f"{name}:{key}": np.float32(x) for key, x in metrics.flat().items()}
    return found


def step(policy: Policy, task: Arrays) -> tuple[float, Any, Any]:
    """One GRPO update of all parameters: the loss, the gradient, and how far each one moved."""
    objective = objective_of(GRPO)
    scorer = Logprobs(module=policy.module, temperature=TEMPERATURE, with_entropy=True)
    loss = make_policy_loss(scorer, objective)
    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, _), grads = run(policy.params, None, groups(task, objective))
    optimizer = optimizer_of(OPTIMIZER, 1)

    @jax.jit
    def moved(grads: Any, params: Any) -> Any:
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        return jax.tree.map(jnp.subtract, optax.apply_updates(params, updates), params)

    return float(value), grads, moved(grads, policy.params)
