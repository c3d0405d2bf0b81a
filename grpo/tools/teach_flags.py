"""The flags of grpo.tools.teach, and which of them go together."""

import argparse
import pathlib
from typing import Any

from grpo.checks.arguments import command_line
from grpo.data.templates import TEMPLATES
from grpo.judges.teacher import WAYS

POLICY_ONLY = {"ask": "instructed", "top_k": 0, "top_p": 1.0, "min_p": 0.0, "dtype": None}


def count(text: str) -> int:
    """A flag from 1 on."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def from_0(text: str) -> int:
    """A flag from 0 on, as a whole number."""
    if (value := int(text)) < 0:
        raise ValueError
    return value


def share(text: str) -> float:
    """A flag from 0 to 1."""
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError
    return value


def part(text: str) -> float:
    """A flag above 0, up to 1."""
    if not (value := share(text)) > 0:
        raise ValueError
    return value


def seed(text: str) -> int:
    """A flag that randomness begins with, as in a config; with room to count on."""
    if not 0 <= (value := int(text)) < 2**30:
        raise ValueError
    return value


def amount(text: str) -> float:
    """A flag from 0 on, not endless."""
    if not 0 <= (value := float(text)) < 1e9:
        raise ValueError
    return value


def parser() -> argparse.ArgumentParser:
    """The flags, and their defaults."""
    flags = command_line("teach", "Worked solutions from a teacher: a server, or a policy here.")
    add = flags.add_argument
    add("--questions", required=True, help="a file of examples: .jsonl, .csv, .parquet")
    add("--source", choices=("rows", "gsm8k"), default="rows", help="the form of its rows")
    add(
        "--columns",
        default="question=question,answer=answer",
        help="of rows: ours=the file's; also domain=...; domains are else told by keywords",
    )
    add("--max_bad", type=share, default=0.0, help="share of bad rows that is passed over")
    add("--examples", type=count, help="only the first so many")
    add("--out", required=True, type=pathlib.Path, help="the folder for all that is written")
    add("--temperature", type=amount, default=0.7, help="of the teacher's tokens")
    add("--max_tokens", type=count, default=1024, help="of a reply, its checkpoints among them")
    add("--seed", type=seed, default=0, help="of the first sample; the next ones count on")
    add("--samples", type=count, default=2, help="how often a question is asked at most")
    add("--batch", type=count, default=64, help="questions whose replies are kept at a time")
    add("--tokenizer", help="that counts: a tokenizer.model, or its directory; without it that of "
        "--policy, and with --url nothing is too long")  # fmt: skip
    add("--template", choices=TEMPLATES, default="reasoning_tags", help="of what is counted, and "
        "of what is asked as_trained")  # fmt: skip
    add("--max_prompt", type=count, default=256, help="tokens; longer ones are not asked")
    add("--max_target", type=count, default=512, help="tokens; longer solutions are dropped")
    add("--checkpoints", type=from_0, default=1, help="of a solution, at least")
    add("--min_kept", type=share, default=0.5, help="smallest share of questions with a solution")
    of_a_server(flags.add_argument_group("a server answers"))
    of_a_policy(flags.add_argument_group("or a policy here"))
    return flags  # fmt: skip


def of_a_server(group: Any) -> None:
    """The flags that an endpoint is asked with."""
    add = group.add_argument
    add("--url", help="of the API, such as https://host/v1")
    add("--model", help="its name there")
    add("--key", help="the environment variable that holds the key")
    add("--concurrency", type=count, default=8, help="questions on their way at a time")
    add("--item_seconds", type=amount, default=120.0, help="for a question and all its attempts")
    add("--attempts", type=count, default=5, help="how often a request is sent at most")
    add("--backoff", type=amount, default=1.0, help="seconds: the largest first wait")
    add("--longest_wait", type=amount, default=30.0, help="seconds that waits grow to")


def of_a_policy(group: Any) -> None:
    """The flags that a policy is sampled with."""
    add = group.add_argument
    add("--policy", help="<workdir>/checkpoints/<stage>/<step>, or a directory, a .gguf file, a "
        "Hub repository")  # fmt: skip
    add("--ask", choices=WAYS, default=POLICY_ONLY["ask"], help="it is told how to answer, or "
        "asked in --template as it is trained (STaR)")  # fmt: skip
    add("--dtype", choices=("float32", "bfloat16"), help="of its weights; without it the stored")
    add("--top_k", type=from_0, default=POLICY_ONLY["top_k"], help="0: all tokens")
    add("--top_p", type=part, default=POLICY_ONLY["top_p"], help="share of the probability")
    add("--min_p", type=share, default=POLICY_ONLY["min_p"], help="as a share of the likeliest's")


def wrong_in(flags: argparse.Namespace) -> str | None:
    """What flags say that does not go together, if they do."""
    if (flags.url is None) == (flags.policy is None):
        return "--url, --policy: name one of them, a server's address or where a policy is"
    if flags.url is not None and flags.model is None:
        return "--model: its name at the server is needed"
    if flags.url is not None:
        given = [name for name, value in POLICY_ONLY.items() if getattr(flags, name) != value]
        return f"--{given[0]}: is of --policy, and has no meaning for --url" if given else None
    for name in ("model", "key"):
        if getattr(flags, name) is not None:
            return f"--{name}: is of --url, and has no meaning for --policy"
    if flags.temperature == 0 and flags.samples > 1:
        return f"--temperature=0: the {flags.samples} samples would be the same: --samples=1"
    return None
