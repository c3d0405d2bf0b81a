"""The README's code runs."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_from_prompts_to_an_update():
    text = (ROOT / "README.md").read_text()
    code = re.search(r"## From prompts to an update.*?```python\n(.*?)```", text, re.DOTALL)
    assert code
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code[1]], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'ratio/max': 1.0" in done.stdout and "'grad_norm': 0.0," not in done.stdout
