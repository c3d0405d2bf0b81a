"""The pieces of a report: what is known of metrics, charts, which completions are shown, times."""

import json
import re

import numpy as np
import pytest

from grpo.reporting.curve import Series
from grpo.reporting.html.chart import SPANS, chart, thinned
from grpo.reporting.html.metric_table import about, read_tables
from grpo.reporting.html.rollouts import Part, rollouts, spread
from grpo.reporting.html.tables import phases_of
from tests.hostile_run import make_run
from tests.read_page import Read


def test_the_metrics_page_is_read():
    text = (
        "| name | formula | unit | healthy |\n|---|---|---|---|\n"
        "| `a`, `b/<f>` | 1 \\| 2 | share | up |\n\n| other | x |\n|---|---|\n| `c` | d |\n"
        "| name | counts |\n|---|---|\n| `pass@k` | y |\n| `<x>/<y>` | any |\n"
    )
    found = [(entry.name.pattern, *entry[1:]) for entry in read_tables(text)]
    assert found == [
        ("a", "1 | 2", "share", "up"), ("b/[^/]+", "1 | 2", "share", "up"),
    ]  # fmt: skip
    found = read_tables(text.replace("| name | counts", "\n| name | counts"))
    assert [entry.name.pattern for entry in found] == ["a", "b/[^/]+", "pass@[^/]+"]


KNOWN = {  # metric -> a word of its formula
    "loss": "kl_coef", "kl": "k3", "reward/mean": "weighted total",
    "reward/tag/mean": "reward function",
    "reward/judged/failed/off scale": "verdict", "eval/accuracy/strict": "answer block",
    "eval/accuracy/strict/low": "answer block", "sampled/accuracy/demo": "first number",
    "pass@8": "C(n - c, k)", "pass@8/high": "C(n - c, k)", "maj@4/strings": "spellings",
    "divergence/quarter_3": "quarter", "clip/low": "1 - low", "learning_rate": "schedule",
    "gradient/(no reward)/norm": "penalties", "gradient/conflict": "over the reward functions",
    "forecast/realised": "root of the mean square", "forecast/slope": "predicted_t²",
    "traces/wrong": "not kept", "traces/kept": "by now", "pairs/verbose": "pair of the kind",
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_of_a_metric(name):
    found = about(name)
    assert found and KNOWN[name] in found.formula


def test_shares_and_unknown_metrics():
    for name, unit in (("eval/truncated", "share"), ("eval/length/mean", "tokens"), ("kl", "nats")):
        found = about(name)
        assert found and found.unit.startswith(unit)
    assert about("no/such") is None and about("grader/trace") is None


def test_a_chart_has_its_points_its_band_and_its_words():
    one = Series("kl", [0, 10, 20], [0.5, 0.25, None], [0.4, 0.2, None], [0.6, 0.3, None])
    text = chart("kl", [one], about("kl"))
    read = Read(text)
    data = json.loads(read.islands[0][1])
    assert data["series"] == [{"name": "kl", "x": [0, 10, 20], "y": [0.5, 0.25, None],
                               "low": [0.4, 0.2, None], "high": [0.6, 0.3, None]}]  # fmt: skip
    assert data["frame"][4:] == [0, 10, 0.2, 0.6]  # the last point is none
    label = dict(read.values)["aria-label"]
    assert label == "Chart of kl. kl: first 0.5, last 0.25, lowest 0.25, highest 0.5, step 0 to 10."
    line, band = (re.search(rf'class="{kind} c0" d="([^"]*)"', text) for kind in ("line", "band"))
    assert line and band
    left, right, top, bottom = data["frame"][:4]
    points = [tuple(map(float, point.split())) for point in line[1][1:].split("L")]
    # 0.5 is three quarters up from 0.2 to 0.6, 0.25 an eighth.
    wanted = [(left, bottom - 0.75 * (bottom - top)), (right, bottom - 0.125 * (bottom - top))]
    np.testing.assert_allclose(points, wanted, atol=0.06)
    assert band[1].count("L") == 3 and band[1].endswith("Z")


def test_several_lines_have_a_legend_and_none_is_no_chart():
    assert chart("x", [Series("a", [0], [None])]) == ""
    text = chart("x", [Series("a", [0, 1], [0, 1]), Series("<b>", [0, 1], [1, 0])])
    assert '<li class="c1">&lt;b&gt;</li>' in text and 'data-last=""' in text


def test_long_series_keep_their_extremes():
    random = np.random.RandomState(0)
    y = random.standard_normal(20_000)
    y[1234], y[18_765] = 50.0, -50.0
    one = thinned(Series("y", list(range(20_000)), list(y)))
    assert len(one.x) <= 4 * (SPANS + 1)
    assert (one.x[0], one.x[-1]) == (0, 19_999)
    np.testing.assert_array_equal(y[np.asarray(one.x, int)], one.y)
    place, kept = (np.asarray(x) // (19_999 / SPANS) for x in (np.arange(20_000), one.x))
    for k in range(SPANS):  # of every span the least and the greatest
        own = np.asarray(one.y)[kept == k]
        assert (own.min(), own.max()) == (y[place == k].min(), y[place == k].max())


def test_which_iterations_are_shown():
    parts = [Part("s", i, 100 * i, 100 * i + 100) for i in range(50)]
    assert spread(parts, 5000, 1.0) == (parts, 5000)
    assert spread(parts, 2500, 0.5) == (parts, 2500)
    shown, most = spread(parts, 2000, 0.5)
    assert len(shown) == 40 and most == 50
    shown, most = spread(parts, 4000, 1.0)
    assert len(shown) == 40 and most == 100
    assert (shown[0], shown[-1]) == (parts[0], parts[-1])
    gaps = np.diff([part.iteration for part in shown])
    assert set(gaps) == {1, 2}
    shown, most = spread(parts, 100, 1.0)  # too little for any: some, cut
    assert len(shown) == 24 and most == 4


def test_a_large_journal_is_thinned_and_the_page_says_so(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", 160, lambda text: text)
    found = rollouts(run / "rollouts.jsonl", 6000)
    assert len(found["iterations"]) == 20 == found["all"]
    groups = [(len(part["groups"]), part["of"]) for part in found["iterations"]]
    assert groups == [(1, 1)] * 20  # eight completions each
    monkeypatch.setattr("grpo.reporting.html.rollouts.LEAST", 5)
    found = rollouts(run / "rollouts.jsonl", 3000)
    assert [part["iteration"] for part in found["iterations"]] == [0, 5, 0, 4, 9]


def test_a_stage_in_its_phases():
    assert phases_of([10.0]) == [10.0, 0.0, 0.0]
    assert phases_of([10.0, 11.0, 12.0, 16.0, 17.0]) == [10.0, 4.0, 3.0]


def test_of_a_large_iteration_the_first_groups_are_shown(tmp_path):
    """Ten groups of about 1 500 bytes, and room for 24 parts of 100."""
    run = make_run(tmp_path / "run", 1600, lambda text: text)
    found = rollouts(run / "rollouts.jsonl", 20 * 4000)
    groups = [(len(part["groups"]), part["of"]) for part in found["iterations"]]
    assert {of for _, of in groups} == {10} and {shown for shown, _ in groups} <= {2, 3, 4}
