"""Blocks of every number format and two tiny models, as the `gguf` package 0.19 writes and reads.

    python -m tests.references.gguf_models        (pip install gguf)

writes gguf_models.npz, gguf_models_gemma2.gguf (version 2) and gguf_models_gemma3.gguf (version 3)
beside this file; tests/test_gguf.py reads them without that package. The weights in the npz are
those that the package dequantises, under Hugging Face's names, norms as published.
"""

import pathlib

import numpy as np

from models.tokenizer import Tokenizer, train_tokenizer
from tests.gguf_files import llama_cpp_tokens
from tests.references.chat_tokenizers import CORPUS

HERE = pathlib.Path(__file__).parent
FILE = HERE / "gguf_models.npz"
TEXT = "In 2025 the model  answers\n\n<end_of_turn>Äж\n"
HALVES = [0x0001, 0x03FF, 0x8001, 0x0000, 0x8000, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x1234, 0x9ABC]
BLOCKS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
SCALES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
SIZES = {
    "gemma2": {"layers": 2, "width": 32, "ffn": 256, "heads": 2, "kv": 1, "head": 16},
    "gemma3": {"layers": 7, "width": 32, "ffn": 32, "heads": 2, "kv": 2, "head": 16},
}
FORMATS = {  # of each matrix, so that every format is in one of the models
    "gemma2": {"embed": "Q8_0", "q": "Q4_0", "k": "Q4_1", "v": "Q5_0", "o": "Q5_1",
               "gate": "F16", "up": "BF16", "down": ("Q4_K", "Q6_K")},
    "gemma3": {"embed": "Q5_0", "q": "Q8_0", "k": "F32", "v": "F16", "o": "Q4_0",
               "gate": "Q4_1", "up": "Q5_1", "down": ("Q8_0",) * 7},
}  # fmt: skip
NAMES = {  # ours here, llama.cpp's, Hugging Face's
    "q": ("attn_q", "self_attn.q_proj"),
    "k": ("attn_k", "self_attn.k_proj"),
    "v": ("attn_v", "self_attn.v_proj"),
    "o": ("attn_output", "self_attn.o_proj"),
    "gate": ("ffn_gate", "mlp.gate_proj"),
    "up": ("ffn_up", "mlp.up_proj"),
    "down": ("ffn_down", "mlp.down_proj"),
}
NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def random_blocks(name: str, count: int, random: np.random.RandomState) -> np.ndarray:
    """Blocks of any bytes but for the float16 scales: subnormal, signed zeros, the largest."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    if values == 1:
        wide = random.standard_normal(count).astype("<f4")
        short = (wide.view("<u4") >> 16).astype("<u2")
        return {"F32": wide, "F16": wide.astype("<f2"), "BF16": short}[name].view(np.uint8)
    raw = random.randint(0, 256, (count, size)).astype(np.uint8)
    for place in SCALES.get(name, (0,)):
        halves = np.resize(np.roll(HALVES, place), count).astype("<u2")
        raw[:, place : place + 2] = halves.view(np.uint8).reshape(count, 2)
    return raw.reshape(-1)


def small_blocks(name: str, shape: tuple[int, int], random: np.random.RandomState) -> np.ndarray:
    """Bytes of a matrix of small values, in a format that the package cannot write."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    raw = random.randint(0, 256, (shape[0] * shape[1] // values, size)).astype(np.uint8)
    for place in SCALES[name]:
        raw[:, place : place + 2] = np.array([2e-4], "<f2").view(np.uint8)
    return raw.reshape(shape[0], -1)


def write_model(family: str, file: pathlib.Path) -> dict[str, np.ndarray]:
    """Writes the file; its weights under Hugging Face's names."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    size, random = SIZES[family], np.random.RandomState(1)
    tokenizer = Tokenizer(train_tokenizer(CORPUS, 320), family)
    writer = GGUFWriter(file, family)
    writer.add_context_length(512)
    writer.add_embedding_length(size["width"])
    writer.add_block_count(size["layers"])
    writer.add_feed_forward_length(size["ffn"])
    writer.add_head_count(size["heads"])
    writer.add_head_count_kv(size["kv"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(size["head"])
    writer.add_value_length(size["head"])
    writer.add_sliding_window(8)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    else:
        writer.add_rope_freq_base(1e6)
        writer.add_uint32("general.alignment", 64)
        writer.data_alignment = 64
    tokens, scores, types = llama_cpp_tokens(tokenizer, "new" if family == "gemma3" else "old")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores.tolist())
    writer.add_token_types(types.tolist())
    weights = {}

    def add(name: str, theirs: str, form: str, shape: tuple[int, int]) -> None:
        kind = GGMLQuantizationType[form]
        if form in ("Q4_K", "Q6_K"):
            raw = small_blocks(form, shape, random)
        else:
            raw = quants.quantize((random.standard_normal(shape) * 0.1).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", raw, raw_dtype=kind)
        weights[f"model.{theirs}.weight"] = quants.dequantize(raw, kind).astype(np.float32)

    def add_norm(name: str, theirs: str, width: int) -> None:
        scale = (random.randint(-256, 256, width) / 512).astype(np.float32)  # 1 + it is exact
        writer.add_tensor(f"{name}.weight", scale + np.float32(1))
        weights[f"model.{theirs}.weight"] = scale

    shapes = {
        "q": (size["heads"] * size["head"], size["width"]),
        "k": (size["kv"] * size["head"], size["width"]),
        "v": (size["kv"] * size["head"], size["width"]),
        "o": (size["width"], size["heads"] * size["head"]),
        "gate": (size["ffn"], size["width"]),
        "up": (size["ffn"], size["width"]),
        "down": (size["width"], size["ffn"]),
    }
    forms = FORMATS[family]
    add("token_embd", "embed_tokens", forms["embed"], (len(tokens), size["width"]))
    add_norm("output_norm", "norm", size["width"])
    for layer in range(size["layers"]):
        for part, (name, theirs) in NAMES.items():
            form = forms[part][layer] if part == "down" else forms[part]
            add(f"blk.{layer}.{name}", f"layers.{layer}.{theirs}", form, shapes[part])
        for name, theirs in NORMS.items():
            add_norm(f"blk.{layer}.{name}", f"layers.{layer}.{theirs}", size["width"])
        if family == "gemma3":
            for part in ("q", "k"):
                theirs = f"layers.{layer}.self_attn.{part}_norm"
                add_norm(f"blk.{layer}.attn_{part}_norm", theirs, size["head"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def main() -> None:
    """Writes all three files."""
    from gguf import GGMLQuantizationType, quants

    random, arrays = np.random.RandomState(0), {}
    for name in BLOCKS:
        raw = random_blocks(name, 11, random)
        arrays[f"raw/{name}"] = raw
        values = quants.dequantize(raw, GGMLQuantizationType[name])
        arrays[f"values/{name}"] = values.astype(np.float32, copy=False).reshape(-1)
    for family in SIZES:
        file = HERE / f"gguf_models_{family}.gguf"
        for name, values in write_model(family, file).items():
            arrays[f"{family}/{name}"] = values
    content = bytearray((HERE / "gguf_models_gemma2.gguf").read_bytes())
    content[4] = 2  # of these files, versions 2 and 3 differ in the number alone
    (HERE / "gguf_models_gemma2.gguf").write_bytes(content)
    tokenizer = Tokenizer(train_tokenizer(CORPUS, 320))
    arrays["ids"] = np.array(tokenizer.encode(TEXT), np.int32)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
