"""What a table of ablations may claim: intervals, tests, power; numpy and scipy alone.

Letters here: S seeds, P problems that are evaluated, T tasks, D draws of a bootstrap, M tests of a
table. A value is of one cell, which is an ablation on a seed. `level` is that of an interval, 0.95.
"""
