"""What people run beside training: curves of what a run has written down."""
