"""What is wrong with a tool's command line is one line, with exit code 2."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
OF_A_CONFIG = ("certificate", "power")
OF_ARGPARSE = ("chat", "export", "parity", "replay", "sweep", "teach_flags")


@pytest.mark.parametrize("tool", OF_A_CONFIG)
def test_a_config_that_is_wrong(tool):
    command = [sys.executable, "-m", f"grpo.tools.{tool}", "--config=configs/tiny.py"]
    done = subprocess.run(
        [*command, "--config.seed=-1"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: seed=-1: expected an integer")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("tool", OF_ARGPARSE)
def test_a_flag_that_there_is_not(tool, capsys):
    parser = importlib.import_module(f"grpo.tools.{tool}").parser()
    given = {action.dest: action for action in parser._actions if action.required and action.dest}
    words = [
        f"{action.option_strings[0]}=1" if action.option_strings else "1"
        for action in given.values()
    ]
    with pytest.raises(SystemExit) as end:
        parser.parse_args([*words, "--samplse=1"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1
    assert said.startswith("error: ") and "--samplse=1" in said


@pytest.mark.parametrize("tool", ("compare", "report", "track"))
def test_a_flag_of_tools_that_read_it_at_once(tool, capsys):
    main = importlib.import_module(f"grpo.tools.{tool}").main
    with pytest.raises(SystemExit) as end:
        main(["somewhere", *(["--to=tensorboard"] if tool == "track" else []), "--samplse=1"])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
