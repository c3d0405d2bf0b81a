"""A path becomes a policy: a checkpoint of a run, perhaps an older one, or a directory."""

import io
import json

import jax
import numpy as np
import pytest

from grpo.checks.problems import problems
from grpo.pipeline import STAGES
from grpo.runs.open_policy import open_policy
from grpo.storage.snapshot import SnapshotError
from grpo.tools.evaluate import only_evaluation
from models.loading import load_model, save_hf
from models.policy import logits
from tests.helpers import assert_trees_equal
from tests.small_run import (
    final,
    launch,
    opened,
    rows,
    sft_and_adapter,
    small,
    workshop,
)

IDS = np.arange(3, 15)[None] % 7 + 4


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    run = sft_and_adapter("adapter")
    folder = tmp_path_factory.mktemp("former") / "run"
    with workshop():
        assert launch(run, folder) == 0
        yield folder


def test_a_checkpoint_is_what_the_run_had_there(workdir):
    config = json.loads((workdir / "config.json").read_text())
    run = small()
    run.update(config)
    policies = opened(run, workdir, io.StringIO())[1]
    for stage in ("sft", "adapter"):
        for step in (1, 2):
            path = workdir / "checkpoints" / stage / f"{step:08d}"
            got, want = open_policy(path), policies.at(stage, path)
            assert_trees_equal(got.trainable, want.trainable)
            assert_trees_equal(got.frozen, want.frozen)
            assert got.lora == want.lora and got.own_tokenizer.proto == want.own_tokenizer.proto
    changes = jax.tree.map(
        np.subtract, got.trainable, open_policy(path.parent / "00000001").trainable
    )
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(changes))


def test_in_a_dtype_it_is_merged(workdir):
    path = final(workdir, "adapter")
    merged, adapted = open_policy(path, dtype="float32"), open_policy(path)
    assert merged.lora is None and adapted.lora is not None
    np.testing.assert_allclose(logits(merged, IDS), logits(adapted, IDS), atol=1e-5)
    assert open_policy(path, dtype="bfloat16").param_dtype == "bfloat16"


def test_a_directory_is_loaded(workdir, tmp_path):
    save_hf(open_policy(final(workdir, "sft")), tmp_path / "hf")
    got, want = open_policy(tmp_path / "hf"), load_model(tmp_path / "hf")
    assert_trees_equal(got.params, want.params)
    assert_trees_equal(got.params, open_policy(final(workdir, "sft")).params)


def test_a_run_of_an_older_version(workdir, tmp_path):
    """Its config.json lacks the fields that are new: they have their defaults."""
    older = tmp_path / "older"
    (older / "checkpoints").parent.mkdir()
    (older / "checkpoints").symlink_to(workdir / "checkpoints")
    (older / "tokenizer.model").symlink_to(workdir / "tokenizer.model")
    config = json.loads((workdir / "config.json").read_text())
    for field in ("unroll", "whole"):
        del config["model"][field]
    (older / "config.json").write_text(json.dumps(config))
    got, want = open_policy(final(older, "adapter")), open_policy(final(workdir, "adapter"))
    assert_trees_equal(got.trainable, want.trainable)
    for policy in (got, want):
        assert (policy.module.unroll, policy.module.remat) == (1, "dots")


def test_a_checkpoint_without_its_run(workdir, tmp_path):
    alone = tmp_path / "checkpoints" / "sft" / "00000002"
    alone.parent.mkdir(parents=True)
    alone.symlink_to(final(workdir, "sft"))
    with pytest.raises(
        SnapshotError, match=r"00000002: is no <workdir>/checkpoints/<stage>/<step>"
    ):
        open_policy(alone)


def test_an_evaluation_of_a_checkpoint_is_that_of_its_run(workdir, tmp_path):
    config = json.loads((workdir / "config.json").read_text())
    again = small()
    again.update(only_evaluation(config, str(final(workdir, "adapter"))))
    assert launch(again, tmp_path / "again") == 0
    got, want = (
        [(row["id"], row["completion"]) for row in rows(w, "evaluations/evaluate")]
        for w in (tmp_path / "again", workdir)
    )
    assert got == want and got


def test_an_evaluation_on_any_file(workdir, tmp_path):
    """All of its rows are asked, and right ones are counted; no training file is needed."""
    file = tmp_path / "asked.csv"
    file.write_text("problem,gold\nWhat is 1 and 2?,3\nWhat is 2 and 2?,4\nHow many?,5\n")
    run = small()
    run.update(json.loads((workdir / "config.json").read_text()))
    run.data.columns = {"question": "problem", "answer": "gold"}
    run.stages.evaluate.update(examples=1, split="validation")
    again = small()
    again.update(only_evaluation(run.to_dict(), str(final(workdir, "sft")), str(file)))
    assert problems(again.to_dict(), STAGES) == []
    assert launch(again, tmp_path / "again") == 0
    got = rows(tmp_path / "again", "evaluations/evaluate")
    assert [(row["question"], row["gold"]) for row in got] == [
        ("What is 1 and 2?", "3"), ("What is 2 and 2?", "4"), ("How many?", "5"),
    ]  # fmt: skip
    # Where something is trained, or a tokenizer made of the data, there must be training data.
    again.model.path = None
    assert problems(again.to_dict(), STAGES) == [
        "data.train=None: source='rows' needs a file: name one"
    ]


def test_an_evaluation_on_a_file_keeps_the_form_of_its_source():
    data = {"source": "gsm8k", "test": "x", "shots": 3, "max_prompt": 4, "buckets": (4, 9)}
    config = {
        "model": {"path": None}, "data": data,
        "datasets": {"more": {}}, "evaluation": {"data": "more", "split": "validation"},
        "pipeline": ("measure",), "stages": {"measure": {"kind": "evaluate", "data": "more"}},
    }  # fmt: skip
    got = only_evaluation(config, "model", "f.jsonl")
    assert (got["data"]["source"], got["data"]["test"], got["data"]["shots"]) == (
        "gsm8k", "f.jsonl", 0,
    )  # fmt: skip
    assert got["data"]["max_prompt"] == 9  # the longest that is compiled
    assert got["data"]["min_kept"] == 1.0
    assert got["datasets"] == {} and got["evaluation"] == {"data": None, "split": "test"}
    assert got["stages"]["measure"]["data"] is None
    config["data"]["source"] = "arithmetic"
    assert only_evaluation(config, "model", "f.jsonl")["data"]["source"] == "rows"
