"""How good a policy is on examples that it was not trained on."""
