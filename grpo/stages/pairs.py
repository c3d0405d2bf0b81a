"""Preferences out of a policy's own completions.

    chosen      the shortest completion of a prompt that has the form and the right answer
    rejected    another one of the same prompt, of each kind of `against` the first that is there:
                malformed    has not the form
                wrong        has the form and another answer
                verbose      right, of at least `verbose` times the chosen one's tokens
    chosen      the longest right completion
    rejected    the same with its reasoning made worse (grpo/data/corruptions.py): number, deleted,
                shuffled

A pair for each kind. They stand in preferences/<stage>.jsonl of the run, as a dataset of source
"preferences" reads them, so that a later stage, and a later run, can learn from them; all that was
sampled, and whether it is right, in preferences/<stage>.samples.jsonl. The prompts are the first
`prompts` training examples in the order of the seed; a completion that was cut off is malformed,
and its pair says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.checks.rules import COUNT, SAMPLING, TEXT, number, one_of, optional, several
from grpo.data.corruptions import CORRUPTIONS, corrupted
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
SAMPLED = ("malformed", "wrong", "verbose")
KINDS = (*SAMPLED, *CORRUPTIONS)
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


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs."""
    stage = config["stages"][name]
    return {"decoding weights": 1, "rollout": stage["prompts"] // stage["batch"]}


def run(run: Run, name: str, policies: Policies) -> None:
    """Samples what is not yet sampled, a batch of prompts at a time."""
    stage, metrics, file = run.config["stages"][name], run.journal("metrics"), run.preferences(name)
    pairs, samples = Journal(file), Journal(run.preferences(f"{name}.samples"))
    batches = stage["prompts"] // stage["batch"]
    # A batch is done once its metrics are written, which is after its rows.
    done = sum(row["stage"] == name for row in metrics.rows())
    for journal in (pairs, samples):
        journal.keep(lambda row: row["step"] <= done)
    if done < batches:
        sampler = Sampler(policies.end(stage["policy"]), buckets_for(run.config, stage["data"]))
        for batch in range(done, batches):
            run.stop.check()
            groups = groups_of_batch(run, name, sampler, batch)
            found = dict.fromkeys(stage["against"], 0)
            for number, (example, group) in enumerate(groups, start=batch * stage["batch"]):
                where = {"question": example["question"], "step": batch + 1, "prompt": number}
                for one in group:
                    samples.write({**where, **one._asdict()})
                random = np.random.RandomState([run.seed, number])
                for kind, chosen, rejected in pairs_in(group, stage, random):
                    row = {"id": f"{number} {kind}", "kind": kind, **where}
                    row |= {"chosen": chosen.text, "rejected": rejected.text}
                    pairs.write({**row, "cut_off": rejected.cut_off})
                    found[kind] += 1
            for journal in (pairs, samples):  # before the metrics say that the batch is done
                journal.require_whole()
            shares = {f"pairs/{kind}": count / stage["batch"] for kind, count in found.items()}
            metrics.write({"stage": name, "step": batch + 1, **shares})
            run.progress.update(name, batch + 1, batches, shares)
    made = len(pairs.rows())
    if made < stage["least"]:
        raise DataError(
            f"stages.{name}: {made} pairs out of {stage['prompts']} prompts, least="
            f"{stage['least']} are needed: sample more prompts, larger groups, or of a policy that "
            "is right more often"
        )


class Sampled(NamedTuple):
    """A completion of a prompt."""

    text: str
    tokens: int
    cut_off: bool
    well_formed: bool
    right: bool  # and well-formed


def judged(example: Example, text: str, tokens: int, cut_off: bool) -> Sampled:
    """A completion, with what is to be said of it."""
    well_formed = not cut_off and strict(text) is not None
    return Sampled(
        text, tokens, cut_off, well_formed, well_formed and is_gold(strict, example, text)
    )


def groups_of_batch(
    run: Run, name: str, sampler: Sampler, batch: int
) -> list[tuple[Example, list[Sampled]]]:
    """The examples of a batch with their completions."""
    stage, data = run.config["stages"][name], run.data_of(name)
    P, G = stage["batch"], stage["group"]
    examples = examples_from(data.train, data.order(data.train, run.seed), batch * P, P)
    rollout = sampler.sample(
        [prompt_ids(sampler.tokenizer, example, data.template) for example in examples],
        row_keys(run.seed, "pairs", batch, jnp.arange(P * G)),
        sampling=stage["sampling"], group=G, max_new_tokens=stage["max_new_tokens"],
    )  # fmt: skip
    facts = texts_of(rollout, sampler.tokenizer), rollout.length_B, rollout.truncated_B
    texts, length_B, truncated_B = map(np.asarray, facts)
    return [
        (
            example,
            [
                judged(example, str(texts[b]), int(length_B[b]), bool(truncated_B[b]))
                for b in range(p * G, (p + 1) * G)
            ],
        )
        for p, example in enumerate(examples)
    ]


def pairs_in(
    group: Sequence[Sampled], stage: Config, random: np.random.RandomState
) -> list[tuple[str, Sampled, Sampled]]:
    """(kind, chosen, rejected) of a prompt's completions."""
    right = [one for one in group if one.right]
    if not right:
        return []
    shortest, longest = (find(right, key=lambda one: one.tokens) for find in (min, max))
    rejected = {
        "malformed": [one for one in group if not one.well_formed and one.text.strip()],
        "wrong": [one for one in group if one.well_formed and not one.right],
        "verbose": [one for one in right if one.tokens >= stage["verbose"] * shortest.tokens],
    }
    found = []
    for kind in stage["against"]:
        if kind in CORRUPTIONS:
            if worse := corrupted(longest.text, kind, random):
                found.append((kind, longest, longest._replace(text=worse)))
        elif rejected[kind]:
            found.append((kind, shortest, rejected[kind][0]))
    return found
