"""The parity tool without a reference: what it computes, compares and says."""

import argparse
import sys

import jax
import numpy as np
import pytest

from grpo.algorithms.presets import PRESETS
from grpo.parity import beside, compare, ours
from grpo.parity.compare import AGREES, DIFFERS, ON_PURPOSE, WITHIN, Row
from grpo.parity.task import BATCH_NEW, make_task
from grpo.parity.words import GRPO, LOSSES, objective_of
from grpo.tools import parity
from models.policy import Policy, logits
from tests.helpers import SHALLOW, TINY, assert_trees_equal, shallow_params, tiny_params
from tests.references import tunix_layout, tunix_models

TOKENS = 16  # twice the window


@pytest.fixture(scope="module")
def side():
    """A small policy, its task, and all that our side makes of it."""
    policy = Policy(config=SHALLOW, params=shallow_params())
    task = make_task(SHALLOW, seed=3, tokens=TOKENS)
    found, walk = parity.our_side(policy, task)
    return policy, task, found, walk


def test_the_task_is_drawn_alike_and_padded_as_the_family_can_bear():
    for family, config in TINY.items():
        task, again = (make_task(config, seed=5, tokens=TOKENS) for _ in range(2))
        assert all(np.array_equal(task[name], again[name]) for name in task)
        other = make_task(config, seed=6, tokens=TOKENS)
        assert not np.array_equal(task["walk_ids"], other["walk_ids"])
        ids, mask = task["walk_ids"], task["walk_mask"]
        assert ids[mask == 1].min() >= 3 and ids.max() < config.vocab_size
        assert mask[0].all() and mask[1].sum() == 12
        # Tunix's Gemma 2 measures its window by columns: its padding is behind.
        assert mask[1, 0] == (family == "gemma2") and mask[1, -1] == (family == "gemma3")
        assert task["prompt_mask"].all() == (family == "gemma2")
        lengths = task["batch_mask"][:, -BATCH_NEW:].sum(axis=1)
        assert lengths.tolist() == [12, 7, 1, 9, 12, 0]
        assert all(x.dtype in (np.int32, np.float32) for x in task.values())


def test_differences():
    assert compare.gap_of([1.0, 2.0], [1.0, 1.5]) == pytest.approx(0.5 / 1.5)
    assert compare.gap_of([0.1, 0.2], [0.1, 0.25]) == pytest.approx(0.05)  # absolute below 1
    assert compare.gap_of([[1.0, 9.0]], [[1.0, 2.0]], [[1, 0]]) == 0
    assert np.isnan(compare.gap_of([1.0, np.nan], [1.0, 2.0]))
    assert compare.count_of([1, 2, 3], [1, 5, 4]) == 2
    tree = {"a": np.array([3.0, 4.0]), "b": np.array([1.0])}
    theirs = {"p['a']": np.array([3.0, 5.0]), "p['b']": np.array([1.1])}
    assert compare.tree_gap(tree, theirs, "p") == pytest.approx(max(1 / np.sqrt(34), 0.1 / 1.1))


def test_verdicts():
    assert Row("", 1e-6, 1e-5).verdict == WITHIN and Row("", 2e-5, 1e-5).verdict == DIFFERS
    assert Row("", float("nan"), 1e-5).verdict == DIFFERS
    assert Row("", 0, 0).verdict == WITHIN and Row("", 1, 0).verdict == DIFFERS
    assert Row("", 0.3, None, "why").verdict == ON_PURPOSE
    assert Row("", 1e-7, None, "why").verdict == AGREES
    shown = parity.shown([Row("a piece", 3.0, 0), Row("another", 0.25, None, "it is so")])
    assert "| a piece |                  3 |         0 |    DIFFERS |" in shown
    assert shown.endswith("- another: it is so")


def test_the_pieces_make_up_the_model(side):
    """Norms and sums by hand; the whole is the model as everybody else runs it."""
    policy, task, _, walk = side
    keep = task["walk_mask"] == 1
    for i in range(SHALLOW.num_layers):
        between = walk["x"][i] + walk["post_attention_norm"][i]
        np.testing.assert_allclose(between + walk["post_ffw_norm"][i], walk["block"][i], atol=1e-5)
        scale = np.asarray(policy.params["layers"]["pre_ffw_norm"]["scale"][i])
        root = np.sqrt(np.mean(between**2, axis=-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(walk["pre_ffw_norm"][i], between / root * (1 + scale), atol=1e-5)
    np.testing.assert_array_equal(walk["x"][1], walk["block"][0])
    np.testing.assert_array_equal(
        walk["logits"], logits(policy, task["walk_ids"], task["walk_mask"])
    )
    last, scale = walk["block"][-1], np.asarray(policy.params["final_norm"]["scale"])
    normed = last / np.sqrt(np.mean(last**2, axis=-1, keepdims=True) + 1e-6) * (1 + scale)
    by_hand = normed @ np.asarray(policy.params["embedder"]["table"]).T
    np.testing.assert_allclose(walk["logits"][keep], by_hand[keep], atol=1e-4)
    # Plane 0 turns by the position itself, whatever the base; scaled in global layers.
    x, position = task["rope"][..., 0], walk["positions"][..., None]
    y = task["rope"][..., SHALLOW.head_dim // 2]
    for kind, factor in (("local", 1.0), ("global", SHALLOW.global_rope_factor)):
        turned = x * np.cos(position / factor) - y * np.sin(position / factor)
        np.testing.assert_allclose(walk[f"rope_{kind}"][..., 0], turned, atol=1e-5)
    row = walk["visible"][1]  # its first four tokens are padding
    np.testing.assert_array_equal(
        row[4:], (np.arange(16) <= np.arange(4, 16)[:, None]) & (np.arange(16) >= 4)
    )


def test_the_step_is_of_the_first_loss_and_moves_against_the_gradient(side):
    policy, task, found, _ = side
    loss, grads, moved = ours.step(policy, task)
    assert loss == pytest.approx(float(found[next(iter(LOSSES))]), rel=1e-5)
    for grad, update, old in zip(*map(jax.tree.leaves, (grads, moved, policy.params)), strict=True):
        # The first step of AdamW is -lr (sign g + 0.1 θ) but for eps.
        large = np.abs(np.asarray(grad)) > 1e-2 * np.abs(np.asarray(grad)).max()
        expected = -1e-2 * (np.sign(grad) + 0.1 * np.asarray(old))
        np.testing.assert_allclose(np.asarray(update)[large], expected[large], rtol=0.1)
    assert found["GRPO: clip 0.2, k3 0.08:clip/low"] > 0  # or the clip would not be compared
    assert len({float(found[name]) for name in LOSSES}) == len(LOSSES)


def test_the_words():
    assert objective_of(GRPO) == PRESETS["grpo"]
    sequence = objective_of(LOSSES["GSPO, clip 0.05 and 0.08"])
    assert (sequence.ratio, sequence.clip_low, sequence.clip_high) == ("sequence", 0.05, 0.08)


def said_like(walk, found):
    """What a reference would say that agrees with us in everything."""
    theirs = {name: np.array(x) for name, x in walk.items()} | {"embedding": walk["x"][0]}
    return theirs | {name: np.array(found[name]) for name in ("greedy", "greedy_logprob")}


def test_a_row_names_the_piece_that_differs(side):
    _, task, found, walk = side
    mask = task["walk_mask"]
    rows = compare.layer_rows(SHALLOW, walk, said_like(walk, found), mask)
    assert {row.verdict for row in rows} == {WITHIN} and len(rows) == 13
    wrong = {
        "attention, local, window 8": ("attention", 0), "attention, global": ("attention", 1),
        "mlp": ("mlp", 1), "RMS norm post_ffw": ("post_ffw_norm", 0), "block": ("block", 1),
        "rotary, global layers, base 1e+06": ("rope_global", 0),
    }  # fmt: skip
    for piece, (name, layer) in wrong.items():
        theirs = said_like(walk, found)
        theirs[name][layer][0, 1] += 1e-3 * max(1, np.abs(walk[name]).max())
        rows = compare.layer_rows(SHALLOW, walk, theirs, mask)
        assert [row.piece for row in rows if row.verdict == DIFFERS] == [piece]
        padded = said_like(walk, found)
        padded["mlp"][:, 1, :4] = np.nan  # what stands in padding is nobody's affair
        assert compare.layer_rows(SHALLOW, walk, padded, mask)[-4].verdict == WITHIN


def flags_of(*words: str) -> argparse.Namespace:
    return parity.parser().parse_args([*words])


def test_the_table_and_the_exit_code(side, monkeypatch, capsys):
    """With a stand-in for transformers that says what we say, and one that does not."""
    policy, _, found, _ = side
    gaps = {"logits": 0.0}

    def stand_in(name, python, folder, task, walk):
        assert (folder / "model" / "config.json").is_file() and name == "transformers"
        theirs = said_like(walk, {"greedy": found["greedy"], **{
            "greedy_logprob": found["greedy_logprob"]}})  # fmt: skip
        theirs["logits"] += gaps["logits"]
        return theirs, {"transformers": "0.0"}

    monkeypatch.setattr(parity, "beside", stand_in)
    monkeypatch.setattr(parity, "installed", lambda name, _: name == "transformers")
    monkeypatch.setattr(parity, "opened", lambda _: policy)
    words = flags_of("--seed=3", f"--tokens={TOKENS}")
    assert parity.parity(words) == 0
    out, err = capsys.readouterr()
    assert "Beside transformers 0.0" in out and "all pieces are within" in out
    assert out.count("within |") == 15 and "pip install -e '.[parity]'" in err
    gaps["logits"] = 0.5
    assert parity.parity(words) == 1
    out, _ = capsys.readouterr()
    assert "1 pieces differ" in out and out.count("DIFFERS") == 1


def test_without_a_reference_a_line_says_what_to_install(capsys, monkeypatch):
    nowhere = ["parity", "--tunix=/nowhere/python", "--transformers=/nowhere/python"]
    monkeypatch.setattr(sys, "argv", nowhere)
    with pytest.raises(SystemExit) as ended:
        parity.main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 3
    for reference in beside.REFERENCES.values():
        assert sum(reference.install in line for line in lines) == 1
    assert lines[-1] == "error: there is no reference to compare with"
    monkeypatch.setattr(parity, "installed", lambda *_: True)
    monkeypatch.setattr(sys, "argv", ["parity", "--checkpoint=/nowhere"])
    with pytest.raises(SystemExit) as ended:
        parity.main()
    assert ended.value.code == 2 and "/nowhere" in capsys.readouterr().err


def test_a_reference_that_fails_says_why_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "tests" / "references").mkdir(parents=True)
    script = tmp_path / "tests" / "references" / "parity_transformers.py"
    script.write_text("import sys\nsys.exit('out of luck')\n")
    monkeypatch.setattr(beside, "ROOT", tmp_path)
    with pytest.raises(beside.BesideError, match=r"^transformers: out of luck$"):
        beside.beside("transformers", sys.executable, tmp_path, {}, {})
    assert not beside.installed("tunix", "/nowhere/python")


def test_weights_go_to_tunix_and_back():
    for family, config in TINY.items():
        params = tiny_params(family)
        there = tunix_layout.to_theirs(config, params)
        back = tunix_layout.to_ours(config, there)
        assert_trees_equal(jax.tree.map(np.asarray, back), jax.tree.map(np.asarray, params))
        assert there["layers.1.attn.kv_einsum.w"].shape == (2, 2, 48, 16)
    for name in tunix_models.ARCHITECTURES:
        config = tunix_layout.config_of(name)
        case = tunix_layout.case_of(config)
        told = {**tunix_models.COMMON, **tunix_models.ARCHITECTURES[name]}
        assert {key: case.get(key) for key in told} == told
        assert case["is_local"] == tuple(kind == "local" for kind in config.kinds)


def test_what_tunix_has_no_word_for_is_refused():
    with pytest.raises(ValueError, match="query_scalar=16"):
        tunix_layout.case_of(TINY["gemma2"])  # 24 is neither H nor D / N
