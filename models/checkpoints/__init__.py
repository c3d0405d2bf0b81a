"""Checkpoints in and out: Hugging Face, DeepMind (orbax), PEFT; in: GGUF, and from packages."""
