"""A loss by the name of its preset: what is filled in, from files and from the command line."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

import grpo.pipeline
from configs import base, grpo_demo_gemma3_1b, tiny
from grpo.algorithms.objective import Objective
from grpo.algorithms.presets import GRPO, OFF, PRESETS, objective_of, resolve
from tests.refusals import changed
from tests.small_run import small_grpo

ROOT = pathlib.Path(__file__).parent.parent
FIELDS = [field.name for field in dataclasses.fields(Objective)]


def section(preset="grpo", **own) -> dict:
    """A loss section as a config file writes it."""
    loss = base.loss()
    loss.update(preset=preset, **own)
    return loss.to_dict()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_itself(name):
    resolved = resolve(section(name))
    assert resolved == {"preset": name, **dataclasses.asdict(PRESETS[name])}
    assert objective_of(section(name)) == objective_of(resolved) == PRESETS[name]
    assert objective_of({"preset": name}) == PRESETS[name]


def test_the_section_has_the_fields_of_an_objective():
    assert sorted(base.loss()) == sorted(["preset", *FIELDS])


OVERRIDES = [  # preset, the config's own values, and what differs from the preset
    ("dapo", {"clip_high": 0.2}, {"clip_high": 0.2}),  # GRPO's own value
    ("rloo", {"kl_coef": 0.08}, {"kl_coef": 0.08}),
    ("grpo", {"decoupled": True}, {"decoupled": True}),
    ("grpo", {"mask_truncated": False}, {}),
    ("dapo", {"overlong_buffer": 0}, {"overlong_buffer": None, "overlong_penalty": None}),
    ("dapo", {"overlong_penalty": 0}, {"overlong_buffer": None, "overlong_penalty": None}),
    ("grpo", {"scale": "none"}, {"scale": "none", "eps": None}),
    ("dr_grpo", {"scale": "group", "eps": 1e-3}, {"scale": "group", "eps": 1e-3}),
    (
        "grpo",
        {"surrogate": "reinforce"},
        {"surrogate": "reinforce", "clip_low": None, "clip_high": None},
    ),
    (
        "dapo",
        {"surrogate": "sapo", "tau_positive": 1.0, "tau_negative": 1.05},
        {"surrogate": "sapo", "tau_positive": 1.0, "tau_negative": 1.05}
        | {"clip_low": None, "clip_high": None},
    ),
    (
        "dppo",
        {"surrogate": "dppo_kl", "divergence_limit": 0.05},
        {"surrogate": "dppo_kl", "divergence_limit": 0.05},
    ),
    (
        "dppo",
        {"surrogate": "clip", "clip_low": 0.2, "clip_high": 0.2},
        {"surrogate": "clip", "clip_low": 0.2, "clip_high": 0.2, "divergence_limit": None},
    ),
    (
        "gspo",
        {"correction": "cap", "correction_level": "sequence", "correction_cap": 2.0},
        {"correction": "cap", "correction_level": "sequence", "correction_cap": 2.0},
    ),
    ("gspo", {"correction": "none", "correction_cap": 0, "dual_clip": 0}, {}),
]


@pytest.mark.parametrize(("preset", "own", "differs"), OVERRIDES, ids=str)
def test_own_values_and_what_they_leave(preset, own, differs):
    loss = section(preset, **own)
    expected = dataclasses.replace(PRESETS[preset], **differs)
    assert objective_of(loss) == expected
    resolved = resolve(loss)
    assert resolve(resolved) == resolved and objective_of(resolved) == expected
    assert json.loads(json.dumps(resolved)) == resolved


def test_a_feature_that_is_off_says_so():
    """None would be the preset's again; and what a preset does not have is not written twice."""
    assert resolve(section("dapo", overlong_buffer=0))["overlong_buffer"] == 0
    assert resolve(section("dapo", overlong_buffer=0))["overlong_penalty"] is None
    assert resolve(section("grpo", **OFF)) == resolve(section("grpo"))


def test_a_correction_of_a_preset_can_be_switched_off(monkeypatch):
    capped = {"correction": "cap", "correction_level": "token", "correction_cap": 2.0}
    guarded = dataclasses.replace(GRPO, dual_clip=3.0, off_policy_limit=0.5, **capped)
    monkeypatch.setitem(PRESETS, "guarded", guarded)
    assert objective_of(section("guarded")) == guarded
    for own in (OFF, {"correction": "none", "dual_clip": 0, "off_policy_limit": 0}):
        own = {field: x for field, x in own.items() if "overlong" not in field}
        assert objective_of(section("guarded", **own)) == GRPO
        resolved = resolve(section("guarded", **own))
        assert resolve(resolved) == resolved and objective_of(resolved) == GRPO


@pytest.mark.parametrize(
    ("preset", "own", "says"),
    [
        ("grpo", {"scale": "none", "eps": 1e-6}, "eps=1e-06 would do nothing under scale='none'"),
        ("rloo", {"clip_low": 0.2}, "clip_low=0.2 would do nothing under surrogate='reinforce'"),
        ("rloo", {"surrogate": "clip"}, "clip_low=None: a number is needed"),
        (
            "dapo",
            {"overlong_buffer": 0, "overlong_penalty": 1.0},
            "overlong_penalty=1.0 would do nothing under overlong_buffer=None",
        ),
        ("grpo", {"correction": "none", "correction_level": "token"}, "expected None without"),
        ("grpo", {"surrogate": "none"}, "surrogate='none': expected one of"),
        ("grpo", {"clip_low": 0.0}, "clip_low=0.0: expected more than 0"),
        ("dpo", {}, "preset='dpo': expected one of grpo, dr_grpo, dapo"),
    ],
    ids=str,
)
def test_refused(preset, own, says):
    with pytest.raises(ValueError) as refusal:
        objective_of(section(preset, **own))
    assert says in str(refusal.value)


def test_a_field_that_there_is_not():
    with pytest.raises(ValueError, match="clip_hihg: unknown field of a loss"):
        objective_of({"preset": "dapo", "clip_hihg": 0.2})


def test_the_experiments_have_the_losses_they_had():
    demo = dataclasses.replace(GRPO, eps=1e-4, aggregation="token")
    for variant in ("", "repo", "repo,tiny"):
        loss = grpo_demo_gemma3_1b.get_config(variant).stages.grpo.loss
        assert objective_of(loss.to_dict()) == demo
    for stage in (tiny.get_config().stages.grpo, small_grpo(), base.grpo()):
        assert objective_of(stage.loss.to_dict()) == GRPO


# A command line is parsed as launch.py does it, all of them by one process.
PARSING = """
import json
import sys
from absl import flags
from ml_collections import config_flags
from grpo.algorithms.presets import resolve
from grpo.checks.arguments import parse
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
config = config_flags.DEFINE_config_file("config")
for line in sys.stdin.read().splitlines():
    argv = sys.argv = ["launch.py", "--config=configs/tiny.py", *line.split()]
    parse(argv)
    values = config.value.to_dict()
    found = problems(values, STAGES)
    known = not any("loss.preset" in problem for problem in found)
    loss = resolve(values["stages"]["grpo"]["loss"]) if known else None
    print(json.dumps([loss, found]))
    flags.FLAGS.unparse_flags()
    sys.modules.pop("config_config", None)
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
"""


def command(**own) -> str:
    return " ".join(f"--config.stages.grpo.loss.{field}={x}" for field, x in own.items())


OWN = {"kl_coef": 0.08, "aggregation": "sequence", "eps": "None"}  # as GRPO has them
LINES = {
    **{f"{name} alone": command(preset=name) for name in PRESETS},
    **{f"{name} first": command(preset=name, **OWN) for name in PRESETS},
    **{f"{name} last": command(**OWN, preset=name) for name in PRESETS},
    "off": command(overlong_buffer=0, preset="dapo"),
    "no scale": command(scale="none", preset="gspo"),
    "a flag": command(decoupled="true"),
    "correction": command(correction="cap", correction_level="token", correction_cap=2),
    "unknown": command(preset="dpo"),
    "two problems": command(preset="rloo", clip_low=0.2, baseline="mean"),
}


@pytest.fixture(scope="module")
def parsed():
    """What each line asks for: the resolved loss, and what is wrong with the config."""
    done = subprocess.run(
        [sys.executable, "-c", PARSING],
        input="\n".join(LINES.values()) + "\n",
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    got = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(LINES, got, strict=True))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_on_the_command_line(parsed, name):
    assert parsed[f"{name} alone"] == [resolve(section(name)), []]


@pytest.mark.parametrize("name", PRESETS)
def test_own_values_on_the_command_line_in_any_order(parsed, name):
    loss, found = parsed[f"{name} first"]
    own = {"kl_coef": 0.08, "aggregation": "sequence"}
    expected = dataclasses.asdict(PRESETS[name]) | own
    assert loss == {"preset": name, **expected} and found == []
    assert parsed[f"{name} last"] == [loss, found]


def test_other_own_values_on_the_command_line(parsed):
    assert parsed["off"] == [resolve(section("dapo", overlong_buffer=0.0)), []]
    assert parsed["no scale"] == [resolve(section("gspo", scale="none")), []]
    assert parsed["no scale"][0]["eps"] is None
    assert parsed["a flag"] == [resolve(section(decoupled=True)), []]
    capped = {"correction": "cap", "correction_level": "token", "correction_cap": 2.0}
    assert parsed["correction"] == [resolve(section(**capped)), []]


def test_wrong_values_on_the_command_line(parsed):
    (line,) = parsed["unknown"][1]
    assert line.startswith("stages.grpo.loss.preset='dpo': expected one of grpo, dr_grpo, dapo")
    assert line.endswith("did you mean dppo?")
    assert sorted(line.partition("=")[0] for line in parsed["two problems"][1]) == [
        "stages.grpo.loss.baseline",
        "stages.grpo.loss.clip_low",
    ]


class StopHereError(Exception):
    """The config is written; nothing is computed."""


def test_the_loss_in_config_json(tmp_path, monkeypatch, capsys):
    """Every value, the preset's name among them; the same command is the same run."""

    def stop(*_):
        raise StopHereError

    monkeypatch.setattr(grpo.pipeline, "set_up", stop)
    loss = "stages.grpo.loss."
    config = changed({f"{loss}preset": "dapo", f"{loss}clip_high": 0.2})
    for _ in range(2):
        with pytest.raises(StopHereError):
            grpo.pipeline.run_config(config, tmp_path)
        written = json.loads((tmp_path / "config.json").read_text())
        expected = dataclasses.replace(PRESETS["dapo"], clip_high=0.2)
        assert written["stages"]["grpo"]["loss"] == {
            "preset": "dapo",
            **dataclasses.asdict(expected),
        }
        assert "loss" not in written["stages"]["sft"]
    with pytest.raises(StopHereError):  # what is written is itself such a config
        grpo.pipeline.run_config(written | {"pipeline": tuple(written["pipeline"])}, tmp_path)
    assert grpo.pipeline.run_config(changed({f"{loss}preset": "dapo"}), tmp_path) == 2
    assert f"{loss}clip_high was 0.2, is 0.28" in capsys.readouterr().err
