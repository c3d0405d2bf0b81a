"""A run made by hand: two layers, a tokenizer of 300 pieces, a few sums."""

import dataclasses
import functools
import io
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from grpo.data.datasets import Dataset
from grpo.data.templates import TEMPLATES
from grpo.reporting.progress import Progress
from grpo.runs.run import Run, Stop
from models.gemma import init_params
from models.policy import Policy
from models.tokenizer import Tokenizer, train_tokenizer
from tests.helpers import SHALLOW

EXAMPLES = [
    {
        "id": f"sum-{n}",
        "question": f"What is {n} and {n * n}?",
        "answer": str(n + n * n),
        "reasoning": f"{n}+{n * n}={n + n * n}",
        "checkpoints": [],
        "level": 1,
    }
    for n in range(1, 8)
]


@functools.cache
def tokenizer() -> Tokenizer:
    """Digits, bytes and the words of the examples."""
    return Tokenizer(train_tokenizer(["What is 1 and 234567890?", "<answer>"], 300), "gemma3")


@functools.cache
def size():
    """The shallow model with the tokenizer's vocabulary."""
    return dataclasses.replace(SHALLOW, vocab_size=tokenizer().vocab_size)


@functools.cache
def params():
    """Weights of spread 0.3, embeddings of 0.1: more than the last token decides on the next."""
    shapes = jax.eval_shape(lambda: init_params(size(), jax.random.key(0), jnp.float32))
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.RandomState(3)
    drawn = [jnp.asarray(random.standard_normal(x.shape) * 0.3, x.dtype) for x in leaves]
    tree = jax.tree.unflatten(structure, drawn)
    tree["embedder"] = jax.tree.map(lambda x: x / 3, tree["embedder"])
    return tree


def policy_of(**changes) -> Policy:
    """These weights as a policy."""
    made = {"config": size(), "params": params(), "tokenizer": tokenizer()}
    return Policy(**{**made, **changes})


def run_of(workdir: pathlib.Path, *, seed: int = 0, pipeline=(), stages=None, data=None) -> Run:
    """A run with this project's defaults but for what is said here."""
    config = base.base().to_dict()
    config |= {"seed": seed, "pipeline": pipeline, "stages": stages or {}}
    config["data"] |= {"max_prompt": 48, "buckets": (32, 48)}
    return Run(
        config=config,
        workdir=workdir,
        datasets={"data": data or Dataset(EXAMPLES, [], EXAMPLES, TEMPLATES["plain"], {})},
        progress=Progress(io.StringIO(), every_s=0),
        stop=Stop(),
    )
