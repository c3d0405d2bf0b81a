"""A reward model, trained on pairs of which one completion is better.

    compared          Bradley and Terry's model of the pairs
    mse, huber, bce   regression: a chosen completion is worth 1 under every head, a rejected one
                      0 under the head of its kind; nothing is said of the other heads

    L of grpo/algorithms/reward_modeling.py; the model: models/reward_model.py

The pairs are those of a stage `pairs` before it, or of a dataset. Each head has kinds of pairs
that it learns from. A share `held_out` of the prompts is never learnt: on these the model is
measured at the end,

    accuracy                how often the chosen one has the higher reward, for each kind as well
    accuracy/same length    the same of the pairs whose lengths differ by `similar` at most
    best of N               right answers if of N completions of a prompt the one with the highest
                            reward (the mean over heads) is taken, beside taking any of them

with intervals of 95 %, in rewards/<stage>.json of the run. With `shuffle_labels`, a control, a fair
coin says which completion of a training pair is the better one.
"""

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from grpo.algorithms.reward_modeling import REGRESSIONS, Compared, Valued
from grpo.checks.rules import COUNT, FLAG, NAMED, SHARE, TEXT, TRAINED, number, one_of
from grpo.checks.sections import about_heads, about_rows, about_training
from grpo.data.datasets import DEFAULT, buckets_for
from grpo.data.examples import DataError, Example, question_key
from grpo.data.order import example_at
from grpo.data.packing import one_each
from grpo.data.pairing import pairs_of
from grpo.data.templates import completion_ids, prompt_ids
from grpo.evaluation.reward_models import Group, Pair, Row, best_of, pair_accuracy
from grpo.runs.policies import Policies
from grpo.runs.preferences import dataset_of, fitting_pairs
from grpo.runs.reward_models import heads_of, reward_model_at_start, untrained
from grpo.runs.run import Run
from grpo.runs.stage_loop import StageLoop
from grpo.storage.journal import Journal
from grpo.storage.manifest import write_json
from grpo.training.program import Program, rows_shape
from grpo.training.reward_losses import make_compared_loss, make_valued_loss, rewards_program
from grpo.training.train_step import update_program
from models.policy import Policy
from models.reward_model import RewardModel, Rewards
from models.sharding import put_rows

Config = Mapping[str, Any]
NOT_OF_A_POLICY = ("start", "data", "evaluate_every")
FIELDS = {
    **{field: rule for field, rule in TRAINED.items() if field not in NOT_OF_A_POLICY},
    "policy": TEXT,
    "preferences": TEXT,
    "heads": NAMED,
    "objective": one_of("compared", *REGRESSIONS),
    "margin_coef": number(float, 0),
    "centre": number(float, 0),
    "steps": COUNT,
    "batch": COUNT,
    "max_completion": COUNT,
    "held_out": SHARE,
    "similar": SHARE,
    "shuffle_labels": FLAG,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with fields that are fine one by one."""
    yield from about_training(stage)
    yield from about_rows(stage["batch"], stage, config, "batch")
    yield from about_heads(stage)


def build(config: Config, name: str, policy: Policy | RewardModel) -> dict[str, Program]:
    """The programs of an update and of measuring, for a model that is there or for its shapes."""
    stage = config["stages"][name]
    model = policy if isinstance(policy, RewardModel) else untrained(policy, stage)
    P, C, H = stage["batch"], stage["max_completion"], len(heads_of(stage))
    lengths = [bucket + C for bucket in buckets_for(config, dataset_of(stage, config))]
    shape = functools.partial(rows_shape, model.mesh)

    def compared(T: int) -> Compared:
        tokens_P2T, number_P = shape(jnp.int32, P, 2, T), shape(jnp.float32, P)
        return Compared(tokens_P2T, tokens_P2T, shape(jnp.int32, P), number_P, number_P)

    def valued(T: int) -> Valued:
        tokens_BT, number_BH = shape(jnp.int32, 2 * P, T), shape(jnp.float32, 2 * P, H)
        return Valued(tokens_BT, tokens_BT, number_BH, number_BH)

    rewards = Rewards(model.module)
    if stage["objective"] == "compared":
        numbers = {field: stage[field] for field in ("margin_coef", "centre")}
        loss, batch = make_compared_loss(rewards, **numbers), compared
    else:
        loss, batch = make_valued_loss(rewards, regression=stage["objective"]), valued
    rows = [shape(jnp.int32, 2 * P, T) for T in lengths]
    return {
        "update": update_program(
            loss,
            model,
            optimizer=stage["optimizer"],
            updates=stage["steps"],
            microbatches=stage["microbatches"],
            batches=[batch(T) for T in lengths],
        ),
        "rewards": rewards_program(model, rows, stage["microbatches"]),
    }


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs; how many pairs are held out is data."""
    return {"update": config["stages"][name]["steps"], "rewards": None}


def run(run: Run, name: str, policies: Policies) -> None:
    """Trains from where the stage is to its end, then measures."""
    stage, start = run.config["stages"][name], reward_model_at_start(policies, name)
    programs, pairs = build(run.config, name, start), all_pairs(run, name, start)
    learnt = [pair for pair in pairs if not pair.is_held_out]
    held = [pair for pair in pairs if pair.is_held_out]
    if not learnt or not held:
        raise DataError(
            f"stages.{name}: of {len(pairs)} pairs {len(held)} are held out "
            f"(held_out={stage['held_out']}): some must be, and some not"
        )
    if stage["shuffle_labels"]:
        learnt = with_coins(learnt, run.seed)
    loop = StageLoop(run, name, start, stage["steps"], updates=1)
    buckets = buckets_for(run.config, dataset_of(stage, run.config))
    while not loop.is_done:
        places = [example_at(run.seed, loop.taken + n, len(learnt)) for n in range(stage["batch"])]
        batch = batch_of([learnt[place] for place in places], stage, buckets)
        state, metrics = programs["update"](loop.state, start.frozen, batch)
        loop.keep_update(state, metrics, batch._asdict())
        loop.move_to(loop.iteration + 1, taken=stage["batch"])
        loop.evaluate_save_or_stop()
    file = run.rewards(name)
    if not file.exists():
        model = start.with_trained(loop.state.trainable)
        read = reader(run, model, programs["rewards"], stage, buckets)
        found = pair_accuracy(read, held, similar=stage["similar"])
        found |= best_of(read, held_out_groups(run, name, model))
        file.parent.mkdir(exist_ok=True)
        write_json(file, found)
        run.progress.say(
            f"{name}: {found['accuracy']:.1%} of {found['accuracy/count']} held-out pairs right "
            f"({found['accuracy/low']:.1%} to {found['accuracy/high']:.1%})"
        )


def all_pairs(run: Run, name: str, model: RewardModel) -> list[Pair]:
    """The pairs that fit, each with the head that its kind belongs to."""
    stage, found = run.config["stages"][name], []
    for example, tokens in fitting_pairs(run, name, model.own_tokenizer):
        kind = example.get("kind")
        mine = [
            head
            for head, kinds in enumerate(heads_of(stage).values())
            if not kinds or kind in kinds
        ]
        if not mine:
            raise DataError(
                f"stages.{name}: {example['id']} is of kind {kind!r}, which no head learns"
            )
        found.append(Pair(tokens, mine[0], kind, is_held_out(example, stage)))
    return found


def is_held_out(example: Example, stage: Config) -> bool:
    """Whether a prompt is for measuring: a share of all questions, by the question alone."""
    return zlib.crc32(question_key(example).encode()) / 2**32 < stage["held_out"]


def with_coins(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The pairs with labels that mean nothing: every second one, by chance, the wrong way round."""
    turned = np.random.RandomState([seed, 1]).randint(2, size=len(pairs))
    return [
        pair._replace(tokens=pair.tokens.turned()) if is_turned else pair
        for pair, is_turned in zip(pairs, turned, strict=True)
    ]


def batch_of(pairs: Sequence[Pair], stage: Config, buckets: Sequence[int]) -> Compared | Valued:
    """The arrays of an update."""
    P, H = len(pairs), len(heads_of(stage))
    arrays = pairs_of(
        [pair.tokens for pair in pairs], None,
        buckets=buckets, max_completion=stage["max_completion"],
    )  # fmt: skip
    head_P = np.array([pair.head for pair in pairs], np.int32)
    if stage["objective"] == "compared":
        return Compared(arrays.ids_P2T, arrays.mask_P2T, head_P, arrays.margin_P, arrays.share_P)
    is_known_P2H = np.ones((P, 2, H), np.float32)
    is_known_P2H[:, 1] = np.arange(H) == head_P[:, None]
    value_P2H = np.zeros((P, 2, H), np.float32)
    value_P2H[:, 0] = 1.0
    return Valued(
        ids_BT=arrays.ids_P2T.reshape(2 * P, -1),
        mask_BT=arrays.mask_P2T.reshape(2 * P, -1),
        value_BH=value_P2H.reshape(2 * P, H),
        share_BH=(is_known_P2H / is_known_P2H.sum()).reshape(2 * P, H),
    )


def reader(
    run: Run, model: RewardModel, program: Program, stage: Config, buckets: Sequence[int]
) -> Callable[[Sequence[Row]], np.ndarray]:
    """What reads completions: reward_BH of (prompt, completion) in tokens, a batch at a time."""

    def read(rows: Sequence[Row]) -> np.ndarray:
        size, found = 2 * stage["batch"], []
        for first in range(0, len(rows), size):
            run.stop.check()
            part = list(rows[first : first + size])
            filled = [*part, *[part[-1]] * (size - len(part))]  # one shape, compiled once
            arrays = one_each(filled, buckets, stage["max_completion"])
            tokens = put_rows((arrays.ids_BT, arrays.mask_BT), model.mesh)
            reward_BH = program(model.policy.variables, model.head, *tokens)
            found.append(np.asarray(reward_BH)[: len(part)])
        return np.concatenate(found)

    return read


def held_out_groups(run: Run, name: str, model: RewardModel) -> list[Group]:
    """Completions of held-out prompts, where the stage that made the pairs has kept them."""
    stage = run.config["stages"][name]
    journal = Journal(run.preferences(f"{stage['preferences']}.samples"))
    template = run.datasets[dataset_of(stage, run.config) or DEFAULT].template
    by_prompt: dict[int, list[dict[str, Any]]] = {}
    for row in journal.rows():
        if is_held_out(row, stage):
            by_prompt.setdefault(row["prompt"], []).append(row)
    groups = []
    for rows in by_prompt.values():
        prompt = prompt_ids(model.own_tokenizer, rows[0], template)
        texts = [
            completion_ids(model.own_tokenizer, row["text"], is_cut_off=row["cut_off"])
            for row in rows
        ]
        if max(map(len, texts)) <= stage["max_completion"]:
            groups.append(Group([(prompt, text) for text in texts], [row["right"] for row in rows]))
    return groups
