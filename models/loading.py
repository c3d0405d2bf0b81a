"""A directory or a Hub repository becomes a policy, and a policy a directory.

model = load_model("path/or/owner/name")
logits_BTV = logits(model, [model.tokenizer.encode("The capital of France is")])
"""

import dataclasses
import pathlib

from jax.sharding import Mesh

from models.checkpoints import deepmind, hf, peft
from models.checkpoints.files import CheckpointError
from models.checkpoints.hub import local_directory
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
    """A model from a Hugging Face or DeepMind directory or a Hub repository, with a PEFT adapter.

    `dtype` is "float32", "bfloat16" or None for the stored one (float32 if several are); `config`
    overrides what the directory says (and is needed for DeepMind checkpoints of unpublished sizes);
    with `mesh`, every device gets its own shards only.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {DTYPES}")
    directory = local_directory(path, revision)
    is_orbax = not (directory / "config.json").is_file() and deepmind.find(directory)
    source = deepmind if is_orbax else hf
    config = config or source.read_config(directory)
    # Kaggle's tokenizer lies beside the folder of the orbax tree.
    tokenizer = _tokenizer(directory, config.family)
    if tokenizer is None and is_orbax:
        tokenizer = _tokenizer(directory.parent, config.family)
    config = _fit_vocabulary(directory, config, tokenizer)
    lora, factors = None, None
    if adapter is not None:  # before the weights: what is wrong with it shows at once
        lora, factors = peft.load(local_directory(adapter, None), config, mesh)
    params = source.load(directory, config, dtype, mesh)
    return Policy(
        config=config, params=params, tokenizer=tokenizer, lora=lora, adapter=factors, mesh=mesh
    )


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
    directory: pathlib.Path, config: GemmaConfig, tokenizer: Tokenizer | None
) -> GemmaConfig:
    """The config with as many tokens as the tokenizer, if only padding rows are beyond them."""
    if tokenizer is None or tokenizer.vocab_size == config.vocab_size:
        return config
    if not 0 < config.vocab_size - tokenizer.vocab_size <= MOST_EXTRA_ROWS:
        raise CheckpointError(
            f"{directory}: tokenizer.model has {tokenizer.vocab_size} pieces, "
            f"the embedding {config.vocab_size} rows; they belong to different models"
        )
    return dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
