"""Where GSM8K's own files lie: beside the project, in ../shared/data/gsm8k, if they do."""

import functools
import pathlib

import pytest

from grpo.data.gsm8k import COLUMNS, load_gsm8k


def real_path(part: str) -> pathlib.Path:
    """The file of a part; skips the test where it is absent."""
    root = pathlib.Path(__file__).resolve().parents[1]
    path = root.parent / "shared" / "data" / "gsm8k" / f"{part}.jsonl"
    if not path.is_file():
        pytest.skip("needs GSM8K at ../shared/data/gsm8k beside the project")
    return path


@functools.cache
def loaded(part: str, strip_commas: bool = True, calculator: str = "removed"):
    """(examples, report) of a part."""
    return load_gsm8k(real_path(part), COLUMNS, strip_commas, 0.0, calculator)
