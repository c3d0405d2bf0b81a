"""Weights that are not trained, whole along fsdp: the same run, with nothing to gather."""

import io
import re

import chex
import jax
import numpy as np
import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
from grpo.runs.shapes import base_of, model_shapes, shapes_at_start
from grpo.stages import grpo as stage_of_grpo
from models.sharding import FROZEN, path_name, shardings
from tests.small_run import launch, opened, rows, small, small_grpo, workshop


def config_of(frozen_weights: str, *, rank: int | None = 4, fsdp: int = 4) -> base.ConfigDict:
    """A stage of GRPO on a mesh, with a reference."""
    config = small()
    config.mesh.update(fsdp=fsdp, tp=2)
    config.model.frozen_weights = frozen_weights
    config.stages.grpo = grpo = small_grpo()
    grpo.update(iterations=3)
    grpo.lora.rank = rank
    grpo.loss.kl_coef = 0.1
    config.pipeline = ("grpo",)
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directories of a run with split ones, and of one with whole ones."""
    folder = tmp_path_factory.mktemp("runs")
    with workshop():
        for how in FROZEN:
            config = config_of(how)
            assert problems(config.to_dict(), STAGES) == []
            assert launch(config, folder / how) == 0
        yield [folder / how for how in FROZEN]


def test_the_same_run_but_for_the_order_of_sums(runs):
    """Split weights are partly multiplied where they are, and the products summed after that."""
    adapters, told, texts = [], [], []
    for how, workdir in zip(FROZEN, runs, strict=True):
        with workshop():
            _, policies = opened(config_of(how), workdir, io.StringIO())
            adapters.append(jax.device_get(policies.end("grpo").adapter))
        numbers = [
            [x for x in row.values() if isinstance(x, float)] for row in rows(workdir, "metrics")
        ]
        told.append(np.concatenate(numbers))
        texts.append([row["completion"] for row in rows(workdir, "rollouts")])
    assert texts[0] == texts[1] and len(texts[0]) == 24
    chex.assert_trees_all_close(*adapters, rtol=1e-4, atol=1e-4)  # a hundredth of one update
    np.testing.assert_allclose(*told, rtol=1e-3, atol=1e-5)


def test_only_what_is_not_trained_is_whole(runs):
    """The base below the adapter, and the reference; not the adapter, nor its moments."""
    *_, whole = runs
    with workshop():
        _, policies = opened(config_of("whole"), whole, io.StringIO())
        start = policies.start("grpo")
        for params in (
            start.params,
            policies.reference("grpo", start).params,
            policies.base.params,
        ):
            places = {path_name(p): x.sharding.spec for p, x in leaves(params)}
            assert not [name for name, spec in places.items() if "fsdp" in spec]
            assert "tp" in places["layers/mlp/gate/w"]
        cut = [name for name, x in leaves(start.adapter) if "fsdp" in x.sharding.spec]
        assert len(cut) >= 7


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


def shapes_of(config: base.ConfigDict):
    plain = config.to_dict()
    policy = shapes_at_start(base_of(plain), plain["stages"]["grpo"])
    return plain, policy, stage_of_grpo.build(plain, "grpo", policy)


def gathered(text: str) -> list[str]:
    """The arrays that are gathered, of float32 and as large as a weight of a layer."""
    return [x for x in re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", text) if x.count(",") >= 1]


def test_an_update_gathers_no_weights():
    """The compiled update of split ones does."""
    with workshop():
        texts = {}
        for how in FROZEN:
            *_, programs = shapes_of(config_of(how))
            (lowered,) = programs["update"].lower()
            texts[how] = lowered.compile().as_text()
    assert len(gathered(texts["split"])) > 2 * len(gathered(texts["whole"]))


def test_where_all_parameters_are_trained_they_are_split():
    with workshop():
        plain, policy, _ = shapes_of(config_of("whole", rank=None))
        assert policy.params["layers"]["mlp"]["gate"]["w"].sharding.spec == jax.P(
            None, "fsdp", "tp"
        )
        asked = model_shapes(plain, "base", base_of(plain)).params
        assert asked["layers"]["mlp"]["gate"]["w"].sharding.spec == jax.P(None, None, "tp")


def test_what_is_asked_on_other_devices_stays_whole():
    with workshop():
        _, policy, _ = shapes_of(config_of("whole", fsdp=2))
    assert policy.axes == ("tp",)
    assert policy.mesh
    expected = jax.tree.leaves(shardings(policy.params, policy.mesh, ("tp",)))
    assert [x.sharding for x in jax.tree.leaves(policy.params)] == expected


def test_an_unknown_way_is_an_error():
    config = config_of("halved")
    (line,) = problems(config.to_dict(), STAGES)
    assert (
        line == "model.frozen_weights='halved': expected one of split, whole; did you mean whole?"
    )
