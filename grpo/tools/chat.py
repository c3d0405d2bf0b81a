"""A conversation with any policy, its tokens shown as they are sampled.

    python -m grpo.tools.chat runs/tiny
    python -m grpo.tools.chat exported/tiny --samples=5          five answers and their vote
    echo "Ben has 5 pens, then adds 6. How many?" | python -m grpo.tools.chat exported/tiny

PATH is a run (the end of its last stage, as grpo.tools.export takes it), a checkpoint of one, a
Hugging Face directory, a GGUF file, a Hub repository or a package. What came out of a run is asked
as it was trained, with the instruction of its template before every question; --template names
another one, "plain" is the model's own chat format. /new begins anew, an interrupt ends a reply,
the end of the input ends the conversation; what is piped in is one question.

Each turn reads the whole conversation again, in prompts padded to 64, 128, 256, ... tokens, which
compile once each. Replies go back in as texts. Control characters of whatever a model writes are
left out. The vote is that of grpo/evaluation/votes.py: equal numbers are one answer; the first
completion that has the most frequent one is the reply.
"""

import argparse
import collections
import io
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import jax.numpy as jnp
import numpy as np

from grpo.algorithms.accuracy_estimates import NO_ANSWER
from grpo.checks.arguments import command_line, end
from grpo.data.datasets import section_of
from grpo.data.padding import pad_prompts
from grpo.data.templates import TEMPLATES, Template, asked, conversation_ids
from grpo.evaluation.votes import number_votes
from grpo.reporting.text import printable
from grpo.rewards.extract import lenient
from grpo.rollout.generate import decoding_module, decoding_program
from grpo.rollout.sampler import row_keys
from grpo.rollout.stream import stream
from grpo.runs.open_policy import is_checkpoint, open_policy, run_of
from grpo.tools.export import ABOUT, checkpoint_of
from grpo.tools.teach_flags import amount, count, from_0, part, seed, share
from models.chat import Message
from models.policy import Policy
from models.tokenizer import Tokenizer, TokenizerError

CHUNK = 8  # tokens between two looks at what was drawn
SMALLEST = 64  # tokens of a prompt's bucket
UNFINISHED = "\ufffd"  # how the first bytes of a character are decoded
NEW = "/new"


class Writer(NamedTuple):
    """A policy that is ready to write, and how."""

    policy: Policy
    weights: Mapping[str, Any]
    tokenizer: Tokenizer
    template: Template
    sampling: Mapping[str, Any]
    seed: int
    samples: int
    max_new_tokens: int


class ChatError(ValueError):
    """A turn that cannot be; the conversation goes on."""


def parser() -> argparse.ArgumentParser:
    """The flags, and their defaults."""
    flags = command_line("chat", "A conversation with any policy.")
    add = flags.add_argument
    add("path", help="a run or its checkpoint, a directory, a .gguf file, a repository, a package")
    add("--samples", type=count, default=1, help="completions of each turn, whose vote is shown")
    add("--max_new_tokens", type=count, default=256, help="of a reply")
    add("--temperature", type=amount, default=1.0, help="0: the likeliest token")
    add("--top_k", type=from_0, default=0, help="0: all tokens")
    add("--top_p", type=part, default=1.0, help="share of the probability")
    add("--min_p", type=share, default=0.0, help="as a share of the likeliest's")
    add("--seed", type=seed, default=0, help="of all draws")
    add("--template", choices=TEMPLATES, help="of questions; without it that of the run")
    add("--dtype", choices=("float32", "bfloat16"), help="of the weights; without it the stored")
    return flags


def template_of(path: pathlib.Path) -> Template:
    """How a policy was asked when it was trained; for what says nothing, plainly."""
    if is_checkpoint(path):
        config, _, stage = run_of(path)
        return TEMPLATES[section_of(config, config["stages"][stage].get("data"))["template"]]
    if not (path / ABOUT).is_file():
        return TEMPLATES["plain"]
    try:
        found = json.loads((path / ABOUT).read_text("utf-8"))["template"]
        texts = {name: found[name] for name in ("instruction", "model_line")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        texts = {}
    if not texts or not all(isinstance(text, str) for text in texts.values()):
        raise ChatError(f"{path / ABOUT}: does not say how to ask: name a --template")
    return texts


def opened(flags: argparse.Namespace) -> Writer:
    """The policy, with its weights as decoding wants them."""
    if flags.samples > 1 and flags.temperature == 0:
        raise ChatError(f"--temperature=0: the {flags.samples} samples would be the same")
    path = pathlib.Path(flags.path)
    if (path / "checkpoints").is_dir():
        path = checkpoint_of(path, None)
    template = TEMPLATES[flags.template] if flags.template else template_of(path)
    policy = open_policy(path if is_checkpoint(path) else flags.path, dtype=flags.dtype)
    sampling = {name: getattr(flags, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    return Writer(
        policy, decoding_program(policy)(policy.params, policy.adapter), policy.own_tokenizer,
        template, sampling, flags.seed, flags.samples, flags.max_new_tokens,
    )  # fmt: skip


def bucket_of(length: int) -> int:
    """What a prompt is padded to."""
    bucket = SMALLEST
    while bucket < length:
        bucket *= 2
    return bucket


def tokens_of(writer: Writer, messages: Sequence[Message], turn: int) -> Iterator[list[np.ndarray]]:
    """The tokens of all samples so far, as they come."""
    ids = conversation_ids(writer.tokenizer, messages, writer.template)
    room = writer.policy.config.max_positions - writer.max_new_tokens
    if len(ids) > room:
        raise ChatError(f"{len(ids)} tokens, and {room} are the most: {NEW} begins anew")
    ids_PI, mask_PI = pad_prompts([ids], [bucket_of(len(ids))])
    return stream(
        decoding_module(writer.policy, writer.weights), writer.weights, ids_PI, mask_PI,
        row_keys(writer.seed, "chat", turn, jnp.arange(writer.samples)), writer.sampling,
        np.array(writer.tokenizer.stop_ids, np.int32), group=writer.samples,
        max_new_tokens=writer.max_new_tokens, chunk=CHUNK,
    )  # fmt: skip


def text_of(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """The text of a completion, without the token that stopped it."""
    return tokenizer.decode(ids[:-1] if len(ids) and ids[-1] in tokenizer.stop_ids else ids)


def inert(text: str) -> str:
    """A text that a terminal shows and does not obey, with its lines."""
    return "\n".join(map(printable, text.split("\n")))


def reply(writer: Writer, messages: Sequence[Message], turn: int, out: TextIO) -> str:
    """One turn: what was written, shown while it is; of several samples the one that is voted for.

    An interrupt ends it where it is.
    """
    rows: list[np.ndarray] = [np.zeros(0, np.int32)] * writer.samples
    shown = 0
    try:
        for rows in tokens_of(writer, messages, turn):
            if writer.samples == 1:
                text = text_of(writer.tokenizer, rows[0])
                # The first bytes of a character wait for the others.
                ready = text.rstrip(UNFINISHED)
                out.write(inert(ready[shown:]))
                out.flush()
                shown = max(shown, len(ready))
    except KeyboardInterrupt:
        out.write(" [interrupted]")
    texts = [text_of(writer.tokenizer, ids) for ids in rows]
    if writer.samples > 1:
        return voted(texts, out)
    out.write(inert(texts[0][shown:]))
    if len(rows[0]) == writer.max_new_tokens and rows[0][-1] not in writer.tokenizer.stop_ids:
        out.write(f" [cut off after {writer.max_new_tokens} tokens]")
    out.write("\n")
    return texts[0]


def voted(texts: Sequence[str], out: TextIO) -> str:
    """Shows how often which answer was given; a completion with the most frequent one."""
    votes = number_votes(texts, np.zeros(len(texts), bool))
    counts = collections.Counter(int(vote) for vote in votes if vote != NO_ANSWER)
    first = {vote: texts[list(votes).index(vote)] for vote in counts}
    # Of equally many the one that came first: numbers count up as answers come.
    ranked = sorted(counts, key=lambda vote: (-counts[vote], vote))
    chosen = first[ranked[0]] if ranked else texts[0]
    out.write(inert(chosen) + "\n\n")
    for vote in ranked:
        out.write(f"{counts[vote]} of {len(texts)}: {printable(lenient(first[vote]) or '')}\n")
    if without := len(texts) - sum(counts.values()):
        out.write(f"{without} of {len(texts)}: no answer\n")
    return chosen


def converse(writer: Writer, questions: Iterator[str], out: TextIO) -> int:
    """The conversation, question by question; how many turns could not be."""
    messages: list[Message] = []
    failed = 0
    for turn, question in enumerate(questions):
        if question.strip() == NEW:
            messages = []
            continue
        messages.append(asked({"question": question}, writer.template))
        try:
            text = reply(writer, messages, turn, out)
        except (ChatError, TokenizerError) as error:
            out.write(f"error: {error}\n")
            messages.pop()
            failed += 1
            continue
        messages.append({"role": "assistant", "content": text})
    return failed


def questions_of(stdin: TextIO, out: TextIO) -> Iterator[str]:
    """What is typed, line by line; what is piped in is one question."""
    if not stdin.isatty():
        if text := stdin.read().strip():
            yield text
        return
    while True:
        out.write("> ")
        out.flush()
        try:
            line = stdin.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            out.write("\n")
            return
        if line.strip():
            yield line.strip()


def main() -> None:
    """From the command line."""
    flags = parser().parse_args()
    for file in (sys.stdin, sys.stdout):
        if isinstance(file, io.TextIOWrapper):  # others have no encoding
            file.reconfigure(errors="replace")
    try:
        writer = opened(flags)
    except (ValueError, OSError) as error:  # of models, runs and file systems
        end(f"{flags.path}: {' '.join(str(error).split())}")
    sys.exit(1 if converse(writer, questions_of(sys.stdin, sys.stdout), sys.stdout) else 0)


if __name__ == "__main__":
    main()
