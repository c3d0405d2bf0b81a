"""llama.cpp's side of real_weights.py, in an environment of its own.

    PYTHON benchmarks/real_weights_llama.py FOLDER      (pip install llama-cpp-python)

Twice: the GGUF file as it is, whose products llama.cpp computes with activations quantised to 8
bits; and the float32 file that llama.cpp's own quantiser makes of it, which is the dequantisation
by another hand. The cache is in float32. Writes logits_TV of the ids and greedy tokens.

Repacked weights are off: llama-cpp-python 0.3.36, compiled where it ran, ends in its products for
AMX (a segmentation fault at `ldtilecfg`) on a virtual machine that says it has them.
"""

import ctypes
import json
import os
import pathlib
import sys

import llama_cpp
import llama_cpp.llama_cpp as low_level
import numpy as np

F32 = 0  # of ggml's types, and of the quantiser's mixes


default_params = low_level.llama_model_default_params


def params_without_repacking() -> ctypes.Structure:
    """How a model is opened; `Llama` has no argument for this one."""
    params = default_params()
    params.use_extra_bufts = False
    return params


def dequantised(file: str, to: pathlib.Path) -> str:
    """The file in float32, by llama.cpp's own code."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize, options.pure = F32, True, True
    code = llama_cpp.llama_model_quantize(file.encode(), str(to).encode(), ctypes.byref(options))
    assert code == 0, f"llama_model_quantize: {code}"
    return str(to)


def opened(file: str, context: int, *, logits_all: bool) -> llama_cpp.Llama:
    """The model of a file."""
    return llama_cpp.Llama(
        file,
        n_ctx=context,
        n_threads=os.cpu_count(),
        type_k=F32,
        type_v=F32,
        logits_all=logits_all,
        verbose=False,
    )


def greedy(model: llama_cpp.Llama, task: dict) -> list[list[int]]:
    """The likeliest tokens after every prompt, the one that stops included."""
    found = []
    for prompt in task["prompts"]:
        tokens: list[int] = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            tokens.append(int(token))
            if token in task["stop_ids"] or len(tokens) == task["new"]:
                break
        found.append(tokens)
    return found


def main(folder: str) -> None:
    """The file as it is, then in float32."""
    low_level.llama_model_default_params = params_without_repacking
    where = pathlib.Path(folder)
    task = json.loads((where / "task.json").read_text())
    files = {
        "llama": task["gguf"],
        "llama.float32": dequantised(task["gguf"], where / "float32.gguf"),
    }
    for name, file in files.items():
        model = opened(file, len(task["ids"]), logits_all=True)
        model.eval(task["ids"])
        np.save(where / f"{name}.npy", model.scores[: len(task["ids"])])
        model.close()
        model = opened(file, max(map(len, task["prompts"])) + task["new"], logits_all=False)
        (where / f"{name}.json").write_text(json.dumps(greedy(model, task)))
        model.close()
    about = {"llama-cpp-python": llama_cpp.__version__}
    (where / "llama.about.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
