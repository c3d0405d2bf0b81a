"""The table of rewards: what is refused, what fails, what the total is."""

import math

import numpy as np
import pytest

from grpo.rewards.batch import each
from grpo.rewards.given import GIVEN
from grpo.rewards.scores import Scores, gated, metrics, score, shuffled
from grpo.rewards.table import FITS, PACKAGES, REWARDS, fitted, pays, reward_table
from tests.reward_entries import EXAMPLE as FULL
from tests.reward_entries import TABLE

NAN = float("nan")
R = "<reasoning>It is so.</reasoning>"
EXAMPLE = {"question": "How many?", "answer": "72"}
PLAIN = {"weight": 1.0, "low": 0.0, "high": 1.0}
RIGHT = PLAIN | {"name": "correct_answer", "options": {"strict": True}}
FORM = PLAIN | {"name": "strict_format", "weight": 0.25}
LOGGED = FORM | {"weight": 0.0}
ANY_FORM = RIGHT | {"options": {"strict": False}}
COMPLETIONS = [
    f"{R}<answer>72</answer>",
    f"{R}<answer>70</answer>",
    "The answer is 72.",
    "The answer is 70.",
]


def scored(lines, completions=COMPLETIONS, examples=None):
    examples = [EXAMPLE] * len(completions) if examples is None else examples
    return score(reward_table(lines), examples, completions, seconds=5.0)


@pytest.fixture
def table_of(monkeypatch):
    """Puts functions of a completion into REWARDS, and gives their entries."""

    def make(**functions):
        for name, function in functions.items():
            reward = each(lambda _, text, function=function: function(text))
            monkeypatch.setitem(REWARDS, name, reward)
        return [{"name": name, "weight": 1, "low": -1, "high": 9} for name in functions]

    return make


def test_weighted_sum():
    scores = scored([RIGHT, FORM])
    np.testing.assert_array_equal(scores.rewards["correct_answer"], [1, 0, 0, 0])
    np.testing.assert_array_equal(scores.rewards["strict_format"], [1, 1, 0, 0])
    np.testing.assert_array_equal(scores.total, [1.25, 0.25, 0, 0])
    assert scores.total.dtype == scores.rewards["strict_format"].dtype == np.float64
    assert scores.failed == {"correct_answer": 0, "strict_format": 0} and scores.reasons == {}


def test_a_gate_multiplies_its_entry_only():
    lines = [ANY_FORM | {"gate": "strict_format"}, FORM]
    np.testing.assert_array_equal(scored([ANY_FORM]).total, [1, 0, 1, 0])
    np.testing.assert_array_equal(scored(lines).total, [1.25, 0.25, 0, 0])
    np.testing.assert_array_equal(scored([lines[0], LOGGED]).total, [1, 0, 0, 0])
    soft = [ANY_FORM | {"gate": "tag_format"}, LOGGED | {"name": "tag_format"}]
    np.testing.assert_array_equal(scored(soft, [f"{R}<answer>72"]).total, [0.75])


MATH, LAW, NO_DOMAIN = ({**EXAMPLE, **more} for more in ({"domain": "m"}, {"domain": "l"}, {}))


def test_an_entry_for_some_domains(table_of):
    """Elsewhere it is not called: no part of the total, of its mean, or of what failed."""
    seen = []
    judge, size = table_of(judge=lambda text: seen.append(text) or float(text), size=len)
    lines = [judge | {"domains": ("m", "p"), "weight": 2}, size]
    examples, texts = [MATH, LAW, NO_DOMAIN, MATH, LAW], ["3", "x", "xx", "1", "y"]
    scores = scored(lines, texts, examples)
    assert seen == ["3", "1"]
    np.testing.assert_array_equal(scores.rewards["judge"], [3, NAN, NAN, 1, NAN])
    np.testing.assert_array_equal(scores.parts["judge"], [3, 0, 0, 1, 0])
    np.testing.assert_array_equal(scores.total, [7, 1, 2, 3, 1])
    assert scores.failed == {"judge": 0, "size": 0} and scores.reasons == {}
    got = metrics(scores)
    assert (got["reward/judge/mean"], got["reward/judge/std"]) == (2, 1)
    assert got["reward/judge/failed"] == 0
    # What fails of it, fails of those that it was asked about; nothing else abstains.
    scores = scored(lines, ["3", "x", "xx", "z", "y"], examples)
    np.testing.assert_array_equal(scores.total, [7, 1, 2, NAN, 1])
    assert scores.failed["judge"] == 1 and metrics(scores)["reward/judge/failed"] == 0.5
    nowhere = scored([judge | {"domains": ["p"]}, size], texts, examples)
    np.testing.assert_array_equal(nowhere.total, [1, 1, 2, 1, 1])
    assert math.isnan(metrics(nowhere)["reward/judge/mean"]) and nowhere.failed["judge"] == 0


def test_a_batch_function_sees_its_domains_only(monkeypatch):
    monkeypatch.setitem(REWARDS, "many", lambda examples, texts: [len(texts)] * len(texts))
    lines = [{"name": "many", "weight": 1, "low": 0, "high": 9, "domains": ("m",)}]
    np.testing.assert_array_equal(scored(lines, ["a"] * 3, [MATH, LAW, MATH]).total, [2, 0, 2])


def test_gates_and_domains(table_of):
    one, gate = table_of(one=lambda text: 1.0, gate=lambda text: float(text))
    gate |= {"weight": 0, "low": 0, "high": 1}
    both = {"domains": ("m",)}
    lines = [one | both | {"gate": "gate"}, gate | both]
    examples, texts = [MATH, MATH, LAW], ["1", "0", "?"]
    np.testing.assert_array_equal(scored(lines, texts, examples).total, [1, 0, 0])
    lines = [one | both | {"gate": "gate"}, gate]
    np.testing.assert_array_equal(scored(lines, ["1", "0", "1"], examples).total, [1, 0, 0])
    for domains in ({}, {"domains": ("m", "l")}):
        with pytest.raises(
            ValueError, match="gate is for the domains m alone, and so no gate of one"
        ):
            reward_table([one | domains | {"gate": "gate"}, gate | both])


def test_a_domain_that_no_training_example_has():
    table = reward_table([RIGHT | {"domains": ("math", "law")}])
    train = [{"domain": "math"}, {"domain": "law"}, {}]
    assert fitted(table, train) == table
    message = "rewards.correct_answer.domains: no training example is of 'law'; did you mean laws"
    with pytest.raises(ValueError, match=message):
        fitted(table, [{"domain": "math"}, {"domain": "laws"}])


def test_what_a_function_learns_of_the_training_examples(monkeypatch):
    """Once, given its options; and that is none of them."""
    learnt = []

    def fit(train, options):
        learnt.append([example["answer"] for example in train])
        return len(train) * options["factor"]

    def reward(examples, texts, *, factor: float, fitted: float):
        return [factor + fitted] * len(texts)

    monkeypatch.setitem(REWARDS, "learns", reward)
    monkeypatch.setitem(FITS, "learns", fit)
    line = {"name": "learns", "weight": 1, "low": 0, "high": 99, "options": {"factor": 3.0}}
    checked = reward_table([line, FORM])
    table = fitted(checked, [EXAMPLE] * 4)
    assert table["strict_format"] is checked["strict_format"]
    for _ in range(2):
        got = score(table, [EXAMPLE] * 2, ["a", "b"], seconds=5.0)
        np.testing.assert_array_equal(got.rewards["learns"], [15, 15])
    assert learnt == [["72"] * 4]
    unfitted = scored([line], ["a"])
    assert np.isnan(unfitted.total).all() and "fitted" in unfitted.reasons["learns"]
    with pytest.raises(ValueError, match=r"options\.fitted: unknown option"):
        reward_table([line | {"options": {"factor": 1.0, "fitted": 2.0}}])


def test_gated_parts_add_up_to_the_total():
    """What a decoupled comparison sees of each function, its gate included."""
    lines = [ANY_FORM | {"gate": "strict_format", "weight": 2.0}, FORM]
    scores, table = scored(lines), reward_table(lines)
    parts = scores.parts
    np.testing.assert_array_equal(scores.rewards["correct_answer"], [1, 0, 1, 0])
    np.testing.assert_array_equal(parts["correct_answer"], [1, 0, 0, 0])
    np.testing.assert_array_equal(parts["strict_format"], [1, 1, 0, 0])
    np.testing.assert_array_equal(scores.total, [2.25, 0.25, 0, 0])
    values = {"correct_answer": [NAN, NAN, 1.0], "strict_format": [0.0, 1.0, NAN]}
    arrays = {name: np.array(value) for name, value in values.items()}
    parts = gated(arrays, dict.fromkeys(table, np.ones(3, bool)), table)
    np.testing.assert_array_equal(parts["correct_answer"], [0, NAN, NAN])


def test_shuffled_scores_are_the_same_ones_of_other_completions():
    """Rewards and total of a completion stay together; which is whose depends on the seed alone."""
    number = np.arange(20.0)
    scores = Scores(
        {"a": number, "b": -number}, {"a": 3 * number}, {"a": 0, "b": 3}, {"b": "why"}, number / 4
    )
    got = shuffled(scores, [7, 0, 1])
    assert sorted(got.total) == sorted(scores.total) and (got.total != scores.total).any()
    np.testing.assert_array_equal(got.rewards["a"], got.total * 4)
    np.testing.assert_array_equal(got.rewards["b"], -got.total * 4)
    np.testing.assert_array_equal(got.parts["a"], got.total * 12)
    assert (got.failed, got.reasons) == (scores.failed, scores.reasons)
    np.testing.assert_array_equal(scores.total, np.arange(20) / 4)
    np.testing.assert_array_equal(shuffled(scores, [7, 0, 1]).total, got.total)
    seeds = ([7, 0, 1], [7, 1, 0], [7, 1, 1], [8, 0, 1], [7, 0, 0])
    assert len({tuple(shuffled(scores, seed).total) for seed in seeds}) == 5


def raises(text):
    raise KeyError("gone", text)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (raises, "KeyError: ('gone', 'bad\\n')"),
        (lambda text: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda text: int("9" * 5000), "ValueError: Exceeds the limit"),
        (lambda text: None, "TypeError: returned NoneType, no number"),
        (lambda text: "1", "TypeError: returned str, no number"),
        (lambda text: True, "TypeError: returned bool, no number"),
        (lambda text: [1.0], "TypeError: returned list, no number"),
        (lambda text: np.ones(1), "TypeError: returned ndarray, no number"),
        (lambda text: 1j, "TypeError: returned complex, no number"),
        (lambda text: NAN, "ValueError: abstained: returned nan"),
        (lambda text: math.inf, "ValueError: returned inf, outside"),
        (lambda text: -1.01, "ValueError: returned -1.01, outside"),
        (lambda text: np.float32(9.5), "ValueError: returned np.float32(9.5), outside"),
        (lambda text: 10**400, "ValueError: returned 1000"),
        (lambda text: raises("\ud800" * 1000), "KeyError: ('gone', '\\ud800"),
    ],
)
def test_failure_is_nan_counted_and_explained(table_of, bad, why):
    """The other completions and the other functions are as without it."""
    lines = table_of(bad=lambda text: bad(text) if text == "bad\n" else 2, good=len)
    scores = scored(lines, ["a", "bad\n", "", "bad\n"])
    np.testing.assert_array_equal(scores.rewards["bad"], [2, NAN, 2, NAN])
    np.testing.assert_array_equal(scores.rewards["good"], [1, 4, 0, 4])
    np.testing.assert_array_equal(scores.total, [3, NAN, 2, NAN])
    assert scores.failed == {"bad": 2, "good": 0} and list(scores.reasons) == ["bad"]
    assert scores.reasons["bad"].startswith(why)
    assert scores.reasons["bad"].isascii() and len(scores.reasons["bad"]) <= 200
    assert "\n" not in scores.reasons["bad"]


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int64(2), np.float64(2), -1, 9])
def test_numbers_of_every_kind_count(table_of, number):
    np.testing.assert_array_equal(scored(table_of(it=lambda text: number), ["a"]).total, [number])


def test_the_first_reason_is_kept(table_of):
    scores = scored(table_of(bad=lambda text: 1 / 0 if text else raises(text)), ["", "a"])
    assert scores.reasons["bad"].startswith("KeyError") and scores.failed["bad"] == 2


def test_interrupts_are_no_failures(table_of):
    def stop(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(table_of(stop=stop), ["a"])


def test_what_is_not_needed_may_fail(table_of):
    """Weight 0, or behind a gate of 0; a gate that fails is needed."""
    judge, gate = table_of(
        judge=lambda text: NAN if "x" in text else 3,
        gate=lambda text: NAN if "?" in text else text.count("y"),
    )
    gate |= {"weight": 0, "low": 0, "high": 1}
    texts = ["y", "xy", "x", "", "x?", "?"]
    np.testing.assert_array_equal(
        scored([judge | {"gate": "gate"}, gate], texts).total, [3, NAN, 0, 0, NAN, NAN]
    )
    np.testing.assert_array_equal(scored([judge | {"weight": 0}, RIGHT], texts).total, [0] * 6)
    gates_nothing = [judge | {"gate": "gate", "weight": 0}, gate, RIGHT]
    np.testing.assert_array_equal(scored(gates_nothing, texts).total, [0] * 6)


def test_a_gold_that_is_no_number_abstains():
    scores = scored([RIGHT], COMPLETIONS[:3], [{"answer": ""}, {}, {"answer": None}])
    assert np.isnan(scores.total).all() and scores.failed["correct_answer"] == 3
    assert scores.reasons["correct_answer"].startswith("ValueError: the example's answer is no n")


def test_examples_and_completions_go_together():
    with pytest.raises(ValueError, match="3 examples for 4 completions"):
        scored([RIGHT], COMPLETIONS, [EXAMPLE] * 3)


def test_metrics(table_of):
    lines = table_of(bad=lambda text: 1 / 0, length=lambda text: NAN if text == "x" else len(text))
    got = metrics(scored(lines, ["a", "abc", "x", "abcde"]))
    assert got.pop("reward/bad/failed") == 1 and got.pop("reward/length/failed") == 0.25
    assert np.isnan([got.pop("reward/bad/mean"), got.pop("reward/bad/std")]).all()
    assert got == pytest.approx({"reward/length/mean": 3, "reward/length/std": (8 / 3) ** 0.5})
    assert metrics(scored([RIGHT], []))["reward/correct_answer/failed"] == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [RIGHT | {"name": "corect_answer"}],
            "unknown reward .*did you mean correct_answer",
        ),
        ([RIGHT | {"name": "strict_fromat"}], "did you mean strict_format"),
        ([RIGHT | {"name": 3}], "unknown reward 3"),
        ([RIGHT | {"wieght": 2}], "unknown field 'wieght'; did you mean weight"),
        ([{"name": "hybrid", "weight": 1}], "hybrid lacks low, high"),
        ([{"weight": 1}], "an entry lacks name, low, high"),
        ([RIGHT, RIGHT], "correct_answer is listed twice"),
        ([RIGHT | {"options": {}}], "rewards.correct_answer.options.strict: is missing"),
        ([FORM | {"options": {"x": 1}}], "options.x: unknown option; strict_format takes none"),
        ([RIGHT | {"weight": NAN}], "weight nan"),
        ([RIGHT | {"weight": math.inf}], "weight inf"),
        ([RIGHT | {"low": 1.0}], "range .1.0, 1.0."),
        ([RIGHT | {"high": NAN}], "range .0.0, nan."),
        ([RIGHT | {"high": math.inf}], "range .0.0, inf."),
        ([RIGHT | {"gate": "strict_format"}], "gate of correct_answer is 'strict_format'"),
        ([RIGHT | {"gate": "strict_fromat"}, FORM], "did you mean strict_format"),
        ([RIGHT | {"gate": "correct_answer"}, FORM], "no other entry"),
        ([RIGHT | {"gate": "strict_format"}, FORM | {"high": 2}], "needs a range in"),
        ([RIGHT | {"gate": "strict_format"}, FORM | {"low": -1}], "needs a range in"),
        (
            [RIGHT | {"gate": "strict_format"}, FORM | {"gate": "hybrid"}, FORM],
            "listed twice",
        ),
        (
            [
                RIGHT | {"gate": "strict_format"},
                FORM | {"gate": "tag_format"},
                FORM | {"name": "tag_format"},
            ],
            "strict_format as a gate needs a range in .0, 1. and no gate",
        ),
    ],
)
def test_refused(lines, message):
    with pytest.raises(ValueError, match=message):
        reward_table(lines)


@pytest.mark.parametrize("lines", [[], [LOGGED]])
def test_nothing_that_counts_is_worth_nothing(lines):
    """Beside a teacher that is a table as any other: no completion abstains."""
    scores = score(reward_table(lines), [FULL, FULL], ["", "what"], seconds=5.0)
    assert scores.total.tolist() == [0.0, 0.0] and len(scores.rewards) == len(lines)
    sections = {line["name"]: line for line in lines}
    assert not pays(sections) and pays({**sections, "correct_answer": RIGHT})


def test_every_reward_scores():
    scores = score(TABLE, [FULL] * len(COMPLETIONS), COMPLETIONS, seconds=5.0)
    assert not np.isnan(scores.total).any() and sum(scores.failed.values()) == 0
    assert scores.rewards.keys() == REWARDS.keys() - GIVEN.keys() - PACKAGES.keys()
