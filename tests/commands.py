"""Runs commands of this project quickly: one process imports much of it, and is forked for each.

    python -m tests.commands < commands.json

Reads a list of lists of words, "python" left out, and writes a list of [exit code, output].
"""

import importlib
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import warnings

ROOT = pathlib.Path(__file__).parent.parent


def answers(commands: list[list[str]]) -> list[tuple[int, str]]:
    """The exit code and the output of each, as if it had been started at the top of the tree."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands"],
        input=json.dumps(commands), cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [(code, printed) for code, printed in json.loads(done.stdout)]


def forked(words: list[str]) -> tuple[int, str]:
    """One command, in a process of its own."""
    with tempfile.TemporaryFile("w+") as printed:
        if (child := os.fork()) == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            os._exit(run(words))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        return code, printed.read()


def run(words: list[str]) -> int:
    """What Python does with -m MODULE or FILE and the words after it."""
    code = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(ROOT / pathlib.Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def main() -> None:
    """Every command of standard input."""
    warnings.filterwarnings("ignore", "os.fork")  # JAX is imported, and has started no thread yet
    for module in ("grpo.pipeline", "ml_collections.config_flags"):
        importlib.import_module(module)  # most of what a launch waits for
    print(json.dumps([forked(words) for words in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
