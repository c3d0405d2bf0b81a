"""Group Relative Policy Optimization: the algebra, the sampler, the train step."""
