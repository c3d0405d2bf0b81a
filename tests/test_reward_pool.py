"""Reward processes: the same values as in the run's own process, and what they are given of it."""

import importlib.util
import math
import os
import random
import struct
import sys

import numpy as np
import pytest

from configs import base
from grpo.checks import problems as checks
from grpo.data.datasets import load_dataset
from grpo.data.worlds import WORLDS
from grpo.pipeline import STAGES
from grpo.rewards.batch import each, is_each
from grpo.rewards.messages import MessageError, packed, unpacked
from grpo.rewards.pool import REWARDS, Pool, caller_of
from grpo.rewards.scores import in_process, score
from grpo.rewards.table import PACKAGES, fitted, reward_table, with_values
from grpo.runs.stage_loop import StageLoop
from grpo.tools.hack import hack
from tests.fault_rewards import HERE, entry
from tests.processes import PROC, reward_processes
from tests.refusals import changed
from tests.reward_entries import EXAMPLE, GOLDS, LINES
from tests.small_run import launch, small, small_grpo, workshop
from tests.test_rewards_hostile import hostile

if not PROC.exists():
    pytest.skip("there is no /proc that tells of processes", allow_module_level=True)

WIDE = 2.0**30
TRAIN = [EXAMPLE, EXAMPLE | {"reasoning": "clips, clips and May", "question": "How many?"}]
SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN")
TABLE = {
    "environment": entry("environment"),
    "imported": entry("imported"),
    "searched": entry("searched"),
    "complains": entry("complains"),
    "option": entry("option", value=("a", ("b",))),
    **{name: entry(name, high=WIDE) for name in (
        "points", "number", "process", "rank", "wrong_number", "late", "changes_example",
        "goes_away",
    )},
}  # fmt: skip


def pool_of(table, **changes) -> Pool:
    """Two processes with these functions."""
    how = {"workers": 2, "memory": 1024, "batch_seconds": 60.0, "rewards": HERE}
    return Pool(table, TRAIN, **{**how, "check": lambda: None, **changes})


@pytest.fixture(scope="module")
def pool():
    """Two processes for the functions above."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, "canary")
        with pool_of(TABLE) as pool:
            yield pool


@pytest.fixture(scope="module")
def real():
    """The table of real functions, and two processes for it."""
    table = fitted(reward_table(LINES.values()), TRAIN)
    with pool_of(table, rewards=REWARDS) as pool:
        yield table, pool


def told_by(pool, name, texts, examples=None, seconds=5.0, table=TABLE):
    """The values of a function, in processes."""
    examples = examples or [{}] * len(texts)
    return score({name: table[name]}, examples, texts, seconds=seconds, caller=pool.values)


def assert_same_scores(one, other):
    """Bit by bit, and for the same reasons."""
    assert one.failed == other.failed and one.reasons == other.reasons
    for mine, theirs in ((one.rewards, other.rewards), (one.parts, other.parts)):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].tobytes() == theirs[name].tobytes(), name
    assert one.total.tobytes() == other.total.tobytes()


def test_real_functions_have_the_same_values_in_processes(real):
    """Of hostile completions, some of which fail: an answer that is no number, no terms."""
    table, pool = real
    draw, texts = random.Random(3), hostile(160, seed=7)[:-5]  # without the longest
    golds = (*GOLDS, "no number", "")
    examples = [EXAMPLE | {"answer": draw.choice(golds)} for _ in texts]
    here = score(table, examples, texts, seconds=60.0)
    assert here.failed["correct_answer"] > 0 and here.failed["tfidf"] == 0
    assert 0 < np.isnan(here.total).sum() < len(texts) and len(here.reasons) > 2
    assert_same_scores(here, score(table, examples, texts, seconds=60.0, caller=pool.values))
    some = {name: table[name] for name in ("tfidf", "length", "plan")}
    here = score(some, examples, texts, seconds=60.0)
    assert len(set(here.rewards["tfidf"])) > 10
    assert_same_scores(here, score(some, examples, texts, seconds=60.0, caller=pool.values))


def test_what_is_learnt_depends_on_the_training_examples():
    lines = [LINES["tfidf"]]
    text = "<reasoning>clips sold in May, half as many</reasoning>"
    got = []
    for train in (TRAIN, [*TRAIN, *[EXAMPLE | {"question": "May May", "reasoning": "half"}] * 9]):
        table = fitted(reward_table(lines), train)
        stage = base.grpo().to_dict() | {"reward_workers": 1, "reward_memory": 1024}
        with caller_of(reward_table(lines), train, stage, lambda: None) as caller:
            got.append(score(table, [EXAMPLE], [text], seconds=5.0, caller=caller).total[0])
        assert got[-1] == score(table, [EXAMPLE], [text], seconds=5.0).total[0]
    assert got[0] != got[1]


def test_without_workers_functions_are_called_here():
    stage = base.grpo().to_dict()
    assert stage["reward_workers"] == 0
    with caller_of(TABLE, [], stage, lambda: None) as caller:
        assert caller is in_process


def test_every_process_has_its_part(pool):
    texts = ["x"] * 64
    value_B = told_by(pool, "process", texts).rewards["process"]
    assert len(set(value_B)) == 2 and os.getpid() not in value_B
    with pool_of({"process": TABLE["process"]}, workers=1) as single:
        assert len(set(told_by(single, "process", texts).rewards["process"])) == 1


def test_texts_arrive_as_they_are(pool):
    """Lone surrogates side by side too, which are not one sign."""
    texts = ["\ud83d\ude00", "\U0001f600", "\ud800", "\udfff\ud800", "\0", "\x1c\x85\u2028", '"\\',
             "", "é" * 70_000, "\r\n", "a" * 10**6]  # fmt: skip
    value_B = told_by(pool, "points", texts).rewards["points"]
    expected = [sum(ord(char) * n for n, char in enumerate(text, 1)) % 8191 for text in texts]
    np.testing.assert_array_equal(value_B, expected)
    assert value_B[0] != value_B[1]


def test_numbers_arrive_to_the_last_bit(pool):
    draw = random.Random(5)
    numbers = [0.1 + 0.2, -0.0, 5e-324, 2.0**-1022, math.pi, 1e9, -1.0]
    numbers += [draw.uniform(-1e9, 1e9) * 10.0 ** draw.randrange(-300, 0) for _ in range(200)]
    value_B = told_by(pool, "number", ["x"] * 207, [{"x": x} for x in numbers]).rewards["number"]
    assert value_B.tobytes() == np.array(numbers).tobytes()


def test_the_first_reason_is_that_of_the_first_row(pool):
    """Whichever process fails first."""
    scores = told_by(pool, "complains", ["slow", *["quick"] * 40])
    assert scores.reasons == {"complains": "KeyError: 'slow'"} and scores.failed["complains"] == 41


def test_a_function_of_the_batch_sees_all_of_it(pool):
    """Of its domain; and a number of values that is wrong costs them all."""
    texts = ["x" * (n % 50) for n in range(100)]
    scores = told_by(pool, "rank", texts)
    np.testing.assert_array_equal(scores.total, [2 * (n % 50) + 2 for n in range(100)])
    table = {"rank": TABLE["rank"]._replace(domains=("law",))}
    examples = [{"domain": "law" if n < 3 else "math"} for n in range(100)]
    scores = told_by(pool, "rank", texts, examples, table=table)
    np.testing.assert_array_equal(scores.total, [1, 2, 3, *[0] * 97])
    scores = told_by(pool, "wrong_number", ["a", "b"])
    assert scores.reasons == {"wrong_number": "ValueError: returned 3 values for 2 completions"}


def test_a_batch_has_the_time_that_it_has_here(pool):
    """0.2 s for each of five values; then each has it again: 1.25 s of 2."""
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    np.testing.assert_array_equal(told_by(pool, "late", texts, seconds=0.2).total, [1, 2, 3, 4, 5])
    scores = told_by(pool, "late", texts, seconds=0.09)
    why = "grpo.rewards.deadline.DeadlineError: took more than 0.45 seconds"
    assert scores.failed == {"late": 5} and scores.reasons == {"late": why}


def test_what_a_function_does_to_its_example_is_undone(pool):
    example = {"answer": "7"}
    value_B = told_by(pool, "changes_example", ["x"] * 6, [example] * 6).rewards["changes_example"]
    np.testing.assert_array_equal(value_B, [1] * 6)
    assert example == {"answer": "7"}


def test_every_call_finds_the_directory_of_its_process(pool):
    """With the one file of its start; each call leaves for another one, with many."""
    value_B = told_by(pool, "goes_away", ["x"] * 40).rewards["goes_away"]
    np.testing.assert_array_equal(value_B, [1] * 40)
    assert len(os.listdir("/")) > 1


def test_what_a_process_has_of_the_environment(pool):
    """No secret, no accelerator; no module that the functions do not need."""
    names = [*SECRETS, "PYTEST_CURRENT_TEST", "PATH", "HOME", "JAX_PLATFORMS"]
    value_B = told_by(pool, "environment", names).total
    assert dict(zip(names, value_B, strict=True)) == {
        **dict.fromkeys([*SECRETS, "PYTEST_CURRENT_TEST"], 0), "PATH": 1, "HOME": 1,
        "JAX_PLATFORMS": 1,
    }  # fmt: skip
    names = ["jax", "flax", "models", "math_verify", "numpy"]
    np.testing.assert_array_equal(told_by(pool, "imported", names).total, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(told_by(pool, "searched", ["x"]).total, [0])


def test_options_are_what_they_were(pool):
    """Tuples, which a function may look up in a set."""
    np.testing.assert_array_equal(told_by(pool, "option", ["x"]).total, [2])


def test_what_a_model_gives_stays_here(real):
    """No process has the model; without a value there is none."""
    line = base.reward(1.0, -9.0, 9.0, model="rm", least_accuracy=0.5, whitened=False, clip=9.0)
    table = reward_table([{"name": "learned", **line.to_dict()}, LINES["length"]])
    given = with_values(table, {"learned": np.array([0.5, -2.0])}, [EXAMPLE] * 2)
    got = score(given, [EXAMPLE] * 2, ["a", "b"], seconds=5.0, caller=real[1].values)
    assert_same_scores(got, score(given, [EXAMPLE] * 2, ["a", "b"], seconds=5.0))
    np.testing.assert_array_equal(got.rewards["learned"], [0.5, -2.0])
    assert not got.reasons


def test_an_empty_batch(pool):
    assert told_by(pool, "points", []).total.shape == (0,)


@pytest.mark.parametrize("world", WORLDS)
def test_examples_are_what_they_were(world):
    """What JSON gives back is what a function would be given here."""
    data = base.dataset(source=world, levels=(1, 2), train_examples=40)
    for example in load_dataset(data.to_dict(), seed=0).train:
        assert next(unpacked(bytearray(packed(example)), largest=math.inf)) == example


def test_messages_come_in_any_pieces():
    messages = [["a", 1.5, None], {}, "\ud800", [[]], 0]
    sent, received, got = b"".join(map(packed, messages)), bytearray(), []
    for byte in sent:
        received.append(byte)
        got += unpacked(received, largest=100)
    assert got == messages and not received
    assert list(unpacked(bytearray(sent), largest=100)) == messages


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (struct.pack(">I", 101), "a message of 101 bytes"),
        (struct.pack(">I", 3) + b"abc", "no JSON"),
        (struct.pack(">I", 1) + b"\xff", "no JSON"),
        (struct.pack(">I", 0), "no JSON"),
    ],
)
def test_what_is_no_message(data, why):
    with pytest.raises(MessageError, match=why):
        list(unpacked(bytearray(data), largest=100))


def test_functions_of_one_completion_are_known():
    def one(example, completion, *, most: int):
        return 0.0

    def several(examples, completions):
        return [0.0] * len(completions)

    assert is_each(each(one)) and is_each(entry("points").function)
    assert not is_each(several) and not is_each(entry("rank", factor=2.0).function)


G = "stages.grpo."
BAD = [  # changes, and what is said
    ({f"{G}reward_workers": -1}, f"{G}reward_workers=-1: expected an integer, at least 0, at most"),
    ({f"{G}reward_workers": 1.0}, f"{G}reward_workers=1.0: expected an integer"),
    ({f"{G}reward_memory": 100}, f"{G}reward_memory=100: expected an integer, at least 512"),
    ({f"{G}reward_batch_seconds": 0}, f"{G}reward_batch_seconds=0: expected a number, more than 0"),
    (
        {f"{G}reward_workers": 2, f"{G}reward_batch_seconds": 4.0},
        f"{G}reward_batch_seconds=4.0: expected no less than reward_seconds=5.0, which is for one",
    ),
    (
        {f"{G}rewards.math_verify": base.reward(1.0, 0.0, 1.0, strict=True).to_dict()},
        f"{G}reward_workers=0: math_verify runs in processes of its own: set it to 1 or more",
    ),
]


@pytest.mark.parametrize(("changes", "line"), BAD)
def test_what_is_wrong_with_a_config(changes, line, nothing_is_computed, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    (said,) = checks.problems(changed(changes), STAGES)
    assert said.startswith(line)


def test_a_package_that_is_missing(nothing_is_computed, monkeypatch):
    changes = {f"{G}rewards.math_verify": base.reward(1.0, 0.0, 1.0, strict=True).to_dict()}
    monkeypatch.setitem(PACKAGES, "math_verify", ("no_such_package", "math"))
    (said,) = checks.problems(changed(changes | {f"{G}reward_workers": 1}), STAGES)
    assert said == f"{G}rewards.math_verify: needs no_such_package: pip install -e '.[math]'"
    assert "math_verify" not in sys.modules


def test_a_config_with_workers_is_fine(nothing_is_computed):
    """A time for the batch is not looked at where there are none."""
    assert checks.problems(changed({f"{G}reward_workers": 3}), STAGES) == []
    assert checks.problems(changed({f"{G}reward_batch_seconds": 1.0}), STAGES) == []


def test_what_rewards_would_pay_for_is_found_in_processes(monkeypatch):
    few = {"data.train_examples": 20, "data.test_examples": 4}
    here = hack(changed(few))
    monkeypatch.setattr("grpo.rewards.scores.values", None)
    assert hack(changed({**few, f"{G}reward_workers": 1})) == here


class SeenError(Exception):
    """Ends a run where something was seen."""


class Said:
    """Stands for the sampler, and for what it returns: nothing that is looked at."""

    ids_BT = mask_BT = None

    def __init__(self, *words):
        pass

    def sample(self, *words, **named):
        return self


def test_a_stage_asks_its_processes(tmp_path, monkeypatch):
    """With its time for a call; a run that is to stop while it waits is saved and stops."""
    config, texts, seen = small(), ["a", "b b", "b b b", "", "c", "d", "e", "f"], {}
    config.stages.grpo = stage = small_grpo()
    stage.rewards = base.ConfigDict({"length": base.reward(0.5, 0.0, 1.0, least=1, most=2)})
    stage.update(reward_workers=2, reward_seconds=7.0, reward_memory=1000, evaluate_every=0)
    config.pipeline = ("grpo",)

    def watched(table, train, stage, check):
        seen.update(train=len(train), check=check, stage=stage)
        return caller_of(table, train, stage, check)

    def scored(*words, **named):
        seen["total"] = score(*words, **named).total
        raise SeenError(named["seconds"], named["caller"].__self__)

    for name, stand_in in (("caller_of", watched), ("score", scored), ("Sampler", Said),
                           ("frozen_logprobs", lambda *words: None),
                           ("texts_of", lambda *words: texts)):  # fmt: skip
        monkeypatch.setattr(f"grpo.stages.grpo.{name}", stand_in)
    before = reward_processes()
    with workshop(), pytest.raises(SeenError) as error:
        launch(config, tmp_path / "run")
    seconds, pool = error.value.args
    assert seconds == 7.0 and isinstance(pool, Pool)
    np.testing.assert_array_equal(seen["total"], [0.5, 0.5, 0.5 * (2 / 3), 0, *[0.5] * 4])
    assert seen["train"] == 24 and seen["stage"]["reward_memory"] == 1000
    assert seen["check"].__func__ is StageLoop.save_and_stop_if_asked
    assert reward_processes() == before


def test_a_stage_says_how_many_processes_there_are():
    stage = base.grpo().to_dict() | {"reward_workers": 3, "reward_batch_seconds": 0.5}
    before = reward_processes()
    with caller_of(reward_table([LINES["length"]]), [], stage, lambda: None):
        assert len(reward_processes() - before) == 3
    assert reward_processes() == before


NO_PACKAGE = importlib.util.find_spec("math_verify") is None


@pytest.mark.skipif(NO_PACKAGE, reason="math-verify is not installed: pip install -e '.[math]'")
def test_mathematical_equality():
    """What does not end fails alone, and the package stays in its process."""
    pairs = [
        ("1/2", "0.5", 1), ("\\frac{1}{2}", "50\\%", 1), ("x(x+1)", "x^2+x", 1), ("7", "8", 0),
        ("7", "", 0), ("7", "$", 0), ("\\{1,2\\}", "\\{2,1\\}", 1), ("7", "7.0", 1),
        ("7", "10000000000!", None), ("", "7", None), ("7", "7" * 501, 0), ("7", "\ud800", 0),
    ]  # fmt: skip
    line = {"name": "math_verify", "weight": 1.0, "low": 0.0, "high": 1.0}
    table = reward_table([line | {"options": {"strict": True}}])
    form = "<reasoning>so</reasoning><answer>{}</answer>"
    with pool_of(table, rewards=REWARDS, memory=2048) as pool:
        texts, examples = [form.format(x) for _, x, _ in pairs], [{"answer": x} for x, *_ in pairs]
        scores = score(table, examples, texts, seconds=4.0, caller=pool.values)
    expected = [math.nan if value is None else value for *_, value in pairs]
    np.testing.assert_array_equal(scores.total, expected)
    assert "math_verify" not in sys.modules and "sympy" not in sys.modules
