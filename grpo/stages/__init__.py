"""Stages of a run, a loop each: where the batches come from, and which loss they meet."""
