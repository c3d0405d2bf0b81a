"""Every command and every block of code of README and docs/ does what the page says.

Python is executed, in order within a page: settings of a config on top of configs/tiny.py, which
must have no problem afterwards (full-size models in them are named, not loaded). Of a command the
file, the flags, the fields and their values are read as the command itself reads them: launches by
--check, tools and benchmarks by --help. What cannot run here stands in APART, with the reason.
"""

import ast
import dataclasses
import functools
import json
import re
import shlex
import tomllib

import jax
import jax.numpy as jnp
import pytest
import yaml

from configs import base, tiny
from grpo.checks.problems import problems
from grpo.data.making import make
from grpo.data.worlds import WORLDS
from grpo.pipeline import STAGES
from models import Policy
from models.config import SIZES
from models.gemma import init_params
from models.loading import save_hf
from models.tokenizer import Tokenizer, train_tokenizer
from tests.commands import answers
from tests.pages import PAGES, ROOT, Block, blocks, commands, text_of

# (page, how the block begins): why it is not executed here. A block that cannot run and is missing
# here fails, and so does a line here that no page has.
APART = {
    ("README.md", "def shortest(examples, completions, *"):
        "parts of tests/diffs/batch_reward.diff, which tests/test_rewards_diff.py makes and runs",
    ("README.md", "import jax, jax.numpy as jnp, numpy as np, optax"):
        "executed by tests/test_readme.py, which looks at what it prints",
    ("README.md", "--config.stages.grpo.rewards.shortest.options.threshold=1.2"):
        "of the reward that tests/test_rewards_diff.py adds and gives this flag",
    ("docs/sweeps.md", "import json\nimport pathlib"):
        "needs Optuna, which nothing here does",
    ("docs/export.md", "python convert_hf_to_gguf.py"): "a script of llama.cpp",
    ("docs/kaggle_colab.md", "--config.model.path=DIRECTORY"): "beside the config that is launched",
    ("docs/debugging.md", "--config.checkpoint.keep_last"): "the flag's name alone",
    ("docs/debugging.md", "--config.model.path=runs/tiny/checkpoints/sft/"):
        "with a pipeline that the reader writes",
}  # fmt: skip
# Texts of commands and code that stand for something of the reader's.
STANDS_FOR = {
    "configs/NAME.py:VARIANT": "configs/grpo_demo_gemma3_1b.py:tiny",
    "train=FILE, template=...": 'train="more.jsonl", template="plain"',
}
LOADED = "path/to/gemma-3-1b-it"
# Programs whose arguments are the reader's own.
SHELL = {
    ".",
    "cd",
    "cp",
    "echo",
    "export",
    "git",
    "python3.11",
    "rm",
    "ruff",
    "pyright",
    "sbatch",
    "tail",
    "taskset",
}
FROM_THE_REGISTRY = {
    "pre-commit", "xprof", "optuna", "torch", "transformers", "sentencepiece", "protobuf",
}  # fmt: skip  # named as what one may want, never needed
OUTPUT = {"", "text"}  # languages of fences that show what is printed, or a drawing

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ALL = [block for page in PAGES for block in blocks(page)]
SHOWN = [block for block in ALL if block.language not in OUTPUT]


def reason(block: Block) -> str | None:
    """Why a block is not executed here."""
    if re.search(r"<!-- tested: [^>]* -->\n *```\w+\n$", upto(block)):
        return "executed by the test that has its marker"
    for (page, start), why in APART.items():
        if block.page == page and starts(block, start):
            return why
    return None


def starts(block: Block, start: str) -> bool:
    return block.text.lstrip().startswith(start)


def upto(block: Block) -> str:
    """The page before a block."""
    return "".join(text_of(block.page).splitlines(keepends=True)[: block.line - 1])


def real(text: str) -> str:
    """A text with something in place of what stands for the reader's own."""
    for placeholder, example in STANDS_FOR.items():
        text = text.replace(placeholder, example)
    return text


def test_every_line_of_the_table_is_of_a_block():
    for page, start in APART:
        assert any(block.page == page and starts(block, start) for block in SHOWN), (page, start)


def test_a_marker_names_a_test():
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for page in PAGES:
        for marker in re.findall(r"<!-- tested: (.*?) -->", text_of(page)):
            assert f'"{marker}"' in tests, f"{page}: tested: {marker}"


def test_every_block_has_a_language_that_is_looked_at():
    known = {"python", "sh", "json", "toml", "yaml", "diff", *OUTPUT}
    known |= {"command", "overrides", "assignment"}
    assert [f"{b.place}: {b.language}" for b in ALL if b.language not in known] == []


def test_data_can_be_read():
    for block in SHOWN:
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            list(yaml.safe_load_all(block.text))


# Commands


def launches() -> dict[str, list[str]]:
    """By place and text, the launches of all pages, as checks."""
    got = {}
    for block in SHOWN:
        if reason(block) or block.language not in ("sh", "command", "overrides"):
            continue
        text = real(block.text)
        if block.language == "overrides":
            text = f"python launch.py --config=configs/tiny.py {text}"
        for words in commands(block._replace(text=text)):
            if words[:2] == ["python", "launch.py"]:
                said = ("--preflight", "--topology", "--hack", "...")  # what only says something
                flags = [word for word in words[2:] if word.partition("=")[0] not in said]
                if flags:  # `python launch.py ...` says nothing of its flags
                    got[f"{block.place}: {shlex.join(words)}"] = ["launch.py", *flags, "--check"]
    return got


def scripts() -> dict[str, tuple[str, list[str]]]:
    """By place and text, the file that a command other than a launch runs, and its flags."""
    got = {}
    for block in SHOWN:
        if reason(block) or block.language not in ("sh", "command"):
            continue
        for words in commands(block):
            if words[0] != "python" or words[1] in ("launch.py", "-c"):
                continue
            file, flags = words[1], words[2:]
            if words[1] == "-m":
                file, flags = f"{words[2].replace('.', '/')}.py", words[3:]
            got[f"{block.place}: {shlex.join(words)}"] = file, flags
    return got


@pytest.fixture(scope="module")
def printed():
    """What the launches and the --help of the scripts print, all by one process."""
    helps = {file: helped(file) for file, _ in scripts().values() if has_help(file)}
    asked = {**launches(), **helps}
    return dict(zip(asked, answers(list(asked.values())), strict=True))


def has_help(file: str) -> bool:
    """Whether a file says what its flags are; if not, it may run whatever it is asked."""
    text = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
    return bool(re.search(r"^(import|from) (argparse|absl|grpo\.tools\.\w+_flags)", text, re.M))


def helped(file: str) -> list[str]:
    """The words that ask a file for its flags."""
    if file.startswith("benchmarks/"):
        return [file, "--help"]
    return ["-m", file.removesuffix(".py").replace("/", "."), "--help"]


def test_launches_are_found():
    assert len(launches()) >= 10 and len(scripts()) >= 8


@pytest.mark.parametrize("command", launches())
def test_a_launch_is_fine(command, printed):
    code, said = printed[command]
    assert code == 0 and said.endswith("the config is fine\n"), f"{command}\n{said}"


@pytest.mark.parametrize("command", scripts())
def test_a_script_has_the_flags_that_it_is_given(command, printed):
    file, flags = scripts()[command]
    if file in ("venv.py", "pytest.py", "pip.py"):
        return  # of Python
    assert (ROOT / file).is_file(), f"{command}: no file {file}"
    said = printed[file][1] if has_help(file) else (ROOT / file).read_text()
    for flag in (word.partition("=")[0] for word in flags if word.startswith("--")):
        if flag == "--help":
            continue
        name = flag.removeprefix("--")
        there = re.search(rf"--(\[no\])?{re.escape(name)}\b", said)
        assert there, f"{command}: {file} has no flag {flag}; its --help says\n{said[-1500:]}"
    configs = [word.partition("=")[2] for word in flags if word.startswith("--config=")]
    for config in configs:
        assert (ROOT / config.partition(":")[0]).is_file(), f"{command}: no file {config}"


@pytest.mark.parametrize(
    "block", [b for b in SHOWN if b.language in ("sh", "command")], ids=lambda block: block.place
)
def test_other_commands_name_what_is_there(block):
    if reason(block):
        return
    extras = PROJECT["project"]["optional-dependencies"]
    markers = PROJECT["tool"]["pytest"]["ini_options"]["markers"]
    for words in commands(block):
        if words[0] == "pip" or words[0].endswith("/bin/pip"):
            assert words[1] == "install", words
            for word in (word for word in words[2:] if word[0] != "-"):
                named = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", word)
                assert named or word in FROM_THE_REGISTRY or (ROOT / word).is_file(), words
                wanted = (named[1] or "").split(",") if named else []
                assert set(filter(None, wanted)) <= extras.keys(), words
        elif words[0] == "pytest":
            marker = words[words.index("-m") + 1] if "-m" in words else None
            assert marker is None or any(m.startswith(f"{marker}:") for m in markers), words
            given = [word for word in words[1:] if word.startswith("tests/")]
            assert all((ROOT / word.partition("::")[0]).exists() for word in given), words
        else:
            ours = words[0] in ("python", "pre-commit") or words[0].startswith(".ci/")
            assert ours or words[0] in SHELL, (
                f"{block.place}: {words[0]!r} is not a command that this test knows: "
                "add it to SHELL, or the block to APART with the reason"
            )


# Python


class Namespace(dict):
    """What a page's code finds: tiny's config, and base, as `configs/` files have them."""

    def __init__(self):
        super().__init__(base=base, config=tiny.get_config())
        self["grpo"] = self["config"].stages.grpo


@functools.cache
def model_directory() -> str:
    """A small model where a page's code loads one."""
    texts = [example["question"] for example in examples("arithmetic")]
    tokenizer = Tokenizer(train_tokenizer(texts, 340), "gemma3")
    size = dataclasses.replace(SIZES["gemma3_micro"], vocab_size=tokenizer.vocab_size, width=16)
    params = init_params(size, jax.random.key(0), jnp.float32)
    return str(save_hf(Policy(config=size, params=params, tokenizer=tokenizer), "model").resolve())


def examples(world: str) -> list:
    """Some texts for a tokenizer."""
    return make(world, WORLDS[world], 0, 200, (2,), "train", 1.0, 0.0)


def executed(block: Block, names: dict, text: str) -> None:
    """Runs the code of a block; its lines are those of the page in a traceback."""
    code = compile("\n" * (block.line - 1) + text, block.page, "exec")
    exec(code, names)


def python(page: str) -> list[Block]:
    """The blocks of Python of a page, and assignments within its text."""
    known = ("python", "assignment")
    return [b for b in blocks(page) if b.language in known and not reason(b)]


@pytest.mark.parametrize("page", [page for page in PAGES if python(page)])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", "a-key")
    monkeypatch.setattr(tiny, "get_config", smallest(tiny.get_config))
    names = Namespace()
    for block in python(page):
        text = real(block.text)
        if LOADED in text:
            text = text.replace(LOADED, model_directory())
        if block.language == "assignment":
            look_at_an_assignment(block, names, text)
            continue
        try:
            executed(block, names, text)
        except Exception as error:
            pytest.fail(f"{block.place}: {type(error).__name__}: {error}\n{block.text}")
        used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        if "config" in used:
            wrong = problems(names["config"].to_dict(), STAGES)
            assert wrong == [], f"{block.place}: after\n{block.text}"


def look_at_an_assignment(block: Block, names: dict, text: str) -> None:
    """One in running text, made on a copy: what it sets is a field, whatever else is missing."""
    config = names["config"].copy_and_resolve_references()
    before = problems(config.to_dict(), STAGES)
    try:
        executed(block, {**names, "config": config}, text)
    except Exception as error:
        pytest.fail(f"{block.place}: {type(error).__name__}: {error}\n{block.text}")
    new = set(problems(config.to_dict(), STAGES)) - set(before)
    assert not [line for line in new if ": unknown " in line], f"{block.place}: {block.text}"


def smallest(get_config):
    """tiny's config, so small that it may be run."""

    def small(variant: str = ""):
        config = get_config(variant)
        config.stages.sft.update(batch=4, microbatches=1)
        return config

    return small
