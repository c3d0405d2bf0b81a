"""Checkpoints in and out: Hugging Face, DeepMind (orbax), PEFT."""
