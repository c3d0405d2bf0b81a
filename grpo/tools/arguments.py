"""The command line: what is wrong with it is said in one line, with exit code 2."""

import difflib
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

EXAMPLE = "--config=configs/tiny.py"
SPACE = re.compile(r"[^\w.,=+-]+")


class OrNone(flags.ArgumentParser):
    """What another parser reads, or None: fields that may be out of play."""

    def __init__(self, parser: flags.ArgumentParser):
        self._parser = parser

    def parse(self, argument: Any) -> Any:
        """The value of a text."""
        return None if argument in (None, "None") else self._parser.parse(argument)

    def flag_type(self) -> str:
        """Its name in --help."""
        return f"{self._parser.flag_type()} or None"


for kind, parser in (
    (int, flags.IntegerParser()),
    (float, flags.FloatParser()),
    (str, flags.ArgumentParser()),
):
    config_flags.register_flag_parser_for_type(kind, OrNone(parser))


def parse(argv: list[str]) -> list[str]:
    """Reads the flags of a command line, or ends the program."""
    words = [word.lstrip("-") for word in argv[1:] if word.startswith("-")]
    given = {name: value for name, _, value in (word.partition("=") for word in words)}
    if "config" not in given and not {"help", "helpfull", "helpshort", "h"} & given.keys():
        end(f"--config is missing: name an experiment, such as {EXAMPLE}")
    file = pathlib.Path(given.get("config", "").partition(":")[0])
    if "config" in given and not file.is_file():
        near = (
            nearest(str(file), map(str, file.parent.glob("*.py"))) if file.parent.is_dir() else ""
        )
        end(f"--config={given['config']}: no file {file}{near}")
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:  # of absl, ml_collections, and config files, which may do anything
        end(explain(error, given))
    if len(rest) > 1:
        end(f"{rest[1]!r}: every argument is a flag with =, such as {EXAMPLE}")
    return rest


def explain(error: Exception, given: Iterable[str]) -> str:
    """The line that says what was wrong."""
    known = [flag for flag in flags.FLAGS if "." not in flag]
    for name in given:
        if name.partition(".")[0].removeprefix("no") not in known:
            return f"--{name}: unknown flag{nearest(name.partition('.')[0], known)}"
    if isinstance(error, AttributeError | KeyError) and (field := re.search(r"\w+", str(error))):
        flag = next((name for name in given if field[0] in name.split(".")), "config")
        close = re.search(r'mean "(\w+)"', str(error))
        hint = f"; did you mean {close[1]}?" if close else ""
        return f"--{flag}: the config has no field {field[0]!r} there{hint}"
    # Of a traceback inside of the message only the last line says what happened.
    return str(error).strip().splitlines()[-1].strip()


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what looks most like a name."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def end(reason: str) -> NoReturn:
    """Ends the program with a line."""
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


def run_name(argv: list[str]) -> str:
    """A directory's name for what a command line asks for: the config and its overrides."""
    parts = []
    for word in argv[1:]:
        name, _, value = word.lstrip("-").partition("=")
        if name == "config":
            path, _, variant = value.partition(":")
            parts.insert(0, pathlib.Path(path).stem + (f"-{variant}" if variant else ""))
        elif name == "evaluate":
            parts.append("-".join(["evaluate", *pathlib.Path(value).parts[-3:]]))
        elif name.startswith("config."):
            parts.append(f"{name.removeprefix('config.')}={value}")
    return SPACE.sub("_", ",".join(parts))[:200]
