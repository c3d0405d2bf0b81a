"""The command line: launches that cannot be end in one line that says why, with exit code 2."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from grpo.checks.arguments import run_name
from tests.refusals import lines_with

ROOT = pathlib.Path(__file__).parent.parent
TINY = "--config=configs/tiny.py"


def launched(*arguments: str, code: int = 2) -> str:
    """What a launch says on stderr, within ten seconds."""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "", "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert time.monotonic() - start < 10
    return done.stderr


def test_a_good_launch_is_silent():
    assert launched(f"{TINY}:controls", "--config.stages.sft.steps=3", "--check", code=0) == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/tiny.py", "--chek"], "--chek: unknown flag; did you mean check?"),
        ([TINY, "--config.sed=3"], "--config.sed: the config has no field 'sed' there; did you m"),
        ([TINY, "--config.model.vocab=7"], "model.vocab=7: expected an integer, at least 300"),
    ],
)
def test_a_launch_that_cannot_be(arguments, said, tmp_path):
    got = launched(*arguments, f"--workdir={tmp_path / 'run'}")
    assert got.startswith(f"error: {said}") and got.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_launch_on_a_bad_file(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines_with({"question": "1?"}))
    files = [f"--config.data.{part}={tmp_path / 'a.jsonl'}" for part in ("train", "test")]
    got = launched(TINY, "--config.data.source=gsm8k", *files, f"--workdir={tmp_path / 'run'}")
    assert got.count("\n") == 1 and got.startswith("error: ")
    assert "a.jsonl:row 3: no field 'answer' (it has 'question')" in got


PARSING = """
import sys
from absl import flags
from ml_collections import config_flags
from grpo.checks.arguments import parse
config_flags.DEFINE_config_file("config")
flags.DEFINE_string("workdir", None, "")
flags.DEFINE_bool("check", False, "")
for line in sys.stdin.read().splitlines():
    sys.argv = ["launch.py", *line.split()]
    try:
        print(parse(sys.argv), file=sys.stderr)
    except SystemExit as error:
        assert error.code == 2
    flags.FLAGS.unparse_flags()
    sys.modules.pop("config_config", None)
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
"""
BAD_FLAGS = {
    "": "--config is missing: name an experiment, as in --config=configs/tiny.py",
    "--confg=configs/tiny.py": "--confg: unknown flag; did you mean config?",
    "--config configs/tiny.py": "--config is missing: name an experiment, as in --config=configs/",
    "--config=configs/tinny.py": "--config=configs/tinny.py: no file configs/tinny.py; did you mean"
    " configs/tiny.py?",
    "--config=configs": "--config=configs: no file configs",
    f"{TINY}:contols": f"{TINY}:contols: line ",
    "--config=configs/ablations.py:tiny/nokl": "--config=configs/ablations.py:tiny/nokl: line ",
    f"{TINY} --workdr=x": "--workdr: unknown flag; did you mean workdir?",
    f"{TINY} seed=3": "'seed=3': every argument is a flag with =, such as --config=",
    f"{TINY} --check=perhaps": "--check=perhaps: expected true or false",
    f"{TINY} --config.seed": "Missing value for flag --config.seed",
    f"--config.seed=3 {TINY}": "--config.seed: comes before what it changes: put --config=configs/",
    f"{TINY} --config.sed=3": "--config.sed: the config has no field 'sed' there; did you mean",
    f"{TINY} --config.stages.grpo.loss.kl_coeff=3": "--config.stages.grpo.loss.kl_coeff: the config"
    " has no field 'kl_coeff' there; did you mean kl_coef?",
    f"{TINY} --config.seed=abc": "--config.seed=abc: expected an integer",
    f"{TINY} --config.seed=1.5": "--config.seed=1.5: expected an integer",
    f"{TINY} --config.log.every_s=soon": "--config.log.every_s=soon: expected a number",
    f"{TINY} --config.stages.grpo.entropy=so": "--config.stages.grpo.entropy=so: expected true or",
    f"{TINY} --config.stages.grpo=3": "--config.stages.grpo=3: Failed to parse '3' as a ConfigDict",
    "--config=configs/base.py": "--config=configs/base.py: module 'config_config' has no attribute "
    "'get_config'",
}
FINE = (
    f"{TINY} --config.stages.sft.optimizer.clip_norm=None",
    f"{TINY} --config.seed=None",
    "--config=configs/ablations.py:tiny:controls/no_kl+lr_x3 --config.seed=3",
    f"{TINY} --config.data.train=a.jsonl --config.data.validation=b.csv --config.data.source=rows",
    f"{TINY} --config.stages.grpo.data=more --config.evaluation.data=data",
    f"{TINY} --config.stages.grpo.rewards.correct_answer.options.strict=false",
)
BAD_CONFIG_FILES = {
    "raise RuntimeError('no\\nway')": "line 1: RuntimeError: no way",
    "def get_config(": "line 1: SyntaxError: '(' was never closed",
    "import nope": "line 1: ModuleNotFoundError: No module named 'nope'",
    "x = 1": "has no attribute 'get_config'",
    "def get_config():\n    return {}['a']": "line 2: KeyError: 'a'",
    "def get_config():\n    return int('a')": "line 2: ValueError: invalid literal",
    "def get_config():\n    return open('/nope')": "line 2: FileNotFoundError: ",
    "def get_config():\n    return {'seed': 3}": "get_config() returns {'seed': 3}, not a Config",
    "from configs import base\ndef get_config():\n    c = base.base()\n    c.mesh.tp = 'a'\n"
    "    return c": "line 4: TypeError: ",
}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """What each command line is answered, all of them by one process."""
    commands = {command: command for command in (*BAD_FLAGS, *FINE)}
    folder = tmp_path_factory.mktemp("configs")
    for number, source in enumerate(BAD_CONFIG_FILES):
        (folder / f"{number}.py").write_text(source)
        commands[source] = f"--config={folder / f'{number}.py'}"
    done = subprocess.run(
        [sys.executable, "-c", PARSING],
        input="\n".join(commands.values()) + "\n",
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(zip(commands, done.stderr.splitlines(), strict=True))


@pytest.mark.parametrize("command", BAD_FLAGS)
def test_a_bad_command_line(parsed, command):
    assert parsed[command].startswith(f"error: {BAD_FLAGS[command]}")


@pytest.mark.parametrize("command", FINE)
def test_a_good_command_line(parsed, command):
    """None, a field that is None, an option."""
    assert parsed[command] == "['launch.py']"


@pytest.mark.parametrize("source", BAD_CONFIG_FILES)
def test_a_bad_config_file(parsed, source):
    assert (
        parsed[source].startswith("error: --config=") and BAD_CONFIG_FILES[source] in parsed[source]
    )


def test_a_file_to_evaluate_on_needs_an_evaluation():
    assert launched(TINY, "--on=asked.jsonl") == (
        "error: --on=asked.jsonl: names data of --evaluate=PATH, which is missing\n"
    )
    names = {
        run_name(["launch.py", TINY, "--evaluate=runs/x", f"--on={file}"])
        for file in ("a.jsonl", "data/b.csv")
    }
    assert names == {"tiny,evaluate-runs-x,on-a.jsonl", "tiny,evaluate-runs-x,on-b.csv"}
