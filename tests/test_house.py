"""The house rules, read from the source."""

import ast
import pathlib
import re

import pytest

from tests.house import ORDER, PAGE, SOURCES, imports, may_import, module_of, room_of, with_table
from tests.mutations import MISTAKES

ROOT = pathlib.Path(__file__).parent.parent
BANNED = (
    "flax.nnx",
    "jax._src",
    "jax.experimental.pjit",
    "pickle",
    "torch",
    "transformers",
    "tunix",
)
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}


def broken(module: str, imported: set[str]) -> list[str]:
    """The imports that a module of a room must not have."""
    own = room_of(module)
    wrong = []
    for name in imported:
        room = room_of(name)
        if room is not None and own is not None and room not in may_import(own):
            wrong.append(name)
        if room == own == "grpo.stages" and name.split(".")[2:3] != module.split(".")[2:3]:
            wrong.append(name)
        if name.startswith(BANNED) or (name.split(".")[0] == "flax" and own != "models"):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_one_way(path):
    assert broken(module_of(path), imports(path)) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("models.gemma", "grpo.algorithms.losses"),
        ("grpo.algorithms.losses", "models.gemma"),
        ("grpo.stages.sft", "grpo.stages.grpo"),
        ("grpo.rewards.format", "grpo.training.train_step"),
        ("grpo.stages.grpo", "configs.base"),
        ("configs.tiny", "grpo.stages"),
        ("grpo.pipeline", "grpo.tools.preflight"),
        ("grpo.rollout.generate", "grpo.evaluation.metrics"),
        ("grpo.training.train_step", "flax"),
        ("models.layers", "flax.nnx"),
        ("models.layers", "torch"),
    ],
)
def test_the_rule_itself_can_fail(module, imported):
    assert broken(module, {imported}) == [imported]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_nothing_from_outside_is_run(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS, f"{path}:{node.lineno}"
        if isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
            assert not getattr(node.value, "value", False), f"{path}:{node.value.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_every_module_class_and_function_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), path
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
        assert not public or ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"


def test_every_file_is_in_a_room():
    assert {path for path in SOURCES if room_of(module_of(path)) is None} <= {
        ROOT / "grpo" / "__init__.py"
    }


def test_the_page_on_the_house_is_as_the_imports_are():
    assert with_table(PAGE.read_text()) == PAGE.read_text(), "python -m tests.house --write"
    assert len(ORDER) == len(set(ORDER))


LONGEST = 60  # lines of a function of a stage, its signature and docstring among them


@pytest.mark.parametrize("path", sorted((ROOT / "grpo" / "stages").glob("*.py")), ids=module_of)
def test_a_function_of_a_stage_fits_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= LONGEST, f"{path.name}: {node.name} has {lines} lines"


def test_training_holds_what_an_update_is_made_of():
    names = {path.stem for path in SOURCES if room_of(module_of(path)) == "grpo.training"}
    losses = {"logprobs", "reward_losses", "distill_losses", "choices"}
    assert names == {"__init__", "batches", "optimizer", "parts", "program", "train_step", *losses}


def test_every_planted_mistake_has_its_place():
    """Once in its file, or `python -m tests.mutations` could not plant it."""
    for mistake in MISTAKES:
        source = (ROOT / mistake.file).read_text()
        assert source.count(mistake.old) == 1, f"{mistake.file}: {mistake.what}"
        file, _, name = mistake.test.partition("::")
        tests = (ROOT / file).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in tests, mistake.test


def test_dependencies_are_the_chosen_ones():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"\ndependencies = \[(.*?)\]", text, re.DOTALL)
    assert listed
    names = set(re.findall(r'"([a-z-]+)', listed[1]))
    assert names == {
        "jax", "flax", "optax", "orbax-checkpoint", "chex", "einops", "sentencepiece",
        "huggingface-hub", "httpx", "absl-py", "ml-collections", "safetensors",
    }  # fmt: skip


def test_every_fixture_has_its_script():
    for fixture in (ROOT / "tests" / "references").glob("*.npz"):
        assert fixture.with_suffix(".py").is_file(), fixture


def test_every_trap_names_tests_that_exist():
    text = (ROOT / "docs" / "traps.md").read_text()
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [*range(1, 58)]
    for file, name in re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text):
        source = (ROOT / "tests" / file).read_text()
        assert not name or f"def {name}(" in source, f"{file}::{name}"
