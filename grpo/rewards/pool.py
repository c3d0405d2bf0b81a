"""Reward functions in processes of their own, which may be ended: `reward_workers` of a config.

`Pool.values` returns what `in_process` of scores.py returns, bit for bit and whatever the number of
processes, but that here a function may hang, crash, exit, take all memory, print without end or
change what it is given: the call in hand has failed, with a reason, and is NaN like any other
failure, the process is replaced, and every other value is as if nothing had happened.

    a call        `seconds`, as in the run's own process; GRACE later its process is ended
    a batch       `batch_seconds`; what is then without a value has failed
    a process     `memory` MiB, no network, no accelerator, no secret of the environment (worker.py)
    its end       SIGTERM, POLITE later SIGKILL, to its whole group; also when the run dies itself

Rewards that a model gives (given.py) need the model, and stay in the run's own process. What a
function learns of the training examples (FITS of table.py) it learns again in each process.

Known limits: a function that leaves something behind that strikes later, such as a thread that
crashes, fails the call which is then in hand; a call that is ended takes the processes of its group
along, but none that has left it; and a run that is killed leaves its scratch directories.
"""

import contextlib
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from grpo.rewards.batch import short
from grpo.rewards.given import GIVEN
from grpo.rewards.messages import MessageError
from grpo.rewards.process import Process
from grpo.rewards.scores import Call, Caller, Told, in_process
from grpo.rewards.table import FITS, Entry
from grpo.rewards.work import Work

REWARDS = "grpo.rewards.table:REWARDS"  # where processes find the functions
START = 120.0  # seconds that a process may take to be ready, on the slowest of disks
BLINK = 0.1  # seconds at most from one look around to the next
MIB = 2**20


class PoolError(RuntimeError):
    """Reward processes that do not start; one line."""


@contextlib.contextmanager
def caller_of(
    table: Mapping[str, Entry],
    train: Sequence[Mapping],
    stage: Mapping[str, Any],
    check: Callable[[], None],
) -> Iterator[Caller]:
    """What calls the functions of a stage's table; its processes end with the block."""
    if not stage["reward_workers"]:
        yield in_process
        return
    with Pool(
        table, train, workers=stage["reward_workers"], memory=stage["reward_memory"],
        batch_seconds=stage["reward_batch_seconds"], rewards=REWARDS, check=check,
    ) as pool:  # fmt: skip
        yield pool.values


class Pool:
    """So many processes for the functions of a table, from `with` to its end."""

    def __init__(
        self,
        table: Mapping[str, Entry],
        train: Sequence[Mapping],
        *,
        workers: int,
        memory: int,
        batch_seconds: float,
        rewards: str,
        check: Callable[[], None],  # called all the while; it may raise
    ):
        entries = {name: entry for name, entry in table.items() if name not in GIVEN}
        self._hello = {
            "rewards": rewards,
            "table": {
                name: {"options": entry.options, "low": entry.low, "high": entry.high}
                for name, entry in entries.items()
            },
            "train": [*train] if entries.keys() & FITS.keys() else [],
            "memory": memory * MIB,
        }
        self._batch_seconds, self._check = batch_seconds, check
        self._processes: list[Process | None] = [None] * workers

    def __enter__(self) -> "Pool":
        nothing = Work({}, 0.0)
        try:
            self._start()
            while not all(process and process.is_ready for process in self._processes):
                self._check()
                self._listen(nothing)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for place, process in enumerate(self._processes):
            if process is not None:
                process.end()
                self._processes[place] = None

    def values(self, calls: Mapping[str, Call], seconds: float) -> Told:
        """The values of every function of a batch, and the first reason why one has none."""
        given = in_process({name: call for name, call in calls.items() if name in GIVEN}, seconds)
        work = Work({name: call for name, call in calls.items() if name not in GIVEN}, seconds)
        end = time.monotonic() + self._batch_seconds
        try:
            while work.untold:
                self._check()
                self._hand_out(work)
                self._listen(work)
                if time.monotonic() > end:
                    work.give_up(f"the batch took more than {self._batch_seconds:g} seconds")
        except PoolError as error:
            work.give_up(str(error))
        finally:
            self._end_busy()
        return {**given, **work.told()}

    def _start(self) -> None:
        """A process in every place that has none."""
        for place, process in enumerate(self._processes):
            if process is None:
                try:
                    self._processes[place] = Process(self._hello, START)
                except OSError as error:
                    raise PoolError(f"no process can be started: {short(str(error))}") from None

    def _hand_out(self, work: Work) -> None:
        """Work for every process that has none."""
        if work.waiting:
            self._start()
        for process in self._processes:
            if process and process.is_ready and not process.units and work.waiting:
                work.give(process)

    def _listen(self, work: Work) -> None:
        """Waits until something is told or over, and sees to it."""
        self._wait()
        for place, process in enumerate(self._processes):
            if process is None:
                continue
            lost = process.lost()  # what it said before is there by now
            try:
                process.send_more()
                for answer in process.receive():
                    hear(process, answer, work)
            except MessageError as error:
                lost = str(error)
            if lost is None and time.monotonic() > process.until:
                lost = f"took more than {time_of(process, work):g} seconds, and was ended"
            if lost is not None:
                self._replace(place, lost, work)

    def _wait(self) -> None:
        """Until a process says something, or time is up."""
        alive = [process for process in self._processes if process is not None]
        left = min(process.until for process in alive) - time.monotonic()
        with selectors.DefaultSelector() as selector:
            for process in alive:
                writes = selectors.EVENT_WRITE if process.has_unsent else 0
                selector.register(process, selectors.EVENT_READ | writes)
            selector.select(min(max(left, 0.0), BLINK))

    def _replace(self, place: int, lost: str, work: Work) -> None:
        """Ends a process: what it had in hand has failed, the rest is another one's."""
        process = self._processes[place]
        assert process is not None
        process.end()
        self._processes[place] = None
        if not process.is_ready:
            raise PoolError(f"a process did not start: it {lost}")
        if process.units:
            work.fail(process.units.popleft(), f"its process {lost}")
            work.take_back(process.units)

    def _end_busy(self) -> None:
        """Ends what is still at work on a batch that is over."""
        for place, process in enumerate(self._processes):
            if process is not None and process.units:
                process.end()
                self._processes[place] = None


def hear(process: Process, answer: Any, work: Work) -> None:
    """Takes an answer: of a process that starts, or about the first unit that it has in hand."""
    if not process.is_ready:
        if answer != "ready":
            raise MessageError(f"said {short(str(answer))}")
        process.is_ready = True
    elif process.units:
        work.tell(process.units[0], answer)
        process.units.popleft()
    else:
        raise MessageError("answered without being asked")
    process.start_clock()


def time_of(process: Process, work: Work) -> float:
    """The seconds that a process had, for its start or for the call in hand."""
    return work.seconds * len(process.units[0].rows) if process.is_ready else START
