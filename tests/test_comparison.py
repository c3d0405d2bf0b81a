"""Ablations against their base: what is read, what is missing, and what the table says."""

import csv
import io
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from grpo.evaluation.evaluate import looks_of
from grpo.reporting.bands import Band, band_of, bands, bands_svg
from grpo.reporting.cells import (
    Asked,
    Cell,
    CellError,
    baseline_of,
    by_problem,
    read_cells,
    rows_of,
)
from grpo.reporting.comparison import BOTH, MORE_PROBLEMS, OTHERS, SEEDS, compare
from grpo.reporting.comparison_tables import COLUMNS, csv_text, markdown
from grpo.reporting.evaluations import last_policy
from grpo.tools.compare import comparison

ROOT = pathlib.Path(__file__).parent.parent
STRICT = Asked("accuracy/strict", None, None)
CONFIG = {
    "pipeline": ["sft", "grpo", "first", "shuffled", "last", "grades"],
    "stages": {
        "sft": {"kind": "sft"},
        "grpo": {"kind": "grpo"},
        "first": {"kind": "evaluate", "greedy": True},
        "shuffled": {"kind": "grpo"},  # is not measured by the last evaluation
        "last": {"kind": "evaluate", "greedy": True},
        "grades": {"kind": "grade"},
    },
}


def row_of(problem, right, *, policy="grpo", sample=0, tokens=5, finish="stop"):
    """A completion in the journal of an evaluation."""
    return {
        "policy": policy, "id": f"p{problem}", "sample": sample, "question": f"what is {problem}",
        "right": dict.fromkeys(("strict", "lenient", "demo", "partial"), bool(right)),
        "completion": "", "tokens": tokens, "finish": finish,
    }  # fmt: skip


def write_run(run, right, *, stage="last", curve=(), policies=("sft", "grpo", "more")):
    """A run whose policy grpo has these problems right; all others have none."""
    (run / "evaluations").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(CONFIG))
    results, rows = {}, []
    for policy in policies:
        yes = right if policy == "grpo" else np.zeros(len(right))
        results[policy] = {"accuracy/strict": float(np.mean(yes)), "pass@2": 0.25}
        rows += [row_of(n, one, policy=policy) for n, one in enumerate(yes)]
    (run / "evaluations" / f"{stage}.json").write_text(json.dumps(results))
    write_rows(run / "evaluations" / f"{stage}.jsonl", rows)
    evaluated = [{"stage": "grpo", "step": n, "eval/accuracy/strict": y} for n, y in curve]
    other = [{"stage": "sft", "step": 1, "eval/accuracy/strict": 0.9}]
    write_rows(run / "metrics.jsonl", [*other, {"stage": "grpo", "step": 1}, *evaluated])


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def listed(ablation, seed, *, directory=None, state="done", reason=None):
    """A row of cells.jsonl."""
    directory = directory or f"cells/{ablation or 'base'}-{seed}"
    return {"ablation": ablation, "seed": seed, "directory": directory, "state": state,
            "reason": reason}  # fmt: skip


@pytest.fixture
def sweep(tmp_path):
    """Base and two ablations on three seeds; one cell failed, one is not there."""
    rng = np.random.RandomState(0)
    for ablation, shift in (("base", 0.0), ("good", 0.6)):
        for seed in range(3):
            right = rng.uniform(size=20) < 0.3 + shift
            write_run(tmp_path / "cells" / f"{ablation}-{seed}", right, curve=[(5, 0.1 * seed)])
    write_rows(tmp_path / "cells.jsonl", [
        *(listed("", seed) for seed in range(3)),
        *(listed("good", seed) for seed in range(2)),
        listed("good", 2, state="failed", reason="killed: out of memory"),
        listed("gone", 0),
        listed("gone", 0, state="stopped"),  # the last row of a cell is the one that counts
    ])  # fmt: skip
    return tmp_path


def test_the_last_evaluation_of_the_last_grpo_stage_is_read(sweep):
    cells = read_cells(rows_of(sweep), sweep, STRICT)
    first = cells[0]
    assert (first.ablation, first.seed, first.policy, first.stage) == ("base", 0, "grpo", "last")
    assert first.value == pytest.approx(np.mean([*first.problems.values()]))
    assert len(first.problems) == 20 and ("p3", "what is 3") in first.problems
    other = read_cells(rows_of(sweep), sweep, STRICT._replace(policy="sft"))
    assert other[0].value == 0 and other[0].policy == "sft"


def test_what_is_not_there_says_why(sweep):
    cells = read_cells(rows_of(sweep), sweep, STRICT)
    assert [cell.reason for cell in cells if cell.value is None] == [
        "failed: killed: out of memory",
        "stopped",
    ]
    asked = STRICT._replace(policy="nobody")
    assert {cell.reason for cell in read_cells(rows_of(sweep), sweep, asked)[:5]} == {
        "last did not measure nobody: it has sft, grpo, more"
    }
    asked = STRICT._replace(stage="first")
    assert "first.json: No such file" in read_cells(rows_of(sweep), sweep, asked)[0].reason


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("last.json", "{", "cannot be read (JSONDecodeError)"),
        ("last.json", "[]", "last.json has no policy"),
        ("last.json", "{}", "last.json has no policy"),
        ("last.json", '{"grpo": {"accuracy/strict": NaN}}', "last has no accuracy/strict of grpo"),
        ("last.json", '{"grpo": {"accuracy/strict": 0.999}}', "last.jsonl says accuracy/strict="),
        ("last.jsonl", '{"policy": "grpo"}\n', "cannot be read (KeyError)"),
        ("last.jsonl", "nothing\n", "cannot be read (JournalError)"),
    ],
)
def test_a_run_that_cannot_be_read_is_missing(sweep, file, text, reason):
    (sweep / "cells" / "base-1" / "evaluations" / file).write_text(text)
    cells = read_cells(rows_of(sweep), sweep, STRICT)
    assert cells[1].value is None and reason in cells[1].reason
    assert cells[0].value is not None
    (row,) = [row for row in compare(cells, "base").rows if row.ablation == "good"]
    assert row.pairs == 1 and row.seeds == 2


def test_a_sweep_that_is_none(tmp_path):
    with pytest.raises(CellError, match="no directory of a sweep"):
        rows_of(tmp_path)
    (tmp_path / "cells.jsonl").write_text("")
    with pytest.raises(CellError, match="has no cell"):
        rows_of(tmp_path)
    write_rows(tmp_path / "cells.jsonl", [listed("", 0), {**listed("", 1), "seed": "1"}])
    with pytest.raises(CellError, match="line 2: seed is to be a int"):
        rows_of(tmp_path)


def test_the_baseline_is_the_sweeps_own(tmp_path):
    rows = [listed("a", 0), listed("", 0), listed("b", 0)]
    assert baseline_of(tmp_path, rows) == "base"
    assert baseline_of(tmp_path, rows[:1]) == "a"
    (tmp_path / "sweep.json").write_text(json.dumps({"baseline": "b"}))
    assert baseline_of(tmp_path, rows) == "b" and baseline_of(tmp_path, rows[:2]) == "base"
    with pytest.raises(CellError, match="baseline=c: the sweep has a"):
        compare([cell("a", 0, [1])], "c")


def test_problems_add_up_to_the_metrics_of_an_evaluation():
    rng = np.random.RandomState(0)
    rows = [
        row_of(n, rng.uniform() < 0.4, tokens=int(rng.randint(1, 9)), finish=finish)
        for n, finish in enumerate(rng.choice(["stop", "length"], size=30))
    ]
    looks = looks_of(rows)
    for name in ("accuracy/strict", "length/mean", "truncated"):
        found = by_problem(rows, name, is_greedy=True)
        assert np.mean([*found.values()]) == pytest.approx(looks[name])


def test_greedy_completions_stand_before_samples():
    rows = [row_of(0, 1), row_of(1, 0)]  # greedy ones
    rows += [row_of(n, yes, sample=s) for n in range(2) for s, yes in enumerate((0, 1, 1, 1))]

    def shares(name, rows, is_greedy):
        return [*by_problem(rows, name, is_greedy=is_greedy).values()]

    assert shares("accuracy/strict", rows, True) == [1, 0]
    assert shares("sampled/accuracy/strict", rows, True) == [0.75, 0.75]
    assert shares("mean@4", rows, True) == [0.75, 0.75]
    assert shares("sampled/accuracy/strict", rows[2:], False) == [0.75, 0.75]
    assert shares("pass@2", rows, True) == [] == shares("format/strict", rows, True)


def test_samples_where_nothing_was_asked_greedily(sweep):
    for run in (sweep / "cells").iterdir():
        file = run / "evaluations" / "last.json"
        file.write_text(file.read_text().replace("accuracy/strict", "sampled/accuracy/strict"))
        (run / "config.json").write_text(json.dumps(CONFIG).replace("true", "false"))
    cells = read_cells(rows_of(sweep), sweep, STRICT)
    assert cells[0].metric == "sampled/accuracy/strict" and cells[0].problems
    assert compare(cells, "base").metric == cells[0].metric


def cell(ablation, seed, right, *, own=False, metric="accuracy/strict"):
    """A cell without a run; `own` problems are of the seed."""
    names = [(f"{seed if own else ''}-{n}", "") for n in range(len(right))]
    problems = {name: float(one) for name, one in zip(names, right, strict=True)}
    value = float(np.mean(right)) if len(right) else None
    return Cell(ablation, seed, pathlib.Path(), value, "", metric, "grpo", "last", problems)


def simulated(gains, *, seeds, problems, by_seed=0.05, rng_seed=0, own=False):
    """Cells whose chance to be right is 0.5, a gain, and something of the seed."""
    rng = np.random.RandomState(rng_seed)
    hard = rng.normal(0, 0.15, size=(seeds, problems) if own else problems) + np.zeros((seeds, 1))
    cells = []
    for name, gain in gains.items():
        for seed in range(seeds):
            chance_P = 0.5 + gain + hard[seed] + by_seed * rng.normal()
            cells.append(cell(name, seed, rng.uniform(size=problems) < chance_P, own=own))
    return cells


def test_a_row_worked_out_with_scipy():
    cells = simulated({"base": 0, "a": 0.1}, seeds=4, problems=50, own=True)
    found = compare(cells, "base")
    row = next(row for row in found.rows if row.ablation == "a")
    x_S = np.array([c.value for c in cells if c.ablation == "a"])
    y_S = np.array([c.value for c in cells if c.ablation == "base"])
    theirs = stats.ttest_rel(x_S, y_S)
    low, high = theirs.confidence_interval(0.95)
    assert row.over == BOTH and found.tests == 1
    assert row.difference == pytest.approx(((x_S - y_S).mean(), low, high, theirs[1]))
    assert row.p == pytest.approx(theirs[1])  # one test alone
    assert row.mean[:3] == pytest.approx((x_S.mean(), *stats.t.interval(
        0.95, 3, x_S.mean(), stats.sem(x_S))))  # fmt: skip
    assert row.iqm.value == pytest.approx(stats.trim_mean(x_S, 0.25))
    assert row.improvement and row.variances
    assert row.improvement.value == pytest.approx(stats.mannwhitneyu(x_S, y_S).statistic / 16)
    unpaired = x_S.var(ddof=1) + y_S.var(ddof=1)
    assert row.variances == pytest.approx((unpaired, (x_S - y_S).var(ddof=1)))


def test_a_missing_cell_is_in_no_mean():
    cells = simulated({"base": 0, "a": 0.1, "b": 0.0}, seeds=5, problems=50)
    cells[7] = cells[7]._replace(value=None, reason="failed: it broke")  # of a, on seed 2
    found = compare(cells, "base")
    row = next(row for row in found.rows if row.ablation == "a")
    kept = [0, 1, 3, 4]
    x_S, y_S = (np.array([cells[first + s].value for s in kept], float) for first in (5, 0))
    assert (row.seeds, row.pairs, found.seeds) == (4, 4, 5)
    assert row.mean.value == pytest.approx(x_S.mean())
    assert row.difference and row.difference.value == pytest.approx((x_S - y_S).mean())
    assert [(c.ablation, c.seed) for c in found.missing] == [("a", 2)]
    text = markdown(found)
    assert "| 4 of 5 |" in text and ", 4 pairs |" in text
    assert "- a, seed 2: failed: it broke" in text


def test_without_the_base_nothing_is_better():
    cells = simulated({"base": 0, "a": 0.3}, seeds=3, problems=50)
    cells[:3] = [one._replace(value=None, reason="failed") for one in cells[:3]]
    found = compare(cells, "base")
    assert [row.ablation for row in found.rows] == ["a", "base"]
    assert found.rows[0].verdict == "not told: no seed that the base has too"
    assert found.tests == 0 and "0 of 3" in markdown(found)
    assert csv_text(found).count("\n") == 3


def test_verdicts_and_ranks():
    gains = {"base": 0, "worse": -0.3, "same": 0.0, "better": 0.3}
    found = compare(simulated(gains, seeds=5, problems=200), "base")
    assert [row.ablation for row in found.rows][::3] == ["better", "worse"]
    said = {row.ablation: row.verdict for row in found.rows}
    assert (said["better"], said["worse"], said["base"]) == ("better", "worse", "the base")
    assert said["same"].startswith("no difference shown; ")
    raw = {row.ablation: row.difference.p for row in found.rows if row.difference}
    assert found.tests == 3  # the least p is times 3
    assert min(row.p for row in found.rows if row.difference) == pytest.approx(
        3 * min(raw.values())
    )


def test_ten_copies_of_a_cell_show_no_difference():
    """Ten times over: of 90 comparisons none, with problems in common or of each seed's own."""
    names = {"base": 0.0, **{f"copy_{n}": 0.0 for n in range(1, 10)}}
    for rng_seed in range(10):
        cells = simulated(names, seeds=3, problems=60, rng_seed=rng_seed, own=rng_seed % 2 == 1)
        found = compare(cells, "base")
        said = [row.verdict for row in found.rows if row.ablation != "base"]
        assert len(said) == 9 and all(words.startswith("no difference shown") for words in said)


def test_other_problems_are_compared_over_seeds_alone():
    cells = simulated({"base": 0, "a": 0.1}, seeds=3, problems=50)
    renamed = {(f"other {id_}", question): x for (id_, question), x in cells[4].problems.items()}
    cells[4] = cells[4]._replace(problems=renamed)
    row = next(row for row in compare(cells, "base").rows if row.ablation == "a")
    assert row.over == OTHERS and row.difference == row.over_seeds
    cells = [one._replace(problems={}) for one in cells]
    row = next(row for row in compare(cells, "base").rows if row.ablation == "a")
    assert row.over == SEEDS


def verdict_of(*values, metric="accuracy/strict", base=(0.5, 0.5, 0.5)):
    """What is said of an ablation with these values, by seed."""
    cells = [
        cell(name, seed, [value], metric=metric)._replace(problems={})
        for name, of in (("base", base), ("a", values)) for seed, value in enumerate(of)
    ]  # fmt: skip
    return next(row for row in compare(cells, "base").rows if row.ablation == "a").verdict


def test_what_is_said():
    assert verdict_of(0.9) == "not told: one seed"
    assert verdict_of(0.6, 0.6, 0.6) == "not told: all seeds differ by the very same number"
    assert verdict_of(0.5, 0.5, 0.5) == "no difference shown: none was seen"
    assert verdict_of(0.60, 0.61, 0.62) == "better"
    assert verdict_of(30.0, 31.0, 32.0, metric="length/mean") == "higher"
    assert verdict_of(0.1, 0.11, 0.12, metric="sampled/truncated") == "lower"
    assert verdict_of(0.1, 0.11, 0.12, metric="sampled/accuracy/strict") == "worse"
    # d = 0, 0.1, 0.2: an effect of one deviation, which a paired t-test shows with 10.
    assert verdict_of(0.5, 0.6, 0.7) == (
        "no difference shown; about 10 seeds would show one of this size"
    )
    assert verdict_of(0.4, 0.5, 0.6001) == (
        "no difference shown; more than 1,000 seeds would show one of this size"
    )


def test_where_seeds_are_not_enough():
    """All seeds agree on each problem: more of them would tell nothing."""
    right = np.zeros(40)
    right[:4] = 1
    cells = [cell("base", seed, np.zeros(40)) for seed in range(3)]
    cells += [cell("a", seed, right) for seed in range(3)]
    cells[5] = cell("a", 2, np.roll(right, 1))
    row = next(row for row in compare(cells, "base").rows if row.ablation == "a")
    assert row.needed == MORE_PROBLEMS
    assert row.verdict.endswith("one of this size needs more problems, not only seeds")


def test_tables_hold_hostile_names():
    name = 'a|b\n\x1b[2Jc, "d" \ud800'
    cells = simulated({"base": 0, name: 0.3, "lost": 0}, seeds=3, problems=30)
    cells[8] = cells[8]._replace(value=None, reason=f"failed: {name}")
    found = compare(cells, "base")
    text = markdown(found)
    assert "a\\|b c" in text and "\x1b" not in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line[:1] == "|"}
    assert widths == {10}
    lines = [*csv.reader(io.StringIO(csv_text(found)))]
    assert lines[0] == [*COLUMNS] and {len(line) for line in lines} == {len(COLUMNS)}
    assert [int(line[0]) for line in lines[1:]] == [1, 2, 3]
    by_name = {line[1]: dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]}
    row = next(row for row in found.rows if row.ablation == "lost")
    assert row.difference and float(by_name["lost"]["difference"]) == row.difference.value
    assert by_name["lost"]["seeds"] == "2" and by_name["base"]["difference"] == ""
    assert (row.verdict in text) and "nan" not in csv_text(found).replace("lost", "")


def test_numbers_as_people_read_them():
    cells = [
        cell(name, seed, [value])._replace(problems={})
        for name, of in (("base", (0.5, 0.6)), ("a", (0.55, 0.69))) for seed, value in enumerate(of)
    ]  # fmt: skip
    line = next(x for x in markdown(compare(cells, "base")).splitlines() if x.startswith("| a "))
    cells = [one.strip() for one in line.split("|")[1:-1]]
    # t(1) = 12.706; of d = 5 and 9 points the mean is 7 and the error 2. Of 16 draws of both one
    # has 0.55 twice against 0.6 twice: more than the 2.5 % below which is the interval's low end.
    assert cells[:4] == ["a", "2", "62.0 (-26.9 to 150.9)", "+7.0 (-18.4 to +32.4)"]
    assert cells[4:8] == ["0.177", "62.0 (55.0 to 69.0)", "0.75 (0.00 to 1.00)", "18.5"]


def test_a_band_has_gaps_where_a_seed_has_none():
    band = band_of("a", [{5: 0.1, 10: 0.4}, {5: 0.3, 10: 0.2, 15: 0.5}])
    assert band.steps == [5, 10, 15] and band.points[2] is None
    assert band.points[0] is not None
    low, high = stats.t.interval(0.95, 1, 0.2, 0.1)
    assert band.points[0][:3] == pytest.approx((0.2, low, high))


def test_a_run_is_about_its_last_policy_that_is_no_control():
    stages = {
        "sft": {"kind": "sft"}, "more_sft": {"kind": "sft"}, "grpo": {"kind": "grpo"},
        "shuffled": {"kind": "grpo", "shuffle_rewards": True},
    }  # fmt: skip
    assert last_policy(stages, ["sft", "grpo", "more_sft", "shuffled"]) == "grpo"
    assert last_policy(stages, ["base", "sft", "shuffled"]) == "shuffled"  # or it is the ablation
    assert last_policy(stages, ["base", "sft", "more_sft"]) == "more_sft"
    assert last_policy(stages, ["base"]) == "base"


def test_curves_of_a_sweep(sweep):
    cells = read_cells(rows_of(sweep), sweep, STRICT)
    found = compare(cells, "base")
    curves = {band.ablation: band for band in bands(cells, found)}
    assert set(curves) == {"base", "good"} and curves["good"].seeds == 2
    point = curves["base"].points[0]
    assert curves["base"].steps == [5] and point and point.value == pytest.approx(0.1)
    svg = bands_svg(found, [*curves.values(), Band("one", 1, [5], [point])])
    assert "good (2 of 3)" in svg and "accuracy/strict while training, mean of 3 seeds" in svg


def test_the_tool_prints_and_writes(sweep):
    text = comparison(sweep, asked=STRICT, baseline=None, is_written=False)
    assert not (sweep / "table.md").exists()
    assert comparison(sweep, asked=STRICT, baseline=None, is_written=True) == text
    assert (sweep / "table.md").read_text() == text
    assert (sweep / "table.csv").read_text().startswith("rank,ablation,seeds,of,mean")
    assert (sweep / "curves.svg").read_text().startswith("<svg")
    turned = comparison(sweep, asked=STRICT, baseline="good", is_written=False)
    assert "to good, on the seeds of both" in turned


def test_the_command(sweep):
    def run(*arguments):
        command = [sys.executable, "-m", "grpo.tools.compare", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run(str(sweep), "--metric=pass@2", "--policy=more")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# pass@2 of more\n") and math.isfinite(len(done.stdout))
    assert "over seeds" in done.stdout
    failed = run(str(sweep / "cells"))
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
