"""The arithmetic of what is asked about an update, by hand and against NumPy."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.algorithms.objective import Objective
from grpo.algorithms.presets import objective_of
from grpo.algorithms.rewards_to_advantages import Round, rewards_to_advantages
from grpo.diagnostics.by_reward import (
    OVERLONG,
    PENALTY,
    REST,
    Parts,
    advantages_apart,
    compared,
    terms_of,
)
from grpo.diagnostics.forecast import fit
from grpo.diagnostics.gradients import beside, products
from grpo.replays.by_reward import linear
from grpo.replays.changes import changes_of, with_changes
from grpo.replays.forecast import moved
from grpo.replays.place import ReplayError, tuples
from grpo.replays.report import about_verdict, shown
from grpo.replays.tokens import moved_most, token_text
from grpo.replays.verify import Verdict, unlike
from tests import tiny_run
from tests.small_run import small, small_grpo

F32 = jnp.float32
WEIGHTS = {"right": 1.0, "form": 0.5, "watched": 0.0}


def objective(**fields) -> Objective:
    return objective_of({"preset": "grpo", **fields})


def a_round(seed: int) -> Round:
    """Three groups of four: one without a spread, one completion that abstains."""
    random = np.random.RandomState([7, seed])
    parts = {name: random.randint(0, 4, (3, 4)) / 2.0 for name in WEIGHTS}
    for part_PG in parts.values():
        part_PG[1] = 1.0
    parts["right"][2, 3] = np.nan
    parts["watched"][0, 0] = np.nan  # without a weight it counts nowhere
    total = sum(w * parts[f] for f, w in WEIGHTS.items() if w)
    length = random.randint(1, 11, (3, 4))
    return Round(total, parts, length, random.rand(3, 4))


def test_advantages_apart_by_hand():
    """r = x + y of a group of two; std of (3, 1) is √2, of (3, 0) 3 / √2, and of x alone √2."""
    terms = {"x": np.array([[2.0, 0.0]]), "y": np.array([[1.0, 1.0]])}
    apart = advantages_apart(terms, objective=objective(eps=0.5))
    np.testing.assert_allclose(apart["x"], [[1 / (2**0.5 + 0.5), -1 / (2**0.5 + 0.5)]], rtol=1e-6)
    assert apart["y"].tolist() == [[0.0, 0.0]]
    terms["y"] = np.array([[1.0, 0.0]])
    apart, divisor = advantages_apart(terms, objective=objective(eps=0.5)), 3 / 2**0.5 + 0.5
    np.testing.assert_allclose(apart["x"], [[1 / divisor, -1 / divisor]], rtol=1e-6)
    np.testing.assert_allclose(apart["y"], [[0.5 / divisor, -0.5 / divisor]], rtol=1e-6)
    terms = {"x": np.array([[4.0, 0.0]]), "y": np.array([[0.0, 1.0]])}
    apart = advantages_apart(terms, objective=objective(baseline="leave_one_out", scale="none"))
    assert apart["x"].tolist() == [[4.0, -4.0]] and apart["y"].tolist() == [[-1.0, 1.0]]


def test_two_rewards_that_cancel_pull_nobody():
    """The total has no spread: no advantage, and so no part of one."""
    terms = {"x": np.array([[1.0, 0.0]]), "y": np.array([[0.0, 1.0]])}
    apart = advantages_apart(terms, objective=objective())
    assert [a.tolist() for a in apart.values()] == [[[0.0, 0.0]], [[0.0, 0.0]]]


@pytest.mark.parametrize(
    ("baseline", "scale"),
    [
        (b, s)
        for b, s in itertools.product(
            ("group", "leave_one_out", "batch"), ("group", "batch", "advantages", "mean", "none")
        )
        if not (b == "batch" and s in ("group", "mean"))
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_advantages_apart_add_up_to_those_of_the_run(baseline, scale, seed):
    one = a_round(seed)
    shaped = scale != "mean"  # which shaping could bring to 0
    fields = {"overlong_buffer": 0.5, "overlong_penalty": 0.7} if shaped else {}
    fields |= {"kl_in": "reward" if shaped else "loss", "eps": None if scale == "none" else 1e-4}
    what = objective(baseline=baseline, scale=scale, **fields)
    one = one if shaped else one._replace(penalty_PG=None)
    terms = terms_of(one, WEIGHTS, limit=10, objective=what)
    assert terms.keys() == {"right", "form"} | ({OVERLONG, PENALTY} if shaped else set())
    apart = advantages_apart(terms, objective=what)
    wanted = rewards_to_advantages(
        one.reward_PG, one.parts, WEIGHTS, one.length_PG, one.penalty_PG, limit=10, objective=what
    )
    assert np.abs(np.asarray(wanted)).max() > 0.1
    np.testing.assert_allclose(sum(apart.values()), wanted, atol=3e-5)
    assert sum(a[2, 3] for a in apart.values()) == 0  # who abstains has none


def test_gradients_apart_by_hand():
    """g_x = (3, 0), g_y = (0, 4), g_0 = (0, -1): of the whole (3, 3)."""
    whole = {"w": jnp.array([3.0, 3.0])}
    rest = {"w": jnp.array([0.0, -1.0])}
    parts = {"x": {"w": jnp.array([3.0, 0.0])}, "y": {"w": jnp.array([0.0, 4.0])}}
    norms, to_whole, cosines, conflict, residual = compared(whole, rest, parts)
    assert norms == {"x": 3.0, "y": 4.0, REST: 1.0}
    assert to_whole == pytest.approx({"x": 0.5**0.5, "y": 0.5**0.5, REST: -(0.5**0.5)})
    assert cosines["y"] == pytest.approx({"x": 0.0, "y": 1.0, REST: -1.0})
    assert conflict == pytest.approx(1 - 5 / 7) and residual == 0
    opposed = {"x": parts["x"], "y": {"w": jnp.array([-3.0, 0.0])}}
    nothing = {"w": jnp.zeros(2)}
    assert compared(nothing, nothing, opposed)[3] == 1.0


def test_a_loss_that_is_not_linear_is_refused():
    g = {"w": jnp.array([1.0, 0.0])}
    with pytest.raises(ReplayError, match=r"not linear in the advantages here, 50\.0% of the grad"):
        linear(Parts({}, *compared(g, {"w": jnp.zeros(2)}, {"x": g, "y": {"w": -g["w"]}})), F32)
    small_rest = {"w": jnp.array([0.0, 2e-4])}
    linear(Parts({}, *compared({"w": jnp.array([1.0, 0.0])}, small_rest, {"x": g})), F32)
    # Left over is a hundredth of the parts: in bfloat16 that is rounding.
    rest = {"w": jnp.array([0.0, 0.0101])}
    parts = Parts({}, *compared({"w": jnp.array([1.0, 0.0])}, rest, {"x": g}))
    assert linear(parts, jnp.bfloat16).residual == pytest.approx(0.0101 / 1.0101)
    with pytest.raises(ReplayError, match=r"1\.0% of the gradient"):
        linear(parts, F32)


def test_products_by_layer_and_path():
    """A stack of two layers, and a leaf beside it."""
    left = {"layers": {"q": {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}},
            "final_norm": {"scale": jnp.array([5.0])}}  # fmt: skip
    right = {"layers": {"q": {"w": jnp.array([[1.0, 0.0], [0.0, -1.0]])}},
             "final_norm": {"scale": jnp.array([2.0])}}  # fmt: skip
    assert products(left, right) == {
        "all": 7.0, "layer 0": 1.0, "layer 1": -4.0, "layers/q/w": -3.0, "final_norm/scale": 10.0,
    }  # fmt: skip
    parts = beside(left, right)
    assert list(parts) == ["all", "layer 0", "layer 1", "final_norm/scale", "layers/q/w"]
    assert parts["layer 1"] == pytest.approx({"norm": 5.0, "changed_norm": 1.0, "cosine": -0.8})
    nothing = {"layers": {"q": {"w": jnp.zeros((2, 2))}}, "final_norm": {"scale": jnp.zeros(1)}}
    assert math.isnan(beside(left, nothing)["all"]["cosine"])


def test_a_fit_by_hand():
    """Half of what was predicted, and one that was not predicted at all."""
    got = fit(np.array([2.0, -2.0]), np.array([1.0, -1.0]))
    assert got == (pytest.approx(1.0), 0.5, 1.0, 2.0, 1.0)
    got = fit(np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 1.0]))
    assert got.correlation == 0.0
    assert got.slope == pytest.approx(4 / 14) and got.unexplained == pytest.approx(8 / 2)
    still = fit(np.zeros(3), np.zeros(3))
    assert math.isnan(still.correlation) and math.isnan(still.slope)


def test_an_update_scaled():
    before, after = {"w": jnp.array([1.0, 0.1])}, {"w": jnp.array([2.0, 0.3])}
    assert moved(before, after, 0.5)["w"].tolist() == pytest.approx([1.5, 0.2])
    assert (moved(before, after, 1.0)["w"] == after["w"]).all()  # its very bits
    assert (moved(before, after, 0.0)["w"] == before["w"]).all()


def test_texts_of_tokens():
    tokenizer = tiny_run.tokenizer()
    ids = tokenizer.encode("What is 12?", bos=False)
    text_of = token_text(tokenizer)
    assert "".join(map(text_of, ids)) == "What is 12?"
    assert text_of(tokenizer.eos_id) == f"<{tokenizer.eos_id}>"
    assert text_of(tokenizer.end_of_turn_id) == "<end_of_turn>"


def test_the_tokens_that_moved_most():
    rows = [
        {"tokens": ["a", "b"], "advantage": 1.0, "before": [-1.0, -2.0],
         "change": [0.1, -0.4], "changed_change": [0.1, 0.0]},
        {"tokens": ["c"], "advantage": -1.0, "before": [-3.0], "change": [0.0],
         "changed_change": [0.9]},
        {"tokens": [], "advantage": 0.0, "before": [], "change": [], "changed_change": []},
    ]  # fmt: skip
    told = moved_most(rows, ["change"], 2)
    assert [(t["token"], t["row"], t["place"]) for t in told] == [("b", 0, 1), ("a", 0, 0)]
    assert [t["token"] for t in moved_most(rows, ["change", "changed_change"], 9)] == list("cba")


def test_rows_that_differ():
    row = {"step": 1, "a": 0.5, "b": None, "reward/judged/cached": 0.0}
    assert list(unlike([row], [{**row, "reward/judged/cached": 1.0}])) == []
    assert list(unlike([row], [{**row, "a": 0.5000000000000001}])) == [
        "update 1, row 1: a was 0.5, is 0.5000000000000001"
    ]
    assert list(unlike([row, row], [row])) == ["2 rows in the run, 1 here"]
    many = [{"step": n, "a": n} for n in range(9)]
    told = list(unlike(many, [{**row, "a": -1} for row in many]))
    assert len(told) == 6 and told[-1] == "and 4 more rows"


def test_a_verdict_says_what_and_why():
    assert about_verdict(Verdict(["1 row", "2 arrays"], [], [])) == ["bit-equal: 1 row, 2 arrays"]
    lines = about_verdict(Verdict(["1 row"], ["x"], ["jax 0.1 -> 0.2"]))
    assert lines[0].startswith("NOT bit-equal") and lines[-1] == "  jax 0.1 -> 0.2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss.kl_coef"], "--set=loss.kl_coef: expected a field and a value"),
        (["=3"], "--set==3: expected a field and a value"),
        (["loss.kl_cof=0"], "--set=loss.kl_cof: unknown field of grpo; did you mean loss.kl_coef?"),
        (["loss=0"], "--set=loss: unknown field of grpo"),
        (["group=4"], "--set=group: would change the batch, and not the update alone"),
        (["sampling.temperature=2"], "--set=sampling.temperature: would change the batch"),
        (["loss.kl_coef=-1"], "stages.grpo.loss.kl_coef=-1"),
        (["loss.surrogate=clap"], "stages.grpo.loss.surrogate='clap': expected one of clip"),
        (["loss.surrogate=reinforce", "loss.clip_low=0.3"], "stages.grpo.loss.clip_low=0.3 would"),
        (["optimizer.learning_rate=fast"], "stages.grpo.optimizer.learning_rate='fast': expected"),
        (
            ["rewards.tag_format.wait=1"],
            "--set=rewards.tag_format.wait: unknown field",
        ),
        (["microbatches=9"], "stages.grpo.microbatches=9: there are only 8 rows"),
    ],
)
def test_a_change_that_makes_no_sense_is_one_line(words, said):
    config = small()
    config.stages.grpo, config.pipeline = small_grpo(), ("grpo",)
    with pytest.raises(ReplayError) as error:
        with_changes(config.to_dict(), "grpo", changes_of(words))
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_what_needs_log_probs_that_a_waiting_batch_lacks():
    config = small()
    config.stages.grpo, config.pipeline = small_grpo(), ("grpo",)
    config.stages.grpo.staleness = 1
    config.stages.grpo.loss.kl_coef = 0.0
    with pytest.raises(ReplayError, match="sampled an iteration ahead, without the log-probs"):
        with_changes(config.to_dict(), "grpo", {"loss.kl_coef": 0.1})
    with_changes(config.to_dict(), "grpo", {"loss.clip_high": 0.3})
    config.stages.grpo.loss.kl_coef = 0.1
    other = {"start": "base", "base": "start"}[config.stages.grpo.reference]
    with pytest.raises(ReplayError, match="sampled an iteration ahead, without the log-probs"):
        with_changes(config.to_dict(), "grpo", {"reference": other})
    with_changes(config.to_dict(), "grpo", {"loss.kl_coef": 0.2})


def test_what_chooses_groups_stays_where_groups_are_chosen():
    config = small()
    config.stages.grpo, config.pipeline = small_grpo(), ("grpo",)
    name = next(iter(config.stages.grpo.rewards))
    changes = {f"rewards.{name}.weight": 0.5}, {"shuffle_rewards": True}
    for change in changes:
        with_changes(config.to_dict(), "grpo", change)
    config.stages.grpo.dynamic_sampling = "drop"
    for change in changes:
        with pytest.raises(ReplayError, match="chooses groups by it: it would change the batch"):
            with_changes(config.to_dict(), "grpo", change)
    with_changes(config.to_dict(), "grpo", {"loss.kl_coef": 0.2})


def test_values_of_fields():
    words = ["a=0", "b=1e-3", "c=None", "d=True", "e=none", "f=[1]", "g=NaN=2", "h=-5"]
    assert changes_of(words) == {
        "a": 0, "b": 1e-3, "c": None, "d": True, "e": "none", "f": "[1]", "g": "NaN=2", "h": -5,
    }  # fmt: skip


def test_a_preset_in_place_of_another():
    config = small()
    config.stages.grpo, config.pipeline = small_grpo(), ("grpo",)
    config.stages.grpo.loss.kl_coef = 0.5  # its own: stays
    changed = with_changes(config.to_dict(), "grpo", {"loss.preset": "dr_grpo"})
    loss = changed["stages"]["grpo"]["loss"]
    wanted = objective_of({"preset": "dr_grpo", "kl_coef": 0.5})
    assert objective_of(loss) == wanted
    again = with_changes(changed, "grpo", {"loss.surrogate": "reinforce"})
    assert again["stages"]["grpo"]["loss"]["clip_low"] is None  # the preset's, now idle


def test_lists_of_a_json_file_are_tuples():
    assert tuples({"a": [1, [2]], "b": {"c": []}}) == {"a": (1, (2,)), "b": {"c": ()}}


def test_numbers_of_tables():
    assert [shown(x) for x in (None, math.nan, 0.12345, 3, 12345.6)] == [
        "-", "-", "0.123", "3", "12346",
    ]  # fmt: skip
