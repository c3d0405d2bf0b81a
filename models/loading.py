"""A directory, a file or a Hub repository becomes a policy, and a policy a directory.

model = load_model("path/or/owner/name")  # or "a/file.gguf", or "package:of_a_model"
logits_BTV = logits(model, [model.tokenizer.encode("The capital of France is")])
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from models.checkpoints import deepmind, gguf, hf, package, peft
from models.checkpoints.files import CheckpointError
from models.checkpoints.hub import local_directory, local_file
from models.checkpoints.layout import MOST_EXTRA_ROWS
from models.config import GemmaConfig
from models.policy import Policy
from models.tokenizer import Tokenizer, TokenizerError

DTYPES = (None, "float32", "bfloat16")


def load_model(
    path: str | pathlib.Path,
    *,
    revision: str | None = None,
    adapter: str | pathlib.Path | None = None,
    dtype: str | None = None,
    config: GemmaConfig | None = None,
    mesh: Mesh | None = None,
) -> Policy:
    """A model from a directory, a GGUF file, a Hub repository or a package, with a PEFT adapter.

    `dtype` is "float32", "bfloat16" or None for the stored one (float32 if several are); `config`
    overrides what the directory says (and is needed for DeepMind checkpoints of unpublished sizes);
    with `mesh`, every device gets its own shards only.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {DTYPES}")
    found = find(path, revision, config)
    config = found.config
    lora, factors = None, None
    if adapter is not None:  # before the weights: what is wrong with it shows at once
        lora, factors = peft.load(local_directory(adapter, None), config, mesh)
    params, tokenizer = found.load(config, dtype, mesh), found.tokenizer
    return Policy(
        config=config, params=params, tokenizer=tokenizer, lora=lora, adapter=factors, mesh=mesh
    )


class Found(NamedTuple):
    """What lies at a path; `load(config, dtype, mesh)` reads its weights."""

    config: GemmaConfig
    tokenizer: Tokenizer | None
    load: Callable[[GemmaConfig, str | None, Mesh | None], Any]


def find(
    path: str | pathlib.Path, revision: str | None = None, config: GemmaConfig | None = None
) -> Found:
    """The model at a path as its headers describe it, or as `config` does."""
    file = package.model_file(str(path)) if package.is_named(path) else local_file(path, revision)
    if file is not None:
        header = gguf.read_header(file)
        config = config or gguf.from_header(header)
        tokenizer = gguf.read_tokenizer(header, config.family)
        load = functools.partial(gguf.load, header)
        return Found(_fit_vocabulary(file, config, tokenizer), tokenizer, load)
    directory = local_directory(path, revision)
    is_orbax = not (directory / "config.json").is_file() and deepmind.find(directory)
    source = deepmind if is_orbax else hf
    config = config or source.read_config(directory)
    # Kaggle's tokenizer lies beside the folder of the orbax tree.
    tokenizer = _tokenizer(directory, config.family)
    if tokenizer is None and is_orbax:
        tokenizer = _tokenizer(directory.parent, config.family)
    load = functools.partial(source.load, directory)
    return Found(_fit_vocabulary(directory, config, tokenizer), tokenizer, load)


def save_hf(model: Policy, directory: str | pathlib.Path) -> pathlib.Path:
    """Writes the model, its adapter merged, as a Hugging Face directory."""
    return hf.save(directory, model.config, model.merged().params, model.tokenizer)


def save_adapter(
    model: Policy, directory: str | pathlib.Path, base: str | None = None
) -> pathlib.Path:
    """Writes the model's adapter in PEFT's format; `base` names the model it belongs to."""
    if model.adapter is None or model.lora is None:
        raise CheckpointError("this model has no adapter to save")
    return peft.save(directory, model.config, model.lora, model.adapter, base=base)


def _tokenizer(directory: pathlib.Path, family: str) -> Tokenizer | None:
    """The directory's tokenizer, if it has one."""
    path = directory / "tokenizer.model"
    try:
        return Tokenizer.load(path, family) if path.is_file() else None
    except TokenizerError as error:
        raise CheckpointError(str(error)) from None


def _fit_vocabulary(
    path: pathlib.Path, config: GemmaConfig, tokenizer: Tokenizer | None
) -> GemmaConfig:
    """The config with as many tokens as the tokenizer, if only padding rows are beyond them."""
    if tokenizer is None or tokenizer.vocab_size == config.vocab_size:
        return config
    if not 0 < config.vocab_size - tokenizer.vocab_size <= MOST_EXTRA_ROWS:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} pieces, "
            f"the embedding {config.vocab_size} rows; they belong to different models"
        )
    return dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
