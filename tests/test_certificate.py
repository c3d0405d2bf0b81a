"""Certificates: what runs, what is compared, and that a failure is said."""

import json
import pathlib

import jax
import numpy as np
import pytest

import grpo.training.train_step
from grpo.certificates.cell import Cell, run_cell
from grpo.certificates.certify import (
    BROKEN,
    HOLDS,
    OPEN,
    CertificateError,
    certify,
    expect,
    in_process_of_its_own,
    start_from,
    verdict,
)
from grpo.certificates.compare import Found, arrays_of, compared, tokens_apart
from grpo.certificates.variants import before, cut, variants
from grpo.pipeline import SAVED, with_presets
from grpo.tools.certificate import numbers_of, page, possible, require_ends, shown, stage_of
from tests.small_run import final, rows, small, small_evaluate, small_grpo, small_sft, workshop

ROOT = pathlib.Path(__file__).parent.parent


class Killed(BaseException):
    """As if the process were gone."""


def kill():
    raise Killed


def here(cell: Cell, devices: int, keeps_programs: bool) -> int:
    """Runs a cell in this process."""
    try:
        return run_cell(cell, kill)
    except Killed:
        return -9


def config(**grpo_fields):
    """Supervised training, and GRPO."""
    run, sft, grpo, evaluate = small(), small_sft(), small_grpo(), small_evaluate()
    grpo.loss.kl_coef = 0.0  # fewer programs to compile
    grpo.update(entropy=False, iterations=6, evaluate_every=2, checkpoint_every=4, **grpo_fields)
    run.stages.sft, run.stages.between = sft, evaluate
    run.stages.grpo, run.stages.evaluate = grpo, evaluate.copy_and_resolve_references()
    run.pipeline = ("sft", "between", "grpo", "evaluate")
    return with_presets(run.to_dict())


def certified(whole, folder, *, microbatches=(), meshes=(), run=here, name="grpo"):
    """The lines by variant, and the directories."""
    made = cut(whole, name, 2, 2)
    start = start_from(made, name, folder, run)
    every = [*variants(made, name, microbatches, meshes)]
    lines, environment = certify(every, name, folder, start, run=run, say=lambda text: None)
    return {line.name: line for line in lines}, environment


def test_what_is_left_of_a_config():
    whole = config()
    whole["stages"]["grpo"]["epochs"] = 2
    got = cut(whole, "grpo", 2, 2)
    assert got["pipeline"] == ("sft", "grpo") == (*before(whole, "grpo"), "grpo")
    sft, grpo = got["stages"]["sft"], got["stages"]["grpo"]
    assert (sft["steps"], grpo["iterations"]) == (2, 2)
    assert (sft["evaluate_every"], grpo["evaluate_every"], grpo["checkpoint_every"]) == (0, 0, 1)
    # Learning rates as in the whole stage: 6 iterations of 2 updates.
    assert grpo["optimizer"]["schedule_updates"] == 12
    assert sft["optimizer"]["schedule_updates"] == 3
    assert whole["stages"]["grpo"]["iterations"] == 6  # a copy


def test_the_variants():
    made = cut(config(), "grpo", 2, 2)
    got = {one.name: one for one in variants(made, "grpo", (1, 2), ((1, 1), (2, 1)))}
    assert {name: (one.beside, one.exact) for name, one in got.items()} == {
        "base": (None, True),
        "again, compiled anew": ("base", True),
        "microbatches=2": ("base", False),
        "mesh 2 x 1": ("base", False),
        "base, epochs=2": (None, True),
        "interrupted": ("base, epochs=2", True),
    }
    assert got["microbatches=2"].config["stages"]["grpo"]["microbatches"] == 2
    assert got["base"].config["stages"]["grpo"]["microbatches"] == 1
    assert got["mesh 2 x 1"].config["mesh"] == {"fsdp": 2, "tp": 1}
    last = got["interrupted"]
    # Within the first iteration, and within the second one.
    assert (last.stop_at, last.kill_at) == (1, 3) and last.config["stages"]["grpo"]["epochs"] == 2
    own = [*variants(cut(config(minibatches=2), "grpo", 2, 2), "grpo", (), ())]
    assert [(one.name, one.beside) for one in own][-1] == ("interrupted", "base")
    sft = [*variants(cut(config(), "sft", 3, 2), "sft", (), ())]
    assert (sft[-1].stop_at, sft[-1].kill_at, sft[-1].beside) == (1, 2, "base")
    assert [one.name for one in variants(cut(config(), "grpo", 1, 2), "grpo", (), ())][-1] != (
        "interrupted"
    )


def test_what_a_config_does_not_allow_is_named():
    made, left_out = cut(config(), "grpo", 2, 2), []
    every = variants(made, "grpo", (16,), ((16, 1), (1, 3), (2, 1)))
    names = [one.name for one in possible(every, left_out)]
    assert names == ["base", "again, compiled anew", "mesh 2 x 1", "base, epochs=2", "interrupted"]
    assert [line.split(": left out")[0] for line in left_out] == [
        "microbatches=16", "mesh 16 x 1", "mesh 1 x 3",
    ]  # fmt: skip
    assert "only 8 rows" in left_out[0] and "does not divide the 4 heads" in left_out[2]


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A certificate of everything, and its folder."""
    folder = tmp_path_factory.mktemp("certificate")
    with workshop():
        lines, environment = certified(config(), folder, microbatches=(2,), meshes=((2, 1),))
    return lines, environment, folder


def test_what_holds(held):
    lines, environment, _ = held
    assert {name: line.verdict for name, line in lines.items()} == dict.fromkeys(
        ("again, compiled anew", "microbatches=2", "mesh 2 x 1", "interrupted"), HOLDS
    )
    same = {name: line.found.same for name, line in lines.items()}
    assert same["again, compiled anew"] and same["interrupted"] and not same["microbatches=2"]
    found = lines["microbatches=2"].found
    assert found.rows_same == found.rows == 8 and found.first is None
    assert 0 < found.gradient < 1e-5 and 0 < found.parameters < 0.05 and found.relative > 0
    assert environment["backend"] == "cpu" and "commit" in environment
    exact = lines["interrupted"].found
    assert exact.parameters == exact.gradient == exact.loss == exact.logprobs == exact.relative == 0


def test_it_was_interrupted_within_iterations(held):
    """Of two iterations of two updates; the checkpoint within the first one has its groups."""
    folder = held[2]
    workdirs = sorted(folder.glob("variant-*"))
    last = workdirs[-1]
    assert [path.name for path in sorted((last / "checkpoints/grpo").glob("0*"))] == [
        "00000001", "00000002", "00000004",
    ]  # fmt: skip
    assert (last / "checkpoints/grpo/00000001/pending.npz").exists()
    assert (last / "checkpoints/sft").is_symlink() and rows(last, "environment")[3:] == []
    own = [row for row in rows(last, "metrics") if row["stage"] == "grpo"]
    assert len(rows(last, "environment")) == 3 and len(own) == 4


def test_a_loss_that_depends_on_microbatches_is_said(tmp_path, monkeypatch):
    """A thousandth per microbatch, on the gradient."""
    gradient = grpo.training.train_step.gradient

    def dependent(loss, trainable, frozen, batch, microbatches, group):
        grads, metrics = gradient(loss, trainable, frozen, batch, microbatches, group)
        scale = 1 + 1e-3 * (microbatches - 1)
        return jax.tree.map(lambda x: x * scale, grads), metrics

    monkeypatch.setattr(grpo.training.train_step, "gradient", dependent)
    whole = config()
    # Another optimizer, so that nothing that was compiled before serves.
    whole["stages"]["grpo"]["optimizer"] |= {"learning_rate": 2e-2, "clip_norm": None}
    with workshop():
        made = cut(whole, "grpo", 2, 2)
        start = start_from(made, "grpo", tmp_path, here)
        base, _, other, *_ = variants(made, "grpo", (2,), ())
        (line,), _ = certify(
            [base, other], "grpo", tmp_path, start, run=here, say=lambda text: None
        )  # fmt: skip
    assert line.name == "microbatches=2" and line.verdict == BROKEN
    assert line.found.gradient == pytest.approx(1e-3, rel=0.02)
    assert BROKEN in shown([line])


def test_equal_rewards_leave_nothing_to_compare(tmp_path):
    with (
        workshop(lambda example, completion: 0.5),
        pytest.raises(CertificateError, match=r"rewards of each group .* are equal.*--before=N"),
    ):
        certified(config(), tmp_path)


def test_a_run_that_draws_otherwise_each_time_is_said(tmp_path):
    """Another seed the second time."""
    seeds = iter(range(100))

    def unsteady(cell, devices, keeps_programs):
        other = {**cell.config, "seed": next(seeds)}
        return here(cell._replace(config=other), devices, keeps_programs)

    with workshop():
        made = cut(config(), "sft", 2, 2)
        lines, _ = certify(
            [*variants(made, "sft", (), ())][:2], "sft", tmp_path, None, run=unsteady,
            say=lambda text: None,
        )  # fmt: skip
    assert [line.verdict for line in lines] == [BROKEN]


def test_one_bit_is_seen(held, monkeypatch):
    """Of the last checkpoint."""
    folder = held[2]
    a, b = folder / "variant-0", folder / "variant-1"
    assert compared(a, b, "grpo").same

    def flipped(step, part):
        arrays = arrays_of(step, part)
        if b in step.parents and part == "optimizer":
            name = next(name for name in arrays if "/nu/" in name)
            changed = arrays[name].copy()
            changed.view(np.uint32).reshape(-1)[0] ^= 1
            arrays[name] = changed
        return arrays

    monkeypatch.setattr("grpo.certificates.compare.arrays_of", flipped)
    assert not compared(a, b, "grpo").same


def test_a_token_is_found_and_its_row_left_out():
    ids = np.array([[0, 5, 6, 7], [4, 5, 8, 9]])
    a = {
        "ids_BT": ids, "mask_BT": np.ones_like(ids), "completion_mask_BC": np.ones((2, 2), bool),
        "sample_logprob_BC": np.array([[-1.0, -2.0], [-3.0, -4.0]]),
    }  # fmt: skip
    assert tokens_apart(a, a) == (2, 2, None, 0.0)
    b = {**a, "ids_BT": ids + np.array([[0, 0, 0, 0], [0, 0, 0, 1]]),
         "sample_logprob_BC": np.array([[-1.0, -2.25], [-3.0, -9.0]])}  # fmt: skip
    assert tokens_apart(a, b) == (2, 1, "row 1, token 1", 0.25)
    a["completion_mask_BC"] = np.array([[1, 0], [1, 1]], bool)
    assert tokens_apart(a, b)[3] == 0  # beyond the completion
    assert tokens_apart({}, {}) == (0, 0, None, 0.0)


def found(**changes) -> Found:
    """Nothing apart."""
    nothing = {"rows": 8, "rows_same": 8, "first": None, "same": True}
    numbers = dict.fromkeys(set(Found._fields) - set(nothing), 0.0)
    return Found(**{**nothing, **numbers, **changes})


@pytest.mark.parametrize(
    ("changes", "exact", "is_float32", "said"),
    [
        ({}, True, True, HOLDS),
        ({"same": False}, True, True, BROKEN),
        ({"same": False}, True, False, BROKEN),
        ({"same": False, "gradient": 1e-6, "parameters": 1.0, "loss": 1.0}, False, True, HOLDS),
        ({"gradient": 2e-5}, False, True, BROKEN),
        ({"loss_first": 2e-5}, False, True, BROKEN),
        ({"logprobs": 2e-5}, False, True, BROKEN),
        ({"gradient": 2e-5}, False, False, OPEN),
        ({"rows_same": 7, "gradient": 0.1}, False, True, f"{OPEN}: other tokens"),
        ({"rows": 0, "rows_same": 0}, False, True, HOLDS),
    ],
)
def test_verdicts(changes, exact, is_float32, said):
    got = verdict(found(**changes), exact=exact, is_float32=is_float32, on_a_mesh=True)
    assert got == said


def test_only_a_mesh_excuses_other_tokens():
    """Sampling knows nothing of microbatches."""
    how = {"exact": False, "is_float32": True, "on_a_mesh": False}
    assert verdict(found(rows_same=7), **how) == BROKEN and verdict(found(), **how) == HOLDS


def test_a_process_that_is_killed_goes_on(tmp_path):
    """Another Python, as the command line starts it; what it leaves is resumed here."""
    cell = Cell(cut(config(), "sft", 3, 2), str(tmp_path / "run"), "sft", None, 2)
    assert in_process_of_its_own(cell, 1, True) == -9
    assert final(tmp_path / "run", "sft").name == "00000001"
    assert here(cell._replace(kill_at=None, stop_at=2), 1, True) == SAVED
    assert here(cell._replace(kill_at=None), 1, True) == 0


def test_a_process_that_did_not_end_well_is_an_error(tmp_path):
    (tmp_path / "run.log").write_text("lines\nerror: seed=-1: \ud800\n\n", "utf-8", "replace")
    with pytest.raises(CertificateError, match=r"mesh 2 x 1: ended with 2, expected 0: .*seed=-1"):
        expect(2, 0, "mesh 2 x 1", tmp_path / "run")
    with pytest.raises(CertificateError, match="nothing was said"):
        expect(-9, 0, "base", tmp_path / "other")
    expect(0, 0, "base", tmp_path / "other")


def test_the_page(held):
    lines, environment, _ = held
    text = page({"stage": "grpo"}, environment, [*lines.values()], ["mesh 9 x 9: left out"])
    text = " ".join(text.split())
    for words in ("| stage | grpo |", "| mesh 2 x 1 ", "8 of 8", "| bits |", "- mesh 9 x 9",
                  f"| jax | {environment['jax']} |"):  # fmt: skip
        assert words in text
    json.dumps([line.found._asdict() for line in lines.values()], allow_nan=False)


def test_which_stage():
    whole = config()
    assert stage_of(whole, None) == "grpo" and stage_of(whole, "sft") == "sft"
    whole["pipeline"] = ("sft", "between")
    assert stage_of(whole, None) == "sft"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: stage_of(config(), "evaluate"),
            "--stage=evaluate: trains nothing",
        ),
        (lambda: numbers_of("meshes", ["2"], 2), "--meshes=2: expected such as 2x1"),
        (lambda: numbers_of("meshes", ["2xa"], 2), "--meshes=2xa: expected such as 2x1"),
        (lambda: numbers_of("microbatches", ["1", "0"], 1), "--microbatches=1,0: expected numbers"),
    ],
)
def test_flags_that_say_nothing(call, said, capsys):
    with pytest.raises(SystemExit) as end:
        call()
    assert end.value.code == 2 and said in capsys.readouterr().err
    assert numbers_of("meshes", ["2x1", "1x4"], 2) == [(2, 1), (1, 4)]


def test_a_run_to_start_from_has_come_to_its_end(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        require_ends(tmp_path, config())
    said = f"error: --start={tmp_path}: has no final checkpoint of sft\n"
    assert end.value.code == 2 and capsys.readouterr().err == said


def test_judges_that_are_stages_to_come_are_left_out():
    whole = config()
    whole["judges"] = {name: {"model": name} for name in ("sft", "later")} | {
        "url": {"model": None}
    }
    assert cut(whole, "grpo", 2, 2)["judges"].keys() == {"sft", "url"}


def test_without_an_interruption_there_is_no_base_for_one():
    names = [one.name for one in variants(cut(config(), "grpo", 1, 2), "grpo", [], [])]
    assert names == ["base", "again, compiled anew"]
