"""A GGUF file's fields -> GemmaConfig.

What such a file does not say is its family's: which layers are local, their rotations of base
10,000, and the query scalar. That is the head width but for the two models of 27b, which are
recognised by their sizes, as llama.cpp does. Early files of Gemma 2 lack its caps and its window.
"""

import dataclasses
import reprlib

from models.checkpoints.fields import Fields
from models.checkpoints.files import CheckpointError
from models.checkpoints.gguf_header import Header
from models.checkpoints.hf_config import MOST_LAYERS, PADDED_VOCAB
from models.config import GLOBAL, LOCAL, SIZES, GemmaConfig, layer_kinds

PATTERNS = {"gemma2": (LOCAL, GLOBAL), "gemma3": (LOCAL,) * 5 + (GLOBAL,)}
DEFAULTS = {
    "gemma2": {
        "attention.sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "rope.freq_base": 10_000.0,
        "rope.freq_base_swa": 10_000.0,
    },
    "gemma3": {"rope.freq_base": 1_000_000.0, "rope.freq_base_swa": 10_000.0},
}
TABLE = "token_embd.weight"


def from_header(header: Header) -> GemmaConfig:
    """The architecture that a header describes; the tensors are compared with it later."""
    family = header.fields.get("general.architecture")
    if family not in tuple(PATTERNS):  # which, unlike a dict, can be asked about a list
        raise header.fail(
            f"general.architecture={reprlib.repr(family)}: expected one of {', '.join(PATTERNS)}"
        )
    parts = header.fields.get("split.count", 1)
    if parts not in (0, 1):
        raise header.fail(
            f"one of {reprlib.repr(parts)} parts; join them with llama-gguf-split --merge"
        )
    own = {
        name.removeprefix(f"{family}."): value
        for name, value in header.fields.items()
        if name.startswith(f"{family}.")
    }
    fields = Fields(own, DEFAULTS[family], f"{header.file}: {family}")
    _refuse_others(fields, family)
    rows = header.tensors[TABLE].info.shape[0] if TABLE in header.tensors else 0
    if not rows:
        raise header.fail(f"lacks tensor {TABLE}")
    num_layers = fields.whole("block_count", MOST_LAYERS)
    head_dim = fields.whole("attention.key_length")
    try:
        config = GemmaConfig(
            family=family,
            num_layers=num_layers,
            vocab_size=PADDED_VOCAB.get(rows, rows),
            width=fields.whole("embedding_length"),
            ffn_width=fields.whole("feed_forward_length"),
            num_heads=fields.whole("attention.head_count"),
            num_kv_heads=fields.whole("attention.head_count_kv"),
            head_dim=head_dim,
            kinds=layer_kinds(num_layers, PATTERNS[family]),
            window=fields.whole("attention.sliding_window"),
            local_theta=fields.real("rope.freq_base_swa"),
            global_theta=fields.real("rope.freq_base"),
            global_rope_factor=_factor(fields),
            query_scalar=head_dim,
            attention_softcap=fields.optional("attn_logit_softcapping"),
            logit_softcap=fields.optional("final_logit_softcapping"),
            norm_eps=fields.real("attention.layer_norm_rms_epsilon"),
            max_positions=fields.whole("context_length"),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise header.fail(str(error)) from None
    return dataclasses.replace(config, query_scalar=_query_scalar(config))


def _refuse_others(fields: Fields, family: str) -> None:
    """Raises on what would need other code."""
    pattern = len(PATTERNS[family])
    if fields.data.get("attention.sliding_window_pattern", pattern) != pattern:
        raise fields.fail("attention.sliding_window_pattern", f"{pattern}, the family's")
    for name in ("attention.value_length", "rope.dimension_count"):
        if fields.data.get(name) not in (None, fields.get("attention.key_length")):
            raise fields.fail(name, "what attention.key_length is")
    if fields.data.get("attention.scale") is not None:
        raise fields.fail("attention.scale", "none: the model's sizes say it")
    if family == "gemma3" and fields.data.get("attn_logit_softcapping") is not None:
        raise fields.fail("attn_logit_softcapping", "none: Gemma 3 has no soft-capped scores")


def _factor(fields: Fields) -> float:
    """The linear scaling of the global layers' rotations."""
    kind = fields.data.get("rope.scaling.type", "linear")
    if kind == "none" or "rope.scaling.factor" not in fields.data:
        return 1.0
    if kind != "linear":
        raise fields.fail("rope.scaling.type", "'none' or 'linear'")
    return fields.real("rope.scaling.factor")


def _query_scalar(config: GemmaConfig) -> float:
    """That of the published model of these sizes, or the head width."""
    names = ("family", "num_layers", "width", "ffn_width", "num_heads", "num_kv_heads", "head_dim")
    sizes = [getattr(config, name) for name in names]
    for published in SIZES.values():
        if [getattr(published, name) for name in names] == sizes:
            return published.query_scalar
    return config.head_dim
