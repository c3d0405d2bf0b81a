"""Compiled programs are kept between launches: a second start compiles nothing it has compiled.

JAX_COMPILATION_CACHE_DIR names another folder; JAX_ENABLE_COMPILATION_CACHE=false keeps none. The
least recently used programs go when there are more than MOST bytes of them.
"""

import os
import pathlib

import jax

MOST = 2**31  # bytes


def keep_programs() -> None:
    """Has JAX keep programs in the user's cache folder, if that can be written."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = caches / "gemma-grpo" / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MOST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
