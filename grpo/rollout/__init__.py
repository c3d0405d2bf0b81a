"""Completions from the policy as it stands."""
