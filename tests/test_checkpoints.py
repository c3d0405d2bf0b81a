"""Checkpoints: bits, places, what is kept; every damaged file and every cut-short save survived."""

import functools
import hashlib
import json
import pathlib
import re
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from absl import logging as absl_logging

from grpo.storage import checkpoints as checkpoint
from grpo.storage import manifest, snapshot
from grpo.storage.arrays import named, read_arrays, write_arrays
from grpo.storage.checkpoints import Checkpoints, CheckpointsBrokenError, CheckpointWriteError
from grpo.storage.manifest import fault, write_manifest
from grpo.storage.snapshot import CheckpointMismatchError, SnapshotError, restore_part
from grpo.training.optimizer import learning_rate, make_optimizer
from grpo.training.train_step import TrainState, init_state
from models.sharding import make_mesh, shardings

EXTRA = {"cursor": [3, 17], "seed": 5, "share": 0.1, "name": "Zoë", "nothing": None}
PENDING = {
    "ids": np.arange(12, dtype=np.int32).reshape(3, 4),
    "mask": np.array([True, False, True]),
    "advantage": np.array([np.nan, -0.0, 1.5], np.float32),
    "step": np.int64(3),
}


@functools.cache
def state_of(seed: int = 0, dtype: str = "bfloat16") -> TrainState:
    """A state of the real optimizer, full of random bits: NaNs, infinities, -0.0."""
    trainable = {
        "embedder": {"table": jnp.zeros((16, 8), dtype)},
        "layers": {"mlp": {"up": {"w": jnp.zeros((2, 8, 12), dtype)}}},
        "final_norm": {"scale": jnp.zeros(8)},
    }
    rate = learning_rate(peak=1e-3, schedule="cosine", warmup=0.1, final=0.1, total_updates=9)
    optimizer = make_optimizer(
        learning_rate=rate, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1, decayed=".*/w",
        clip_norm=1.0,
    )  # fmt: skip
    random = np.random.RandomState(seed)

    def draw(x):
        return jnp.asarray(np.frombuffer(random.bytes(x.nbytes), x.dtype).reshape(x.shape))

    return jax.tree.map(draw, init_state(trainable, optimizer))


def shapes(state, places=None):
    """What a state is like; leaves without a place, or with these."""
    places = jax.tree.map(lambda _: None, state) if places is None else places
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, places
    )


def assert_same_bits(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for (name, x), y in zip(named(got).items(), jax.tree.leaves(wanted), strict=True):
        assert isinstance(x, jax.Array), name
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, False), name
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), name


def opened(root, keep_last=9, best_mode="max", allow_fresh=False) -> Checkpoints:
    return Checkpoints(root, keep_last=keep_last, best_mode=best_mode, allow_fresh=allow_fresh)


def fingerprint(root: pathlib.Path) -> dict[str, str]:
    """Every file and empty directory below a root, with its content."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with the steps 5 and 10."""
    root = tmp_path_factory.mktemp("run")
    for step in (5, 10):
        opened(root).save(step, state_of(step), extra={**EXTRA, "step": step}, pending=PENDING)
    return root


@pytest.fixture
def root(saved, tmp_path):
    """A copy of that run to damage."""
    return shutil.copytree(saved, tmp_path / "run")


def test_round_trip(saved):
    checkpoints = opened(saved)
    assert checkpoints.steps() == [5, 10]
    assert checkpoints.newest() == 10
    for step in (5, 10):
        state, extra, pending = checkpoints.restore(step, shapes(state_of()))
        assert_same_bits(state, state_of(step))
        assert extra == {**EXTRA, "step": step}
        assert pending is not None and pending.keys() == PENDING.keys()
        for name, values in PENDING.items():
            assert pending[name].dtype == values.dtype
            assert pending[name].tobytes() == values.tobytes()
    assert checkpoints.rejected == []
    # Real arrays do as well as shapes.
    assert_same_bits(checkpoints.restore(5, state_of(1)).state, state_of(5))


def test_kinds_of_leaves(tmp_path):
    tree = {
        "a": [jnp.int32(-7), jnp.uint32(2**32 - 1), jnp.bool_([True, False])],
        "b/c": (jnp.float16([np.nan, -0.0]), None, ()),
        "d": jnp.arange(5, dtype=ml_dtypes.float8_e4m3fn),
        "e": np.arange(3, dtype=np.int8),
        "f": jnp.full((2, 1, 3), -0.0, jnp.bfloat16),
    }
    write_arrays(tmp_path / "tree", tree)
    assert_same_bits(read_arrays(tmp_path / "tree", tree), tree)
    for bad, why in (
        ({"x": 1.0}, "x is a float"),
        ({"x": jax.random.key(0)}, "x is a PRNGKey"),
        ({"x/y": jnp.ones(1), "x": {"y": jnp.ones(1)}}, "same path"),
    ):
        with pytest.raises(ValueError, match=why):
            write_arrays(tmp_path / "bad", bad)


def test_other_meshes(tmp_path):
    state = state_of(3)
    place = shardings(state, make_mesh(4, 2))
    spread = jax.device_put(state, place)
    assert len(spread.trainable["embedder"]["table"].sharding.device_set) == 8
    checkpoints = opened(tmp_path)
    checkpoints.save(1, spread, extra={})
    for places in (
        place,
        shardings(state, make_mesh(2, 2)),
        jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[3]), state),
    ):
        got = checkpoints.restore(1, shapes(state, places)).state
        assert_same_bits(got, state)
        for x, place in zip(jax.tree.leaves(got), jax.tree.leaves(places), strict=True):
            assert x.sharding == place
    got = checkpoints.restore(1, shapes(state)).state
    assert all(x.sharding.device_set == {jax.devices()[0]} for x in jax.tree.leaves(got))
    # And in a process that has one device only.
    script = (
        "import jax, sys; from tests.test_checkpoints import *\n"
        "assert len(jax.devices()) == 1; like = shapes(state_of(3))\n"
        "assert_same_bits(opened(sys.argv[1]).restore(1, like).state, state_of(3))\n"
        "print('the same')"
    )
    environment = {"JAX_PLATFORMS": "cpu", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=pathlib.Path(__file__).parent.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "the same\n", done.stderr


def test_one_part_alone(root):
    step = root / "00000010"
    like = shapes(state_of().trainable)
    for file in (step / "arrays/optimizer").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert_same_bits(restore_part(step, "trainable", like), state_of(10).trainable)
    with pytest.raises(SnapshotError, match=r"00000010: arrays/optimizer/\S+: has 0 bytes"):
        restore_part(step, "optimizer", shapes(state_of()._replace(trainable=None)))
    with pytest.raises(SnapshotError, match=r"lists no file arrays/trainabl/"):
        restore_part(step, "trainabl", like)
    with pytest.raises(CheckpointMismatchError, match=r"final_norm/scale is in the checkpoint"):
        restore_part(step, "trainable", {k: v for k, v in like.items() if k != "final_norm"})


def test_what_is_kept(tmp_path):
    checkpoints = opened(tmp_path, keep_last=2)
    state = TrainState(jnp.int32(0), jnp.int32(0), {"w": jnp.ones(2)}, ())
    metrics = {1: 0.1, 2: 0.9, 3: float("nan"), 4: 0.9, 5: None, 6: 0.3, 7: 0.2, 8: float("inf")}
    kept = {}
    for step, metric in metrics.items():
        checkpoints.save(step, state, extra={}, metric=metric, final=step == 3)
        kept[step] = checkpoints.steps()
    assert kept == {
        1: [1], 2: [1, 2], 3: [2, 3], 4: [3, 4], 5: [3, 4, 5], 6: [3, 4, 5, 6], 7: [3, 4, 6, 7],
        8: [3, 4, 7, 8],
    }  # fmt: skip
    assert checkpoints.best() == 4
    assert opened(tmp_path, best_mode="min").best() == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"0000000{n}" for n in (3, 4, 7, 8)]
    # Going on from an older step: what was just saved stays.
    checkpoints.save(5, state, extra={})
    assert checkpoints.steps() == [3, 4, 5, 7, 8]
    # Whether a step whose extra.json is broken is final is not known.
    (tmp_path / "00000007" / "extra.json").write_bytes(b"{")
    checkpoints.save(9, state, extra={})
    assert checkpoints.steps() == [3, 4, 7, 8, 9]
    with pytest.raises(ValueError, match="keep_last=0"):
        opened(tmp_path, keep_last=0)
    with pytest.raises(ValueError, match="expected one of max, min"):
        opened(tmp_path, best_mode="largest")


def test_a_step_may_be_saved_again(root):
    checkpoints = opened(root)
    checkpoints.save(10, state_of(11), extra={"again": True}, final=True)
    assert checkpoints.steps() == [5, 10]
    state, extra, pending = checkpoints.restore(10, state_of())
    assert_same_bits(state, state_of(11))
    assert (extra, pending) == ({"again": True}, None)
    assert sorted(path.name for path in root.iterdir()) == ["00000005", "00000010"]


def test_nothing_to_restore(tmp_path):
    assert opened(tmp_path / "absent").newest() is None
    assert opened(tmp_path).newest() is None
    (tmp_path / "notes.old").mkdir()
    (tmp_path / "notes.tmp").mkdir()
    assert opened(tmp_path).newest() is None
    assert opened(tmp_path).best() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.old", "notes.tmp"]


def test_leftovers_are_invisible_and_go_with_the_next_save(root):
    for name in ("00000011.tmp", "00000012.deleted.tmp", "00000010.old"):
        shutil.copytree(root / "00000005", root / name)
    checkpoints = opened(root)
    assert checkpoints.steps() == [5, 10]
    assert checkpoints.newest() == 10
    assert len(list(root.iterdir())) == 5
    checkpoints.save(11, state_of(), extra={})
    names = sorted(path.name for path in root.iterdir())
    assert names == ["00000005", "00000010", "00000011"]


def delete(file: pathlib.Path) -> None:
    file.unlink()


def truncate(file: pathlib.Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: pathlib.Path) -> None:
    data = bytearray(file.read_bytes())
    place = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:4], "big") % len(data)
    data[place] ^= 1 << place % 8
    file.write_bytes(data)


def empty(file: pathlib.Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [delete, truncate, flip, empty])
def test_every_file_of_the_newest_step_damaged(root, damage):
    before = fingerprint(root / "00000005")
    whole = root.with_name("whole")
    (root / "00000010").rename(whole)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    listed = set(manifest.read_manifest(whole))
    assert {str(file) for file in files} == listed | {"manifest.json"}
    assert listed > {"extra.json", "pending.npz"}
    assert len(files) > 20
    for number, file in enumerate(files):
        assert (whole / file).stat().st_size > 0
        shutil.copytree(whole, root / "00000010")
        damage(root / "00000010" / file)
        damaged = fingerprint(root / "00000010")
        with pytest.raises(SnapshotError, match=re.escape(str(file))):
            opened(root).restore(10, shapes(state_of()))
        checkpoints = opened(root)
        assert checkpoints.newest() == 5, file
        assert checkpoints.steps() == [5]
        assert len(checkpoints.rejected) == 1
        assert str(file) in checkpoints.rejected[0]
        assert "\n" not in checkpoints.rejected[0]
        aside = root / "quarantine" / ("00000010" + f".{number}" * (number > 0))
        assert fingerprint(aside) == damaged
    assert fingerprint(root / "00000005") == before
    assert_same_bits(checkpoints.restore(5, state_of()).state, state_of(5))


def test_any_flipped_bit_of_the_lists_is_seen(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    write_manifest(tmp_path)
    assert fault(tmp_path) == ""
    file = tmp_path / "manifest.json"
    data = file.read_bytes()
    for bit in range(0, 8 * len(data), 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        assert "manifest.json" in fault(tmp_path), bit
    for text in ("", "{}", "[]", "null", '{"a": 3}', '{"a": {"size": 7}}', "[" * 100_000):
        file.write_text(text)
        assert fault(tmp_path).startswith("manifest.json: "), text[:9]


def test_directories_that_are_no_steps(root):
    (root / "00009999").mkdir()
    (root / "00009998").write_text("a file")
    shutil.copytree(root / "00000010", root / "00009997")
    (root / "00000010" / "notes.txt").write_text("mine")  # unlisted: nobody reads it
    checkpoints = opened(root)
    assert checkpoints.newest() == 10
    reasons = [line.removeprefix(f"{root}/") for line in checkpoints.rejected]
    assert reasons == [
        "00009999: manifest.json: cannot be read (No such file or directory)",
        "00009998: manifest.json: cannot be read (Not a directory)",
        "00009997: extra.json: is of step 10",
    ]
    assert sorted(path.name for path in root.iterdir()) == ["00000005", "00000010", "quarantine"]
    # What is in quarantine stays there, whatever is saved.
    before = fingerprint(root / "quarantine")
    opened(root, keep_last=1).save(11, state_of(), extra={})
    assert fingerprint(root / "quarantine") == before


def test_an_unlisted_batch_is_not_read(tmp_path):
    path = opened(tmp_path).save(1, state_of(), extra={})
    np.savez(path / "pending.npz", x=np.ones(2))
    assert opened(tmp_path).restore(1, state_of()).pending is None


def test_nothing_whole(root):
    empty(root / "00000005" / "manifest.json")
    delete(root / "00000010" / "extra.json")
    before = fingerprint(root)
    checkpoints = opened(root)
    with pytest.raises(CheckpointsBrokenError) as caught:
        checkpoints.newest()
    assert str(caught.value) == (
        f"{root}: no step is whole: 00000010 (extra.json: manifest.json lists it, but it "
        "cannot be read (No such file or directory)); 00000005 (manifest.json: is no list of "
        "files); set --config.checkpoint.allow_fresh=True to start again"
    )
    assert fingerprint(root) == before
    assert checkpoints.rejected == []
    checkpoints = opened(root, allow_fresh=True)
    assert checkpoints.newest() is None
    assert len(checkpoints.rejected) == 2
    assert fingerprint(root / "quarantine") == before
    checkpoints.save(5, state_of(), extra={})
    assert opened(root).newest() == 5


def test_states_that_do_not_fit(saved):
    before = fingerprint(saved)
    like = shapes(state_of())
    table = like.trainable["embedder"]["table"]

    def with_table(leaf):
        return like._replace(trainable={**like.trainable, "embedder": {"table": leaf}})

    def lines(bad) -> str:
        with pytest.raises(CheckpointMismatchError) as caught:
            opened(saved).restore(10, bad)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    here = f"{saved}/00000010: is of another model, adapter or optimizer: "
    wide = jax.ShapeDtypeStruct((16, 9), table.dtype)
    line = "embedder/table is bfloat16[16, 8], not bfloat16[16, 9]"
    assert lines(with_table(wide)) == here + line
    single = jax.ShapeDtypeStruct(table.shape, jnp.float32)
    assert "embedder/table is bfloat16[16, 8], not float32[16, 8]" in lines(with_table(single))
    assert "embedder/table is in the checkpoint only" in lines(
        like._replace(trainable={k: v for k, v in like.trainable.items() if k != "embedder"})
    )
    more = {**like.trainable, "head": table}
    assert lines(like._replace(trainable=more)) == f"{here}head is not in the checkpoint"
    bare = lines(like._replace(opt_state=()))
    assert re.search(r"opt_state/1/0/count is in .*only; .*; and \d more$", bare), bare
    assert opened(saved).newest() == 10
    assert fingerprint(saved) == before


class Killed(BaseException):
    """The process is gone: nothing cleans up."""


POINTS = [  # a call of a save, in their order; is the new step there before it, and after
    (snapshot, "write_arrays", 1, (False, False)),
    (checkpoint.os, "rename", 2, (False, False)),  # orbax's own, of arrays/optimizer
    (snapshot, "_write_pending", 1, (False, False)),
    (snapshot, "write_manifest", 1, (False, False)),
    (manifest.os, "replace", 2, (False, False)),  # manifest.json
    (checkpoint.os, "rename", 3, (False, False)),  # 10 -> 10.old
    (checkpoint.os, "rename", 4, (False, True)),  # 10.tmp -> 10
    (checkpoint, "sync", 1, (True, True)),
    (checkpoint.os, "rename", 5, (True, True)),  # 5 -> 5.deleted.tmp
    (checkpoint.shutil, "rmtree", 1, (True, True)),
]


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left")], ids=repr)
@pytest.mark.parametrize(("module", "name", "call", "is_new"), POINTS)
def test_a_save_cut_short(module, name, call, is_new, error, root, monkeypatch):
    """Step 10 is saved anew and 5 pruned, until an error before a call, or a kill after it."""
    calls, real, is_killed = [], getattr(module, name), isinstance(error, Killed)

    def cut(*args, **kwargs):
        calls.append(args)
        if len(calls) != call:
            return real(*args, **kwargs)
        if is_killed:
            real(*args, **kwargs)
        raise error

    monkeypatch.setattr(module, name, cut)
    checkpoints = opened(root, keep_last=1)
    try:
        checkpoints.save(10, state_of(11), extra={}, pending=PENDING)
    except Killed:
        assert is_killed
    except CheckpointWriteError as caught:
        assert str(caught).startswith(f"{root}/00000010: not saved; its arrays need ")
        assert not is_killed
        assert not list(root.glob("*.tmp"))
    else:  # deleting what is old is not worth an error
        assert not is_killed
        assert is_new[0]
    assert len(calls) >= call
    monkeypatch.undo()
    checkpoints = opened(root, keep_last=1)
    assert checkpoints.newest() == 10
    state, extra, _ = checkpoints.restore(10, state_of())
    assert (extra == {}) == is_new[is_killed]
    assert_same_bits(state, state_of(11 if is_new[is_killed] else 10))
    checkpoints.save(12, state, extra={})
    assert [path.name for path in root.iterdir()] == ["00000012"]


def test_a_full_disk(root):
    before = fingerprint(root)
    random = np.random.RandomState(0).standard_normal(100_000)
    large = state_of()._replace(trainable={"w": jnp.asarray(random, jnp.float32)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for state, pending, needed in (
        (large, None, 400_000),
        (state_of(), {"x": random}, 800_000),
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(CheckpointWriteError) as caught:
                opened(root, keep_last=1).save(11, state, extra={}, pending=pending)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(caught.value)
        start = rf"{root}/00000011: not saved; its arrays need (\d+) bytes"
        got = re.match(start, str(caught.value))
        assert got and needed < int(got[1]) < needed + 10_000
        assert fingerprint(root) == before
    assert opened(root).newest() == 10


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"extra": {"x": (1, 2)}}, "extra has keys or values that JSON would change"),
        ({"extra": {1: 2}}, "extra has keys or values that JSON would change"),
        ({"extra": {"x": float("nan")}}, "extra has keys or values that JSON would change"),
        ({"extra": {"x": np.float32(1)}}, "not JSON serializable"),
        ({"extra": {}, "pending": {"x": np.array([None])}}, "pending x has dtype object"),
        ({"extra": {}, "pending": {"x": np.ones(1, ml_dtypes.bfloat16)}}, "has dtype bfloat16"),
    ],
)
def test_what_would_not_come_back_is_not_saved(root, arguments, why):
    before = fingerprint(root)
    with pytest.raises(CheckpointWriteError, match=why):
        opened(root).save(11, state_of(), **arguments)
    assert fingerprint(root) == before


def test_orbax_is_quiet(tmp_path, caplog):
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.INFO)
    try:
        with caplog.at_level("INFO"):
            opened(tmp_path).save(1, state_of(), extra={})
            opened(tmp_path).restore(1, state_of())
        assert caplog.messages == []
        assert absl_logging.get_verbosity() == absl_logging.INFO
    finally:
        absl_logging.set_verbosity(before)


def test_extra_is_json_for_people(saved):
    about = json.loads((saved / "00000010" / "extra.json").read_text())
    extra = {**EXTRA, "step": 10}
    assert about == {"step": 10, "metric": None, "final": False, "extra": extra}
