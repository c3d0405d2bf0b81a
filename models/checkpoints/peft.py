"""PEFT adapters: adapter_config.json and adapter_model.safetensors, in and out.

PEFT may give each module a rank and an alpha of its own, and may adapt some layers only. Ours have
one rank and one scale: smaller ranks are padded with zeros (exactly neutral), a module's deviating
scale is multiplied into its b, and layers without an adapter get zeros. A plain adapter comes in,
and goes out, bit for bit.
"""

import pathlib
import re
import reprlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from models.checkpoints.files import (
    CheckpointError,
    TensorInfo,
    read_header,
    read_json,
    read_tensor,
    refuse_pickle,
    whole_directory,
    widest,
    write_json,
    write_tensors,
)
from models.checkpoints.layout import Slot, build, sizes, their_shape, to_ours, to_theirs
from models.config import GemmaConfig
from models.gemma import param_shapes
from models.lora import TARGETS, LoraConfig, init_adapter

Params = Any
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODULES = {  # our target -> (their module, pattern of A, pattern of B)
    "q": ("self_attn.q_proj", "R D -> D R", "(N H) R -> R N H"),
    "k": ("self_attn.k_proj", "R D -> D R", "(K H) R -> R K H"),
    "v": ("self_attn.v_proj", "R D -> D R", "(K H) R -> R K H"),
    "o": ("self_attn.o_proj", "R (N H) -> N H R", "D R -> R D"),
    "gate": ("mlp.gate_proj", "R D -> D R", "F R -> R F"),
    "up": ("mlp.up_proj", "R D -> D R", "F R -> R F"),
    "down": ("mlp.down_proj", "R F -> F R", "D R -> R D"),
}
NAME = re.compile(
    r"base_model\.model\.(?:model\.|language_model\.model\.|model\.language_model\.)?"
    r"layers\.(\d{1,4})\.((?:self_attn|mlp)\.\w+)\.lora_([AB])(?:\.default)?\.weight"
)
# Adapters of the vision tower do not touch text.
PASSED_OVER = re.compile(
    r"base_model\.model\.(?:model\.)?(?:vision_tower|multi_modal_projector)\..*"
)
MUST_BE = {  # what would need other code
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_rslora": (False, True, None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "lora_bias": (False, None),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "init_lora_weights": (
        True,
        False,
        None,
        "gaussian",
        "orthogonal",
    ),  # some others change the base
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
}
Factors = dict[Slot, dict[str, TensorInfo]]  # (target, layer) -> A, B


def load(
    directory: pathlib.Path, config: GemmaConfig, mesh: Mesh | None
) -> tuple[LoraConfig, Params]:
    """The adapter of a directory for this architecture, in the dtype it is stored in."""
    weights, where = directory / WEIGHTS, str(directory / CONFIG)
    if not weights.is_file():
        for file in sorted(directory.glob("adapter_model.*")):
            refuse_pickle(file)
        raise CheckpointError(f"{directory}: has no {WEIGHTS}")
    data = read_json(directory / CONFIG)
    for name, allowed in MUST_BE.items():
        if data.get(name) not in allowed:
            raise CheckpointError(
                f"{where}: {name}={reprlib.repr(data.get(name))}: only {allowed[0]!r} is supported"
            )
    factors = _factors(weights, config)
    _check_coverage(where, data, factors, config)
    scales = {key: _scale(where, data, ab) for key, ab in factors.items()}
    lora = _common(where, data, factors, set(scales.values()))
    deviates = set(scales.values()) != {lora.scale}
    stored = widest(info for pair in factors.values() for info in pair.values())
    dtype = np.dtype(np.float32) if deviates else stored
    size = {**sizes(config), "R": lora.rank}

    def read(leaf: str, layer: int | None) -> np.ndarray:
        _, target, factor = leaf.split("/")
        pattern = MODULES[target][1 if factor == "a" else 2]
        padded = np.zeros(their_shape(pattern, size), dtype)
        if (target, layer) in factors:
            values = read_tensor(factors[target, layer][factor.upper()]).astype(dtype)
            if factor == "b" and deviates:
                values *= scales[target, layer] / lora.scale
            padded[tuple(slice(n) for n in values.shape)] = values
        return to_ours(padded, pattern, size)

    def shapes() -> Params:
        return init_adapter(lora, param_shapes(config), jax.random.key(0), dtype)

    return lora, build(jax.eval_shape(shapes), read, mesh)


def _factors(weights: pathlib.Path, config: GemmaConfig) -> Factors:
    """The file's A and B by module, each pair whole and of shapes that fit the model."""
    target_of = {module: target for target, (module, *_) in MODULES.items()}
    factors: Factors = {}
    for info in read_header(weights):
        if PASSED_OVER.fullmatch(info.name):
            continue
        match = NAME.fullmatch(info.name)
        if match is None or match[2] not in target_of:
            raise CheckpointError(f"{weights}: tensor {info.name} adapts nothing of Gemma's layers")
        if int(match[1]) >= config.num_layers:
            raise CheckpointError(
                f"{weights}: tensor {info.name}, but the model has {config.num_layers} layers"
            )
        pair = factors.setdefault((target_of[match[2]], int(match[1])), {})
        if match[3] in pair:
            raise CheckpointError(
                f"{weights}: tensors {pair[match[3]].name} and {info.name} adapt the same module"
            )
        pair[match[3]] = info
    if not factors:
        raise CheckpointError(f"{weights}: holds no adapter")
    for (target, _), pair in factors.items():
        one, *_ = pair.values()
        if len(pair) != 2:
            raise CheckpointError(f"{weights}: tensor {one.name} has no partner lora_A or lora_B")
        rank = pair["A"].shape[0] if pair["A"].shape else 0
        for factor, pattern in zip("AB", MODULES[target][1:], strict=True):
            info, shape = pair[factor], their_shape(pattern, {**sizes(config), "R": rank})
            if info.shape != shape or rank == 0:
                raise CheckpointError(
                    f"{weights}: tensor {info.name} has shape {list(info.shape)}, "
                    f"but the model makes it {list(shape)}"
                )
    return factors


def _check_coverage(where: str, data: dict, factors: Factors, config: GemmaConfig) -> None:
    """Raises where the config's targets and layers are not those of the tensors."""
    listed, layers = data.get("target_modules"), data.get("layers_to_transform")
    if isinstance(listed, str) or data.get("exclude_modules"):
        return  # a regex or exceptions: what has tensors is what was meant
    if listed is None:
        listed = [MODULES[target][0] for target, _ in factors]
    layers = [layers] if isinstance(layers, int) else layers or list(range(config.num_layers))
    if not isinstance(listed, list) or not isinstance(layers, list):
        raise CheckpointError(f"{where}: target_modules, layers_to_transform: expected lists")
    for layer in range(config.num_layers):
        for target, (module, *_) in MODULES.items():
            path = f"layers.{layer}.{module}"
            # PEFT takes the ends of paths; whole ones carry a prefix that differs between models.
            named = any(
                f".{path}".endswith(f".{n}") or f".{n}".endswith(f".{path}") for n in listed
            )
            asked = named and layer in layers
            if asked != ((target, layer) in factors):
                problem = "a target without tensors" if asked else "no target but has tensors"
                raise CheckpointError(f"{where}: {path} is {problem}")


def _scale(where: str, data: dict, pair: dict[str, TensorInfo]) -> float:
    """What one module's low-rank product is multiplied by, and a check of its rank."""
    module = pair["A"].name.removeprefix("base_model.model.").split(".lora_A")[0]

    def lookup(patterns: str, default: str) -> float:
        table = data.get(patterns) or {}
        if not isinstance(table, dict):
            raise CheckpointError(f"{where}: {patterns}: expected an object")
        for pattern, value in table.items():
            # Groups that repeat, and many repeats, may take for ever to match.
            plain = not re.search(r"\)[*+{]", pattern) and sum(map(pattern.count, "*+{")) <= 4
            try:
                found = plain and re.match(rf"(.*\.)?({pattern})$", module)
            except (re.error, OverflowError, RecursionError):
                plain = False
            if not plain:
                raise CheckpointError(
                    f"{where}: {patterns} {reprlib.repr(pattern)}: not a plain regex"
                )
            if found:
                return _number(f"{where}: {patterns}", {pattern: value}, pattern)
        return _number(where, data, default)

    rank, alpha = lookup("rank_pattern", "r"), lookup("alpha_pattern", "lora_alpha")
    if pair["A"].shape[0] != rank:
        raise CheckpointError(
            f"{pair['A'].file}: tensor {pair['A'].name} has rank {pair['A'].shape[0]}, "
            f"{CONFIG} says {rank}"
        )
    return alpha / (rank**0.5 if data.get("use_rslora") else rank)


def _number(where: str, data: dict, name: str) -> float:
    value = data.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
        raise CheckpointError(f"{where}: {name}={reprlib.repr(value)}: expected a positive number")
    return value


def _common(where: str, data: dict, factors: Factors, scales: set[float]) -> LoraConfig:
    """One rank and scale for all modules: the file's own where they are one already."""
    targets = "|".join(target for target in TARGETS if any(target == t for t, _ in factors))
    rank = max(pair["A"].shape[0] for pair in factors.values())
    alpha, rslora = _number(where, data, "lora_alpha"), bool(data.get("use_rslora"))
    lora = LoraConfig(rank=rank, alpha=alpha, targets=targets, rslora=rslora)
    if scales == {lora.scale}:
        return lora
    return LoraConfig(rank=rank, alpha=rank * max(scales), targets=targets)


def save(
    directory: str | pathlib.Path,
    config: GemmaConfig,
    lora: LoraConfig,
    adapter: Params,
    *,
    base: str | None = None,
) -> pathlib.Path:
    """Writes an adapter directory that `peft` and `load` read; it appears whole or not at all."""
    size, tensors = {**sizes(config), "R": lora.rank}, {}
    for target in lora.names:
        part, name = TARGETS[target]
        for factor, pattern in zip("ab", MODULES[target][1:], strict=True):
            stack = np.asarray(adapter["layers"][part][name][factor])
            for layer, values in enumerate(stack):
                key = f"base_model.model.model.layers.{layer}.{MODULES[target][0]}"
                tensors[f"{key}.lora_{factor.upper()}.weight"] = to_theirs(values, pattern, size)
    alpha = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
    data = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": alpha,
        "use_rslora": lora.rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [MODULES[target][0].split(".")[1] for target in lora.names],
        "inference_mode": True,
    }
    with whole_directory(directory) as tmp:
        write_tensors(tmp / WEIGHTS, tensors)
        write_json(tmp / CONFIG, data)
    return pathlib.Path(directory)
