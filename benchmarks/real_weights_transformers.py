"""The side of transformers and peft in real_weights.py, in an environment of its own.

    PYTHON benchmarks/real_weights_transformers.py FOLDER      (pip install torch transformers peft)

Reads what real_weights_ours.py left in FOLDER, and writes logits_TV of its ids as .npy (at once,
and through transformers' cache) and greedy tokens as .json: of the model, of the model with the
adapter by peft, and of the merged directory.
"""

import json
import pathlib
import sys

import numpy as np
import peft
import torch
import transformers

PREFILLED = 1200  # tokens of the text, before one token at a time


def model_in(folder: pathlib.Path, dtype: torch.dtype = torch.float32):
    """The model of a directory."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def logits(model, ids: list[int]) -> np.ndarray:
    """logits_TV."""
    return model(input_ids=torch.tensor([ids])).logits[0].float().numpy()


def cached_logits(model, ids: list[int]) -> np.ndarray:
    """logits_TV by way of the cache."""
    found, cache = [], None
    for part in (ids[:PREFILLED], *[[token] for token in ids[PREFILLED:]]):
        out = model(input_ids=torch.tensor([part]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        found.append(out.logits[0].numpy())
    return np.concatenate(found)


def greedy(model, task: dict) -> list[list[int]]:
    """The likeliest tokens after every prompt, the one that stops included."""
    prompts, stops = task["prompts"], task["stop_ids"]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    out = model.generate(
        input_ids=ids,
        attention_mask=(ids != 0).long(),
        do_sample=False,
        top_k=None,
        top_p=None,
        max_new_tokens=task["new"],
        eos_token_id=stops,
        pad_token_id=0,
    )
    rows = out[:, longest:].tolist()
    ends = [next((i + 1 for i, t in enumerate(row) if t in stops), len(row)) for row in rows]
    return [row[:end] for row, end in zip(rows, ends, strict=True)]


@torch.no_grad()
def main(folder: str) -> None:
    """Everything, one after the other."""
    where = pathlib.Path(folder)
    task = json.loads((where / "task.json").read_text())

    def write(name: str, value: object) -> None:
        (where / f"transformers.{name}.json").write_text(json.dumps(value))

    tokenizer = transformers.AutoTokenizer.from_pretrained(where / "base")
    write("ids", [tokenizer(text)["input_ids"] for text in task["texts"]])
    model = model_in(where / "base", torch.bfloat16)
    np.save(where / "transformers.bfloat16.npy", logits(model, task["ids"]))
    model = model_in(where / "base")
    assert model.generation_config.eos_token_id == list(task["stop_ids"])
    np.save(where / "transformers.npy", logits(model, task["ids"]))
    np.save(where / "transformers.cached.npy", cached_logits(model, task["ids"]))
    write("base", tokens := greedy(model, task))
    write("texts", [tokenizer.decode(row, skip_special_tokens=True) for row in tokens])
    model = peft.PeftModel.from_pretrained(model_in(where / "adapted_base"), where / "adapter")
    write("adapter", greedy(model, task))
    write("merged", greedy(model_in(where / "merged"), task))
    write("about", {m.__name__: m.__version__ for m in (transformers, peft, torch)})


if __name__ == "__main__":
    main(*sys.argv[1:])
