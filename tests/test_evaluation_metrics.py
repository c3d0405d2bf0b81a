"""Which completions count as right, in three ways; votes and pass@k by enumeration."""

import itertools

import numpy as np
import pytest

from grpo.algorithms.accuracy_estimates import NO_ANSWER
from grpo.evaluation.metrics import accuracy_metrics, sample_metrics, vote_ids
from grpo.rewards.correct import CORRECT, correct


def in_form(answer, reasoning="It is so."):
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


CASES = [  # gold, completion: strict, lenient, demo, partial
    ("72", in_form("72"), 1, 1, 1, 1),
    ("72", in_form("\n72.0\n"), 1, 1, 1, 1),
    ("72", in_form("72 clips"), 1, 1, 1, 1),
    ("72", in_form("$72"), 1, 1, 1, 1),
    ("72", in_form("70"), 0, 0, 0, 1),  # 0.97 of it
    ("72", in_form("60"), 0, 0, 0, 0),
    ("72", in_form("72 or 5"), 0, 0, 1, 1),  # the demo reads the first number
    ("72", in_form("72") + " done", 0, 1, 1, 1),
    ("72", in_form("72").removesuffix("</answer>"), 0, 1, 1, 1),
    ("72", "<answer>72</answer>", 0, 1, 1, 1),
    ("72", "The answer is 72.", 0, 1, 0, 0),
    ("72", r"So \boxed{72}", 0, 1, 0, 0),
    ("72", in_form("5") + "<answer>72</answer>", 0, 1, 0, 0),  # lenient reads the last block
    ("72", in_form("-72"), 0, 0, 1, 1),  # the demo knows no sign
    ("72", in_form("7.2.0"), 0, 0, 0, 0),  # [\d.]+ that is no float
    ("72", in_form(""), 0, 0, 0, 0),
    ("72", "", 0, 0, 0, 0),
    ("72", in_form("nan"), 0, 0, 0, 0),
    ("1,080", in_form("1080"), 1, 1, 0, 0),  # float("1,080") is none
    ("1,080", in_form("1,080"), 1, 1, 0, 0),
    ("1080", in_form("1,080"), 1, 1, 0, 0),  # the demo reads 1
    ("-5", in_form("-5"), 1, 1, 0, 0),
    ("-5", in_form("5"), 0, 0, 0, 0),
    ("0", in_form("0"), 1, 1, 1, 1),
    ("0", in_form("0.00"), 1, 1, 1, 1),
    ("0", in_form("3"), 0, 0, 0, 0),  # no ratio to 0
    ("100", in_form("90"), 0, 0, 0, 1),
    ("100", in_form("110"), 0, 0, 0, 1),
    ("100", in_form("111"), 0, 0, 0, 0),
    ("0.5", in_form("50%"), 1, 1, 0, 0),
    ("blue", in_form("blue"), 1, 1, 0, 0),  # golds that are no number, as texts
    ("blue", in_form(" blue\n"), 1, 1, 0, 0),
    ("blue", in_form("Blue"), 0, 0, 0, 0),
    ("blue", in_form("7"), 0, 0, 0, 0),
    ("nan", in_form("nan"), 1, 1, 0, 0),
]


@pytest.mark.parametrize(("gold", "completion", "wanted"), [(g, c, row) for g, c, *row in CASES])
def test_golden_table(gold, completion, wanted):
    assert [*CORRECT] == ["strict", "lenient", "demo", "partial"]
    assert [judge({"answer": gold}, completion) for judge in CORRECT.values()] == wanted


def test_each_completion_meets_its_own_example():
    examples = [{"answer": "1"}, {"answer": "2"}]
    assert correct(examples, [in_form("1"), in_form("2")])["strict"].tolist() == [True, True]
    assert correct(examples, [in_form("2"), in_form("1")])["strict"].tolist() == [False, False]
    with pytest.raises(ValueError, match="argument"):
        correct(examples, [in_form("1")])


def test_the_metrics_of_five_by_hand():
    """One of 5 right in form: Wilson's interval is 3.62 % to 62.45 %."""
    texts = [in_form("7"), "The answer is 7.", in_form("8"), in_form("7") + "\nok", in_form("")]
    names = ("strict", "lenient", "demo", "partial")
    metrics = accuracy_metrics(
        correct([{"answer": "7"}] * 5, texts), texts, np.array([3, 5, 4, 4, 9]),
        np.array([False, False, True, False, True]),
    )  # fmt: skip
    assert [metrics[f"accuracy/{name}"] for name in names] == [0.2, 0.6, 0.4, 0.4]
    assert metrics["format/strict"] == 0.4  # the answer of the last one is blank
    assert metrics["format/demo"] == 0.6  # lines after the form are allowed
    assert metrics["length/mean"] == 5.0 and metrics["truncated"] == 0.4
    assert metrics["problems"] == 5
    assert metrics["accuracy/strict/low"] == pytest.approx(0.0362, abs=1e-4)
    assert metrics["accuracy/strict/high"] == pytest.approx(0.6245, abs=1e-4)
    assert metrics["accuracy/lenient/low"] == pytest.approx(0.2307, abs=1e-4)
    assert metrics["accuracy/lenient/high"] == pytest.approx(0.8824, abs=1e-4)
    assert len(metrics) == 3 * 4 + 5


def votes(gold, *answers):
    texts = [in_form(answer) for answer in answers]
    return vote_ids(texts, correct([{"answer": gold}] * len(texts), texts)["lenient"]).tolist()


def test_equal_numbers_are_one_vote():
    assert votes("5", "1,080", "1080.0", "5", "$1080", "5.00", "7") == [0, 0, 1, 0, 1, 2]
    assert votes("5", "1/2", "0.5", "red", "red ", "blue") == [0, 0, 1, 1, 2]


def test_no_answer_is_no_vote():
    texts = ["I do not know.", in_form("5"), ""]
    assert vote_ids(texts, np.array([False, True, False])).tolist() == [NO_ANSWER, 0, NO_ANSWER]


def test_what_is_right_in_two_ways_is_one_vote():
    """50% and 0.5 and 50 are all the gold's 50%, though not all of them are equal."""
    assert votes("50%", "50%", "0.5", "50", "5") == [0, 0, 0, 1]
    assert votes("right", "right", "wrong") == [0, 1]


def brute_force(samples, k):
    """pass@k and maj@k of (answer, right, mean log-prob), a subset at a time."""
    passed, points = [], []
    for subset in itertools.combinations(samples, k):
        passed.append(any(is_right for _, is_right, _ in subset))
        of = {}
        for answer, is_right, logprob in subset:
            if answer is not None:
                of.setdefault(answer, (is_right, []))[1].append(logprob)
        rank = {a: (len(own), round(sum(own) / len(own), 9)) for a, (_, own) in of.items()}
        best = [a for a in rank if rank[a] == max(rank.values())]
        points.append(sum(of[a][0] for a in best) / len(best) if best else 0.0)
    return sum(passed) / len(passed), sum(points) / len(points)


def test_pass_and_maj_at_k_are_the_means_over_subsets_and_problems():
    """Answers of few values, some of none, log-probs that tie."""
    random = np.random.RandomState(0)
    ways = {3: ("3", "3.0", "$3"), 4: ("4", "8/2"), 1000: ("1,000", "1000"), None: ("",)}
    problems = []
    for _ in range(12):
        values = random.choice(np.array([3, 3, 4, 1000, None]), 6)
        logprob = -random.randint(1, 4, 6) / 2
        problems.append([(v, v == 3, x) for v, x in zip(values, logprob, strict=True)])
    texts = [[in_form(random.choice(ways[v])) for v, _, _ in samples] for samples in problems]
    right_PG = np.array([correct([{"answer": "3"}] * 6, row)["lenient"] for row in texts])
    assert right_PG.tolist() == [[ok for _, ok, _ in samples] for samples in problems]
    logprob_PG = np.array([[x for _, _, x in samples] for samples in problems])
    metrics = sample_metrics(texts, right_PG, logprob_PG, ks=(1, 2, 3, 6))
    for k in (1, 2, 3, 6):
        wanted = np.mean([brute_force(samples, k) for samples in problems], axis=0)
        assert metrics[f"pass@{k}"] == pytest.approx(wanted[0], abs=1e-12)
        assert metrics[f"maj@{k}"] == pytest.approx(wanted[1], abs=1e-12)
    assert metrics["maj@1"] == metrics["pass@1"] == pytest.approx(right_PG.mean())
    assert len(metrics) == 8


def test_a_tie_goes_to_the_likelier_answer():
    texts = [[in_form("3"), in_form("3.0"), in_form("4"), in_form("8/2")]]
    right_PG = np.array([[True, True, False, False]])
    for logprob, wanted in (([-1, -3, -2.5, -2], 1.0), ([-1, -4, -2, -2], 0.0), ([-2] * 4, 0.5)):
        told_metrics = sample_metrics(texts, right_PG, np.array([logprob], float), ks=(4,))
        assert told_metrics == {"pass@4": 1.0, "maj@4": wanted}
