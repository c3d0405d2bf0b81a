"""Experiments as data: one file each, imports nothing of the project but `configs.base`."""
