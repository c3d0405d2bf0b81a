"""The tables of an evaluation, from metrics written by hand."""

from grpo.reporting.evaluations import accuracy_table, domain_table, form_table, samples_table

GREEDY = {
    "accuracy/strict": 0.25, "accuracy/strict/low": 0.1, "accuracy/strict/high": 0.456,
    "accuracy/lenient": 0.75, "accuracy/demo": 0.5, "accuracy/partial": 0.625,
    "format/strict": 1.0, "format/demo": 0.95, "format/tags": 3.875, "truncated": 0.125,
    "length/mean": 12.34,
}  # fmt: skip
SAMPLED = {
    "mean@4": 0.5, "mean@4/low": 0.4, "mean@4/high": 0.6,
    "pass@1": 0.5, "pass@1/low": 0.4, "pass@1/high": 0.6,
    "maj@1": 0.5, "maj@1/low": 0.4, "maj@1/high": 0.6, "maj@1/strings": 0.45,
    "pass@4": 0.875, "pass@4/low": 0.8, "pass@4/high": 0.9,
    "maj@4": 0.625, "maj@4/low": 0.6, "maj@4/high": 0.7, "maj@4/strings": 0.55,
    "sampled/accuracy/strict": 0.375, "sampled/accuracy/strict/low": 0.3,
    "sampled/accuracy/strict/high": 0.44, "sampled/format/strict": 0.9,
    "sampled/length/mean": 5.0,
}  # fmt: skip


def cells(text):
    lines = text.split("\n")
    assert len({len(line) for line in lines}) == 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_right_answers_by_each_reading():
    """Shares in percent, the time of the training stages."""
    got = cells(accuracy_table({"sft": GREEDY, "rl": {**SAMPLED, **GREEDY}}, {"rl": 140.0}))
    assert got[0] == ["after", "right", "95 % interval", "lenient", "demo", "partial", "time"]
    row = ["25.0 %", "10.0 to 45.6", "75.0 %", "50.0 %", "62.5 %"]
    assert got[2:] == [["sft", *row, ""], ["rl", *row, "2:20"]]


def test_how_completions_look():
    got = cells(form_table({"base, 4 shots": GREEDY}))
    assert got[0] == ["after", "in form", "demo's form", "tags of 4", "cut off", "tokens"]
    assert got[2] == ["base, 4 shots", "100.0 %", "95.0 %", "3.88", "12.5 %", "12.3"]


def test_samples_stand_in_where_nothing_was_greedy():
    got = cells(accuracy_table({"sft": SAMPLED}, {}))[2]
    assert got == ["sft", "37.5 %", "30.0 to 44.0", "", "", "", ""]
    assert cells(form_table({"sft": SAMPLED}))[2] == ["sft", "90.0 %", "", "", "", "5.0"]


def test_samples_by_measure():
    """A column per policy, by kind and then by k; what one has not been measured for is blank."""
    less = {"mean@4": 0.1, "mean@4/low": 0.0, "mean@4/high": 0.2}
    got = cells(samples_table({"rl": SAMPLED, "sft": less}))
    assert got[0] == ["of samples", "rl", "sft"]
    assert [row[0] for row in got[2:]] == [
        "mean@4", "pass@1", "pass@4", "maj@1", "maj@1, strings", "maj@4", "maj@4, strings",
    ]  # fmt: skip
    assert got[2][1:] == ["50.0 % (40.0 to 60.0)", "10.0 % (0.0 to 20.0)"]
    assert got[-1][1:] == ["55.0 %", ""] and got[4][1] == "87.5 % (80.0 to 90.0)"
    assert samples_table({"rl": GREEDY}) == ""


def of_domain(right, problems=3):
    return {"problems": problems, "accuracy/strict": right, "accuracy/lenient": 1.0,
            "accuracy/strict/low": 0.0, "accuracy/strict/high": 0.5}  # fmt: skip


def test_domains_if_there_are_several():
    results = {
        "sft": {"domains": {"law | \x1b[2J": of_domain(0.25), "math": of_domain(0.125, 40)}},
        "rl": {"domains": {"math": of_domain(0.5, 40)}},
    }
    got = domain_table(results)
    assert "\x1b" not in got and "law \\|" in got
    last = [cell.strip() for cell in got.split("\n")[-1].strip("|").split("|")]
    assert last == ["math", "40", "12.5 % (0.0 to 50.0)", "50.0 % (0.0 to 50.0)"]
    assert got.split("\n")[0].count("|") == 5
    assert domain_table({"sft": {"domains": {"math": of_domain(0.25)}}}) == ""
    assert domain_table({"sft": GREEDY}) == ""
