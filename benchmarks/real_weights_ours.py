"""This project's side of real_weights.py: it goes first and writes what the other sides read.

    python benchmarks/real_weights_ours.py FOLDER MODEL TEXT TOKENS ADAPTER

In FOLDER afterwards: `task.json` (the ids, the prompts), the directories `base`, `adapted_base`,
`adapter` and `merged` as save_hf and save_adapter write them, logits_TV of the ids as .npy, greedy
tokens as .json, and `sampling.json` (sampler beside trainer). ADAPTER is a checkpoint of a run, or
"random".
"""

import dataclasses
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.correction import effective_share, importance
from grpo.algorithms.losses import LIMIT
from grpo.rollout.generate import GREEDY, Sampler
from grpo.rollout.sampler import row_keys
from grpo.runs.open_policy import open_policy
from grpo.training.logprobs import Logprobs, logprobs_of_rows
from models import Policy, load_model, logits, save_adapter, save_hf
from models.cache import init_cache
from models.checkpoints import package
from models.gemma import unembed, unstack
from models.lora import LoraConfig, init_adapter
from models.tokenizer import Tokenizer

PROMPTS, EXAMPLES, NEW = 20, 4, 200  # a prompt has 0 to 3 worked examples in front of its question
CHUNKS = (400, 300, 300, 200)  # of the cached prefill: the second ends beyond the window of 512
BUCKETS = (128, 256, 512, 768, 1024)
BATCH, GROUP, SAMPLED, SAMPLED_PROMPTS = 10, 4, 64, 8
CAPS = (1.05, 2.0)
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def make_task(tokenizer: Tokenizer, file: pathlib.Path, tokens: int) -> dict:
    """What every side computes: `tokens` ids of running text, and prompts from later rows."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    solved = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]
    text = "\n\n".join(solved)
    ids = tokenizer.encode(text[: 8 * tokens])[:tokens]
    prompts = []
    for i in range(PROMPTS):
        last = 100 + EXAMPLES * (i + 1)
        worked = solved[last - i % EXAMPLES : last]
        prompts.append("\n\n".join([*worked, f"Question: {rows[last]['question']}\nAnswer:"]))
    return {
        "ids": ids,
        "texts": prompts,
        "prompts": [tokenizer.encode(prompt) for prompt in prompts],
        "new": NEW,
        "stop_ids": tokenizer.stop_ids,
    }


def with_random_adapter(policy: Policy) -> Policy:
    """An adapter of rank 16 that is not zero: it changes texts, and leaves them texts."""
    lora = LoraConfig(rank=16, alpha=32)
    a_key, b_key = jax.random.split(jax.random.key(0))
    adapter = init_adapter(lora, policy.params, a_key)
    leaves, structure = jax.tree.flatten(adapter)
    keys = jax.random.split(b_key, len(leaves))
    noise = [0.002 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    adapter = jax.tree.map(jnp.add, adapter, jax.tree.unflatten(structure, noise))
    return dataclasses.replace(policy, lora=lora, adapter=adapter)


def cached_logits(policy: Policy, ids: list[int]) -> np.ndarray:
    """logits_TV by way of the cache: a prefill in chunks, then one token at a time."""

    @jax.jit
    def forward(variables, ids_1T, cache):
        hidden_1TD, cache = policy.module.apply(variables, ids_1T, jnp.ones_like(ids_1T), cache)
        return unembed(policy.config, variables["params"], hidden_1TD)[0], cache

    variables = {name: unstack(tree) for name, tree in policy.variables.items()}  # as the sampler
    cache = init_cache(policy.config, 1, len(ids), policy.compute_dtype)
    sizes = (*CHUNKS, *[1] * (len(ids) - sum(CHUNKS)))
    cuts = np.split(np.array([ids], np.int32), np.cumsum(sizes)[:-1], axis=1)
    found = []
    for ids_1T in cuts:
        logits_TV, cache = forward(variables, jnp.asarray(ids_1T), cache)
        found.append(np.asarray(logits_TV))
    return np.concatenate(found)


def greedy(policy: Policy, task: dict) -> list[list[int]]:
    """The likeliest tokens after every prompt, by batches padded on the left."""
    sampler, found = Sampler(policy, BUCKETS), []
    for start in range(0, PROMPTS, BATCH):
        out = sampler.sample(
            task["prompts"][start : start + BATCH],
            row_keys(0, "evaluate", 0, jnp.arange(BATCH)),
            sampling=GREEDY,
            group=1,
            max_new_tokens=task["new"],
        )
        ids_BC, length_B = np.asarray(out.completion_ids_BC), np.asarray(out.length_B)
        found += [row[:n].tolist() for row, n in zip(ids_BC, length_B, strict=True)]
    return found


def sampler_beside_trainer(policy: Policy, task: dict) -> dict:
    """Completions drawn at temperature 1: their log-probs as drawn and as trained."""
    prompts = task["prompts"][:SAMPLED_PROMPTS]
    keys_B = row_keys(0, "train", 0, jnp.arange(len(prompts) * GROUP))
    out = Sampler(policy, BUCKETS).sample(
        prompts, keys_B, sampling=SAMPLING, group=GROUP, max_new_tokens=SAMPLED
    )
    scorer = Logprobs(module=policy.module, temperature=1.0, with_entropy=False)
    logprob_BC = logprobs_of_rows(
        policy.variables, out.ids_BT, out.mask_BT, logprobs=scorer, completion=SAMPLED, parts=8
    )
    mask_BC = out.completion_mask_BC
    gap_BC = logprob_BC - out.sample_logprob_BC
    gap = np.abs(np.asarray(gap_BC)[np.asarray(mask_BC)])
    told = {"tokens": gap.size, "mean": float(gap.mean()), "max": float(gap.max())}
    for level in ("token", "sequence"):
        w_BC = importance(gap_BC, mask_BC, level=level, limit=LIMIT)
        w = np.asarray(w_BC, np.float64)[np.asarray(mask_BC)]
        told[level] = {
            "range": [w.min(), w.max()],
            "mean": w.mean(),
            "effective": effective_share(w.mean(), np.square(w).mean()),
            "outside": {cap: float(((w > cap) | (w * cap < 1)).mean()) for cap in CAPS},
        }
    return told


def as_dtype(policy: Policy, dtype: str) -> Policy:
    """The policy with weights, activations and cache in a dtype."""
    params = jax.tree.map(lambda x: x.astype(dtype), policy.params)
    return dataclasses.replace(policy, params=params)


def main(folder: str, model: str, text: str, tokens: str, adapter: str) -> None:
    """Everything, one after the other: no two logits of the text are held at once."""
    to = pathlib.Path(folder)
    base = load_model(model, dtype="float32")
    task = make_task(base.own_tokenizer, pathlib.Path(text), int(tokens))
    assert len(task["ids"]) == int(tokens) > sum(CHUNKS), "the text is too short"
    task["gguf"] = str(package.model_file(model) if package.is_named(model) else model)
    (to / "task.json").write_text(json.dumps(task))
    save_hf(base, to / "base")
    np.save(to / "ours.cached.npy", cached_logits(base, task["ids"]))
    np.save(to / "ours.npy", logits(base, [task["ids"]])[0])
    half = as_dtype(base, "bfloat16")
    np.save(to / "ours.bfloat16.npy", logits(half, [task["ids"]])[0])
    told = {p.param_dtype.name: sampler_beside_trainer(p, task) for p in (base, half)}
    (to / "sampling.json").write_text(json.dumps(told))
    del half
    (to / "ours.base.json").write_text(json.dumps(greedy(base, task)))

    if adapter == "random":
        adapted = with_random_adapter(base)
    else:
        adapted = open_policy(adapter, dtype=None)
        assert adapted.param_dtype == jnp.float32, f"{adapter}: not in float32"
    del base
    save_hf(adapted.base(), to / "adapted_base")
    save_adapter(adapted, to / "adapter", base="adapted_base")
    save_hf(adapted, to / "merged")
    (to / "ours.adapter.json").write_text(json.dumps(greedy(adapted, task)))
    (to / "ours.about.json").write_text(json.dumps({"jax": jax.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
