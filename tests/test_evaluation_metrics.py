"""Which completions count as right, in four ways; votes and pass@k by enumeration; domains."""

import itertools

import numpy as np
import pytest

from grpo.algorithms.accuracy_estimates import wilson
from grpo.evaluation.metrics import Z95, accuracy_metrics, by_domain, sample_metrics
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
        np.array([False, False, True, False, True]), samples=1,
    )  # fmt: skip
    assert [metrics[f"accuracy/{name}"] for name in names] == [0.2, 0.6, 0.4, 0.4]
    assert metrics["format/strict"] == 0.4  # the answer of the last one is blank
    assert metrics["format/demo"] == 0.6  # lines after the form are allowed
    assert metrics["format/tags"] == (4 + 0 + 4 + 4 + 4) / 5
    assert metrics["length/mean"] == 5.0 and metrics["truncated"] == 0.4
    assert metrics["problems"] == 5
    assert metrics["accuracy/strict/low"] == pytest.approx(0.0362, abs=1e-4)
    assert metrics["accuracy/strict/high"] == pytest.approx(0.6245, abs=1e-4)
    assert metrics["accuracy/lenient/low"] == pytest.approx(0.2307, abs=1e-4)
    assert metrics["accuracy/lenient/high"] == pytest.approx(0.8824, abs=1e-4)
    assert len(metrics) == 3 * 4 + 6


def test_tags_count_where_they_are_there_once():
    """Two of four: the second answer block spoils both of its tags; then three, then none."""
    texts = [
        in_form("5") + "<answer>7</answer>",
        in_form("7").removesuffix("</answer>"),
        "<Answer>7",
    ]
    for text, wanted in zip(texts, (2, 3, 0), strict=True):
        one = accuracy_metrics({}, [text], np.ones(1), np.zeros(1), samples=1)
        assert one["format/tags"] == wanted


def test_the_metrics_of_several_samples_are_over_problems():
    """Three problems, two samples each: those of a problem agree, and tell as much as one."""
    yes = np.array([True, True, True, True, False, False])
    texts = [in_form("7")] * 4 + ["no"] * 2
    metrics = accuracy_metrics({"strict": yes}, texts, np.arange(6), np.zeros(6), samples=2)
    assert metrics["accuracy/strict"] == pytest.approx(2 / 3) and metrics["problems"] == 3
    got = metrics["accuracy/strict/low"], metrics["accuracy/strict/high"]
    assert got == pytest.approx(wilson(2, 3, z=Z95), abs=1e-12)
    yes, texts = yes[[0, 4, 1, 2]], texts[2:]
    metrics = accuracy_metrics({"strict": yes}, texts, np.arange(4), np.zeros(4), samples=2)
    assert metrics["accuracy/strict"] == 0.75 and metrics["problems"] == 2
    # Their values have variance 1/16; p (1 - p) = 3/16: as much as 3 x 2 samples, of which there
    # are 4.
    wanted = wilson(3, 4, z=Z95)
    got = metrics["accuracy/strict/low"], metrics["accuracy/strict/high"]
    assert got == pytest.approx(wanted, abs=1e-12)


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
    metrics = sample_metrics(texts, ["3"] * 12, right_PG, logprob_PG, ks=(1, 2, 3, 6))
    for k in (1, 2, 3, 6):
        wanted = np.mean([brute_force(samples, k) for samples in problems], axis=0)
        assert metrics[f"pass@{k}"] == pytest.approx(wanted[0], abs=1e-12)
        assert metrics[f"maj@{k}"] == pytest.approx(wanted[1], abs=1e-12)
        for name in (f"pass@{k}", f"maj@{k}"):
            low, high = metrics[f"{name}/low"], metrics[f"{name}/high"]
            assert 0 <= low <= metrics[name] <= high <= 1
        # By their spelling fewer are right, and votes are split.
        spelt = [[spelling_of(text) for text in row] for row in texts]
        told = [brute_force([(s, s == "3", 0.0) for s in row], k)[1] for row in spelt]
        assert metrics[f"maj@{k}/strings"] == pytest.approx(np.mean(told), abs=1e-12)
    assert metrics["maj@1"] == metrics["pass@1"] == pytest.approx(right_PG.mean())
    assert metrics["mean@6"] == pytest.approx(right_PG.mean())
    assert metrics["mean@6/low"] == metrics["pass@1/low"]
    # By the normal approximation the interval has about the same width.
    spread = right_PG.mean(axis=1).std() / 12**0.5
    width = metrics["mean@6/high"] - metrics["mean@6/low"]
    assert width == pytest.approx(2 * Z95 * spread, rel=0.25)
    assert len(metrics) == 3 + 4 * 7


def spelling_of(text):
    """What stands in the form, without signs of currency and commas; None of nothing."""
    answer = text.split("<answer>")[1].split("</answer>")[0]
    return answer.replace(",", "").replace("$", "") or None


def test_a_vote_of_too_many_subsets_is_left_out():
    texts = [[in_form("3")] * 40]
    right_PG, logprob_PG = np.ones((1, 40), bool), np.zeros((1, 40))
    metrics = sample_metrics(texts, ["3"], right_PG, logprob_PG, ks=(1, 20, 40))
    names = [name for name in metrics if "/" not in name]
    assert names == ["mean@40", "pass@1", "maj@1", "pass@20", "pass@40", "maj@40"]


def test_a_tie_goes_to_the_likelier_answer():
    texts = [[in_form("3"), in_form("3.0"), in_form("4"), in_form("8/2")]]
    right_PG = np.array([[True, True, False, False]])
    for logprob, wanted in (([-1, -3, -2.5, -2], 1.0), ([-1, -4, -2, -2], 0.0), ([-2] * 4, 0.5)):
        told_metrics = sample_metrics(texts, ["3"], right_PG, np.array([logprob], float), ks=(4,))
        assert told_metrics["pass@4"] == 1.0 and told_metrics["maj@4"] == wanted
        assert told_metrics["maj@4/strings"] == 0.25  # four spellings, one of them the gold's


def row(problem, strict, lenient, **more):
    return {"id": problem, "right": {"strict": strict, "lenient": lenient}, **more}


def test_accuracy_by_domain():
    """Counted by problem; examples without a domain are one of their own."""
    rows = [
        row("a", True, True, domain="math"),
        row("b", False, True, domain="math"),
        row("c", False, False, domain="math"),
        row("d", False, False, domain="law"),
        row("e", True, True),
    ]
    found = by_domain(rows)
    assert list(found) == ["(none)", "law", "math"]
    assert [found[name]["problems"] for name in found] == [1, 1, 3]
    assert found["math"]["accuracy/strict"] == pytest.approx(1 / 3)
    assert found["math"]["accuracy/lenient"] == pytest.approx(2 / 3)
    got = found["math"]["accuracy/strict/low"], found["math"]["accuracy/strict/high"]
    assert got == pytest.approx(wilson(1, 3, z=Z95), abs=1e-12)
    assert found["law"]["accuracy/lenient"] == 0.0


def test_accuracy_by_domain_of_samples():
    """Two samples each: a problem has the share of its own."""
    rows = [row(p, ok, ok, domain="math") for p, ok in zip("aabb", (1, 0, 1, 1), strict=True)]
    found = by_domain(rows)["math"]
    assert (found["problems"], found["accuracy/strict"]) == (2, 0.75)
    assert found["accuracy/strict/low"] == pytest.approx(wilson(3, 4, z=Z95)[0], abs=1e-12)


def test_without_domains_there_is_nothing_to_say():
    assert by_domain([row("a", True, True)]) == {}
