"""Named changes to any config, each the smallest dictionary of changed leaves.

    python launch.py --config=configs/ablations.py:tiny/no_kl
    python launch.py --config=configs/ablations.py:tiny:controls/no_kl+lr_x3
    python launch.py --config=configs/ablations.py:gemma3_270m/group_4

Before the / stands a file of this folder, perhaps with its variant; after it a name of ABLATIONS,
several of them with +, or nothing: the config itself. A delta names leaves of every stage of a
kind (`"grpo": {"loss.kl_coef": 0.0}`) or of the whole config; one that depends on the base (equal
tokens, times a rate) is a function of that section. Whatever a delta does not name stays.

    kl_0.02, kl_k2          loss per nat, its estimator. k1 goes into the reward: in the loss its
                            expected gradient is zero
    group_4                 as many completions an iteration as before, in groups of four
    lora_16                 an adapter; alpha / rank is that of the base's adapter, or 2
    lr_x3, sft_x2           times the base's
    clip_*                  act where a batch is used more than once: epochs_4+clip_higher
    worked_0.7              share of worked solutions in the default dataset, if it is made here
    copy_1                  nothing but other seeds: what no difference looks like

What cannot be of a base is refused in one line, here or by the checks of the launch. Presets are
taken whole: whatever the base has set in `loss` goes, but for the teacher's share.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from configs import base

Leaves = Mapping[str, Any]  # dotted path in a section -> value
Delta = Mapping[str, Leaves | Callable[[Any], Leaves]]  # kind of stages, or CONFIG -> leaves
CONFIG = "config"
PRESETS = (
    "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp", "cispo", "gmpo", "maxrl", "dppo",
    "reinforce_pp_baseline",
)  # fmt: skip
EPS = 1e-6  # of scales that have one
USUAL_SCALE = 2.0  # alpha / rank where the base has no adapter
CORRECT = {"correct_answer": base.reward(1.0, 0.0, 1.0, strict=True)}


def preset(name: str, **but: float) -> Delta:
    """A preset, and nothing of the base's own loss; a teacher's share is the stage's affair."""

    def leaves(stage: Any) -> Leaves:
        own = [field for field in stage.loss if field not in ("preset", "teacher_coef")]
        fields = {**dict.fromkeys(own), **but}
        return {"loss.preset": name, **{f"loss.{field}": x for field, x in fields.items()}}

    return {"grpo": leaves}


def groups_of(size: int) -> Delta:
    """Groups of another size, at equal completions and so at equal tokens."""

    def leaves(stage: Any) -> Leaves:
        rows = stage.prompts * stage.group
        if rows % size:
            raise ValueError(f"group_{size}: {rows} completions are no groups of {size}")
        return {"group": size, "prompts": rows // size}

    return {"grpo": leaves}


def adapter(rank: int) -> Delta:
    """An adapter of this rank, whose product is scaled as before."""

    def leaves(stage: Any) -> Leaves:
        lora = stage.lora
        scale = lora.alpha / lora.rank if lora.rank else USUAL_SCALE
        return {"lora.rank": rank, "lora.alpha": scale * rank}

    return {"grpo": leaves}


def times(kind: str, leaf: str, factor: float) -> Delta:
    """A number of every stage of a kind, times a factor."""

    def leaves(stage: Any) -> Leaves:
        value = at(stage, leaf)
        return {leaf: max(1, round(value * factor)) if isinstance(value, int) else value * factor}

    return {kind: leaves}


def worked(share: float) -> Delta:
    """How many of the solutions that are made here show their working."""

    def leaves(config: Any) -> Leaves:
        if config.data.train is not None or config.data.source == "mixture":
            raise ValueError(f"worked_{share:g}: data.source={config.data.source!r}: none are made")
        return {"data.worked": share}

    return {CONFIG: leaves}


def grpo(**leaves: Any) -> Delta:
    """Leaves of every GRPO stage; __ stands for a dot."""
    return {"grpo": {path.replace("__", "."): value for path, value in leaves.items()}}


def curriculum(order: str) -> Delta:
    """Examples by the length of the question, which every dataset has."""
    return grpo(curriculum__order=order, curriculum__by="length", curriculum__buckets=4)


ABLATIONS: dict[str, Delta] = {
    **{f"preset_{name}": preset(name) for name in PRESETS},
    "preset_dapo_no_overlong": preset("dapo", overlong_buffer=0.0, overlong_penalty=0.0),
    # What holds the policy.
    "no_kl": grpo(loss__kl_coef=0.0),
    **{f"kl_{coef:g}": grpo(loss__kl_coef=coef) for coef in (0.02, 0.08, 0.3)},
    "kl_k1": grpo(loss__kl="k1", loss__kl_in="reward"),
    "kl_k2": grpo(loss__kl="k2", loss__kl_in="loss"),
    "kl_k3": grpo(loss__kl="k3", loss__kl_in="loss"),
    "reference_base": grpo(reference="base"),
    "entropy_0.01": grpo(loss__entropy_coef=0.01, entropy=True),
    # The surrogate.
    "clip_higher": grpo(loss__clip_low=0.2, loss__clip_high=0.28),
    "clip_symmetric": grpo(loss__clip_low=0.2, loss__clip_high=0.2),
    "no_clip": grpo(loss__clip_low=1.0, loss__clip_high=1e6),
    **{f"epochs_{n}": grpo(epochs=n) for n in (1, 2, 4)},
    **{f"aggregation_{name}": grpo(loss__aggregation=name)
       for name in ("sequence", "token", "constant", "sum")},
    # The advantage.
    **{f"group_{size}": groups_of(size) for size in (2, 4, 8, 16)},
    "no_scale": grpo(loss__scale="none", loss__eps=None),
    **{f"scale_{name}": grpo(loss__scale=name, loss__eps=EPS)
       for name in ("group", "batch", "advantages", "mean")},
    "leave_one_out": grpo(loss__baseline="leave_one_out"),
    "batch_baseline": grpo(loss__baseline="batch", loss__scale="batch", loss__eps=EPS),
    "drop_equal_groups": grpo(dynamic_sampling="drop", max_rounds=1),
    # Rewards.
    "shuffled": grpo(shuffle_rewards=True),
    "reward_correct": grpo(rewards=CORRECT),
    "reward_format": grpo(rewards={"tag_format": base.reward(1.0, 0.0, 1.0)}),
    "reward_correct_and_some_format": grpo(
        rewards={**CORRECT, "tag_format": base.reward(0.2, 0.0, 1.0)}),
    "reward_correct_and_format": grpo(
        rewards={**CORRECT, "tag_format": base.reward(1.0, 0.0, 1.0)}),
    # What is trained, and how fast.
    **{f"lora_{rank}": adapter(rank) for rank in (1, 4, 16, 64)},
    "full": grpo(lora__rank=None),
    **{f"lr_x{factor:g}": times("grpo", "optimizer.learning_rate", factor)
       for factor in (0.1, 0.3, 3.0, 10.0)},
    **{f"temperature_{x:g}": grpo(sampling__temperature=x) for x in (0.6, 0.8, 1.0, 1.2)},
    # What comes before, and in which order.
    **{f"sft_x{factor:g}": times("sft", "steps", factor) for factor in (0.25, 0.5, 2.0)},
    **{f"worked_{share:g}": worked(share) for share in (0.0, 0.1, 0.35, 0.7, 1.0)},
    "no_curriculum": grpo(curriculum__order="uniform"),
    "curriculum_promoted": curriculum("promoted"),
    "curriculum_sorted": curriculum("sorted"),
    **{f"copy_{n}": {CONFIG: lambda config, n=n: {"seed": config.seed + 1000 * n}}
       for n in range(1, 10)},
}  # fmt: skip


def get_config(variant: str = "tiny"):
    """The config that `variant` names, BASE/NAME+NAME; without a name the base itself."""
    of, _, names = (variant or "tiny").partition("/")
    config, changed = base_of(of, variant), {}
    for name in names.split("+") if names else ():
        if name not in ABLATIONS:
            known = ", ".join(ABLATIONS)
            raise ValueError(f"{name!r} of {variant!r}: is none of the ablations {known}")
        for path, value in leaves_of(config, name, of).items():
            if path in changed:
                raise ValueError(f"{variant!r}: {changed[path]} and {name} both change {path}")
            put(config, path, value, f"{name}: {of} has no field {path}")
            changed[path] = name
    return config


def base_of(of: str, variant: str) -> Any:
    """The config of a file of this folder, and perhaps its variant."""
    file, _, of_file = of.partition(":")
    try:
        make = importlib.import_module(f"configs.{file}").get_config
    except ModuleNotFoundError as error:
        if error.name != f"configs.{file}":
            raise  # an import of that file
        raise ValueError(
            f"variant {variant!r} of configs/ablations.py: expected BASE/NAME, "
            f"and there is no configs/{file}.py"
        ) from None
    return make(of_file) if of_file else make()


def leaves_of(config: Any, name: str, of: str) -> dict[str, Any]:
    """The leaves that an ablation names, by their path in the config, and their new values."""
    found = {}
    for kind, leaves in ABLATIONS[name].items():
        stages = {f"stages.{n}.": stage for n, stage in config.stages.items() if stage.kind == kind}
        sections = {"": config} if kind == CONFIG else stages
        if not sections:
            raise ValueError(f"{name}: {of} has no stage of kind {kind!r}")
        for prefix, section in sections.items():
            these = leaves(section) if callable(leaves) else leaves
            found |= {f"{prefix}{path}": value for path, value in these.items()}
    return found


def at(section: Any, path: str) -> Any:
    """The value at a dotted path."""
    for key in path.split("."):
        section = section[key]
    return section


def put(config: Any, path: str, value: Any, otherwise: str) -> None:
    """Sets a leaf that is there; a table of rewards is replaced as a whole."""
    above, _, leaf = path.rpartition(".")
    section = at(config, above) if above else config
    if leaf not in section:
        raise ValueError(otherwise)
    section[leaf] = base.ConfigDict(value) if isinstance(value, dict) else value
