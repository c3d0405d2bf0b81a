"""DeepMind's orbax layout, written here as their code names it and read back."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from models import load_model
from models.checkpoints import deepmind
from models.checkpoints.files import CheckpointError, TensorInfo
from models.config import SIZES
from models.gemma import param_shapes
from models.tokenizer import train_tokenizer
from tests.helpers import TINY, TINY3, assert_trees_equal, tiny_params


def theirs(family: str, dtype="float32", transposed_gating=False, extra_rows=0) -> dict:
    """Our tiny parameters as a flat two-level tree of DeepMind's names, by loops over layers."""
    params = jax.tree.map(np.asarray, tiny_params(family, dtype))
    table = params["embedder"]["table"]
    tree = {
        "transformer/embedder": {
            "input_embedding": np.concatenate([table, np.ones_like(table)[:extra_rows]])
        },
        "transformer/final_norm": {"scale": params["final_norm"]["scale"]},
    }
    layers = params["layers"]
    for i in range(TINY[family].num_layers):
        attention, mlp = layers["attention"], layers["mlp"]
        gating = np.stack([mlp["gate"]["w"][i], mlp["up"]["w"][i]])  # (2, D, F)
        own = {
            "attn/q_einsum": {"w": np.moveaxis(attention["q"]["w"][i], 1, 0)},
            "attn/kv_einsum": {
                "w": np.stack([np.moveaxis(attention[x]["w"][i], 1, 0) for x in "kv"])
            },
            "attn/attn_vec_einsum": {"w": attention["o"]["w"][i]},
            "mlp/gating_einsum": {"w": gating if transposed_gating else gating.swapaxes(1, 2)},
            "mlp/linear": {"w": mlp["down"]["w"][i]},
        }
        for norm in ("pre_attention", "post_attention", "pre_ffw", "post_ffw"):
            own[f"{norm}_norm"] = {"scale": layers[f"{norm}_norm"]["scale"][i]}
        if family == "gemma3":
            own["attn/_query_norm"] = {"scale": attention["q_norm"]["scale"][i]}
            own["attn/_key_norm"] = {"scale": attention["k_norm"]["scale"][i]}
        tree |= {f"transformer/layer_{i}/{name}": leaf for name, leaf in own.items()}
    return tree


def write(folder, tree, **options):
    ocp.PyTreeCheckpointer(**options).save(folder / "tree", tree)
    return folder


@pytest.mark.parametrize("use_ocdbt", [True, False])
@pytest.mark.parametrize("family", TINY)
def test_flat_trees(tmp_path, family, use_ocdbt):
    write(tmp_path, theirs(family), use_ocdbt=use_ocdbt)
    model = load_model(tmp_path, config=TINY[family])
    assert_trees_equal(model.params, tiny_params(family))


def test_transposed_gating_extra_rows_and_bfloat16(tmp_path):
    write(tmp_path, theirs("gemma2", "bfloat16", transposed_gating=True, extra_rows=40))
    model = load_model(tmp_path / "tree", config=TINY["gemma2"])
    assert_trees_equal(model.params, tiny_params("gemma2", "bfloat16"))
    wide = load_model(tmp_path, config=TINY["gemma2"], dtype="float32")
    assert wide.params["embedder"]["table"].dtype == jnp.float32


def test_nested_trees_and_prefixes(tmp_path):
    nested: dict = {}
    for path, leaf in theirs("gemma3").items():
        node = nested.setdefault("rlx_networks/policy_network", {})
        for part in path.split("/"):
            node = node.setdefault(part, {})
        # in DeepMind's memory the MLP's arrays have no "w" of their own
        if path.endswith(("gating_einsum", "linear")):
            parent, name = path.rsplit("/", 1)
            node = nested["rlx_networks/policy_network"]
            for part in parent.split("/"):
                node = node[part]
            node[name] = leaf["w"]
        else:
            node.update(leaf)
    write(tmp_path, nested)
    assert_trees_equal(load_model(tmp_path, config=TINY3).params, tiny_params("gemma3"))


def test_vision_is_passed_over(tmp_path):
    vision = {
        "SigLiPFromPatches_0/siglip_encoder/pos_embedding": {"w": np.ones((2, 3), np.int32)},
        "transformer/embedder/mm_input_projection": {"w": np.ones((3, 48), np.float32)},
    }
    write(tmp_path, theirs("gemma3") | vision)
    assert_trees_equal(load_model(tmp_path, config=TINY3).params, tiny_params("gemma3"))


def test_as_many_kv_heads_as_heads_are_one_fused_array(tmp_path):
    config = dataclasses.replace(TINY3, num_heads=2, num_kv_heads=2)
    tree, random = theirs("gemma3"), np.random.RandomState(1)
    drawn = random.standard_normal((7, 3, 2, 48, 16)).astype(np.float32)
    for i in range(7):
        del tree[f"transformer/layer_{i}/attn/q_einsum"]
        del tree[f"transformer/layer_{i}/attn/kv_einsum"]
        tree[f"transformer/layer_{i}/attn/qkv_einsum"] = {"w": drawn[i]}
        vec = tree[f"transformer/layer_{i}/attn/attn_vec_einsum"]
        vec["w"] = vec["w"][:2]
    attention = load_model(write(tmp_path, tree), config=config).params["layers"]["attention"]
    for part, name in enumerate("qkv"):
        got = np.asarray(attention[name]["w"])
        np.testing.assert_array_equal(got, drawn[:, part].transpose(0, 2, 1, 3))


def test_stacked_layers_are_refused_by_name(tmp_path):
    tree = {"transformer/stacked_layers/attention_type_0/mlp/linear": {"w": np.ones((2, 3))}}
    with pytest.raises(CheckpointError, match="stacked layers are not read"):
        load_model(write(tmp_path, tree), config=TINY3)


def test_the_tree_is_found_wherever_it_lies(tmp_path):
    deep = tmp_path / "run" / "checkpoint" / "7"
    with ocp.CheckpointManager(deep.parent) as manager:
        manager.save(7, args=ocp.args.PyTreeSave(theirs("gemma3")))
    for folder in (tmp_path, deep.parent, deep):
        assert deepmind.find(folder) == deep / "default"
    assert_trees_equal(load_model(tmp_path, config=TINY3).params, tiny_params("gemma3"))
    write(tmp_path, theirs("gemma3"))  # a second tree: which one is meant?
    assert deepmind.find(tmp_path) is None


def test_the_tokenizer_may_lie_beside_or_above(tmp_path):
    write(tmp_path, theirs("gemma3"))
    proto = train_tokenizer(["a b c"] * 3, 400)
    (tmp_path / "tokenizer.model").write_bytes(proto)
    for path in (tmp_path, tmp_path / "tree"):
        with pytest.raises(CheckpointError, match=r"pieces, the embedding 96 rows"):
            load_model(path, config=TINY3)


class Shapes(deepmind.Tree):
    """A stand-in for an orbax tree: the shapes of a published size without its arrays."""

    def __init__(self, size, rows):
        self.directory = pathlib.Path("kaggle")
        config = SIZES[size]
        leaves = {
            name: x.shape
            for name, x in flat(param_shapes(config)).items()
            if name.startswith("lay")
        }
        d, f, h = config.width, config.ffn_width, config.head_dim
        n, k = config.num_heads, config.num_kv_heads
        shapes = {"embedder/input_embedding": (rows, d), "final_norm/scale": (d,)}
        for i in range(config.num_layers):
            own = {
                "attn/q_einsum/w": (n, d, h),
                "attn/kv_einsum/w": (2, k, d, h),
                "attn/attn_vec_einsum/w": (n, h, d),
                "mlp/gating_einsum/w": (2, d, f) if size == "gemma2_2b" else (2, f, d),
                "mlp/linear/w": (f, d),
                **{f"{x}_norm/scale": (d,) for x in ("pre_attention", "post_attention")},
                **{f"{x}_norm/scale": (d,) for x in ("pre_ffw", "post_ffw")},
            }
            if "layers/attention/q_norm/scale" in leaves:
                own |= {"attn/_query_norm/scale": (h,), "attn/_key_norm/scale": (h,)}
            shapes |= {f"layer_{i}/{name}": shape for name, shape in own.items()}
        self.infos = {
            n: TensorInfo(self.directory, n, shape, "bfloat16") for n, shape in shapes.items()
        }


def flat(tree):
    return {
        "/".join(k.key for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_are_recognised(size):
    rows = SIZES[size].vocab_size + (128 if size.startswith("gemma2") else 0)
    assert deepmind.recognise(Shapes(size, rows)) is SIZES[size]


def test_unpublished_sizes_need_a_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"no published size has these shapes.*pass config="):
        load_model(write(tmp_path, theirs("gemma3")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("transformer/layer_3/mlp/linear"), "lacks tensor layer_3/mlp/linear/w"),
        (
            lambda t: t.update({"transformer/layer_9/mlp/linear": {"w": np.ones((2, 2))}}),
            "unexpected tensor layer_9/mlp/linear/w",
        ),
        (
            lambda t: t["transformer/layer_2/attn/q_einsum"].update(w=np.ones((4, 48, 8), "f4")),
            "layer_2/attn/q_einsum/w has shape",
        ),
        (
            lambda t: t["transformer/final_norm"].update(scale=np.full(48, np.nan, np.float32)),
            "final_norm/scale is not finite",
        ),
    ],
)
def test_damaged_trees_are_named(tmp_path, damage, message):
    tree = theirs("gemma3")
    damage(tree)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(write(tmp_path, tree), config=TINY3)
    assert "\n" not in str(caught.value)


def test_broken_files_are_one_line(tmp_path):
    write(tmp_path, theirs("gemma3"))
    for file in (tmp_path / "tree").rglob("*"):
        if file.is_file() and "d" in file.parts[-2:-1]:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="tree") as caught:
        load_model(tmp_path, config=TINY3)
    assert "\n" not in str(caught.value)


def test_config_contradicting_the_tree(tmp_path):
    write(tmp_path, theirs("gemma3"))
    with pytest.raises(CheckpointError, match="unexpected tensor layer_6/"):
        load_model(tmp_path, config=dataclasses.replace(TINY3, num_layers=6, kinds=TINY3.kinds[:6]))
