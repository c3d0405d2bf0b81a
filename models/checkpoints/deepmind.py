"""DeepMind's own checkpoints, Kaggle's "flax" variants: orbax trees of `transformer/layer_0/...`.

Flat two-level trees and nested ones read alike, with or without `transformer/` and the policy
network's prefix in front. `gating_einsum` is (2, F, D), or (2, D, F) in Gemma 2 2b; Gemma 2 carries
128 extra embedding rows. Such a directory has no config: the size is recognised by its shapes, or
given.
"""

import pathlib
import re
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from models.checkpoints.files import CheckpointError, TensorInfo, refuse_nonfinite, widest
from models.checkpoints.layout import Slot, build, compare, expand, sizes, their_shape, to_ours
from models.config import SIZES, GemmaConfig
from models.gemma import param_shapes

Params = Any
MARKS = ("_METADATA", "manifest.ocdbt", "checkpoint")  # files in the tree itself
PASSED_OVER = re.compile(r"SigLiPFromPatches_0/.*|embedder/mm_\w+/.*")  # vision of 4b and larger
FUSED = {"attention/q/w": 0, "attention/k/w": 1, "attention/v/w": 2}  # qkv_einsum, where N = K
PREFIXES = ("rlx_networks/policy_network/", "transformer/")
TOP = {
    "embedder/table": ("embedder/input_embedding", None, "V D -> V D"),
    "final_norm/scale": ("final_norm/scale", None, "D -> D"),
}
LAYER = {  # our leaf -> their key, which slice of it, pattern
    "pre_attention_norm/scale": ("pre_attention_norm/scale", None, "D -> D"),
    "attention/q/w": ("attn/q_einsum/w", None, "N D H -> D N H"),
    "attention/k/w": ("attn/kv_einsum/w", 0, "K D H -> D K H"),
    "attention/v/w": ("attn/kv_einsum/w", 1, "K D H -> D K H"),
    "attention/o/w": ("attn/attn_vec_einsum/w", None, "N H D -> N H D"),
    "attention/q_norm/scale": ("attn/_query_norm/scale", None, "H -> H"),
    "attention/k_norm/scale": ("attn/_key_norm/scale", None, "H -> H"),
    "post_attention_norm/scale": ("post_attention_norm/scale", None, "D -> D"),
    "pre_ffw_norm/scale": ("pre_ffw_norm/scale", None, "D -> D"),
    "mlp/gate/w": ("mlp/gating_einsum/w", 0, "F D -> D F"),
    "mlp/up/w": ("mlp/gating_einsum/w", 1, "F D -> D F"),
    "mlp/down/w": ("mlp/linear/w", None, "F D -> F D"),
    "post_ffw_norm/scale": ("post_ffw_norm/scale", None, "D -> D"),
}


def find(directory: pathlib.Path) -> pathlib.Path | None:
    """The orbax tree of a directory: itself, or the only one below it."""
    if any((directory / mark).is_file() for mark in MARKS):
        return directory
    children = (child for child in sorted(directory.iterdir()) if child.is_dir())
    trees = [tree for child in children if (tree := find(child))]
    return trees[0] if len(trees) == 1 else None


class Tree:
    """An orbax tree's arrays by normalised name: shapes at once, values one at a time."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        try:
            metadata: Any = self.checkpointer.metadata(directory.resolve())
            tree = metadata.item_metadata.tree
        except Exception as error:  # orbax raises what its many readers raise
            raise CheckpointError(
                f"{directory}: not a readable orbax checkpoint ({_line(error)})"
            ) from None
        self.paths: dict[str, list] = {}
        self.infos: dict[str, TensorInfo] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = "/".join(str(key.key) for key in path)
            for prefix in PREFIXES:
                name = name.removeprefix(prefix)
            if PASSED_OVER.fullmatch(name):
                continue
            if "stacked_layers/" in name:
                raise CheckpointError(f"{directory}: stacked layers are not read; save them apart")
            if name.endswith(("mlp/gating_einsum", "mlp/linear")):  # as in DeepMind's memory
                name += "/w"
            self.paths[name] = [key.key for key in path]
            self.infos[name] = TensorInfo(directory, name, tuple(leaf.shape), str(leaf.dtype))

    def read(self, name: str) -> np.ndarray:
        """One array, all of it finite."""
        item: Any = 0
        for key in reversed(self.paths[name]):
            item = {key: item}
        restore = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=restore, partial_restore=True)
        try:
            values = self.checkpointer.restore(self.directory.resolve(), args=args)
        except Exception as error:
            raise CheckpointError(
                f"{self.directory}: cannot read {name} ({_line(error)})"
            ) from None
        values = np.asarray(jax.tree.leaves(values)[0])
        refuse_nonfinite(values, f"{self.directory}: {name}")
        return values


def open_tree(directory: pathlib.Path) -> Tree:
    """The tree of a directory that `find` recognises."""
    found = find(directory)
    if found is None:
        raise CheckpointError(f"{directory}: has neither a config.json nor an orbax tree")
    return Tree(found)


def _line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def read_config(directory: pathlib.Path) -> GemmaConfig:
    """The published size whose shapes a directory has."""
    return recognise(open_tree(directory))


def recognise(tree: Tree) -> GemmaConfig:
    """The published size whose shapes these are."""
    for config in SIZES.values():
        try:
            _check(tree, config)
        except CheckpointError:
            continue
        return config
    table = tree.infos.get(TOP["embedder/table"][0])
    raise CheckpointError(
        f"{tree.directory}: no published size has these shapes "
        f"(embedding {list(table.shape) if table else 'absent'}); pass config="
    )


def load(
    directory: pathlib.Path, config: GemmaConfig, dtype: Any | None, mesh: Mesh | None
) -> Params:
    """The parameters of a directory, in `dtype` or the widest one stored."""
    tree = open_tree(directory)
    names, size = _check(tree, config), sizes(config)

    def read(leaf: str, layer: int | None) -> np.ndarray:
        name, part, pattern = names[leaf, layer]
        values = tree.read(name)
        if leaf == "embedder/table":
            values = values[: config.vocab_size]
        return to_ours(values if part is None else values[part], pattern, size)

    return build(param_shapes(config, dtype or widest(tree.infos.values())), read, mesh)


def _check(tree: Tree, config: GemmaConfig) -> dict[Slot, tuple[str, int | None, str]]:
    """(leaf, layer) -> (name, slice, pattern); raises on missing, extra and misshapen arrays."""
    size, names, expected = sizes(config), {}, {}
    for (leaf, i), (name, part, pattern) in expand(config, TOP, LAYER).items():
        name = name if i is None else f"layer_{i}/{name}"
        lead = () if part is None else (2,)
        fused = f"layer_{i}/attn/qkv_einsum/w"
        if leaf in FUSED and fused in tree.infos:
            name, part, lead, pattern = fused, FUSED[leaf], (3,), "N D H -> D N H"
        transposed = (2, config.width, config.ffn_width)
        if part is not None and name in tree.infos and tree.infos[name].shape == transposed:
            pattern = "D F -> D F"
        names[leaf, i] = (name, part, pattern)
        expected[name] = (*lead, *their_shape(pattern, size))
    compare(tree.directory, tree.infos, expected, TOP["embedder/table"][0])
    return names
