"""What the reward models of a run know, as a table of its summary."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from grpo.reporting.progress import table

KINDS = "accuracy/"


def reward_models(config: Mapping[str, Any], workdir: pathlib.Path) -> str:
    """A line per reward model: held-out pairs of each kind, and the best of N; "" without one."""
    found = {
        name: json.loads((workdir / "rewards" / f"{name}.json").read_text("utf-8"))
        for name in config["pipeline"]
        if config["stages"][name]["kind"] == "reward_model"
    }
    if not found:
        return ""
    counted = [name for measures in found.values() for name in measures if name.endswith("/count")]
    shares = dict.fromkeys(name.removesuffix("/count") for name in counted)
    kinds = [name for name in shares if name.startswith(KINDS)]
    header = ["reward model", "pairs right", *(kind.removeprefix(KINDS) for kind in kinds),
              "best of N", "any of N", "N"]  # fmt: skip
    lines = []
    for name, measures in found.items():
        right, *of_kinds, best = (
            interval(measures, share) for share in ("accuracy", *kinds, "best of N")
        )
        any_ = f"{100 * measures['any of N']:.1f} %" if "any of N" in measures else ""
        lines.append([name, right, *of_kinds, best, any_, str(measures.get("N", ""))])
    return "## reward models\n\nOf prompts that were held out; 95 % intervals.\n\n" + table(
        header, lines
    )


def interval(measures: Mapping[str, float], name: str) -> str:
    """A share in percent, with its interval; "" if it was not measured."""
    if name not in measures:
        return ""
    value, low, high = (100 * measures[f"{name}{end}"] for end in ("", "/low", "/high"))
    return f"{value:.1f} % ({low:.0f} to {high:.0f})"
