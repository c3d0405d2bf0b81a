"""GSM8K's own files against counts that were made without this code, and rows by hand."""

import functools
import json
import statistics

import numpy as np
import pytest

from grpo.data.examples import DataError
from grpo.data.filters import keep_short, require_disjoint, require_kept
from grpo.data.gsm8k import COLUMNS, from_row, load_gsm8k
from grpo.data.templates import TEMPLATES, prompt_ids
from tests.gsm8k import loaded, real_path
from tests.references.chat_tokenizers import tokenizer

NATALIA = {
    "question": "Natalia sold clips to 48 friends in April, then half as many in May. How many?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "In all she sold 48+24 = $<<48+24=72>>72.\n#### 1,072 ",
}


def test_by_hand():
    assert from_row(NATALIA, COLUMNS, strip_commas=True, calculator="removed") == {
        "question": NATALIA["question"],
        "answer": "1072",
        "reasoning": "Natalia sold 48/2 = 24 clips in May.\nIn all she sold 48+24 = $72.",
        "checkpoints": ["48/2=24", "48+24=72"],
        "level": 2,
    }
    assert from_row(NATALIA, COLUMNS, strip_commas=False, calculator="removed")["answer"] == "1,072"


def test_the_published_cleaning():
    """Every result stands there twice, and the checkpoints are the same."""
    got = from_row(NATALIA, COLUMNS, strip_commas=True, calculator="parentheses")
    assert got["reasoning"] == (
        "Natalia sold 48/2 = (48/2=24)24 clips in May.\nIn all she sold 48+24 = $(48+24=72)72."
    )
    assert (got["checkpoints"], got["level"]) == (["48/2=24", "48+24=72"], 2)


def test_a_solution_that_is_only_a_number():
    example = from_row(
        {"question": "1+1?", "answer": "#### 2"}, COLUMNS, strip_commas=True, calculator="removed"
    )
    assert (example["reasoning"], example["checkpoints"], example["level"]) == (None, [], 1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("72", "the answer has no '####' where it needs one"),
        ("1 #### 2 #### 3", "the answer has 2 '####' where it needs one"),
        ("so #### ", "what follows '####' is not one line of text"),
        ("so #### ,", "what follows '####' is not one line of text"),
        ("so #### 7\nor 8", "what follows '####' is not one line of text"),
    ],
)
def test_answers_without_a_gold(answer, reason):
    with pytest.raises(DataError, match=rf"\A{reason}\Z"):
        from_row(
            {"question": "?", "answer": answer}, COLUMNS, strip_commas=True, calculator="removed"
        )


def test_columns(tmp_path):
    file = tmp_path / "renamed.jsonl"
    file.write_text(json.dumps({"Q": "1+1?", "A": "#### 2", "key": "k1", "question": "not this"}))
    columns = {"question": "Q", "answer": "A", "id": "key"}
    (example,), _ = load_gsm8k(file, columns, True, 0.0, "removed")
    assert (example["id"], example["question"], example["answer"]) == ("k1", "1+1?", "2")
    with pytest.raises(DataError, match=r"\Acolumns: which one is the answer\?\Z"):
        load_gsm8k(file, {"question": "Q"}, True, 0.0, "removed")
    with pytest.raises(DataError, match=r"\Acolumns: 'level' is none of answer, id, question\Z"):
        load_gsm8k(file, {**columns, "level": "L"}, True, 0.0, "removed")


@pytest.mark.parametrize(
    ("part", "rows", "commas", "negative", "annotations", "without", "lines"),
    [("train", 7473, 79, 3, 3.17, 95, 3.58), ("test", 1319, 14, 2, 3.25, 18, 3.65)],
)
def test_published_counts(part, rows, commas, negative, annotations, without, lines):
    examples, report = loaded(part, strip_commas=False)
    assert report == {"rows": rows, "duplicates": 0, "bad": []} and len(examples) == rows
    golds = [example["answer"] for example in examples]
    assert sum("," in gold for gold in golds) == commas
    assert sum(gold.startswith("-") for gold in golds) == negative
    assert sum(gold == "0" for gold in golds) == (part == "train")
    found = [len(example["checkpoints"]) for example in examples]
    assert round(statistics.mean(found), 2) == annotations and found.count(0) == without
    assert round(statistics.mean(example["level"] for example in examples), 2) == lines
    assert not any("<<" in example["reasoning"] for example in examples)
    assert all(check.count("=") == 1 for example in examples for check in example["checkpoints"])


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_two_writings_of_golds(part):
    kept, stripped = loaded(part, strip_commas=False)[0], loaded(part, strip_commas=True)[0]
    for left, right in zip(kept, stripped, strict=True):
        assert str(int(right["answer"])) == right["answer"] == left["answer"].replace(",", "")
        assert {**left, "answer": None} == {**right, "answer": None}
    assert json.loads(json.dumps(kept)) == kept


def test_ids_are_the_lines_of_the_file():
    lines = real_path("train").read_text().split("\n")
    examples = loaded("train")[0]
    assert [example["id"] for example in examples[:2]] == ["train:1", "train:2"]
    # Line 2382 has U+2028 in it, which ends a line to str.splitlines.
    for example in (*examples[2380:2384], examples[-1]):
        assert json.loads(lines[int(example["id"][6:]) - 1])["question"] == example["question"]


def test_no_test_question_is_trained_on():
    require_disjoint(loaded("train")[0], loaded("test")[0], "gsm8k", "test", "the training ones")


@functools.cache
def question_lengths() -> list[int]:
    """Gemma 3's tokens of every training question."""
    tok = tokenizer("gemma3")
    return [len(tok.encode(example["question"], bos=False)) for example in loaded("train")[0]]


def test_published_token_statistics():
    tok, found = tokenizer("gemma3"), question_lengths()
    assert (round(np.mean(found)), np.percentile(found, 99), max(found)) == (59, 127, 213)
    rows = [json.loads(line) for line in real_path("train").read_bytes().splitlines()]
    answer = [len(tok.encode(row["answer"], bos=False)) for row in rows]
    assert (round(np.mean(answer)), np.percentile(answer, 99), max(answer)) == (123, 290, 455)


@pytest.mark.parametrize(
    ("template", "around", "dropped"),
    # plain: <bos> <start_of_turn> user \n, and <end_of_turn> \n <start_of_turn> model \n.
    [("plain", 9, 0), ("reasoning_tags", 43, 0), ("s1_kaggle", 60, 1), ("s1_repo", 63, 2)],
)
def test_share_of_prompts_within_256_tokens(template, around, dropped):
    examples = loaded("train")[0]
    length_of = {e["id"]: n + around for e, n in zip(examples, question_lengths(), strict=True)}
    # To tokenize every prompt takes long: the longest and some others are as reckoned.
    for example in [e for e in examples if length_of[e["id"]] > 200] + examples[::40]:
        ids = prompt_ids(tokenizer("gemma3"), example, TEMPLATES[template])
        assert len(ids) == length_of[example["id"]]
    kept, ratio = keep_short(examples, lambda example: length_of[example["id"]], 256)
    assert len(examples) - len(kept) == dropped and ratio == 1 - dropped / 7473
    require_kept(ratio, 0.999, "gsm8k")
