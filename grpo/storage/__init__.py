"""What is never lost: checkpoints and journals."""
