"""Mistakes about teachers and judges on devices of their own."""

from tests.mistakes import Mistake

DEVICES, MESHES = "grpo/checks/devices.py", "grpo/runs/meshes.py"
POLICIES, SHAPES = "grpo/runs/policies.py", "grpo/runs/shapes.py"
TEST = "tests/test_meshes.py::test_"
SAME, WHERE = f"{TEST}the_same_run_bit_by_bit", f"{TEST}who_is_where[one device each]"
REFUSED, MEANWHILE = f"{TEST}what_a_config_may_not_say", f"{TEST}who_may_work_meanwhile"
PREFLIGHT = f"{TEST}a_preflight_says_what_each_half_holds"

MISTAKES = [
    Mistake("whoever is asked stays where it was trained", POLICIES,
            "return policy if policy.mesh == mesh else policy.on(mesh)", "return policy", WHERE),
    Mistake("a mesh of its own begins with the first device", MESHES,
            'devices_here()[place["first"] :]', "devices_here()", WHERE),
    Mistake("a model of its own is loaded on the policy's devices", "grpo/runs/setup.py",
            "mesh_of(config, name)", "own_mesh(config)",
            f"{TEST}a_model_of_its_own_is_never_on_the_policys_devices[one device each]"),
    Mistake("a teacher reads rows where the policy has them", "grpo/rollout/frozen.py",
            "rows = put_rows(rows, one.mesh)", "rows = put_rows(rows, policy.mesh)",
            f"{SAME}[four each]"),
    Mistake("a student is told where the teacher is", "grpo/stages/distill.py",
            "said = jax.device_get(said)", "pass", f"{SAME}[one device each]"),
    Mistake("a teacher's table stays with the teacher", "grpo/training/distill_losses.py",
            "else put(table, policy.mesh)", "else table", f"{SAME}[one device each]"),
    Mistake("a judge's shapes are on the policy's devices", SHAPES,
            "return shaped(config[\"models\"][name], mesh)",
            "return shaped(config[\"models\"][name], own_mesh(config))", PREFLIGHT),
    Mistake("the end of a stage is reckoned where it was trained", SHAPES,
            "params=shapes_on(mesh, base.params, base.axes), mesh=mesh)", "params=base.params)",
            PREFLIGHT),
    Mistake("the bytes of all devices on each of them", "grpo/tools/preflight.py",
            "if (d < own) == is_own", "if True", PREFLIGHT),
    Mistake("a preflight with too few devices", DEVICES,
            "for name in (None, *config[\"meshes\"]))", "for name in (None,))", MEANWHILE),
    Mistake("nobody asks it, and it has devices", DEVICES,
            "if name not in known:", "if False:", REFUSED),
    Mistake("a mesh is checked as if it began with the first device", DEVICES,
            'wanted = place.get("first", 0) + place', "wanted = place", REFUSED),
    Mistake("heads of the policy, not of the model that is cut", DEVICES,
            'place, config["models"].get(name, config["model"])', 'place, config["model"]',
            f"{TEST}the_heads_are_those_of_the_model"),
    Mistake("a judge works beside the teacher on the same devices", DEVICES,
            'others += [devices_of(config, stage["teacher"])] if stage["teacher"] else []',
            "others += []", MEANWHILE),
    Mistake("a judge on the policy's devices is asked in a thread", "grpo/runs/judged_reward.py",
            'program is None or is_apart(config, config["stages"][name], model)', "True",
            "tests/test_ahead.py::test_a_judge_that_is_a_model_of_ours_is_not_elsewhere"),
    Mistake("a judge on devices of its own keeps the policy waiting", "grpo/runs/judged_reward.py",
            'program is None or is_apart(config, config["stages"][name], model)', "program is None",
            f"{TEST}a_judge_that_is_apart_is_asked_in_a_thread[one device each]"),
    Mistake("a mesh may begin within the policy's", DEVICES,
            "if own.start < policy.stop:", "if False:", REFUSED),
    Mistake("two meshes may have some devices in common", DEVICES,
            "if own != devices and set(own) & set(devices):", "if False:", REFUSED),
    Mistake("S6 has policy and judge on the same chips", "configs/rar_gemma2_2b.py",
            "base.mesh(fsdp=2, tp=2, first=4)", "base.mesh(fsdp=2, tp=2, first=0)",
            "tests/test_judge_configs.py::test_rubrics_as_rewards"),
    Mistake("S6 waits for its judge", "configs/rar_gemma2_2b.py",
            "grpo.staleness = 1", "grpo.staleness = 0", "tests/test_judge_configs.py::test_rubrics_as_rewards"),
]  # fmt: skip
