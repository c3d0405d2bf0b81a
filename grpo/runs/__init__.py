"""From a config to a run that its stages share: data, policies, the loop around their updates."""
