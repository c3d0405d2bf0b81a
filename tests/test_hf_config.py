"""config.json in every style that the Hub holds, and those that must be refused."""

import dataclasses
import json
import math

import jax
import pytest

from models.checkpoints import hf
from models.checkpoints.files import CheckpointError
from models.checkpoints.hf_config import from_json, to_json
from models.config import GLOBAL, LOCAL, SIZES
from models.gemma import param_shapes
from tests.helpers import TINY, TINY3

# Layers, D, F, N, K, H, vocabulary, window, global layers, s, positions, RoPE factor; then the
# parameters of the embedding and of the rest.
PUBLISHED = {
    "gemma2_2b": (26, 2304, 9216, 8, 4, 256, 256_000, 4096, [*range(1, 26, 2)], 256, 8192, 1,
                  589_824_000, 2_024_517_888),
    "gemma2_9b": (42, 3584, 14_336, 16, 8, 256, 256_000, 4096, [*range(1, 42, 2)], 256, 8192, 1,
                  917_504_000, 8_324_201_984),
    "gemma2_27b": (46, 4608, 36_864, 32, 16, 128, 256_000, 4096, [*range(1, 46, 2)], 144, 8192, 1,
                   1_179_648_000, 26_047_480_320),
    "gemma3_270m": (18, 640, 2048, 4, 1, 256, 262_144, 512, [5, 11, 17], 256, 32_768, 1,
                    167_772_160, 100_326_016),
    "gemma3_1b": (26, 1152, 6912, 4, 1, 256, 262_144, 512, [5, 11, 17, 23], 256, 32_768, 1,
                  301_989_888, 697_896_064),
    "gemma3_4b": (34, 2560, 10_240, 8, 4, 256, 262_144, 1024, [*range(5, 30, 6)], 256, 131_072, 8,
                  671_088_640, 3_209_010_688),
    "gemma3_12b": (48, 3840, 15_360, 16, 8, 256, 262_144, 1024, [*range(5, 48, 6)], 256, 131_072, 8,
                   1_006_632_960, 10_759_155_456),
    "gemma3_27b": (62, 5376, 21_504, 32, 16, 128, 262_144, 1024, [*range(5, 60, 6)], 168, 131_072,
                   8, 1_409_286_144, 25_599_716_096),
}  # fmt: skip
FIELDS = (
    "num_layers",
    "width",
    "ffn_width",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "vocab_size",
    "window",
    "globals",
    "query_scalar",
    "max_positions",
    "global_rope_factor",
)
SHARED = {  # local and global theta, soft-caps of scores and logits
    "gemma2": (1e4, 1e4, 50.0, 30.0),
    "gemma3": (1e4, 1e6, None, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    config, family = SIZES[name], name[:6]
    *values, embedding, rest = PUBLISHED[name]
    got = dict(zip(FIELDS, values, strict=True))
    assert [i for i, kind in enumerate(config.kinds) if kind == GLOBAL] == got.pop("globals")
    assert {field: getattr(config, field) for field in got} == got
    thetas = (config.local_theta, config.global_theta)
    assert (*thetas, config.attention_softcap, config.logit_softcap) == SHARED[family]
    assert (config.family, config.norm_eps) == (family, 1e-6)
    assert config.qk_norm == (family == "gemma3")
    shapes = param_shapes(config)
    table = shapes["embedder"]["table"].size
    assert (table, sum(leaf.size for leaf in jax.tree.leaves(shapes)) - table) == (embedding, rest)


def layer_types(config):
    """The list that transformers writes since 4.53."""
    names = {LOCAL: "sliding_attention", GLOBAL: "full_attention"}
    return [names[kind] for kind in config.kinds]


def sized(name, **more):
    """The fields that have the same names in every style, of a text model."""
    layers, width, ffn, heads, kv_heads, head_dim, vocab, window, _, s, positions, *_ = PUBLISHED[
        name
    ]
    fields = {
        "model_type": {"gemma2": "gemma2", "gemma3": "gemma3_text"}[name[:6]],
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "sliding_window": window,
        "query_pre_attn_scalar": s,
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-06,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
    }
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return {**fields, **(caps if name[:6] == "gemma2" else dict.fromkeys(caps)), **more}


SLIDING = {"rope_type": "default", "rope_theta": 10_000.0}
LINEAR = {"rope_type": "linear", "factor": 8.0}
SPARSE_4B = {  # all that the Hub's 4b says of its text tower
    "hidden_size": 2560,
    "intermediate_size": 10_240,
    "model_type": "gemma3_text",
    "num_hidden_layers": 34,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
STYLES = {
    # 4.50: two flat thetas, scaling and a pattern's length.
    "flat_4b": (
        "gemma3_4b",
        sized(
            "gemma3_4b",
            rope_theta=1_000_000.0,
            rope_local_base_freq=10_000.0,
            rope_scaling={"factor": 8.0, "rope_type": "linear"},
            sliding_window_pattern=6,
        ),
    ),
    "flat_1b": (
        "gemma3_1b",
        sized(
            "gemma3_1b",
            rope_theta=1_000_000,
            rope_local_base_freq=10_000,
            rope_scaling=None,
            sliding_window_pattern=6,
        ),
    ),
    "older_key_of_the_scaling_type": (
        "gemma3_27b",
        sized("gemma3_27b", rope_scaling={"factor": 8, "type": "linear"}),
    ),
    "flat_2b": ("gemma2_2b", sized("gemma2_2b", rope_theta=10_000.0)),
    # 270m: a private pattern beside the list; either is enough.
    "270m": (
        "gemma3_270m",
        sized(
            "gemma3_270m",
            rope_theta=1_000_000.0,
            rope_local_base_freq=10_000.0,
            rope_scaling=None,
            _sliding_window_pattern=6,
            layer_types=layer_types(SIZES["gemma3_270m"]),
        ),
    ),
    "270m_pattern_only": ("gemma3_270m", sized("gemma3_270m", _sliding_window_pattern=6)),
    # Version 5: nested for Gemma 3, flat for Gemma 2.
    "v5_4b": (
        "gemma3_4b",
        sized(
            "gemma3_4b",
            rope_parameters={
                "full_attention": {**LINEAR, "rope_theta": 1_000_000.0},
                "sliding_attention": SLIDING,
            },
            layer_types=layer_types(SIZES["gemma3_4b"]),
            tie_word_embeddings=True,
            use_bidirectional_attention=False,
            dtype="bfloat16",
        ),
    ),
    "v5_1b": (
        "gemma3_1b",
        sized(
            "gemma3_1b",
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
                "sliding_attention": SLIDING,
            },
            layer_types=layer_types(SIZES["gemma3_1b"]),
        ),
    ),
    "v5_2b": (
        "gemma2_2b",
        sized(
            "gemma2_2b",
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            layer_types=layer_types(SIZES["gemma2_2b"]),
        ),
    ),
    # Multimodal: what text_config leaves out is the default of transformers' class.
    "sparse_4b": (
        "gemma3_4b",
        {
            "model_type": "gemma3",
            "mm_tokens_per_image": 256,
            "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152},
            "text_config": SPARSE_4B,
        },
    ),
    "v5_multimodal_12b": (
        "gemma3_12b",
        {
            "model_type": "gemma3",
            "tie_word_embeddings": True,
            "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
            "text_config": sized(
                "gemma3_12b",
                vocab_size=262_208,
                rope_parameters={
                    "full_attention": {**LINEAR, "rope_theta": 1_000_000.0},
                    "sliding_attention": SLIDING,
                },
            ),
        },
    ),
    "padded_vocabulary": ("gemma2_9b", sized("gemma2_9b", vocab_size=256_128)),
    "defaults_of_gemma2": ("gemma2_2b", {"model_type": "gemma2"}),
}


@pytest.mark.parametrize("style", STYLES)
def test_styles(style):
    name, data = STYLES[style]
    assert from_json(data) == SIZES[name]


def test_fields_are_read_and_not_assumed():
    """Each value apart from its default and from every other."""
    data = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 5,
        "sliding_window_pattern": 2,
        "rope_theta": 3e5,
        "rope_local_base_freq": 2e3,
        "rope_scaling": {"rope_type": "linear", "factor": 1.5},
        "final_logit_softcapping": 12.5,
        "rms_norm_eps": 1e-5,
        "query_pre_attn_scalar": 77.5,
        "vocab_size": 1000,
    }
    config = from_json(data)
    assert config.kinds == (LOCAL, GLOBAL, LOCAL, GLOBAL, LOCAL)
    assert (config.global_theta, config.local_theta, config.global_rope_factor) == (3e5, 2e3, 1.5)
    assert (config.attention_softcap, config.logit_softcap) == (None, 12.5)
    assert (config.norm_eps, config.query_scalar, config.vocab_size) == (1e-5, 77.5, 1000)
    nested = {"full_attention": {"rope_theta": 7e5}, "sliding_attention": {"rope_theta": 9e3}}
    config = from_json({**data, "rope_parameters": nested})  # version 5 looks nowhere else
    assert (config.global_theta, config.local_theta, config.global_rope_factor) == (7e5, 9e3, 1)
    config = from_json({"model_type": "gemma2", "rope_theta": 5e4, "sliding_window": 77})
    assert (config.global_theta, config.local_theta, config.window) == (5e4, 5e4, 77)


@pytest.mark.parametrize("name", [*SIZES, *TINY])
def test_written_configs_come_back(name):
    config = {**SIZES, **TINY}[name]
    data = to_json(config, "bfloat16")
    assert from_json(json.loads(json.dumps(data))) == config
    assert data["torch_dtype"] == "bfloat16"
    assert data["layer_types"] == layer_types(config)


@pytest.mark.parametrize("change", [{"local_theta": 9e3}, {"global_rope_factor": 8.0}])
def test_what_config_json_cannot_say_is_not_written(change):
    with pytest.raises(CheckpointError, match="one rope_theta, unscaled"):
        to_json(dataclasses.replace(TINY["gemma2"], **change), "float32")


LOCAL7 = ["sliding_attention"] * 7
V5 = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
MULTIMODAL = {"model_type": "gemma3", "text_config": SPARSE_4B}
# Changes to a good config -> what the error says after the file's name.
BAD = (
    ({"model_type": "llama"}, "model_type='llama': expected one of gemma2"),
    ({"model_type": None}, "model_type=None"),
    ({"model_type": ["gemma2"]}, "model_type=['gemma2']"),
    ({"model_type": "x" * 10**6}, "model_type='xxxxxxxxxxxx...xxxxxxxxxxxxx': expected"),
    # Wrong types and values.
    ({"hidden_size": "48"}, "hidden_size='48': expected a positive whole number"),
    ({"num_hidden_layers": 7.0}, "num_hidden_layers=7.0"),
    ({"num_key_value_heads": True}, "num_key_value_heads=True"),
    ({"query_pre_attn_scalar": True}, "query_pre_attn_scalar=True"),
    ({"head_dim": [16]}, "head_dim=[16]"),
    ({"intermediate_size": -80}, "intermediate_size=-80"),
    ({"vocab_size": 0}, "vocab_size=0"),
    ({"rms_norm_eps": math.nan}, "rms_norm_eps=nan"),
    ({"rope_theta": math.inf}, "rope_theta=inf"),
    ({"sliding_window": None}, "sliding_window=None"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0: expected None"),
    ({"num_attention_heads": 5}, "num_heads=5: not a multiple of num_kv_heads=2"),
    ({"head_dim": 15}, "head_dim=15: RoPE needs an even"),
    # Sizes that would take all memory before any weight is seen.
    (
        {"num_hidden_layers": 10**6},
        "num_hidden_layers=1000000: expected a positive whole number below 1000",
    ),
    ({"layer_types": None, "sliding_window_pattern": 10**11}, "sliding_window_pattern=1000"),
    ({"head_dim": 10**10}, "head_dim=10000000000"),
    ({"sliding_window": 2**32}, "sliding_window=4294967296"),
    # Which layers are local.
    ({"layer_types": LOCAL7[1:]}, "layer_types has 6 entries, num_hidden_layers=7"),
    ({"layer_types": [*LOCAL7[1:], "chunked_attention"]}, "layer_types has 'chunked_attention'"),
    ({"layer_types": [*LOCAL7[1:], ["full_attention"]]}, "layer_types has ['full_attention']"),
    ({"layer_types": "sliding_attention"}, "layer_types='sliding_attention': expected a list"),
    ({"layer_types": None, "sliding_window_pattern": None}, "sliding_window_pattern=None"),
    # RoPE.
    ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "'rope_type': 'yarn'}: expected"),
    ({"rope_scaling": "linear"}, "rope_scaling='linear': expected an object"),
    ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: factor=None"),
    ({"rope_scaling": {"rope_type": "linear", "factor": -8}}, "rope_scaling: factor=-8"),
    ({"rope_parameters": {**V5, "sliding_attention": LINEAR}}, "no scaling of sliding_attention"),
    ({"rope_parameters": {**V5, "full_attention": {"rope_type": "yarn"}}}, "expected rope_type"),
    ({"rope_parameters": {**V5, "full_attention": {"rope_theta": -1}}}, "rope_theta=-1"),
    ({"rope_parameters": {**V5, "sliding_attention": {"rope_theta": None}}}, "rope_theta=None"),
    ({"rope_parameters": {"rope_theta": 1e6}}, "expected full_attention and sliding_attention"),
    ({"rope_parameters": "default"}, "rope_parameters='default': expected an object"),
    ({"model_type": "gemma2"}, "rope scaling 8.0: Gemma 2 has none"),
    (
        {"model_type": "gemma2", "rope_parameters": {**V5, "sliding_attention": LINEAR}},
        "expected no scaling of sliding_attention",
    ),
    # What would need other code.
    ({"tie_word_embeddings": False}, "tie_word_embeddings=False: expected True"),
    ({"attention_bias": True}, "attention_bias=True: expected False"),
    ({"hidden_activation": "gelu"}, "hidden_activation='gelu': expected 'gelu_pytorch_tanh'"),
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ({"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4}: expected None"),
    ({**MULTIMODAL, "quantization_config": {"bits": 4}}, "quantization_config={'bits': 4}"),
    # Multimodal.
    ({"model_type": "gemma3"}, "model_type='gemma3' without a text_config"),
    ({**MULTIMODAL, "text_config": [SPARSE_4B]}, "model_type='gemma3' without a text_config"),
    ({**MULTIMODAL, "text_config": {"head_dim": "x"}}, "text_config: head_dim='x'"),
)
# What is no JSON object at all.
UNREADABLE = {
    "list": (b"[]", "expected a JSON object, found list"),
    "empty": (b"", "not valid JSON"),
    "truncated": (b'{"model_type": "gemma3_te', "not valid JSON"),
    "deep": (b"[" * 10**5, "not valid JSON"),
    "deep_value": (b'{"model_type": ' + b"[" * 500 + b"]" * 500 + b"}", "model_type=[[[[[[[...]"),
    "long_number": (b'{"hidden_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
    "latin1": (b'{"model_type": "\xe9"}', "not valid JSON"),
}


def refusal(folder, content):
    """The error for a directory with this config.json; one short line that names the file."""
    path = folder / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        hf.read_config(folder)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 250
    return message


@pytest.mark.parametrize(("changes", "expected"), BAD, ids=[expected for _, expected in BAD])
def test_bad_configs(changes, expected, tmp_path):
    data = to_json(TINY3, "float32")
    assert from_json(data) == TINY3
    assert expected in refusal(tmp_path, json.dumps({**data, **changes}).encode())


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_configs(case, tmp_path):
    content, expected = UNREADABLE[case]
    assert expected in refusal(tmp_path, content)
