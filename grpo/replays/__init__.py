"""Back to any update of a run that is over: made again, bit by bit, and looked into."""
