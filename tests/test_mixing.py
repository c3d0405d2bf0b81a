"""Several datasets as one: shares by temperature, an order without memory, splits of splits."""

import io
import json
from collections import Counter

import numpy as np
import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data.datasets import load_datasets, offers
from grpo.data.mixing import interleaved, mixed, slots_of
from grpo.pipeline import STAGES
from grpo.runs.setup import texts_of
from tests.refusals import changed
from tests.small_run import P, launch, opened, rows, small, small_grpo, small_sft, workshop


def test_slots_by_hand():
    """Of 100 and 10: T=1 is 100 to 10, T=2 is 10 to √10 = 0.76 to 0.24, T=100 nearly even."""
    assert slots_of([100, 10], 1.0) == [100, 10]
    assert slots_of([100, 10], 2.0) == [84, 26]  # 110 · 0.7597 = 83.57, 26.43
    assert slots_of([100, 10], 100.0) == [56, 54]  # 10^0.01 = 1.0233: 55.63, 54.37
    assert slots_of([900, 100], 0.5) == [988, 12]  # 81 to 1: 987.8, 12.2
    assert slots_of([998, 1, 1], 0.2) == [998, 1, 1]  # nobody is left out
    assert slots_of([7], 3.0) == [7]


def test_slots_are_shares_of_the_whole():
    random = np.random.RandomState(0)
    for _ in range(300):
        sizes = [int(n) for n in random.randint(1, 300, random.randint(1, 6))]
        temperature = float(random.uniform(0.3, 9))
        slots = slots_of(sizes, temperature)
        assert sum(slots) == sum(sizes) and min(slots) >= 1
        weights = np.array(sizes, float) ** (1 / temperature)
        exact = sum(sizes) * weights / weights.sum()
        low = sum(x < 1 for x in exact)  # each of which takes up to one place from the others
        assert np.all(np.abs(np.array(slots) - exact) < 1 + low)


def test_in_proportion_an_epoch_is_a_permutation():
    domains = ["a"] * 6 + ["b"] * 3
    order = mixed(domains, 1.0, 5)
    for epoch in range(4):
        assert sorted(order(epoch * 9 + i) for i in range(9)) == [*range(9)]
    assert [order(i) for i in range(9)] != [order(i) for i in range(9, 18)]
    assert [mixed(domains, 1.0, 6)(i) for i in range(9)] != [order(i) for i in range(9)]


def test_each_domain_has_its_share_and_comes_round_by_itself():
    domains = ["a"] * 20 + ["b"] * 4
    order = mixed(domains, 2.0, 1)  # 24 · √20/(√20+2) = 16.58: 17 of a, 7 of b
    drawn = [order(i) for i in range(24 * 40)]
    for epoch in range(40):
        part = Counter(domains[place] for place in drawn[epoch * 24 : epoch * 24 + 24])
        assert part == {"a": 17, "b": 7}
    of_b = Counter(place for place in drawn if domains[place] == "b")
    assert sorted(of_b.values()) == [70] * 4
    of_a = Counter(place for place in drawn if domains[place] == "a")
    assert len(of_a) == 20 and max(of_a.values()) - min(of_a.values()) <= 1


def test_the_order_has_no_memory():
    domains = [*"abcabcaab"]
    order = mixed(domains, 3.0, 2)
    forwards = [order(i) for i in range(60)]
    assert [mixed(domains, 3.0, 2)(i) for i in reversed(range(60))] == forwards[::-1]
    assert forwards[:9] == [mixed(domains, 3.0, 2)(i) for i in range(9)]


def test_any_first_ones_are_of_each_in_proportion():
    parts = {"a": [{"id": f"{n}"} for n in range(6)], "b": [{"id": "x", "domain": "law"}] * 3}
    got = interleaved(parts)
    assert [e["id"][0] for e in got] == [*"abaabaaba"]
    assert [e["id"] for e in got if e["domain"] == "a"] == [f"a/{n}" for n in range(6)]
    assert got[1] == {"id": "b/x", "domain": "law"}


def two(**changes):
    """Sums and amounts as one dataset."""
    return {
        "sums": base.dataset(train_examples=30, test_examples=5, levels=(1,)).to_dict(),
        "amounts": base.dataset(
            source="stoichiometry", levels=(1,), train_examples=10, test_examples=5
        ).to_dict(),
        "data": base.dataset(
            source="mixture", of=("sums", "amounts"), mixing_temperature=2.0
        ).to_dict()
        | changes,
    }


def test_a_mixture_has_the_splits_of_its_parts():
    got = load_datasets(two(), 3)
    assert [*got] == ["sums", "amounts", "data"]
    mix = got["data"]
    assert [len(part) for part in mix[:3]] == [40, 0, 10]
    for part in ("train", "test"):
        for name in ("sums", "amounts"):
            own = [e for e in getattr(mix, part) if e["domain"] == name]
            assert [e["question"] for e in own] == [e["question"] for e in getattr(got[name], part)]
    assert mix.report == {"source": "mixture", "train/sums": 30, "train/amounts": 10}
    order = mix.order(mix.train, 3)  # √30 to √10: 40 · 0.634 = 25.4
    assert Counter(mix.train[order(i)]["domain"] for i in range(40)) == {"sums": 25, "amounts": 15}
    few = [e for e in mix.train if e["level"]][:8]
    assert Counter(e["domain"] for e in few) == {"sums": 6, "amounts": 2}
    assert {mix.order(few, 3)(i) for i in range(40)} == {*range(8)}
    plain = got["sums"].order(got["sums"].train, 3)
    assert sorted(plain(i) for i in range(30)) == [*range(30)]


def test_which_splits_it_has():
    sections = two()
    assert offers("data", "train", sections) and offers("data", "test", sections)
    assert not offers("data", "validation", sections)
    sections["amounts"]["validation_examples"] = 3
    assert offers("data", "validation", sections) and not offers("sums", "validation", sections)


def mixture_with(parts, **changes):
    """The tiny experiment on a mixture of the datasets `parts`."""
    named = {name: base.dataset(max_prompt=38, **part).to_dict() for name, part in parts.items()}
    of = tuple(parts)
    return {
        "datasets": named, "data.source": "mixture", "data.of": of, "data.validation_examples": 0,
        "evaluation.split": "test", **changes,
    }  # fmt: skip


BOTH = {"a": {}, "b": {"source": "legal", "levels": (1,)}}
TAGGED = {"template": "reasoning_tags"}
FILE = {"source": "rows", "train": "a.jsonl"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (mixture_with({"a": {}}), "data.of=('a',): expected two or more datasets, each once"),
        (
            mixture_with(BOTH | {"b": TAGGED}),
            "data.of=('a', 'b'): b has template='reasoning_tags', the mixture 'plain': expected t",
        ),
        (
            mixture_with(BOTH | {"b": {"shots": 2}}),
            "data.of=('a', 'b'): b has shots=2, a mixture shows none: set to 0",
        ),
        (
            mixture_with(BOTH, **{"data.of": ("a", "bb")}),
            "data.of=('a', 'bb'): 'bb' is none of the other datasets; did you mean b?",
        ),
        (
            mixture_with({"a": FILE, "b": {**FILE, "train": "b.csv"}}),
            "data.of=('a', 'b'): none of them has a test split",
        ),
        (
            mixture_with(BOTH, **{"data.train": "a.csv"}),
            "data.train='a.csv': source='mixture' reads no file: set it to None",
        ),
        (
            mixture_with(BOTH, **{"data.shots": 1}),
            "data.shots=1: source='mixture' has none to show: set it to 0",
        ),
        (
            mixture_with(BOTH, **{"stages.grpo.curriculum.order": "sorted"}),
            "stages.grpo.curriculum.order='sorted': a mixture has its own: use uniform",
        ),
        (
            mixture_with(BOTH, **{"evaluation.split": "validation"}),
            "stages.grpo.evaluation.split='validation': data has no validation examples",
        ),
        ({"data.of": ("a",)}, "data.of=('a',): only source='mixture' is made of others: set it"),
    ],
)
def test_what_a_config_may_say(changes, line):
    got = problems(changed({**changes, "stages.sft.evaluate_every": 10}), STAGES)
    assert got and got[0].startswith(line)
    assert problems(changed(mixture_with(BOTH)), STAGES) == []


def test_a_mixture_of_mixtures():
    inner = {"source": "mixture", "of": ("a", "b")}
    changes = mixture_with(BOTH | {"c": inner}, **{"data.of": ("a", "c")})
    (line,) = problems(changed(changes), STAGES)
    assert line == "data.of=('a', 'c'): c is no dataset of examples"


def test_a_tokenizer_sees_each_part_once(tmp_path, monkeypatch):
    """The same one as that of its parts alone."""
    seen = []

    def seen_texts(dataset):
        seen.append(dataset.report["source"])
        return texts_of(dataset)

    monkeypatch.setattr("grpo.runs.setup.texts_of", seen_texts)
    config = on_a_mixture()
    opened(config, tmp_path, io.StringIO())
    assert sorted(seen) == ["arithmetic", "stoichiometry"]


def on_a_mixture():
    config = small()
    for name, section in two().items():
        if name != "data":
            config.datasets[name] = base.ConfigDict(section)
    config.data.update(source="mixture", of=("sums", "amounts"))
    return config


def test_a_run_on_a_mixture(tmp_path):
    """Both stages learn from it; its ids say which dataset an example is of."""
    config = on_a_mixture()
    config.stages.sft, config.stages.grpo = small_sft(), small_grpo()
    config.stages.sft.update(steps=1)
    config.stages.grpo.update(iterations=2, evaluate_every=0)
    config.stages.grpo.loss.kl_coef = 0.0
    config.pipeline = ("sft", "grpo")
    with workshop():
        assert launch(config, tmp_path) == 0
    mix = load_datasets(two(mixing_temperature=1.0), 0)["data"]
    order = mix.order(mix.train, 0)
    wanted = [mix.train[order(i)]["id"] for i in range(2 * P)]
    assert [row["id"] for row in rows(tmp_path, "rollouts")][::2] == wanted
    assert json.loads((tmp_path / "data.json").read_text())["data"]["train/examples"] == 40
