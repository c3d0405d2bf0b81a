"""Group Relative Policy Optimization for Gemma: the algebra, the sampler, the train step, the runs.

Array names end in a letter per axis (`reward_PG`, `logprob_BC`):

    P prompts               G completions of a prompt      B rows = P · G
    I prompt positions      C completion positions         T = I + C
    V vocabulary            D model width                  M microbatches
    E evaluated completions 1 a unit axis

The other letters are those of models/__init__.py; no letters: a scalar, or a tree of arrays.
"""
