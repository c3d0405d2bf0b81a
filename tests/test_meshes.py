"""Teachers and judges on devices of their own: the same run, and what a config may say."""

import io
import threading

import jax
import pytest

from configs import base
from grpo.checks.devices import count_devices, is_apart
from grpo.checks.problems import problems
from grpo.pipeline import STAGES
from grpo.runs.policy_judge import PolicyJudge
from grpo.runs.shapes import base_of, model_shapes
from grpo.tools.preflight import preflight
from grpo.tools.shapes import amount, device_bytes
from tests.helpers import assert_trees_equal
from tests.small_run import (
    arrays,
    final,
    launch,
    opened,
    rows,
    small,
    small_grpo,
    small_sft,
    workshop,
)

# fsdp and tp of all, the first device of the judge, and of the teacher
LAYOUTS = {"one device each": (1, 1, 1, 2), "four each": (2, 2, 4, 4)}


def config_of(layout: tuple[int, int, int, int], *, apart: bool) -> base.ConfigDict:
    """A judge, a teacher of tokens, and one of distributions, all of which may be apart."""
    fsdp, tp, judge, teacher = layout
    config = small()
    config.mesh.update(fsdp=fsdp, tp=tp)
    config.model.whole = ("yes", "no")
    config.models.stranger = base.model(size="gemma3_micro", vocab=400, whole=("yes", "no"))
    config.judges.grader = base.judge(
        model="stranger", prompt="right", rubric="right", scale="yes_no", least_mass=0.0,
        max_prompt=128, batch=4,
    )  # fmt: skip
    config.stages.sft = small_sft()
    config.stages.grpo = grpo = small_grpo()
    grpo.update(iterations=3, teacher="sft", start="base", staleness=1)
    grpo.loss.teacher_coef = 0.5
    grpo.rewards.judged = base.reward(1.0, 0.0, 1.0, judge="grader")
    config.stages.gkd = gkd = base.distill()
    gkd.update(start="base", teacher="stranger", steps=2, batch=4, max_completion=6)
    gkd.loss.student_share = 1.0
    config.pipeline = ("sft", "grpo", "gkd")
    if apart:
        config.meshes.stranger = base.mesh(fsdp=fsdp, tp=tp, first=judge)
        config.meshes.sft = base.mesh(fsdp=fsdp, tp=tp, first=teacher)
    return config


ONE_EACH, FOUR_EACH = LAYOUTS.values()


def devices_of(tree) -> set[int]:
    return {device.id for x in jax.tree.leaves(tree) for device in x.sharding.device_set}


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=[*LAYOUTS])
def runs(request, tmp_path_factory):
    """The layout, a run with one mesh and one with more, and where the judge read each time."""
    folder, found, read = tmp_path_factory.mktemp("runs"), [], PolicyJudge.read

    def seen(self, prompts):
        is_beside = threading.current_thread() is not threading.main_thread()
        found.append((devices_of(self.policy.variables), is_beside))
        return read(self, prompts)

    with workshop(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicyJudge, "read", seen)
        for apart in (False, True):
            config = config_of(request.param, apart=apart)
            assert problems(config.to_dict(), STAGES) == []
            assert launch(config, folder / str(apart)) == 0
        yield request.param, folder / "False", folder / "True", found


def test_the_same_run_bit_by_bit(runs):
    _, together, apart, _ = runs
    for stage in ("sft", "grpo", "gkd"):
        there, here = arrays(final(together, stage)), arrays(final(apart, stage))
        assert len(there) > 10 and there == here
    for journal in ("metrics", "rollouts", "judges/grader"):
        assert rows(together, journal) == rows(apart, journal) != []


def test_who_is_where(runs):
    (fsdp, tp, judge, _), _, apart, found = runs
    own, others = ({first + n for n in range(fsdp * tp)} for first in (0, judge))
    half = len(found) // 2
    assert half > 2 and [devices for devices, _ in found] == [own] * half + [others] * half
    _, policies = opened(config_of(FOUR_EACH, apart=True), apart, io.StringIO())
    end, asked = policies.end("sft"), policies.asked("sft")
    assert (devices_of(end.variables), devices_of(asked.variables)) == (set(range(4)), {4, 5, 6, 7})
    assert_trees_equal(end.params, asked.params)
    assert devices_of(policies.asked("base").params) == set(range(4))
    assert policies.asked("base").mesh is policies.base.mesh


def test_a_judge_that_is_apart_is_asked_in_a_thread(runs):
    """Not one whose devices the teacher has as well."""
    (*_, judge, teacher), _, _, found = runs
    half = len(found) // 2
    assert [is_beside for _, is_beside in found] == [False] * half + [judge != teacher] * half


def test_a_model_of_its_own_is_never_on_the_policys_devices(runs):
    _, policies = opened(config_of(FOUR_EACH, apart=True), runs[2], io.StringIO())
    stranger = policies.asked("stranger")
    assert devices_of(stranger.params) == {4, 5, 6, 7}
    assert stranger is policies.end("stranger")  # as it was loaded: nothing was moved


def test_a_preflight_says_what_each_half_holds():
    """The stage that takes most of each half: of the others' GRPO, which asks both of them."""
    with workshop():
        alone, both = (preflight(config_of(FOUR_EACH, apart=apart).to_dict(), STAGES)
                       for apart in (False, True))  # fmt: skip
    assert [line for line in both if "from number 4 on holds" in line] != []
    assert [line for line in alone if "from number" in line] == []
    policy, others = both[-2:]
    assert policy.startswith("reckoned in all: ") and " on a device, for " in policy
    assert others.endswith(" on a device from number 4 on, for grpo")
    with workshop():
        config = config_of(FOUR_EACH, apart=True).to_dict()
        stranger = model_shapes(config, "stranger", base_of(config))
        end = model_shapes(config, "sft", base_of(config))
    assert amount(device_bytes((stranger.params, end.params))) in others


def wrong(**meshes) -> list[str]:
    config = config_of(ONE_EACH, apart=False)
    for name, place in meshes.items():
        config.meshes[name] = base.mesh(**place)
    return problems(config.to_dict(), STAGES)


@pytest.mark.parametrize(("meshes", "line"), [
    ({"sft": {"fsdp": 2, "tp": 2, "first": 5}},
     "meshes.sft: first + fsdp * tp = 9 devices, here are 8"),
    ({"stranger": {"fsdp": 1, "tp": 3, "first": 1}},
     "meshes.stranger.tp=3: does not divide the 4 heads of gemma3_micro"),
    ({"stranger": {"fsdp": 1, "tp": 1, "first": 0}},
     "meshes.stranger.first=0: the policy has devices 0 to 0"),
    ({"stranger": {"fsdp": 2, "tp": 2, "first": 1}, "sft": {"fsdp": 2, "tp": 2, "first": 4}},
     "meshes.stranger: shares some devices with meshes.sft: take all or none"),
    ({"strange": {"fsdp": 1, "tp": 1, "first": 1}},
     "meshes.strange: is neither the teacher of a stage nor the model of a judge; "
     "did you mean stranger?"),
    ({"grpo": {"fsdp": 1, "tp": 1, "first": 1}},
     "meshes.grpo: is neither the teacher of a stage nor the model of a judge"),
    ({"sft": {"fsdp": 1, "tp": 1, "first": -1}}, "meshes.sft.first=-1: expected"),
    ({"sft": {"fsdp": 0, "tp": 1, "first": 1}}, "meshes.sft.fsdp=0: expected"),
])  # fmt: skip
def test_what_a_config_may_not_say(meshes, line):
    (found,) = wrong(**meshes)
    assert found.startswith(line)


def test_the_heads_are_those_of_the_model():
    config = config_of(ONE_EACH, apart=False)
    config.models.stranger.size = "gemma3_270m"  # whose four heads are as many as the policy's
    config.model.size = "gemma3_12b"  # which has sixteen
    config.meshes.stranger = base.mesh(fsdp=1, tp=3, first=1)
    (line,) = problems(config.to_dict(), STAGES)
    assert line == "meshes.stranger.tp=3: does not divide the 4 heads of gemma3_270m"


def test_who_may_work_meanwhile():
    """Whoever has devices that are neither the policy's nor those of the stage's teacher."""
    config = config_of(FOUR_EACH, apart=True).to_dict()
    alone, taught = {"teacher": None}, {"teacher": "sft"}
    assert is_apart(config, alone, "stranger") and not is_apart(config, alone, "base")
    assert not is_apart(config, taught, "stranger")
    config["meshes"]["sft"] |= {"first": 8}
    assert is_apart(config, taught, "stranger") and count_devices(config) == 12
