"""This code beside Tunix and transformers, on the same weights and data: piece by piece.

    python -m grpo.tools.parity --size=gemma3_micro     random weights
    python -m grpo.tools.parity --checkpoint=PATH       of a run, a Hugging Face directory, a GGUF
                                                        file, a package
    python -m grpo.tools.parity --tunix=.parity/bin/python --transformers=.torch/bin/python

Prints a line for each piece: the largest difference, the tolerance and the verdict, as
grpo/parity/compare.py says; what differs on purpose says why. Each reference runs in a process of
its own, by the interpreter that is named, so that neither need be installed beside this project.
An adapter is merged, all arrays are float32. Tunix has the whole table (layers, sampler, losses, a
step of its trainer), transformers the model and its greedy tokens.

Exit code: 0 all within, 1 something differs, 2 there is no reference, or no such model.
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.advantages import advantages
from grpo.checks.arguments import command_line, end
from grpo.parity import compare, ours
from grpo.parity.beside import REFERENCES, BesideError, beside, installed
from grpo.parity.compare import DIFFERS, Row
from grpo.parity.task import BATCH_NEW, STOPS, TEMPERATURE, make_task
from grpo.parity.words import ADVANTAGE
from grpo.reporting.progress import table
from grpo.runs.open_policy import open_policy
from grpo.tools.teach_flags import count, seed
from models.config import SIZES, GemmaConfig
from models.gemma import param_shapes
from models.loading import save_hf
from models.policy import Policy

SPREAD = 0.1  # of drawn weights, norms among them: no weight is idle, soft caps bite
MOST_TOKENS = 640  # of the walk, unless --tokens says otherwise
LEAST_TOKENS = 8  # of which a quarter are padding


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command_line("parity", "This code beside Tunix and transformers, piece by piece.")
    add = flags.add_argument
    add("--checkpoint", help="a checkpoint of a run, a directory, a .gguf file, a repository")
    add("--size", default="gemma3_micro", choices=SIZES, help="of random weights")
    add("--seed", type=seed, default=0, help="of the data, and of random weights")
    add("--tokens", type=count, help="of the rows that go through the layers; without it 16 more "
        f"than the window, at most {MOST_TOKENS}")  # fmt: skip
    for name in REFERENCES:
        add(f"--{name}", default=sys.executable, metavar="PYTHON", help=f"that has {name}")
    return flags


def drawn(config: GemmaConfig, number: int) -> Policy:
    """Random weights."""
    random = np.random.RandomState([number, 1])

    def draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(SPREAD * random.standard_normal(shape.shape), jnp.float32)

    return Policy(config=config, params=jax.tree.map(draw, param_shapes(config)))


def opened(flags: argparse.Namespace) -> Policy:
    """The policy that is compared: parameters alone, in float32."""
    if flags.checkpoint is None:
        return drawn(SIZES[flags.size], flags.seed)
    try:
        policy = open_policy(flags.checkpoint, dtype="float32").merged()
    except (ValueError, OSError) as error:
        end(f"--checkpoint={flags.checkpoint}: {' '.join(str(error).split())}")
    return Policy(config=policy.config, params=policy.params)


def our_side(policy: Policy, task: ours.Arrays) -> tuple[dict[str, Any], ours.Arrays]:
    """Our arrays; the task gains what the references are given of them."""
    walk = ours.layers(policy, task)
    batch = task["batch_ids"], task["batch_mask"], BATCH_NEW, TEMPERATURE
    logprob_BC, entropy_BC = ours.logprobs(policy, *batch)
    task |= {"old": logprob_BC + task["old_noise"], "ref": logprob_BC + task["ref_noise"]}
    greedy = ours.completions(policy, task, ours.GREEDY, [ours.NEVER])
    draws = ours.completions(policy, task, ours.DRAWN, [ours.NEVER])
    tokens = np.asarray(greedy.completion_ids_BC)
    task["stops"] = tokens.reshape(-1)[5 :: tokens.shape[1] + 3][:STOPS]
    stopped = ours.completions(policy, task, ours.GREEDY, task["stops"])
    task["ours_drawn"] = np.asarray(draws.completion_ids_BC)
    found = {
        "logprobs": logprob_BC,
        "greedy": tokens,
        "greedy_logprob": np.asarray(greedy.sample_logprob_BC),
        "drawn": task["ours_drawn"],
        "drawn_logprob": np.asarray(draws.sample_logprob_BC),
        "stopped_lengths": np.asarray(stopped.length_B),
        **ours.losses(logprob_BC, entropy_BC, task),
    }
    for name, words in ADVANTAGE.items():
        found[f"advantages:{name}"] = np.asarray(advantages(jnp.asarray(task["rewards"]), **words))
    return found, walk


def rows_beside_tunix(
    policy: Policy, task: ours.Arrays, found: Mapping[str, Any], theirs: Mapping[str, Any]
) -> list[Row]:
    """What only Tunix has beside the layers: sampler, losses, a step."""

    def score(completion_BC: np.ndarray) -> np.ndarray:
        return ours.completion_logprobs(policy, task, completion_BC)

    return [
        *compare.tunix_sampler_rows(found, theirs, score),
        *compare.loss_rows(found, theirs, compare.completion_mask(task)),
        *compare.step_rows(*ours.step(policy, task), theirs),
    ]


def shown(rows: list[Row]) -> str:
    """The table, and below it why some rows differ on purpose."""
    lines = [
        [row.piece, f"{row.gap:.0f}" if row.gap % 1 == 0 else f"{row.gap:.1e}",
         "" if row.tolerance is None else f"{row.tolerance:g}", row.verdict]
        for row in rows
    ]  # fmt: skip
    text = table(["piece", "largest difference", "tolerance", "verdict"], lines)
    reasons = [f"- {row.piece}: {row.reason}" for row in rows if row.tolerance is None]
    more = ["On purpose (docs/tunix.md has all of them):", *reasons] if reasons else []
    return "\n".join([text, *more])


def parity(flags: argparse.Namespace) -> int:
    """Runs what is there and prints its tables; the exit code."""
    there = [name for name in REFERENCES if installed(name, getattr(flags, name))]
    for name in REFERENCES.keys() - there:
        python = getattr(flags, name)
        print(f"{name}: not in {python}: {REFERENCES[name].install}, and --{name}=PYTHON where "
              "that is another environment", file=sys.stderr)  # fmt: skip
    if not there:
        end("there is no reference to compare with")
    policy = opened(flags)
    config = policy.config
    tokens = max(LEAST_TOKENS, flags.tokens or min(config.window + 16, MOST_TOKENS))
    task = make_task(config, seed=flags.seed, tokens=tokens)
    found, walk = our_side(policy, task)
    what = flags.checkpoint or f"{flags.size}, weights drawn by seed {flags.seed}"
    print(f"{what}: {config.num_layers} layers, {config.vocab_size} pieces, float32, jax "
          f"{jax.__version__} on {jax.default_backend()}; rows of {tokens} tokens")  # fmt: skip
    if tokens <= config.window:
        print(f"no row is longer than the window of {config.window}: --tokens={config.window + 16}")
    differ = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        save_hf(policy, folder / "model")
        for reference in there:
            theirs, about = beside(reference, getattr(flags, reference), folder, task, walk)
            rows = compare.layer_rows(config, walk, theirs, task["walk_mask"])
            if reference == "tunix":
                rows += rows_beside_tunix(policy, task, found, theirs)
            else:
                rows += compare.sampler_rows(found, theirs)
            versions = ", ".join(f"{package} {version}" for package, version in about.items())
            print(f"\nBeside {versions}\n\n{shown(rows)}", flush=True)
            differ += sum(row.verdict == DIFFERS for row in rows)
    print(f"\n{differ} pieces differ" if differ else "\nall pieces are within their tolerance")
    return 1 if differ else 0


def main() -> None:
    """From the command line."""
    try:
        sys.exit(parity(parser().parse_args()))
    except BesideError as error:
        end(str(error))


if __name__ == "__main__":
    main()
