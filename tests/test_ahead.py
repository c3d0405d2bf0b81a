"""What sampling ahead is made of: a batch that waits, a thread that waits for others, checks."""

import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from configs import base
from grpo.checks import problems as checks
from grpo.pipeline import STAGES
from grpo.rollout.ahead import Sampled, sampled_of
from grpo.rollout.frozen import Frozen, learnt, needs_of
from grpo.rollout.sampler import Rollout
from grpo.runs import judged_reward
from grpo.runs.given_rewards import Batch, Reward, Values, ask, given_to
from grpo.runs.in_thread import begin, result_of
from grpo.runs.resume import parted, together
from models.sharding import row_sharding
from tests.refusals import changed
from tests.small_run import small, small_grpo

B, T, C = 4, 5, 2
G = "stages.grpo."


def nothing():
    """Looks around."""


def batch_of(has_teacher: bool) -> Sampled:
    random = np.random.RandomState(0)
    rollout = Rollout(
        ids_BT=jnp.asarray(random.randint(0, 99, (B, T))),
        mask_BT=jnp.asarray(random.randint(0, 2, (B, T))),
        completion_mask_BC=jnp.asarray(random.rand(B, C) < 0.5),
        truncated_B=jnp.asarray(random.rand(B) < 0.5),
        sample_logprob_BC=jnp.asarray(random.randn(B, C), jnp.float32),
    )
    old_BC, ref_BC, *more = (jnp.asarray(random.randn(B, C), jnp.float32) for _ in range(4))
    teacher_BC, entropy_BC = more if has_teacher else (None, None)
    return Sampled(rollout, Frozen(old_BC, ref_BC, teacher_BC, entropy_BC), 7)


@pytest.mark.parametrize("has_teacher", [False, True])
@pytest.mark.parametrize("is_on_mesh", [False, True])
def test_a_batch_is_what_was_stored(has_teacher, is_on_mesh):
    """On a mesh with its rows over the devices, as the sampler leaves them."""
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("fsdp", "tp")) if is_on_mesh else None
    batch = batch_of(has_teacher)
    stored = batch.stored()
    assert all(type(x) is np.ndarray for x in stored.values())
    assert ("teacher_BC" in stored) == ("entropy_BC" in stored) == has_teacher
    back = sampled_of(stored, mesh)
    assert back.iteration == 7 and (back.frozen.teacher_BC is None) == (not has_teacher)
    assert jax.tree.structure(back) == jax.tree.structure(batch)
    for here, there in zip(jax.tree.leaves(back), jax.tree.leaves(batch), strict=True):
        assert np.array_equal(here, there) and np.asarray(here).dtype == np.asarray(there).dtype
        if mesh is not None and np.ndim(here):
            assert here.sharding == row_sharding(B, here.ndim, mesh)


def test_a_checkpoint_keeps_it_apart_from_the_groups():
    groups, ahead = {"ids_BT": np.ones(2)}, {"ids_BT": np.zeros(3), "old_BC": np.ones(1)}
    arrays = together(groups, ahead)
    assert [*arrays] == ["ids_BT", "ahead/ids_BT", "ahead/old_BC"]
    assert parted(arrays) == (groups, ahead)
    assert together(groups, {}) == groups and parted({}) == ({}, {})


@pytest.mark.parametrize(
    ("fields", "old", "ratio"),
    [
        ({}, False, False),
        ({"epochs": 2}, True, True),
        ({"staleness": 1}, True, True),
        ({"loss": {"kl_in": "reward", "kl": "k1"}}, True, False),
    ],
)
def test_updates_that_do_not_begin_at_who_sampled_need_its_log_probs(fields, old, ratio):
    stage = base.grpo()
    stage.update(fields)
    needs = needs_of(stage.to_dict())
    assert (needs.old, needs.ratio) == (old, ratio)
    given = learnt(Frozen(np.ones(1), np.ones(1), None), needs)["old_logprob_BC"]
    assert (given is not None) == ratio


def test_a_thread_of_its_own():
    """Which nobody waits for at the end of the process."""
    threads = []
    assert result_of(begin(lambda: threads.append(threading.current_thread()) or 5), nothing) == 5
    assert threads[0] is not threading.main_thread() and threads[0].daemon


def test_an_error_is_raised_where_it_is_waited_for():
    def fail():
        raise KeyboardInterrupt("there")

    ends = time.monotonic() + 10

    def look():
        assert time.monotonic() < ends

    with pytest.raises(KeyboardInterrupt, match="there"):
        result_of(begin(fail), look)


def test_who_waits_looks_around_and_may_go():
    gate, looked = threading.Event(), []

    def look():
        looked.append(time.monotonic())
        if len(looked) == 3:
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        result_of(begin(lambda: gate.wait(10)), look)
    assert looked[-1] - looked[0] < 5
    gate.set()


def rewards_of(threads: dict) -> dict[str, Reward]:
    def reward(name: str, value: float, *, elsewhere: bool) -> Reward:
        def read(batch: Batch) -> Values:
            threads[name] = threading.current_thread()
            return Values(np.full(len(batch.texts), value), {"n": value})

        return Reward(read, elsewhere)

    return {
        "server": reward("server", 0.5, elsewhere=True),
        "learned": reward("learned", 0.25, elsewhere=False),
        "replay": reward("replay", 0.75, elsewhere=True),
    }


def test_only_what_is_elsewhere_is_asked_in_a_thread():
    """Programs of the policy's devices come from one thread; names stay in their order."""
    threads: dict = {}
    batch = Batch(None, None, [], ["a", "b"], None, {})  # pyright: ignore[reportArgumentType]
    asked = ask(batch, rewards_of(threads))
    assert threads["learned"] is threading.main_thread()  # before anything else is sampled
    values, metrics = given_to(asked, nothing)
    assert threads["server"] is threads["replay"] is not threading.main_thread()
    assert [*values] == ["server", "learned", "replay"]
    assert [x_B.tolist() for x_B in values.values()] == [[0.5] * 2, [0.25] * 2, [0.75] * 2]
    assert [*metrics.items()] == [
        ("reward/server/n", 0.5), ("reward/learned/n", 0.25), ("reward/replay/n", 0.75),
    ]  # fmt: skip


def test_a_judge_that_is_a_model_of_ours_is_not_elsewhere(monkeypatch):
    monkeypatch.setattr(judged_reward, "judge_of", lambda *words: None)
    config = small()
    config.stages.grpo = small_grpo()
    for name in ("judged", "held_out_judged"):
        config.stages.grpo.rewards[name] = base.reward(1.0, 0.0, 1.0, judge=name)
        config.judges[name] = base.judge(model="base")
    policies: object = SimpleNamespace(config=config.to_dict())
    programs: dict = {"judged": object()}
    found = judged_reward.judged_of(policies, "grpo", programs)  # pyright: ignore[reportArgumentType]
    assert {name: one.elsewhere for name, one in found.items()} == {
        "judged": False, "held_out_judged": True,
    }  # fmt: skip


def problems(changes) -> list[str]:
    return checks.problems(changed({f"{G}staleness": 1, **changes}), STAGES)


@pytest.mark.parametrize("changes", [
    {}, {f"{G}dynamic_sampling": "drop"}, {f"{G}curriculum.order": "sorted"},
    {f"{G}loss.preset": "cispo"}, {f"{G}loss.preset": "gspo"}, {f"{G}epochs": 3},
    {f"{G}loss.preset": "rloo", f"{G}staleness": 0},
])  # fmt: skip
def test_what_can_sample_ahead(changes):
    assert problems(changes) == []


@pytest.mark.parametrize(("changes", "line"), [
    ({f"{G}staleness": 2}, "staleness=2: expected an integer, at least 0, at most 1"),
    ({f"{G}staleness": True}, "staleness=True: expected an integer"),
    ({f"{G}dynamic_sampling": "refill", f"{G}max_rounds": 3},
     "staleness=1: dynamic_sampling='refill' draws by what verdicts say: use drop or off"),
    ({f"{G}curriculum.order": "promoted"},
     "staleness=1: curriculum.order='promoted' goes by what verdicts say: use another"),
    ({f"{G}loss.preset": "rloo"},
     "staleness=1: loss.surrogate='reinforce' has no ratio to correct by: use cispo"),
    ({f"{G}loss.preset": "rloo", f"{G}loss.correction": "cap",
      f"{G}loss.correction_level": "token", f"{G}loss.correction_cap": 2.0},
     "staleness=1: loss.surrogate='reinforce' has no ratio to correct by: use cispo"),
])  # fmt: skip
def test_what_cannot(changes, line):
    (found,) = problems(changes)
    assert found.startswith(G + line)
