"""The house rules, read from the source."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ROOMS = ("launch", "configs", "grpo", "models")
# From the ground up: a room imports from itself and from rooms that stand before it in this list.
ORDER = (
    "models", "grpo.algorithms", "grpo.data", "grpo.rewards", "grpo.training", "grpo.storage",
    "grpo.reporting", "grpo.rollout", "grpo.evaluation", "grpo.checks", "grpo.runs", "grpo.stages",
    "grpo.tools", "grpo.pipeline", "launch",
)  # fmt: skip
APART = {"models": (), "grpo.algorithms": ()}  # these two know nothing of each other
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
SOURCES = [
    *[p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))],
    *sorted(ROOT.glob("*.py")),
]


def module_of(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    rooms = (*ORDER, "configs")
    return next((room for room in rooms if module == room or module.startswith(f"{room}.")), None)


def may_import(room: str) -> tuple[str, ...]:
    """The rooms below a room; configs are data: they import nothing, and nothing imports them."""
    below = ORDER[: ORDER.index(room)] if room in ORDER else ()
    return (room, *APART.get(room, below))


def imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def broken(module: str, imported: set[str]) -> list[str]:
    """The imports that a module of a room must not have."""
    own = room_of(module)
    wrong = []
    for name in imported:
        room = room_of(name)
        if room is not None and room not in may_import(own):
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
        ("grpo.tools.preflight", "grpo.pipeline"),
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


def test_dependencies_are_the_chosen_ones():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"\ndependencies = \[(.*?)\]", text, re.DOTALL)[1]
    names = set(re.findall(r'"([a-z-]+)', listed))
    assert names == {
        "jax", "flax", "optax", "orbax-checkpoint", "chex", "einops", "sentencepiece",
        "huggingface-hub", "absl-py", "ml-collections", "safetensors",
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
