"""What an update is made of: log-probs, the loss's batch, the optimizer, the train step."""
