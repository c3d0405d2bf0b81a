"""What FAILED says: the reason on one line, then the traceback, and nothing secret.

A traceback names files, functions and lines of source, never what the variables held. The text of
an exception may hold anything, though: an address with a password, a header with a token. So the
values of environment variables are replaced by their names, and what has the form of a password or
of a token by an ellipsis.
"""

import os
import pathlib
import re
import traceback
from collections.abc import Mapping

from grpo.reporting.text import printable

ROOT = pathlib.Path(__file__).parent.parent.parent  # whose files are named from there
# Shorter values ("1", "cpu", "False") are words of any traceback, and no secrets.
LENGTH = 8
SECRET_LENGTH = 4  # of variables that are named like secrets
SECRET_NAME = re.compile("TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
SECRET_TEXT = re.compile(
    r"(?<=://)[^/\s@]+(?=@)"  # the user and password of an address
    r"|(?i:(?<=bearer )|(?<=basic )|(?<=token=)|(?<=key=)|(?<=secret=)|(?<=password=))[^\s&'\"]+"
    r"|\b(?:hf_|sk-|gh[a-z]_|github_pat_|AKIA)[\w-]{12,}"
)


def reason_of(error: BaseException) -> str:
    """An exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def failure(error: BaseException, environ: Mapping[str, str]) -> str:
    """The text of FAILED, without the values of the environment variables `environ`."""
    lines = "".join(traceback.format_exception(error)).replace(f"{ROOT}{os.sep}", "").split("\n")
    text = "\n".join([reason_of(error), "", *lines])
    return "\n".join(map(printable, without_secrets(text, environ).split("\n")))


def without_own_secrets(text: str) -> str:
    """A line for a terminal: of this process's variables only those that are named like secrets."""
    named = {name: value for name, value in os.environ.items() if SECRET_NAME.search(name)}
    return without_secrets(text, named)


def is_one_line(error: BaseException) -> bool:
    """Whether an error says all that there is to say: this project's own, and the system's."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("grpo.", "models."))


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """A text with names for the values of environment variables, and ellipses for secrets."""
    for name, value in sorted(environ.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(value) >= (SECRET_LENGTH if SECRET_NAME.search(name) else LENGTH):
            text = text.replace(value, f"${name}")
    return SECRET_TEXT.sub("...", text)
