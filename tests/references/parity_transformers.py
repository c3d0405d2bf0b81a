"""The side of transformers in grpo/tools/parity.py, in an environment of its own.

    PYTHON tests/references/parity_transformers.py FOLDER      (pip install torch transformers)

Imports nothing of this project. Reads FOLDER/model (as save_hf writes it), task.npz and walk.npz;
writes theirs.npz. In a first pass each piece is handed the input that our side kept, in a second
one each block, and the third is the model as it is.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers

PIECES = {  # ours -> the module's name in a layer
    "pre_attention_norm": "input_layernorm",
    "attention": "self_attn",
    "post_attention_norm": "post_attention_layernorm",
    "pre_ffw_norm": "pre_feedforward_layernorm",
    "mlp": "mlp",
    "post_ffw_norm": "post_feedforward_layernorm",
}
KINDS = {"local": "sliding_attention", "global": "full_attention"}


def first(out):
    """The array of a module's output."""
    return (out[0] if isinstance(out, tuple) else out).detach().numpy()


def inputs_of(walk, i: int) -> dict:
    """What our side gave each piece of a layer."""
    x = walk["x"][i]
    return {
        "pre_attention_norm": x,
        "attention": walk["pre_attention_norm"][i],
        "post_attention_norm": walk["attention"][i],
        "pre_ffw_norm": x + walk["post_attention_norm"][i],
        "mlp": walk["pre_ffw_norm"][i],
        "post_ffw_norm": walk["mlp"][i],
    }


def handed(module, value, keep):
    """Hooks that hand a module this input and keep what it makes of it."""
    value = torch.tensor(value)

    def before(_, words, named):
        if words:
            return (value, *words[1:]), named
        return words, {**named, "hidden_states": value}

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(lambda _, __, out: keep.append(first(out))),
    ]


def layers(model, task, walk) -> dict:
    """Each piece of each layer on our inputs, and the whole model's logits."""
    ids, mask = torch.tensor(task["walk_ids"]).long(), torch.tensor(task["walk_mask"])
    # As ours: the first token that is none of padding is at 0.
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def run():
        return model(input_ids=ids, attention_mask=mask, position_ids=positions).logits.numpy()

    found = {name: [] for name in ("block", *PIECES)}
    for names in (tuple(PIECES), ("block",)):
        hooks = []
        for i, layer in enumerate(model.model.layers):
            given = inputs_of(walk, i) | {"block": walk["x"][i]}
            for name in names:
                module = layer if name == "block" else getattr(layer, PIECES[name])
                hooks += handed(module, given[name], found[name])
        run()
        for hook in hooks:
            hook.remove()
    return {name: np.stack(x) for name, x in found.items()} | {
        "embedding": model.model.embed_tokens(ids).numpy(),
        "logits": run(),
        **rotations(model, task["rope"], walk["positions"]),
    }


def rotations(model, x, positions) -> dict:
    """The task's vectors, rotated as in layers of each kind."""
    family = sys.modules[type(model).__module__]
    x, positions = torch.tensor(x).transpose(1, 2), torch.tensor(positions).long()
    found = {}
    for kind, name in KINDS.items():
        words = () if model.config.model_type == "gemma2" else (name,)
        cos, sin = model.model.rotary_emb(x, positions, *words)
        rotated, _ = family.apply_rotary_pos_emb(x, x, cos, sin)
        found[f"rope_{kind}"] = rotated.transpose(1, 2).numpy()
    return found


def sampled(model, task) -> dict:
    """Greedy tokens through its cache, and their log-probs."""
    ids, mask = torch.tensor(task["prompt_ids"]).long(), torch.tensor(task["prompt_mask"])
    new = task["ours_drawn"].shape[1]
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, top_k=None, top_p=None,
        max_new_tokens=new, min_new_tokens=new, eos_token_id=None, pad_token_id=0,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    tokens = out.sequences[:, ids.shape[1] :]
    logprob = torch.log_softmax(torch.stack(out.logits, 1).float(), -1)
    chosen = logprob.gather(-1, tokens[..., None])[..., 0]
    return {"greedy": tokens.numpy().astype(np.int32), "greedy_logprob": chosen.numpy()}


@torch.no_grad()
def main(folder: str) -> None:
    """Everything, one after the other."""
    where = pathlib.Path(folder)
    task, walk = (dict(np.load(where / f"{name}.npz")) for name in ("task", "walk"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        where / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    np.savez(where / "theirs.npz", **layers(model, task, walk), **sampled(model, task))
    versions = {m.__name__: m.__version__ for m in (transformers, torch)}
    (where / "about.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(*sys.argv[1:])
