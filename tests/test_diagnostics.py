"""What is asked of an update: when, of what config, by which programs, and what they take."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from grpo.algorithms.groups import Groups
from grpo.checks.problems import problems
from grpo.diagnostics.programs import GRADIENT, Made, by_reward, is_due
from grpo.pipeline import STAGES
from grpo.runs.shapes import base_of, shapes_at_start
from grpo.stages import grpo
from grpo.tools.preflight import needed, preflight
from grpo.training.program import Program
from tests.refusals import changed
from tests.small_run import C, G, P, small, small_grpo

EVERY = "stages.grpo.by_reward_every"


def test_every_so_many_iterations():
    assert [n for n in range(7) if is_due(3, n)] == [0, 3, 6]
    assert [n for n in range(7) if is_due(1, n)] == list(range(7))
    assert not any(is_due(0, n) for n in range(7))


def made_of(advantages) -> Made:
    names = ("ids_BT", "mask_BT", "completion_mask_BC", "truncated_B", "sample_logprob_BC")
    batch = Groups(**dict.fromkeys(names), advantage_B=np.array(advantages, np.float32))
    return Made({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, None, batch)


def test_a_gradient_by_reward_by_hand():
    """∇L(A) = Σ_b A_b (b, 1) + (0, 2): of A = (1, 2) it is (2, 3) + (0, 2)."""

    def gradient(before, frozen, batch):
        A_B = jnp.asarray(batch.advantage_B)
        assert frozen is None and before["w"].tolist() == [0, 0]
        return {"w": jnp.array([jnp.sum(A_B * jnp.arange(2)), jnp.sum(A_B) + 2])}

    apart = {"x": np.array([3.0, 0.0], np.float32), "y": np.array([-2.0, 2.0], np.float32)}
    found = by_reward({GRADIENT: Program(gradient, ())}, made_of([1, 2]), apart, "float32")
    whole = math.hypot(2, 5)
    assert found == pytest.approx({
        "gradient/residual": 0.0,
        "gradient/conflict": 1 - math.hypot(2, 3) / (3 + 2),
        "gradient/x/norm": 3.0, "gradient/x/cosine": 5 / whole,
        "gradient/y/norm": 2.0, "gradient/y/cosine": 2 / whole,
        "gradient/(no reward)/norm": 2.0, "gradient/(no reward)/cosine": 5 / whole,
    }, abs=1e-6)  # fmt: skip


def test_a_gradient_that_is_not_its_parts_says_no_more():
    """A clip that goes by the sign of A: the parts do not add up, and only that is said."""

    def gradient(before, frozen, batch):
        A_B = jnp.asarray(batch.advantage_B)
        return {"w": jnp.array([jnp.sum(jnp.maximum(A_B, 0.0)), 0.0])}

    apart = {"x": np.array([3.0, 0.0], np.float32), "y": np.array([-2.0, 2.0], np.float32)}
    found = by_reward({GRADIENT: Program(gradient, ())}, made_of([1, 2]), apart, "bfloat16")
    assert found.pop("gradient/residual") == pytest.approx(2 / 5)
    assert len(found) == 7 and all(math.isnan(x) for x in found.values())


TAUGHT = {"stages.grpo.rewards": {}, "stages.grpo.teacher": "sft",
          "stages.grpo.loss.teacher_coef": 1.0}  # fmt: skip
LATE = {"stages.grpo.staleness": 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"stages.grpo.loss.decoupled": True}, "loss.decoupled=True normalises each reward"),
        (TAUGHT, "no reward has a weight: use 0"),
        (LATE, "staleness=1 has the first update clip by the sign of an advantage, which its "
         "parts may not share: use loss.surrogate='cispo', or 0"),
        ({**LATE, "stages.grpo.loss.preset": "cispo"}, None),
    ],
)  # fmt: skip
def test_gradients_by_reward_where_there_are_none_are_refused(changes, said):
    lines = problems(changed({**changes, EVERY: 5}), STAGES)
    assert len(lines) == (said is not None)
    for line in lines:
        assert line.startswith(f"{EVERY}=5: {said}") and "\n" not in line
    assert problems(changed({**changes, EVERY: 0, "stages.grpo.forecast_every": 5}), STAGES) == []


@pytest.mark.parametrize("value", [-1, 1.5, None, True])
def test_how_often_is_a_number(value):
    for field in ("forecast_every", "by_reward_every"):
        (line,) = problems(changed({f"stages.grpo.{field}": value}), STAGES)
        assert line.startswith(f"stages.grpo.{field}={value}: expected an integer, at least 0")


def asked(**fields) -> dict:
    config = small()
    config.stages.grpo, config.pipeline = small_grpo(), ("grpo",)
    config.stages.grpo.update(minibatches=2, evaluate_every=0, **fields)
    return config.to_dict()


def programs_of(config: dict) -> dict:
    policy = shapes_at_start(base_of(config), config["stages"]["grpo"])
    return grpo.build(config, "grpo", policy)


def test_programs_are_those_that_are_asked_for():
    plain = set(programs_of(asked()))
    assert plain == {"update", "rollout", "decoding weights", "log-probs"}
    assert set(programs_of(asked(forecast_every=3))) - plain == {"forecast", "forecast, log-probs"}
    assert set(programs_of(asked(by_reward_every=3))) - plain == {"gradient by reward"}
    logged = asked()
    logged["log"]["tokens"] = True
    assert set(programs_of(logged)) - plain == {"entropy"}


def test_a_preflight_reckons_with_them():
    """In bytes of what is trained: 4 a parameter, 2 where the rest is in bfloat16."""
    config = asked(forecast_every=1, by_reward_every=1)
    config["stages"]["grpo"]["rewards"]["length"] = base.reward(0.0, 0.0, 1.0).to_dict()
    lines = [line.partition("; lowered")[0] for line in preflight(config, STAGES)]
    rows, T = P * G // 2, 64 + C
    (line,) = [line for line in lines if line.startswith("grpo: gradient by reward: ")]
    assert f"{rows} rows of {T} tokens in 1 parts" in line and line.endswith("beside 6 gradients")
    assert sum(line.startswith("grpo: forecast") for line in lines) == 2
    policy = shapes_at_start(base_of(config), config["stages"]["grpo"])
    own, programs = sum(x.size for x in jax.tree.leaves(policy.trainable)), programs_of(config)
    whole, alone = (needed(programs[name], policy).adds for name in (GRADIENT, "update"))
    assert whole - alone == 5 * 4 * own
    saved = needed(programs["forecast"], policy).adds - 2 * 4 * own
    assert 0.5 < saved / (alone - 4 * own) < 2  # about what an update saves for its derivative

    config["model"]["param_dtype"] = "bfloat16"
    config["stages"]["grpo"]["lora"]["rank"] = 4
    policy = shapes_at_start(base_of(config), config["stages"]["grpo"])
    adapter, frozen = (
        sum(x.size for x in jax.tree.leaves(tree)) for tree in (policy.trainable, policy.frozen)
    )
    in_short = needed(programs_of(config)["forecast"], policy).adds
    config["model"]["param_dtype"] = "float32"
    policy = shapes_at_start(base_of(config), config["stages"]["grpo"])
    assert in_short - needed(programs_of(config)["forecast"], policy).adds == 4 * frozen
    assert in_short > 2 * 4 * adapter + 4 * frozen
