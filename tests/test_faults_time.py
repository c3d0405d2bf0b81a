"""Runs that are asked to stop: what was sampled is kept, set-up ends soon, a budget is kept to."""

import pytest

from grpo.checks.durations import seconds_of
from grpo.data import making
from grpo.data.making import LOOK_EVERY
from grpo.pipeline import pin_config
from grpo.rewards.batch import each
from grpo.rewards.table import REWARDS
from grpo.rollout.generate import Sampler
from grpo.runs import inputs, setup, time_budget
from grpo.runs.run import Stop
from grpo.runs.setup import set_up
from grpo.runs.time_budget import TimeBudget
from grpo.stages import grpo as stage
from grpo.storage.checkpoints import Checkpoints
from tests.small_run import (
    REWARD,
    assert_same_run,
    launch,
    newest,
    noise,
    rows,
    small,
    small_grpo,
    small_sft,
    watched,
)


def config(**changes):
    """Three iterations of sampling and updating."""
    run = small()
    run.stages.grpo, run.pipeline = small_grpo(), ("grpo",)
    run.stages.grpo.update(evaluate_every=0, checkpoint_every=100, **changes)
    return run


@pytest.fixture(scope="module")
def straight(folder):
    assert launch(config(), folder / "straight") == 0
    return folder / "straight"


def preempted(made, workdir, every: int = 1) -> tuple[list[int], int]:
    """Launches that are asked to stop in every so many rollouts; their codes, and the rollouts."""
    sample, sampled, codes, runs = Sampler.sample, [], [], []

    def seen_set_up(*words):
        run, policies = set_up(*words)
        runs.append(run)
        return run, policies

    def asked(self, *words, **named):
        sampled.append(len(codes))
        if len(sampled) % every == 0:
            runs[-1].stop.reason = "preempted"
        return sample(self, *words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grpo.pipeline.set_up", seen_set_up)
        patch.setattr(Sampler, "sample", asked)
        while len(codes) < 6 and 0 not in codes:
            codes.append(launch(made, workdir))
    return codes, len(sampled)


@pytest.mark.parametrize("way", ["off", "drop", "two updates"])
def test_a_run_that_is_preempted_in_every_rollout_comes_to_its_end(folder, way):
    """Each launch samples once; the next one goes on with what that was."""
    changes = {
        "off": {},
        "drop": {"dynamic_sampling": "drop"},
        "two updates": {"minibatches": 2},
    }[way]
    made = config(**changes)
    assert launch(made, folder / f"straight {way}") == 0
    codes, sampled = preempted(made, folder / way)
    assert codes == [75, 75, 75, 0]
    assert sampled == 3  # no rollout was thrown away
    assert_same_run(folder / f"straight {way}", folder / way)


def flat(example, completion: str) -> float:
    """A reward that cannot tell the completions of two problems in three apart."""
    return noise(example, completion) if int(example["id"].rsplit("-", 1)[-1]) % 3 == 0 else 0.5


def test_a_stop_in_any_round_keeps_the_first(folder, monkeypatch):
    """Two rounds in each iteration: a stop in the first round of one, and in the second of one."""
    monkeypatch.setitem(REWARDS, REWARD, each(flat))
    made = config(dynamic_sampling="refill", max_rounds=2)
    assert launch(made, folder / "straight rounds") == 0
    codes, sampled = preempted(made, folder / "rounds", every=3)
    assert codes == [75, 75, 0]
    assert sampled == 7  # six, of which the last one was sampled twice
    assert_same_run(folder / "straight rounds", folder / "rounds")


def test_a_stop_while_rewards_are_waited_for_keeps_the_rollout(folder, straight, monkeypatch):
    """As the wait for a judge does, which calls this all the while."""
    workdir, play_round, score, loops = folder / "rewards", stage.play_round, stage.score, []

    def played(setting, loop, *words):
        loops.append(loop)
        return play_round(setting, loop, *words)

    def stopped(*words, **named):
        loops[-1].run.stop.reason = "stopped in the rewards"
        loops[-1].save_and_stop_if_asked()
        pytest.fail("it went on")

    monkeypatch.setattr(stage, "play_round", played)
    monkeypatch.setattr(stage, "score", stopped)
    assert launch(config(), workdir) == 75
    assert len(loops) == 1 and newest(workdir, "grpo")[0] == 0
    monkeypatch.setattr(stage, "score", score)
    with watched(lambda run, event: None) as events:
        assert launch(config(), workdir) == 0
    assert events.count("train 0") == 0 and events.count("train 1") == 1
    assert_same_run(straight, workdir)


@pytest.mark.parametrize("where", ["making.split", "setup.prompt_ids", "inputs.hash_of"])
def test_a_stop_while_a_run_is_set_up(folder, where):
    """Of a large dataset: it ends within so many examples, and begins again later."""
    made, workdir, calls = config(), folder / where, []
    made.data.train_examples = 3000
    place, name = where.split(".")
    module = {"making": making, "setup": setup, "inputs": inputs}[place]
    original, init, stops = getattr(module, name), Stop.__init__, []
    at = 1 if name == "hash_of" else 500  # which is called once for each split

    def seen_init(self, *words):
        init(self, *words)
        stops.append(self)

    def counted(*words, **named):
        calls.append(1)
        if len(calls) == at:
            stops[-1].reason = "stopped in the set-up"
        return original(*words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stop, "__init__", seen_init)
        patch.setattr(module, name, counted)
        assert launch(made, workdir) == 75
    assert at <= len(calls) <= at + LOOK_EVERY
    assert not (workdir / "metrics.jsonl").exists() and not (workdir / "FAILED").exists()
    assert launch(made, workdir) == 0


class Clock:
    """A clock that tests move on."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time_budget, "now", lambda: self.now)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h40m", 31200.0), ("90m", 5400.0), ("1d12h", 129600.0), ("1.5h", 5400.0), ("20s", 20.0)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a duration, such as '8h40m'"),
        ("8", "expected a duration"),
        ("8 h", "expected a duration"),
        ("-8h", "expected a duration"),
        ("8h40", "expected a duration"),
        ("40m8h", "in this order"),
        ("8h8h", "each of d, h, m and s once"),
        ("0h", "more than no time"),
        ("nan", "expected a duration"),
    ],
)
def test_what_is_no_duration(text, said):
    with pytest.raises(ValueError, match=said):
        seconds_of(text)


def test_a_step_and_a_save_must_still_fit(monkeypatch):
    clock = Clock(monkeypatch)
    budget = TimeBudget("100s")
    for _ in range(8):
        clock.now += 10
        assert not budget.is_used_up() or clock.now - 1000 >= 82  # 5 are kept for a first save
    budget = TimeBudget("100s")
    clock.now += 10
    budget.is_used_up()
    clock.now += 20
    budget.saved(20.0)
    clock.now += 10
    assert not budget.is_used_up()  # 40 are gone; 60 are left, 1.2 * (10 + 20) are needed
    clock.now += 10
    assert not budget.is_used_up()
    clock.now += 10
    assert not budget.is_used_up()  # 40 left, 36 needed
    clock.now += 5
    assert budget.is_used_up()


def test_compiling_is_forgotten_and_a_rollout_is_not(monkeypatch):
    """One long step among short looks: for fifty times its length."""
    clock = Clock(monkeypatch)
    budget = TimeBudget("1000s")
    budget.saved(0.0)
    clock.now += 10  # compiling
    assert not budget.is_used_up()
    while not budget.is_used_up():
        clock.now += 0.5
    assert 999 <= clock.now - 1000 + 0.6 <= 1001
    clock.now = 1000.0
    budget = TimeBudget("100s")
    budget.saved(0.0)
    clock.now += 10
    while not budget.is_used_up():
        clock.now += 0.5
    assert 87 <= clock.now - 1000 <= 88.5  # it may come again: 1.2 * 10 are left


@pytest.mark.parametrize("seconds", [14, 16, 20, 25, 31])
def test_a_run_ends_within_its_budget_and_a_new_launch_has_a_new_one(
    folder, straight, seconds, monkeypatch
):
    """Steps of two seconds, saves of three, by a clock of the test's own."""
    clock, workdir = Clock(monkeypatch), folder / f"{seconds}"
    save, codes, ends = Checkpoints.save, [], []

    def slow_save(self, *words, **named):
        clock.now += 3
        budgets[-1].saved(3.0)
        return save(self, *words, **named)

    init, budgets = TimeBudget.__init__, []

    def seen_init(self, text):
        init(self, text)
        budgets.append(self)

    def step(run, event) -> None:
        clock.now += 2

    monkeypatch.setattr(TimeBudget, "__init__", seen_init)
    monkeypatch.setattr(Checkpoints, "save", slow_save)
    made = config()
    made.stages.grpo.checkpoint_every = 1
    made.time_budget = f"{seconds}s"
    while 0 not in codes:
        began = clock.now
        with watched(step):
            codes.append(launch(made, workdir))
        ends.append(clock.now - began)
        assert len(codes) < 9
    assert all(end <= seconds for end in ends), ends
    assert codes == [75] * (len(codes) - 1) + [0]
    assert len(codes) > 1 or seconds > 20  # the budget had a say
    assert [row["step"] for row in rows(workdir, "metrics")] == [1, 2, 3]
    a, b = ((run / "metrics.jsonl").read_bytes() for run in (straight, workdir))
    assert a == b


def test_without_a_budget_there_is_no_end(folder, monkeypatch):
    clock = Clock(monkeypatch)

    def step(run, event) -> None:
        clock.now += 1e9

    with watched(step):
        assert launch(config(), folder / "endless") == 0


def test_a_budget_may_change_between_launches(folder, tmp_path):
    made = config().to_dict()
    (tmp_path / "run").mkdir()
    pin_config(made, tmp_path / "run")
    pin_config({**made, "time_budget": "3h"}, tmp_path / "run")


def test_supervised_training_and_evaluation_look_at_it_too(folder, monkeypatch):
    made = small()
    made.stages.sft, made.pipeline = small_sft(), ("sft",)
    made.stages.sft.update(evaluate_every=1, checkpoint_every=100)
    made.time_budget = "30s"
    clock, codes = Clock(monkeypatch), []

    def step(run, event) -> None:
        clock.now += 9

    while 0 not in codes:
        with watched(step) as events:
            codes.append(launch(made, folder / "sft"))
        assert len(codes) < 9 and len(events) <= 4
    assert len(codes) > 2
    made.time_budget = None
    assert launch(made, folder / "sft straight") == 0
    a, b = ((folder / run / "metrics.jsonl").read_bytes() for run in ("sft", "sft straight"))
    assert a == b
