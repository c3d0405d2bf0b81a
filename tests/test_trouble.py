"""Stages that cannot go on fail loudly, and leave what is good alone; the page on debugging."""

import pathlib
import re
import runpy

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.metrics import Metrics
from grpo.runs.stage_loop import TroubleError
from tests.small_run import launch, rows, small, small_grpo, small_sft, workshop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trouble")


def failing(example, completion):
    raise RuntimeError("the judge is out")


@pytest.fixture(scope="module")
def given_up(folder):
    """A run that rewards have failed, and its error."""
    config = small()
    config.patience = 2
    config.stages.grpo = small_grpo()
    config.stages.grpo.update(checkpoint_every=1, evaluate_every=0, iterations=9)
    config.pipeline = ("grpo",)
    with workshop(failing), pytest.raises(TroubleError) as error:
        launch(config, folder / "rewards")
    return folder / "rewards", error


def test_rewards_that_fail_again_and_again_end_the_run(folder, given_up):
    error = given_up[1]
    assert "100% of the completions have no reward, 2 times in a row" in str(error.value)
    assert "\n" not in str(error.value)
    reason, _, traceback = (folder / "rewards" / "FAILED").read_text().partition("\n\n")
    assert reason == f"TroubleError: {error.value}"
    assert traceback.startswith("Traceback") and "raise TroubleError(" in traceback
    (file,) = (folder / "rewards").glob("*-bad.npz")
    with np.load(file) as arrays:
        assert {"ids_BT", "advantage_B"} <= set(arrays.files)
        assert not arrays["advantage_B"].any()
    # One iteration was gone through, with nothing to learn; the checkpoint is of its end.
    (path,) = (folder / "rewards" / "checkpoints" / "grpo").glob("0*")
    assert path.name == "00000001"
    (row,) = rows(folder / "rewards", "metrics")
    assert row["reward/abstained"] == 1.0 and row["reward/tag_format/failed"] == 1.0


def test_updates_that_are_not_finite_end_the_run(folder, monkeypatch):
    def broken(scorer):
        def loss(trainable, frozen, rows):
            value = jnp.nan * jnp.sum(trainable["embedder"]["table"])
            return value, Metrics({"loss": value}, {})

        return loss

    monkeypatch.setattr("grpo.stages.sft.make_supervised_loss", broken)
    config = small()
    config.patience = 3
    config.stages.sft = small_sft()
    config.stages.sft.update(steps=9, checkpoint_every=2)
    config.pipeline = ("sft",)
    with workshop(), pytest.raises(TroubleError, match="not finite, 3 times in a row"):
        launch(config, folder / "updates")
    assert [row["skipped"] for row in rows(folder / "updates", "metrics")] == [1.0, 2.0, 3.0]
    assert [path.name for path in (folder / "updates/checkpoints/sft").glob("0*")] == ["00000002"]


PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "debugging.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("marker", "got"),
    [
        ("bad batch", r"advantage_B +float32 +\(8,\) +finite True\n.*'<start_of_turn>user\\n"),
        ("checkpoint", r"layers/mlp/up/w +\(2, 64, 256\) +rms 0\.\d+ finite True\n"),
    ],
)
def test_the_page_on_debugging_runs(given_up, tmp_path, capsys, marker, got):
    code = re.search(f"<!-- tested: {marker} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert code and code[1].count("runs/tiny") == 1
    (tmp_path / "code.py").write_text(code[1].replace("runs/tiny", str(given_up[0])))
    runpy.run_path(str(tmp_path / "code.py"))
    assert re.search(got, capsys.readouterr().out, re.DOTALL)


def test_the_page_on_debugging_tells_of_every_file(given_up):
    for path in given_up[0].iterdir():
        name = re.sub(r"^\w+-\d+-bad", "<stage>-<step>-bad", path.name)
        assert f"`{name}`" in PAGE or f"`{name}/" in PAGE, name
