"""GSM8K through the data layer as three published systems read it, with Gemma 3's own tokenizer.

`python -m tests.test_real_gsm8k_systems` prints counts, kept ratios and tokens.
"""

import functools

import numpy as np
import pytest

from configs import base
from grpo.data.contamination import contaminated
from grpo.data.datasets import Dataset, drop_long, load_dataset
from grpo.data.filters import keep_short
from grpo.data.templates import prompt_ids, target_ids
from tests.gsm8k import loaded, real_path
from tests.references.chat_tokenizers import tokenizer

FEW = 600  # examples whose tokens a test counts
PROMPT, TARGET = 256, 512  # tokens of an example that one of the systems keeps


def section(**changes):
    files = {part: str(real_path(part)) for part in ("train", "test")}
    return base.dataset(
        source="gsm8k", template="s3", max_prompt=PROMPT, **files, **changes
    ).to_dict()


def tokens_of(dataset: Dataset, count: int | None):
    """Tokens of prompts and of targets of the first training examples."""
    tok, examples = tokenizer("gemma3"), dataset.train[:count]
    prompts = [len(prompt_ids(tok, e, dataset.template)) for e in examples]
    targets = [len(target_ids(tok, e, dataset.template)) for e in examples if e["reasoning"]]
    return np.array(prompts), np.array(targets)


@functools.cache
def cleaned(calculator: str) -> Dataset:
    return load_dataset(section(calculator=calculator), 0)


def test_the_published_cleaning_leaves_every_result_twice():
    """By the file's own annotations, counted without the loader."""
    whole, right = cleaned("parentheses"), cleaned("removed")
    assert len(whole.train) == len(right.train) == 7473 and len(whole.test) == 1319
    for published, ours in zip(whole.train, right.train, strict=True):
        assert published["checkpoints"] == ours["checkpoints"]
        assert "<<" not in (published["reasoning"] or "") and "<<" not in (ours["reasoning"] or "")
        for equation in published["checkpoints"]:
            assert f"({equation})" in published["reasoning"]
    pairs = zip(whole.train, right.train, strict=True)
    extra = [len(w["reasoning"]) - len(r["reasoning"]) for w, r in pairs]
    annotated = [sum(len(c) + 2 for c in e["checkpoints"]) for e in right.train]
    assert extra == annotated


def test_the_published_cleaning_costs_tokens():
    prompts, right = tokens_of(cleaned("removed"), FEW)
    _, published = tokens_of(cleaned("parentheses"), FEW)
    assert 1.2 < published.mean() / right.mean() < 1.6
    assert prompts.max() <= PROMPT and 80 < prompts.mean() < 160


def test_checkpoints_without_a_teacher():
    """Annotations are checkpoints: 3.17 per training row, of which 95 have none."""
    counts = np.array([len(e["checkpoints"]) for e in cleaned("removed").train])
    assert round(counts.mean(), 2) == 3.17 and (counts == 0).sum() == 95
    held = np.array([len(e["checkpoints"]) for e in cleaned("removed").test])
    assert round(held.mean(), 2) == 3.25 and (held == 0).sum() == 18


def test_over_length_is_dropped_and_counted():
    few = cleaned("removed")._replace(train=cleaned("removed").train[:FEW], test=[])
    tok = tokenizer("gemma3")
    got = drop_long(few, lambda e: len(prompt_ids(tok, e, few.template)), section())
    assert got.report["train/kept"] >= 0.99
    kept, ratio = keep_short(few.train, lambda e: len(target_ids(tok, e, few.template)), TARGET)
    assert ratio == len(kept) / FEW >= 0.99


def test_questions_of_the_test_in_the_training():
    """13 words in a row are shared by some; none of them is the same question."""
    train, test = loaded("train")[0], loaded("test")[0]
    pairs = contaminated(train, test, 13)
    assert 0 < len(pairs) < 0.01 * len(train)
    assert all(t["question"] != h["question"] for t, h in pairs)


def show() -> None:
    """Counts, kept ratios and tokens of each system."""

    def line(name: str, tokens: np.ndarray, limit: int) -> None:
        p50, p99 = np.percentile(tokens, (50, 99)).astype(int)
        kept = np.mean(tokens <= limit)
        print(f"  {name}: mean {tokens.mean():.1f}, p50 {p50}, p99 {p99}, most {tokens.max()}; "
              f"{kept:.4%} have {limit} or fewer")  # fmt: skip

    for calculator in ("removed", "parentheses"):
        data = cleaned(calculator)
        prompts, targets = tokens_of(data, None)
        print(f"full SFT, annotations {calculator}: {len(data.train)} train, {len(data.test)} test")
        line("prompt tokens", prompts, PROMPT)
        line("target tokens", targets, TARGET)
        whole = prompts[: len(targets)].mean() + targets.mean()
        print(f"  about {whole:.0f} of 2048 tokens are used: {1 - whole / 2048:.1%} is padding")
    data = cleaned("removed")
    for split in ("train", "test"):
        counts = np.array([len(e["checkpoints"]) for e in getattr(data, split)])
        print(
            f"checkpoints, {split}: {counts.mean():.2f} per row, most {counts.max()}, "
            f"none in {(counts == 0).sum()}"
        )
    words = np.array([len(e["reasoning"].split()) for e in data.train])
    more = ", ".join(f"{np.mean(words > n):.1%} more than {n}" for n in (20, 50))
    print(f"hybrid: of the gold rationales {more} words")
    print(f"  lines of each, from 1: {np.bincount([e['level'] for e in data.train])[1:]}")
    for n in (8, 13):
        found = len(contaminated(data.train, data.test, n))
        print(f"{n} words in a row of a test question: {found} training questions")


if __name__ == "__main__":
    try:
        show()
    except pytest.skip.Exception as reason:
        print(f"skipped: {reason}")
