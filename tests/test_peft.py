"""PEFT adapters of every kind we read, against W + scale · B A in float64, and those refused."""

import dataclasses
import json
import math
from collections.abc import Iterable

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from models import Policy, load_model, save_adapter, save_hf
from models.checkpoints import peft
from models.checkpoints.files import CheckpointError
from models.gemma import param_shapes
from models.lora import TARGETS, LoraConfig, init_adapter
from tests.helpers import TINY, TINY3, assert_trees_equal, tiny_params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYERS = range(7)
SHAPES = {  # our target -> PEFT's module, its outputs and inputs in TINY3
    "q": ("self_attn.q_proj", 64, 48),
    "k": ("self_attn.k_proj", 32, 48),
    "v": ("self_attn.v_proj", 32, 48),
    "o": ("self_attn.o_proj", 48, 64),
    "gate": ("mlp.gate_proj", 80, 48),
    "up": ("mlp.up_proj", 80, 48),
    "down": ("mlp.down_proj", 48, 80),
}
SLOTS = [(target, layer) for target in SHAPES for layer in LAYERS]
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none"}


def tensor(target, layer, factor, prefix="model.", infix=""):
    """A factor's name in the file."""
    module = f"base_model.model.{prefix}layers.{layer}.{SHAPES[target][0]}"
    return f"{module}.lora_{factor}{infix}.weight"


def draw(slots=SLOTS, rank=lambda target, layer: 4, dtype="f4", **naming):
    """Random factors A (rank, inputs) and B (outputs, rank) for some modules."""
    random, factors = np.random.RandomState(0), {}
    for target, layer in slots:
        _, outputs, inputs = SHAPES[target]
        for factor, shape in (
            ("A", (rank(target, layer), inputs)),
            ("B", (outputs, rank(target, layer))),
        ):
            values = random.standard_normal(shape).astype(dtype)
            factors[tensor(target, layer, factor, **naming)] = values
    return factors


def write(folder, config, factors):
    """An adapter directory; unless told otherwise its config lists the modules that it has."""
    modules = {name.split(".lora_")[0].split(".")[-1] for name in factors}
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({"target_modules": sorted(modules), **config}))
    safetensors.numpy.save_file(factors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def ours(target, matrix):
    """A matrix (outputs, inputs) in our axes."""
    if target in "qkv":
        return matrix.T.reshape(48, -1, 16)
    return matrix.T.reshape(4, 16, 48) if target == "o" else matrix.T


def weight(target, layer):
    """W of the tiny parameters in float64."""
    part, leaf = TARGETS[target]
    return np.asarray(tiny_params("gemma3")["layers"][part][leaf]["w"][layer], "f8")


def merged_by_hand(factors, scale, **naming):
    """(target, layer) -> W + scale · B A in our axes, or W where there is no adapter."""
    merged = {slot: weight(*slot) for slot in SLOTS}
    for slot in SLOTS:
        if tensor(*slot, "A", **naming) in factors:
            a, b = (factors[tensor(*slot, factor, **naming)].astype("f8") for factor in "AB")
            merged[slot] += scale(*slot) * ours(slot[0], b @ a)
    return merged


def merged_as_loaded(lora, adapter):
    """The same from what `load` returns."""
    merged = {slot: weight(*slot) for slot in SLOTS}
    for target in lora.names:
        part, leaf = TARGETS[target]
        a, b = (np.asarray(adapter["layers"][part][leaf][factor], "f8") for factor in "ab")
        for layer in LAYERS:
            merged[target, layer] += lora.scale * np.tensordot(a[layer], b[layer], 1)
    return merged


def assert_merges_alike(lora, adapter, factors, scale, **naming):
    """What was loaded is what the file says."""
    found = merged_as_loaded(lora, adapter)
    for slot, matrix in merged_by_hand(factors, scale, **naming).items():
        np.testing.assert_allclose(found[slot], matrix, rtol=1e-6, atol=1e-6, err_msg=str(slot))


def only(*targets, layers: Iterable[int] = LAYERS):
    """The modules of some targets in some layers."""
    return [(target, layer) for target in targets for layer in layers]


def by_target(default, **values):
    """A rank or scale for each target."""
    return lambda target, layer: values.get(target, default)


def v3_up1(target, layer):
    """The ranks that the regexes of one case make."""
    return {"v": 3 if layer <= 2 else 4, "up": 1}.get(target, 4)


# Beside PLAIN in the config, what `draw` is told, the scale of each module.
CASES = {
    "plain": ({}, {}, 1.5),
    "no_target_modules": ({"target_modules": None}, {}, 1.5),
    "fractional_alpha": ({"lora_alpha": 0.3}, {}, 0.075),
    "rslora": ({"use_rslora": True}, {}, 3.0),
    "infix": ({}, {"infix": ".default"}, 1.5),
    "on_disk_prefix": ({}, {"prefix": "language_model.model."}, 1.5),
    "in_memory_prefix": ({}, {"prefix": "model.language_model."}, 1.5),
    "no_prefix": ({}, {"prefix": ""}, 1.5),
    "bfloat16": ({}, {"dtype": ml_dtypes.bfloat16}, 1.5),
    "float16": ({}, {"dtype": "f2"}, 1.5),
    "rank_pattern": (
        {"rank_pattern": {"k_proj": 2, "mlp.down_proj": 8}},
        {"rank": by_target(4, k=2, down=8)},
        by_target(6 / 4, k=6 / 2, down=6 / 8),
    ),
    "one_rank_for_all_by_pattern": ({"rank_pattern": {".*_proj": 8}}, {"rank": by_target(8)}, 0.75),
    "rank_pattern_of_a_layer": (
        {"rank_pattern": {"model.layers.3.self_attn.q_proj": 5, "^model.layers.4.mlp.up_proj": 2}},
        {"rank": lambda target, layer: {("q", 3): 5, ("up", 4): 2}.get((target, layer), 4)},
        lambda target, layer: 6 / {("q", 3): 5, ("up", 4): 2}.get((target, layer), 4),
    ),
    "regex_rank_pattern": (
        {"rank_pattern": {r"layers\.[0-2]\.self_attn\.v_proj": 3, ".*up_proj": 1}},
        {"rank": v3_up1},
        lambda target, layer: 6 / v3_up1(target, layer),
    ),
    "ranks_and_rslora": (
        {"use_rslora": True, "rank_pattern": {"o_proj": 9}},
        {"rank": by_target(4, o=9)},
        by_target(6 / 2, o=6 / 3),
    ),
    "alpha_pattern": (
        {"alpha_pattern": {"q_proj": 10, "gate_proj": 0.5}},
        {},
        by_target(6 / 4, q=10 / 4, gate=0.5 / 4),
    ),
    "first_alpha_pattern_counts": (
        {"alpha_pattern": {"layers.0.self_attn.q_proj": 1, "q_proj": 2}},
        {},
        lambda target, layer: (6 if target != "q" else 1 if layer == 0 else 2) / 4,
    ),
    "end_of_a_name_is_no_match": ({"alpha_pattern": {"proj": 1, "layers.0": 2}}, {}, 1.5),
    "regex_alpha_pattern": (
        {"alpha_pattern": {"^model.layers.5.mlp.down_proj": 3, "(k|v)_proj": 12}},
        {},
        lambda t, layer: (3 if (t, layer) == ("down", 5) else 12 if t in "kv" else 6) / 4,
    ),
    "one_alpha_for_all_by_pattern": ({"alpha_pattern": {".*": 10}}, {}, 2.5),
    "both_patterns": (
        {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"k_proj": 3}},  # the common scale again
        {"rank": by_target(4, k=2)},
        1.5,
    ),
    "some_targets": ({}, {"slots": only("q", "v")}, 1.5),
    "some_layers": ({"layers_to_transform": [1, 4]}, {"slots": only(*SHAPES, layers=[1, 4])}, 1.5),
    "one_layer": ({"layers_to_transform": 3}, {"slots": only("down", layers=[3])}, 1.5),
    "layer_0": ({"layers_to_transform": 0}, {"slots": only("down", layers=[0])}, 1.5),
    "empty_list_of_layers": ({"layers_to_transform": []}, {}, 1.5),
    "regex_of_targets": (
        {"target_modules": r"model\.layers\.[34]\.self_attn\.(q|v)_proj"},
        {"slots": only("q", "v", layers=[3, 4])},
        1.5,
    ),
    "all_linear": ({"target_modules": "all-linear"}, {}, 1.5),
    "qualified_targets": (
        {"target_modules": ["self_attn.q_proj", "model.layers.2.mlp.up_proj", "1.mlp.up_proj"]},
        {"slots": [*only("q"), ("up", 2), ("up", 1)]},
        1.5,
    ),
    "targets_that_match_nothing": (
        {"target_modules": ["q_proj", "out_proj", "proj"]},
        {"slots": only("q")},
        1.5,
    ),
    "exclude_modules": (
        {"target_modules": ["q_proj"], "exclude_modules": ["layers.6.self_attn.q_proj"]},
        {"slots": only("q", layers=range(6))},
        1.5,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_adapters(case, tmp_path):
    config, got, scale = CASES[case]
    factors, scale = draw(**got), scale if callable(scale) else by_target(scale)
    naming = {name: got[name] for name in ("prefix", "infix") if name in got}
    lora, adapter = peft.load(write(tmp_path, {**PLAIN, **config}, factors), TINY3, None)
    assert_merges_alike(lora, adapter, factors, scale, **naming)
    assert set(lora.names) == {target for target, _ in got.get("slots", SLOTS)}
    stored = got.get("dtype", "f4")
    assert {x.dtype for x in jax.tree.leaves(adapter)} == {
        np.dtype("f4" if stored == "f2" else stored)
    }


def test_factors_of_different_dtypes_are_not_rounded(tmp_path):
    factors = {
        name: x.astype(ml_dtypes.bfloat16) if "lora_A" in name else x for name, x in draw().items()
    }
    lora, adapter = peft.load(write(tmp_path, PLAIN, factors), TINY3, None)
    assert_merges_alike(lora, adapter, factors, by_target(1.5))


def test_adapters_of_the_vision_tower_are_passed_over(tmp_path):
    tower = "base_model.model.model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
    vision = {f"{tower}.lora_{x}.weight": np.ones((4, 4), np.float32) for x in "AB"}
    lora, adapter = peft.load(write(tmp_path, PLAIN, draw() | vision), TINY3, None)
    assert_merges_alike(lora, adapter, draw(), by_target(1.5))


def test_merged_model(tmp_path):
    """From the directories to merged parameters; what has no adapter stays bit for bit."""
    config = {**PLAIN, "use_rslora": True, "alpha_pattern": {"o_proj": 5}}
    factors = draw(only("q", "o", "down"))
    params = tiny_params("gemma3")
    base = save_hf(Policy(config=TINY3, params=params), tmp_path / "base")
    model = load_model(base, adapter=write(tmp_path / "adapter", config, factors))
    assert_trees_equal(model.base().params, params)
    merged = model.merged().params
    expected = merged_by_hand(factors, by_target(6 / 2, o=5 / 2))
    for (target, layer), matrix in expected.items():
        part, leaf = TARGETS[target]
        found = np.asarray(merged["layers"][part][leaf]["w"][layer])
        np.testing.assert_allclose(found, matrix, rtol=1e-5, atol=1e-5, err_msg=(target, layer))
    for part, leaves in params["layers"].items():
        for leaf, x in leaves.items():
            if (part, leaf) not in {TARGETS[target] for target in ("q", "o", "down")}:
                assert_trees_equal(merged["layers"][part][leaf], x)


def refusal(folder):
    """The error of loading an adapter: one line that names its directory or a file of it."""
    with pytest.raises(CheckpointError) as caught:
        peft.load(folder, TINY3, None)
    message = str(caught.value)
    assert message.startswith(str(folder)) and len(message.splitlines()) == 1
    return message.removeprefix(str(folder))


BAD_CONFIGS = (
    ({"use_dora": True}, "use_dora=True: only False is supported"),
    ({"bias": "all"}, "bias='all': only 'none' is supported"),
    ({"bias": "lora_only"}, "bias='lora_only': only 'none'"),
    ({"lora_bias": True}, "lora_bias=True: only False"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save=['lm_head']: only None"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa': only True"),
    ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4': only True"),
    ({"init_lora_weights": "olora"}, "init_lora_weights='olora': only True"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights='loftq': only True"),
    ({"peft_type": "LOHA"}, "peft_type='LOHA': only 'LORA'"),
    ({"peft_type": None}, "peft_type=None: only 'LORA'"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out=True: only False"),
    ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication=[[0, 4], [2, 5]]: only None"),
    ({"target_parameters": ["up_proj"]}, "target_parameters=['up_proj']: only None"),
    ({"trainable_token_indices": [1, 2]}, "trainable_token_indices=[1, 2]: only None"),
    ({"use_qalora": True}, "use_qalora=True: only False"),
    ({"kasa_config": {}}, "kasa_config={}: only None"),
    ({"r": None}, "r=None: expected a positive number"),
    ({"r": True}, "r=True: expected a positive number"),
    ({"r": "4"}, "r='4': expected a positive number"),
    ({"r": -4}, "r=-4: expected a positive number"),
    ({"lora_alpha": 0}, "lora_alpha=0: expected a positive number"),
    ({"lora_alpha": math.nan}, "lora_alpha=nan: expected a positive number"),
    ({"lora_alpha": math.inf}, "lora_alpha=inf: expected a positive number"),
    ({"rank_pattern": {"k_proj": -2}}, "rank_pattern: k_proj=-2: expected a positive number"),
    ({"alpha_pattern": {"k_proj": "x"}}, "alpha_pattern: k_proj='x': expected a positive number"),
    ({"alpha_pattern": ["k_proj"]}, "alpha_pattern: expected an object"),
    # Regexes that may never come to an end, or are none.
    ({"alpha_pattern": {"(a+)+$": 1}}, "alpha_pattern '(a+)+$': not a plain regex"),
    ({"rank_pattern": {"(a+)+$": 1}}, "rank_pattern '(a+)+$': not a plain regex"),
    ({"alpha_pattern": {"((.+))+x": 1}}, "alpha_pattern '((.+))+x': not a plain regex"),
    ({"alpha_pattern": {"(.|.)*x": 1}}, "alpha_pattern '(.|.)*x': not a plain regex"),
    ({"alpha_pattern": {"(.|.){99}x": 1}}, "alpha_pattern '(.|.){99}x': not a plain regex"),
    ({"alpha_pattern": {".*" * 14 + "x": 1}}, "alpha_pattern '.*.*.*.*.*.*....*.*.*.*.*.*x': not"),
    ({"alpha_pattern": {"a{9999999999}": 1}}, "alpha_pattern 'a{9999999999}': not a plain regex"),
    ({"alpha_pattern": {"(": 1}}, "alpha_pattern '(': not a plain regex"),
    # Modules that are listed and not there, or there and not listed.
    ({"target_modules": ["q_proj"]}, "layers.0.self_attn.k_proj is no target but has tensors"),
    ({"target_modules": []}, "layers.0.self_attn.q_proj is no target but has tensors"),
    ({"layers_to_transform": [0, 1]}, "layers.2.self_attn.q_proj is no target but has tensors"),
    ({"layers_to_transform": "0"}, "target_modules, layers_to_transform: expected lists"),
    ({"target_modules": {"q_proj": 1}}, "target_modules, layers_to_transform: expected lists"),
)


@pytest.mark.parametrize(
    ("changes", "expected"), BAD_CONFIGS, ids=[expected for _, expected in BAD_CONFIGS]
)
def test_bad_configs(changes, expected, tmp_path):
    write(tmp_path, {**PLAIN, **changes}, draw())
    assert refusal(tmp_path).startswith(f"/{CONFIG}: {expected}")


A, B = tensor("k", 2, "A"), tensor("k", 2, "B")
AGAIN, OTHER = (tensor("k", 2, "A", infix=infix) for infix in (".default", ".other"))
DEEP, DEEPEST = (tensor("k", layer, "A") for layer in (7, "9" * 5000))
MAGNITUDE = A.replace("lora_A", "lora_magnitude_vector")
EMBEDDING = "base_model.model.model.embed_tokens.lora_embedding_A"
FOREIGN = "base_model.model.model.layers.0.mlp.fc1.lora_A.weight"
# Tensors put in (or out, where None) -> the error.
BAD_TENSORS = (
    ({A: None}, f"/{WEIGHTS}: tensor {B} has no partner lora_A or lora_B"),
    ({B: None}, f"/{WEIGHTS}: tensor {A} has no partner lora_A or lora_B"),
    ({A: None, B: None}, f"/{CONFIG}: layers.2.self_attn.k_proj is a target without tensors"),
    ({A: (4, 49)}, f"/{WEIGHTS}: tensor {A} has shape [4, 49], but the model makes it [4, 48]"),
    ({A: (48, 4)}, f"/{WEIGHTS}: tensor {A} has shape [48, 4], but the model makes it [48, 48]"),
    ({A: (4, 48, 1)}, f"/{WEIGHTS}: tensor {A} has shape [4, 48, 1], but the model makes it [4,"),
    ({A: ()}, f"/{WEIGHTS}: tensor {A} has shape [], but the model makes it [0, 48]"),
    ({A: (0, 48), B: (32, 0)}, f"/{WEIGHTS}: tensor {A} has shape [0, 48]"),
    ({B: (32, 3)}, f"/{WEIGHTS}: tensor {B} has shape [32, 3], but the model makes it [32, 4]"),
    ({B: (64, 4)}, f"/{WEIGHTS}: tensor {B} has shape [64, 4], but the model makes it [32, 4]"),
    ({A: (3, 48), B: (32, 3)}, f"/{WEIGHTS}: tensor {A} has rank 3, {CONFIG} says 4"),
    ({A: np.full((4, 48), np.nan, "f")}, f"/{WEIGHTS}: tensor {A} is not finite at (0, 0)"),
    ({B: np.full((32, 4), np.inf, "f")}, f"/{WEIGHTS}: tensor {B} is not finite at (0, 0)"),
    (
        {A: np.ones((4, 48), "f8")},
        f"/{WEIGHTS}: tensor {A} has dtype F64, expected float32, float16",
    ),
    (
        {B: np.ones((32, 4), "i4")},
        f"/{WEIGHTS}: tensor {B} has dtype I32, expected float32, float16",
    ),
    ({DEEP: (4, 48)}, f"/{WEIGHTS}: tensor {DEEP}, but the model has 7 layers"),
    ({DEEPEST: (4, 48)}, f"/{WEIGHTS}: tensor {DEEPEST} adapts nothing of Gemma's layers"),
    ({AGAIN: (4, 48)}, f"/{WEIGHTS}: tensors {AGAIN} and {A} adapt the same module"),
    ({OTHER: (4, 48)}, f"/{WEIGHTS}: tensor {OTHER} adapts nothing of Gemma's layers"),
    ({EMBEDDING: (4, 96)}, f"/{WEIGHTS}: tensor {EMBEDDING} adapts nothing of Gemma's layers"),
    ({FOREIGN: (4, 48)}, f"/{WEIGHTS}: tensor {FOREIGN} adapts nothing of Gemma's layers"),
    ({"a\nb": (4, 48)}, f"/{WEIGHTS}: tensor a b adapts nothing of Gemma's layers"),
    ({MAGNITUDE: (32,)}, f"/{WEIGHTS}: tensor {MAGNITUDE} adapts nothing of Gemma's layers"),
)


@pytest.mark.parametrize(
    ("changes", "expected"), BAD_TENSORS, ids=[expected[:150] for _, expected in BAD_TENSORS]
)
def test_bad_tensors(changes, expected, tmp_path):
    factors = draw()
    for name, new in changes.items():
        factors.pop(name, None)
        if new is not None:
            factors[name] = np.ones(new, "f") if isinstance(new, tuple) else new
    listed = {
        "target_modules": [module for module, *_ in SHAPES.values()],
        "layers_to_transform": list(LAYERS),
    }
    write(tmp_path, {**PLAIN, **listed}, factors)
    assert refusal(tmp_path).startswith(expected)


def test_bad_directories(tmp_path, monkeypatch):
    monkeypatch.setattr("pickle.load", lambda *_: pytest.fail("a pickle was opened"))
    assert refusal(tmp_path) == f": has no {WEIGHTS}"
    (tmp_path / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert refusal(tmp_path) == (
        "/adapter_model.bin: .bin weights are never opened; convert them to safetensors"
    )
    write(tmp_path, PLAIN, draw())
    peft.load(tmp_path, TINY3, None)  # whole, whatever lies beside it
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:-1])
    assert refusal(tmp_path).startswith(f"/{WEIGHTS}: not a whole safetensors file")
    write(tmp_path, PLAIN, {})
    assert refusal(tmp_path) == f"/{WEIGHTS}: holds no adapter"
    (tmp_path / CONFIG).write_text("[]")
    assert refusal(tmp_path) == f"/{CONFIG}: expected a JSON object, found list"
    (tmp_path / CONFIG).unlink()
    assert refusal(tmp_path) == f"/{CONFIG}: no such file"


def random_adapter(lora, family, dtype):
    """An adapter whose b is not zero."""
    shapes = jax.eval_shape(
        lambda: init_adapter(lora, param_shapes(TINY[family]), jax.random.key(0), dtype)
    )
    random = np.random.RandomState(1)
    return jax.tree.map(lambda x: random.standard_normal(x.shape).astype(x.dtype), shapes)


@pytest.mark.parametrize(
    ("family", "lora", "dtype"),
    [
        ("gemma3", LoraConfig(rank=4, alpha=8), "float32"),
        ("gemma3", LoraConfig(rank=3, alpha=0.1, rslora=True), "float32"),
        ("gemma3", LoraConfig(rank=7, alpha=2 / 3, targets="q|v"), "bfloat16"),
        ("gemma2", LoraConfig(rank=1, alpha=12.5, targets="o|down", rslora=True), "float32"),
        ("gemma2", LoraConfig(rank=200, alpha=1), "bfloat16"),
    ],
)
def test_saved_adapters_come_back(family, lora, dtype, tmp_path):
    config, adapter = TINY[family], random_adapter(lora, family, dtype)
    model = Policy(config=config, params=tiny_params(family), lora=lora, adapter=adapter)
    folder = save_adapter(model, tmp_path / "adapter", base="owner/name")
    back, weights = peft.load(folder, config, None)
    assert_trees_equal(weights, adapter)
    assert dataclasses.replace(back, targets=lora.targets) == lora and back.names == lora.names
    data = json.loads((folder / CONFIG).read_text())
    got = [data[n] for n in ("r", "lora_alpha", "use_rslora", "base_model_name_or_path")]
    assert got == [lora.rank, lora.alpha, lora.rslora, "owner/name"]
    with pytest.raises(CheckpointError, match="exists and is not an empty directory"):
        save_adapter(model, folder)
    with pytest.raises(CheckpointError, match="no adapter to save"):
        save_adapter(model.base(), tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]
