"""The float64 side of real_weights.py: tests/oracle.py, which shares no code with `models`.

    python benchmarks/real_weights_oracle.py FOLDER

Plain loops of NumPy over planes, heads and positions: minutes where the others take seconds.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from models import load_model
from tests import oracle


def main(folder: str) -> None:
    """The text's logits; the float64 ones are rounded to float32 at the very end."""
    where = pathlib.Path(folder)
    task = json.loads((where / "task.json").read_text())
    model = load_model(where / "base")
    params = jax.tree.map(np.asarray, model.params)
    logits_TV = oracle.logits(model.config, params, np.array(task["ids"]))
    np.save(where / "oracle.npy", logits_TV.astype(np.float32))
    (where / "oracle.about.json").write_text(json.dumps({"numpy": np.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
