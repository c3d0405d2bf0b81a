"""Worked solutions from a teacher, a server or a policy: python -m grpo.tools.teach --help

    export TEACHER_KEY=...
    python -m grpo.tools.teach --questions=data/gsm8k/train.jsonl --source=gsm8k \\
        --url=https://host/v1 --model=NAME --key=TEACHER_KEY --out=data/traces \\
        --tokenizer=tokenizer.model

Any OpenAI-compatible server will do, one of your own (vLLM, llama.cpp) or a service's; its terms
say whether its output may be trained on. Or a policy here, which is told the same:

    python -m grpo.tools.teach --questions=data/gsm8k/train.jsonl --source=gsm8k \\
        --policy=google/gemma-3-4b-it --out=data/traces

Or a policy as its own teacher, asked as it is trained (STaR):

    python -m grpo.tools.teach --questions=data/gsm8k/train.jsonl --source=gsm8k \\
        --policy=runs/NAME/checkpoints/sft/00000500 --ask=as_trained --template=reasoning_tags \\
        --samples=4 --temperature=1.0 --max_tokens=512 --out=data/own_traces

In the folder --out are then

    replies.jsonl   everything the teacher has said; what has been answered is not asked again
    traces.jsonl    the solutions that are kept, for config.data.source=traces
    dropped.jsonl   every other question, and why it has none

The same command goes on where it was stopped, whenever that was; questions that failed are asked
again. Solutions with a wrong answer, without the exact form or without checkpoints are dropped
(grpo/judges/teacher.py), and so are those beyond --max_target tokens: never cut. If less than
--min_kept of the questions have a solution, there is an error, and no traces.jsonl is written.
"""

import argparse
from collections import Counter
from collections.abc import Sequence

from grpo.checks.arguments import end
from grpo.data import gsm8k
from grpo.data.examples import DataError, Example
from grpo.data.sources import load_examples
from grpo.data.templates import TEMPLATES, prompt_ids
from grpo.judges.collecting import Collected, Sample, TeacherError
from grpo.judges.http import asker
from grpo.judges.replay import recorded
from grpo.judges.server import Limits, ServerError
from grpo.judges.teacher import WAYS
from grpo.runs.open_policy import open_policy
from grpo.runs.policy_teacher import asked_by, policy_samples
from grpo.runs.traces import REPLIES, Wanted, about, gather, keep
from grpo.storage.journal import JournalError
from grpo.tools.teach_flags import parser, wrong_in
from models.policy import Policy
from models.tokenizer import Tokenizer, TokenizerError

WIDTH = 32  # tokens that the prompts of a policy are padded to a multiple of


def questions_of(flags: argparse.Namespace) -> list[Example]:
    """The examples of the file."""
    if flags.source == "gsm8k":
        found, _ = gsm8k.load_gsm8k(flags.questions, gsm8k.COLUMNS, True, flags.max_bad, "removed")
    else:
        columns = dict(part.partition("=")[::2] for part in flags.columns.split(","))
        found, _ = load_examples(flags.questions, columns, flags.max_bad)
    return found[: flags.examples]


def server_samples(flags: argparse.Namespace) -> list[Sample]:
    """The server with a seed for each sample, every one out of the same recording."""
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
    path = flags.out / REPLIES
    return [
        Sample(recorded(ask, path, again=True), each) for ask, each in zip(asks, seeds, strict=True)
    ]


def opened(path: str, dtype: str | None) -> tuple[Policy, Tokenizer]:
    """The policy at a path, and its tokenizer; whatever is wrong with it in one line."""
    try:
        policy = open_policy(path, dtype=dtype)
        return policy, policy.own_tokenizer
    except (ValueError, OSError) as error:
        raise TeacherError(f"--policy={path}: {' '.join(str(error).split())}") from None


def own_samples(
    flags: argparse.Namespace, policy: Policy, examples: Sequence[Example]
) -> list[Sample]:
    """The policy with a seed for each sample, and prompts as long as the longest of these."""
    template, prompt_of = asked_by(flags.ask, TEMPLATES[flags.template]), WAYS[flags.ask].prompt_of
    longest = max(
        len(prompt_ids(policy.own_tokenizer, {"question": prompt_of(example)}, template))
        for example in examples
    )
    sampling = {name: getattr(flags, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    return policy_samples(
        policy, flags.out / REPLIES, template=template, sampling=sampling,
        max_new_tokens=flags.max_tokens, seed=flags.seed, samples=flags.samples,
        bucket=-(-longest // WIDTH) * WIDTH, batch=flags.batch,
    )  # fmt: skip


def teach(flags: argparse.Namespace) -> None:
    """Asks, filters and writes."""
    examples, template = questions_of(flags), TEMPLATES[flags.template]
    tokenizer = Tokenizer.load(flags.tokenizer) if flags.tokenizer else None
    policy, own_tokenizer = opened(flags.policy, flags.dtype) if flags.policy else (None, None)
    tokenizer = tokenizer or own_tokenizer

    def fits(example: Example) -> bool:
        return not tokenizer or len(prompt_ids(tokenizer, example, template)) <= flags.max_prompt

    wanted = Wanted(flags.ask, fits, flags.checkpoints, tokenizer, template, flags.max_target)
    if policy is None:
        samples = server_samples(flags)
    else:
        asked = [example for example in examples if fits(example)]
        samples = own_samples(flags, policy, asked) if asked else []
    found = Collected({}, {}, Counter())
    for found in gather(examples, samples, wanted, batch=flags.batch):
        print(f"{len(found.kept)} of {len(examples)} questions have a solution", flush=True)
    print("\n".join(about(found, len(examples))))
    keep(flags.out, examples, found, flags.min_kept, str(flags.questions))


def main() -> None:
    """From the command line."""
    flags = parser().parse_args()
    if wrong := wrong_in(flags):
        end(wrong)
    try:
        teach(flags)
    except (DataError, JournalError, ServerError, TeacherError, TokenizerError) as error:
        end(str(error))
    except OSError as error:
        end(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
