"""Solutions that a policy writes within a run, and supervised training on them."""

import io
import zlib

import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data.examples import DataError
from grpo.data.templates import target_text
from grpo.judges import teacher
from grpo.pipeline import STAGES
from grpo.rollout.generate import Sampler
from grpo.runs.shapes import base_of
from grpo.runs.solutions import solutions
from grpo.tools.preflight import preflight
from tests.small_run import (
    C,
    assert_same_run,
    final,
    launch,
    opened,
    rows,
    small,
    small_sft,
    stop_at,
    watched,
    workshop,
)

QUESTIONS, BATCH, SAMPLES = 10, 4, 2


def by_checksum(example, completion, *, least):
    """What a random model never writes: a solution of its own to some questions."""
    number = zlib.crc32(completion.encode("utf-8", "surrogatepass")) % 1000
    if number % 3 == 0:
        return "wrong"
    written = f"<reasoning>{number}+1={number + 1}</reasoning><answer>{example['answer']}</answer>"
    return teacher.own_trace_of(example, written, least=least)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with workshop(), pytest.MonkeyPatch.context() as patch:
        way = teacher.WAYS["as_trained"]._replace(trace_of=by_checksum)
        patch.setitem(teacher.WAYS, "as_trained", way)
        yield tmp_path_factory.mktemp("runs")


def small_traces(**fields) -> base.ConfigDict:
    stage = base.traces()
    stage.update(policy="sft", examples=QUESTIONS, batch=BATCH, samples=SAMPLES, max_new_tokens=C)
    stage.update(max_target=80)
    stage.update(fields)
    return stage


def config_of(**fields) -> base.ConfigDict:
    config = small()
    config.stages.sft, config.stages.more = small_sft(), small_sft()
    config.stages.traces = small_traces(**fields)
    config.stages.more.update(solutions="traces", max_target=80)
    config.pipeline = ("sft", "traces", "more")
    return config


@pytest.fixture(scope="module")
def straight(folder):
    """A run that nothing interrupts, and what was asked of the sampler."""
    asked, sample = [], Sampler.sample

    def seen(self, prompts, key_B, **named):
        asked.append((self._buckets, len(prompts), named))
        return sample(self, prompts, key_B, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "sample", seen)
        assert launch(config_of(), folder / "straight") == 0
    return folder / "straight", asked


def test_what_it_leaves(straight):
    workdir, _ = straight
    made, left = (rows(workdir / "traces" / "traces", name) for name in ("traces", "dropped"))
    run, policies = opened(config_of(), workdir, io.StringIO())
    train = run.datasets["data"].train[:QUESTIONS]
    kept = [row["prompt"] for row in made]
    assert len(made) + len(left) == QUESTIONS and made and left
    assert kept == [e["question"] for e in train if e["question"] in kept]
    assert {row["reason"] for row in left} <= {"wrong", "repeated"}
    # Each question was asked once, and those without a solution once more.
    replies = len(rows(workdir / "traces" / "traces", "replies"))
    metrics = [row for row in rows(workdir, "metrics") if row["stage"] == "traces"]
    after_first = metrics[2]  # of 10 questions in batches of 4
    open_after_first = round(QUESTIONS * (1 - after_first["traces/kept"]))
    assert replies == QUESTIONS + open_after_first
    assert len(metrics) == 3 + -(-open_after_first // BATCH)
    first = sum(value for name, value in metrics[0].items() if name.startswith("traces/"))
    assert first == pytest.approx(BATCH / QUESTIONS)  # the others have not been asked
    assert metrics[-1] == {
        "stage": "traces", "step": len(metrics),
        "traces/kept": len(made) / QUESTIONS,
        **{f"traces/{why}": sum(row["reason"] == why for row in left) / QUESTIONS
           for why in ("form", "wrong", "checkpoints", "repeated")},
        "traces/too_long": 0.0, "traces/prompt_too_long": 0.0,
    }  # fmt: skip
    learnt = solutions(
        run, "more", policies.base.own_tokenizer, source="traces", limit=80, most=None
    )
    template = run.datasets["data"].template
    assert [target_text(example, template) for example in learnt] == [row["chosen"] for row in made]


def test_its_programs_are_those_that_a_preflight_lowers(straight):
    _, asked = straight
    config = config_of().to_dict()
    program = STAGES["traces"].build(config, "traces", base_of(config))["rollout"]
    ((_, _, ids_PI, _, key_B, *_),) = program.cases
    assert {(buckets, rows) for buckets, rows, _ in asked} == {((64,), BATCH)}
    assert ids_PI.shape == (BATCH, 64) and key_B.shape == (BATCH,)
    assert {(named["group"], named["max_new_tokens"]) for *_, named in asked} == {(1, C)}
    assert program.static == {"group": 1, "max_new_tokens": C}
    config["stages"]["traces"] |= {"ask": "instructed", "max_prompt": 700}
    lines = preflight({**config, "pipeline": ("traces",)}, STAGES)
    assert any(line.startswith("traces: rollout: 4 prompts of 700 tokens, 1 x 6") for line in lines)


def test_stopped_anywhere_it_ends_bit_by_bit_like_one_that_is_not(folder, straight):
    workdir, whole = folder / "stopped", straight[0]
    traces = workdir / "traces" / "traces"
    for event, nth in (("traces 0", 1), ("traces 0", 2), ("more update 1", 1)):
        with watched(stop_at(event, nth)) as events:
            assert launch(config_of(), workdir) == 75
        if event == "traces 0":
            assert [path.name for path in traces.iterdir()] == ["replies.jsonl"]
            # As if killed while the rows of the batch were written.
            data = (traces / "replies.jsonl").read_bytes()
            (traces / "replies.jsonl").write_bytes(data[:-150])
        else:
            assert events.count("traces 0") < 5
    with watched(lambda run, event: None) as events:
        assert launch(config_of(), workdir) == 0
    assert "traces 0" not in events
    assert_same_run(whole, workdir)


def test_solutions_are_a_dataset_for_a_later_run(folder, straight):
    """The same updates, from the file as a dataset and the former run's checkpoint."""
    config = config_of()
    config.pipeline, config.model.path = ("more",), str(final(straight[0], "sft"))
    config.stages.more.update(solutions=None, data="made")
    config.datasets.made = base.dataset(
        source="traces", train=str(straight[0] / "traces" / "traces" / "traces.jsonl"),
        columns=teacher.COLUMNS, max_prompt=64,
    )  # fmt: skip
    assert launch(config, folder / "later") == 0
    first, second = (
        [row for row in rows(run, "metrics") if row["stage"] == "more"]
        for run in (straight[0], folder / "later")
    )
    assert first == second and len(first) == 3


def test_a_stage_that_is_done_is_not_gone_through(straight, monkeypatch):
    run, policies = opened(config_of(), straight[0], io.StringIO())
    monkeypatch.setattr(policies, "end", lambda stage: pytest.fail(f"{stage} is read"))
    STAGES["traces"].run(run, "traces", policies)


def test_too_few_solutions(folder):
    config = config_of(policy="base", min_kept=1.0)
    config.pipeline = ("traces",)
    with pytest.raises(DataError, match=r"^stages.traces: questions with a solution: [\d.]+% of"):
        launch(config, folder / "few")
    left = folder / "few" / "traces" / "traces"
    assert sorted(path.name for path in left.iterdir()) == ["dropped.jsonl", "replies.jsonl"]


def test_prompts_that_are_too_long_are_not_asked(folder):
    config = config_of(policy="base", max_prompt=1, min_kept=0.0)
    config.pipeline = ("traces",)
    with pytest.raises(DataError, match=r"0\.0% of the examples are kept"):
        launch(config, folder / "long")
    dropped = rows(folder / "long" / "traces" / "traces", "dropped")
    assert [row["reason"] for row in dropped] == ["prompt too long"] * QUESTIONS
    assert rows(folder / "long", "metrics")[-1]["traces/prompt_too_long"] == 1.0


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, None),
        ({"ask": "nicely"}, "stages.traces.ask='nicely': expected one of instructed, as_trained"),
        ({"samples": 0}, "stages.traces.samples=0: expected an integer, at least 1"),
        ({"checkpoints": -1}, "stages.traces.checkpoints=-1: expected an integer, at least 0"),
        ({"policy": "more"}, "stages.traces.policy: 'more' is neither base nor a training stage"),
        ({"policy": "sff"}, "stages.traces.policy: 'sff' is neither base nor a training stage bef"),
        ({"data": "mroe"}, "stages.traces.data='mroe': is none of datasets"),
        ({"ask": "instructed"}, "stages.traces.max_prompt=None: the instruction adds to"),
        (
            {"sampling": {**base.sampling().to_dict(), "temperature": 0.0}},
            "stages.traces.sampling.temperature=0: the 2 samples would be the same",
        ),
    ],
)
def test_a_stage_that_cannot_be(changes, line):
    config = config_of().to_dict()
    config["stages"]["traces"] |= changes
    found = problems(config, STAGES)
    assert [each[: len(line)] for each in found] == [line] if line else found == []


@pytest.mark.parametrize(
    ("solutions", "pipeline", "line"),
    [
        ("trases", None, "stages.more.solutions='trases': is no stage of kind 'traces'; did you"),
        ("sft", None, "stages.more.solutions='sft': is no stage of kind 'traces'"),
        (3, None, "stages.more.solutions=3: expected a text"),
        ("traces", ("sft", "more", "traces"), "stages.more.solutions='traces': the stage must sta"),
        ("traces", ("sft", "more"), "stages.more.solutions='traces': the stage must stand before"),
    ],
)
def test_solutions_that_cannot_be(solutions, pipeline, line):
    config = config_of().to_dict()
    config["stages"]["more"]["solutions"] = solutions
    config["pipeline"] = pipeline or config["pipeline"]
    assert [each[: len(line)] for each in problems(config, STAGES)] == [line]
