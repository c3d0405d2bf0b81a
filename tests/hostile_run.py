"""A run's directory whose every text is hostile, and the same one with plain texts in their place.

Both have the same shape, so the pages made of them have the same elements and attributes: whatever
else a hostile text brings into a page shows as a difference.
"""

import json
import pathlib
from collections.abc import Callable

import numpy as np

from configs import base
from grpo.storage.journal import Journal

PIECES = (
    "<script>alert(1)</script>", "</script>", "<img src=x onerror=alert(1)>", "<!--", "-->",
    "<![CDATA[", "]]>", '" onmouseover="alert(1)', "' autofocus onfocus='alert(1)",
    "<svg onload=alert(1)>", "<a href=javascript:alert(1)>x</a>", "<style>*{display:none}</style>",
    "<base href=//evil.test>", "<meta http-equiv=refresh content=0>", "<iframe srcdoc='<script>'>",
    "</title>", "</style>", "</pre>", "</textarea>", "&lt;b&gt;", "&#60;b&#62;", "${alert(1)}", "`",
    "\\u003c/script\\u003e", "{{7*7}}", "__proto__", "constructor", "\u2028", "\u2029", "\x00",
    "\x08", "\x1b[2J\x1b]0;t\x07", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff",
    "\ud800", "\udfff", "\uffff", "שלום", "مرحبا", "数学", "👩\u200d🚀", "\u0301\u0301", "\n\n",
    "\t", " " * 40, "W" * 120, "<" * 12, "0" * 60,
)  # fmt: skip
STAGE_COUNT, GROUP = 2, 8


def make_run(workdir: pathlib.Path, completions: int, of: Callable[[str], str]) -> pathlib.Path:
    """A failed run with so many completions; `of` turns a plain text into what is written."""
    config = base.base().to_dict() | {"pipeline": [], "datasets": {of("data"): {"train": of("a")}}}
    stages = [of(f"s{i}") for i in range(STAGE_COUNT)]
    for stage in stages:
        config["stages"][stage] = base.grpo().to_dict() | {"kind": of("kind")}
    config["stages"]["check"] = base.evaluate().to_dict()
    config["pipeline"] = [*stages, "check"]
    workdir.mkdir(parents=True)
    (workdir / "evaluations").mkdir()

    def put(name: str, value: object) -> None:
        (workdir / name).write_text(json.dumps(value), "ascii")

    put("config.json", config)
    put("data.json", {of("data"): {of("split"): of("value")}})
    (workdir / "FAILED").write_bytes(of("an error").encode("utf-8", "surrogatepass"))
    Journal(workdir / "environment.jsonl").write({"processor": of("p"), of("setting"): of("x")})
    metrics, timing = Journal(workdir / "metrics.jsonl"), Journal(workdir / "timing.jsonl")
    rollouts = Journal(workdir / "rollouts.jsonl")
    names = [of(f"m{i}") for i in range(6)]
    for stage in stages:
        for step in range(1, 6):
            where = {"stage": stage, "step": step, "iteration": step}
            metrics.write({**where, **{name: i + step for i, name in enumerate(names)}})
            timing.write({**where, "seconds": step * 2.0})
    each = completions // STAGE_COUNT
    lines = []
    for stage in stages:
        for i in range(each):
            lines.append({
                "stage": stage, "step": 0, "iteration": i // (each // 10), "round": 0,
                "id": of("id"), "group": i // GROUP, "prompt": of("prompt"), "gold": of("gold"),
                "completion": of("completion"), "reward": {of("reward"): 0.5}, "total": i % 3 / 2,
                "advantage": 0.5 - i % 2, "tokens": 7, "finish": of("stop"),
            })  # fmt: skip
    rollouts.path.write_text("".join(json.dumps(line) + "\n" for line in lines), "ascii")
    policies = [of("p1"), of("p2")]
    found = {"accuracy/strict": 0.5, "accuracy/strict/low": 0.4, "accuracy/strict/high": 0.6}
    put("evaluations/check.json", dict.fromkeys(policies, found))
    answered = Journal(workdir / "evaluations" / "check.jsonl")
    for policy in policies:
        for problem in range(3):
            answered.write({
                "policy": policy, "id": problem, "sample": 0, "question": of("question"),
                "gold": of("gold"), "completion": of("completion"), "right": {"strict": True},
            })  # fmt: skip
    return workdir


def hostile_run(workdir: pathlib.Path, completions: int, seed: int) -> pathlib.Path:
    """Every text hostile; names keep their plain beginning, so that they differ as these do."""
    random = np.random.RandomState([seed, 0])
    drawn = iter(random.randint(len(PIECES), size=(20 * completions, 3)).tolist())
    return make_run(
        workdir, completions, lambda plain: plain + "".join(PIECES[i] for i in next(drawn))
    )
