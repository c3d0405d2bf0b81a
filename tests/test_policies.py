"""Where stages begin and what they leave: adapters kept, merged, made; the same bits again."""

import functools
import hashlib
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from grpo.runs.policies import Policies, lora_of, prepared
from grpo.storage.snapshot import SnapshotError
from grpo.training.train_step import init_state
from models.lora import merge
from models.policy import Policy
from tests import tiny_run
from tests.helpers import assert_trees_equal, logits_of

ROOT = pathlib.Path(__file__).parent.parent
NONE = {"rank": None, "alpha": 64.0, "targets": ".*", "rslora": False}
SMALL = {"rank": 2, "alpha": 4.0, "targets": "q|v", "rslora": False}
OTHER = {**SMALL, "rank": 3}


def stage(lora, start=None, reference="start", kind="grpo"):
    got = base.grpo().to_dict() if kind == "grpo" else base.evaluate().to_dict()
    return got if kind != "grpo" else got | {"lora": lora, "start": start, "reference": reference}


STAGES = {
    "full": stage(NONE),
    "fresh": stage(SMALL),  # after full: a fresh adapter on trained parameters
    "check": stage(None, kind="evaluate"),
    "same": stage(SMALL),  # after fresh: the same adapter goes on
    "other": stage(OTHER),  # after same: merged, another adapter
    "whole": stage(NONE),  # after other: merged, all parameters
    "held": stage(SMALL, start="fresh", reference="base"),
}
TRAINED = [name for name in STAGES if name != "check"]


def moved(tree, seed):
    """A tree as a stage might leave it."""
    leaves, structure = jax.tree.flatten(tree)
    random = np.random.RandomState(seed)
    drawn = [x + jnp.asarray(random.standard_normal(x.shape) * 0.1, x.dtype) for x in leaves]
    return jax.tree.unflatten(structure, drawn)


@functools.cache
def load() -> Policy:
    return tiny_run.policy_of()


def remembered(run) -> Policies:
    """Policies that are made once: a stage's start is that of all before it."""
    policies = Policies(run.config, run.workdir, load, {})
    policies.start, policies.end = map(functools.cache, (policies.start, policies.end))
    return policies


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Of a run in which all stages have ended, each at something else."""
    workdir = tmp_path_factory.mktemp("run")
    run = tiny_run.run_of(workdir, pipeline=tuple(STAGES), stages=STAGES)
    policies = remembered(run)
    older = init_state(jax.tree.map(jnp.zeros_like, load().params), optax.sgd(0.1))
    run.checkpoints("full").save(3, older, extra={})
    for number, name in enumerate(TRAINED, start=1):
        trainable = moved(policies.start(name).trainable, number)
        run.checkpoints(name).save(7, init_state(trainable, optax.sgd(0.1)), extra={}, final=True)
    return policies


@pytest.fixture(scope="module")
def run(policies):
    return tiny_run.run_of(policies.workdir, pipeline=tuple(STAGES), stages=STAGES)


def test_lora_of():
    assert lora_of(NONE) is None
    lora = lora_of({"rank": 4, "alpha": 8.0, "targets": "q|v", "rslora": True})
    assert lora is not None and (lora.rank, lora.scale, lora.names) == (4, 4.0, ("q", "v"))


def test_predecessors(policies):
    """The last stage that trained, or the named one."""
    assert {name: policies.predecessor(name) for name in TRAINED} == {
        "full": "base", "fresh": "full", "same": "fresh", "other": "same", "whole": "other",
        "held": "fresh",
    }  # fmt: skip


def test_the_base_is_loaded_once(run):
    calls = []
    policies = Policies(run.config, run.workdir, lambda: calls.append(1) or load(), {})
    assert policies.end("base") is policies.base and policies.base.adapter is None
    assert policies.start("full").params is policies.base.params and calls == [1]


def test_all_parameters(policies):
    assert policies.start("full").adapter is None
    assert_trees_equal(policies.end("full").params, moved(load().params, 1))


def test_a_fresh_adapter_on_what_was_trained(policies):
    start = policies.start("fresh")
    assert_trees_equal(start.params, moved(load().params, 1))
    assert start.lora == lora_of(SMALL) and start.scale == 2.0
    assert not np.any(start.adapter["layers"]["attention"]["q"]["b"])
    end = policies.end("fresh")
    assert_trees_equal(end.params, start.params)
    assert_trees_equal(end.adapter, moved(start.adapter, 2))


def test_the_same_adapter_goes_on(policies):
    start, before = policies.start("same"), policies.end("fresh")
    assert_trees_equal(start.params, before.params)
    assert_trees_equal(start.adapter, before.adapter)


def logits(policy: Policy):
    ids = np.arange(20, 44).reshape(2, 12).astype(np.int32)
    return np.asarray(logits_of(policy.module, policy.variables, ids, np.ones_like(ids)))


def test_another_adapter_begins_where_the_old_one_ended(policies):
    before, start, whole = policies.end("same"), policies.start("other"), policies.start("whole")
    assert start.lora == lora_of(OTHER)
    assert_trees_equal(
        start.params, jax.jit(merge, static_argnums=2)(before.params, before.adapter, before.scale)
    )
    np.testing.assert_allclose(logits(start), logits(before), atol=1e-4)
    assert whole.adapter is None and whole.lora is None
    np.testing.assert_allclose(logits(whole), logits(policies.end("other")), atol=1e-4)
    assert np.abs(logits(before) - logits(policies.base)).max() > 0.1


def test_references(policies):
    """What the stage begins with, with or without an adapter that changes nothing; or the base."""

    def reference(stage):
        return policies.reference(stage, policies.start(stage)).variables

    assert set(reference("fresh")) == {"params"}
    assert_trees_equal(reference("fresh")["params"], policies.start("fresh").params)
    assert set(reference("same")) == {"params", "lora"}
    assert_trees_equal(reference("same")["lora"], policies.end("fresh").adapter)
    assert set(reference("other")) == {"params"}
    assert_trees_equal(reference("other")["params"], policies.start("other").params)
    assert_trees_equal(reference("full"), {"params": load().params})
    assert_trees_equal(reference("held"), {"params": load().params})


def test_a_checkpoint_before_the_last(policies):
    older = policies.workdir / "checkpoints" / "full" / "00000003"
    assert_trees_equal(
        policies.at("full", older).params, jax.tree.map(jnp.zeros_like, load().params)
    )


def test_made_again_bit_by_bit(run, policies):
    """Through five stages, two merges and three adapters."""
    one, other = policies.start("whole"), remembered(run).start("whole")
    assert one.lora == other.lora
    assert_trees_equal(one.variables, other.variables)


def fingerprint() -> str:
    """A fresh adapter's bits."""
    leaves = jax.tree.leaves(prepared(load(), lora_of(OTHER), "rl", seed=0).adapter)
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest()


def test_the_same_adapter_in_another_process():
    """Python's own hash of the stage's name would be another one there."""
    script = "import tests.conftest\nfrom tests.test_policies import *\nprint(fingerprint())"
    got = subprocess.check_output([sys.executable, "-c", script], text=True, cwd=ROOT)
    assert got.strip() == fingerprint()


def adapter_of(name, seed=0, policy=None):
    return prepared(policy or load(), lora_of(SMALL), name, seed).adapter


def test_an_adapter_is_that_of_the_stages_name_and_the_seed():
    adapter = adapter_of("rl")
    other = load().with_trained(moved(load().params, 1))
    assert_trees_equal(adapter, adapter_of("rl", policy=other))

    def a(adapter):
        return np.asarray(adapter["layers"]["attention"]["q"]["a"])

    for other in (adapter_of("rl2"), adapter_of("rl", seed=1)):
        assert (a(other) != a(adapter)).mean() > 0.9


def test_preparing_leaves_what_it_was_given(policies):
    before = policies.end("same")
    kept = jax.tree.map(np.array, before.variables)
    prepared(before, lora_of(OTHER), "x", seed=0)
    assert_trees_equal(jax.tree.map(np.asarray, before.variables), kept)


def test_a_stage_that_has_left_nothing(tmp_path):
    run = tiny_run.run_of(tmp_path, pipeline=("full", "fresh"), stages=STAGES)
    with pytest.raises(SnapshotError, match="stage full has left no checkpoint"):
        Policies(run.config, run.workdir, load, {}).start("fresh")
