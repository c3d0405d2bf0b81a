"""Ablations: each applies to configs as they are, and changes what it names and nothing else."""

import pytest

from configs import ablations
from configs.ablations import ABLATIONS, base_of, get_config, leaves_of
from grpo.algorithms.presets import PRESETS, objective_of
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
from grpo.sweeps.cells import flat
from tests.test_problems import ELSEWHERE

BASES = ("tiny", "tiny:controls", "gemma3_270m", "gemma3_270m:full", "grpo_demo_gemma3_1b")
NOT_OF_FILES = "data.source='gsm8k': none are made"
NEGATIVE = "loss.scale='mean' divides by the mean reward: expected none below 0"
REFUSED = {  # base -> names that cannot be of it -> the end of the line that says so
    "grpo_demo_gemma3_1b": {
        **dict.fromkeys(("preset_maxrl", "scale_mean"), NEGATIVE),
        **dict.fromkeys(("worked_0", "worked_0.1", "worked_0.35", "worked_0.7", "worked_1"),
                        NOT_OF_FILES),
        **dict.fromkeys(("sft_x0.25", "sft_x0.5", "sft_x2"),
                        "grpo_demo_gemma3_1b has no stage of kind 'sft'"),
    },
}  # fmt: skip
# What the tiny experiment is already.
OF_TINY = {"preset_grpo", "epochs_1", "group_8", "temperature_1", "worked_0.35", "reward_correct",
           "full"}  # fmt: skip


def faults(variant):
    try:
        config = get_config(variant).to_dict()
    except ValueError as error:
        return [str(error)]
    return [line for line in problems(config, STAGES) if not ELSEWHERE.match(line)]


@pytest.mark.parametrize("of", BASES)
def test_every_ablation_is_fine(of):
    refused = REFUSED.get(of, {})
    found = {name: faults(f"{of}/{name}") for name in ("", *ABLATIONS)}
    assert {name for name, lines in found.items() if lines} == set(refused)
    for name, said in refused.items():
        assert all(line.endswith(said) and "\n" not in line for line in found[name]), found[name]


@pytest.mark.parametrize("of", BASES)
def test_every_ablation_changes_what_it_names_and_nothing_else(of):
    before = dict(flat(base_of(of, of).to_dict()))
    for name in ABLATIONS:
        if name in REFUSED.get(of, {}):
            continue
        after = dict(flat(get_config(f"{of}/{name}").to_dict()))
        named = leaves_of(base_of(of, of), name, of)
        paths = {path for path in {**before, **after} if before.get(path) != after.get(path)}
        paths |= before.keys() ^ after.keys()
        for path in paths:
            assert any(path == leaf or path.startswith(f"{leaf}.") for leaf in named), path
        for path, value in named.items():
            if not isinstance(value, dict):
                assert after[path] == value, (name, path)
        assert paths or of != "tiny" or name in OF_TINY | {"no_curriculum"}, name
        assert not (paths and of == "tiny" and name in OF_TINY), name


def test_the_presets_are_all_that_there_are():
    assert set(ablations.PRESETS) == set(PRESETS) and len(ablations.PRESETS) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_taken_whole(name):
    """Whatever the demo has set in its loss."""
    loss = get_config(f"grpo_demo_gemma3_1b/preset_{name}").stages.grpo.loss.to_dict()
    assert objective_of(loss) == PRESETS[name]


def test_by_hand():
    def grpo(variant):
        return get_config(variant).stages.grpo

    assert (grpo("tiny/group_4").prompts, grpo("tiny/group_4").group) == (32, 4)
    assert (grpo("tiny/group_16").prompts, grpo("tiny/group_16").group) == (8, 16)
    assert grpo("tiny/lr_x3").optimizer.learning_rate == pytest.approx(3e-4)
    assert get_config("tiny/sft_x0.25").stages.sft.steps == 85
    assert (grpo("tiny/lora_16").lora.rank, grpo("tiny/lora_16").lora.alpha) == (16, 32.0)
    assert (grpo("gemma3_270m/lora_4").lora.rank, grpo("gemma3_270m/lora_4").lora.alpha) == (4, 8.0)
    assert grpo("gemma3_270m/full").lora.rank is None
    assert get_config("tiny/worked_0.7").data.worked == 0.7
    assert get_config("tiny/copy_3").seed == 3000
    assert sorted(grpo("tiny/reward_correct_and_some_format").rewards) == [
        "correct_answer", "tag_format",
    ]  # fmt: skip
    both = grpo("tiny/no_kl+lr_x0.1")
    assert both.loss.kl_coef == 0.0 and both.optimizer.learning_rate == pytest.approx(1e-5)
    dapo = grpo("tiny/preset_dapo_no_overlong").loss
    assert (dapo.preset, dapo.overlong_buffer, dapo.overlong_penalty) == ("dapo", 0.0, 0.0)
    controls = get_config("tiny:controls/no_kl").stages
    assert controls.grpo.loss.kl_coef == controls.shuffled.loss.kl_coef == 0.0
    assert get_config("tiny/").to_dict() == get_config().to_dict() == base_of("tiny", "").to_dict()


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("tiny/no_kll", "'no_kll' of 'tiny/no_kll': is none of the ablations preset_grpo, "),
        ("tinny/no_kl", "variant 'tinny/no_kl' of configs/ablations.py: expected BASE/NAME, and "
         "there is no configs/tinny.py"),
        ("tiny:nope/no_kl", "variant 'nope' of configs/tiny.py: expected controls, or none"),
        ("tiny/no_kl+kl_0.3", "'tiny/no_kl+kl_0.3': no_kl and kl_0.3 both change "
         "stages.grpo.loss.kl_coef"),
        ("full_sft_gemma3_1b/no_kl", "no_kl: full_sft_gemma3_1b has no stage of kind 'grpo'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(variant, said):
    with pytest.raises(ValueError) as error:
        get_config(variant)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_groups_that_the_completions_do_not_make():
    config = base_of("tiny", "")
    config.stages.grpo.update(prompts=3, group=4)
    with pytest.raises(ValueError, match="group_16: 12 completions are no groups of 16"):
        leaves_of(config, "group_16", "tiny")


def test_a_field_that_is_not_there():
    config = base_of("tiny", "")
    with pytest.raises(ValueError, match="x: no such field"):
        ablations.put(config, "stages.grpo.nope", 1, "x: no such field")
