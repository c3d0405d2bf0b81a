"""From a sweep's file to cells, jobs and shards."""

import argparse
import copy
import json
import pathlib

import pytest

from configs import base
from grpo.pipeline import with_presets
from grpo.sweeps.cells import Cell, SweepError, cells_of, changes, hash_of, sweep_of
from grpo.sweeps.sharing import cut, jobs_of
from grpo.sweeps.worker import tuples
from grpo.tools.sweep import part_of
from grpo.tools.sweep_flags import shard_of

SIZES = {  # of the sweeps that are there: cells, runs that are shared
    "clip": (20, 5), "group_size": (20, 5), "kl": (20, 5), "null": (30, 0), "presets": (55, 5),
    "overlong": (15, 5), "shuffled": (10, 5), "worked_share": (25, 0),
}  # fmt: skip
FOLDER = pathlib.Path(__file__).parent.parent / "configs" / "sweeps"


def asked(**fields):
    return base.sweep(**fields).to_dict()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_every_sweep(path):
    sweep = sweep_of(str(path))
    cells = cells_of(sweep)
    jobs = jobs_of(cells)
    assert (len(cells), len(jobs) - len(cells)) == SIZES[path.stem]
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.seed for cell in cells} == set(range(3 if path.stem == "null" else 5))
    assert f"configs/sweeps/{path.name}" in path.read_text()


def test_cells_seed_by_seed():
    cells = cells_of(asked(ablations=("", "no_kl"), seeds=(3, 1)))
    assert [cell.cell for cell in cells] == [
        "base-seed3", "no_kl-seed3", "base-seed1", "no_kl-seed1",
    ]  # fmt: skip
    assert [cell.config["seed"] for cell in cells] == [3, 3, 1, 1]
    assert [dict(cell.changed) for cell in cells] == [{}, {"stages.grpo.loss.kl_coef": 0.0}] * 2
    assert all(cell.name == f"{cell.cell}-{hash_of(cell.config)}" for cell in cells)


def test_seeds_are_added_to_the_own_one():
    (cell,) = cells_of(asked(base="grpo_demo_gemma3_1b", seeds=(2,)))
    assert cell.config["seed"] == 44
    cells = cells_of(asked(ablations=("copy_2",), baseline="copy_2", seeds=(0, 4)))
    assert [cell.config["seed"] for cell in cells] == [2000, 2004]


def test_the_hash_is_of_what_is_computed():
    (cell,) = cells_of(asked(seeds=(0,)))
    other = copy.deepcopy(dict(cell.config))
    other["log"]["every_s"] = 1.0  # free to differ
    other["checkpoint"]["keep_last"] = 9
    other["stages"]["grpo"]["loss"]["kl_coef"] = 0.08  # what the preset has anyway
    assert hash_of(other) == hash_of(cell.config)
    other["stages"]["grpo"]["loss"]["kl_coef"] = 0.081
    assert hash_of(other) != hash_of(cell.config)
    assert hash_of(with_presets(cell.config)) == hash_of(cell.config)


def test_changes_name_what_came_and_what_went():
    before = {"a": {"b": 1, "c": 2}, "d": (1,), "e": None}
    assert changes(before, {"a": {"b": 1, "c": 3}, "d": (1,), "f": None}) == {
        "a.c": 3, "e": None, "f": None,
    }  # fmt: skip
    assert changes(before, before) == {}


def test_a_config_survives_json():
    (cell,) = cells_of(asked(base="tiny:controls", seeds=(0,)))
    assert tuples(json.loads(json.dumps(cell.config))) == cell.config


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ablations": ("", "kl_0.08")}, "base-seed0 and kl_0.08-seed0 are the same config"),
        ({"ablations": ("", "worked_7")}, "configs/ablations.py: line "),
        ({"base": "grpo_demo_gemma3_1b", "ablations": ("", "scale_mean")}, "scale_mean: stages.gr"),
        ({"file": "configs/nope.py"}, "configs/nope.py: no such file"),
    ],
)
def test_cells_that_cannot_be(fields, said):
    with pytest.raises(SweepError) as error:
        cells_of(asked(**fields))
    assert all(line.startswith(said) for line in str(error.value).split("\n")), error.value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return base.sweep(seeds=(1, 1))", "seeds=(1, 1): one is there twice"),
        ("return base.sweep(baseline='no_kll', ablations=('', 'no_kl'))",
         "baseline='no_kll': is none of ablations; did you mean no_kl?"),
        ("return base.sweep(seeds=(0.5,))", "seeds=(0.5,): expected an integer, at least 0"),
        ("s = base.sweep(); s.sedes = (1,); return s", "sedes: unknown field; did you mean seeds?"),
        ("return {}", "get_config() returns {}, not a ConfigDict"),
        ("return 1 / 0", "line 3: ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_files_that_cannot_be(tmp_path, body, said):
    file = tmp_path / "s.py"
    file.write_text(f"from configs import base\ndef get_config():\n    {body}\n")
    with pytest.raises(SweepError) as error:
        sweep_of(str(file))
    assert str(error.value).startswith(f"{file}: {said}")


def of_pipeline(name: str, config, **stages) -> Cell:
    """A cell whose pipeline is that of the stages named."""
    whole = {"pipeline": tuple(stages), "stages": stages, **config}
    return Cell(f"{name}-seed0", name, 0, whole, {})


def small_cells(**pipelines):
    """Cells of the tiny config with other learning rates: name -> stage -> rate, in order."""
    tiny = base_config()
    stages, cells = tiny.pop("stages"), []
    del tiny["pipeline"]
    for name, rates in pipelines.items():
        own = {}
        for stage, rate in rates.items():
            section = copy.deepcopy(stages["sft"])
            section["optimizer"]["learning_rate"] = rate
            own[stage] = section
        cells.append(of_pipeline(name, tiny, **own))
    return cells


def base_config():
    (cell,) = cells_of(asked(seeds=(0,)))
    return copy.deepcopy(dict(cell.config))


def parents(cells):
    """Cell or shared run -> what it begins from, by the names without hashes."""
    short = {job.name: job.name.rpartition("-")[0] for job in jobs_of(cells).values()}
    return {short[j.name]: short.get(j.parent or "") for j in jobs_of(cells).values()}


def test_what_is_shared():
    cells = small_cells(
        a={"x": 1e-3, "y": 1e-3, "z": 1e-3},
        b={"x": 1e-3, "y": 1e-3, "z": 2e-3},
        c={"x": 1e-3, "y": 3e-3, "z": 1e-3},
        d={"x": 4e-3, "y": 1e-3, "z": 1e-3},
    )
    assert parents(cells) == {
        "x-seed0": None,
        "x+y-seed0": "x-seed0",
        "a-seed0": "x+y-seed0",
        "b-seed0": "x+y-seed0",
        "c-seed0": "x-seed0",
        "d-seed0": None,
    }
    # The two of them have no use for the shorter one.
    assert parents(cells[:2]) == {
        "x+y-seed0": None, "a-seed0": "x+y-seed0", "b-seed0": "x+y-seed0",
    }  # fmt: skip
    assert parents(cells[:1]) == {"a-seed0": None}


def test_any_other_difference_is_not_shared():
    a, b = small_cells(a={"x": 1e-3, "y": 1e-3}, b={"x": 1e-3, "y": 2e-3})
    assert len(jobs_of([a, b])) == 3
    for section, field, value in (
        ("data", "worked", 0.5), ("evaluation", "examples", 9), ("model", "vocab", 400),
    ):  # fmt: skip
        other = copy.deepcopy(dict(b.config))
        other[section][field] = value
        assert len(jobs_of([a, b._replace(config=other)])) == 2
    assert len(jobs_of([a, b._replace(config={**b.config, "seed": 1})])) == 2


def test_a_cut_that_is_no_config_is_not_run_apart():
    """As where a judge is a later stage, which the cut does not have."""
    a, b = small_cells(a={"x": 1e-3, "y": 1e-3}, b={"x": 1e-3, "y": 2e-3})
    judged = {"judges": {"j": base.judge(model="y").to_dict()}}
    cells = [cell._replace(config={**cell.config, **judged}) for cell in (a, b)]
    assert len(jobs_of(cells)) == 2


def test_a_cut():
    config = base_config()
    short = cut(config, 1)
    assert short["pipeline"] == ("sft",) and list(short["stages"]) == ["sft"]
    assert {**short, "pipeline": 0, "stages": 0} == {**config, "pipeline": 0, "stages": 0}
    assert config["pipeline"] == ("sft", "grpo", "evaluate")


@pytest.mark.parametrize("size", [1, 2, 7, 55])
@pytest.mark.parametrize("shards", [1, 2, 3, 8, 60])
def test_shards_are_a_partition(size, shards):
    parts = [part_of(range(size), (i, shards)) for i in range(shards)]
    assert [x for part in parts for x in part] == [*range(size)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard():
    assert shard_of("0/4") == (0, 4) and shard_of("3/4") == (3, 4)
    for text in ("4/4", "-1/4", "1", "a/b", "1/0", "1/4/2", "1" * 5000 + "/2"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected i/n"):
            shard_of(text)
