"""What the fields of a config may be, and what they may be together."""
