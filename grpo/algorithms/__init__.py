"""Pure functions of arrays: what the papers write down, and nothing else."""
