"""Sweeps: a config, changes of it, seeds; each file makes one by its get_config()."""
