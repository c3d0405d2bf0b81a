"""A driver: starts the jobs of a sweep, looks after them, writes down how they end.

    waiting -> running -> done | failed | stopped (saved, and to go on)

Several drivers may share a directory: a job is taken by a claim (claims.py), which is renewed every
few seconds. One thread does it all, since processes are only looked at. A job that begins from a
shared run waits for it; who needs it and finds nobody at work on it runs it. A failed job is not
tried again unless that is asked for.
"""

import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from grpo.sweeps.claims import give_back, owner_of, renew, take
from grpo.sweeps.display import Display
from grpo.sweeps.jobs import (
    COMPLETE,
    FAILED,
    RUNNING,
    STOPPED,
    WAITING,
    Job,
    accuracy_of,
    because,
    folder_of,
    progress_of,
    run_of,
    state_of,
)
from grpo.sweeps.launching import Launch, ask_to_stop, is_hanging, kill, launch, write_end

EVERYTHING, SOME_FAILED, LEFT = 0, 1, 75  # exit codes: done, some failed, some are still to go on


class Settings(NamedTuple):
    """How a driver works; seconds."""

    workers: int  # jobs at a time
    cell_seconds: float  # without a row in a journal, after which a job hangs
    beat_seconds: float  # between two renewals of a claim
    stale_seconds: float  # without a renewal, after which a claim has no force
    poll_seconds: float  # between two looks
    retry_failed: bool


def code_of(states: set[str]) -> int:
    """The exit code of a sweep whose cells are in these states."""
    if states <= {COMPLETE, FAILED}:
        return SOME_FAILED if FAILED in states else EVERYTHING
    return LEFT


class Driver:
    """What is to be done, and what is being done."""

    def __init__(
        self,
        workdir: pathlib.Path,
        jobs: Mapping[str, Job],  # by name, with the shared ones that they begin from
        wanted: Sequence[str],  # the cells to be run here
        command: Callable[[Job], Sequence[str]],
        settings: Settings,
        display: Display,
        changed: Callable[[], None],  # is called when a job has ended
    ):
        self.workdir, self.jobs, self.wanted, self.command = workdir, jobs, wanted, command
        self.settings, self.display, self.changed = settings, display, changed
        self.began = time.time()
        self.running: dict[str, Launch] = {}
        self.ended: dict[str, tuple[str, str | None]] = {}  # state and reason; not looked up again
        self.elsewhere: set[str] = set()  # at work, or just ended, by another driver
        self.asked_to_stop = 0  # how often
        self._beat = 0.0

    def drive(self) -> int:
        """Works until nothing is left to do, or until it is asked to stop; the exit code."""
        old = {n: signal.signal(n, self._stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            while True:
                self.reap()
                self.look_after()
                if not self.asked_to_stop:
                    self.start()
                self.display.show(*self.shown())
                if not self.running and (self.asked_to_stop or not self.elsewhere):
                    break
                time.sleep(self.settings.poll_seconds)
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            for launched in self.running.values():  # an error of this driver
                kill(launched, "its driver failed")
            self.display.close()
        return code_of({self.state(name)[0] for name in self.wanted})

    def state(self, name: str) -> tuple[str, str | None]:
        """State and reason of a job, as of now."""
        if name in self.running:  # also where DONE is there and the process not yet gone
            return RUNNING, None
        if name not in self.ended:
            state, reason, at = state_of(self.workdir, self.jobs[name])
            again = self.settings.retry_failed and at < self.began
            if state == COMPLETE or (state == FAILED and not again):
                self.ended[name] = state, reason
            elif state == FAILED:
                state, reason = WAITING, None
            else:
                parent = self.jobs[name].parent
                if parent and not self._has_begun(name) and self.state(parent)[0] == FAILED:
                    return FAILED, because(parent, self.state(parent)[1])
            return state, reason
        return self.ended[name]

    def startable(self) -> Iterator[str]:
        """The jobs that could be started: cells, or the shared runs that they wait for."""
        seen = set()
        for name in self.wanted:
            while name not in seen:
                seen.add(name)
                if self.state(name)[0] in (RUNNING, FAILED) or name in self.ended:
                    break
                parent = self.jobs[name].parent
                if self._has_begun(name) or not parent or self.state(parent)[0] == COMPLETE:
                    yield name
                    break
                name = parent

    def start(self) -> None:
        """Starts what there is room for."""
        self.elsewhere.clear()
        for name in list(self.startable()):
            if len(self.running) >= self.settings.workers:
                return
            job = self.jobs[name]
            folder = folder_of(self.workdir, job)
            claim = take(folder, stale_seconds=self.settings.stale_seconds)
            if claim is None:
                self.elsewhere.add(name)
            elif self.state(name)[0] in (COMPLETE, FAILED):  # since it was looked at
                give_back(claim)
                self.elsewhere.add(name)  # what waited for it is looked at again
            else:
                self.running[name] = launch(self.workdir, job, claim, self.command(job))

    def look_after(self) -> None:
        """Renews claims; kills what hangs, and what has become somebody else's."""
        now = time.monotonic()
        if is_due := now - self._beat >= self.settings.beat_seconds:
            self._beat = now
        for launched in self.running.values():
            if self.asked_to_stop > 1:
                kill(launched, "killed by a second signal to its driver")
            elif self.asked_to_stop:
                ask_to_stop(launched)
            if is_due and not renew(launched.claim):
                kill(launched, "taken over by another driver")
            elif is_hanging(self.workdir, launched, self.settings.cell_seconds):
                seconds = self.settings.cell_seconds
                kill(launched, f"killed: no row in its journals for {seconds:g} seconds")

    def reap(self) -> None:
        """Writes down what has ended, and lets go of it."""
        for name, launched in list(self.running.items()):
            if launched.process.poll() is None:
                continue
            del self.running[name]
            if not renew(launched.claim):  # whoever has it now writes down how it ends
                self.display.say(f"{name}: taken over by {owner_of(launched.claim.folder)}")
                continue
            state, reason = write_end(self.workdir, launched)
            give_back(launched.claim)
            self.ended[name] = state, reason
            said = {COMPLETE: self._accuracy(name), STOPPED: "it goes on from here"}
            facts = [said.get(state, reason), f"{time.time() - launched.began:.0f} s"]
            self.display.say(": ".join([name, state, *(fact for fact in facts if fact)]))
            self.changed()

    def shown(self) -> tuple[list[tuple[str, str]], dict[str, int], float]:
        """The running jobs with where they are, how many are in which state, and what is done."""
        rows, shares = [], 0.0
        for name, launched in self.running.items():
            words, share = progress_of(self.workdir, launched.job)
            rows.append((name, words or "starting"))
            shares += share if name in self.wanted else 0.0
        counts = {RUNNING: len(self.running)}
        for name in self.wanted:
            state = "elsewhere" if name in self.elsewhere else self.state(name)[0]
            if name not in self.running:
                counts[state] = counts.get(state, 0) + 1
        return rows, counts, shares

    def _has_begun(self, name: str) -> bool:
        """Whether there is a run to go on with, which needs no shared one."""
        return run_of(self.workdir, self.jobs[name]).exists()

    def _accuracy(self, name: str) -> str | None:
        """What the last evaluation of a job found, in words."""
        accuracy = accuracy_of(self.workdir, self.jobs[name])
        return None if accuracy is None else f"{accuracy:.1%} right"

    def _stop(self, number: int, frame: object) -> None:
        """The first signal has all runs save and end, a second one ends them at once."""
        self.asked_to_stop += 1
