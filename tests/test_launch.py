"""What cannot run: one line each, naming field, file or row and the way out; exit code 2."""

import ast
import dataclasses
import fcntl
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import pytest

from configs import base, tiny
from grpo.algorithms.presets import GRPO
from grpo.tools.run import run_config
from grpo.training.problems import leaves, problems
from grpo.training.rules import COMMON, REWARD, STAGES

ROOT = pathlib.Path(__file__).parent.parent
TINY = "--config=configs/tiny.py"
S, G, E = "stages.sft.", "stages.grpo.", "stages.evaluate."
REWARDS = f"{G}rewards"


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    """Whatever is compiled, or makes weights, fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail("something was computed")

    monkeypatch.setattr(jax, "jit", refuse)
    for name in ("grpo.training.origin.init_params", "models.checkpoints.hf.read_tensor"):
        monkeypatch.setattr(name, refuse)


def changed(changes, variant: str = "") -> dict:
    """The tiny experiment with some fields set, added, or (with ...) removed."""
    config = tiny.get_config(variant).to_dict()
    for path, value in changes.items():
        *sections, field = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[field] = value
        if value is ...:
            del section[field]
    return config


def test_the_tiny_experiment_is_fine():
    assert problems(changed({})) == problems(changed({}, "controls")) == []


BAD_FIELDS = [  # field, value, what is said after the field
    ("sed", 3, ": unknown field; did you mean seed?"),
    ("model.sise", "x", ": unknown field; did you mean model.size?"),
    (f"{S}stepz", 3, ": unknown field; did you mean steps?"),
    (f"{S}group", 8, ": unknown field"),
    (f"{G}loss.kl_coeff", 0.1, ": unknown field; did you mean loss.kl_coef?"),
    (f"{G}optimizer.lr", 0.1, ": unknown field"),
    (f"{REWARDS}.correct_answer.wieght", 1.0, ": unknown field; did you mean weight?"),
    ("seed", ..., ": is missing; configs/base.py has its default"),
    ("stages", ..., ": is missing; configs/base.py has its default"),
    (f"{G}loss.kl", ..., ": is missing; configs/base.py has its default"),
    (f"{REWARDS}.correct_answer.low", ..., ": is missing; configs/base.py has its default"),
    ("seed", "3", "='3': expected an integer, at least 0, at most 2147483647"),
    ("seed", True, "=True: expected an integer, at least 0"),
    ("mesh.fsdp", 1.0, "=1.0: expected an integer, at least 1"),
    ("data.strip_commas", 1, "=1: expected True or False"),
    ("model.path", 3, "=3: expected a text"),
    ("pipeline", "sft", "='sft': expected a tuple that is not empty, such as (x,)"),
    ("pipeline", (), "=(): expected a tuple that is not empty, such as (x,)"),
    ("stages", 3, "=3: expected named fields, as in configs/base.py"),
    (REWARDS, None, "=None: expected named fields, as in configs/base.py"),
    (f"{G}loss.decoupled", "no", "='no': expected True or False"),
    (f"{G}loss.clip_low", "0.2", "='0.2': expected a number"),
    (f"{G}loss.kl_coef", None, "=None: expected a number"),
    (f"{REWARDS}.correct_answer.weight", "1", "='1': expected a number"),
    (f"{S}steps", -1, "=-1: expected an integer, at least 1"),
    (f"{S}steps", 0, "=0: expected an integer, at least 1"),
    (f"{S}optimizer.learning_rate", float("nan"), "=nan: expected a number, more than 0, at most"),
    (f"{S}optimizer.learning_rate", float("inf"), "=inf: expected a number, more than 0, at most"),
    (f"{S}optimizer.learning_rate", 0.0, "=0.0: expected a number, more than 0, at most 1"),
    (f"{S}optimizer.eps", 10**400, "=1000"),
    (f"{S}optimizer.decayed", "(", "='(': is no regular expression (missing )"),
    (f"{G}lora.targets", None, "=None: is no regular expression"),
    (f"{G}group", 1, "=1: expected an integer, at least 2"),
    ("data.template", "plane", "='plane': expected one of plain, reasoning_tags, s1_kaggle, s1_"),
    ("data.template", "plane", "; did you mean plain?"),
    ("data.levels", (2, 6), "=(2, 6): expected one of 1, 2, 3, 4, 5"),
    ("model.size", "gemma3_1", "='gemma3_1': expected one of "),
    (f"{S}kind", "stf", "='stf': expected one of sft, grpo, evaluate; did you mean sft?"),
    ("stages.a/b", base.sft().to_dict(), ": expected another name, of letters, digits, _ and -"),
    ("stages.base", base.sft().to_dict(), ": expected another name"),
    ("stages.more", 3, ".kind=None: expected one of sft, grpo, evaluate"),
]

BAD_TOGETHER = [  # changes, and how the line about them begins
    (
        {"pipeline": ("sft", "gprpo")},
        "pipeline: 'gprpo' is none of stages (evaluate, grpo, sft); d",
    ),
    ({"pipeline": ("sft", "sft")}, "pipeline: 'sft' is there twice"),
    ({f"{S}start": "grpo"}, f"{S}start='grpo': expected base or a training stage before it"),
    ({f"{G}start": "stf"}, f"{G}start='stf': expected base or a training stage before it"),
    (
        {"pipeline": ("sft", "evaluate", "grpo")},
        f"{E}policies: 'grpo' is neither base nor a training stage before it",
    ),
    ({f"{E}policies": ("evaluate",)}, f"{E}policies: 'evaluate' is neither base nor"),
    (
        {f"{REWARDS}.corect_answer": base.reward(1.0, 0.0, 1.0).to_dict()},
        f"{REWARDS}.corect_answer: unknown reward; did you mean correct_answer?",
    ),
    (
        {f"{REWARDS}.correct_answer.gate": "strict_format"},
        f"{REWARDS}: the gate of correct_answer is 'strict_format', which is no other entry",
    ),
    ({f"{REWARDS}.correct_answer.weight": 0.0}, f"{REWARDS}: no entry has a weight: one needs"),
    ({REWARDS: {}}, f"{REWARDS}: no entry has a weight"),
    (
        {f"{REWARDS}.correct_answer.high": -1.0},
        f"{REWARDS}: correct_answer has weight 1.0 and range [0.0, -1.0]: expected finite numbers, "
        "low below high",
    ),
    ({f"{G}loss.kl": "k4"}, f"{G}loss.kl='k4': expected one of k1, k2, k3"),
    ({f"{G}loss.scale": "none"}, f"{G}loss.eps=1e-06 would do nothing under scale='none': set it"),
    ({f"{G}loss.clip_low": None}, f"{G}loss.clip_low=None: a number is needed"),
    ({f"{G}loss.baseline": "batch"}, f"{G}loss.baseline='batch' with scale='group' divides"),
    ({f"{G}loss.kl_coef": -0.1}, f"{G}loss.kl_coef=-0.1: expected a number from 0 on"),
    (
        {f"{G}loss.entropy_coef": 0.1, f"{G}entropy": False},
        f"{G}entropy=False: loss.entropy_coef needs it: set it to True",
    ),
    ({f"{G}sampling.temperature": 0.0}, f"{G}sampling.temperature=0: the completions of a group"),
    ({f"{G}minibatches": 3}, f"{G}minibatches=3: does not divide prompts=16"),
    ({f"{G}microbatches": 256}, f"{G}microbatches=256: there are only 128 rows (prompts * group"),
    ({f"{S}microbatches": 65}, f"{S}microbatches=65: there are only 64 rows (batch)"),
    ({"mesh.fsdp": 2, f"{S}batch": 60}, f"{S}microbatches=4: 60 rows (batch) do not divide by it"),
    (
        {"mesh.fsdp": 8, f"{G}prompts": 2},
        f"{G}microbatches=4: 16 rows (prompts * group / minibatches) do not divide by it times "
        "mesh.fsdp=8",
    ),
    ({"mesh.fsdp": 16}, "mesh: fsdp * tp = 16 devices, here are 8"),
    ({"mesh.tp": 3}, "mesh.tp=3: does not divide the"),
    ({f"{G}max_rounds": 3}, f"{G}max_rounds=3: dynamic_sampling='off' needs 1"),
    ({f"{G}dynamic_sampling": "refill"}, f"{G}max_rounds=1: dynamic_sampling='refill' needs more"),
    ({f"{S}optimizer.final": None}, f"{S}optimizer.final=None: schedule='cosine' needs a share"),
    ({f"{G}optimizer.final": 0.1}, f"{G}optimizer.final=0.1: schedule='constant' needs None"),
    (
        {f"{G}lora.rank": 4, f"{G}lora.targets": "query"},
        f"{G}lora.targets='query': matches none of q, k, v, o, gate, up, down",
    ),
    ({f"{S}packing": 79}, f"{S}packing=79: an example may have 80 tokens (data.max_prompt + max_"),
    ({f"{E}ks": (1, 16)}, f"{E}ks=(1, 16): the largest is more than samples=8"),
    ({f"{E}samples": 0, f"{E}greedy": False}, f"{E}samples=0: with greedy=False there is nothing"),
    ({"data.buckets": (20, 60)}, "data.buckets=(20, 60): the largest must be max_prompt=40"),
    ({"data.train": "a.jsonl"}, "data.train='a.jsonl': data.source='arithmetic' reads no file: "),
    (
        {"data.source": "gsm8k", "data.test": "a.jsonl"},
        "data.train=None: data.source='gsm8k' needs a file: name one",
    ),
    (
        {"data.source": "gsm8k", "data.train": "a.txt", "data.test": "a.csv"},
        "data.train='a.txt': expected a file that ends in .jsonl, .csv, .parquet",
    ),
    (
        {"data.columns": {"question": "q"}, "data.source": "rows"}
        | {"data.train": "a.csv", "data.test": "b.csv"},
        "data.columns: which one is the answer?",
    ),
    ({"data.columns.answer": 3}, "data.columns.answer=3: expected a text, the name of a column"),
]


@pytest.mark.parametrize(("field", "value", "said"), BAD_FIELDS, ids=lambda x: str(x)[:40])
def test_a_bad_field(field, value, said):
    found = problems(changed({field: value}))
    about = [line for line in found if line.startswith(field)]
    assert len(about) == 1 and said in about[0] and all("\n" not in line for line in found)
    assert len(found) == 1 or field.startswith("stages.") or field == "sed"


@pytest.mark.parametrize(("changes", "said"), BAD_TOGETHER, ids=str)
def test_fields_that_do_not_go_together(changes, said):
    (line,) = problems(changed(changes))
    assert line.startswith(said) and "\n" not in line


def test_everything_at_once():
    """Single fields and what others say together, in every section; each mistake is one line."""
    found = problems(
        changed(
            {
                "data.buckets": (50,),
                f"{S}packing": 10,
                f"{S}optimizer.final": None,
                f"{G}iteration": 3,
                f"{G}group": 1,
                f"{E}ks": (99,),
            }
        )
    )
    named = {re.split("[:=]", line)[0] for line in found}
    assert len(found) == 6 and named == {
        "data.buckets", f"{S}packing", f"{S}optimizer.final", f"{G}iteration", f"{G}group",
        f"{E}ks",
    }  # fmt: skip
    two_gates = {
        name: base.reward(1.0, 0.0, 1.0, gate).to_dict()
        for name, gate in (("hybrid", "x"), ("strict_format", "y"))
    }
    assert len(problems(changed({REWARDS: two_gates}))) == 2


def test_one_device_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("the backend was started"))
    assert problems(changed({})) == []


GOOD = [{"question": f"{n}+1?", "answer": f"so\n#### {n + 1}"} for n in range(20)]
LINES = "".join(f"{json.dumps(row)}\n" for row in GOOD)
TEST = json.dumps({"question": "50+1?", "answer": "so\n#### 51"}) + "\n"


def lines_with(row, number: int = 3) -> str:
    """The good lines with another one among them."""
    lines = LINES.splitlines(keepends=True)
    lines[number - 1] = (row if isinstance(row, str) else json.dumps(row)) + "\n"
    return "".join(lines)


BAD_FILES = {  # name of the file and what is in it, and what is said
    "absent": ("none.jsonl", None, "none.jsonl: no such file, and not owner/name/file of a Hub"),
    "a directory": ("a.jsonl", {}, "a.jsonl: is a directory; name a file in it"),
    "empty": ("a.jsonl", "", "a.jsonl: is empty"),
    "blank": ("a.jsonl", "\n \n\r\n", "a.jsonl: is empty"),
    "UTF-16": ("a.jsonl", LINES.encode("utf-16"), "a.jsonl:row 1: UTF-16, save it as UTF-8"),
    "an array": ("a.jsonl", json.dumps(GOOD), "a.jsonl:row 1: a JSON array; write one object per"),
    "torn": ("a.jsonl", LINES[:-9], "a.jsonl:row 20: cut off: not JSON, and the file ends without"),
    "missing": ("a.jsonl", lines_with({"question": "1?"}), "a.jsonl:row 3: no field 'answer'"),
    "null": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": None}),
        "a.jsonl:row 3: field 'answer' is null",
    ),
    "of a wrong type": (
        "a.jsonl",
        lines_with({"question": 1, "answer": "#### 2"}),
        "a.jsonl:row 3: field 'question' is of type int, not a text",
    ),
    "an empty answer": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": " "}),
        "a.jsonl:row 3: field 'answer' is empty",
    ),
    "no gold": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": "2"}),
        "a.jsonl:row 3: the answer has no '####' where it needs one",
    ),
    "two golds": (
        "a.jsonl",
        lines_with({"question": "1?", "answer": "#### 2 #### 3"}),
        "a.jsonl:row 3: the answer has 2 '####' where it needs one",
    ),
    "CSV quoting": ("a.csv", 'question,answer\n1?,"#### 2\n', "a.csv:row 2: not CSV ("),
    "CSV columns": (
        "a.csv",
        "question,answer\n1?,#### 2\n2?\n",
        "a.csv:row 3: has 1 fields, where the first row has 2",
    ),
    "not UTF-8": (
        "a.jsonl",
        lines_with('{"question": "\xe9"}').encode("latin-1"),
        "a.jsonl:row 3: not UTF-8 (byte 15 of the line)",
    ),
    "a lone surrogate": (
        "a.jsonl",
        lines_with({"question": "\ud800", "answer": "#### 1"}),
        "a.jsonl:row 3: has a lone surrogate, which is no character",
    ),
    "no Parquet": ("a.parquet", "PAR1", "a.parquet: "),
    "in the test": (
        "a.jsonl",
        lines_with({"question": " 50+1?", "answer": "#### 51"}),
        "test.jsonl: 1 test questions are among the training ones: test:1 is a:3",
    ),
    "too long": (
        "a.jsonl",
        LINES.replace("+1?", "+1" * 99 + "?"),
        "a.jsonl (train, prompts of 40): 0.0% of the examples are kept, 90.0% are needed",
    ),
}


def refused(config, workdir, capsys) -> str:
    """The line with which a run does not begin; there is nothing left of it but its settings."""
    assert run_config(config, workdir) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert not workdir.is_dir() or {path.name for path in workdir.iterdir()} <= {
        "lock", "config.json", "tokenizer.model",
    }  # fmt: skip
    return err.removeprefix("error: ").rstrip()


def reading(folder, name, content, **changes) -> dict:
    """The tiny experiment on files: what is in the training file, and a good test file."""
    (folder / "test.jsonl").write_text(TEST)
    if isinstance(content, dict):
        (folder / name).mkdir()
    elif content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    files = {"data.train": str(folder / name), "data.test": str(folder / "test.jsonl")}
    return changed({"data.source": "gsm8k", **files, **changes})


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_data_file(tmp_path, capsys, kind):
    name, content, said = BAD_FILES[kind]
    line = refused(reading(tmp_path, name, content), tmp_path / "run", capsys)
    assert said in line and len(line) < 1000


def test_duplicate_ids(tmp_path, capsys):
    columns = {"question": "question", "answer": "answer", "id": "id"}
    rows = "".join(json.dumps({**row, "id": "x"}) + "\n" for row in GOOD)
    config = reading(tmp_path, "a.jsonl", rows, **{"data.columns": columns})
    assert "a.jsonl:row 2: id 'x' is also that of row 1" in refused(config, tmp_path / "r", capsys)


def test_a_template_too_long_for_the_world(tmp_path, capsys):
    line = refused(changed({"data.template": "s3"}), tmp_path / "run", capsys)
    assert line.startswith("arithmetic (train, prompts of 40): 0.0% of the examples are kept")


def test_too_small_a_world(tmp_path, capsys, monkeypatch):
    world = {1: {"steps": 1, "operations": "+-", "largest": 4}}
    monkeypatch.setattr("grpo.data.arithmetic.LEVELS", world)
    monkeypatch.setattr("grpo.data.arithmetic.NAMES", ("Ann",))
    monkeypatch.setattr("grpo.data.arithmetic.THINGS", ("apples",))
    config = changed({"data.levels": (1,), "data.test_examples": 2000, "data.train_examples": 9})
    line = refused(config, tmp_path / "run", capsys)
    assert line.startswith("levels=(1,): there are no 2000 different examples for 'test': ask for")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, ": no such directory, and not a Hub repository `owner/name`"),
        (
            lambda folder: folder.write_text(""),
            ": a file, where a checkpoint directory is expected",
        ),
        (lambda folder: folder.mkdir(), "config.json: no such file"),
        (
            lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{")),
            "not valid JSON",
        ),
    ],
)
def test_a_bad_model_directory(tmp_path, capsys, make, said):
    folder = tmp_path / "gemma"
    make(folder)
    line = refused(changed({"model.path": str(folder)}), tmp_path / "run", capsys)
    assert line.startswith(f"model.path={str(folder)!r}: ") and said in line


def test_truncated_weights(tmp_path, capsys):
    folder, config = tmp_path / "gemma", {"model_type": "gemma3_text"}
    folder.mkdir()
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "head_dim": 16}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    (folder / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    line = refused(changed({"model.path": str(folder)}), tmp_path / "run", capsys)
    assert line.startswith("model.path=") and "model.safetensors: not a whole safetensors" in line


def test_a_workdir_of_another_config(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(changed({"seed": 1, "log.every_s": 5.0})))
    line = refused(changed({}), tmp_path, capsys)
    assert "began with another config: seed was 1, is 0: name another directory" in line
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read; name another one" in refused(changed({}), tmp_path, capsys)


def test_a_workdir_that_is_none_or_in_use(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for workdir in (file, file / "below", pathlib.Path("/dev/null/run")):
        line = refused(changed({}), workdir, capsys)
        assert line.startswith(f"--workdir={workdir}: no directory to write in (")
    with open(tmp_path / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file.unlink()
        assert "another process is at work in it" in refused(changed({}), tmp_path, capsys)


# The command line itself.


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
    told = launched(*arguments, f"--workdir={tmp_path / 'run'}")
    assert told.startswith(f"error: {said}") and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_launch_on_a_bad_file(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines_with({"question": "1?"}))
    files = [f"--config.data.{part}={tmp_path / 'a.jsonl'}" for part in ("train", "test")]
    told = launched(TINY, "--config.data.source=gsm8k", *files, f"--workdir={tmp_path / 'run'}")
    assert told.count("\n") == 1 and told.startswith("error: ")
    assert "a.jsonl:row 3: no field 'answer' (it has 'question')" in told


PARSING = """
import sys
from absl import flags
from ml_collections import config_flags
from grpo.tools.arguments import parse
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
FINE = (f"{TINY} --config.stages.sft.optimizer.clip_norm=None", f"{TINY} --config.seed=None")
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
def test_none_on_the_command_line(parsed, command):
    assert parsed[command] == "['launch.py']"


@pytest.mark.parametrize("source", BAD_CONFIG_FILES)
def test_a_bad_config_file(parsed, source):
    assert (
        parsed[source].startswith("error: --config=") and BAD_CONFIG_FILES[source] in parsed[source]
    )


# Every field has a rule and a reader.


def defaults() -> dict[str, dict[str, object]]:
    """The fields of configs/base.py with their defaults: of a run, and of each kind of stage."""
    sections = {
        "": base.base(),
        "sft": base.sft(),
        "grpo": base.grpo(),
        "evaluate": base.evaluate(),
    }
    return {name: dict(leaves(section.to_dict())) for name, section in sections.items()}


def test_every_field_has_a_rule_and_every_rule_a_field():
    open_fields = {"": ["data.columns", "stages"], "sft": [], "grpo": ["rewards"], "evaluate": []}
    for name, section in defaults().items():
        rules = COMMON if name == "" else STAGES[name]
        own = ["kind"] if name else []
        assert sorted(section) == sorted([*rules, *open_fields[name], *own])
        for field, rule in rules.items():
            # A run's pipeline is the one field without a default that may stay.
            assert rule(section[field]) is None or field == "pipeline"
    assert sorted(base.reward(1.0, 0.0, 1.0)) == sorted(REWARD)


def test_the_default_loss_is_that_of_the_mission():
    assert base.grpo().loss.to_dict() == dataclasses.asdict(GRPO)


def test_every_field_is_read():
    """Its name stands in grpo/ as a key or a keyword, outside of the rules about it."""
    words = set()
    for file in (ROOT / "grpo").rglob("*.py"):
        if file.name in ("rules.py", "problems.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            elif isinstance(node, ast.arg | ast.keyword) and node.arg:
                words.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words.add(node.target.id)  # a field of a dataclass that is made from a section
    # Of these the section goes to models/ as a whole: LoraConfig(**lora), make_mesh(**mesh).
    whole = {"rank", "alpha", "targets", "rslora", "fsdp", "tp"}
    fields = {path.rpartition(".")[2] for section in defaults().values() for path in section}
    unread = fields - words - whole - {part + "_examples" for part in ("train", "test")}
    assert unread == set()


EXPERIMENTS = [
    path.stem for path in sorted((ROOT / "configs").glob("[!_]*.py")) if path.stem != "base"
]
# What an experiment may need that is not here.
ELSEWHERE = re.compile(r"mesh: fsdp \* tp = \d+ devices, here are")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_fine(name):
    module = importlib.import_module(f"configs.{name}")
    source = (ROOT / "configs" / f"{name}.py").read_text()
    assert ast.get_docstring(ast.parse(source))
    variants = re.search(r"variant not in (\(.*\))", source)
    for variant in ast.literal_eval(variants[1]) if variants else ("",):
        found = problems(module.get_config(variant).to_dict())
        assert [line for line in found if not ELSEWHERE.match(line)] == []
    with pytest.raises(ValueError, match="variant 'nope' of configs/"):
        module.get_config("nope")


@pytest.mark.parametrize("name", ["base", *EXPERIMENTS])
def test_experiments_import_configs_only(name):
    tree = ast.parse((ROOT / "configs" / f"{name}.py").read_text())
    modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert {module.split(".")[0] for module in modules} <= {"configs", "ml_collections", "math"}
