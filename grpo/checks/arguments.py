"""The command line: what is wrong with it is said in one line, with exit code 2."""

import argparse
import pathlib
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from grpo.data.nearest import nearest
from grpo.reporting.failure import without_secrets

EXAMPLE = "--config=configs/tiny.py"
NON_BOOLEAN = re.compile(r"\('Non-boolean argument.*\)")  # as absl says it
SPACE = re.compile(r"[^\w.,=+-]+")


class OrNone(flags.ArgumentParser):
    """What another parser reads, or None: fields that may be out of play."""

    def __init__(self, parser: flags.ArgumentParser, expected: str):
        self._parser = parser
        self._expected = expected

    def parse(self, argument: Any) -> Any:
        """The value of a text."""
        if argument in (None, "None"):
            return None
        try:
            return self._parser.parse(argument)
        except (ValueError, TypeError):
            raise ValueError(f"expected {self._expected}") from None

    def flag_type(self) -> str:
        """Its name in --help."""
        return f"{self._parser.flag_type()} or None"


for kind, parser, expected in (
    (bool, flags.BooleanParser(), "true or false"),
    (int, flags.IntegerParser(), "an integer"),
    (float, flags.FloatParser(), "a number"),
    (str, flags.ArgumentParser(), "a text"),
):
    config_flags.register_flag_parser_for_type(kind, OrNone(parser, expected))


def parse(argv: list[str]) -> list[str]:
    """Reads the flags of a command line, or ends the program."""
    words = [word.lstrip("-") for word in argv[1:] if word.startswith("-")]
    given = {name: value for name, _, value in (word.partition("=") for word in words)}
    if {"help", "helpfull", "helpshort", "h"} & given.keys():
        return flags.FLAGS(argv)
    if not given.get("config"):
        end(unknown(given) or f"--config is missing: name an experiment, as in {EXAMPLE}")
    file = pathlib.Path(given["config"].partition(":")[0])
    if not file.is_file():
        known = map(str, file.parent.glob("*.py")) if file.parent.is_dir() else ()
        end(f"--config={given['config']}: no file {file}{nearest(str(file), known)}")
    names = list(given)
    if early := [name for name in names[: names.index("config")] if name.startswith("config.")]:
        end(f"--{early[0]}: comes before what it changes: put --config={given['config']} first")
    try:
        rest = flags.FLAGS(argv)
        config = flags.FLAGS["config"].value
        if not hasattr(config, "to_dict"):
            raise TypeError(f"get_config() returns {config!r:.40}, not a ConfigDict")
    except Exception as error:  # of absl, ml_collections, and config files, which may do anything
        end(explain(error, given, file))
    if len(rest) > 1:
        end(f"{rest[1]!r}: every argument is a flag with =, such as {EXAMPLE}")
    return rest


def explain(error: Exception, given: Mapping[str, str], file: pathlib.Path) -> str:
    """The line that says what was wrong: with a flag, inside of the config file, or with it."""
    if wrong := unknown(given):
        return wrong
    if place := place_in(error, file):
        return f"--config={given['config']}: {place}"
    # Of a traceback inside of the message only the last line says what happened.
    said = str(error).strip().splitlines()[-1].strip()
    if isinstance(error, flags.IllegalFlagValueError) and said.startswith("flag --"):
        return NON_BOOLEAN.sub("expected true or false", said.removeprefix("flag "))
    if isinstance(error, AttributeError | KeyError) and "get_config" not in said:
        field = re.search(r"\w+", said)
        flag = next((name for name in given if field and field[0] in name.split(".")), "config")
        close = re.search(r'mean "(\w+)"', said)
        hint = f"; did you mean {close[1]}?" if close else ""
        return f"--{flag}: the config has no field {field[0] if field else ''!r} there{hint}"
    return said if " --" in said else f"--config={given['config']}: {said}"


def place_in(error: BaseException | None, file: pathlib.Path) -> str | None:
    """Where in a config file an error arose, and what it says; None if it did not."""
    while error is not None:
        frames = traceback.walk_tb(error.__traceback__)
        places = [(frame.f_code.co_filename, line) for frame, line in frames]
        if isinstance(error, SyntaxError):
            places.append((str(error.filename), error.lineno or 1))
        lines = [n for name, n in places if pathlib.Path(name).resolve() == file.resolve()]
        if lines:
            return f"line {lines[-1]}: {type(error).__name__}: {' '.join(str(error).split())}"
        error = error.__cause__ or error.__context__
    return None


def unknown(given: Iterable[str]) -> str | None:
    """The first flag that there is not."""
    known = [flag for flag in flags.FLAGS if "." not in flag]
    for name in given:
        section = name.partition(".")[0]
        if section.removeprefix("no") not in known:
            return f"--{name}: unknown flag{nearest(section, known)}"
    return None


def end(reason: str) -> NoReturn:
    """Ends the program with a line."""
    print(f"error: {without_secrets(reason, {})}", file=sys.stderr)
    sys.exit(2)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults are shown, and a description stands as it was written."""


def command_line(tool: str, description: str | None) -> argparse.ArgumentParser:
    """A tool of grpo/tools/ whose flags are yet to be added; its errors are lines as all others."""
    flags = argparse.ArgumentParser(
        prog=f"python -m grpo.tools.{tool}", allow_abbrev=False, description=description,
        formatter_class=Help,
    )  # fmt: skip
    flags.error = lambda message: end(message)
    return flags


def run_name(argv: list[str]) -> str:
    """A directory's name for what a command line asks for: the config and its overrides."""
    parts = []
    for word in argv[1:]:
        name, _, value = word.lstrip("-").partition("=")
        if name == "config":
            path, _, variant = value.partition(":")
            parts.insert(0, pathlib.Path(path).stem + (f"-{variant}" if variant else ""))
        elif name == "evaluate":
            parts.append("-".join(["evaluate", *pathlib.Path(value).parts[-4:]]))
        elif name == "on":
            parts.append(f"on-{pathlib.Path(value).name}")
        elif name.startswith("config."):
            parts.append(f"{name.removeprefix('config.')}={without_secrets(value, {})}")
    return SPACE.sub("_", ",".join(parts))[:200]
