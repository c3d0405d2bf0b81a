"""What a stage needs to turn batches and a loss into updates."""
