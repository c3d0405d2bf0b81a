"""Models that are asked: what is said to one, by HTTP or out of a recording, and what it says."""
