"""Our exports in transformers and peft, and transformers' multimodal directories in ours.

    python -m tests.references.interop     (this package with torch, transformers and peft beside
    it)

Prints a line per check with the largest difference of the logits; exits with 1 if one is above its
bound.
"""

import os
import pathlib
import sys
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch
import transformers

from models import Policy, load_model, logits, save_adapter, save_hf
from models.chat import encode_chat
from models.gemma import init_params
from models.tokenizer import Tokenizer, train_tokenizer
from tests.helpers import TINY, tiny_ids, tiny_params
from tests.test_lora import LORA, drawn

BOUND = 1e-4
IDS = tiny_ids(2, 24)
failed = []


def check(what: str, theirs: torch.Tensor, ours) -> None:
    """One line, and a mark where the difference is too large."""
    gap = np.abs(theirs.detach().float().numpy() - np.asarray(ours)).max()
    print(f"{what}: max |logit difference| {gap:.1e} (logits up to {np.abs(ours).max():.1f})")
    if not gap <= BOUND:
        failed.append(what)


def run(model, ids=IDS) -> torch.Tensor:
    """A transformers model's logits."""
    return model(input_ids=torch.tensor(ids, dtype=torch.long)).logits


def exports(folder: pathlib.Path) -> None:
    """Merged directories in transformers, adapters in peft."""
    for family in TINY:
        model = Policy(
            config=TINY[family],
            params=tiny_params(family),
            lora=LORA,
            adapter=drawn(LORA, family),
        )
        merged = save_hf(model, folder / f"{family}-merged")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            merged, attn_implementation="eager", dtype=torch.float32
        )
        check(f"{family} merged, in transformers", run(theirs), logits(model.merged(), IDS))
        base = save_hf(model.base(), folder / f"{family}-base")
        adapter = save_adapter(model, folder / f"{family}-adapter", base=str(base))
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            base, attn_implementation="eager", dtype=torch.float32
        )
        check(f"{family} base, in transformers", run(theirs), logits(model.base(), IDS))
        theirs = peft.PeftModel.from_pretrained(theirs, adapter)
        check(f"{family} adapter, in peft", run(theirs), logits(model, IDS))


def tokenizers(folder: pathlib.Path) -> None:
    """An exported tokenizer and its chat template in transformers."""
    talk = [
        {"role": "user", "content": " What is 1 + 2? "},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "And\n\n2 + 3?"},
    ]
    for family in TINY:
        tokenizer = Tokenizer(train_tokenizer(["What is 1 + 2?\n\nAnd 3?"] * 3, 400), family)
        config = TINY[family].__class__(
            **{**vars(TINY[family]), "vocab_size": tokenizer.vocab_size}
        )
        params = init_params(config, jax.random.key(0), jnp.bfloat16)
        out = save_hf(
            Policy(config=config, params=params, tokenizer=tokenizer), folder / f"{family}-tok"
        )
        theirs = transformers.AutoTokenizer.from_pretrained(out)
        ids = theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        same = list(ids) == encode_chat(tokenizer, talk)
        print(f"{family} chat template and tokenizer, in transformers: ids equal: {same}")
        if not same:
            print(list(ids), encode_chat(tokenizer, talk))
            failed.append(f"{family} tokenizer")
        generation = transformers.GenerationConfig.from_pretrained(out)
        print(
            f"{family} generation_config, in transformers: eos_token_id {generation.eos_token_id}"
        )


def multimodal(folder: pathlib.Path) -> None:
    """A directory as transformers writes its multimodal models, in ours."""
    text = {
        "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 7,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8,
        "query_pre_attn_scalar": 24, "max_position_embeddings": 512,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, image_token_index=95, attn_implementation="eager"
    )
    model = transformers.Gemma3ForConditionalGeneration(config).float()
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.2)
    model.save_pretrained(folder / "multimodal")
    ids = np.where(IDS == 95, 94, IDS)
    check(
        "gemma3 multimodal, in ours",
        run(model, ids),
        logits(load_model(folder / "multimodal"), ids),
    )


if __name__ == "__main__":
    print(*(f"{m.__name__} {m.__version__}" for m in (transformers, peft, torch)))
    with tempfile.TemporaryDirectory() as name:
        for part in (exports, tokenizers, multimodal):
            part(pathlib.Path(name))
    sys.exit(f"failed: {failed}" if failed else 0)
