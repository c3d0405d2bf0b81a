"""Planted mistakes: each one-line change to the code below must turn the named test red.

    python tests/mutations.py [--only=SUBSTRING] [--write]

Works on a copy of the tree, one mistake at a time. Prints a line per mistake and exits with 1 if
one went unnoticed; --write puts the table into docs/mutations.md.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
TABLE = ROOT / "docs" / "mutations.md"


class Mistake(NamedTuple):
    """A change of `old` (found exactly once) to `new`, and the test that is to notice."""

    what: str
    file: str
    old: str
    new: str
    test: str


MISTAKES = [
    Mistake("window one too wide", "models/attention.py",
            "distance_BTS < window", "distance_BTS <= window",
            "tests/test_attention.py::test_local_layers_see_exactly_the_window"),
    Mistake("window one too narrow, cached", "models/gemma.py",
            "window = config.window if is_local", "window = config.window - (cache is not None) if is_local",
            "tests/test_cache.py::test_cached_equals_full_at_every_step"),
    Mistake("padding keys are seen", "models/attention.py",
            "visible_BTS = (distance_BTS >= 0) & (key_position_BS >= 0)[:, None, :]",
            "visible_BTS = distance_BTS >= 0",
            "tests/test_attention.py::test_padding_sees_nothing_and_is_not_seen"),
    Mistake("packed examples see each other", "models/attention.py",
            "visible_BTS &= segment_BT[:, :, None] == segment_BT[:, None, :]", "pass",
            "tests/test_gemma.py::test_packed_examples_are_as_if_apart"),
    Mistake("mask value -inf: NaN where nothing is seen", "models/attention.py",
            "UNSEEN = -0.7 * float(jnp.finfo(jnp.float32).max)", "UNSEEN = -jnp.inf",
            "tests/test_attention.py::test_a_row_that_sees_nothing_is_finite_and_so_are_its_gradients"),
    Mistake("soft-cap after the mask", "models/attention.py",
            "jnp.where(visible_BTS[:, None, None, :, :], score_BKQTS, UNSEEN)",
            "softcap(jnp.where(visible_BTS[:, None, None, :, :], score_BKQTS, UNSEEN), cap)",
            "tests/test_attention.py::test_kernels_against_loops"),
    Mistake("key/value heads tiled, not repeated", "models/attention.py",
            '"B T (K Q) H -> B K Q T H", K=', '"B T (Q K) H -> B K Q T H", K=',
            "tests/test_attention.py::test_kernels_against_loops"),
    Mistake("attention weights in bfloat16 before the softmax", "models/attention.py",
            "jax.nn.softmax(score_BKQTS, axis=-1)",
            "jax.nn.softmax(score_BKQTS.astype(q_BTNH.dtype), axis=-1)",
            "tests/test_attention.py::test_bfloat16_softmax_is_float32"),
    Mistake("(1 + w) dropped", "models/layers.py",
            "1.0 + scale.astype(jnp.float32)", "scale.astype(jnp.float32)",
            "tests/test_layers.py::test_rmsnorm_by_hand"),
    Mistake("norm in the input's dtype", "models/layers.py",
            "x32 = x.astype(jnp.float32)", "x32 = x",
            "tests/test_layers.py::test_rmsnorm_of_bfloat16_is_float32_inside"),
    Mistake("epsilon outside the root", "models/layers.py",
            "jax.lax.rsqrt(variance + self.eps)", "1 / (jnp.sqrt(variance) + self.eps)",
            "tests/test_layers.py::test_rmsnorm_eps_is_inside_the_root"),
    Mistake("exact GELU", "models/layers.py",
            "approximate=True", "approximate=False",
            "tests/test_layers.py::test_mlp_is_tanh_gelu_of_the_gate_times_up"),
    Mistake("gate and up exchanged", "models/layers.py",
            'linear(wide, name="gate")(x_BTD), approximate', 'linear(wide, name="up")(x_BTD), approximate',
            "tests/test_layers.py::test_mlp_is_tanh_gelu_of_the_gate_times_up"),
    Mistake("RoPE over interleaved pairs", "models/layers.py",
            "first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)",
            "first, second = x.astype(jnp.float32)[..., ::2], x.astype(jnp.float32)[..., 1::2]",
            "tests/test_layers.py::test_rope_by_hand"),
    Mistake("RoPE factor ignored", "models/layers.py",
            "1 / (factor * theta**exponent)", "1 / theta**exponent",
            "tests/test_layers.py::test_rope_scaling_divides_positions"),
    Mistake("RoPE factor on local layers too", "models/gemma.py",
            "factor = 1.0 if is_local else config.global_rope_factor",
            "factor = config.global_rope_factor",
            "tests/test_gemma.py::test_against_the_oracle"),
    Mistake("global RoPE base on local layers", "models/gemma.py",
            "theta = config.local_theta if is_local else config.global_theta",
            "theta = config.global_theta",
            "tests/test_tunix.py::test_logits"),
    Mistake("queries scaled by head width", "models/layers.py",
            "c.query_scalar**-0.5", "c.head_dim**-0.5",
            "tests/test_transformers.py::test_logits"),
    Mistake("query norm after RoPE", "models/layers.py",
            "q_BTNH = (rope(q_BTNH, view.angle) *",
            'q_BTNH = (norm(name="q_norm2")(rope(q_BTNH, view.angle)) *',
            "tests/test_gemma.py::test_against_the_oracle"),
    Mistake("embedding scale in float32 under bfloat16", "models/gemma.py",
            "jnp.asarray(self.config.width**0.5, table_VD.dtype)",
            "jnp.asarray(self.config.width**0.5, jnp.float32)",
            "tests/test_gemma.py::test_embedding_scale_is_rounded_to_the_weights"),
    Mistake("final soft-cap forgotten", "models/gemma.py",
            "return softcap(logits_BTV, config.logit_softcap)", "return logits_BTV",
            "tests/test_transformers.py::test_logits"),
    Mistake("logits rounded to bfloat16", "models/gemma.py",
            "logits_BTV = contract(", "logits_BTV = jnp.einsum(",
            "tests/test_layers.py::test_every_contraction_of_a_bfloat16_model_accumulates_in_float32"),
    Mistake("positions by column, not by token", "models/gemma.py",
            "count_BT = jnp.cumsum(mask_BT > 0, axis=1)",
            "count_BT = jnp.cumsum(jnp.ones_like(mask_BT), axis=1)",
            "tests/test_gemma.py::test_row_positions"),
    Mistake("all layers local", "models/gemma.py",
            "is_local_L = jnp.array([kind == LOCAL for kind in config.kinds])",
            "is_local_L = jnp.array([True for kind in config.kinds])",
            "tests/test_gemma.py::test_against_the_oracle"),
    Mistake("global layer first in the pattern", "models/config.py",
            "pattern[layer % len(pattern)] for", "pattern[(layer + 1) % len(pattern)] for",
            "tests/test_config.py::test_global_layers"),
    Mistake("remat never applied", "models/gemma.py",
            "run_layer = REMAT[self.remat](run_layer)", "pass",
            "tests/test_gemma.py::test_remat_is_in_the_graph"),
    Mistake("cache length counts padding", "models/gemma.py",
            "jnp.sum(mask_BT > 0, axis=1, dtype=jnp.int32)", "mask_BT.shape[1]",
            "tests/test_cache.py::test_cached_equals_full_at_every_step"),
    Mistake("ring keeps the oldest keys", "models/cache.py",
            "(position_BT > end_B1 - slots)", "(position_BT < slots)",
            "tests/test_cache.py::test_writing_skips_padding_and_keeps_the_latest"),
    Mistake("chunk written before it attends", "models/cache.py",
            "return jax.tree.map(lambda *kv: jnp.concatenate(kv, axis=1), old, chunk), written",
            "return jax.tree.map(lambda *kv: jnp.concatenate(kv, axis=1), written, chunk), written",
            "tests/test_cache.py::test_cached_equals_full_at_every_step"),
    Mistake("slots off by one", "models/cache.py",
            "return jnp.maximum(last_B1 - (last_B1 - slot_1S) % slots, -1)",
            "return jnp.maximum(last_B1 - (last_B1 + 1 - slot_1S) % slots, -1)",
            "tests/test_cache.py::test_what_slots_hold"),
    Mistake("LoRA scale alpha, not alpha / rank", "models/lora.py",
            "return self.alpha / (", "return self.alpha or (",
            "tests/test_lora.py::test_scale"),
    Mistake("LoRA b drawn at random", "models/lora.py",
            "b = jnp.zeros((depth, lora.rank, *outputs), dtype)",
            "b = jax.random.normal(key, (depth, lora.rank, *outputs), dtype)",
            "tests/test_lora.py::test_a_fresh_adapter_changes_no_bit"),
    Mistake("merge forgets the scale", "models/lora.py",
            "scale * delta", "delta",
            "tests/test_lora.py::test_merge_adds_scale_times_a_b"),
    Mistake("adapter ignored in the forward", "models/layers.py",
            'if self.has_variable("lora", "a"):', "if False:",
            "tests/test_transformers.py::test_peft_adapter"),
    Mistake("BOS doubled in chats", "models/chat.py",
            'ids += tokenizer.encode(f"{role}\\n{content}", bos=False)',
            'ids += tokenizer.encode(f"{role}\\n{content}")',
            "tests/test_chat.py"),
    Mistake("content not stripped", "models/chat.py",
            '"".join(text.strip() for text in _texts(index, message))', '"".join(_texts(index, message))',
            "tests/test_chat.py"),
    Mistake("control tokens pass through", "models/tokenizer.py",
            "for part in self._without_control(text):", "for part in [text]:",
            "tests/test_tokenizer.py"),
    Mistake("Gemma 2's turn end for all", "models/tokenizer.py",
            "return (self.eos_id, self.end_of_turn_id)", "return (self.eos_id, 107)",
            "tests/test_model.py::test_what_an_exported_directory_holds"),
    Mistake("q_proj not transposed by heads", "models/checkpoints/hf.py",
            '"self_attn.q_proj.weight", "(N H) D -> D N H"', '"self_attn.q_proj.weight", "(H N) D -> D N H"',
            "tests/test_transformers.py::test_logits"),
    Mistake("post-attention norm as pre-MLP norm", "models/checkpoints/hf.py",
            '"post_attention_norm/scale": ("post_attention_layernorm.weight"',
            '"post_attention_norm/scale": ("pre_feedforward_layernorm.weight"',
            "tests/test_transformers.py::test_logits"),
    Mistake("kv_einsum's halves exchanged", "models/checkpoints/deepmind.py",
            '"attention/k/w": ("attn/kv_einsum/w", 0,', '"attention/k/w": ("attn/kv_einsum/w", 1,',
            "tests/test_deepmind.py::test_flat_trees"),
    Mistake("non-finite weights accepted", "models/checkpoints/files.py",
            "bad = (chunk.view(np.uint16) & 0x7F80) == 0x7F80", "bad = np.isnan(chunk)",
            "tests/test_bad_checkpoints.py"),
    Mistake("heads cut by fsdp, width by tp", "models/sharding.py",
            '(r"layers/attention/[qkv]/w", P(None, "fsdp", "tp", None))',
            '(r"layers/attention/[qkv]/w", P(None, "tp", "fsdp", None))',
            "tests/test_sharding.py::test_actual_sharding_of_every_large_weight_at_the_1b_shape"),
    Mistake("sizes that do not divide are not checked", "models/sharding.py",
            "a if a and n % mesh.shape[a] == 0 else None", "a",
            "tests/test_sharding.py::test_fit_drops_what_does_not_divide"),
]  # fmt: skip


def run(mistake: Mistake, tree: pathlib.Path) -> tuple[bool, str]:
    """Whether the named test went red, and the first line that says so."""
    file = tree / mistake.file
    source = file.read_text()
    if source.count(mistake.old) != 1:
        return False, f"{mistake.file} has {source.count(mistake.old)} places like {mistake.old!r}"
    file.write_text(source.replace(mistake.old, mistake.new))
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", mistake.test]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    file.write_text(source)
    red = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 1 and bool(red), red[0] if red else done.stdout[-200:]


def main() -> None:
    """Runs every mistake and tells which went unnoticed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows, missed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        ignore = shutil.ignore_patterns(".git", "__pycache__", ".venv", "runs")
        shutil.copytree(ROOT, tree, ignore=ignore)
        for mistake in MISTAKES:
            if arguments.only in f"{mistake.what} {mistake.file}":
                red, line = run(mistake, tree)
                missed += not red
                print(f"{'red' if red else 'MISSED'}  {mistake.what}: {line[:150]}", flush=True)
                test = line.split()[1].split("[")[0] if red else "**none**"
                rows.append(f"| {mistake.what} | `{mistake.file}` | `{test}` |")
    if arguments.write:
        head = "| planted mistake | in | turns red |\n|---|---|---|\n"
        TABLE.write_text(
            "# Planted mistakes\n\nWritten by `python tests/mutations.py --write`: each one-line "
            "mistake is made in a copy of the tree;\nthe first test that fails is shown.\n\n"
            f"{head}" + "\n".join(rows) + "\n"
        )
    sys.exit(missed and f"{missed} mistakes went unnoticed")


if __name__ == "__main__":
    main()
