"""Mistakes in the demo's config, and in what a preflight says of it."""

from tests.mistakes import Mistake

DEMO, PREFLIGHT, SHAPES = "configs/grpo_demo_gemma3_1b.py", "grpo/tools/preflight.py", "grpo/tools/shapes.py"
COMMON = "configs/_common.py"
NUMBERS = "tests/test_demo_config.py::test_every_number"
SYSTEMS = "tests/test_preflight_systems.py::"
FULL = "tests/test_preflight.py::test_the_demo_at_its_full_size"

MISTAKES = [
    Mistake("the demo's loss is a mean of sequences", COMMON,
            ', aggregation="token"', "",
            NUMBERS),
    Mistake("the demo's schedule ends with its updates", DEMO,
            "    grpo.optimizer.schedule_updates = 3738\n", "",
            NUMBERS),
    Mistake("the demo's golds lose their commas", DEMO,
            "    config.data.strip_commas = False\n", "",
            NUMBERS),
    Mistake("the repository's demo counts four tags", DEMO,
            "    del grpo.rewards.demo_approximate_format\n    grpo.rewards.demo_approximate_format_5 = base.reward(1.0, -2.5, 2.5)\n", "",
            "tests/test_demo_config.py::test_rewards"),
    Mistake("the rehearsal has another prompt", DEMO,
            'max_prompt=96, buckets=(96,)', 'max_prompt=96, buckets=(96,), template="plain"',
            "tests/test_demo_config.py::test_the_rehearsal_differs_in_size_only"),
    Mistake("a preflight puts nothing on the mesh", "grpo/training/program.py",
            "Shape(x.shape, x.dtype, sharding=where), tree, shardings(tree, mesh, axes)", "Shape(x.shape, x.dtype), tree, shardings(tree, mesh, axes)",
            FULL),
    Mistake("a device's bytes are those of all", SHAPES,
            "sum(math.prod(device_shape(x)) *", "sum(x.size *",
            FULL),
    Mistake("a preflight forgets the reference", "grpo/runs/iteration_programs.py",
            "needed = needs.old, needs.reference, needs.teacher",
            "needed = needs.old, False, needs.teacher",
            "tests/test_demo_config.py::test_the_rehearsal_runs"),
    Mistake("a preflight rolls out one completion per prompt", "grpo/rollout/generate.py",
            "static |= {\"group\": group, \"max_new_tokens\"", "static |= {\"group\": 1, \"max_new_tokens\"",
            "tests/test_demo_config.py::test_the_rehearsal_runs"),
    Mistake("what is kept counts the weights too", SHAPES,
            "(saved - given).items()", "saved.items()",
            "tests/test_preflight.py::test_what_is_saved_for_the_backward_pass"),
    Mistake("a preflight looks for the real devices", PREFLIGHT,
            'max(1, count_devices(config))', "1",
            "tests/test_preflight.py::test_from_the_command_line_on_any_machine"),
    Mistake("a preflight counts no weights of a teacher", PREFLIGHT,
            "leaves_beside(own, others), changing", "changing",
            SYSTEMS + "test_a_teacher_lies_beside_its_student"),
    Mistake("a gradient is as short as the weights", PREFLIGHT,
            'Shape(x.shape, "float32", sharding=x.sharding)', "Shape(x.shape, x.dtype, sharding=x.sharding)",
            SYSTEMS + "test_an_update_adds_what_it_saves_and_its_gradient"),
    Mistake("a device's cache is that of all heads", "models/sharding.py",
            'CACHE = P("fsdp", "tp", None, None)', 'CACHE = P("fsdp", None, None, None)',
            SYSTEMS + "test_the_heads_of_a_cache_are_cut"),
    Mistake("the cache of a group is gathered along tp", "grpo/rollout/sampler.py",
            "lambda x: shard_cache(x, mesh), cache)", "lambda x: shard_rows(x, mesh), cache)",
            "tests/test_sampler.py::test_the_cache_is_cut_over_tp_and_never_gathered"),
    Mistake("all rows of a sibling go through the model at once", COMMON,
            "    grpo.microbatches = 8\n", "",
            SYSTEMS + "test_the_largest_siblings_fit"),
]
