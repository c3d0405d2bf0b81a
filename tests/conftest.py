"""Eight virtual CPU devices, set before JAX starts; implicit broadcasting is an error.

All workers, and the commands that tests start, keep compiled programs in one folder, so that each
is compiled once; JAX_COMPILATION_CACHE_DIR names one that outlives the tests.
"""

import importlib.metadata
import os
import pathlib
import shutil
import tempfile

# Compiling is most of a tiny model's time.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # a third of the time; later ones lack it
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
OWN_PROGRAMS = None  # the folder, where it is these tests' own
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    OWN_PROGRAMS = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="programs-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest

from tests.small_run import workshop

jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_MAPPINGS = 25_000  # Linux allows 65 530 to a process, and a module may need thousands

# Modules that run whole stages, compile large programs or start other processes, the longest first.
SLOW = (
    "test_train_step", "test_sampler", "test_stages", "test_golden_iteration", "test_distribution",
    "test_resume", "test_replay", "test_replay_stages", "test_preflight", "test_teacher",
    "test_demo_config", "test_gemma",
    "test_sharding", "test_cache", "test_readme", "test_rewards_hostile", "test_lora",
    "test_additions", "test_tunix_rollout",
    "test_transformers", "test_tunix", "test_logprobs", "test_policies", "test_tunix_losses",
    "test_tunix_preferences", "test_tunix_distillation",
    "test_data_in_a_run", "test_evaluate", "test_launch", "test_open_policy", "test_rewards_diff",
    "test_trouble", "test_staleness", "test_presets", "test_real_model", "test_reward_pool",
    "test_reward_pool_faults", "test_sweep_runs", "test_sweep_driver", "test_sweep_submitit",
    "test_certificate",
    "test_power", "test_replay", "test_page_blocks", "test_notebook", "test_diagnostics_in_a_run",
    "test_frozen_weights", "test_topology_report", "test_faults_first_row", "test_faults_inputs",
    "test_faults_journals", "test_faults_lock", "test_faults_room", "test_faults_time",
    "test_faults_updates", "test_faults_words", "test_verify",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """`-m fast`: every test of the other modules; the slow ones first, that no worker ends late."""
    for item in items:
        if item.path.stem not in SLOW and "parity" not in item.path.parts:
            item.add_marker(pytest.mark.fast)
    places = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOW)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a module's small runs are, with what they need around them."""
    with workshop():
        yield tmp_path_factory.mktemp("runs")


def pytest_unconfigure():
    """The programs go with the tests that made their folder."""
    if OWN_PROGRAMS:
        shutil.rmtree(OWN_PROGRAMS, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Forgets compiled programs before the kernel's limit of mappings, each of which takes some.

    Beyond it a compiler crashes. What is needed again comes out of the folder of all workers.
    """
    yield
    mappings = pathlib.Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Whatever is compiled, or makes weights, fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail("something was computed")

    # First those by name, which imports their modules; some of these make a jitted function.
    for name in ("grpo.runs.open_policy.init_params", "models.checkpoints.hf.read_tensor"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr(jax, "jit", refuse)
