"""What surrounds the code: licence, citation, guides; what they name is there."""

import ast
import importlib
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
OURS = ("grpo", "models", "configs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GUIDES = [
    "CONTRIBUTING.md",
    "docs/debugging.md",
    *[str(path.relative_to(ROOT)) for path in sorted((ROOT / ".github").rglob("*.md"))],
]
NAMED = re.compile(
    r"`((?:\.ci|configs|docs|grpo|models|tests)/[\w./-]*|[\w-]+\.(?:md|toml|txt|cff|py))[`:]"
)
# Names without their folder: files beside the one just named, or of a run's directory.
ELSEWHERE = {"summary.md", "objective.py", "presets.py", "advantages.py", "ratios.py",
             "surrogates.py", "kl.py", "aggregation.py"}  # fmt: skip


def text_of(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


def test_the_licence_is_the_one_that_is_declared():
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    text = text_of("LICENSE")
    assert "Apache License\n" in text and "Version 2.0, January 2004" in text
    assert "Copyright 2026 The gemma-grpo authors" in text and "[yyyy]" not in text
    assert text.count("\n") == 202  # as the foundation publishes it
    assert not [line for line in PROJECT["classifiers"] if line.startswith("License ::")]


def test_the_citation_is_of_this_version():
    citation = dict(re.findall(r"^([a-z-]+): (\S.*)$", text_of("CITATION.cff"), re.MULTILINE))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert PROJECT["name"] in citation["title"]


@pytest.mark.parametrize("guide", GUIDES)
def test_every_file_that_a_guide_names_is_there(guide):
    text = text_of(guide)
    named = {name for name in NAMED.findall(text) if "<" not in name} - ELSEWHERE
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text)
    assert named or links or guide.startswith(".github")
    missing = [name for name in named if not (ROOT / name.rstrip("/")).exists()]
    folder = (ROOT / guide).parent
    missing += [link for link in links if not (folder / link).exists()]
    assert missing == []


def test_every_extra_that_is_told_of_exists():
    got = set()
    for file in ("README.md", "CONTRIBUTING.md", "grpo/data/parquet.py", ".pre-commit-config.yaml"):
        for extras in re.findall(r"\.\[([\w,]+)\]", text_of(file)):
            got |= set(extras.split(","))
    assert {"test", "parquet", "tpu", "cuda13"} <= got <= PROJECT["optional-dependencies"].keys()


def test_pre_commit_asks_what_the_gate_asks():
    """And downloads nothing."""
    hooks = text_of(".pre-commit-config.yaml")
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
    assert set(re.findall(r"language: (\S+)", hooks)) == {"system"}
    gate = text_of(".ci/run")
    for words in ("ruff check", "ruff format --check", "pyright"):
        assert f"entry: {words}" in hooks and words in gate


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda f: f.stem)
def test_a_benchmark_imports_what_is_there(file):
    """Read from its text: what it compares with need not be installed."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            module = importlib.import_module(str(node.module))
            for name in node.names:
                if not hasattr(module, name.name):  # a module of the package
                    importlib.import_module(f"{node.module}.{name.name}")
