"""Gemma 3 and 2 as transformers 5.23 and peft 0.21 compute them, on weights drawn by `recipe`.

    python -m tests.references.transformers_models    (pip install torch transformers peft)

writes beside this file transformers_models.npz (logits, loss and gradients of one supervised step,
logits with an adapter and with it merged), transformers_models.json (config.json and tensor shapes
as transformers writes them) and peft_adapter/ (as peft writes it). tests/test_transformers.py needs
neither library.
"""

import json
import pathlib
import shutil
import tempfile

import numpy as np

from tests.references.recipe import draw, draw_ids

HERE = pathlib.Path(__file__).parent
COMMON = {"vocab_size": 96, "sliding_window": 8, "max_position_embeddings": 512}
CASES = {
    # One KV head, head width apart from D/N, scaled RoPE, query scalar apart from both.
    "gemma3_kv1": {
        "num_hidden_layers": 7,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "gemma3_kv2": {
        "num_hidden_layers": 6,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
    },
    "gemma2_kv2": {
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
    },
}
SCALE = {"gemma3_kv1": 0.2, "gemma3_kv2": 0.2, "gemma2_kv2": 0.4}  # 0.4: soft-caps bite
LENGTH, PROMPT = 28, 10
ADAPTED = "gemma3_kv1"


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask: a full row, a left-padded and a right-padded one."""
    ids = draw_ids(1, 3, LENGTH, COMMON["vocab_size"])
    mask = np.ones_like(ids)
    mask[1, :9], mask[2, -6:] = 0, 0
    return ids * mask, mask


def targets(mask: np.ndarray) -> np.ndarray:
    """Which tokens the supervised loss scores: those after the prompt that are not padding."""
    scored = mask.copy()
    scored[:, :PROMPT] = 0
    return scored


def main() -> None:
    """Writes the fixture."""
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    arrays, about = {}, {}
    ids, mask = rows()
    ids_t, mask_t = torch.tensor(ids, dtype=torch.long), torch.tensor(mask)
    position = (mask_t.cumsum(1) - 1).clamp(min=0)
    labels = torch.where(torch.tensor(targets(mask)) > 0, ids_t, -100)
    for name, case in CASES.items():
        kind = transformers.Gemma3TextConfig if name[5] == "3" else transformers.Gemma2Config
        model_kind = (
            transformers.Gemma3ForCausalLM if name[5] == "3" else transformers.Gemma2ForCausalLM
        )
        config = kind(**COMMON, **case, attn_implementation="eager")
        model = model_kind(config).float()
        named = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
        shapes = {key: list(value.shape) for key, value in sorted(named.items())}
        weights = draw(shapes, 0, SCALE[name])
        model.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
        model.tie_weights()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            written = json.loads((pathlib.Path(folder) / "config.json").read_text())
        about[name] = {"config": written, "shapes": shapes}

        def run(model, labels=None):
            return model(
                input_ids=ids_t, attention_mask=mask_t, position_ids=position, labels=labels
            )

        out = run(model, labels)
        out.loss.backward()
        arrays[f"{name}/logits"] = out.logits.detach().numpy()
        arrays[f"{name}/loss"] = np.float32(out.loss.item())
        for key, value in model.named_parameters():
            arrays[f"{name}/grad/{key}"] = value.grad.numpy()
        if name == ADAPTED:
            lora = peft.LoraConfig(
                r=4,
                lora_alpha=6,
                task_type="CAUSAL_LM",
                target_modules=[f"{m}_proj" for m in ("q", "k", "v", "o", "gate", "up", "down")],
            )
            adapted = peft.get_peft_model(model, lora)
            state = peft.get_peft_model_state_dict(adapted)
            factors = draw({k: list(v.shape) for k, v in sorted(state.items())}, 5, 0.2)
            peft.set_peft_model_state_dict(
                adapted, {k: torch.tensor(v) for k, v in factors.items()}
            )
            shutil.rmtree(HERE / "peft_adapter", ignore_errors=True)
            adapted.save_pretrained(HERE / "peft_adapter")
            (HERE / "peft_adapter" / "README.md").unlink(missing_ok=True)
            arrays[f"{name}/adapted"] = run(adapted).logits.detach().numpy()
            arrays[f"{name}/merged"] = run(adapted.merge_and_unload()).logits.detach().numpy()
    np.savez_compressed(HERE / "transformers_models.npz", **arrays)
    (HERE / "transformers_models.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
