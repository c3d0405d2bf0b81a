"""Additions as unified diffs, and how a test makes one in a copy of the tree.

Line numbers are not looked at: what a hunk takes away stands exactly once in its file.
"""

import pathlib
import re
import shutil

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent


def copy_with(diff: str, tree: pathlib.Path) -> None:
    """Copies what a run is made of, and makes an addition of this folder there."""
    for room in ("configs", "grpo", "models"):
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", tree)
    for name, hunks in changes(diff).items():
        file = tree / name
        for old, new in hunks:
            text = file.read_text() if file.exists() else ""
            assert text.count(old) == 1 if old else not text, f"{name} has not once: {old}"
            file.write_text(text.replace(old, new) if old else new)


def changes(diff: str) -> dict[str, list[tuple[str, str]]]:
    """Of every file of a diff: what is there before and after each hunk."""
    got = {}
    for part in re.split(r"^--- .*\n\+\+\+ b/", (HERE / diff).read_text(), flags=re.M)[1:]:
        name, *hunks = re.split(r"\n@@.*@@.*\n", part)
        got[name] = [(side(hunk, " -"), side(hunk, " +")) for hunk in hunks]
    return got


def side(hunk: str, signs: str) -> str:
    """The lines of a hunk that have one of these signs."""
    lines = [line for line in hunk.rstrip("\n").split("\n") if line[:1] in signs or not line]
    return "".join(f"{line[1:]}\n" for line in lines)
