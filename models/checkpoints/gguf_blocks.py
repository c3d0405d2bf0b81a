"""The number formats of GGUF: blocks of a row's values with their scale, to float32.

    F32 F16 BF16  as they are
    Q8_0          d q                    32 values; q of so many bits, d and m float16
    Q4_0 Q5_0     d (q - 8), d (q - 16)  32 values
    Q4_1 Q5_1     d q + m                32 values
    Q4_K Q5_K     (d s) q - (e m)        256 values; s and m of 6 bits for each 32; d and e float16
    Q6_K          (d s) (q - 32)         256 values; s of 8 bits for each 16

Each operation is one of float32, in this order: the bits are those of ggml's own reference.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from einops import rearrange, repeat


class Format(NamedTuple):
    """How blocks of `values` numbers lie in `bytes` bytes; `read` makes float32 of uint8 rows."""

    name: str
    values: int
    bytes: int
    read: Callable[[np.ndarray], np.ndarray]


def dequantise(raw: np.ndarray, form: Format) -> np.ndarray:
    """The float32 values of whole blocks, in one row."""
    return form.read(raw.reshape(-1, form.bytes)).reshape(-1)


def _half(pair: np.ndarray) -> np.ndarray:
    """Two bytes of each block as its float16, [B, 1]."""
    return np.ascontiguousarray(pair).view("<f2").astype(np.float32)


def _unpack(packed: np.ndarray, bits: int, run: int) -> np.ndarray:
    """Numbers of some bits: the lowest of each byte of a run, then the next ones of that run."""
    parts = np.stack([(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)])
    return rearrange(parts, "part B (chunk run) -> B (chunk part run)", run=run)


def _f32(blocks: np.ndarray) -> np.ndarray:
    return blocks.view("<f4")


def _f16(blocks: np.ndarray) -> np.ndarray:
    return _half(blocks)


def _bf16(blocks: np.ndarray) -> np.ndarray:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    d, q = np.split(blocks, [2], axis=1)
    return _half(d) * q.view(np.int8).astype(np.float32)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    d, q = np.split(blocks, [2], axis=1)
    return _half(d) * (_unpack(q, 4, 16).astype(np.float32) - np.float32(8))


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    d, m, q = np.split(blocks, [2, 4], axis=1)
    return _half(d) * _unpack(q, 4, 16).astype(np.float32) + _half(m)


def _q5_0(blocks: np.ndarray) -> np.ndarray:
    d, fifth, q = np.split(blocks, [2, 6], axis=1)
    return _half(d) * (_five(q, fifth, 16, 1) - np.float32(16))


def _q5_1(blocks: np.ndarray) -> np.ndarray:
    d, m, fifth, q = np.split(blocks, [2, 4, 8], axis=1)
    return _half(d) * _five(q, fifth, 16, 1) + _half(m)


def _five(low: np.ndarray, fifth: np.ndarray, run: int, fifth_run: int) -> np.ndarray:
    """Numbers of five bits, the fifth of which is stored apart."""
    return (_unpack(low, 4, run) | (_unpack(fifth, 1, fifth_run) << 4)).astype(np.float32)


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    head, q = np.split(blocks, [16], axis=1)
    scale, least = _scales(head)
    return scale * _unpack(q, 4, 32).astype(np.float32) - least


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    head, fifth, q = np.split(blocks, [16, 48], axis=1)
    scale, least = _scales(head)
    return scale * _five(q, fifth, 32, 32) - least


def _scales(head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d s and e m of each of 256 values.

    Of the first four s and m, six bits lie in a byte; its upper two belong to the last four, whose
    lower four bits share the last four bytes.
    """
    d, e, s, m, shared = np.split(head, [2, 4, 8, 12], axis=1)
    s = np.concatenate([s & 63, (shared & 15) | (s >> 6 << 4)], axis=1)
    m = np.concatenate([m & 63, (shared >> 4) | (m >> 6 << 4)], axis=1)
    scales = _half(d) * s.astype(np.float32), _half(e) * m.astype(np.float32)
    scale, least = (repeat(x, "B part -> B (part value)", value=32) for x in scales)
    return scale, least


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    low, high, s, d = np.split(blocks, [128, 192, 208], axis=1)
    q = _unpack(low, 4, 64) | (_unpack(high, 2, 32) << 4)
    scale = _half(d) * s.view(np.int8).astype(np.float32)
    scale = repeat(scale, "B part -> B (part value)", value=16)
    return scale * (q.astype(np.float32) - np.float32(32))


FORMATS = {  # by ggml's number of the type
    0: Format("F32", 1, 4, _f32),
    1: Format("F16", 1, 2, _f16),
    2: Format("Q4_0", 32, 18, _q4_0),
    3: Format("Q4_1", 32, 20, _q4_1),
    6: Format("Q5_0", 32, 22, _q5_0),
    7: Format("Q5_1", 32, 24, _q5_1),
    8: Format("Q8_0", 32, 34, _q8_0),
    12: Format("Q4_K", 256, 144, _q4_k),
    13: Format("Q5_K", 256, 176, _q5_k),
    14: Format("Q6_K", 256, 210, _q6_k),
    30: Format("BF16", 1, 2, _bf16),
}
OTHERS = {  # that are not read here
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16",
    26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
