"""What README and the pages of docs/ hold that can be true or false: links, names, commands, code.

Read by test_pages.py (links and references) and test_page_blocks.py (commands and code).
"""

import ast
import functools
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from configs.ablations import ABLATIONS

ROOT = pathlib.Path(__file__).parent.parent
WRITTEN = ("mutations.md",)  # from tables that test_house.py looks at
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in WRITTEN),
]
FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:python3?|pip|pytest) \S")
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A piece of a page that a reader would run."""

    page: str
    line: int
    language: str  # of a fence: sh, python, ...; or of a single line: command, assignment
    text: str

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text("utf-8")


def fences(page: str) -> list[Block]:
    """The fenced blocks of a page, in order; what is indented with its fence is not of the text."""
    text, got = text_of(page), []
    for found in FENCE.finditer(text):
        lines = [line.removeprefix(found[1]) for line in found[3].splitlines(keepends=True)]
        place = text.count("\n", 0, found.start()) + 2
        got.append(Block(page, place, found[2], "".join(lines)))
    return got


def prose(page: str) -> str:
    """A page without its fenced blocks, line by line."""
    return FENCE.sub(lambda found: "\n" * found[0].count("\n"), text_of(page))


def spans(page: str) -> list[Block]:
    """`What stands between backticks`, over the ends of lines as well."""
    got, line = [], 1
    for paragraph in re.split(r"(\n\s*\n)", prose(page)):
        for found in SPAN.finditer(paragraph):
            place = line + paragraph.count("\n", 0, found.start())
            got.append(Block(page, place, "span", " ".join(found[1].split())))
        line += paragraph.count("\n")
    return got


def blocks(page: str) -> list[Block]:
    """Everything that a page shows for being run, in order: fences, indented lines and spans."""
    got = fences(page)
    lines = prose(page).splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("    ") and COMMAND.match(line.strip()):
            got.append(Block(page, number, "command", line.strip()))
        if line.startswith("    --config."):
            got.append(Block(page, number, "overrides", line.strip()))
    for span in spans(page):
        if COMMAND.match(span.text):
            got.append(span._replace(language="command"))
        elif span.text.startswith("--config."):
            got.append(span._replace(language="overrides"))
        elif re.match(r"config\.[\w.]+ \+?= ", span.text):
            got.append(span._replace(language="assignment"))
    return sorted(got, key=lambda block: block.line)


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a block of shell, without settings of the environment."""
    for line in block.text.replace("\\\n", " ").splitlines():
        # A placeholder such as <python with the extra> is one word.
        words = shlex.split(re.sub(r"<([^>]*)>", "X", line), comments=True)
        while words:
            end = next((n for n, word in enumerate(words) if word in ("&&", "||", "|", ";")), None)
            command, words = (words, []) if end is None else (words[:end], words[end + 1 :])
            while command and re.match(r"[A-Z_]+=", command[0]):
                command = command[1:]
            if command:
                yield command


def names_in_files(page: str) -> list[tuple[str, str]]:
    """(file, name) of `path: name` and `path::name`, in spans and at the end of drawn lines."""
    texts = "\n".join(span.text for span in spans(page))
    named = re.findall(r"^([\w/.-]+\.py)(?:::|: )(\w+)(?:\[.*\])?$", texts, re.MULTILINE)
    drawn = re.findall(r"^    .*?([\w/.-]+\.py): (\w+)$", text_of(page), re.MULTILINE)
    return [*named, *drawn]


def anchors(page: str) -> set[str]:
    """The #anchors of a page's headings, as GitHub makes them."""
    got: dict[str, int] = {}
    for title in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        got[slug] = got.get(slug, -1) + 1
        if got[slug]:
            got[f"{slug}-{got[slug]}"] = 0
    return set(got)


@functools.cache
def defined(file: str) -> frozenset[str]:
    """The names that a file defines: functions, classes, constants, fields, keys of its dicts."""
    got = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            got.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            got.add(node.id)
        elif isinstance(node, ast.Dict):
            keys = (key.value for key in node.keys if isinstance(key, ast.Constant))
            got |= {key for key in keys if isinstance(key, str)}
    return frozenset(got)


@functools.cache
def files() -> frozenset[str]:
    """Every file of the tree that is source or text, by its path."""
    rooms = ("configs", "docs", "grpo", "models", "tests", "benchmarks", ".ci", ".github")
    found = [path for room in rooms for path in (ROOT / room).rglob("*") if path.is_file()]
    top = [path for path in ROOT.iterdir() if path.is_file()]
    return frozenset(
        path.relative_to(ROOT).as_posix() for path in (*found, *top) if path.suffix != ".pyc"
    )


@functools.cache
def words() -> frozenset[str]:
    """Every identifier that code, configs and settings of the tree have, texts in it included;
    names of ablations are made there.

    What tables of planted mistakes turn them into does not count.
    """
    kinds = (".py", ".toml", ".txt", ".diff")
    read = [file for file in files() if file.endswith(kinds) and "/mistakes/" not in file]
    texts = [(ROOT / file).read_text("utf-8") for file in read]
    found = re.findall(r"[A-Za-z_]\w*", "\n".join([*texts, text_of(".ci/run")]))
    return frozenset(found) | ABLATIONS.keys()
