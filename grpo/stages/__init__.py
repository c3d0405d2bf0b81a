"""The stages of a run, a file each. What a stage is:

    FIELDS   what each of its fields may be; one that trains has `start` among them, which says
             what it goes on from
    check    (stage, config) -> what is wrong with fields that are fine one by one
    build    (config, name, policy) -> the programs it runs, by name; the policy may be shapes
    calls    (config, name) -> how often it runs each of them, by name; None: that hangs on data.
             It may name more than there are
    run      (run, name, policies) -> None: from where it is to its end

Its defaults are a function of its name in configs/base.py, and grpo/pipeline.py lists it.
"""
