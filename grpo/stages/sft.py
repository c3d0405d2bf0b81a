"""Supervised training on worked solutions.

    θ <- AdamW(θ, ∇ -(1/n) Σ_t log π(target_t | prompt, target_<t))

over the n target tokens of an update, the end of the turn among them: prompts are read, never
learnt. Examples come in the order of (seed, index). With `packing` a row holds several of them,
which do not see each other.
"""

from grpo.data.examples import Example
from grpo.data.filters import keep_short, require_kept
from grpo.data.order import example_at
from grpo.data.packing import Pair, Rows, one_each, packed
from grpo.data.templates import prompt_ids, target_ids
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.stage_loop import Course
from grpo.training.scoring import Scorer, make_supervised_loss
from grpo.training.train_step import make_train_step


def sft(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    config = run.config["stages"][name]
    start = policies.start(name)
    examples = solutions(run, config["examples"], config["max_target"])
    course = Course(run, name, start, config["steps"], updates=1)
    update_policy = make_train_step(
        make_supervised_loss(
            Scorer(module=run.module(start), temperature=1.0, with_entropy=False),
            is_adapter=start.adapter is not None,
        ),
        course.optimizer,
        microbatches=config["microbatches"],
        state=course.state,
        frozen=start.frozen,
        rows=config["batch"],
        mesh=run.mesh,
    )

    def pair(index: int) -> Pair:
        example = examples[example_at(run.seed, index, len(examples))]
        prompt = prompt_ids(run.tokenizer, example, run.template)
        return prompt, target_ids(run.tokenizer, example, run.template)

    def batch(taken: int) -> tuple[Rows, int]:
        """The rows of an update, and how many examples they hold."""
        if config["packing"] is not None:
            stream = (pair(taken + n) for n in range(2**31))
            return packed(stream, config["batch"], config["packing"])
        pairs = [pair(taken + n) for n in range(config["batch"])]
        return one_each(pairs, run.config["data"]["buckets"], config["max_target"]), len(pairs)

    course.begin()
    while not course.is_done:
        rows, count = batch(course.cursor["taken"])
        state, metrics = update_policy(course.state, start.frozen, rows)
        course.updated(state, metrics, rows._asdict())
        course.advance(course.iteration + 1, taken=count)


def solutions(run: Run, count: int | None, max_target: int) -> list[Example]:
    """The first `count` training examples, those with too long a solution dropped."""
    examples = [example for example in run.data.train[:count] if example["reasoning"]]
    kept, ratio = keep_short(
        examples, lambda e: len(target_ids(run.tokenizer, e, run.template)), max_target
    )
    require_kept(
        len(kept) / max(len(run.data.train[:count]), 1),
        run.config["data"]["min_kept"],
        f"solutions of at most {max_target} tokens",
    )
    run.progress.say(f"{len(kept)} solutions, {ratio:.1%} fit {max_target} tokens")
    return kept
