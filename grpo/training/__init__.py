"""What an update is made of: scoring, the loss's batch, the optimizer, the train step."""
