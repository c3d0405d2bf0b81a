"""What people run beside training."""
