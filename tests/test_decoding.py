"""Decoding presets: what is published, what a config overrides, what an evaluation draws."""

import pytest

from configs import base
from grpo.algorithms.decoding import DECODINGS, resolve_decoding, sampling_of, seed_of
from grpo.checks import problems as checks
from grpo.pipeline import STAGES, with_presets
from grpo.rollout.generate import GREEDY
from tests.refusals import changed

E = "stages.evaluate."


def section(**fields):
    made = base.decoding()
    made.update(**fields)
    return made.to_dict()


@pytest.mark.parametrize(
    ("preset", "temperature", "top_k", "top_p", "seed"),
    [
        ("policy", 1.0, 0, 1.0, 7),
        ("greedy", 0.0, 0, 1.0, 7),
        ("standard", 0.7, 50, 0.95, 7),
        ("liberal", 0.85, 2000, 1.0, 7),
        ("judge", 0.0, 1, 1.0, 42),
    ],
)
def test_every_number_of_a_preset(preset, temperature, top_k, top_p, seed):
    own = section(preset=preset)
    assert sampling_of(own) == {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": 0.0,
    }  # fmt: skip
    assert seed_of(own, 7) == seed
    assert set(DECODINGS) == {"policy", "greedy", "standard", "liberal", "judge"}


def test_what_a_config_says_goes_before_the_preset():
    """0 is a value, None is none; a section that is filled in stays as it is."""
    own = section(preset="standard", top_k=0, temperature=0.0, min_p=0.1, seed=0)
    assert sampling_of(own) == {"temperature": 0.0, "top_k": 0, "top_p": 0.95, "min_p": 0.1}
    assert seed_of(own, 7) == 0
    assert resolve_decoding(resolve_decoding(own)) == resolve_decoding(own)
    assert seed_of(resolve_decoding(section(preset="judge")), 7) == 42


def test_greedy_evaluations_are_the_preset():
    assert sampling_of(section(preset="greedy")) == GREEDY
    assert GREEDY["temperature"] == 0.0


def test_the_default_is_the_policys_own_distribution():
    assert sampling_of(base.evaluate().sampling.to_dict()) == base.sampling().to_dict()


def test_config_json_has_the_numbers():
    found = with_presets(changed({f"{E}sampling.preset": "liberal", f"{E}sampling.top_p": 0.5}))
    assert found["stages"]["evaluate"]["sampling"] == {
        "preset": "liberal", "temperature": 0.85, "top_k": 2000, "top_p": 0.5, "min_p": 0.0,
        "seed": None,
    }  # fmt: skip
    assert with_presets(found) == found
    assert found["stages"]["grpo"]["sampling"] == base.sampling().to_dict()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{E}sampling.preset": "standart"}, "sampling.preset='standart': expected one of policy"),
        ({f"{E}sampling.temperature": -1.0}, "sampling.temperature=-1.0: expected a number, at le"),
        ({f"{E}sampling.seed": -1}, "sampling.seed=-1: expected an integer, at least 0"),
        ({f"{E}sampling.preset": "judge"}, "samples=8: at sampling.temperature=0 (preset='judge')"),
        ({f"{E}sampling.temperature": 0.0}, "samples=8: at sampling.temperature=0 (preset='polic"),
    ],
)
def test_what_cannot_be(changes, said):
    (line,) = checks.problems(changed(changes), STAGES)
    assert line.startswith(f"{E}{said}") and "\n" not in line


def test_a_judge_reads_one_sample():
    one = {f"{E}sampling.preset": "judge", f"{E}samples": 1, f"{E}ks": (1,)}
    assert checks.problems(changed(one), STAGES) == []
    warm = {f"{E}sampling.preset": "judge", f"{E}sampling.temperature": 0.5}
    assert checks.problems(changed(warm), STAGES) == []
