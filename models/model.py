"""A model as one value. `load_model` makes it from a directory, `logits` asks it.

model = load_model("path/or/owner/name")
logits_BTV = logits(model, [model.tokenizer.encode("The capital of France is")])
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.checkpoints import deepmind, hf, peft
from models.checkpoints.files import CheckpointError
from models.checkpoints.hub import local_directory
from models.checkpoints.layout import MOST_EXTRA_ROWS
from models.config import GemmaConfig
from models.gemma import Gemma, unembed
from models.lora import LoraConfig, merge
from models.tokenizer import Tokenizer, TokenizerError

Array = jax.Array
Params = Any
DTYPES = (None, "float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What a directory becomes. Without `adapter`, or with `base()`, it is the reference policy."""

    config: GemmaConfig
    params: Params
    tokenizer: Tokenizer | None = None
    lora: LoraConfig | None = None
    adapter: Params | None = None
    mesh: Mesh | None = None

    def __post_init__(self):
        if (self.lora is None) != (self.adapter is None):
            raise ValueError("Model: lora and adapter come together, or neither")

    @property
    def module(self) -> Gemma:
        """The linen module, computing in the dtype of the parameters."""
        dtype = self.params["embedder"]["table"].dtype
        scale = self.lora.scale if self.lora else 0.0
        return Gemma(self.config, dtype, dtype, scale, mesh=self.mesh)

    @property
    def variables(self) -> dict[str, Params]:
        """The module's collections."""
        adapter = {} if self.adapter is None else {"lora": self.adapter}
        return {"params": self.params, **adapter}

    def base(self) -> "Model":
        """The same parameters without the adapter; nothing is copied."""
        return dataclasses.replace(self, lora=None, adapter=None)

    def merged(self) -> "Model":
        """New parameters with the adapter in them; these ones stay as they are."""
        if self.adapter is None or self.lora is None:
            return self
        params = jax.jit(merge, static_argnums=2)(self.params, self.adapter, self.lora.scale)
        return dataclasses.replace(self.base(), params=params)


def load_model(
    path: str | pathlib.Path,
    *,
    revision: str | None = None,
    adapter: str | pathlib.Path | None = None,
    dtype: str | None = None,
    config: GemmaConfig | None = None,
    mesh: Mesh | None = None,
) -> Model:
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
    return Model(
        config=config, params=params, tokenizer=tokenizer, lora=lora, adapter=factors, mesh=mesh
    )


def save_hf(model: Model, directory: str | pathlib.Path) -> pathlib.Path:
    """Writes the model, its adapter merged, as a Hugging Face directory."""
    return hf.save(directory, model.config, model.merged().params, model.tokenizer)


def save_adapter(
    model: Model, directory: str | pathlib.Path, base: str | None = None
) -> pathlib.Path:
    """Writes the model's adapter in PEFT's format; `base` names the model it belongs to."""
    if model.adapter is None or model.lora is None:
        raise CheckpointError("this model has no adapter to save")
    return peft.save(directory, model.config, model.lora, model.adapter, base=base)


def logits(model: Model, ids: Sequence[Sequence[int]] | Array, mask: Any = None) -> Array:
    """logits_BTV in float32 for rows of token ids; `mask` is 0 where a row is padded."""
    try:
        ids_BT = np.asarray(ids)
    except ValueError:  # rows of different lengths
        ids_BT = np.zeros(0)
    if ids_BT.ndim != 2 or ids_BT.size == 0 or not np.issubdtype(ids_BT.dtype, np.integer):
        raise ValueError("ids: expected rows of token ids of equal, positive length")
    if ids_BT.min() < 0 or ids_BT.max() >= model.config.vocab_size:
        raise ValueError(
            f"ids: found {ids_BT.min()} .. {ids_BT.max()}, "
            f"the vocabulary is 0 .. {model.config.vocab_size - 1}"
        )
    mask_BT = np.ones_like(ids_BT) if mask is None else np.asarray(mask)
    if mask_BT.shape != ids_BT.shape:
        raise ValueError(f"mask: shape {mask_BT.shape}, ids have {ids_BT.shape}")
    return _logits(model.module, model.variables, jnp.asarray(ids_BT), jnp.asarray(mask_BT))


@functools.partial(jax.jit, static_argnames="module")
def _logits(module: Gemma, variables: dict[str, Params], ids_BT: Array, mask_BT: Array) -> Array:
    hidden_BTD, _ = module.apply(variables, ids_BT, mask_BT)
    return unembed(module.config, variables["params"], hidden_BTD)


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
