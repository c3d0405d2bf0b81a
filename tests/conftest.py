"""Eight virtual CPU devices, set before JAX starts; implicit broadcasting is an error."""

import os

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",  # compiling is most of a tiny model's time
)
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Whatever is compiled, or makes weights, fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail("something was computed")

    # First those by name, which imports their modules; some of these make a jitted function.
    for name in ("grpo.runs.open_policy.init_params", "models.checkpoints.hf.read_tensor"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr(jax, "jit", refuse)
