"""README and the pages of docs/ name what is there: files, names in them, fields, headings."""

import ast
import functools
import importlib
import posixpath
import re

import pytest

from configs import base
from tests.pages import (
    LINK,
    PAGES,
    ROOT,
    WRITTEN,
    anchors,
    defined,
    files,
    names_in_files,
    prose,
    spans,
    text_of,
    words,
)

# Files of the directory of a run or a sweep.
NOT_HERE = {"summary.md", "curve.svg", "table.md", "curves.svg"}
ROOMS = r"(?:configs|docs|grpo|models|tests|benchmarks|\.ci|\.github)"
PATH = re.compile(rf"(?<![\w/.:-])({ROOMS}/[\w./-]*\w/?)(?![\w<*/-])")
# Sections of a config; a dotted span that begins with one of them is a field.
SECTIONS = (
    "config", "stages", "data", "datasets", "model", "mesh", "evaluation", "checkpoint", "loss",
    "optimizer", "sampling", "lora", "curriculum", "log", "judges", "sft",
)  # fmt: skip
SUFFIX = re.compile(r"\.(?:jsonl?|py|md|txt|model|npz|svg|safetensors)$")  # of files
# Code spans that are words and stand in no source, with the reason.
FOREIGN = {
    "num_iterations": "Tunix's μ",
    "JAX_DISABLE_JIT": "a variable that JAX reads",
    "LD_PRELOAD": "a variable that the system reads",
    "KillWait": "a setting of Slurm",
    "Modelfile": "what Ollama calls its file",
}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    text = text_of(page)
    named = {name for name in PATH.findall(text) if "NAME" not in name}
    named = {name for name in named if not (ROOT / name).exists()}
    known = {posixpath.basename(file) for file in files()}
    for span in spans(page):
        if re.fullmatch(r"(?:grpo|models|configs|tests)(?:\.\w+)+", span.text):
            module = ROOT / span.text.replace(".", "/")
            there = module.is_dir() or module.with_suffix(".py").is_file()
            named |= set() if there else {span.text}
        if re.fullmatch(r"[\w-]+\.(?:py|md|toml|txt|cff|ipynb|yml|svg)", span.text):
            named |= {span.text} - known - NOT_HERE
    assert named == set(), f"{page} names what is not there"


@pytest.mark.parametrize("page", PAGES)
def test_every_name_that_a_page_puts_into_a_file_is_defined_there(page):
    """`path: name`, as in docs/grpo.md, beside its equation; `path::name`; file names alone too."""
    wrong = []
    for file, name in names_in_files(page):
        homes = [known for known in files() if known == file or known.endswith(f"/{file}")]
        if not homes or not any(name in defined(home) for home in homes):
            wrong.append(f"{file}: {name}")
    assert wrong == [], f"{page} names what is not defined there"


EQUATION = re.compile(r"^\|[^|]*\| (.+) \| `(.+)` \| `([\w/]+\.py): (\w+)` \|$", re.MULTILINE)


def test_every_equation_has_its_line_of_code():
    """The line stands in the function that the page names, word for word."""
    rows = EQUATION.findall(text_of("docs/grpo.md"))
    table = text_of("docs/grpo.md").partition("## Equation by equation")[2].partition("\n## ")[0]
    assert len(rows) == table.count("\n|") - 2 >= 19
    for equation, line, file, name in rows:
        body = bodies(file).get(name)
        assert body, f"{equation}: {file} has no function {name}"
        assert line in [own.strip() for own in body], f"{equation}: not in {file}: {name}\n{line}"


@functools.cache
def bodies(file: str) -> dict[str, list[str]]:
    """The lines of every function of a file."""
    source = text_of(file)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    lines = source.splitlines()
    return {node.name: lines[node.lineno - 1 : node.end_lineno] for node in nodes}


@pytest.mark.parametrize("page", PAGES)
def test_every_variant_that_a_page_names_can_be_had(page):
    got = set(re.findall(r"configs/(\w+)\.py:([\w,]+)\b", text_of(page)))
    for file, variant in sorted(got - {("NAME", "VARIANT")}):
        importlib.import_module(f"configs.{file}").get_config(variant)


@pytest.mark.parametrize("page", PAGES)
def test_every_word_of_code_is_one_of_the_code(page):
    """A function, a field, a metric that was renamed stands nowhere any more."""
    wrong = {
        f"{span.place}: {span.text}"
        for span in spans(page)
        if re.fullmatch(r"[A-Za-z_]\w+", span.text)
        and not {span.text, f"test_{span.text}"} & words()
        and span.text not in FOREIGN
    }
    assert wrong == set()


def paths_of(tree, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The path of every section and field of a config."""
    got = set()
    for key, value in tree.items():
        here = (*prefix, key)
        got.add(here)
        if hasattr(value, "items"):
            got |= paths_of(value, here)
    return got


@functools.cache
def fields() -> set[tuple[str, ...]]:
    """Every field that a config can have; "*" is a name of an experiment's own."""
    got = paths_of(base.base())
    for kind in ("sft", "traces", "pairs", "preference", "reward_model", "distill", "grpo",
                 "evaluate", "grade"):  # fmt: skip
        got |= {("stages", "*", *path) for path in paths_of(getattr(base, kind)())}
        got.add(("stages", "*"))
    entry = paths_of(base.reward(0.0, 0.0, 1.0))
    got |= {("stages", "*", "rewards", "*", *path) for path in [(), *entry]}
    got.add(("stages", "*", "rewards", "*", "options", "*"))
    for section, made in (
        ("datasets", base.dataset()), ("models", base.model()), ("judges", base.judge()),
        ("meshes", base.mesh(fsdp=1, tp=1, first=0)),
    ):  # fmt: skip
        got |= {(section, "*", *path) for path in [(), *paths_of(made)]}
    return got


def is_field(text: str) -> bool:
    """Whether a dotted name is a field of some config; without "config." the end of its path."""
    path = tuple(re.sub(r"<\w+>", "*", text.removeprefix("config.")).split("."))
    for known in fields():
        end = known if text.startswith("config.") else known[-len(path) :]
        of_a_name = end[0] != "*" or path[0] not in SECTIONS or path[0] == "sft"
        same = all("*" in pair or pair[0] == pair[1] for pair in zip(path, end, strict=False))
        if len(end) == len(path) and of_a_name and same:
            return True
    return False


def test_fields_are_known_by_their_ends():
    assert is_field("config.stages.grpo.loss.kl_coef") and is_field("loss.kl_coef")
    assert is_field("stages.<name>.split") and is_field("config.model.path")
    assert not is_field("config.stages.grpo.loss.klcoef") and not is_field("loss.kl_coeff")
    assert not is_field("config.modle.path") and not is_field("evaluation.iterations")


@pytest.mark.parametrize("page", PAGES)
def test_every_field_of_a_config_that_a_page_names_is_one(page):
    wrong = []
    for span in spans(page):
        found = re.match(r"(?:--)?([a-z]\w*(?:\.[\w<>]+)+)(=.*| [-+]?= .*)?$", span.text)
        name = found[1] if found and not SUFFIX.search(found[1]) else "config"
        if name.split(".")[0] in SECTIONS and name != "config" and not is_field(name):
            wrong.append(f"{span.place}: {name}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_between_pages_leads_somewhere(page):
    wrong = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue  # elsewhere
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
        if not (ROOT / target).exists():
            wrong.append(f"{link}: no file {target}")
        elif anchor and (not target.endswith(".md") or anchor not in anchors(target)):
            wrong.append(f"{link}: no heading of {target}")
    assert wrong == []


def test_anchors_are_as_github_makes_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.pages.ROOT", tmp_path)
    text = "# A `b` c: d!\n## A [b](c.md)\n\n```sh\n# no heading\n```\n## Über x_y\n## Über x_y\n"
    (tmp_path / "page.md").write_text(text, "utf-8")
    assert anchors("page.md") == {"a-b-c-d", "a-b", "über-x_y", "über-x_y-1"}


def test_the_site_has_every_page_in_its_order():
    """Its file says which come when; README and two guides stand beside docs/ there."""
    listed = re.findall(r": ([\w/]+\.md)$", text_of(".ci/mkdocs.yml"), re.MULTILINE)
    pages = {posixpath.basename(page) for page in PAGES if page.startswith("docs/")}
    assert len(set(listed)) == len(listed)
    assert set(listed) == pages | {*WRITTEN, "index.md", "contributing.md", "changelog.md"}
