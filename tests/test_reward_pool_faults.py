"""Functions that do what none should, in processes: it costs them their value, and nothing else."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from grpo.rewards import pool as pools
from grpo.rewards.pool import Pool, PoolError
from grpo.rewards.scores import score
from tests.fault_rewards import FAULTS, FORGED, HERE, entry
from tests.processes import PROC, left_of, reward_processes

if not PROC.exists():
    pytest.skip("there is no /proc that tells of processes", allow_module_level=True)

SECONDS = 0.4
GRACE, POLITE = 1.0, 0.3  # seconds until a process is told to end, and until it is made to
SLACK = 4.0  # for a machine with much else to do
NO_SENSE = "its process sent no answer ("
LATE = "grpo.rewards.deadline.DeadlineError: took more than 0.4 seconds"
ENDED = "its process took more than 0.4 seconds, and was ended"
NO_NETWORK = "PermissionError: a reward process has no network"
WHY = {  # or the value of the bad one
    "raises": "KeyError: 'gone'",
    "exits": "SystemExit: 3",
    "exits_at_once": "its process ended with exit code 7",
    "aborts": "its process died of SIGABRT",
    "breaks_memory": "its process died of SIGSEGV",
    "sleeps": LATE,
    "swallows": ENDED,
    "ignores_everything": ENDED,
    "holds_the_lock": ENDED,
    "allocates": "MemoryError",
    "prints": 8.0,
    "reads": 0.0,
    "leaves_a_child": 8.0,
    "leaves_a_stubborn_child": 8.0,
    "leaves_a_program": 8.0,
    "comes_back_twice": 8.0,
    "leaves_a_thread": 8.0,
    "closes_all": "its process ended with exit code 1",
    "removes_its_directory": "its process ended with exit code 1",
    "connects": NO_NETWORK,
    "asks_for_a_name": NO_NETWORK,
    "makes_a_pair": NO_NETWORK,
    "babbles": "its process sent a message of 4294967295 bytes",
    "sends_no_json": "its process sent a message that is no JSON",
    "sends_nests": "its process sent a message that is no JSON",
    **dict.fromkeys(FORGED, NO_SENSE),
    "returns_none": "TypeError: returned NoneType, no number",
    "returns_nan": "ValueError: abstained: returned nan",
    "returns_inf": "ValueError: returned inf, outside [-9.0, 9.0]",
    "returns_text": "TypeError: returned str, no number",
    "returns_true": "TypeError: returned bool, no number",
    "returns_several": "TypeError: returned list, no number",
}
TABLE = {name: entry(name) for name in (*FAULTS, "rank", "points", "breaks_as_a_whole")}
TABLE["points"] = entry("points", high=8191.0)
TEXTS = ["a", "bad", *("x" * (n % 9) for n in range(40))]
SIZES = np.array([len(text) for text in TEXTS], float)


def pool_of(table=TABLE, **changes) -> Pool:
    """Two processes with these functions."""
    how = {"workers": 2, "memory": 1024, "batch_seconds": 60.0, "rewards": HERE}
    return Pool(table, [], **{**how, "check": lambda: None, **changes})


@pytest.fixture(scope="module")
def pool():
    """One pool for all; at its end there is no process of all that it has had."""
    had = reward_processes()
    with pool_of() as pool:
        begun = reward_processes() - had
        assert len(begun) == 2
        yield pool
        sessions = pool_sessions(pool)
        assert sessions  # what the tests have seen of it
    assert_ended(sessions, 1.0)


def assert_ended(sessions, seconds: float):
    """No process of these sessions is left, and none will be, of a test that failed either."""
    left = left_of(sessions, seconds)
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert left == set()


SEEN: dict[int, set[int]] = {}


def pool_sessions(pool: Pool) -> set[int]:
    """The sessions of every process that was seen of a pool."""
    return SEEN.setdefault(id(pool), set())


def asked(pool: Pool, *names: str, texts=TEXTS, seconds=SECONDS):
    """The scores of some functions."""
    table = {name: TABLE[name] for name in names}
    pool_sessions(pool).update(reward_processes())
    scores = score(table, [{}] * len(texts), texts, seconds=seconds, caller=pool.values)
    pool_sessions(pool).update(reward_processes())
    return scores


def test_every_fault_is_expected():
    assert WHY.keys() == FAULTS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_one_value(pool, name):
    """In bounded time; what it leaves ends with the process, which is replaced."""
    before, began = reward_processes(), time.monotonic()
    scores = asked(pool, name, "points")
    assert time.monotonic() - began < SECONDS + GRACE + POLITE + SLACK
    expected = SIZES.copy()
    if isinstance(WHY[name], str):
        expected[1] = np.nan
        assert scores.reasons[name].startswith(WHY[name])
        assert scores.failed == {name: 1, "points": 0}
    else:
        expected[1] = WHY[name]
        assert scores.reasons == {} and scores.failed == {name: 0, "points": 0}
    np.testing.assert_array_equal(scores.rewards[name], expected)
    again = asked(pool, "points")
    np.testing.assert_array_equal(scores.rewards["points"], again.rewards["points"])
    gone = before - reward_processes()
    assert_ended(gone, 1.0)
    is_ended = isinstance(WHY[name], str) and WHY[name].startswith("its process")
    assert len(gone) == is_ended and len(reward_processes()) == 2


def test_a_child_does_not_answer_for_its_parent(pool):
    """It has come back from the function, to a process that goes on."""
    asked(pool, "comes_back_twice")
    time.sleep(0.4)
    np.testing.assert_array_equal(asked(pool, "rank", texts=["a", "xx"]).total, [1, 2])


def test_several_faults_at_once(pool):
    """Of two processes, each ends several times."""
    texts = ["a", "bad", "ccc", "bad", "bad", "bad", "eeeee"]
    scores = asked(pool, "aborts", "exits_at_once", "exits", texts=texts)
    for name in ("aborts", "exits_at_once", "exits"):
        np.testing.assert_array_equal(
            scores.rewards[name], [1, np.nan, 3, np.nan, np.nan, np.nan, 5]
        )
        assert scores.failed[name] == 4


def test_a_batch_that_crashes_has_failed_as_a_whole(pool):
    scores = asked(pool, "breaks_as_a_whole", "rank", texts=["a", "bad", "xx"])
    assert np.isnan(scores.rewards["breaks_as_a_whole"]).all()
    assert scores.reasons == {"breaks_as_a_whole": "its process died of SIGABRT"}
    np.testing.assert_array_equal(scores.rewards["rank"], [1, 3, 2])
    fine = asked(pool, "breaks_as_a_whole", texts=["a", "xx"])
    np.testing.assert_array_equal(fine.total, [1, 2])


def test_what_the_batch_has_no_time_for_has_failed():
    """What was told in time stands."""
    table = {name: TABLE[name] for name in ("sleeps", "points")}
    with pool_of(table, workers=1, batch_seconds=0.9) as pool:
        texts, began = ["x", "bad", "x", "bad", "bad", "bad", "bad", "x"], time.monotonic()
        scores = score(table, [{}] * 8, texts, seconds=0.4, caller=pool.values)
        assert time.monotonic() - began < 0.9 + POLITE + SLACK
        value_B = scores.rewards["sleeps"]
        assert value_B[0] == value_B[2] == 1.0 and np.isnan(value_B[[1, 3, 4, 5, 6, 7]]).all()
        assert scores.reasons["points"] == "the batch took more than 0.9 seconds"
        assert scores.reasons["sleeps"].startswith(LATE)
        np.testing.assert_array_equal(
            score({"points": TABLE["points"]}, [{}], ["a"], seconds=0.4, caller=pool.values).total,
            [97.0],
        )


class AskedError(Exception):
    """What a run raises that is to stop."""


def test_a_run_that_is_to_stop_does_not_wait():
    """And no process stays with work that nobody waits for."""
    table, until = {"sleeps": TABLE["sleeps"]}, [float("inf")]

    def check():
        if time.monotonic() > until[0]:
            raise AskedError

    others = reward_processes()
    with pool_of(table, check=check) as pool:
        had = reward_processes() - others
        began = time.monotonic()
        until[0] = began + 0.3
        with pytest.raises(AskedError):
            score(table, [{}] * 2, ["a", "bad"], seconds=9.0, caller=pool.values)
        assert time.monotonic() - began < 0.3 + POLITE + SLACK
        until[0] = float("inf")
        assert len(had & reward_processes()) == 1  # the other one had nothing to do
        scores = score(table, [{}] * 2, ["a", "xx"], seconds=60.0, caller=pool.values)
        np.testing.assert_array_equal(scores.total, [1, 2])


def test_an_error_of_the_run_ends_the_processes():
    others, had = reward_processes(), set()
    with pytest.raises(AskedError), pool_of({"rank": TABLE["rank"]}):
        had |= reward_processes() - others
        raise AskedError
    assert len(had) == 2 and left_of(had) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": "tests.no_such_file:REWARDS"}, "ModuleNotFoundError: No module named 'tests."),
        ({"rewards": "tests.fault_rewards:NOTHING"}, "AttributeError: module 'tests.fault_rew"),
        ({"memory": 1}, "a process did not start: it "),
    ],
)
def test_processes_that_do_not_start(changes, message):
    had = reward_processes()
    with pytest.raises(PoolError) as error, pool_of(**changes):
        pass
    assert message in str(error.value) and "\n" not in str(error.value)
    assert reward_processes() == had


def test_processes_that_are_late_to_start(monkeypatch):
    monkeypatch.setattr(pools, "START", 0.01)
    with (
        pytest.raises(PoolError, match=r"it took more than 0\.01 seconds, and was ended"),
        pool_of(),
    ):
        pass


def test_a_process_that_cannot_be_replaced_costs_the_rest_of_a_batch(monkeypatch):
    """With a reason; the next batch tries again."""
    table = {"exits_at_once": TABLE["exits_at_once"]}
    with pool_of(table, workers=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(pools, "START", 0.0)
            scores = score(table, [{}] * 3, ["a", "bad", "a"], seconds=5.0, caller=pool.values)
        np.testing.assert_array_equal(scores.total, [1, np.nan, np.nan])
        assert scores.failed == {"exits_at_once": 2}
        scores = score(table, [{}] * 2, ["a", "xx"], seconds=5.0, caller=pool.values)
        np.testing.assert_array_equal(scores.total, [1, 2])


SCRIPT = """
from grpo.rewards.scores import score
from tests.test_reward_pool_faults import TABLE, pool_of
names = {names}
with pool_of({{name: TABLE[name] for name in names}}, workers=1) as pool:
    for name in names:
        print(name, flush=True)
        score({{name: TABLE[name]}}, [{{}}], ["bad"], seconds={seconds}, caller=pool.values)
"""


@pytest.mark.parametrize(
    ("name", "seconds", "number"),
    [("swallows", 60.0, signal.SIGKILL), ("swallows", 60.0, signal.SIGTERM),
     ("holds_the_lock", 1.0, signal.SIGKILL)],
)  # fmt: skip
def test_a_run_that_is_killed_leaves_no_process(name, seconds, number, tmp_path):
    """In whatever they are, with the children they have."""
    # One that keeps Python's lock ends by itself, and without its children.
    names = [name] if name == "holds_the_lock" else ["leaves_a_stubborn_child", name]
    script = SCRIPT.format(names=names, seconds=seconds)
    # Nobody is left who could remove its directories.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                           env=environment)  # fmt: skip
    assert run.stdout is not None
    while run.stdout.readline().strip() != name:
        assert run.poll() is None
    time.sleep(0.3)
    sessions = reward_processes(run.pid)
    assert len(left_of(sessions)) == len(names)
    run.send_signal(number)
    assert run.wait() == -number
    run.stdout.close()
    assert_ended(sessions, 1.0 + GRACE + SLACK)
