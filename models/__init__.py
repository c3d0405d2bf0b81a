"""Gemma 2 and Gemma 3 in JAX, written by hand; checkpoints, adapters, tokenizer, chat.

Array names end in a letter per axis:

    B rows            T positions of a row      S key/value slots     V vocabulary
    L layers          D model width             F feed-forward width  R LoRA rank
    N query heads     K key/value heads         Q = N / K             H head width
    C positions of a chunk of a row             1 a unit axis
"""

from models.loading import load_model, save_adapter, save_hf
from models.policy import Policy, logits

__all__ = ["Policy", "load_model", "logits", "save_adapter", "save_hf"]
