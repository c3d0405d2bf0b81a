"""Examples from files: JSON lines, CSV, Parquet; here, or in a dataset repository of the Hub.

A row that cannot be used is never guessed at: it is left out and reported as `file:row N: reason`,
N being the line that an editor shows (the first line of a CSV record that runs over several, the
record of a Parquet file). More than a share `max_bad` of such rows, or no example at all, is an
error: a run must not train on what is left of a broken file.

A path that does not exist is looked for on the Hub if it has the form owner/name/file.jsonl, or
owner/name@revision/file.jsonl.
"""

import csv
import functools
import io
import json
import os
import pathlib
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import huggingface_hub

from grpo.data.examples import (
    REQUIRED,
    DataError,
    Example,
    check_columns,
    from_row,
    question_key,
)
from grpo.data.parquet import read_parquet
from models.checkpoints.hub import remedy

Row = tuple[int, dict[str, Any] | str]  # its number, and what it holds or why it is bad
OPTIONAL = {"id", "reasoning", "checkpoints", "level", "domain", "context", "pass_rate"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
NOT_UTF8 = "not UTF-8"


def load(
    path: str | pathlib.Path,
    convert: Callable[[dict[str, Any]], Example],
    max_bad: float,
    *,
    key: Callable[[Example], Hashable] = question_key,
) -> tuple[list[Example], dict[str, Any]]:
    """What `convert` makes of each row, and a report: rows, duplicates (left out), bad.

    A row is a duplicate if it has the `key` of one before it.
    """
    examples: list[Example] = []
    bad: list[str] = []
    row_of_id: dict[str, int] = {}
    keys: set[Hashable] = set()
    rows, duplicates = read_rows(path), 0
    for number, row in rows:
        reason, example = (row, {}) if isinstance(row, str) else ("", {})
        if isinstance(row, dict):
            try:
                example = {"id": f"{pathlib.Path(path).stem}:{number}", **convert(row)}
            except DataError as error:
                reason = str(error)
        if not reason and example["id"] in row_of_id:
            reason = f"id {example['id']!r} is also that of row {row_of_id[example['id']]}"
        if reason:
            bad.append(f"{path}:row {number}: {reason}")
            continue
        row_of_id[example["id"]] = number
        if key(example) in keys:
            duplicates += 1
            continue
        keys.add(key(example))
        examples.append(example)
    shown = f"{len(bad)} of {len(rows)} rows are bad: {'; '.join(bad[:5])}"
    if not rows:
        raise DataError(f"{path}: has no rows")
    if not examples:
        raise DataError(f"{path}: no example is left; {shown}")
    if len(bad) > max_bad * len(rows):
        raise DataError(f"{path}: {shown}")
    return examples, {"rows": len(rows), "duplicates": duplicates, "bad": bad}


def load_examples(
    path: str | pathlib.Path, columns: dict[str, str], max_bad: float
) -> tuple[list[Example], dict[str, Any]]:
    """Examples whose parts stand in columns, as {"question": "Question", "answer": "Answer"}."""
    check_columns(columns, REQUIRED, OPTIONAL)
    return load(path, functools.partial(from_row, columns=columns), max_bad)


def read_rows(path: str | pathlib.Path) -> list[Row]:
    """Every row of a file, by the file's ending."""
    name, ending = str(path), pathlib.Path(path).suffix.lower()
    file = pathlib.Path(path).expanduser()
    if name and os.path.isdir(file):
        raise DataError(f"{name}: is a directory; name a file in it")
    if ending not in READERS:
        raise DataError(f"{name}: its ending is none of {', '.join(READERS)}")
    if not os.path.isfile(file):
        file = from_hub(name)
    try:
        return list(READERS[ending](name, file))
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from None


def from_hub(name: str) -> pathlib.Path:
    """The file of a dataset repository that `owner/name@revision/file` stands for."""
    parts = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w.-]+))?/(\w[^@]*)", name)
    if not parts or ".." in name:
        raise DataError(f"{name}: no such file, and not owner/name/file of a Hub dataset")
    repo, revision, file = parts.groups()
    try:
        return pathlib.Path(
            huggingface_hub.hf_hub_download(repo, file, repo_type="dataset", revision=revision)
        )
    except Exception as error:  # of the Hub, its HTTP client, transfer service and file system
        fix = remedy(error, page=f"datasets/{repo}", local="file")
    raise DataError(f"{name}: no such file here; as a file of the Hub dataset {repo}: {fix}")


def content(name: str, file: pathlib.Path) -> bytes:
    """A text file without the mark that some editors put first."""
    data = file.read_bytes()
    if data.startswith(UTF16):
        raise DataError(f"{name}:row 1: UTF-16, save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError(f"{name}: is empty")
    return data


def read_jsonl(name: str, file: pathlib.Path) -> Iterator[Row]:
    """An object per line; lines without anything are passed over."""
    data = content(name, file)
    if data.lstrip().startswith(b"["):
        raise DataError(f"{name}:row 1: a JSON array; write one object per line instead")
    # str.splitlines would also end a line inside a text that has U+2028 or U+0085 in it.
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, object_of(line.removesuffix(b"\r"), is_torn=number == len(lines))


def object_of(line: bytes, is_torn: bool) -> dict[str, Any] | str:
    """The object that a line holds, or why it holds none."""
    try:
        value = json.loads(line.decode(), parse_constant=no_number)
        if b"\\u" in line:  # the only way for half of a surrogate pair to come in
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        return f"{NOT_UTF8} (byte {error.start + 1} of the line)"
    except UnicodeEncodeError:
        return "has a lone surrogate, which is no character"
    except json.JSONDecodeError as error:
        if is_torn:  # the one line that nothing ends
            return "cut off: not JSON, and the file ends without a line break"
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep nesting
        return f"not JSON that can be read ({' '.join(str(error).split())[:60]})"
    if not isinstance(value, dict):
        return f"a {type(value).__name__}, where an object is expected"
    return value


def no_number(text: str) -> None:
    """NaN and Infinity, which Python would read, are no JSON."""
    raise ValueError(f"{text} is no number")


def read_csv(name: str, file: pathlib.Path) -> Iterator[Row]:
    """A record per row, by the names in the first; empty rows are passed over."""
    # Bytes that are no UTF-8 become lone surrogates, so that the row they stand in is known.
    text = content(name, file).decode(errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not header:
                raise DataError(f"{name}:row {number}: not CSV ({error})") from None
            # A quote may have swallowed any number of lines: each of them is a row that is lost.
            for line in range(number, reader.line_num + 1):
                yield line, f"not CSV ({error})"
            continue
        if not header:
            header = fields
            if len(set(header)) < len(header) or not all(header):
                raise DataError(f"{name}:row {number}: column names are empty or not unique")
        elif any(re.search("[\ud800-\udfff]", field) for field in fields):
            yield number, NOT_UTF8
        elif fields and len(fields) != len(header):
            yield number, f"has {len(fields)} fields, where the first row has {len(header)}"
        elif fields:
            yield number, dict(zip(header, fields, strict=True))


READERS = {".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}
