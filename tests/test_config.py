"""The published sizes."""

import dataclasses

import jax
import pytest

from models.config import SIZES, layer_kinds
from models.gemma import param_shapes

COUNTS = {  # embedding, rest
    "gemma2_2b": (589_824_000, 2_024_517_888),
    "gemma2_9b": (917_504_000, 8_324_201_984),
    "gemma2_27b": (1_179_648_000, 26_047_480_320),
    "gemma3_270m": (167_772_160, 100_326_016),
    "gemma3_1b": (301_989_888, 697_896_064),
    "gemma3_4b": (671_088_640, 3_209_010_688),
    "gemma3_12b": (1_006_632_960, 10_759_155_456),
    "gemma3_27b": (1_409_286_144, 25_599_716_096),
}


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts(size):
    shapes = param_shapes(SIZES[size])
    embedding = shapes["embedder"]["table"].size
    rest = sum(leaf.size for leaf in jax.tree.leaves(shapes)) - embedding
    assert (embedding, rest) == COUNTS[size]


GLOBALS = {
    "gemma2_2b": range(1, 26, 2),
    "gemma2_9b": range(1, 42, 2),
    "gemma2_27b": range(1, 46, 2),
    "gemma3_270m": [5, 11, 17],
    "gemma3_1b": [5, 11, 17, 23],
    "gemma3_4b": range(5, 34, 6),
    "gemma3_12b": range(5, 48, 6),
    "gemma3_27b": range(5, 62, 6),
    "gemma3_tiny": [5],
}


@pytest.mark.parametrize("size", GLOBALS)
def test_global_layers(size):
    kinds = SIZES[size].kinds
    assert [i for i, kind in enumerate(kinds) if kind == "global"] == list(GLOBALS[size])


def test_pattern_is_cut_off_and_not_aligned_anew():
    assert layer_kinds(8, ("local", "local", "global")) == (
        "local", "local", "global", "local", "local", "global", "local", "local",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("family", "gemma4"),
        ("num_layers", 0),
        ("num_kv_heads", 3),
        ("head_dim", 255),
        ("window", -1),
        ("query_scalar", float("nan")),
        ("kinds", ("local",)),
        ("kinds", ("sideways",) * 26),
    ],
)
def test_impossible_sizes_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SIZES["gemma3_1b"], **{field: value})
