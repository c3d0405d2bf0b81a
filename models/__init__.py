"""Gemma 2 and Gemma 3 in JAX, written by hand; checkpoints, adapters, tokenizer, chat."""

from models.model import Model, load_model, logits, save_adapter, save_hf

__all__ = ["Model", "load_model", "logits", "save_adapter", "save_hf"]
