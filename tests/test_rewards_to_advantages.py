"""From rewards to advantages, as an objective says: against the pieces, and in plain Python."""

import dataclasses
import itertools
import statistics

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.advantages import advantages, decoupled_advantages, overlong_penalty
from grpo.algorithms.presets import GRPO, PRESETS
from grpo.algorithms.rewards_to_advantages import rewards_to_advantages, spread
from tests import oracle_losses

NAN = float("nan")
LIMIT = 10
REWARD = np.array([[1, 0, 0.5, 0.25], [0, 0, 3, 1]], np.float32)
LENGTH = np.array([[4, 10, 9, 2], [8, 9, 3, 10]])
PENALTY = np.array([[0.1, 0.4, 0, 0.2], [0, 0.3, 0.3, 0.6]], np.float32)
PARTS = {"right": np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.float32), "form": REWARD}
WEIGHTS = {"right": 2.0, "form": 0.5}
LONG = dataclasses.replace(GRPO, overlong_buffer=0.4, overlong_penalty=2.0)


def compared(objective, reward=REWARD, penalty=None, parts=PARTS, weights=WEIGHTS):
    given = None if penalty is None else jnp.asarray(penalty)
    got = rewards_to_advantages(
        jnp.asarray(reward), {name: jnp.asarray(r) for name, r in parts.items()}, weights,
        jnp.asarray(LENGTH), given, limit=LIMIT, objective=objective,
    )  # fmt: skip
    return np.asarray(got)


def in_groups(reward_PG, eps=1e-6):
    """(r - mean) / (std + eps) of every group, by the statistics module."""
    return [
        [(r - statistics.mean(row)) / (statistics.stdev(row) + eps) for r in row]
        for row in np.asarray(reward_PG, float).tolist()
    ]


def test_plain():
    np.testing.assert_allclose(compared(GRPO), in_groups(REWARD), rtol=1e-5)
    got = compared(PRESETS["dr_grpo"])
    np.testing.assert_allclose(got, [[0.5625, -0.4375, 0.0625, -0.1875], [-1, -1, 2, 0]], rtol=1e-6)


def test_long_completions_lose_reward_before_they_are_compared():
    """Of 10 tokens the last 4 cost: 8 is half the way to 2.0, 9 three quarters, 10 all of it."""
    lost = np.array([[0, 2.0, 1.5, 0], [1.0, 1.5, 0, 2.0]])
    np.testing.assert_allclose(compared(LONG), in_groups(REWARD - lost), rtol=1e-5)
    got = overlong_penalty(jnp.asarray(LENGTH), limit=LIMIT, buffer=0.4, penalty=2.0)
    np.testing.assert_allclose(got, lost, rtol=1e-5)


def test_kl_in_the_reward_is_taken_off_before_they_are_compared():
    rloo = PRESETS["rloo"]
    shaped = (REWARD - PENALTY).tolist()
    others = [[r - (sum(row) - r) / 3 for r in row] for row in shaped]
    np.testing.assert_allclose(compared(rloo, penalty=PENALTY), others, rtol=1e-5)
    both = compared(LONG, penalty=PENALTY)
    lost = np.array([[0, 2.0, 1.5, 0], [1.0, 1.5, 0, 2.0]])
    np.testing.assert_allclose(both, in_groups(REWARD - lost - PENALTY), rtol=1e-4)


def test_the_batch_and_the_mean_as_the_papers_have_them():
    """Through the objective, from rewards as they are: nothing of a preset takes anything off."""
    for name in ("maxrl", "reinforce_pp_baseline"):
        paper = getattr(oracle_losses, name)
        np.testing.assert_allclose(compared(PRESETS[name]), paper(REWARD.tolist()), rtol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_its_own_baseline_and_scale(name):
    objective = PRESETS[name]
    reward = jnp.asarray(REWARD - PENALTY)
    if objective.overlong_buffer is not None and objective.overlong_penalty is not None:
        reward = reward - overlong_penalty(
            jnp.asarray(LENGTH), limit=LIMIT, buffer=objective.overlong_buffer,
            penalty=objective.overlong_penalty,
        )  # fmt: skip
    wanted = advantages(
        reward, baseline=objective.baseline, scale=objective.scale, eps=objective.eps or 0.0
    )
    np.testing.assert_allclose(compared(objective, penalty=PENALTY), wanted, rtol=1e-6)


DECOUPLED = dataclasses.replace(GRPO, decoupled=True)


def test_decoupled_normalises_each_reward_apart():
    wanted = decoupled_advantages(
        {name: jnp.asarray(r) for name, r in PARTS.items()}, WEIGHTS,
        baseline="group", scale="group", eps=1e-6,
    )  # fmt: skip
    got = compared(DECOUPLED)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    right, form = in_groups(PARTS["right"]), in_groups(PARTS["form"])
    pairs = zip(itertools.chain(*right), itertools.chain(*form), strict=True)
    total = [2.0 * a + 0.5 * b for a, b in pairs]
    mean, std = statistics.mean(total), statistics.stdev(total)
    np.testing.assert_allclose(
        got.reshape(-1), [(t - mean) / (std + 1e-6) for t in total], rtol=1e-4, atol=1e-6
    )


def test_decoupled_a_reward_without_weight_has_no_say():
    """It is only logged, or only a gate: not even a rounding error of it reaches an advantage."""
    logged = {**PARTS, "logged": np.array([[0.3, 0.1, 0.7, 0.9], [0.1, 0.2, 0.3, 0.7]], np.float32)}
    weights = {**WEIGHTS, "logged": 0.0}
    got = compared(DECOUPLED, parts=logged, weights=weights)
    np.testing.assert_array_equal(got, compared(DECOUPLED))

    # A group in which the weighted rewards are equal has nothing to teach.
    parts = {
        "right": np.array([[1, 1, 1, 1], [0, 1, 0.3, 0.7]], np.float32),
        "logged": logged["logged"],
    }
    got = compared(DECOUPLED, parts=parts, weights={"right": 1.0, "logged": 0.0})
    np.testing.assert_array_equal(got[0], 0)
    assert got[1].any()

    # A completion of which no weighted reward is known abstains.
    parts["right"] = np.array([[1, 1, 0, NAN], [0, 1, 0.3, 0.7]], np.float32)
    got = compared(DECOUPLED, parts=parts, weights={"right": 1.0, "logged": 0.0})
    assert got[0, 3] == 0
    alone = {"right": parts["right"]}
    np.testing.assert_array_equal(got, compared(DECOUPLED, parts=alone, weights={"right": 1.0}))


@pytest.mark.parametrize("objective", [GRPO, LONG, PRESETS["rloo"]], ids=["grpo", "long", "rloo"])
def test_what_has_no_reward_abstains(objective):
    """It gets 0, and the others are compared as if it were not there."""
    reward = REWARD.copy()
    reward[0, 1] = NAN
    got = compared(objective, reward=reward, penalty=PENALTY)
    assert got[0, 1] == 0 and np.isfinite(got).all() and got.any(axis=1).all()
    np.testing.assert_array_equal(got[1], compared(objective, penalty=PENALTY)[1])
    if objective is GRPO:
        rest = np.delete(REWARD[0] - PENALTY[0], 1)
        np.testing.assert_allclose(np.delete(got[0], 1), in_groups([rest])[0], rtol=1e-5)


def test_a_spread_is_of_the_rewards_and_not_of_the_penalties():
    """Group 0 is solved by all, group 1 by some, group 2 has one reward only."""
    reward_PG = jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, jnp.nan]])
    parts = {"a": reward_PG, "b": jnp.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])}
    got = spread(reward_PG, parts, {"a": 1.0, "b": 0.0}, objective=PRESETS["grpo"])
    assert got.tolist() == [[False], [True], [False]]
    apart = dataclasses.replace(PRESETS["grpo"], decoupled=True)
    got = spread(reward_PG, parts, {"a": 1.0, "b": 0.0}, objective=apart)
    assert got.tolist() == [[False], [True], [False]]
    got = spread(reward_PG, parts, {"a": 1.0, "b": 0.1}, objective=apart)
    assert got.tolist() == [[True], [True], [False]]
