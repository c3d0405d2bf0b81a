"""Preferences out of a policy's own completions.

    chosen      the shortest completion of a prompt that has the form and the right answer
    rejected    another one of the same prompt, of each kind of `against` the first that is there:
                malformed    has not the form
                wrong        has the form and another answer
                verbose      right, of at least `verbose` times the chosen one's tokens

A pair for each kind. They stand in preferences/<stage>.jsonl of the run, as a dataset of source
"preferences" reads them, so that a later stage, and a later run, can learn from them. The prompts
are the first `prompts` training examples in the order of the seed; a completion that was cut off is
malformed, and its pair says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.checks.rules import COUNT, SAMPLING, TEXT, number, one_of, optional, several
from grpo.data.datasets import buckets_for
from grpo.data.examples import DataError, Example
from grpo.data.templates import prompt_ids
from grpo.rewards.correct import is_gold
from grpo.rewards.extract import strict
from grpo.rollout.collect import examples_from
from grpo.rollout.generate import Sampler, sampling_programs, texts_of
from grpo.rollout.sampler import row_keys
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.storage.journal import Journal
from grpo.training.program import Program
from models.policy import Policy

Config = Mapping[str, Any]
KINDS = ("malformed", "wrong", "verbose")
FIELDS = {
    **SAMPLING,
    "data": optional(TEXT),
    "policy": TEXT,
    "prompts": COUNT,
    "batch": COUNT,
    "group": number(int, 2),
    "max_new_tokens": COUNT,
    "against": several(one_of(*KINDS)),
    "verbose": number(float, 1, above=True),
    "least": COUNT,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """Batches that cut the prompts evenly, and completions that differ."""
    if stage["prompts"] % stage["batch"]:
        yield f"batch={stage['batch']}: does not divide prompts={stage['prompts']}"
    if stage["sampling"]["temperature"] == 0:
        yield "sampling.temperature=0: the completions of a prompt would be the same; expected more"


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The rollouts."""
    stage = config["stages"][name]
    return sampling_programs(
        policy, buckets_for(config, stage["data"]), prompts=stage["batch"],
        sampling=stage["sampling"], group=stage["group"], max_new_tokens=stage["max_new_tokens"],
    )  # fmt: skip


def run(run: Run, name: str, policies: Policies) -> None:
    """Samples what is not yet sampled, a batch of prompts at a time."""
    stage, metrics, file = run.config["stages"][name], run.journal("metrics"), run.preferences(name)
    pairs, batches = Journal(file), stage["prompts"] // stage["batch"]
    # A batch is done once its metrics are written, which is after its pairs.
    done = sum(row["stage"] == name for row in metrics.rows())
    pairs.keep(lambda row: row["step"] <= done)
    if done < batches:
        sampler = Sampler(policies.end(stage["policy"]), buckets_for(run.config, stage["data"]))
        for batch in range(done, batches):
            run.stop.check()
            rows, found = batch_of(run, name, sampler, batch)
            for row in rows:
                pairs.write(row)
            metrics.write({"stage": name, "step": batch + 1, **found})
            run.progress.update(name, batch + 1, batches, found)
    made = len(pairs.rows())
    if made < stage["least"]:
        raise DataError(
            f"stages.{name}: {made} pairs out of {stage['prompts']} prompts, least="
            f"{stage['least']} are needed: sample more prompts, larger groups, or of a policy that "
            "is right more often"
        )


def batch_of(
    run: Run, name: str, sampler: Sampler, batch: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The pairs of a batch of prompts as rows, and how many there are of each kind."""
    stage, data = run.config["stages"][name], run.data_of(name)
    P, G = stage["batch"], stage["group"]
    examples = examples_from(data.train, run.seed, batch * P, P)
    rollout = sampler.sample(
        [prompt_ids(sampler.tokenizer, example, data.template) for example in examples],
        row_keys(run.seed, "pairs", batch, jnp.arange(P * G)),
        sampling=stage["sampling"], group=G, max_new_tokens=stage["max_new_tokens"],
    )  # fmt: skip
    texts, length_B = texts_of(rollout, sampler.tokenizer), np.asarray(rollout.length_B)
    truncated_B = np.asarray(rollout.truncated_B)
    rows = []
    for p, example in enumerate(examples):
        group = [
            Sampled(texts[b], int(length_B[b]), bool(truncated_B[b]))
            for b in range(p * G, (p + 1) * G)
        ]
        for kind, chosen, rejected in pairs_in(example, group, stage["against"], stage["verbose"]):
            rows.append({
                "id": f"{example['id']} {batch * P + p} {kind}",
                "question": example["question"],
                "chosen": chosen.text,
                "rejected": rejected.text,
                "cut_off": rejected.cut_off,
                "kind": kind,
                "step": batch + 1,
            })  # fmt: skip
    found = {kind: sum(row["kind"] == kind for row in rows) / P for kind in stage["against"]}
    return rows, {f"pairs/{kind}": share for kind, share in found.items()}


class Sampled(NamedTuple):
    """A completion of a prompt."""

    text: str
    tokens: int
    cut_off: bool


def pairs_in(
    example: Example, group: Sequence[Sampled], against: Sequence[str], verbose: float
) -> list[tuple[str, Sampled, Sampled]]:
    """(kind, chosen, rejected) of a prompt's completions."""
    well_formed = [one for one in group if not one.cut_off and strict(one.text) is not None]
    right = [one for one in well_formed if is_gold(strict, example, one.text)]
    if not right:
        return []
    chosen = min(right, key=lambda one: one.tokens)
    rejected = {
        "malformed": [one for one in group if one not in well_formed and one.text.strip()],
        "wrong": [one for one in well_formed if one not in right],
        "verbose": [one for one in right if one.tokens >= verbose * chosen.tokens],
    }
    return [(kind, chosen, rejected[kind][0]) for kind in against if rejected[kind]]
