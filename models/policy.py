"""A policy: parameters, perhaps an adapter to them, and how they are applied.

It is the one value for a model that is sampled from, scored with, trained, or compared with: the
policy itself, its reference, a judge, a teacher. What is trained is the adapter where there is one,
else the parameters. Without `adapter`, or with `base()`, it is the reference policy.

Under `jax.eval_shape`, or made of `jax.ShapeDtypeStruct`s, it is a policy that is not there yet:
enough to lower programs for it.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from models.config import GemmaConfig
from models.gemma import Gemma, unembed
from models.lora import LoraConfig, merge
from models.sharding import FROZEN, put
from models.tokenizer import Tokenizer

Array = jax.Array
Params = Any
# Fields of how a model is computed.
APPLIED = (
    "dtype", "attention", "remat", "unroll", "share_prompts", "seats", "halvings", "frozen_weights",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """Parameters and perhaps an adapter, with all that says how they are applied."""

    config: GemmaConfig
    params: Params
    tokenizer: Tokenizer | None = None
    lora: LoraConfig | None = None
    adapter: Params | None = None
    mesh: Mesh | None = None
    dtype: Any = None  # of activations and cache; None: that of the parameters
    attention: str = "einsum"  # models/attention.py
    remat: str = "dots"  # models/gemma.py
    unroll: int = 1
    share_prompts: bool = True  # read once for the completions of a group: models/forks.py
    seats: int | None = None  # completions at a time: grpo/rollout/seats.py
    halvings: int = 0
    frozen_weights: str = "split"  # or whole: parameters that are not trained, along fsdp

    def __post_init__(self):
        if (self.lora is None) != (self.adapter is None):
            raise ValueError("Policy: lora and adapter come together, or neither")

    @property
    def param_dtype(self) -> jnp.dtype:
        """The dtype of the parameters."""
        return jnp.dtype(self.params["embedder"]["table"].dtype)

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The dtype of activations and cache."""
        return self.param_dtype if self.dtype is None else jnp.dtype(self.dtype)

    @property
    def scale(self) -> float:
        """What the adapter's product is multiplied by."""
        return self.lora.scale if self.lora else 0.0

    @property
    def module(self) -> Gemma:
        """The linen module that computes it."""
        return Gemma(
            self.config,
            self.compute_dtype,
            self.param_dtype,
            self.scale,
            attention=self.attention,
            remat=self.remat,
            unroll=self.unroll,
            mesh=self.mesh,
        )

    @property
    def own_tokenizer(self) -> Tokenizer:
        """The tokenizer, for what reads or writes texts: a policy may lack one."""
        if self.tokenizer is None:
            raise ValueError("this policy has no tokenizer")
        return self.tokenizer

    @property
    def trainable(self) -> Params:
        """What is trained."""
        return self.params if self.adapter is None else self.adapter

    @property
    def frozen(self) -> Params | None:
        """What is not."""
        return None if self.adapter is None else self.params

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes that cut parameters which are not trained."""
        return FROZEN[self.frozen_weights]

    @property
    def variables(self) -> dict[str, Params]:
        """The module's collections."""
        return variables_of(self.trainable, self.frozen)

    def with_trained(self, trainable: Params) -> "Policy":
        """The policy with other values for what is trained."""
        part = "params" if self.adapter is None else "adapter"
        return dataclasses.replace(self, **{part: trainable})

    def base(self) -> "Policy":
        """The same parameters without the adapter; nothing is copied."""
        return dataclasses.replace(self, lora=None, adapter=None)

    def on(self, mesh: Mesh | None) -> "Policy":
        """The policy on other devices."""
        params = put(self.params, mesh, self.axes)
        return dataclasses.replace(self, params=params, adapter=put(self.adapter, mesh), mesh=mesh)

    def placed(self) -> "Policy":
        """The policy with its parameters where those that are not trained are to be."""
        if self.mesh is None:
            return self
        return dataclasses.replace(self, params=put(self.params, self.mesh, self.axes))

    def merged(self) -> "Policy":
        """New parameters with the adapter in them, sharded as these, which stay as they are."""
        if self.adapter is None:
            return self
        shardings = jax.tree.map(lambda x: x.sharding, self.params)
        merge_here = jax.jit(merge, static_argnums=2, out_shardings=shardings)
        params = merge_here(self.params, self.adapter, self.scale)
        return dataclasses.replace(self.base(), params=params)


def variables_of(trainable: Params, frozen: Params | None) -> dict[str, Params]:
    """The module's collections: an adapter beside frozen parameters, or parameters alone."""
    return {"params": trainable} if frozen is None else {"params": frozen, "lora": trainable}


def logits(
    policy: Policy, ids: Sequence[Sequence[int]] | Array | np.ndarray, mask: Any = None
) -> Array:
    """logits_BTV in float32 for rows of token ids; `mask` is 0 where a row is padded."""
    try:
        ids_BT = np.asarray(ids)
    except ValueError:  # rows of different lengths
        ids_BT = np.zeros(0)
    if ids_BT.ndim != 2 or ids_BT.size == 0 or not np.issubdtype(ids_BT.dtype, np.integer):
        raise ValueError("ids: expected rows of token ids of equal, positive length")
    if ids_BT.min() < 0 or ids_BT.max() >= policy.config.vocab_size:
        raise ValueError(
            f"ids: found {ids_BT.min()} .. {ids_BT.max()}, "
            f"the vocabulary is 0 .. {policy.config.vocab_size - 1}"
        )
    mask_BT = np.ones_like(ids_BT) if mask is None else np.asarray(mask)
    if mask_BT.shape != ids_BT.shape:
        raise ValueError(f"mask: shape {mask_BT.shape}, ids have {ids_BT.shape}")
    return _logits(policy.module, policy.variables, jnp.asarray(ids_BT), jnp.asarray(mask_BT))


@functools.partial(jax.jit, static_argnames="module")
def _logits(module: Gemma, variables: dict[str, Params], ids_BT: Array, mask_BT: Array) -> Array:
    hidden_BTD, _ = module.apply(variables, ids_BT, mask_BT)
    return unembed(module.config, variables["params"], hidden_BTD)
