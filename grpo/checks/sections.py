"""What the fields of a section may be together, for the checks of stages; a line for each fault."""

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping

from grpo.algorithms.advantages import OVER_BATCH
from grpo.algorithms.presets import distillation_of, objective_of, preference_of, resolve
from grpo.data.datasets import (
    MIXTURE,
    offers,
    reads_of,
    required_splits,
    rows_of,
    section_of,
    sections_of,
)
from grpo.data.nearest import nearest
from grpo.judges.rubrics import COLUMN, STEPS
from grpo.judges.server import about_key, about_url
from grpo.rewards.table import PACKAGES, checked, faults, pays
from models.lora import TARGETS

Lines = Iterator[str]


def about_reading(stage: Mapping, config: Mapping) -> Lines:
    """The datasets that a stage reads exist, with the splits it reads, of rows that it can read."""
    datasets = sections_of(config)
    for section, name, split in reads_of(stage, config):
        if name not in datasets:
            yield f"{section}data={name!r}: is none of datasets{nearest(name, datasets)}"
        elif (rows := rows_of(datasets[name])) != "examples":
            yield f"{section}data={name!r}: its rows are {rows}, this stage reads examples"
        elif split not in required_splits(name, config) and not offers(name, split, datasets):
            yield f"{section}split={split!r}: {name} has no {split} examples"
    made = stage.get("solutions")
    if made is not None and config["stages"].get(made, {}).get("kind") != "traces":
        known = [n for n, s in config["stages"].items() if s.get("kind") == "traces"]
        yield f"solutions={made!r}: is no stage of kind 'traces'{nearest(made, known)}"
    name = stage.get("preferences")
    if name in datasets:
        if (rows := rows_of(datasets[name])) != "preferences":
            yield f"preferences={name!r}: its rows are {rows}, this stage reads preferences"
    elif name is not None and config["stages"].get(name, {}).get("kind") != "pairs":
        known = [*datasets, *(n for n, s in config["stages"].items() if s.get("kind") == "pairs")]
        yield (
            f"preferences={name!r}: is neither of datasets nor a stage of kind 'pairs'"
            f"{nearest(name, known)}"
        )


def about_rows(rows: int, stage: Mapping, config: Mapping, what: str) -> Lines:
    """Rows of an update that microbatches and devices cut evenly."""
    parts, fsdp = stage["microbatches"], config["mesh"]["fsdp"]
    if parts > rows:
        yield f"microbatches={parts}: there are only {rows} rows ({what})"
    elif fsdp > 1 and rows % (parts * fsdp):
        yield (
            f"microbatches={parts}: {rows} rows ({what}) do not divide by it times mesh.fsdp={fsdp}"
        )


def about_training(stage: Mapping) -> Lines:
    """The optimizer's schedule and the adapter's targets."""
    optimizer, lora = stage["optimizer"], stage["lora"]
    if (optimizer["final"] is None) != (optimizer["schedule"] == "constant"):
        wanted = "None" if optimizer["schedule"] == "constant" else "a share, such as 0.0"
        yield (
            f"optimizer.final={optimizer['final']}: "
            f"schedule={optimizer['schedule']!r} needs {wanted}"
        )
    if lora["rank"] is not None and not any(re.fullmatch(lora["targets"], t) for t in TARGETS):
        yield f"lora.targets={lora['targets']!r}: matches none of {', '.join(TARGETS)}"


def about_groups(stage: Mapping) -> Lines:
    """Dynamic sampling: its rounds, and that groups are compared within themselves."""
    sampling, loss = stage["dynamic_sampling"], resolve(stage["loss"])
    if (stage["max_rounds"] > 1) != (sampling == "refill"):
        yield (
            f"max_rounds={stage['max_rounds']}: dynamic_sampling={sampling!r} "
            f"needs {'more than 1' if sampling == 'refill' else '1'}"
        )
    if sampling == "refill" and (loss["baseline"] == "batch" or loss["scale"] in OVER_BATCH):
        yield (
            "dynamic_sampling='refill': each round would have a baseline or scale of its own: use "
            "loss.baseline='group' and loss.scale='group', 'mean' or 'none'"
        )


def about_curriculum(stage: Mapping, config: Mapping) -> Lines:
    """What the difficulty of examples is read from, and how many buckets that makes."""
    curriculum, data = stage["curriculum"], section_of(config, stage["data"])
    by, buckets = curriculum["by"], curriculum["buckets"]
    if curriculum["order"] == "uniform":
        return
    if data["source"] == MIXTURE:
        yield f"curriculum.order={curriculum['order']!r}: a mixture has its own: use uniform"
    if by == "pass_rate" and "pass_rate" not in data["columns"]:
        yield "curriculum.by='pass_rate': the data have none: name their columns.pass_rate"
    if curriculum["order"] == "promoted" and by in ("length", "pass_rate") and buckets is None:
        yield f"curriculum.buckets=None: by={by!r} would make one of every value: name a number"


def about_staleness(stage: Mapping) -> Lines:
    """What samples ahead can do without the metrics before it, and has a ratio to correct by."""
    if not stage["staleness"]:
        return
    if stage["dynamic_sampling"] == "refill":
        yield "staleness=1: dynamic_sampling='refill' draws by what verdicts say: use drop or off"
    if stage["curriculum"]["order"] == "promoted":
        yield "staleness=1: curriculum.order='promoted' goes by what verdicts say: use another"
    if resolve(stage["loss"])["surrogate"] == "reinforce":
        yield "staleness=1: loss.surrogate='reinforce' has no ratio to correct by: use cispo"


def about_diagnostics(stage: Mapping) -> Lines:
    """The gradient by reward, which there is where advantages add up and the loss is linear."""
    every, loss, is_paid = stage["by_reward_every"], resolve(stage["loss"]), pays(stage["rewards"])
    if not every:
        return
    if loss["decoupled"]:
        yield (
            f"by_reward_every={every}: loss.decoupled=True normalises each reward function apart, "
            "their advantages do not add up: use 0"
        )
    if not is_paid:
        yield f"by_reward_every={every}: no reward has a weight: use 0"
    if stage["staleness"] and loss["surrogate"] != "cispo":
        yield (
            f"by_reward_every={every}: staleness=1 has the first update clip by the sign of an "
            "advantage, which its parts may not share: use loss.surrogate='cispo', or 0"
        )


def about_loss(stage: Mapping) -> Lines:
    """The objective, and what it needs of rewards and measurements."""
    loss = resolve(stage["loss"])
    try:
        objective_of(loss)
    except ValueError as error:
        yield from (f"loss.{line}" for line in str(error).split("; "))
    if loss["entropy_coef"] and not stage["entropy"]:
        yield "entropy=False: loss.entropy_coef needs it: set it to True, or the other to 0.0"
    for name, entry in stage["rewards"].items() if loss["scale"] == "mean" else ():
        weight, low = entry["weight"], entry["low"]
        if weight < 0 or (weight and low < 0):
            yield (
                f"rewards.{name}: weight={weight}, low={low}: loss.scale='mean' divides by the "
                "mean reward: expected none below 0"
            )


def about_teacher(stage: Mapping) -> Lines:
    """A teacher beside rewards, or in their place."""
    teacher, loss = stage["teacher"], resolve(stage["loss"])
    if teacher is None and loss["teacher_coef"]:
        yield f"loss.teacher_coef={loss['teacher_coef']}: there is no teacher: name one, or use 0.0"
    if teacher is None:
        return
    if not loss["teacher_coef"]:
        yield f"teacher={teacher!r}: loss.teacher_coef=0.0 has it teach nothing: use 1.0, or None"
    if stage["dynamic_sampling"] != "off":
        yield (
            f"dynamic_sampling={stage['dynamic_sampling']!r}: groups of equal rewards learn from "
            "the teacher: use 'off'"
        )
    if not pays(stage["rewards"]):
        by, order = (stage["curriculum"][field] for field in ("metric", "order"))
        reads = {
            "loss.decoupled=True": loss["decoupled"],
            "shuffle_rewards=True": stage["shuffle_rewards"],
            f"curriculum.metric={by!r}": by == "reward" and order == "promoted",
        }
        yield from (
            f"{field}: no reward has a weight" for field, is_read in reads.items() if is_read
        )


def about_preference(stage: Mapping) -> Lines:
    """The objective of a stage that learns from preferences."""
    try:
        objective = preference_of(stage["loss"])
    except ValueError as error:
        yield from (f"loss.{line}" for line in str(error).split("; "))
        return
    if objective.comparison == "apart" and stage["batch"] == 1:
        yield "batch=1: loss.comparison='apart' needs the completions of other prompts: use more"


def about_distillation(stage: Mapping) -> Lines:
    """The objective of a stage that learns from a teacher, and the student's own completions."""
    try:
        objective = distillation_of(stage["loss"])
    except ValueError as error:
        yield from (f"loss.{line}" for line in str(error).split("; "))
        return
    if objective.student_share and stage["sampling"]["temperature"] == 0:
        yield "sampling.temperature=0: completions of the student are drawn: expected more"


def about_heads(stage: Mapping) -> Lines:
    """The heads of a reward model: names, and kinds of pairs that are of one head each."""
    heads, seen = stage["heads"], set()
    for name, kinds in heads.items():
        if not isinstance(kinds, tuple | list) or not all(isinstance(x, str) for x in kinds):
            yield f"heads.{name}={kinds!r}: expected a tuple of kinds of pairs; () takes all"
        elif not kinds and len(heads) > 1:
            yield f"heads.{name}=(): takes all kinds, and other heads none: name its own"
        elif twice := seen & set(kinds):
            yield f"heads.{name}: {sorted(twice)[0]!r} is of another head as well"
        else:
            seen |= set(kinds)


def about_reward_workers(stage: Mapping) -> Lines:
    """The processes that call reward functions, and functions that are called nowhere else."""
    workers, batch = stage["reward_workers"], stage["reward_batch_seconds"]
    if workers and batch < stage["reward_seconds"]:
        yield (
            f"reward_batch_seconds={batch}: expected no less than "
            f"reward_seconds={stage['reward_seconds']}, which is for one call"
        )
    for name in stage["rewards"]:
        if name not in PACKAGES:
            continue
        if not workers:
            yield f"reward_workers=0: {name} runs in processes of its own: set it to 1 or more"
        package, extra = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            yield f"rewards.{name}: needs {package}: pip install -e '.[{extra}]'"


def about_rewards(stage: Mapping) -> Lines:
    """A reward table: every entry by itself, then all together, then what it is for."""
    rewards, table = stage["rewards"], {}
    for name, entry in rewards.items():
        try:
            table |= [checked({"name": name, **entry})]
        except ValueError as error:
            yield str(error)
    if len(table) == len(rewards):
        yield from faults(table)
    if stage["teacher"] is None and not pays(rewards):
        yield "rewards: no entry has a weight: one needs another than 0, or the stage a teacher"


def about_judge(name: str, config: Mapping) -> Lines:
    """A judge: who answers, what a server needs, and what it is asked by."""
    section = config["judges"][name]
    model, url = section["model"], section["url"]
    if (model is None) == (url is None):
        yield "model, url: name one of them, and not the other"
    known = ["base", *config["pipeline"], *config["models"]]
    if model is not None and model not in known:
        yield f"model={model!r}: is neither a stage nor one of models{nearest(model, known)}"
    if section["replay"] is not None and not os.path.isfile(section["replay"]):
        yield f"replay={section['replay']!r}: no such file; judges/<name>.jsonl of a run is one"
    if url is not None and section["replay"] is None:
        if wrong := about_url(url):
            yield f"url: {wrong}"
        if wrong := about_key(section["key"]):
            yield f"key: {wrong}"
        if section["name"] is None:
            yield "name=None: the name of the model at the url is needed"
    rubric, prompt = section["rubric"], section["prompt"]
    if rubric in (COLUMN, STEPS) and prompt == "right":
        yield f"prompt='right': asks by no rubric: use criterion or overall with rubric={rubric!r}"
    if prompt == "found" and rubric != STEPS:
        yield f"prompt='found': looks for steps, and rubric={rubric!r} has none: set it to 'steps'"
