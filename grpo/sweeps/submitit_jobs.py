"""Shards of a sweep as jobs of submitit: processes on this machine, or tasks of an array of Slurm.

submitit keeps what a job is to do in a pickle, which a process of the job reads: here the name of
the class below and the words of a command. The command runs in a session of its own, so that
a signal reaches it by one way only, and once (a second one would end its runs unsaved):

    SIGUSR2   what submitit has sent when time runs out or the job is preempted: the command's runs
              save, and the job is queued again; after too many timeouts it ends instead
    SIGTERM   as by scancel, where submitit alone would do nothing: they save, and the job ends

submitit is an extra, imported where jobs are asked for.
"""

import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

CLUSTERS = ("local", "slurm")
ANY_CLUSTER = (  # options that submitit translates; others are given with the cluster's name
    "name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node",
    "stderr_to_stdout",
)  # fmt: skip
PROCESSES = ("nodes", "tasks_per_node", "ntasks_per_node")  # of a job, which has one
LINES = ("setup", "teardown", "srun_args")  # lists
DEFAULTS = {
    "local": {"timeout_min": 365 * 24 * 60},  # submitit's are two minutes
    "slurm": {"signal_delay_s": 120},  # to save in
}
TIMEOUTS = "max_num_timeout"  # after which a job is not queued again
SEEN = "CUDA_VISIBLE_DEVICES"


class SubmitError(ValueError):
    """Jobs that cannot be; one line."""


class Shard:
    """The command of a job."""

    def __init__(self, words: Sequence[str]):
        self.words = words
        self.process: subprocess.Popen | None = None
        self.is_asked = False  # to stop

    def __call__(self) -> None:
        """Runs it; an exit code other than 0 makes the job a failed one."""
        with subprocess.Popen(self.words, start_new_session=True) as self.process:
            signal.signal(signal.SIGTERM, self.stop)
            code = self.process.wait()
        if code:
            raise subprocess.CalledProcessError(code, self.words)

    def stop(self, *of_a_signal: object) -> None:
        """Has it save and end."""
        if self.process and not self.is_asked:
            self.is_asked = True
            self.process.terminate()

    def checkpoint(self) -> Any:
        """What submitit's handler of SIGUSR2 calls for what is to be queued again."""
        self.stop()
        if self.process:
            # The handler has interrupted process.wait(), which holds a lock of its own.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return importlib.import_module("submitit.helpers").DelayedSubmission(Shard(self.words))


def submit(
    cluster: str,
    folder: pathlib.Path,
    options: Mapping[str, Any],
    commands: Sequence[Sequence[str]],
) -> Sequence[Any]:
    """Jobs that run the commands, as submitit has them; their logs are in the folder."""
    try:
        package = importlib.import_module("submitit")
    except ImportError:
        raise SubmitError("--submit needs submitit: pip install -e '.[submitit]'") from None
    if wrong := wrong_in(cluster, options):
        raise SubmitError(wrong)
    if cluster == "local" and "gpus_per_node" not in options:
        commands = [[*as_seen_here(), *words] for words in commands]
    given = {**DEFAULTS[cluster], **options}
    often = {f"{cluster}_{TIMEOUTS}": given.pop(TIMEOUTS, 3)}  # of its executor alone
    try:
        executor = package.AutoExecutor(folder, cluster=cluster, **often)
        executor.update_parameters(**dict(named(cluster, *option) for option in given.items()))
        with ignored(signal.SIGINT):  # Ctrl-C is for the process that waits for them
            return executor.submit_array([Shard(words) for words in commands])
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).partition("\n")[0].split())
        raise SubmitError(f"--submit={cluster}: {said}") from None


def wrong_in(cluster: str, options: Mapping[str, Any]) -> str | None:
    """What submitit would take, and should not."""
    for name in PROCESSES:
        if name in options:
            return f"--submit_option={name}: a job is one process; --tasks says how many there are"
    if not isinstance(options.get(TIMEOUTS, 0), int):
        return f"--submit_option={TIMEOUTS}={options[TIMEOUTS]}: expected an integer"
    if cluster == "slurm" and not {"timeout_min", "time"} & options.keys():
        return "--submit_option=timeout_min=...: is missing: how many minutes may a job take?"
    return None


def named(cluster: str, name: str, value: Any) -> tuple[str, Any]:
    """An option as submitit takes it."""
    if name in LINES and isinstance(value, str):
        value = [value]
    return (name if name in ANY_CLUSTER else f"{cluster}_{name}"), value


def as_seen_here() -> list[str]:
    """Words before a command that shows it this process's accelerators; submitit hides them."""
    value = os.environ.get(SEEN)
    return ["env", "-u", SEEN] if value is None else ["env", f"{SEEN}={value}"]


@contextlib.contextmanager
def ignored(number: signal.Signals):
    """A signal is not heard, nor by processes that are started now."""
    old = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, old)


def wait(jobs: Sequence[Any], poll_seconds: float) -> None:
    """Until local jobs have ended; Ctrl-C or SIGTERM has them save and end."""
    asked = []  # the signals to this process
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in numbers}
    try:
        while left := [job for job in jobs if not job.done()]:
            if asked:  # at each look: a process that is just starting hears none
                for job in left:
                    os.kill(int(job.job_id), signal.SIGTERM)  # a local job's is its process's
            time.sleep(poll_seconds)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
