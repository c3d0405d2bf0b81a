"""Easy examples first: buckets, promotion, replay; resumed bit by bit; off, nothing changes."""

import math
from collections import Counter

import pytest

from configs import base
from grpo.checks.problems import problems
from grpo.data.curriculum import (
    DIFFICULTY,
    START,
    Curriculum,
    after,
    buckets_of,
    curriculum_of,
    promoted_at,
    sorted_order,
)
from grpo.data.examples import DataError
from grpo.data.making import make
from grpo.data.order import example_at
from grpo.data.worlds import WORLDS
from grpo.pipeline import STAGES
from grpo.rewards.scores import score
from grpo.rewards.table import reward_table, total_range
from tests.refusals import changed
from tests.small_run import (
    P,
    assert_same_run,
    final,
    launch,
    newest,
    rows,
    small,
    small_grpo,
    stop_at,
    watched,
)
from tests.small_run import about as about_step

LEVELS = (2, 1, 3, 1, 2, 1)
EXAMPLES = [
    {"id": str(n), "level": level, "question": "?" * (9 - n), "checkpoints": ["1+2*3=7"] * level}
    for n, level in enumerate(LEVELS)
]
THREE = Curriculum(((1, 3, 5), (0, 4), (2,)), replay=0.25, window=2, threshold=0.5)


def test_a_bucket_for_each_difficulty():
    assert buckets_of(EXAMPLES, "level", None) == ((1, 3, 5), (0, 4), (2,))
    assert buckets_of(EXAMPLES, "operations", None) == ((1, 3, 5), (0, 4), (2,))
    assert buckets_of(EXAMPLES, "length", None) == ((5,), (4,), (3,), (2,), (1,), (0,))


def test_buckets_of_equal_size():
    """Level 1 is at 1, 3 and 5, level 2 at 0 and 4: the second half is 0, 4 and 2."""
    assert buckets_of(EXAMPLES, "level", 2) == ((1, 3, 5), (0, 2, 4))
    assert buckets_of(EXAMPLES, "level", 3) == ((1, 3), (0, 5), (2, 4))
    assert buckets_of(EXAMPLES, "length", 4) == ((5,), (3, 4), (2,), (0, 1))
    with pytest.raises(DataError, match=r"curriculum\.buckets=7: there are only 6 examples"):
        buckets_of(EXAMPLES, "level", 7)


def test_difficulty():
    rated = {"id": "a", "pass_rate": 0.75}
    assert DIFFICULTY["pass_rate"](rated) == 0.25
    assert DIFFICULTY["operations"]({"checkpoints": ["48/2=24", "24×3-1=71"]}) == 3
    with pytest.raises(DataError, match="b: has no pass_rate, which the curriculum goes by"):
        DIFFICULTY["pass_rate"]({"id": "b"})


def test_promotes_when_the_mean_exceeds_the_threshold():
    memory = after(THREE, START, 0.9, 4)
    assert memory == {"bucket": 0, "since": 0, "values": [0.9]}  # one of two
    memory = after(THREE, memory, 0.1, 8)
    assert memory == {"bucket": 0, "since": 0, "values": [0.9, 0.1]}  # 0.5 does not exceed 0.5
    memory = after(THREE, memory, 0.8, 12)
    assert memory == {"bucket": 0, "since": 0, "values": [0.1, 0.8]}  # nor does 0.45
    memory = after(THREE, memory, 0.4, 16)
    assert memory == {"bucket": 1, "since": 16, "values": []}
    memory = after(THREE, memory, 1.0, 20)
    assert memory["bucket"] == 1  # the window is its own
    memory = after(THREE, memory, 1.0, 24)
    assert memory == {"bucket": 2, "since": 24, "values": []}
    for taken in (28, 32, 36):
        memory = after(THREE, memory, 1.0, taken)
    assert memory == {"bucket": 2, "since": 24, "values": [1.0, 1.0]}  # there is no harder one


def test_an_iteration_without_a_number_says_nothing():
    memory = {"bucket": 1, "since": 8, "values": [0.9]}
    assert after(THREE, memory, math.nan, 12) == memory
    assert START == {"bucket": 0, "since": 0, "values": []}


def test_the_first_bucket_alone_at_first():
    drawn = [promoted_at(THREE, START, 7, i) for i in range(300)]
    assert Counter(drawn) == {1: 100, 3: 100, 5: 100}
    assert all(sorted(drawn[i : i + 3]) == [1, 3, 5] for i in range(0, 300, 3))  # every epoch


@pytest.mark.parametrize("replay", [0.0, 0.25, 1 / 3, 0.7])
def test_a_share_is_replayed_at_any_place(replay):
    curriculum = THREE._replace(replay=replay)
    memory = {"bucket": 2, "since": 40, "values": []}
    drawn = [promoted_at(curriculum, memory, 7, 40 + i) for i in range(900)]
    for end in (1, 10, 77, 900):
        again = sum(place != 2 for place in drawn[:end])
        assert abs(again - replay * end) < 1 + 1e-9
    again = Counter(place for place in drawn if place != 2)
    assert not replay or (len(again) == 5 and max(again.values()) - min(again.values()) <= 1)


def test_what_is_the_buckets_own_comes_equally_often():
    memory = {"bucket": 1, "since": 0, "values": []}
    drawn = Counter(promoted_at(THREE, memory, 3, i) for i in range(4000))
    assert drawn[0] == drawn[4] == 1500 and drawn[1] + drawn[3] + drawn[5] == 1000 and not drawn[2]


def test_one_bucket_is_the_usual_order():
    one = Curriculum((tuple(range(10)),), replay=0.3, window=1, threshold=0.0)
    got = [promoted_at(one, START, 5, i) for i in range(40)]
    assert got == [example_at(5, i, 10) for i in range(40)]


def test_sorted_once_and_then_as_ever():
    order = sorted_order(EXAMPLES, "level", 3)
    first = [order(i) for i in range(6)]
    assert sorted(first) == [*range(6)] and [LEVELS[i] for i in first] == [1, 1, 1, 2, 2, 3]
    usual = [example_at(3, i, 6) for i in range(18)]
    assert [i for i in usual[:6] if LEVELS[i] == 1] == first[:3]  # equal ones as they would come
    assert [order(i) for i in range(6, 18)] == usual[6:]


def test_the_range_of_a_total():
    def entry(name, weight, low, high, **more):
        return {"name": name, "weight": weight, "low": low, "high": high, **more}

    table = reward_table([
        entry("strict_format", 0.0, 0, 1),
        entry("demo_answer", 2.0, -1, 3, gate="strict_format"),
        entry("trajectory", -1.0, 0.5, 2.1, gate="strict_format"),
        entry("tag_format", -3.0, 0, 1),
    ])  # fmt: skip
    assert total_range(table) == (-2 - 2.1 - 3, 6.0)
    text = "<reasoning>so</reasoning><answer>72</answer>"
    got = score(table, [{"answer": "72"}] * 2, [text, ""], seconds=5.0).total
    assert all(-7.1 <= x <= 6 for x in got if x == x)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"order": "promotd"}, "order='promotd': expected one of uniform, promoted, sorted; did"),
        ({"order": "promoted", "by": "length"}, "buckets=None: by='length' would make one of eve"),
        ({"order": "sorted", "by": "pass_rate"}, "by='pass_rate': the data have none: name their"),
        ({"buckets": 1}, "buckets=1: expected an integer, at least 2"),
        ({"replay": 1.0}, "replay=1.0: expected a number, at least 0, at most 0.9"),
    ],
)
def test_what_a_config_may_say(changes, line):
    changes = {f"stages.grpo.curriculum.{field}": value for field, value in changes.items()}
    (got,) = problems(changed(changes), STAGES)
    assert got.startswith(f"stages.grpo.curriculum.{line}")
    if "pass_rate" not in line:
        assert problems(changed({"stages.grpo.curriculum.order": "sorted"}), STAGES) == []


def test_no_section_is_no_curriculum():
    section = base.curriculum().to_dict()
    assert curriculum_of(section, EXAMPLES) is curriculum_of(
        {**section, "order": "sorted"}, EXAMPLES
    )
    got = curriculum_of({**section, "order": "promoted", "threshold": 0.5, "window": 2}, EXAMPLES)
    assert got == THREE._replace(replay=0.2)


# In a run.


def config(**curriculum):
    run, grpo = small(), small_grpo()
    run.data.update(levels=(1, 2), train_examples=40)
    grpo.update(iterations=4, epochs=2, minibatches=2, evaluate_every=0, checkpoint_every=2)
    grpo.loss.kl_coef = 0.0
    grpo.curriculum.update(curriculum)
    run.stages.grpo, run.pipeline = grpo, ("grpo",)
    return run


def promoted():
    """Every mean of `noise` is above 0.2 but one of a few completions by bad luck."""
    return config(order="promoted", metric="reward", threshold=0.2, window=2, replay=0.25)


@pytest.fixture(scope="module")
def straight(folder):
    assert launch(promoted(), folder / "straight") == 0
    return folder / "straight"


def levels_of(workdir):
    """By iteration: of how many steps its problems were, in the order of its groups."""
    by_id = {f"arithmetic-0-train-{n}": level for n, level in enumerate(train_levels())}
    found = {}
    for row in rows(workdir, "rollouts"):
        found.setdefault(row["iteration"], {})[row["group"]] = by_id[row["id"]]
    return [[*groups.values()] for groups in found.values()]


def train_levels():
    made = make("arithmetic", WORLDS["arithmetic"], 0, 40, (1, 2), "train", 1.0, 0.0)
    return [example["level"] for example in made]


def test_a_run_goes_from_the_easy_ones_to_the_hard_ones(straight):
    """Two iterations of the first bucket; then of four prompts one is replayed, the last one."""
    assert levels_of(straight) == [[1] * P, [1] * P, [2, 2, 2, 1], [2, 2, 2, 1]]
    shown = [row["curriculum/level"] for row in rows(straight, "metrics") if "right" in row]
    assert shown == [1.0, 1.0, 2.0, 2.0]
    assert newest(straight, "grpo")[1]["curriculum"]["since"] == 2 * P


def test_a_run_that_is_stopped_everywhere_goes_on_bit_by_bit(folder, straight, capsys):
    workdir, said = folder / "stopped", []
    for event in ("train 1", "grpo update 6", "grpo update 8", "train 2", "grpo update 13"):
        with watched(stop_at(event)):
            assert launch(promoted(), workdir) == 75
        said.append(newest(workdir, "grpo")[1]["curriculum"])
    assert launch(promoted(), workdir) == 0
    assert_same_run(straight, workdir)
    assert [memory["bucket"] for memory in said] == [0, 1, 1, 1, 1]
    assert [len(memory["values"]) for memory in said] == [1, 0, 0, 0, 2]
    err = capsys.readouterr().err
    assert "grpo 2/4: bucket 2 of 2 from here on, " in err and " harder examples" in err


def test_without_a_curriculum_nothing_of_it_is_there(folder):
    """Bit by bit the usual order, no metric, nothing remembered."""
    plain = config()
    plain.stages.grpo.iterations = 1
    assert launch(plain, folder / "plain") == 0
    ids = [row["id"] for row in rows(folder / "plain", "rollouts")][::2]
    assert ids == [f"arithmetic-0-train-{example_at(0, i, 40)}" for i in range(P)]
    assert "curriculum/level" not in rows(folder / "plain", "metrics")[0]
    step = int(final(folder / "plain", "grpo").name)
    assert "curriculum" not in about_step(folder / "plain", "grpo", step).extra["cursor"]


def test_a_run_with_the_easiest_first(folder):
    easy = config(order="sorted", by="length")
    easy.stages.grpo.iterations = 2
    assert launch(easy, folder / "sorted") == 0
    lengths = [len(row["prompt"]) for row in rows(folder / "sorted", "rollouts")]
    assert lengths == sorted(lengths) and len(set(lengths)) > 1
