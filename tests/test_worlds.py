"""What every world made here has in common: parts apart, short texts, few words, no surprises."""

import json

import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data.datasets import load_dataset, load_datasets
from grpo.data.examples import DataError
from grpo.data.making import make
from grpo.data.templates import TEMPLATES, prompt_ids, prompt_text, target_ids, target_text
from grpo.data.worlds import WORLDS
from grpo.pipeline import STAGES
from models.tokenizer import Tokenizer, train_tokenizer
from tests.refusals import changed

NEW = ("planning", "stoichiometry", "legal")
PLAIN = TEMPLATES["plain"]
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
EVERY = [(name, level) for name in NEW for level in WORLDS[name].levels]


def of(name, part, levels=None, count=300, seed=0, worked=1.0, validation=0.1):
    levels = levels or [*WORLDS[name].levels]
    return make(name, WORLDS[name], seed, count, levels, part, worked, validation)


@pytest.mark.parametrize("name", NEW)
def test_parts_share_no_problem(name):
    found = {
        part: {e["problem"] for e in of(name, part)} for part in ("train", "validation", "test")
    }
    assert min(map(len, found.values())) >= 8
    assert not found["test"] & (found["train"] | found["validation"])
    assert not found["train"] & found["validation"]
    assert of(name, "test", validation=0.0) == of(name, "test")


@pytest.mark.parametrize("name", NEW)
def test_examples_are_json_unique_and_a_prefix_of_more(name):
    many = of(name, "train", count=400, seed=3)
    assert len({e["question"] for e in many}) == len({e["id"] for e in many}) == 400
    assert of(name, "train", count=50, seed=3) == many[:50] != of(name, "train", count=50)
    assert json.loads(json.dumps(many)) == many
    assert {e["level"] for e in many} == set(WORLDS[name].levels)
    assert many[7]["id"] == f"{name}-3-train-7"
    some = of(name, "train", count=400, seed=3, worked=0.5)
    shown = [e["reasoning"] == other["reasoning"] for e, other in zip(some, many, strict=True)]
    assert 140 < sum(shown) < 260
    pairs = zip(some, many, strict=True)
    assert all(e["reasoning"] in (f"so {e['answer']}", m["reasoning"]) for e, m in pairs)


@pytest.mark.parametrize(("name", "level"), EVERY)
def test_a_small_tokenizer_makes_short_texts(name, level):
    """Of 512 pieces at most, trained as a run trains it."""
    learnt = of(name, "train", count=400)
    texts = [prompt_text(e, PLAIN) + target_text(e, PLAIN) for e in learnt]
    tok = Tokenizer(train_tokenizer(texts, 512, TAGS), "gemma3")
    examples = of(name, "train", [level], 200) + of(name, "test", [level], 50)
    assert tok.vocab_size <= 512
    assert max(len(prompt_ids(tok, e, PLAIN)) for e in examples) <= 63
    assert max(len(target_ids(tok, e, PLAIN)) for e in examples) <= 48


@pytest.mark.parametrize("name", NEW)
def test_a_config_names_it(name):
    data = base.dataset(
        source=name, levels=(1, 2), train_examples=30, validation_examples=6, test_examples=7
    )
    got = load_datasets({"data": data.to_dict()}, seed=4)["data"]
    assert [len(part) for part in got[:3]] == [30, 6, 7] and got.report == {"source": name}
    assert {e["level"] for e in got.train} == {1, 2}
    assert load_dataset(data.to_dict(), 4).train == got.train != load_dataset(data.to_dict(), 5)[0]
    assert problems(changed({"data.source": name, "data.levels": (1, 2)}), STAGES) == []


def test_levels_that_a_world_has_not():
    with pytest.raises(DataError, match=r"^level 4: there are 1 to 3$"):
        of("legal", "train", [1, 4])
    (line,) = problems(changed({"data.source": "legal", "data.levels": (1, 4, 5)}), STAGES)
    assert line == "data.levels=(1, 4, 5): legal has 1 to 3, and no 4"
    (line,) = problems(changed({"data.source": "planning", "data.test": "a.csv"}), STAGES)
    assert line.startswith("data.test='a.csv': source='planning' reads no file: set it to None")
