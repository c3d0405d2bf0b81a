"""Worked solutions from a teacher that answers over HTTP: python -m grpo.tools.teach --help

    export TEACHER_KEY=...
    python -m grpo.tools.teach --questions=data/gsm8k/train.jsonl --source=gsm8k \\
        --url=https://host/v1 --model=NAME --key=TEACHER_KEY --out=data/traces \\
        --tokenizer=tokenizer.model

Any OpenAI-compatible server will do, one of your own (vLLM, llama.cpp) or a service's; its terms
say whether its output may be trained on. In the folder --out are then

    replies.jsonl   everything the teacher has said; what has been answered is not asked again
    traces.jsonl    the solutions that are kept, for config.data.source=traces
    dropped.jsonl   every other question, and why it has none

The same command goes on where it was stopped, whenever that was; questions that failed are asked
again. Solutions with a wrong answer, without the exact form or without checkpoints are dropped
(grpo/judges/teacher.py), and so are those beyond --max_target tokens: never cut. If less than
--min_kept of the questions have a solution, there is an error, and no traces.jsonl is written.
"""

import argparse
import pathlib
from collections import Counter
from collections.abc import Callable, Sequence

from grpo.checks.arguments import end
from grpo.data import gsm8k, traces
from grpo.data.examples import DataError, Example
from grpo.data.filters import keep_short, require_kept
from grpo.data.sources import load_examples
from grpo.data.templates import TEMPLATES, prompt_ids, target_ids
from grpo.judges.collecting import Collected, Sample, TeacherError, collect
from grpo.judges.http import asker
from grpo.judges.replay import recorded
from grpo.judges.server import Limits, ServerError
from grpo.judges.teacher import COLUMNS, Row, trace_of
from grpo.storage.journal import JournalError, encode, replace
from models.tokenizer import Tokenizer, TokenizerError

Read = Callable[[Example, str], Row | str]


def count(text: str) -> int:
    """A flag from 1 on."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def share(text: str) -> float:
    """A flag from 0 to 1."""
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError
    return value


def amount(text: str) -> float:
    """A flag from 0 on, not endless."""
    if not 0 <= (value := float(text)) < 1e9:
        raise ValueError
    return value


def parser() -> argparse.ArgumentParser:
    """The flags, and their defaults."""
    flags = argparse.ArgumentParser(
        prog="python -m grpo.tools.teach", allow_abbrev=False,
        description="Worked solutions from a teacher that answers over HTTP.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    flags.error = lambda message: end(message)  # as any other command line: one line, code 2
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
    add("--url", required=True, help="of the API, such as https://host/v1")
    add("--model", required=True, help="its name there")
    add("--key", help="the environment variable that holds the key")
    add("--temperature", type=amount, default=0.7, help="of the teacher's tokens")
    add("--max_tokens", type=count, default=1024, help="of a reply, its checkpoints among them")
    add("--seed", type=int, default=0, help="of the first sample; the next ones count on")
    add("--samples", type=count, default=2, help="how often a question is asked at most")
    add("--concurrency", type=count, default=8, help="questions on their way at a time")
    add("--batch", type=count, default=64, help="questions whose replies are kept at a time")
    add("--item_seconds", type=amount, default=120.0, help="for a question and all its attempts")
    add("--attempts", type=count, default=5, help="how often a request is sent at most")
    add("--backoff", type=amount, default=1.0, help="seconds: the largest first wait")
    add("--longest_wait", type=amount, default=30.0, help="seconds that waits grow to")
    add("--tokenizer", help="a tokenizer.model, or its directory; without it nothing is too long")
    add("--template", choices=TEMPLATES, default="reasoning_tags", help="of what is counted")
    add("--max_prompt", type=count, default=256, help="tokens; longer ones are not asked")
    add("--max_target", type=count, default=512, help="tokens; longer solutions are dropped")
    add("--min_kept", type=share, default=0.5, help="smallest share of questions with a solution")
    return flags  # fmt: skip


def questions_of(flags: argparse.Namespace) -> list[Example]:
    """The examples of the file."""
    if flags.source == "gsm8k":
        found, _ = gsm8k.load_gsm8k(flags.questions, gsm8k.COLUMNS, True, flags.max_bad, "removed")
    else:
        columns = dict(part.partition("=")[::2] for part in flags.columns.split(","))
        found, _ = load_examples(flags.questions, columns, flags.max_bad)
    return found[: flags.examples]


def samples_of(flags: argparse.Namespace) -> list[Sample]:
    """The teacher with a seed for each sample, every one out of the same recording."""
    limits = Limits(
        concurrency=flags.concurrency, item_seconds=flags.item_seconds,
        # Every question of a batch may take all of its time.
        batch_seconds=flags.item_seconds * -(-flags.batch // flags.concurrency),
        attempts=flags.attempts, backoff=flags.backoff, longest_wait=flags.longest_wait,
        max_bytes=2**20 + 64 * flags.max_tokens,
    )  # fmt: skip
    asked = {
        "model": flags.model, "temperature": flags.temperature, "max_tokens": flags.max_tokens,
    }  # fmt: skip
    seeds = [{**asked, "seed": flags.seed + n} for n in range(flags.samples)]
    asks = [
        asker(flags.url, key_variable=flags.key, settings=each, limits=limits) for each in seeds
    ]
    path = flags.out / "replies.jsonl"
    return [
        Sample(recorded(ask, path, again=True), each) for ask, each in zip(asks, seeds, strict=True)
    ]


def reader(flags: argparse.Namespace, tokenizer: Tokenizer | None) -> Read:
    """What makes a row of a reply, if its solution is not too long."""
    template = TEMPLATES[flags.template]

    def read(example: Example, reply: str) -> Row | str:
        row = trace_of(example, reply)
        if isinstance(row, str) or tokenizer is None:
            return row
        trace = traces.from_row(row, COLUMNS)
        is_long = len(target_ids(tokenizer, trace, template)) > flags.max_target
        return "too long" if is_long else row

    return read


def write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """A file of rows, whole or as it was."""
    replace(path, b"".join(encode(row) for row in rows))


def about(found: Collected, total: int, long: int) -> list[str]:
    """What there is to say at the end."""
    kept = len(found.kept)
    lines = [f"kept {kept} of {total} questions ({kept / total:.1%})"]
    domains = Counter(row["domain"] for row in found.kept.values())
    reasons = Counter(": ".join(r.split(": ")[:2]) if r.startswith("failed: ") else r
                      for r in found.dropped.values())  # fmt: skip
    reasons.update({"prompt too long": long} if long else {})
    for head, counts in (("kept", domains), ("dropped", reasons), ("teacher", found.metrics)):
        lines += [f"{head}: {name} {count:g}" for name, count in sorted(counts.items())]
    return lines


def teach(flags: argparse.Namespace) -> None:
    """Asks, filters and writes."""
    examples = questions_of(flags)
    total, template, asked = len(examples), TEMPLATES[flags.template], examples
    tokenizer = Tokenizer.load(flags.tokenizer) if flags.tokenizer else None
    if tokenizer:
        asked, _ = keep_short(
            examples, lambda e: len(prompt_ids(tokenizer, e, template)), flags.max_prompt
        )
    found = Collected({}, {}, Counter())
    read = reader(flags, tokenizer)
    for found in collect(asked, samples_of(flags), read=read, batch=flags.batch):
        print(f"{len(found.kept)} of {total} questions have a solution", flush=True)
    dropped = {e["id"]: found.dropped.get(e["id"], "prompt too long") for e in examples}
    write(
        flags.out / "dropped.jsonl",
        [{"id": n, "reason": why} for n, why in dropped.items() if n not in found.kept],
    )
    print("\n".join(about(found, total, total - len(asked))))
    require_kept(len(found.kept) / total, flags.min_kept, str(flags.questions))
    kept = [found.kept[e["id"]] for e in asked if e["id"] in found.kept]
    write(flags.out / "traces.jsonl", kept)


def main() -> None:
    """From the command line."""
    flags = parser().parse_args()
    try:
        teach(flags)
    except (DataError, JournalError, ServerError, TeacherError, TokenizerError) as error:
        end(str(error))
    except OSError as error:
        end(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
