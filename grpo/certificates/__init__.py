"""What is the same when a config runs otherwise: in other cuts, on other devices, interrupted."""
