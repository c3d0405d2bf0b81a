"""What people see of a run: the line of progress, the summary, the curve."""
