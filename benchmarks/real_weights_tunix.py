"""Tunix's side of real_weights.py, in an environment with the extra `parity`.

    PYTHON benchmarks/real_weights_tunix.py FOLDER

Tunix's own loader reads the directory `base` that save_hf wrote, so its names and shapes are
checked as well; logits_TV of the task's ids are written as tunix.npy.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tunix.models.gemma3 import model as gemma3
from tunix.models.gemma3.params_safetensors import create_model_from_safe_tensors
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask


def main(folder: str) -> None:
    """The text's logits, without a cache."""
    where = pathlib.Path(folder)
    task = json.loads((where / "task.json").read_text())
    config = dataclasses.replace(gemma3.ModelConfig.gemma3_270m(), param_dtype=jnp.float32)
    mesh = Mesh(np.array(jax.devices()).reshape(1, 1), ("fsdp", "tp"))
    model = create_model_from_safe_tensors(str(where / "base"), config, mesh, dtype=jnp.float32)
    ids_1T = jnp.asarray([task["ids"]])
    mask_1T = jnp.ones_like(ids_1T, bool)
    logits_1TV, _ = model(
        ids_1T, build_positions_from_mask(mask_1T), None, make_causal_attn_mask(mask_1T)
    )
    np.save(where / "tunix.npy", np.asarray(logits_1TV[0]))
    versions = {"google-tunix": importlib.metadata.version("google-tunix"), "jax": jax.__version__}
    (where / "tunix.about.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(*sys.argv[1:])
