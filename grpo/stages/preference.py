"""Training on preferences: DPO and its relatives.

    (1) log π_ref(w) and log π_ref(l) of every pair, once, where the loss has a reference
    (2) θ <- AdamW(θ, ∇L)    L of grpo/algorithms/preference.py, over the pairs of an update

The pairs are a dataset's, or those that a stage before this one made (grpo/stages/pairs.py), in the
order of (seed, index). What (1) finds stands in preferences/<stage>.reference.jsonl of the run, a
row per pair, and is not made again. Under kto each update begins with z, from every prompt with the
completions of the next one.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo.algorithms.preference import Pairs, Preference
from grpo.algorithms.presets import preference_of
from grpo.checks.rules import COUNT, PREFERENCE, TEXT, TRAINED, one_of
from grpo.checks.sections import about_preference, about_rows, about_training
from grpo.data.datasets import buckets_for
from grpo.data.examples import DataError, Example
from grpo.data.order import example_at
from grpo.data.pairing import Tokens, mismatched, pairs_of
from grpo.runs.policies import Policies
from grpo.runs.preferences import dataset_of, fitting_pairs
from grpo.runs.run import Run
from grpo.runs.stage_loop import StageLoop, running_calls, running_evaluation
from grpo.storage.journal import Journal
from grpo.training.logprobs import Logprobs, logprobs_of_rows, make_preference_loss
from grpo.training.program import Program, rows_shape
from grpo.training.train_step import update_program
from models.policy import Policy
from models.sharding import put_rows
from models.tokenizer import Tokenizer

Config = Mapping[str, Any]
FIELDS = {
    **TRAINED,
    **PREFERENCE,
    "preferences": TEXT,
    "steps": COUNT,
    "batch": COUNT,
    "max_completion": COUNT,
    "reference": one_of("start", "base"),
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with fields that are fine one by one."""
    yield from about_training(stage)
    yield from about_rows(stage["batch"], stage, config, "batch")
    yield from about_preference(stage)


def build(config: Config, name: str, policy: Policy) -> dict[str, Program]:
    """The programs of an update, for a policy that is there or for its shapes."""
    stage, mesh = config["stages"][name], policy.mesh
    objective, P, C = preference_of(stage["loss"]), stage["batch"], stage["max_completion"]
    lengths = [bucket + C for bucket in buckets_for(config, dataset_of(stage, config))]

    def pairs(T: int) -> Pairs:
        shape = functools.partial(rows_shape, mesh)
        tokens_P2T, number_P = shape(jnp.int32, P, 2, T), shape(jnp.float32, P)
        return Pairs(
            ids_P2T=tokens_P2T,
            mask_P2T=tokens_P2T,
            completion_mask_P2C=shape(jnp.int32, P, 2, C),
            ref_logprob_P2=shape(jnp.float32, P, 2) if objective.has_reference else None,
            margin_P=number_P,
            moved_P=number_P if objective.comparison == "apart" else None,
            share_P=number_P,
            weight_PC=shape(jnp.float32, P, C),
        )

    logprobs = Logprobs(
        module=policy.module,
        temperature=1.0,
        with_entropy=False,
        group=2 if policy.share_prompts else 1,
    )
    programs = {
        "update": update_program(
            make_preference_loss(logprobs, objective),
            policy,
            optimizer=stage["optimizer"],
            updates=stage["steps"],
            microbatches=stage["microbatches"],
            batches=[pairs(T) for T in lengths],
        )
    }
    if objective.has_reference:
        scored = [policy] * (objective.comparison == "apart") + [policy.base()]
        tokens = [rows_shape(mesh, jnp.int32, 2 * P, T) for T in lengths]
        programs["log-probs"] = Program(
            logprobs_of_rows,
            tuple((one.variables, x_BT, x_BT) for one in scored for x_BT in tokens),
            {"logprobs": logprobs, "completion": C, "parts": stage["microbatches"]},
        )
    if stage["evaluate_every"]:
        programs |= running_evaluation(config, name, policy)
    return programs


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs; the reference reads all pairs, whose number is data."""
    steps = config["stages"][name]["steps"]
    return {"update": steps, "log-probs": None, **running_calls(config, name, steps)}


class Setting(NamedTuple):
    """What stays the same through the stage."""

    run: Run
    name: str
    stage: Config
    objective: Preference
    programs: dict[str, Program]
    pairs: Sequence[tuple[Example, Tokens]]
    buckets: Sequence[int]
    reference: Policy | None
    reference_N2: np.ndarray | None  # what that says of all pairs


def run(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    setting, loop = opened(run, name, policies)
    loop.evaluate_at_start()
    while not loop.is_done:
        learn(setting, loop)
        loop.evaluate_save_or_stop()


def opened(run: Run, name: str, policies: Policies) -> tuple[Setting, StageLoop]:
    """The stage where it is, with (1) done."""
    stage, start = run.config["stages"][name], policies.start(name)
    objective = preference_of(stage["loss"])
    setting = Setting(
        run=run,
        name=name,
        stage=stage,
        objective=objective,
        programs=build(run.config, name, start),
        pairs=all_pairs(run, name, start.own_tokenizer),
        buckets=buckets_for(run.config, dataset_of(stage, run.config)),
        reference=policies.reference(name, start) if objective.has_reference else None,
        reference_N2=None,
    )
    setting = setting._replace(reference_N2=reference_logprobs(setting))
    return setting, StageLoop(run, name, start, stage["steps"], updates=1)


def learn(setting: Setting, loop: StageLoop) -> None:
    """(2) One update from the next pairs."""
    pairs = batch_of(setting, loop)
    state, metrics = setting.programs["update"](loop.state, loop.start.frozen, pairs)
    arrays = {field: x for field, x in pairs._asdict().items() if x is not None}
    loop.keep_update(state, metrics, arrays)
    loop.move_to(loop.iteration + 1, taken=setting.stage["batch"])


def batch_of(setting: Setting, loop: StageLoop) -> Pairs:
    """What the coming update learns from: pairs, what the reference says of them, and z."""
    places = following(setting, loop)
    tokens = [setting.pairs[place][1] for place in places]
    pairs = pairs_of(
        tokens,
        None if setting.reference_N2 is None else setting.reference_N2[places],
        buckets=setting.buckets,
        max_completion=setting.stage["max_completion"],
    )
    if setting.objective.comparison == "apart":
        pairs = pairs._replace(moved_P=moved(setting, loop.policy, tokens))
    return pairs


def following(setting: Setting, loop: StageLoop) -> list[int]:
    """Which of all pairs come next."""
    seed, count = setting.run.seed, len(setting.pairs)
    return [example_at(seed, loop.taken + n, count) for n in range(setting.stage["batch"])]


def all_pairs(run: Run, name: str, tokenizer: Tokenizer) -> list[tuple[Example, Tokens]]:
    """Every pair whose completions fit; all have margins, where the loss asks for these."""
    stage, pairs = run.config["stages"][name], fitting_pairs(run, name, tokenizer)
    without = sum(row["margin"] is None for row, _ in pairs)
    if preference_of(stage["loss"]).margin_coef and without:
        raise DataError(
            f"stages.{name}: loss.margin_coef needs a margin of every pair of "
            f"{stage['preferences']}, {without} of {len(pairs)} have none"
        )
    return pairs


def completion_logprobs(setting: Setting, policy: Policy, tokens: Sequence[Tokens]) -> np.ndarray:
    """logprob_P2: what a policy says of whole completions."""
    sizes = {"buckets": setting.buckets, "max_completion": setting.stage["max_completion"]}
    pairs = pairs_of(tokens, None, **sizes)
    ids_BT, mask_BT = (x.reshape(-1, x.shape[2]) for x in (pairs.ids_P2T, pairs.mask_P2T))
    placed = put_rows((ids_BT, mask_BT), policy.mesh)
    logprob_BC = setting.programs["log-probs"](policy.variables, *placed)
    logprob_P2C = np.asarray(logprob_BC).reshape(pairs.completion_mask_P2C.shape)
    return np.where(pairs.completion_mask_P2C, logprob_P2C, 0).sum(axis=2)


def reference_logprobs(setting: Setting) -> np.ndarray | None:
    """reference_N2 of all pairs, as far as they are not yet in the run's directory."""
    if setting.reference is None:
        return None
    run, tokens, P = setting.run, [tokens for _, tokens in setting.pairs], setting.stage["batch"]
    journal = Journal(run.preferences(f"{setting.name}.reference"))
    there = len(journal.rows())
    begun = there if there >= len(tokens) else there // P * P
    journal.keep(lambda row: row["pair"] < begun)  # whole batches: bits hang on what is in one
    for first in range(begun, len(tokens), P):
        run.stop.check()
        places = [min(first + n, len(tokens) - 1) for n in range(P)]
        batch = [tokens[place] for place in places]
        found_P2 = completion_logprobs(setting, setting.reference, batch)
        for place, (chosen, rejected) in zip(range(first, len(tokens)), found_P2, strict=False):
            journal.write({"pair": place, "chosen": float(chosen), "rejected": float(rejected)})
    rows = [[row["chosen"], row["rejected"]] for row in journal.rows()]
    return np.array(rows, np.float32)


def moved(setting: Setting, policy: Policy, tokens: Sequence[Tokens]) -> np.ndarray:
    """moved_P: max(0, mean of log π/π_ref) over completions of other prompts."""
    others = mismatched(tokens)
    assert setting.reference is not None
    gap_P2 = completion_logprobs(setting, policy, others) - completion_logprobs(
        setting, setting.reference, others
    )
    return np.full(len(others), max(0.0, gap_P2.mean()), np.float32)
