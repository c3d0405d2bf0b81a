"""The golden iteration: whole stages against a transcription in float64 NumPy.

Given are the tokens that were sampled, the parameters that a run starts from, and its config. All
else is computed again by tests/oracle_iteration.py: which examples come next, what their
completions are worth, whom the policy is compared with, in which order it learns, how far it moves.
The parameters after each iteration must be those of the stage's checkpoints, to 1e-5 of the largest
change that the leaf has made since the stage began.

A test that is run alone runs only the stages that it needs.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo.algorithms.metrics import Metrics
from grpo.training.train_step import init_state, update
from tests import oracle, tape
from tests.golden_run import (
    EVALUATED_AT,
    FORMULAS,
    GRPO,
    SEED,
    SFT,
    C,
    G,
    Left,
    P,
    Sampled,
    flat,
    record,
    staleness,
)
from tests.helpers import TINY, assert_trees_equal, tiny_ids, tiny_params
from tests.oracle_iteration import (
    AdamW,
    Row,
    Weights,
    greedy,
    iteration,
    logprobs,
    scores_of,
    supervised,
    token_scores,
    total_reward,
)
from tests.small_run import workshop

TOLERANCE = 1e-5  # of the largest change of each leaf
MET = {  # what a stage must have met, or its test would show less than it says
    "clip": {"clipped below", "clipped above"},
    "adapter": {"clipped below", "abstained"},
    "again": {"clipped below"},
    "merged": {"clipped below", "clipped above", "refilled"},
    "left_out": {"left out", "learnt", "capped", "off policy", "abstained"},
    "another": {"truncated", "learnt"},
    "taught": {"clipped below", "clipped above", "abstained", "turned by the teacher"},
}


# The oracle itself


@pytest.mark.parametrize("family", TINY)
def test_the_two_oracles_agree(family):
    """The one on the tape and tests/oracle.py, on the same row."""
    size, params = TINY[family], tiny_params(family)
    ids = np.asarray(tiny_ids(1, 20))[0].tolist()
    ours = scores_of(size, Weights(flat(params)), ids, 3).value
    np.testing.assert_allclose(ours, oracle.logits(size, params, np.array(ids))[3:], atol=1e-12)


@pytest.mark.parametrize("family", TINY)
def test_the_tape_against_finite_differences(family):
    """Of all that an iteration computes, by all parameters and an adapter of two matrices."""
    size, ids = TINY[family], np.asarray(tiny_ids(1, 14))[0].tolist()
    random, depth = np.random.RandomState(1), TINY[family].num_layers
    shapes = {"q/a": (48, 2), "q/b": (2, 4, 16), "o/a": (4, 16, 2), "o/b": (2, 48)}
    adapter = {
        f"layers/attention/{name}": random.standard_normal((depth, *shape)) * 0.1
        for name, shape in shapes.items()
    }
    weights = Weights(flat(tiny_params(family)), adapter, 0.7)
    old = token_scores(size, weights, ids[:9], ids[9:], 0.7)[0].value

    def number(weights: Weights):
        logprob, entropy = token_scores(size, weights, ids[:9], ids[9:], 0.7)
        ratio = tape.exp(logprob - old + 0.1 * np.arange(5))
        gain = tape.where(np.arange(5) > 2, ratio / tape.total(ratio), ratio * ratio)
        return tape.total(gain + tape.power(entropy, 2.0) + 1.0 - tape.log(entropy))

    for part, arrays in (("adapter", adapter), ("params", weights.params)):
        leaves = {name: tape.Node(x) for name, x in arrays.items()}
        grads = tape.gradients(number(weights._replace(**{part: leaves})), leaves)
        way = {name: random.standard_normal(x.shape) for name, x in arrays.items()}

        def along(step: float, part=part, arrays=arrays, way=way) -> float:
            moved = {name: x + step * way[name] for name, x in arrays.items()}
            return float(number(weights._replace(**{part: moved})).value)

        there = sum((grads[name] * way[name]).sum() for name in arrays)
        assert (along(1e-5) - along(-1e-5)) / 2e-5 == pytest.approx(there, rel=1e-6)


# What follows from a run's config, its tokens and its checkpoints


@pytest.fixture(scope="module")
def left(request, tmp_path_factory) -> Left:
    """What the stages of the selected tests have left."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = {
        call.params["stage"]
        for item, call in zip(request.session.items, calls, strict=True)
        if call and item.path == request.path and "stage" in call.params
    }
    folder = tmp_path_factory.mktemp("golden")
    with workshop():
        return record(names, folder / "run")


def example_at(left: Left, index: int):
    """The example at an index of the order: every epoch a permutation of its own."""
    train = left.examples["train"]
    epoch, place = divmod(index, len(train))
    return train[np.random.RandomState([SEED, epoch]).permutation(len(train))[place]]


def before(left: Left, stage: str) -> str:
    """The stage that a stage goes on from."""
    place = left.config["pipeline"].index(stage)
    named = left.config["stages"][stage]["start"]
    return named or (left.config["pipeline"][place - 1] if place else "base")


def lora_of(left: Left, stage: str) -> dict | None:
    """The adapter that a stage trains."""
    lora = None if stage == "base" else left.config["stages"][stage]["lora"]
    return None if lora is None or lora["rank"] is None else lora


def start(left: Left, stage: str) -> Weights:
    """What a stage begins with."""
    weights, lora = end(left, before(left, stage)), lora_of(left, stage)
    if lora == lora_of(left, before(left, stage)):
        return weights
    params = weights.merged().params
    if lora is None:
        return Weights(params)
    fresh = left.fresh(stage)
    assert not any(x.any() for name, x in fresh.items() if name.endswith("/b"))
    return Weights(params, fresh, lora["alpha"] / lora["rank"] ** (0.5 if lora["rslora"] else 1.0))


def end(left: Left, stage: str) -> Weights:
    """What a stage has left."""
    if stage == "base":
        return Weights(left.base)
    return start(left, stage).trained_as(left.trainable(stage, left.updates(stage)[-1]))


def rounds(left: Left, stage: str, number: int) -> list[Sampled]:
    """The calls of the sampler in an iteration; rollouts.jsonl says for whom they were."""
    calls = list(dict.fromkeys((r["stage"], r["iteration"], r["round"]) for r in left.rollouts))
    pairs = zip(calls, left.trained, strict=True)
    mine = [(call[2], got) for call, got in pairs if call[:2] == (stage, number)]
    assert [round for round, _ in mine] == [*range(len(mine))]
    return [got for _, got in mine]


def rows_of(left: Left, stage: str, got: Sampled, examples: list) -> list[Row]:
    """The completions of a call, as the stage was told of them, and their rewards."""
    names = left.config["stages"][stage]["rewards"]
    off, rows = staleness((P * G, C)), []
    for b, ids in enumerate(got.completions):
        text = left.decode(ids if got.truncated[b] else ids[:-1])
        rows.append(
            Row(
                prompt=got.prompts[b],
                completion=ids,
                truncated=got.truncated[b],
                sample_logprob=got.sample_logprob[b] + off[b, : len(ids)],
                rewards={f: FORMULAS[f](examples[b]["question"], text) for f in names},
            )
        )
    return rows


def assert_same(left: Left, stage: str, step: int, weights: Weights, began: Weights) -> None:
    """The parameters of a checkpoint are the oracle's."""
    found = left.trainable(stage, step)
    assert found.keys() == weights.trained.keys()
    for name, x in found.items():
        change = np.abs(weights.trained[name] - began.trained[name]).max()
        assert np.abs(x - weights.trained[name]).max() <= TOLERANCE * change, (name, change)


# The stages


@pytest.mark.parametrize("stage", SFT)
def test_supervised_updates(left, stage):
    config = left.config["stages"][stage]
    assert all(len(left.target(e)) <= config["max_target"] for e in left.examples["train"])
    weights = began = start(left, stage)
    adam, taken = AdamW(config["optimizer"], config["steps"]), 0
    for step in range(1, config["steps"] + 1):
        pairs, room = [], [config["packing"] or 0] * config["batch"]
        while True:
            example = example_at(left, taken + len(pairs))
            pair = left.prompt(example), left.target(example)
            if config["packing"] is None:
                if len(pairs) == config["batch"]:
                    break
            else:  # into the first row with room; what fits nowhere begins the next batch
                length = sum(map(len, pair))
                fits = [row for row, free in enumerate(room) if free >= length]
                if not fits:
                    break
                room[fits[0]] -= length
            pairs.append(pair)
        taken += len(pairs)
        weights = supervised(left.size, pairs, weights, adam)
        if step in left.updates(stage):
            assert_same(left, stage, step, weights, began)
            assert left.taken(stage, step) == taken
    got = [row["learning_rate"] for row in left.metrics if row["stage"] == stage]
    assert got == pytest.approx([adam.rate(n) for n in range(adam.count)])
    assert taken > len(left.examples["train"]) or stage != "sft"  # the second epoch has begun


@pytest.mark.parametrize("stage", GRPO)
def test_iterations(left, stage):
    config = left.config["stages"][stage]
    updates = config["epochs"] * config["minibatches"]
    weights = began = start(left, stage)
    reference = Weights(left.base) if config["reference"] == "base" else began
    teacher = end(left, config["teacher"]) if config["teacher"] else None
    adam, taken = AdamW(config["optimizer"], config["iterations"] * updates), 0
    totals, seen = [], set()
    for number in range(config["iterations"]):
        played = []
        for got in rounds(left, stage, number):
            examples = [example_at(left, taken + p) for p in range(P) for _ in range(G)]
            assert got.prompts == [left.prompt(example) for example in examples]
            taken += P
            for row, ids, logprob in zip(
                rows_of(left, stage, got, examples),
                got.completions,
                got.sample_logprob,
                strict=True,
            ):
                # By the policy as it stands, at the stage's temperature.
                own = logprobs(left.size, weights, row, config["sampling"]["temperature"])
                np.testing.assert_allclose(logprob, own, atol=2e-5)
                assert len(ids) == C or ids[-1] in left.stops
                totals.append(total_reward(row.rewards, config["rewards"])[0])
                played.append(row)
        groups = [played[first : first + G] for first in range(0, len(played), G)]
        of_rounds = [groups[first : first + P] for first in range(0, len(groups), P)]
        weights, met = iteration(
            left.size, config, SEED, number, of_rounds, weights, reference, teacher, adam
        )
        assert_same(left, stage, (number + 1) * updates, weights, began)
        assert left.taken(stage, (number + 1) * updates) == taken
        assert not met[0]["clipped below"] + met[0]["clipped above"]  # where all ratios are 1
        seen |= {what for update in met for what, count in update.items() if count}
        seen |= {"abstained"} if np.isnan(totals).any() else set()
        seen |= {"refilled"} if len(of_rounds) > 1 else set()
    got = [row["total"] for row in left.rollouts if row["stage"] == stage]
    got = [np.nan if total is None else total for total in got]
    np.testing.assert_allclose(got, totals, atol=1e-7)
    got = [row["learning_rate"] for row in left.metrics if row["stage"] == stage and "loss" in row]
    assert got == pytest.approx([adam.rate(n) for n in range(adam.count)])
    assert seen >= MET[stage], seen


@pytest.mark.parametrize("stage", ["clip"])
def test_running_evaluation(left, stage):
    """Of the policy as it stands: before the first iteration, and after each."""
    config, texts = left.config["stages"][stage], []
    updates = config["epochs"] * config["minibatches"]
    for number in range(config["iterations"] + 1):
        weights = start(left, stage)
        if number:
            weights = weights.trained_as(left.trainable(stage, number * updates))
        calls = -(-left.config["evaluation"]["examples"] // left.config["evaluation"]["batch"])
        got = left.evaluated[calls * number : calls * (number + 1)]
        texts.append(assert_greedy(left, got, weights))
    assert texts[0] != texts[-1]  # these policies can be told apart


@pytest.mark.parametrize("stage", ["evaluate"])
def test_evaluations(left, stage):
    """Samples of each policy that is named, by keys that training never uses."""
    policies, examples = left.config["stages"][stage]["policies"], left.examples["test"]
    calls = left.evaluated[-2 * len(policies) :]
    keys = []
    for number, name in enumerate(policies):
        weights, samples = end(left, name), calls[2 * number : 2 * (number + 1)]
        for got in samples:
            assert got.temperature == EVALUATED_AT
            rows = zip(got.prompts, got.completions, got.sample_logprob, strict=True)
            for prompt, completion, logprob in rows:
                own = token_scores(left.size, weights, prompt, completion, EVALUATED_AT)[0].value
                np.testing.assert_allclose(logprob, own, atol=2e-5)
        sampled = [row for got in samples for row in zip(*got[:3], strict=True)]
        sampled = sampled[: len(examples) * G]
        assert [prompt for prompt, *_ in sampled] == [
            left.prompt(example) for example in examples for _ in range(G)
        ]
        texts = [left.decode(ids if cut else ids[:-1]) for _, ids, cut in sampled]
        written = [row for row in left.evaluations if row["policy"] == name]
        assert [row["completion"] for row in written] == texts
        asked = [example["id"] for example in examples for _ in range(G)]
        assert [row["id"] for row in written] == asked
        keys.append([key for got in samples for key in got.keys])
    assert keys[0] == keys[1] == keys[2] and len(set(keys[0])) == len(keys[0])
    assert set(keys[0]).isdisjoint(key for got in left.trained for key in got.keys)


@pytest.mark.parametrize("stage", GRPO)
def test_every_completion_has_its_own_key(left, stage):
    iterations = left.config["stages"][stage]["iterations"]
    got = [got for number in range(iterations) for got in rounds(left, stage, number)]
    keys = [key for one in got for key in one.keys]
    assert len(set(keys)) == len(keys) == len(got) * P * G


def assert_greedy(left: Left, got: list[Sampled], weights: Weights) -> list[str]:
    """The likeliest completions of the test examples by these weights; their texts."""
    examples = left.examples["test"][: left.config["evaluation"]["examples"]]
    assert all(call.temperature == 0 for call in got)
    rows, texts = [row for call in got for row in zip(*call[:3], strict=True)], []
    for example, (prompt, ids, truncated) in zip(examples, rows, strict=False):  # some fill up
        expected, lead = greedy(left.size, weights, left.prompt(example), left.stops, C)
        assert lead > 1e-5, "too close to say; another seed"
        assert (prompt, ids) == (left.prompt(example), expected)
        texts.append(left.decode(ids if truncated else ids[:-1]))
    return texts


# The train step


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_an_update_whose_loss_or_gradient_alone_is_not_finite_is_skipped(what):
    """√x at 0 is 0 and rises without bound; x + ∞ is not finite and rises by 1."""

    def loss(trainable, frozen, batch):
        x = trainable["x"]
        value = jnp.sum(jnp.sqrt(x)) if what == "gradient" else jnp.sum(x) + jnp.inf
        return value, Metrics(sums={"loss": value}, tops={})

    optimizer = optax.adam(0.1)
    state = init_state({"x": jnp.zeros(3)}, optimizer)
    batch = {"row": jnp.zeros((2, 1))}
    new, metrics = update(state, None, batch, loss=loss, optimizer=optimizer, microbatches=1)
    assert np.isfinite(metrics["loss"]) == (what == "gradient")
    assert np.isfinite(metrics["grad_norm"]) == (what == "loss")
    assert int(new.skipped) == 1 and int(new.step) == 1
    assert_trees_equal(new.trainable, state.trainable)
    assert_trees_equal(new.opt_state, state.opt_state)
