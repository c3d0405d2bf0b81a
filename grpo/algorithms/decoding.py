"""How completions are decoded where nothing is learnt from them: settings with names.

    policy     the policy's own distribution: temperature 1, nothing cut off
    greedy     the likeliest token
    standard   temperature 0.7, top_k 50, top_p 0.95, and
    liberal    temperature 0.85, top_k 2000, top_p 1: as the Tunix GRPO demo evaluates
    judge      temperature 0, top_k 1, seed 42: as the judges of Kaggle's Tunix hackathon decode

What the four numbers do is said in distribution.py. Deviation: the demo's own greedy setting is a
temperature of 1e-4 with top_k 1, which draws the likeliest token too.

A config's section names a preset and has every field of it: None is what the preset has. A seed of
None is that of the run; under a temperature of 0 it changes nothing.
"""

from collections.abc import Mapping
from typing import Any

POLICY = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": None}
DECODINGS: dict[str, dict[str, Any]] = {
    "policy": POLICY,
    "greedy": {**POLICY, "temperature": 0.0},
    "standard": {**POLICY, "temperature": 0.7, "top_k": 50, "top_p": 0.95},
    "liberal": {**POLICY, "temperature": 0.85, "top_k": 2000},
    "judge": {**POLICY, "temperature": 0.0, "top_k": 1, "seed": 42},
}


def resolve_decoding(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section with what its preset says filled in; that of such a section is the same."""
    preset = DECODINGS[section["preset"]]
    own = {field: section[field] for field in preset if section[field] is not None}
    return {"preset": section["preset"], **preset, **own}


def sampling_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """What tokens are drawn from: the fields of a Sampling, of a section resolved or not."""
    resolved = resolve_decoding(section)
    return {field: resolved[field] for field in ("temperature", "top_k", "top_p", "min_p")}


def seed_of(section: Mapping[str, Any], seed: int) -> int:
    """The seed of a section, where it has none that of the run."""
    own = resolve_decoding(section)["seed"]
    return seed if own is None else own
