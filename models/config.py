"""Sizes of Gemma 2 and Gemma 3 (text towers).

Gemma 2: arXiv:2408.00118. Gemma 3: arXiv:2503.19786. A size is data: nothing else in the tree knows
how wide the 1b model is. `vocab_size` counts real token ids; checkpoints may carry more embedding
rows (Gemma 2 of Kaggle 128, Gemma 3 4b+ of the Hub 64), which the loaders drop.
"""

import dataclasses

LOCAL, GLOBAL = "local", "global"


def layer_kinds(num_layers: int, pattern: tuple[str, ...]) -> tuple[str, ...]:
    """The pattern repeated from layer 0 and cut off at the last layer (never re-aligned)."""
    return tuple(pattern[layer % len(pattern)] for layer in range(num_layers))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GemmaConfig:
    """One architecture; the letters are those of array suffixes and einsums."""

    family: str  # "gemma2" or "gemma3"
    num_layers: int  # L
    vocab_size: int  # V
    width: int  # D
    ffn_width: int  # F
    num_heads: int  # N
    num_kv_heads: int  # K; Q = N / K query heads read each of them
    head_dim: int  # H
    kinds: tuple[str, ...]  # per layer, "local" or "global"
    window: int  # a local query sees this many keys, itself included
    local_theta: float = 10_000.0  # RoPE base of local layers
    global_theta: float  # RoPE base of global layers
    global_rope_factor: float = 1.0  # linear RoPE scaling, global layers only
    query_scalar: float  # queries are scaled by query_scalar ** -0.5
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    norm_eps: float = 1e-6
    max_positions: int

    def __post_init__(self):
        if self.family not in ("gemma2", "gemma3"):
            raise ValueError(f"family={self.family!r}: expected 'gemma2' or 'gemma3'")
        sizes = [
            "num_layers",
            "vocab_size",
            "width",
            "ffn_width",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "window",
        ]
        for name in (*sizes, "max_positions", "query_scalar", "global_rope_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected a positive number")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads}: not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim}: RoPE needs an even head width")
        if len(self.kinds) != self.num_layers or set(self.kinds) - {LOCAL, GLOBAL}:
            raise ValueError(
                f"kinds: expected {self.num_layers} of 'local' or 'global', got {self.kinds}"
            )

    @property
    def qk_norm(self) -> bool:
        """Gemma 3 normalises queries and keys where Gemma 2 soft-caps the scores."""
        return self.family == "gemma3"


def gemma2(
    num_layers, width, ffn_width, num_heads, num_kv_heads, head_dim=256, query_scalar=256
) -> GemmaConfig:
    """A Gemma 2 size: local and global layers in turn, soft-capped scores and logits."""
    return GemmaConfig(
        family="gemma2",
        num_layers=num_layers,
        vocab_size=256_000,
        width=width,
        ffn_width=ffn_width,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        kinds=layer_kinds(num_layers, (LOCAL, GLOBAL)),
        window=4096,
        global_theta=10_000.0,
        query_scalar=query_scalar,
        attention_softcap=50.0,
        logit_softcap=30.0,
        max_positions=8192,
    )


def gemma3(
    num_layers,
    width,
    ffn_width,
    num_heads,
    num_kv_heads,
    head_dim=256,
    query_scalar=256,
    window=1024,
    vocab_size=262_144,
    max_positions=131_072,
    global_rope_factor=8.0,
) -> GemmaConfig:
    """A Gemma 3 size: five local layers to one global, normalised queries and keys."""
    return GemmaConfig(
        family="gemma3",
        num_layers=num_layers,
        vocab_size=vocab_size,
        width=width,
        ffn_width=ffn_width,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        kinds=layer_kinds(num_layers, (LOCAL,) * 5 + (GLOBAL,)),
        window=window,
        global_theta=1_000_000.0,
        global_rope_factor=global_rope_factor,
        query_scalar=query_scalar,
        max_positions=max_positions,
    )


_SMALL = {"window": 512, "max_positions": 32_768, "global_rope_factor": 1.0}
SIZES: dict[str, GemmaConfig] = {
    "gemma2_2b": gemma2(26, 2304, 9216, 8, 4),
    "gemma2_9b": gemma2(42, 3584, 14_336, 16, 8),
    "gemma2_27b": gemma2(46, 4608, 36_864, 32, 16, head_dim=128, query_scalar=144),
    "gemma3_270m": gemma3(18, 640, 2048, 4, 1, **_SMALL),
    "gemma3_1b": gemma3(26, 1152, 6912, 4, 1, **_SMALL),
    "gemma3_4b": gemma3(34, 2560, 10_240, 8, 4),
    "gemma3_12b": gemma3(48, 3840, 15_360, 16, 8),
    "gemma3_27b": gemma3(62, 5376, 21_504, 32, 16, head_dim=128, query_scalar=168),
    # Seven layers: the 5:1 pattern and one layer of its truncated repetition.
    "gemma3_tiny": gemma3(
        7, 128, 512, 4, 1, head_dim=32, query_scalar=32, window=32, vocab_size=512,
        max_positions=1024, global_rope_factor=1.0,
    ),
    # Three layers, one of them global: the least that has both kinds, for runs on a CPU.
    "gemma3_micro": dataclasses.replace(
        gemma3(
            3, 64, 256, 4, 1, head_dim=16, query_scalar=16, window=32, vocab_size=512,
            max_positions=1024, global_rope_factor=1.0,
        ),
        kinds=(LOCAL, LOCAL, GLOBAL),
    ),
    # The same of Gemma 2.
    "gemma2_micro": dataclasses.replace(
        gemma2(3, 64, 256, 4, 1, head_dim=16, query_scalar=16), window=32, vocab_size=512,
        max_positions=1024,
    ),
}  # fmt: skip
