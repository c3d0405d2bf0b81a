"""A stage that samples one step ahead of its judge: who samples what when, and what a stop leaves.

The judge is behind a URL, in this process. It answers by a hash of what it is asked, when it may.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import zlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import grpo.stages.grpo
from configs import base
from grpo.data.order import example_at
from grpo.data.templates import prompt_ids
from grpo.rollout.generate import Sampler
from grpo.rollout.sampler import row_keys
from grpo.runs import judged_reward
from grpo.runs.stage_loop import StageLoop
from models.policy import logits
from tests.misbehaving import serving
from tests.small_run import (
    C,
    G,
    P,
    arrays,
    final,
    launch,
    newest,
    opened,
    rows,
    small,
    small_grpo,
    stop_at,
    trimmed,
    watched,
    workshop,
)

ROOT = pathlib.Path(__file__).parent.parent
LONG = 60.0  # seconds that nothing here takes


class Judge:
    """Answers while its gate is open."""

    def __init__(self):
        self.gate, self.was_late, self.answers = threading.Event(), False, 10**9
        self.gate.set()

    def __call__(self, prompt: str, seed) -> str:
        """A digit."""
        self.answers -= 1
        if self.answers < 0:
            self.gate.clear()
        self.was_late |= not self.gate.wait(LONG / 4)
        return str(1 + zlib.crc32(prompt.encode()) % 9)

    def open(self):
        """Whoever waits has an answer, and is done with it."""
        self.answers = 10**9
        self.gate.set()
        for thread in threading.enumerate():
            if "(run)" in thread.name:  # of in_thread.py
                thread.join(LONG)


def config_of(url: str, **fields) -> base.ConfigDict:
    """Three iterations of two updates, with a judge behind a URL."""
    config = small()
    config.judges.grader = base.judge(url=url, name="m", seconds=LONG)
    config.stages.grpo = stage = small_grpo()
    del stage.rewards[next(iter(stage.rewards))]
    stage.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="grader")
    stage.update(minibatches=2, evaluate_every=0, checkpoint_every=1, staleness=1)
    stage.update(fields)
    config.pipeline = ("grpo",)
    return config


@pytest.fixture(scope="module")
def judge():
    return Judge()


@pytest.fixture(scope="module")
def url(judge):
    with serving(judge) as server, workshop():
        yield server.url


@contextlib.contextmanager
def noted(note: SimpleNamespace):
    """Notes who samples, what, what each update learns from, and the weights after it."""
    make, sample = Sampler.__init__, Sampler.sample
    minibatch, keep_update = grpo.stages.grpo.minibatch, StageLoop.keep_update

    def made(self, policy, buckets):
        make(self, policy, buckets)
        note.policies.append(
            dataclasses.replace(policy, params=jax.tree.map(np.array, policy.params))
        )

    def sampled(self, prompts, key_B, **named):
        got = sample(self, prompts, key_B, **named)
        keys = np.asarray(jax.random.key_data(key_B))
        note.prompts += prompts
        note.sampled.append((note.policies[-1], keys, np.asarray(got.ids_BT)))
        return got

    def cut(groups, *words, **named):
        note.learnt.append(groups)
        return minibatch(groups, *words, **named)

    def kept(self, state, *words, **named):
        note.after.append(jax.tree.map(np.array, state.trainable))
        keep_update(self, state, *words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "__init__", made)
        patch.setattr(Sampler, "sample", sampled)
        patch.setattr(grpo.stages.grpo, "minibatch", cut)
        patch.setattr(StageLoop, "keep_update", kept)
        yield


@pytest.fixture(scope="module")
def straight(url, tmp_path_factory):
    """A run that nothing interrupts and no judge holds up, and what was seen of it."""
    workdir = tmp_path_factory.mktemp("stale") / "straight"
    note = SimpleNamespace(policies=[], prompts=[], sampled=[], learnt=[], after=[])
    with watched(lambda run, event: None) as events, noted(note):
        assert launch(config_of(url), workdir) == 0
    return workdir, note, events


def assert_same(left, right):
    """Parameters, moments, cursors, metrics and rollouts, bit by bit.

    Not how many verdicts were there already: what is asked twice may be there the second time.
    """
    a, b = final(left, "grpo"), final(right, "grpo")
    assert a.name == b.name == "00000006"
    assert arrays(a) == arrays(b) and trimmed(a) == trimmed(b)
    told = [
        [{k: x for k, x in row.items() if "/cached" not in k} for row in rows(w, "metrics")]
        for w in (left, right)
    ]
    assert told[0] == told[1] and len(told[0]) == 6
    for name in ("rollouts.jsonl", "config.json"):
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


def test_a_batch_is_sampled_before_the_one_before_it_is_learnt(straight):
    assert straight[2] == [
        "train 0", "train 1", "grpo update 1", "grpo update 2",
        "train 2", "grpo update 3", "grpo update 4",
        "grpo update 5", "grpo update 6",
    ]  # fmt: skip


def test_who_samples_which_batch(straight):
    """The policy of the start the first two, that after two updates the third; each its own."""
    workdir, note, _ = straight
    start = note.policies[0].params
    for batch, weights in enumerate([start, start, note.after[1]]):
        policy, keys, _ = note.sampled[batch]
        pairs = zip(jax.tree.leaves(policy.params), jax.tree.leaves(weights), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)
        wanted = jax.random.key_data(row_keys(0, "train", batch, np.arange(P * G)))
        assert np.array_equal(keys, wanted)
    run, policies = opened(config_of(""), workdir, io.StringIO())
    data, tokenizer = run.data_of("grpo"), policies.base.own_tokenizer
    asked = [data.train[example_at(0, n, len(data.train))] for n in range(3 * P)]
    assert note.prompts == [prompt_ids(tokenizer, example, data.template) for example in asked]
    wanted = [example["id"] for example in asked for _ in range(G)]
    assert [row["id"] for row in rows(workdir, "rollouts")] == wanted
    steps = [(row["iteration"], row["step"]) for row in rows(workdir, "rollouts")]
    assert steps == [(n // (P * G), 2 * (n // (P * G))) for n in range(3 * P * G)]


def test_updates_compare_with_who_sampled(straight):
    """Each batch in its turn, with the log-probs of the policy above, from its logits."""
    _, note, _ = straight
    assert len(note.learnt) == 6
    for update, groups in enumerate(note.learnt):
        policy, _, ids_BT = note.sampled[update // 2]
        assert np.array_equal(groups.ids_BT, ids_BT)
        z = np.asarray(logits(policy, ids_BT, groups.mask_BT), float)[:, -C - 1 : -1]
        z -= z.max(-1, keepdims=True)
        told = z - np.log(np.exp(z).sum(-1, keepdims=True))
        wanted = np.take_along_axis(told, ids_BT[:, -C:, None], -1)[..., 0]
        mask_BC = groups.completion_mask_BC != 0
        np.testing.assert_allclose(groups.old_logprob_BC[mask_BC], wanted[mask_BC], atol=1e-4)
    firsts = rows(straight[0], "metrics")[::2]
    assert [row["staleness"] for row in firsts] == [0.0, 1.0, 1.0]
    assert firsts[0]["ratio/max"] == pytest.approx(1.0, abs=1e-4)
    assert all(abs(row["ratio/max"] - 1) > 1e-2 for row in firsts[1:])


def test_the_policy_goes_on_while_the_judge_reads(url, judge, straight, tmp_path):
    """No verdict comes before the next batch is sampled, and it is the same run."""
    judge.gate.clear()

    def see(run, event):
        if event in ("train 1", "train 2", "grpo update 4"):  # the last batch has none after it
            judge.gate.set()
        elif event == "grpo update 2":
            judge.gate.clear()

    with watched(see):
        assert launch(config_of(url), tmp_path / "slow") == 0
    assert not judge.was_late
    assert_same(straight[0], tmp_path / "slow")
    recordings = [w / "judges" / "grader.jsonl" for w in (straight[0], tmp_path / "slow")]
    assert recordings[0].read_bytes() == recordings[1].read_bytes()


def test_without_it_nothing_is_sampled_ahead(url, tmp_path):
    with watched(stop_at("grpo update 3")) as events:
        assert launch(config_of(url, staleness=0), tmp_path / "run") == 75
    assert events == [
        "train 0", "grpo update 1", "grpo update 2", "train 1", "grpo update 3",
    ]  # fmt: skip
    assert (
        names_of_pending(tmp_path / "run")
        and "staleness" not in rows(tmp_path / "run", "metrics")[0]
    )
    assert not [name for name in names_of_pending(tmp_path / "run") if "/" in name]


def names_of_pending(workdir: pathlib.Path) -> list[str]:
    """The host arrays of the newest checkpoint."""
    with np.load(final(workdir, "grpo") / "pending.npz") as found:
        return found.files


class Killed(BaseException):
    """As if the power went."""


def test_a_run_that_is_stopped_with_verdicts_on_their_way_goes_on_bit_by_bit(
    url, judge, straight, tmp_path
):
    """Before the first update, in the midst of an iteration, between two, killed, and again."""
    workdir = tmp_path / "stopped"

    def kill(run, event):
        if event == "grpo update 4":
            raise Killed

    def stopped(see, *, waiting: bool) -> tuple[int, int, dict]:
        if waiting:
            judge.gate.clear()
        with watched(see):
            assert launch(config_of(url), workdir) == 75
        assert not waiting or not judge.gate.is_set()  # it did not wait for the verdicts
        judge.open()
        step, cursor = newest(workdir, "grpo")
        return step, cursor["iteration"], cursor

    assert stopped(stop_at("train 1"), waiting=True)[:2] == (0, 0)
    assert stopped(stop_at("grpo update 1"), waiting=False)[:2] == (1, 0)
    names = names_of_pending(workdir)
    assert {"ids_BT", "advantage_B", "ahead/ids_BT", "ahead/old_BC", "ahead/ref_BC"} <= set(names)
    assert "ahead/advantage_B" not in names
    assert stopped(stop_at("grpo update 2"), waiting=False)[:2] == (2, 1)
    assert all(name.startswith("ahead/") for name in names_of_pending(workdir))
    assert stopped(stop_at("train 2"), waiting=True)[:2] == (2, 1)
    assert len(rows(workdir, "rollouts")) == P * G  # those that have verdicts
    with watched(kill), pytest.raises(Killed):
        launch(config_of(url), workdir)
    assert newest(workdir, "grpo")[0] == 2
    assert launch(config_of(url), workdir) == 0
    assert_same(straight[0], workdir)
    assert not (final(workdir, "grpo") / "pending.npz").exists()


def test_an_error_of_a_judge_ends_the_run(url, tmp_path, monkeypatch):
    def broken(*words):
        raise ZeroDivisionError("in a thread")

    monkeypatch.setattr(judged_reward, "verdicts", broken)
    with pytest.raises(ZeroDivisionError, match="in a thread"):
        launch(config_of(url), tmp_path / "run")


FILE = """
from models.config import SIZES
from tests.small_run import TWO_LAYERS
from tests.test_staleness import config_of

SIZES["gemma3_micro"] = TWO_LAYERS


def get_config(url=""):
    return config_of("http://" + url)
"""


def test_a_process_that_is_killed_with_verdicts_on_their_way(url, judge, straight, tmp_path):
    (tmp_path / "config.py").write_text(FILE)
    command = [
        sys.executable, "launch.py", f"--config={tmp_path}/config.py:{url.removeprefix('http://')}",
        f"--workdir={tmp_path}/run",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    judge.answers = P * G  # of the first batch, and none after
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    limit = time.monotonic() + 120
    while judge.gate.is_set():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert newest(tmp_path / "run", "grpo")[0] == 2
    judge.open()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert_same(straight[0], tmp_path / "run")
