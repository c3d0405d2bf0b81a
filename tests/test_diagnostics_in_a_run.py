"""A run that looks into its updates: what it says is so, and nothing else of it changes."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from grpo.algorithms.presets import objective_of
from grpo.diagnostics.forecast import Fitted
from grpo.replays.changes import with_changes
from grpo.replays.looked_into import Wanted
from grpo.replays.place import ReplayError
from grpo.runs.stage_loop import StageLoop, TroubleError
from models.policy import Policy, logits
from tests.small_run import (
    G,
    P,
    arrays,
    assert_same_run,
    final,
    launch,
    newest,
    opened,
    rows,
    small,
    small_grpo,
    stop_at,
    watched,
    workshop,
)
from tests.test_replay import looked, made_by, rough
from tests.test_trouble import failing

ROOT = pathlib.Path(__file__).parent.parent
OURS = ("forecast/", "gradient/")
CHANGES = ("predicted_change", "realised_change")


def cut(*, asked: bool = True) -> base.ConfigDict:
    """All parameters, four updates of an iteration in halves, two rewards; tokens are logged."""
    config, stage = small(), small_grpo()
    stage.update(epochs=2, minibatches=2, microbatches=2, evaluate_every=1, checkpoint_every=2)
    stage.optimizer.learning_rate = 1e-3
    stage.rewards.length = base.reward(0.5, 0.0, 1.0, least=1, most=1)
    stage.sampling.temperature = 0.8
    if asked:
        stage.update(forecast_every=2, by_reward_every=1)
    config.stages.grpo, config.pipeline, config.log.tokens = stage, ("grpo",), True
    return config


def refilled() -> base.ConfigDict:
    """An adapter, one update of an iteration; groups without a spread are drawn again."""
    config, stage = small(), small_grpo()
    stage.lora.update(rank=4)
    stage.update(dynamic_sampling="refill", max_rounds=2, evaluate_every=0, checkpoint_every=2)
    stage.update(forecast_every=1, by_reward_every=3)
    config.stages.grpo, config.pipeline, config.log.tokens = stage, ("grpo",), True
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnosed")
    with workshop(rough), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def made(folder):
    """The run, with what each update learnt from and left."""
    return made_by(cut(), folder / "cut")


@pytest.fixture(scope="module")
def again(folder):
    return made_by(refilled(), folder / "refilled")


def updates(workdir):
    return [row for row in rows(workdir, "metrics") if "loss" in row]


def test_nothing_else_of_the_run_changes(made, folder):
    assert launch(cut(asked=False), folder / "unasked") == 0
    unasked = folder / "unasked"
    assert arrays(final(unasked, "grpo")) == arrays(final(made.workdir, "grpo"))
    told = [
        {name: x for name, x in row.items() if not name.startswith(OURS)}
        for row in rows(made.workdir, "metrics")
    ]
    assert told == rows(unasked, "metrics")
    drawn = rows(made.workdir, "rollouts")
    for row in drawn:
        for name in CHANGES:
            row["per_token"].pop(name, None)
    assert drawn == rows(unasked, "rollouts")


def test_the_first_update_of_every_so_many_iterations(made):
    """Of three iterations of four updates: forecasts of the first and third, gradients of all."""
    for row in updates(made.workdir):
        asked = {name.split("/")[0] for name in row if name.startswith(OURS)}
        first = row["step"] % 4 == 1
        wanted = {"gradient"} if first else set()
        assert asked == wanted | ({"forecast"} if first and row["iteration"] != 1 else set())
    row = updates(made.workdir)[8]
    names = {"tag_format", "length", "(no reward)"}
    assert {name for name in row if name.startswith(OURS)} == {
        *(f"forecast/{name}" for name in Fitted._fields),
        *(f"gradient/{name}/{x}" for name in names for x in ("norm", "cosine")),
        "gradient/conflict", "gradient/residual",
    }  # fmt: skip


def scores(policy: Policy, trainable, batch) -> np.ndarray:
    """log π of the batch's tokens at the sampler's temperature, in float64 out of the logits."""
    C = batch.completion_mask_BC.shape[1]
    z = logits(policy.with_trained(trainable), batch.ids_BT, batch.mask_BT)
    z = np.asarray(z, np.float64)[:, -C - 1 : -1] / 0.8
    z -= z.max(-1, keepdims=True)
    told = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return np.take_along_axis(told, np.asarray(batch.ids_BT)[:, -C:, None], -1)[..., 0]


def test_the_forecast_against_differences_and_logits(made):
    """The derivative by small steps there and back, the change by the parameters themselves."""
    _, policies = opened(cut(), made.workdir, sys.stderr)
    policy, batch = policies.start("grpo"), made.batches[8]
    before, after = (state.trainable for state in made.states[7:9])
    mask_BC = np.asarray(batch.completion_mask_BC, bool)

    def at(c):
        return scores(policy, jax.tree.map(lambda x, y: x + c * (y - x), before, after), batch)

    predicted = ((at(0.02) - at(-0.02)) / 0.04)[mask_BC]
    realised = (at(1.0) - at(0.0))[mask_BC]
    assert np.sqrt(np.mean(realised**2)) > 0.01
    row = updates(made.workdir)[8]
    wanted = {
        "correlation": np.corrcoef(predicted, realised)[0, 1],
        "slope": (predicted * realised).sum() / (predicted**2).sum(),
        "unexplained": ((realised - predicted) ** 2).sum() / (realised**2).sum(),
        "predicted": np.sqrt(np.mean(predicted**2)),
        "realised": np.sqrt(np.mean(realised**2)),
    }
    for name, value in wanted.items():
        assert row[f"forecast/{name}"] == pytest.approx(value, rel=5e-3, abs=2e-4), name
    told = [shown["per_token"] for shown in in_batch(made, 8)]
    for name, values in (("predicted_change", predicted), ("realised_change", realised)):
        got = [x for tokens in told for x in tokens[name]]
        np.testing.assert_allclose(got, values, atol=2e-3 * np.abs(values).max())


def in_batch(made, update: int) -> list[dict]:
    """The row of rollouts.jsonl of each row of a batch, found by its log-probs."""
    batch = made.batches[update]
    iteration = updates(made.workdir)[update]["iteration"]
    drawn = [row for row in rows(made.workdir, "rollouts") if row["iteration"] == iteration]
    found = []
    for mask_C, logprob_C in zip(batch.completion_mask_BC, batch.sample_logprob_BC, strict=True):
        told = [round(float(x), 4) for x in np.asarray(logprob_C)[np.asarray(mask_C, bool)]]
        alike = [row for row in drawn if told and row["per_token"]["sample_logprob"] == told]
        assert len(alike) == bool(told)
        found += alike
    return found


def place_of(row):
    """Where a completion stands in its iteration."""
    return row["round"], row["group"], row["per_token"]["sample_logprob"]


def test_tokens_have_the_changes_of_their_own_update(made, again):
    """Those that the first update learnt from; of the rows of a group that was left out none."""
    numbers = []
    for run, of_updates in ((made, (0, 4, 8)), (again, (0, 1, 2))):
        for update in of_updates:
            looked_at = run is again or update != 4
            iteration = updates(run.workdir)[update]["iteration"]
            known = [row for row in rows(run.workdir, "rollouts") if row["iteration"] == iteration]
            with_changes = [row for row in known if CHANGES[0] in row["per_token"]]
            learnt = in_batch(run, update) if looked_at else []
            assert sorted(map(place_of, with_changes)) == sorted(map(place_of, learnt))
            numbers.append((len(known), len(with_changes)))
            for row in with_changes:
                assert {len(row["per_token"][name]) for name in CHANGES} == {row["tokens"]}
    assert numbers[:3] == [(P * G, P * G // 2), (P * G, 0), (P * G, P * G // 2)]
    # Of two rounds some are left out, or it shows little.
    assert any(known == 2 * P * G and changed > 0 for known, changed in numbers[3:])


def test_the_gradient_by_reward_against_one_by_hand(made):
    """At ρ = 1: -Σ weight A_f ∇ log π for each f, and the KL's, which no reward asks for."""
    _, policies = opened(cut(), made.workdir, sys.stderr)
    policy, batch, before = policies.start("grpo"), made.batches[4], made.states[3].trainable
    told, row = in_batch(made, 4), updates(made.workdir)[4]
    drawn = [one for one in rows(made.workdir, "rollouts") if one["iteration"] == 1]
    apart = {"tag_format": [], "length": []}
    for one in told:
        group = [other for other in drawn if other["group"] == one["group"]]
        total = np.array([other["total"] for other in group])
        for name, weight in (("tag_format", 1.0), ("length", 0.5)):
            x = weight * np.array([other["reward"][name] for other in group])
            own = weight * one["reward"][name] - x.mean()
            apart[name].append(own / (total.std(ddof=1) + 1e-4) if np.ptp(total) else 0.0)
    weight_BC, ref_BC = np.asarray(batch.weight_BC), np.asarray(batch.ref_logprob_BC)
    C, kl_coef = weight_BC.shape[1], objective_of(cut().stages.grpo.loss.to_dict()).kl_coef

    def logprob_of(trainable):
        z = logits(policy.with_trained(trainable), batch.ids_BT, batch.mask_BT) / 0.8
        told = jax.nn.log_softmax(z[:, -C - 1 : -1])
        return jnp.take_along_axis(told, jnp.asarray(batch.ids_BT)[:, -C:, None], -1)[..., 0]

    def flat(loss):
        leaves = jax.tree.leaves(jax.grad(loss)(before))
        return np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves])

    def policy_part(A_B):
        return lambda t: -jnp.sum(weight_BC * np.array(A_B)[:, None] * logprob_of(t))

    def kl_part(trainable):
        d_BC = ref_BC - logprob_of(trainable)
        return kl_coef * jnp.sum(weight_BC * (jnp.exp(d_BC) - d_BC - 1))

    parts = {name: flat(policy_part(A_B)) for name, A_B in apart.items()}
    together = {**parts, "(no reward)": flat(kl_part)}
    whole = sum(together.values())
    norm = np.linalg.norm
    assert row["grad_norm"] == pytest.approx(norm(whole), rel=1e-3)
    for name, g in together.items():
        assert row[f"gradient/{name}/norm"] == pytest.approx(norm(g), rel=2e-3), name
        cosine = g @ whole / norm(g) / norm(whole)
        assert row[f"gradient/{name}/cosine"] == pytest.approx(cosine, abs=2e-3), name
    conflict = 1 - norm(sum(parts.values())) / sum(map(norm, parts.values()))
    assert row["gradient/conflict"] == pytest.approx(conflict, abs=1e-4)
    assert row["gradient/residual"] < 1e-5


def test_a_replay_says_the_same(made, again):
    """Bit for bit: of the same update, by the same formulas."""
    for run, step in ((made, 9), (again, 1)):
        found = looked(run.workdir, step, Wanted({}, forecast=True, by_reward=True))
        assert found.verdict.different == []
        row = updates(run.workdir)[step - 1]
        fit = next(one for one in found.fits or () if one.scale == 1)
        for name in Fitted._fields:
            assert row[f"forecast/{name}"] == getattr(fit, name)
        parts = found.parts
        assert parts is not None and row["gradient/conflict"] == parts.conflict
        assert row["gradient/residual"] == parts.residual
        for name, norm in parts.norms.items():
            assert row[f"gradient/{name}/norm"] == norm
            cosine = parts.to_whole[name]
            assert row[f"gradient/{name}/cosine"] == (None if math.isnan(cosine) else cosine)
        told = [one["per_token"] for one in in_batch(run, step - 1)]
        known = [one for one in found.rows if one["ids"]]
        for shown, one in zip(told, known, strict=True):
            for name, theirs in (("predicted_change", "predicted"), ("realised_change", "change")):
                assert shown[name] == [float(f"{x:.4g}") for x in one[theirs]]


def test_an_update_under_other_fields_is_asked_nothing():
    """Nor refused for what the run was asked: of decoupled advantages there are no parts."""
    changed = with_changes(cut().to_dict(), "grpo", {"loss.decoupled": True})["stages"]["grpo"]
    assert changed["forecast_every"] == changed["by_reward_every"] == 0
    with pytest.raises(ReplayError, match="by_reward_every: would change the batch"):
        with_changes(cut().to_dict(), "grpo", {"by_reward_every": 0})


STOPS = ("train 0", "grpo update 1", "grpo update 3", "grpo update 4", "grpo update 9")


def test_a_run_that_is_stopped_goes_on_bit_by_bit(made, folder):
    """Before the first update of an iteration, after it, in its midst, between two."""
    workdir = folder / "stopped"
    for event in STOPS:
        with watched(stop_at(event)):
            assert launch(cut(), workdir) == 75
    assert newest(workdir, "grpo")[0] == 9
    assert launch(cut(), workdir) == 0
    assert_same_run(made.workdir, workdir)


KILLED = """
import os, signal, sys
from tests import test_diagnostics_in_a_run as run
from tests.small_run import launch, workshop
from tests.test_replay import rough
from grpo.runs.stage_loop import StageLoop
where, workdir = sys.argv[1:]
write = StageLoop.write_rollouts

def written(self, rows):
    is_last = self.iteration == 2
    write(self, rows[:3] if is_last and where == "amid the rows" else rows)
    if is_last:
        os.kill(os.getpid(), signal.SIGKILL)

StageLoop.write_rollouts = written
with workshop(rough):
    launch(run.cut(), run.pathlib.Path(workdir))
"""


@pytest.mark.parametrize("where", ["amid the rows", "after the rows"])
def test_a_run_that_is_killed_goes_on_bit_by_bit(made, folder, where):
    workdir = folder / where.replace(" ", "_")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, where, str(workdir)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    left = [row["iteration"] for row in rows(workdir, "rollouts")]
    assert left.count(2) == (3 if where == "amid the rows" else P * G)
    assert newest(workdir, "grpo")[0] == 8
    assert launch(cut(), workdir) == 0
    assert_same_run(made.workdir, workdir)


def test_rows_that_wait_are_written_before_a_stage_fails(folder):
    config = cut()
    config.patience = 1
    with workshop(failing), pytest.raises(TroubleError, match="completions have no reward"):
        launch(config, folder / "failed")
    assert len(rows(folder / "failed", "rollouts")) == P * G
    assert rows(folder / "failed", "metrics")[1:] == []  # the evaluation before it


def test_rows_wait_for_their_update_alone(made, folder, monkeypatch):
    """Where nothing is due, an iteration is in the file before its first update."""
    seen, keep = [], StageLoop.keep_groups

    def kept(self, groups, rows, **more):
        keep(self, groups, rows, **more)
        file = self.run.workdir / "rollouts.jsonl"
        seen.append(len(file.read_text().splitlines()) if file.exists() else 0)

    monkeypatch.setattr(StageLoop, "keep_groups", kept)
    assert launch(cut(), folder / "watched") == 0
    assert seen == [0, 2 * P * G, 2 * P * G]


def test_off_policy_a_weighted_gradient_is_still_one_of_parts(folder):
    """One iteration late under `cispo`, which clips whatever the advantage's sign."""
    config = cut()
    config.stages.grpo.update(staleness=1, forecast_every=1, by_reward_every=1, epochs=1)
    config.stages.grpo.loss.preset = "cispo"
    assert launch(config, folder / "late") == 0
    found = [row for row in updates(folder / "late") if "gradient/residual" in row]
    assert [row["iteration"] for row in found] == [0, 1, 2]
    assert found[2]["staleness"] == 1 and found[2]["ratio/max"] > 1.001
    assert all(row["gradient/residual"] < 1e-5 for row in found)


def test_in_bfloat16_parts_add_up_but_for_rounding(folder):
    config = cut()
    config.model.update(dtype="bfloat16", param_dtype="bfloat16")
    config.stages.grpo.lora.rank = 4
    config.stages.grpo.update(iterations=1, evaluate_every=0, minibatches=1)
    with workshop():  # whose reward hardly two completions share
        assert launch(config, folder / "short") == 0
    (row,) = [row for row in updates(folder / "short") if "gradient/residual" in row]
    assert row["gradient/residual"] > 1e-3  # or it shows little
    norms = [row[f"gradient/{name}/norm"] for name in ("tag_format", "length")]
    assert row["grad_norm"] == pytest.approx((1 - row["gradient/conflict"]) * sum(norms), rel=0.05)
    assert row["forecast/correlation"] > 0.8


def test_on_a_mesh_it_says_the_same(made, folder):
    config = cut()
    config.mesh.update(fsdp=2)
    config.stages.grpo.update(iterations=1, evaluate_every=0)
    assert launch(config, folder / "mesh") == 0
    there, here = updates(made.workdir)[0], updates(folder / "mesh")[0]
    for name, value in there.items():
        if name.startswith(OURS) and "(no reward)" not in name:  # whose KL is still 0
            assert here[name] == pytest.approx(value, rel=2e-3, abs=2e-5), name
    assert json.dumps(there) != json.dumps(here)
