"""A sweep of fake cells by submitit, here: python -m tests.fake_submit WORKDIR BEHAVIOURS."""

import pathlib
import sys

from grpo.sweeps.submitit_jobs import submit, wait
from tests.fake_sweep import words_of

if __name__ == "__main__":
    words = words_of(sys.argv[1], sys.argv[2])
    wait(submit("local", pathlib.Path(sys.argv[1]) / "submitit", {}, [words]), poll_seconds=0.1)
