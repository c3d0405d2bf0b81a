"""A run whose evaluation has baselines, samples and domains; stopped, it goes on bit by bit."""

import io
import json

import pytest

import grpo.rollout.generate
import grpo.runs.setup
from grpo.data.datasets import load_datasets
from grpo.data.padding import pad_prompts
from grpo.data.templates import TEMPLATES, prompt_ids
from grpo.evaluation.evaluate import evaluate_greedy, evaluate_samples
from grpo.pipeline import STAGES
from grpo.runs.shapes import base_of
from tests.small_run import (
    C,
    assert_same_run,
    launch,
    opened,
    rows,
    small,
    small_evaluate,
    small_sft,
    stop_at,
    watched,
    workshop,
)

LONG = 200
LABELS = ["base, 0 shots", "base, 2 shots", "sft"]
DOMAINS = ("sums", "sums", "law")


def config_of():
    config = small()
    config.stages.sft, config.stages.evaluate = small_sft(), small_evaluate()
    config.stages.sft.update(steps=2, evaluate_every=0)
    config.stages.evaluate.update(
        policies=("sft",), baselines=(0, 2), baseline_prompt=LONG, samples=2, ks=(1, 2), examples=3,
    )  # fmt: skip
    config.stages.evaluate.sampling.update(preset="liberal", seed=5)
    config.pipeline = ("sft", "evaluate")
    return config


def with_domains(sections, seed, check):
    """The datasets, their test examples with domains."""
    loaded = load_datasets(sections, seed, check)
    for example, domain in zip(loaded["data"].test, DOMAINS, strict=False):
        example["domain"] = domain
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.runs.setup, "load_datasets", with_domains)
        yield folder


@pytest.fixture(scope="module")
def straight(folder):
    """A run that nothing interrupts, and the widths of the prompts it padded."""
    widths = []

    def seen(prompts, buckets):
        padded = pad_prompts(prompts, buckets)
        widths.append(padded[0].shape)
        return padded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.rollout.generate, "pad_prompts", seen)
        assert launch(config_of(), folder / "straight") == 0
    return folder / "straight", widths


def evaluations(workdir):
    return rows(workdir / "evaluations", "evaluate")


def results(workdir):
    return json.loads((workdir / "evaluations" / "evaluate.json").read_text())


def test_baselines_stand_before_the_policies(straight):
    assert list(results(straight[0])) == LABELS
    assert list(dict.fromkeys(row["policy"] for row in evaluations(straight[0]))) == LABELS
    table = (straight[0] / "summary.md").read_text().split("\n\n")[2].split("\n")
    assert [line.split("|")[1].strip() for line in table[2:]] == LABELS


def test_all_are_asked_the_same_problems(straight):
    asked = {
        label: [row["id"] for row in evaluations(straight[0]) if row["policy"] == label]
        for label in LABELS
    }
    ids = [f"arithmetic-0-test-{n}" for n in range(3)]
    wanted = [*ids, *(one for one in ids for _ in range(2))]
    assert [*asked.values()] == [wanted] * 3


def test_the_exact_prompts_are_kept(straight):
    """Two training examples with their solutions before the question, in turns; or none."""
    run, policies = opened(config_of(), straight[0], io.StringIO())
    tokenizer, data = policies.base.own_tokenizer, run.datasets["data"]
    shots = {"base, 2 shots": data.train[:2]}
    for row in evaluations(straight[0]):
        if row["sample"]:
            continue
        example = next(e for e in data.test if e["id"] == row["id"])
        template = {**TEMPLATES["plain"], "shots": shots.get(row["policy"], [])}
        assert row["prompt_ids"] == prompt_ids(tokenizer, example, template)
        assert row["prompt"].count("<start_of_turn>user") == 1 + len(template["shots"])
        for shot in template["shots"]:
            assert shot["question"] in row["prompt"]
            assert f"{shot['reasoning']}</reasoning><answer>{shot['answer']}" in row["prompt"]


def test_baselines_are_of_the_base(straight):
    """And not of what training has left of it: the metrics, and what it wrote."""
    run, policies = opened(config_of(), straight[0], io.StringIO())
    data = run.datasets["data"]
    examples, setting = data.test[:3], run.setting(data)
    metrics, own = evaluate_greedy(policies.base, examples, setting, batch=2, max_new_tokens=C)
    sampling = {"temperature": 0.85, "top_k": 2000, "top_p": 1.0, "min_p": 0.0}
    more, samples = evaluate_samples(
        policies.base, examples, setting._replace(seed=5), batch=2, max_new_tokens=C, samples=2,
        sampling=sampling, ks=(1, 2),
    )  # fmt: skip
    found = {**results(straight[0])["base, 0 shots"]}
    del found["domains"]
    assert found == {**metrics, **more}
    wrote = {
        label: [row["completion"] for row in evaluations(straight[0]) if row["policy"] == label]
        for label in LABELS
    }
    assert wrote["base, 0 shots"] == [row["completion"] for row in [*own, *samples]]
    assert wrote["sft"] != wrote["base, 0 shots"] != wrote["base, 2 shots"]


def test_the_seed_is_that_of_the_decoding(straight):
    """Another one than the run's: greedy completions do not know it."""
    run, policies = opened(config_of(), straight[0], io.StringIO())
    examples = run.datasets["data"].test[:3]
    _, own = evaluate_samples(
        policies.base, examples, run.setting(run.datasets["data"]), batch=2, max_new_tokens=C,
        samples=2, sampling={"temperature": 0.85, "top_k": 2000, "top_p": 1.0, "min_p": 0.0},
        ks=(1,),
    )  # fmt: skip
    here = [row for row in evaluations(straight[0]) if row["policy"] == "base, 0 shots"][3:]
    assert [row["completion"] for row in own] != [row["completion"] for row in here]


def test_only_prompts_with_shots_are_long(straight):
    """Per policy two batches greedily, then three of samples: all in the programs of `build`."""
    widths = [width for _, width in straight[1]]
    assert widths == [64] * 5 + [LONG] * 5 + [64] * 5
    config = config_of().to_dict()
    programs = STAGES["evaluate"].build(config, "evaluate", base_of(config))
    shapes = {case[2].shape for name, one in programs.items() if "rollout" in name
              for case in one.cases}  # fmt: skip
    assert shapes == set(straight[1])
    assert [name for name in programs if "weights" not in name] == [
        "rollout", "rollout of samples", "rollout with shots", "rollout of samples with shots",
    ]  # fmt: skip


def test_domains(straight):
    """In the file of the shares with their counts, in the summary, in no other."""
    found = results(straight[0])
    for label in LABELS:
        domains = found[label]["domains"]
        assert {name: of["problems"] for name, of in domains.items()} == {"law": 1, "sums": 2}
        mean = sum(of["problems"] * of["accuracy/lenient"] for of in domains.values()) / 3
        assert mean == pytest.approx(found[label]["accuracy/lenient"])  # of greedy ones
    assert "| domain | problems | base, 0 shots | " in " ".join(
        (straight[0] / "summary.md").read_text().split()
    )
    metrics = [row for row in rows(straight[0], "metrics") if row["stage"] == "evaluate"]
    assert [row["policy"] for row in metrics] == LABELS
    assert not any("domains" in row for row in metrics)


def test_a_run_that_is_stopped_among_its_baselines_goes_on_bit_by_bit(folder, straight):
    workdir = folder / "stopped"
    for event, nth, measured in (("evaluate 1", 2, 0), ("evaluate 0", 3, 1), ("evaluate 1", 4, 2)):
        with watched(stop_at(event, nth)):
            assert launch(config_of(), workdir) == 75
        done = workdir / "evaluations" / "evaluate.json"
        assert len(json.loads(done.read_text()) if done.exists() else {}) == measured
    assert launch(config_of(), workdir) == 0
    assert_same_run(straight[0], workdir)


def test_prompts_that_do_not_fit_end_the_run_before_weights_load(folder, capsys, monkeypatch):
    config = config_of()
    config.stages.evaluate.baseline_prompt = 70
    monkeypatch.setattr("grpo.runs.open_policy.init_params", lambda *_: pytest.fail("weights"))
    assert launch(config, folder / "short") == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert line.startswith("error: stages.evaluate.baselines: with 2 shots the longest prompt has ")
    assert line.endswith("tokens, stages.evaluate.baseline_prompt allows 70")
