"""GRPO's loss, its gradient and the advantages as Tunix 0.1.7 computes them.

    python -m tests.references.tunix_losses        (pip install -e '.[test,parity]')

writes tunix_losses.npz beside this file; tests/test_tunix_losses.py reads it without Tunix, and
tests/parity/test_tunix_losses_live.py runs `run_case` again. Weights, ids and noise are drawn by
`recipe`; gradients are in our layout, as random projections where they are many.
"""

import functools
import zlib
from typing import Any

import numpy as np

from grpo.parity.words import GRPO
from tests.references.recipe import draw_ids
from tests.references.tunix_models import COMMON, HERE, build

ROWS, PROMPT, NEW = 6, 10, 12
TEMPERATURE = 0.9
PROMPT_LENGTHS = (10, 7, 3, 10, 5, 8)
LENGTHS = (12, 7, 1, 9, 12, 0)  # of completions: two full ones, one of a token, an empty one
# Of the old policy, by row.
DRIFT = np.array([0.1, -0.2, 0.0, 0.15, 0.05, 0.0], np.float32)[:, None]
ADVANTAGES = np.array([0.7, -1.3, 1.1, -0.4, -1.6, 0.9], np.float32)
CAP = 1.5  # of sampler weights
DIRECTIONS = 8  # projections per leaf
# In Tunix's words (grpo/parity/words.py). `old`: the policy as it is, or given.
DEFAULTS = {
    **GRPO,
    "model": "gemma3_small",
    "temperature": TEMPERATURE,
    "old": True,
    "weighted": False,
}
GSPO = {"loss_algo": "gspo-token", "epsilon": 0.05, "epsilon_high": 0.08}
CASES = {
    "grpo": {},
    "on_policy": {"old": False},
    "token": {"loss_agg_mode": "token-mean"},
    "sum": {"loss_agg_mode": "seq-mean-token-sum"},
    "sum_norm": {"loss_agg_mode": "sequence-mean-token-sum-norm"},
    "constant": {"loss_agg_mode": "sequence-mean-token-scale"},
    "k1": {"kl_loss_mode": "kl"},
    "k2": {"kl_loss_mode": "mse_kl"},
    "no_kl": {"beta": 0.0},
    "k2_on_policy_token": {"kl_loss_mode": "mse_kl", "old": False, "loss_agg_mode": "token-mean"},
    "clip_higher": {"epsilon_high": 0.28, "loss_agg_mode": "token-mean"},
    "dual_clip": {"epsilon_c": 1.4, "epsilon_high": 0.28, "loss_agg_mode": "token-mean"},
    "gspo": GSPO,
    "gspo_token_mean": {**GSPO, "loss_agg_mode": "token-mean"},
    "gspo_dual_clip": {**GSPO, "epsilon_c": 1.1, "beta": 0.0},
    "gspo_on_policy": {**GSPO, "old": False},
    "hot": {"temperature": 1.3},
    "plain": {"temperature": 1.0},
    "sampler_weights": {"weighted": True},
    "gemma2": {"model": "gemma2_small"},
    "gemma2_gspo": {"model": "gemma2_small", **GSPO, "kl_loss_mode": "mse_kl"},
}
WHOLE = ("grpo", "gemma2")  # stored with every number of the gradient
METRICS = (
    "kl", "kl_loss", "pg_loss", "pg_clipfrac", "pg_clipfrac_lower", "is_ratio/mean", "is_ratio/max",
    "entropy",
)  # fmt: skip
REWARDS = np.array([[1.0, 3.0, 0.5, 0.0], [2.0, 2.0, 2.0, 2.0], [0.1, -0.7, 0.1, 5.0]])
ESTIMATORS = ("grpo", "rloo", "drgrpo")


def case_of(name: str) -> dict:
    """A case with everything said."""
    return {**DEFAULTS, **CASES[name]}


def logprob_key(name: str) -> str:
    """Where the fixture has the log-probabilities of a case: many share them."""
    case = case_of(name)
    return f"logprob/{case['model']}/{case['temperature']}"


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask: prompts padded on the left, completions on the right."""
    column = np.arange(PROMPT + NEW)
    start, end = PROMPT - np.array(PROMPT_LENGTHS)[:, None], PROMPT + np.array(LENGTHS)[:, None]
    mask = (column >= start) & (column < end)
    return draw_ids(3, ROWS, PROMPT + NEW, COMMON["num_embed"]) * mask, mask.astype(np.int32)


def noise(seed: int, spread: float) -> np.ndarray:
    """What the log-probabilities of another policy differ by, padding included."""
    return np.asarray(np.random.RandomState(seed).standard_normal((ROWS, NEW)) * spread, np.float32)


def project(grads) -> np.ndarray:
    """[leaves, DIRECTIONS]: every leaf of a tree along directions drawn by the leaf's path."""
    import jax

    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        seed = zlib.crc32(jax.tree_util.keystr(path).encode())
        directions = np.random.RandomState(seed).standard_normal((DIRECTIONS, leaf.size))
        found.append(directions @ np.asarray(leaf, np.float64).ravel())
    return np.array(found, np.float32)


def entries(
    name: str, arrays: dict[str, np.ndarray], grads: dict, is_whole: bool
) -> dict[str, np.ndarray]:
    """What a fixture has of a case; perhaps with every number of the gradient."""
    import jax

    found = {f"{name}:{key}": value for key, value in arrays.items()}
    found[f"{name}:projected"] = project(grads)
    if is_whole:
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
            found[f"{name}:gradient{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


@functools.cache
def policy(model: str, temperature: float):
    """Tunix's module with drawn weights, and its log-probabilities of the completions."""
    import jax.numpy as jnp
    from flax import nnx
    from tunix.rl import common

    module, _ = build(model)
    ids = jnp.asarray(rows()[0])
    logprob = common.compute_per_token_logps(
        *nnx.split(module),
        prompt_tokens=ids[:, :PROMPT],
        completion_tokens=ids[:, PROMPT:],
        pad_id=0,
        eos_id=1,
        temperature=temperature,
    )
    return module, np.asarray(logprob)


def given_logprobs(name: str, logprob: np.ndarray) -> dict[str, Any]:
    """The log-probabilities that a case is given: of the old policy, the reference, the sampler."""
    case = case_of(name)
    old = logprob + DRIFT + noise(4, 0.3)
    return {
        "old": old if case["old"] else None,
        "ref": logprob + noise(5, 0.5) if case["beta"] else None,
        "sample": old + noise(6, 0.4) if case["weighted"] else None,
    }


def algorithm_of(case: dict):
    """Tunix's config of a case's algorithm."""
    from tunix.rl.grpo.grpo_learner import GRPOConfig

    fields = ("loss_algo", "loss_agg_mode", "kl_loss_mode", "beta", "epsilon")
    config = GRPOConfig(**{key: case[key] for key in fields})
    config.temperature = case["temperature"]  # the learner does this
    for key in ("epsilon_high", "epsilon_c"):
        if case[key] is not None:
            setattr(config, key, case[key])
    return config


def inputs(name: str, start: int = 0, end: int = ROWS):
    """Tunix's module, example and config for (some rows of) a case; the log-probs of all rows."""
    import jax.numpy as jnp
    from tunix.rl.grpo.grpo_learner import TrainExample

    case = case_of(name)
    module, logprob = policy(case["model"], case["temperature"])
    ids, mask = rows()
    given = given_logprobs(name, logprob)
    config = algorithm_of(case)
    weights = None
    if case["weighted"]:  # as its agentic learner makes them
        weights = np.minimum(np.exp(given["old"] - given["sample"]), CAP) * mask[:, PROMPT:]
    arrays = {
        "prompt_ids": ids[:, :PROMPT],
        "prompt_mask": mask[:, :PROMPT] != 0,
        "completion_ids": ids[:, PROMPT:],
        "completion_mask": mask[:, PROMPT:] != 0,
        "advantages": ADVANTAGES,
        "old_per_token_logps": given["old"],
        "ref_per_token_logps": given["ref"],
        "sampler_is_weights": weights,
    }
    example = TrainExample(
        **{key: None if x is None else jnp.asarray(x[start:end]) for key, x in arrays.items()}
    )
    return module, example, config, logprob


def run_case(name: str, start: int = 0, end: int = ROWS) -> tuple[dict[str, np.ndarray], dict]:
    """Tunix's numbers for a case (or some of its rows), and its gradient in our layout."""
    from flax import nnx
    from tunix.rl import function_registry

    from tests.references.tunix_layout import gradient_of

    module, example, config, logprob = inputs(name, start, end)
    loss_fn = function_registry.get_policy_loss_fn("grpo")
    (loss, aux), grads = nnx.value_and_grad(
        lambda module: loss_fn(module, example, config, 0, 1), has_aux=True
    )(module)
    arrays = {"loss": np.float32(loss), "logprob": logprob}
    arrays |= {key: np.float32(aux[key]) for key in METRICS}
    return arrays, gradient_of(case_of(name)["model"], grads)


def run_advantages(rewards: np.ndarray = REWARDS) -> dict[str, np.ndarray]:
    """Tunix's advantages [P, G] by estimator."""
    from tunix.rl import function_registry
    from tunix.rl.grpo import grpo_learner

    del grpo_learner  # importing it registers the estimators
    group = rewards.shape[1]
    return {
        name: np.asarray(
            function_registry.get_advantage_estimator(name)(
                rewards=rewards.ravel(), num_generations=group
            )
        ).reshape(rewards.shape)
        for name in ESTIMATORS
    }


def main() -> None:
    """Writes the fixture."""
    stored: dict[str, Any] = {f"advantages/{key}": value for key, value in run_advantages().items()}
    for name in CASES:
        arrays, grads = run_case(name)
        stored[logprob_key(name)] = arrays.pop("logprob")
        stored |= entries(name, arrays, grads, name in WHOLE)
    np.savez_compressed(HERE / "tunix_losses.npz", **stored)


if __name__ == "__main__":
    main()
