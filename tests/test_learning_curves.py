"""The picture of a run: stages on one axis of time, reward, length and KL below accuracy."""

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from configs import base
from grpo.reporting.curve import Panel, Series, Span, panels_svg
from grpo.reporting.learning_curves import learning_curves, parts_of
from grpo.reporting.svg import HEIGHT

SVG = "{http://www.w3.org/2000/svg}"
PIPELINE = ("sft", "rl", "check", "more", "side")


def config():
    stages = {
        "sft": base.sft().to_dict(),
        "rl": base.grpo().to_dict(),
        "check": base.evaluate().to_dict(),
        "more": base.sft().to_dict(),
        "side": base.sft().to_dict() | {"start": "sft"},
    }
    return {"pipeline": PIPELINE, "stages": stages, "evaluation": {"split": "validation"}}


def journals(measured=("sft", "rl", "more", "side")):
    """Two updates of each stage; the second ends after 10, 20, 30 and 40 seconds."""
    rows, timing = [], []
    for name, seconds in (("sft", 10.0), ("rl", 20.0), ("more", 30.0), ("side", 40.0)):
        for step, at in ((1, seconds / 2), (2, seconds)):
            where = {"stage": name, "step": step, "iteration": step}
            more = {"reward/mean": 0.5, "length/mean": 9.0, "kl": 0.01} if name == "rl" else {}
            rows.append({**where, "loss": 1.0, **more})
            timing.append({**where, "seconds": at})
            if name in measured:
                ends = {"": 0.5, "/low": 0.4, "/high": 0.6}
                rows.append({**where, **{f"eval/accuracy/strict{e}": x for e, x in ends.items()}})
    return rows, timing


def parsed(svg) -> Any:
    return ET.fromstring(svg.encode())


def lines(root):
    return [p.get("d") for p in root.iter(f"{SVG}path") if p.get("class") == "line"]


def spans(root):
    return [r for r in root.iter(f"{SVG}rect") if r.get("class") == "span"]


def words(root):
    return [t.text for t in root.iter(f"{SVG}text")]


def test_a_stage_begins_where_the_one_ends_that_it_goes_on_from():
    """`more` goes on from rl, the evaluation between them notwithstanding; `side` from sft."""
    found = {part.name: (part.begin, part.end) for part in parts_of(config(), *journals())}
    assert found == {"sft": (0, 10), "rl": (10, 30), "more": (30, 60), "side": (10, 50)}
    rows, timing = journals()
    rows = [row for row in rows if row["stage"] != "rl"]  # its time is known all the same
    found = {part.name: part.begin for part in parts_of(config(), rows, timing)}
    assert found == {"sft": 0, "more": 30, "side": 10}


def test_the_evaluation_before_the_first_update_stands_where_the_stage_begins():
    rows, timing = journals()
    rows.append({"stage": "rl", "step": 0, "iteration": 0, "eval/accuracy/strict": 0.1})
    part = next(part for part in parts_of(config(), rows, timing) if part.name == "rl")
    assert part.at == {0: 10.0, 1: 20.0, 2: 30.0}
    assert len(lines(parsed(learning_curves(config(), rows, timing)))) == 4 + 3


def test_reward_length_and_kl_stand_below():
    root = parsed(learning_curves(config(), *journals()))
    said = words(root)
    for what in ("mean reward", "tokens of a completion", "KL to the reference"):
        assert any(text.startswith(what) for text in said), what
    assert "seconds of training" in said and len(lines(root)) == 4 + 3 and spans(root) == []
    assert {"sft", "rl", "more", "side"} <= set(said)
    assert float(root.get("height")) > HEIGHT
    heights = [float(re.findall(r"[\d.]+", d)[1]) for d in lines(root)]
    assert heights[3] < heights[4] < heights[5] < heights[6] < float(root.get("height"))


def test_training_that_is_not_measured_is_a_span():
    root = parsed(learning_curves(config(), *journals(measured=("rl",))))
    named = [text for text in words(root) if text in PIPELINE]
    assert sorted(named) == ["more", "rl", "sft", "side"]
    assert len(spans(root)) == 3 * 4  # in each of the four panels
    assert len(lines(root)) == 1 + 3
    first = spans(root)[0]
    begin = float(re.findall(r"[\d.]+", lines(root)[0])[0])
    # sft is 0 to 10; the line of rl begins at 10 + 10, as far again.
    left, wide = float(first.get("x")), float(first.get("width"))
    assert begin == pytest.approx(left + 2 * wide, abs=0.2)


def test_long_runs_are_in_minutes():
    rows, timing = journals()
    timing = [{**row, "seconds": row["seconds"] * 60} for row in timing]
    assert "minutes of training" in words(parsed(learning_curves(config(), rows, timing)))


def test_without_a_measured_accuracy_there_is_no_picture():
    assert learning_curves(config(), *journals(measured=())) == ""
    assert learning_curves(config(), [], []) == ""


def test_an_empty_panel_is_left_out_and_bytes_are_equal():
    one = Series("a", [0, 1], [0, 1])

    def draw():
        panels = [Panel([one], "first"), Panel([Series("b", [], [])], "none"), Panel([one], "last")]
        return panels_svg(panels, title="t", x_label="x", spans=[Span("<s>", 0, 0.5)])

    assert draw() == draw()
    assert "none" not in words(parsed(draw())) and "<s>" in words(parsed(draw()))
    with pytest.raises(ValueError, match="no series has a point"):
        panels_svg([Panel([], "first"), Panel([one], "x")], title="t", x_label="x")
