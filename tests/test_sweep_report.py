"""The report of a sweep: cells and verdicts, drawn to scale, and no text that becomes markup."""

import math
import re
import shutil

import numpy as np
import pytest

from grpo.reporting.cells import Asked
from grpo.reporting.comparison_files import compared, write_comparison
from grpo.reporting.html.sweep_report import FOREST, forest, sweep_report
from tests.read_page import Read
from tests.test_comparison import listed, write_rows, write_run

STRICT = Asked("accuracy/strict", None, None)
HOSTILE = "<img src=x onerror=alert(1)>\u202e</script>"


def make(folder, *, good="good", reason="killed", state="failed"):
    """Two ablations on five seeds, of which one cell is not there."""
    rng = np.random.RandomState(0)
    rows = []
    for ablation, place, level in (("", "base", 0.3), (good, "good", 0.9)):
        for seed in range(5):
            directory = f"cells/{place}-{seed}"
            right = rng.uniform(size=50) < level
            write_run(folder / directory, right, curve=[(5, 0.1), (10, level)])
            rows.append(listed(ablation, seed, directory=directory))
            rows[-1] |= {"seconds": 60.0, "changed": {"stages.grpo.epochs": 4} if place == "good"
                         else {}}  # fmt: skip
    rows[-1] |= {"state": state, "reason": reason}
    write_rows(folder / "cells.jsonl", rows)
    return folder


def page_of(folder):
    """Its report."""
    found, cells = compared(folder, STRICT, None)
    return sweep_report(folder, found, cells), found


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make(tmp_path_factory.mktemp("sweep"))


def test_it_says_what_is_there_and_what_is_not(sweep):
    text, found = page_of(sweep)
    assert "9 <small>of 10</small>" in text and "9 done, 1 failed" in text
    assert 'class="state failed"' in text and "10:00" in text  # ten minutes
    good = next(row for row in found.rows if row.ablation == "good")
    assert good.p < 0.05 and "1 <small>shown</small>" in text and "good</code> better" in text
    assert good.difference is not None
    difference = f"{100 * good.difference.value:+.1f}"
    assert difference in text and "4 of 5" in text
    assert "<small>failed: killed</small>" in text
    assert "stages.grpo.epochs = 4" in text
    assert text.count('<figure class="chart">') == 1  # good, with the base beside it
    assert '<li class="c0">good (4 of 5)</li><li class="c1">base</li>' in text


def test_a_difference_that_is_not_shown_is_not_counted(tmp_path):
    """The same cells twice: nothing differs."""
    folder = make(tmp_path)
    for seed in range(5):
        shutil.rmtree(folder / f"cells/good-{seed}")
        right = np.random.RandomState(seed).uniform(size=50) < 0.3 + 0.02 * (seed % 2)
        write_run(folder / f"cells/good-{seed}", right)
    text, found = page_of(folder)
    assert all(math.isnan(row.p) or row.p > 0.05 for row in found.rows)
    assert "0 <small>shown</small>" in text


def test_a_difference_is_drawn_to_scale():
    """From -4 to 4 on an axis of FOREST pixels: 0 in the middle, 2 at three quarters."""
    svg = forest((2.0, 0.0, 4.0), 4.0)
    half = FOREST / 2
    assert f'cx="{2 + 1.5 * half:.1f}"' in svg
    assert f'd="M{2 + half:.1f} 8H{2 + FOREST:.1f}"' in svg
    assert f'd="M{2 + half} 0V16"' in svg  # zero
    assert 'class="line' not in forest((1.0, math.nan, math.nan), 4.0)


def test_cells_with_a_report_lead_to_it(sweep, tmp_path):
    folder = shutil.copytree(sweep, tmp_path / "copy")
    (folder / "cells" / "base-1" / "report.html").write_text("x")
    links = re.findall(r'href="(cells[^"]*)"', page_of(folder)[0])
    assert links == ["cells/base-1/report.html"]


def test_no_text_becomes_markup(tmp_path):
    plain = Read(page_of(make(tmp_path / "plain"))[0])
    hostile = Read(page_of(make(tmp_path / "hostile", good=HOSTILE, reason=HOSTILE))[0])
    assert hostile.elements == plain.elements
    assert all(name != "onerror" for name, _ in hostile.values)


def test_states(tmp_path):
    assert 'class="state running"' in page_of(make(tmp_path / "a", state="waiting"))[0]
    assert 'class="state finished"' in page_of(make(tmp_path / "b", state="done"))[0]


def test_a_file_that_is_the_same_is_left(tmp_path):
    folder = make(tmp_path)
    write_comparison(folder, *compared(folder, STRICT, None))
    names = ("table.md", "table.csv", "curves.svg", "report.html")
    before = [(folder / name).stat().st_mtime_ns for name in names]
    write_comparison(folder, *compared(folder, STRICT, None))
    assert [(folder / name).stat().st_mtime_ns for name in names] == before
    assert not list(folder.glob("*.tmp"))
