"""Rows of a Parquet file, read by pyarrow, which is an extra of this project."""

import importlib
import pathlib
from collections.abc import Iterator
from typing import Any

from grpo.data.examples import DataError


def read_parquet(name: str, file: pathlib.Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, row) of every row, counted from 1."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        fix = "pip install -e '.[parquet]'"
        raise DataError(f"{name}: Parquet files need pyarrow: {fix}") from None
    try:
        rows = parquet.read_table(str(file)).to_pylist()
    except Exception as error:  # pyarrow has many, and its texts run over several lines
        raise DataError(f"{name}: not a Parquet file ({type(error).__name__})") from None
    yield from enumerate(rows, start=1)
