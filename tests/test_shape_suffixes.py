"""Array names end in shape letters (`q_BTNH`); here they are checked while the code runs.

A profiler hook looks at the local variables of every function of ours as it returns: the number of
letters must be the number of axes, and a letter must have one size within a function.
"""

import contextlib
import inspect
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.advantages import advantages, decoupled_advantages
from grpo.algorithms.distribution import Sampling
from grpo.algorithms.losses import kl_penalty, policy_loss
from grpo.algorithms.presets import PRESETS
from grpo.rollout.sampler import rollout, row_keys
from grpo.training.logprobs import Logprobs
from models.cache import init_cache
from models.gemma import Gemma, param_shapes, unembed
from models.lora import LoraConfig, init_adapter
from tests.helpers import TINY, weighed

ROOT = pathlib.Path(__file__).parent.parent
OURS = tuple(str(ROOT / room) for room in ("models", "grpo"))
LETTERS = "PGBICTSVLDFNKQHRME1"
SUFFIX = re.compile(rf"[a-z][a-z0-9_]*_([{LETTERS}]+)")


def check_frame(variables: dict, where: str) -> list[str]:
    """The names whose suffix is not their shape."""
    sizes, wrong = {"1": 1}, []
    for name, value in variables.items():
        match = SUFFIX.fullmatch(name)
        shape = getattr(value, "shape", None)
        if match is None or not isinstance(shape, tuple):
            continue
        letters = match[1]
        if len(letters) != len(shape):
            wrong.append(f"{where}: {name} has shape {shape}")
        for letter, size in zip(letters, shape, strict=False):
            if sizes.setdefault(letter, size) != size:
                wrong.append(f"{where}: {name} has shape {shape}, but {letter} is {sizes[letter]}")
    return wrong


@contextlib.contextmanager
def suffixes_checked():
    """Yields the list of wrong names and the set of functions seen."""
    wrong, seen = [], set()

    def hook(frame, event, _):
        code = frame.f_code
        if event == "return" and code.co_filename.startswith(OURS):
            seen.add(code.co_name)
            wrong.extend(check_frame(frame.f_locals, f"{code.co_filename}:{code.co_name}"))

    sys.setprofile(hook)
    try:
        yield wrong, seen
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("family", TINY)
def test_models(family):
    config, lora = TINY[family], LoraConfig(rank=3, alpha=1)
    params = param_shapes(config)

    def run(params, ids, prompt):
        adapter = init_adapter(lora, params, jax.random.key(0))
        module = Gemma(config, lora_scale=lora.scale)
        hidden, _ = module.apply({"params": params, "lora": adapter}, ids, jnp.ones_like(ids))
        cache = init_cache(config, 5, 40, jnp.float32)
        _, cache = module.apply({"params": params}, prompt, jnp.ones_like(prompt), cache)
        _, cache = module.apply({"params": params}, ids[:, :1], jnp.ones((5, 1), int), cache)
        return unembed(config, params, hidden), cache

    ids, prompt = (jax.ShapeDtypeStruct((5, length), jnp.int32) for length in (21, 13))
    with suffixes_checked() as (wrong, seen):
        jax.eval_shape(run, params, ids, prompt)
    assert wrong == []
    assert {"einsum_attention", "extend", "rope_angles", "unembed", "row_positions"} <= seen


@pytest.mark.parametrize("name", PRESETS)
def test_algorithms(name):
    objective = PRESETS[name]
    reward = jnp.asarray(np.random.RandomState(0).standard_normal((4, 5)), jnp.float32)
    floats = jax.ShapeDtypeStruct((20, 11), jnp.float32)

    def run(logprob, mask):
        options = {"baseline": objective.baseline, "scale": objective.scale, "eps": objective.eps}
        decoupled_advantages({"a": reward}, {"a": 1.0}, baseline="group", scale="group", eps=1.0)
        groups = weighed(
            completion_mask_BC=mask > 0, truncated_B=mask[:, 0] > 0,
            advantage_B=advantages(reward, **options).reshape(-1), old_logprob_BC=mask,
            ref_logprob_BC=mask, teacher_logprob_BC=mask, sample_logprob_BC=mask,
            limit=11, objective=objective,
        )  # fmt: skip
        kl_penalty(logprob, mask, mask, objective=objective)
        return policy_loss(logprob, logprob, groups, objective=objective)

    with suffixes_checked() as (wrong, seen):
        jax.eval_shape(run, floats, floats)
    assert wrong == []
    assert {"policy_loss", "mean_and_std", "token_weights", "with_token_weights"} <= seen


def test_rollout_and_scores():
    config = TINY["gemma3"]
    module, ids = Gemma(config), jnp.ones((3, 9), jnp.int32)

    def run(params):
        keys = row_keys(0, "train", 0, jnp.arange(6))
        sampling = Sampling(1.0, 5, 0.9, 0.1)
        got = inspect.unwrap(rollout)(
            module, {"params": params}, ids, ids, keys, sampling, jnp.arange(2),
            group=2, max_new_tokens=7,
        )  # fmt: skip
        full = got.ids_BT
        scorer = Logprobs(module=module, temperature=0.9, with_entropy=True)
        return jax.grad(lambda params: scorer({"params": params}, full, full, 7)[0].sum())(params)

    with suffixes_checked() as (wrong, seen):
        jax.eval_shape(run, param_shapes(config))
    assert wrong == []
    assert {"rollout", "draw", "restrict", "sample", "token_logprobs", "edge"} <= seen


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({"q_BTNH": jnp.zeros((2, 3, 4, 5)), "k_BKHS": jnp.zeros((2, 1, 5, 7))}, 0),
        ({"q_BTNH": jnp.zeros((2, 3, 4))}, 1),
        ({"q_BT": jnp.zeros((2, 3)), "k_TB": jnp.zeros((2, 3))}, 2),
        ({"x_B1": jnp.zeros((2, 3))}, 1),
        ({"is_local": jnp.zeros(3), "AXES": (1, 2), "end": jnp.zeros(2)}, 0),
    ],
)
def test_the_check_itself_can_fail(variables, wrong):
    assert len(check_frame(variables, "here")) == wrong
