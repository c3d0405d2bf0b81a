"""Hugging Face's config.json <-> GemmaConfig.

Read: the flat style of transformers 4.50 (`rope_theta`, `rope_local_base_freq`, `rope_scaling`,
`sliding_window_pattern`), `layer_types`, the `rope_parameters` of version 5, and the multimodal
models' sparse `text_config`, whose absent fields mean the defaults of transformers' classes.
Written: the flat style with `layer_types` (transformers 4.53 and later). What this code cannot
compute is refused by name.
"""

import reprlib

from models.chat import jinja_template
from models.checkpoints.fields import Fields
from models.checkpoints.files import CheckpointError
from models.config import GLOBAL, LOCAL, GemmaConfig, layer_kinds
from models.tokenizer import Tokenizer

MODEL_TYPES = {"gemma2": "gemma2", "gemma3_text": "gemma3", "gemma3": "gemma3"}
LAYER_TYPES = {"sliding_attention": LOCAL, "full_attention": GLOBAL}
DEFAULTS = {  # of Gemma2Config and Gemma3TextConfig
    "gemma2": {
        "vocab_size": 256_000,
        "max_position_embeddings": 8192,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "rope_theta": 10_000.0,
    },
    "gemma3": {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_theta": 1_000_000.0,
    },
}
COMMON = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "rms_norm_eps": 1e-6,
    "rope_local_base_freq": 10_000.0,
}
MUST_BE = {  # what would need other code
    "attention_bias": (None, False),
    "hidden_activation": (None, "gelu_pytorch_tanh"),
    "tie_word_embeddings": (None, True),
    "use_bidirectional_attention": (None, False),
    "quantization_config": (None,),
}
# The Hub's multimodal models count 64 rows that are no text tokens.
PADDED_VOCAB = {262_208: 262_144, 256_128: 256_000}
MOST_LAYERS = 1000  # lists of this length are made before any weight is seen


def from_json(data: dict, where: str = "config.json") -> GemmaConfig:
    """The architecture that a config.json describes."""
    model_type = data.get("model_type")
    if model_type not in tuple(MODEL_TYPES):  # which, unlike a dict, can be asked about a list
        raise Fields(data, {}, where).fail("model_type", f"one of {', '.join(MODEL_TYPES)}")
    family = MODEL_TYPES[model_type]
    if model_type == "gemma3":
        text = data.get("text_config")
        if not isinstance(text, dict):
            raise CheckpointError(f"{where}: model_type='gemma3' without a text_config")
        data, where = (
            {**{k: data[k] for k in MUST_BE if k in data}, **text},
            f"{where}: text_config",
        )
    fields = Fields(data, {**COMMON, **DEFAULTS[family]}, where)
    for name, allowed in MUST_BE.items():
        if data.get(name) not in allowed:
            raise fields.fail(name, f"{allowed[-1]!r}, the only one supported")
    if family == "gemma3" and data.get("attn_logit_softcapping") is not None:
        raise fields.fail("attn_logit_softcapping", "None: Gemma 3 has no soft-capped scores")
    num_layers = fields.whole("num_hidden_layers", MOST_LAYERS)
    vocab_size = fields.whole("vocab_size")
    global_theta, local_theta, factor = _rope(fields, family)
    try:
        return GemmaConfig(
            family=family,
            num_layers=num_layers,
            vocab_size=PADDED_VOCAB.get(vocab_size, vocab_size),
            width=fields.whole("hidden_size"),
            ffn_width=fields.whole("intermediate_size"),
            num_heads=fields.whole("num_attention_heads"),
            num_kv_heads=fields.whole("num_key_value_heads"),
            head_dim=fields.whole("head_dim"),
            kinds=_kinds(fields, family, num_layers),
            window=fields.whole("sliding_window"),
            local_theta=local_theta,
            global_theta=global_theta,
            global_rope_factor=factor,
            query_scalar=fields.real("query_pre_attn_scalar"),
            attention_softcap=fields.optional("attn_logit_softcapping"),
            logit_softcap=fields.optional("final_logit_softcapping"),
            norm_eps=fields.real("rms_norm_eps"),
            max_positions=fields.whole("max_position_embeddings"),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _kinds(fields: Fields, family: str, num_layers: int) -> tuple[str, ...]:
    types = fields.data.get("layer_types")
    if types is not None:
        if not isinstance(types, list):
            raise fields.fail("layer_types", f"a list of {' and '.join(LAYER_TYPES)}")
        for kind in types:
            if kind not in tuple(LAYER_TYPES):
                raise CheckpointError(
                    f"{fields.where}: layer_types has {reprlib.repr(kind)}: "
                    f"expected {' or '.join(LAYER_TYPES)}"
                )
        if len(types) != num_layers:
            raise CheckpointError(
                f"{fields.where}: layer_types has {len(types)} entries, "
                f"num_hidden_layers={num_layers}"
            )
        return tuple(LAYER_TYPES[t] for t in types)
    if family == "gemma2":
        return layer_kinds(num_layers, (LOCAL, GLOBAL))
    name = "_sliding_window_pattern"
    if "sliding_window_pattern" in fields.data:
        name = "sliding_window_pattern"
    fields.defaults[name] = 6
    return layer_kinds(num_layers, (LOCAL,) * (fields.whole(name) - 1) + (GLOBAL,))


def _rope(fields: Fields, family: str) -> tuple[float, float, float]:
    """(global theta, local theta, linear scaling of global layers)."""
    rope = fields.data.get("rope_parameters")
    if rope is None:
        factor = _factor(fields, "rope_scaling", fields.data.get("rope_scaling"))
        theta = fields.real("rope_theta")
        local_theta = theta if family == "gemma2" else fields.real("rope_local_base_freq")
    else:
        if not isinstance(rope, dict):
            raise fields.fail("rope_parameters", "an object")
        full, sliding = rope, rope
        if family == "gemma3" or "full_attention" in rope:
            full, sliding = rope.get("full_attention"), rope.get("sliding_attention")
        if not isinstance(full, dict) or not isinstance(sliding, dict):
            raise fields.fail("rope_parameters", "full_attention and sliding_attention")
        factor = _factor(fields, "rope_parameters", full)
        if sliding is not full and _factor(fields, "rope_parameters", sliding) != 1:
            raise fields.fail("rope_parameters", "no scaling of sliding_attention")
        defaults = fields.defaults
        local = {"rope_theta": defaults["rope_local_base_freq"], **sliding}
        theta = Fields(full, defaults, f"{fields.where}: rope_parameters").real("rope_theta")
        local_theta = Fields(local, {}, f"{fields.where}: rope_parameters").real("rope_theta")
    if family == "gemma2" and factor != 1:
        raise CheckpointError(f"{fields.where}: rope scaling {factor}: Gemma 2 has none")
    return theta, local_theta, factor


def _factor(fields: Fields, name: str, rope: object) -> float:
    """The linear factor of one rope description; other kinds of scaling are refused."""
    if rope is None:
        return 1.0
    if not isinstance(rope, dict):
        raise fields.fail(name, "an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return 1.0
    if kind != "linear":
        raise fields.fail(name, "rope_type 'default' or 'linear'")
    return Fields(rope, {}, f"{fields.where}: {name}").real("factor")


def to_json(config: GemmaConfig, dtype: str) -> dict:
    """A config.json that transformers, ours and the runtimes built on them read."""
    back = {kind: name for name, kind in LAYER_TYPES.items()}
    gemma3 = config.family == "gemma3"
    data = {
        "architectures": ["Gemma3ForCausalLM" if gemma3 else "Gemma2ForCausalLM"],
        "model_type": "gemma3_text" if gemma3 else "gemma2",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "query_pre_attn_scalar": _whole(config.query_scalar),
        "sliding_window": config.window,
        "layer_types": [back[kind] for kind in config.kinds],
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
        "rope_theta": config.global_theta,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "torch_dtype": dtype,
    }
    if gemma3:
        data["rope_local_base_freq"] = config.local_theta
        factor = config.global_rope_factor
        data["rope_scaling"] = None if factor == 1 else {"rope_type": "linear", "factor": factor}
    elif config.local_theta != config.global_theta or config.global_rope_factor != 1:
        raise CheckpointError("Gemma 2's config.json has one rope_theta, unscaled; not this model")
    return data


def generation_json(family: str, tokenizer: Tokenizer | None) -> dict:
    """A generation_config.json with every stop id, and Gemma 3's published sampling."""
    end_of_turn = {"gemma2": 107, "gemma3": 106}[family]
    stop_ids = (1, end_of_turn) if tokenizer is None else tokenizer.stop_ids
    sampling = {"do_sample": True, "top_k": 64, "top_p": 0.95} if family == "gemma3" else {}
    return {
        "bos_token_id": 2 if tokenizer is None else tokenizer.bos_id,
        "eos_token_id": list(stop_ids),
        "pad_token_id": 0 if tokenizer is None else tokenizer.pad_id,
        **sampling,
    }


def tokenizer_json(tokenizer: Tokenizer) -> dict:
    """A tokenizer_config.json with the chat template of the family."""
    return {
        "tokenizer_class": "GemmaTokenizer",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "chat_template": jinja_template(tokenizer.family),
    }


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number
