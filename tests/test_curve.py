"""Charts, read back from their SVG: ticks, gaps, colours, names that stay apart, hostile texts."""

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from grpo.reporting.axis import apart, axis
from grpo.reporting.curve import BOTTOM, MOST_MARKERS, TOP, Series, curve_svg
from grpo.reporting.svg import HEIGHT, WIDTH

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series, percent=False, title="title"):
    return parsed(curve_svg(series, title=title, x_label="step", y_label="reward", percent=percent))


def parsed(svg) -> Any:
    return ET.fromstring(svg.encode())


def paths(root, kind):
    return [p.get("d", "") for p in root.iter(f"{SVG}path") if p.get("class") == kind]


def texts(root, **attributes):
    found = root.iter(f"{SVG}text")
    return [t for t in found if all(t.get(k) == v for k, v in attributes.items())]


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ((0, 1), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((0.03, 0.62), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]),
        ((0, 0.8), ["0.0", "0.2", "0.4", "0.6", "0.8"]),
        ((-3, 17), ["-5", "0", "5", "10", "15", "20"]),
        ((0, 120), ["0", "20", "40", "60", "80", "100", "120"]),
        ((0, 9000), ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]),
        ((2.31, 2.34), ["2.310", "2.315", "2.320", "2.325", "2.330", "2.335", "2.340"]),
        ((0, 1e-5), ["0", "2e-06", "4e-06", "6e-06", "8e-06", "1.0e-05"]),
        ((0, 3e9), ["0", "5e+08", "1.0e+09", "1.5e+09", "2.0e+09", "2.5e+09", "3.0e+09"]),
        ((5, 5), ["2", "3", "4", "5", "6", "7", "8"]),
        ((0, 0), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        ((1e-320, 1e-320), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_of_a_closed_axis(numbers, labels):
    found = axis(numbers, 6, is_open=False)
    assert found.labels == labels
    assert (found.low, found.high) == (found.ticks[0], found.ticks[-1])
    assert found.low <= min(numbers) <= max(numbers) <= found.high


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ((0, 125), ["0", "20", "40", "60", "80", "100", "120"]),
        ((37, 60), ["40", "45", "50", "55", "60"]),
        ((0, 3), ["0", "1", "2", "3"]),  # no half steps
        ((0, 1.5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2", "1.4"]),
        ((7, 8), ["7", "8"]),
    ],
)
def test_ticks_of_an_open_axis(numbers, labels):
    found = axis(numbers, 8, is_open=True)
    assert found.labels == labels
    assert (found.low, found.high) == numbers


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ((0, 1), ["0%", "20%", "40%", "60%", "80%", "100%"]),
        ((0.41, 0.43), ["41.0%", "41.5%", "42.0%", "42.5%", "43.0%"]),
        ((1, 1), ["50%", "60%", "70%", "80%", "90%", "100%"]),
        ((0, 0), ["0%", "20%", "40%", "60%", "80%", "100%"]),
        ((-0.5, 1.5), ["-50%", "0%", "50%", "100%", "150%"]),
    ],
)
def test_ticks_in_percent(numbers, labels):
    assert axis(numbers, 6, is_open=False, percent=True).labels == labels


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 0.7, 1, 33.3, 1e6, 1e200])
def test_any_range_has_a_few_round_ticks(scale):
    rng = np.random.RandomState(0)
    for low, high in np.sort(rng.normal(size=(200, 2)) * scale):
        found = axis((low, high), 6, is_open=False)
        assert 3 <= len(found.ticks) <= 8
        assert len(set(found.labels)) == len(found.ticks)
        steps = np.diff(found.ticks)
        mantissa = float(f"{steps[0]:.6e}".split("e")[0])
        assert mantissa in (1, 2, 5)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
        np.testing.assert_allclose([float(t.replace(",", "")) for t in found.labels], found.ticks)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([], []),
        ([50], [50]),
        ([50, 20], [50, 20]),
        ([50, 50], [45, 55]),
        ([50, 50, 50], [40, 50, 60]),
        ([53, 50], [56.5, 46.5]),
        ([50, 50, 57], [42 + 1 / 3, 52 + 1 / 3, 62 + 1 / 3]),
        ([0, 0, 99], [0, 10, 99]),
        ([100, 100, 100], [80, 90, 100]),
        ([-20, 120], [0, 100]),
        ([7] * 21, [5 * i for i in range(21)]),  # more than have room
    ],
)
def test_apart(wanted, places):
    assert apart(wanted, 10, 0, 100) == pytest.approx(places)


def test_each_series_is_one_line_at_its_place():
    root = drawn([Series("a", [0, 10], [0, 1]), Series("b", [0, 5, 10], [1, 0.5, 0])])
    first, second = paths(root, "line")
    numbers = [float(n) for n in re.findall(r"[\d.]+", first)]
    left, right = numbers[0], numbers[2]
    assert numbers[1::2] == [BOTTOM, TOP]
    middle = (left + right) / 2
    assert (
        second
        == f"M{left:.1f} {TOP}.0L{middle:.1f} {(TOP + BOTTOM) / 2:.1f}L{right:.1f} {BOTTOM}.0"
    )
    assert len(list(root.iter(f"{SVG}circle"))) == 5


def test_nothing_is_drawn_across_a_gap():
    y = [1.0, 2.0, math.nan, 3.0, math.inf, None, 4.0, 5.0, math.nan]
    root = drawn([Series("a", range(9), y, low=y, high=y)])
    (line,) = paths(root, "line")
    assert re.sub(r"[\d. ]+", "_", line) == "M_L_M_h_M_L_"
    (band,) = paths(root, "band")
    assert re.sub(r"[\d. ]+", "_", band) == "M_L_L_L_ZM_L_ZM_L_L_L_Z"
    assert "nan" not in ET.tostring(root, "unicode")


def test_a_band_goes_along_its_bounds():
    root = drawn([Series("a", [0, 1], [1, 1], low=[0, 1], high=[2, 2])])
    (band,) = paths(root, "band")
    left, right = re.findall(r"[\d.]+", band)[0:3:2]
    half = (TOP + BOTTOM) / 2
    assert band == (f"M{left} {BOTTOM}.0L{right} {half:.1f}L{right} {TOP}.0L{left} {TOP}.0Z")
    assert paths(drawn([Series("a", [0, 1], [1, 1], low=[0, 1])]), "band") == []


def test_single_runs_are_faint_without_a_name_and_coloured_as_their_mean():
    runs = [Series("a", [0, 1], [0, seed], faint=True) for seed in range(3)]
    root = drawn([Series("b", [0, 1], [1, 0]), *runs, Series("a", [0, 1], [0, 1])])
    lines = [p for p in root.iter(f"{SVG}path") if p.get("class") in ("faint", "line")]
    assert [(p.get("class"), p.get("stroke")) for p in lines] == [
        ("faint", "#D55E00"),
        ("faint", "#D55E00"),
        ("faint", "#D55E00"),
        ("line", "#0072B2"),
        ("line", "#D55E00"),
    ]
    assert [t.text for t in texts(root) if t.get("fill") in ("#0072B2", "#D55E00")] == ["b", "a"]
    assert len(list(root.iter(f"{SVG}circle"))) == 4


def test_names_do_not_overlap_and_stand_beside_the_ends():
    series = [Series(f"run {i}", [0, 1, 2], [0, i, 5 + i / 100]) for i in range(9)]
    root = drawn([*series, Series("high", [0, 2], [0, 8])])
    names = [t for t in texts(root) if t.text.startswith(("run", "high"))]
    heights = sorted(float(t.get("y")) for t in names)
    assert np.diff(heights).min() >= 16.9
    assert heights[0] == TOP + 4
    order = sorted(names, key=lambda t: -float(t.get("y")))
    assert [t.text for t in order] == [*(f"run {i}" for i in range(9)), "high"]
    lines = [line for line in root.iter(f"{SVG}line") if line.get("stroke-opacity")]
    assert [float(line.get("y2")) + 4 for line in lines] == [float(t.get("y")) for t in names]


def test_a_line_that_ends_early_or_in_a_gap_is_named_at_its_last_point():
    root = drawn([Series("a", [0, 1, 2], [0, 1, math.nan]), Series("b", [0, 2], [2, 2])])
    leads = [line for line in root.iter(f"{SVG}line") if line.get("stroke-opacity")]
    ends = [paths(root, "line")[i].split("L")[-1].split() for i in range(2)]
    assert [float(line.get("x1")) - 5 for line in leads] == [float(x) for x, _ in ends]
    assert float(ends[0][0]) < float(ends[1][0])


def test_one_point():
    root = drawn([Series("a", [3], [0.5]), Series("b", [3], [0.7], faint=True)])
    assert re.fullmatch(r"M[\d.]+ [\d.]+h0", paths(root, "line")[0])
    assert len(list(root.iter(f"{SVG}circle"))) == 1


def test_many_points_have_no_markers():
    for count in (MOST_MARKERS, MOST_MARKERS + 1):
        root = drawn([Series("a", range(count), range(count))])
        assert len(list(root.iter(f"{SVG}circle"))) == (count if count <= MOST_MARKERS else 0)


def test_numpy_arrays_and_percent():
    y = np.array([0.1, 0.9], np.float32)
    root = drawn([Series("a", np.arange(2), y, low=y - 0.1, high=y + 0.1)], percent=True)
    shown = [t.text for t in texts(root)]
    assert shown[:2] == ["title", "reward"]
    assert shown[2:8] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    assert shown[8:] == ["0", "1", "step", "a"]


@pytest.mark.parametrize(
    "text", ["<script>&\"'", "]]>&#0;", "a\x00\x1b[1mb\ud800\uffff\n", "-->", "数" * 99, ""]
)
def test_any_text_is_text(text):
    svg = curve_svg([Series(text, [0, 1], [0, 1])], title=text, x_label=text, y_label=text)
    root = parsed(svg)
    assert {e.tag.removeprefix(SVG) for e in root.iter()} == {
        "svg", "title", "rect", "text", "line", "path", "circle",
    }  # fmt: skip
    plain = drawn([Series("a", [0, 1], [0, 1])])
    assert len(list(root.iter())) == len(list(plain.iter()))


def test_all_of_it_is_on_the_card():
    series = [Series("a name that is far too long for the card", [0, 1], [-1e6, 1234567])]
    root = drawn(series, title="W" * 200)
    for element in root.iter(f"{SVG}text"):
        x, y, length = float(element.get("x")), float(element.get("y")), len(element.text) * 6.6
        length *= float(element.get("font-size", 12)) / 12
        start = x - {"end": length, "middle": length / 2}.get(element.get("text-anchor"), 0)
        assert 8 <= start <= start + length <= WIDTH - 8
        assert 8 <= y <= HEIGHT - 8
    assert root.find(f"{SVG}rect").get("fill") == "#ffffff"


def test_equal_series_have_equal_bytes():
    def chart():
        rng = np.random.RandomState(1)
        series = [Series(f"s{i}", range(30), rng.normal(size=30)) for i in range(3)]
        return curve_svg(series, title="t", x_label="x", y_label="y")

    assert chart() == chart()
    assert not re.search(r"\d\.\d\d", chart().replace("0.35", "").replace("0.15", ""))


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="title: no series has a point to draw"):
        drawn([Series("a", [0, 1], [math.nan, None]), Series("b", [], [])])
    with pytest.raises(ValueError, match="shorter"):
        drawn([Series("a", [0, 1], [1])])
