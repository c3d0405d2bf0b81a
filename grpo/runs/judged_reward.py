"""The rewards of judges in a GRPO stage: `judged`, and `held_out_judged` for one beside it.

Who answers is said in the config's `judges`: a model of ours (policy_judge.py), a server, or a
recording of either. Every reply is kept in judges/<name>.jsonl of the run's directory, which is
such a recording; an iteration that is done again after a stop finds its replies there, and asks
once more what had failed. A completion without a verdict has no reward, and a run in which most
have none stops (`max_abstained`).
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from grpo.checks.devices import is_apart
from grpo.data.nearest import nearest
from grpo.judges.asking import Ask
from grpo.judges.http import asker
from grpo.judges.judging import Judge, metrics_of, verdicts
from grpo.judges.prompts import SCALES, questions_of
from grpo.judges.replay import recorded, replayed
from grpo.judges.server import Limits
from grpo.rewards.correct import CORRECT
from grpo.rewards.given import JUDGED
from grpo.runs.given_rewards import Batch, Reward, Values
from grpo.runs.policies import Policies
from grpo.runs.policy_judge import PolicyJudge, choices_of, judge_program
from grpo.runs.shapes import model_shapes
from grpo.training.program import Program
from models.policy import Policy

Config = Mapping[str, Any]
OF_MODEL = ("scores", "least_mass", "max_prompt", "temperature", "scale")
BACKOFF, LONGEST_WAIT, MAX_BYTES = 1.0, 30.0, 2**20


def judges_of(stage: Config) -> dict[str, str]:
    """The judges of a stage, by the reward that they give."""
    rewards = stage["rewards"]
    return {name: rewards[name]["options"]["judge"] for name in JUDGED if name in rewards}


def about(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with the judges of a stage."""
    for reward, name in judges_of(stage).items():
        if name not in config["judges"]:
            hint = nearest(name, config["judges"])
            yield f"rewards.{reward}.options.judge={name!r}: is none of judges{hint}"
        entry = stage["rewards"][reward]
        if not (entry["low"] <= 0 and entry["high"] >= 1):
            yield (
                f"rewards.{reward}: verdicts are from 0 to 1, the declared range is "
                f"{entry['low']} to {entry['high']}: let it hold them"
            )


def programs(config: Config, stage: Config, policy: Policy) -> dict[str, Program]:
    """What the judges of a stage that are models of ours read prompts with."""
    return judge_programs(config, judges_of(stage), policy)


def calls(config: Config, stage: Config) -> dict[str, int | None]:
    """How often these run in a stage, if every completion is asked about and none twice.

    None where the questions about each hang on data: on criteria of its own.
    """
    found: dict[str, int | None] = {}
    for reward, name in judges_of(stage).items():
        section = config["judges"][name]
        questions = questions_of(section["prompt"], section["rubric"])
        asked = questions and stage["prompts"] * stage["group"] * questions
        found[reward] = asked and stage["iterations"] * -(-asked // section["batch"])
    return found


def judge_programs(config: Config, judges: Mapping[str, str], policy: Policy) -> dict[str, Program]:
    """The same of any judges, by whatever they are wanted for."""
    found, models = {}, {}
    for purpose, name in judges.items():
        section = config["judges"][name]
        if (model := section["model"]) is None or section["replay"] is not None:
            continue
        if model not in models:
            models[model] = model_shapes(config, model, policy)
        unknown = tuple((place,) for place in range(len(SCALES[section["scale"]])))
        found[purpose] = judge_program(section, models[model], unknown)  # the tokenizer says which
    return found


def judged(judge: Judge, reward: str, batch: Batch) -> Values:
    """The verdicts on the completions of a batch that a reward's judge is asked about."""
    rows, value_B = np.flatnonzero(batch.asked[reward]).tolist(), np.full(len(batch.texts), np.nan)
    if not rows:
        return Values(value_B, {})
    examples, texts = [batch.examples[row] for row in rows], [batch.texts[row] for row in rows]
    found = verdicts(judge, examples, texts)
    value_B[rows] = found.score_B
    pairs = zip(examples, texts, strict=True)
    right_B = np.array([CORRECT["strict"](*pair) for pair in pairs])
    return Values(value_B, metrics_of(found, right_B))


def judged_of(policies: Policies, name: str, programs: Mapping[str, Program]) -> dict[str, Reward]:
    """What the judges of a stage say, by the reward that they give.

    Servers and recordings are elsewhere, and a model of ours that has devices for itself.
    """
    config, found = policies.config, {}
    for reward, judge in judges_of(config["stages"][name]).items():
        program, model = programs.get(reward), config["judges"][judge]["model"]
        read = functools.partial(judged, judge_of(policies, judge, program), reward)
        elsewhere = program is None or is_apart(config, config["stages"][name], model)
        found[reward] = Reward(read, elsewhere=elsewhere)
    return found


def judge_of(policies: Policies, name: str, program: Program | None) -> Judge:
    """A judge of the config."""
    section, seed = policies.config["judges"][name], policies.config["seed"]
    if section["model"] is not None:
        asked = {"model": section["model"], **{field: section[field] for field in OF_MODEL}}
    else:
        asked = {"model": section["name"], "temperature": section["temperature"],
                 "max_tokens": section["max_tokens"], "seed": seed}  # fmt: skip
    if section["replay"] is not None:
        ask = replayed(section["replay"])
    else:
        file = policies.workdir / "judges" / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        ask = recorded(answering(policies, section, program, asked), file, again=True)
    return Judge(ask, asked, section["prompt"], section["rubric"], section["scale"], seed)


def answering(
    policies: Policies, section: Config, program: Program | None, asked: Mapping[str, Any]
) -> Ask:
    """What a judge's questions are put to."""
    if program is None:
        limits = Limits(
            concurrency=section["concurrency"], item_seconds=section["seconds"],
            batch_seconds=section["batch_seconds"], attempts=section["attempts"],
            backoff=BACKOFF, longest_wait=LONGEST_WAIT, max_bytes=MAX_BYTES,
        )  # fmt: skip
        return asker(section["url"], key_variable=section["key"], settings=asked, limits=limits)
    policy = policies.asked(section["model"])
    choices = choices_of(policy.own_tokenizer, section["scale"])
    program = program._replace(static={**program.static, "choices": choices})
    return PolicyJudge(policy, program, {**section, "seed": policies.config["seed"]})
