"""Distillation: a student learns what a teacher says of each next token.

    (1) rows      completions of the student as it stands, for a share `student_share` of the
                  updates; else the data's worked solutions
    (2) lessons   the teacher reads them: its hidden states, or its `top_k` likeliest tokens
    (3) update    θ <- AdamW(θ, ∇L)    L of grpo/algorithms/distillation.py

Which of the two (1) is, is decided by (seed, update). The teacher is the end of another stage, the
base, or one of `models`; it has the student's tokenizer, or the ids would mean something else. It
may have more rows in its table than there are tokens, as larger Gemmas do: these are left out.
`divergence/quarter_1` to `_4` is the divergence of the first to the last quarter of the positions.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo.algorithms.distillation import Distillation, Taught, with_weights
from grpo.algorithms.presets import distillation_of
from grpo.checks.rules import COUNT, DISTILLATION, SAMPLING, TEXT, TRAINED
from grpo.checks.sections import about_distillation, about_rows, about_training
from grpo.data.datasets import buckets_for
from grpo.data.examples import Example
from grpo.data.packing import one_each
from grpo.data.templates import prompt_ids, target_ids
from grpo.rollout.generate import Sampler, sampling_programs
from grpo.rollout.sampler import row_keys
from grpo.runs.policies import Policies
from grpo.runs.run import Run
from grpo.runs.shapes import model_shapes
from grpo.runs.solutions import solutions
from grpo.runs.stage_loop import StageLoop, running_calls, running_evaluation
from grpo.training.distill_losses import (
    Lesson,
    lessons_of_rows,
    make_distillation_loss,
    student_of,
)
from grpo.training.program import Program, rows_shape
from grpo.training.train_step import update_program
from models.policy import Policy
from models.sharding import put_rows

Config = Mapping[str, Any]
FIELDS = {
    **TRAINED,
    **SAMPLING,
    **DISTILLATION,
    "teacher": TEXT,
    "steps": COUNT,
    "batch": COUNT,
    "max_completion": COUNT,
}


def check(stage: Config, config: Config) -> Iterator[str]:
    """What is wrong with fields that are fine one by one."""
    yield from about_training(stage)
    yield from about_rows(stage["batch"], stage, config, "batch")
    yield from about_distillation(stage)


def build(
    config: Config, name: str, policy: Policy, teacher: Policy | None = None
) -> dict[str, Program]:
    """The programs of an update, for models that are there or for their shapes."""
    stage = config["stages"][name]
    teacher = teacher or model_shapes(config, stage["teacher"], policy)
    objective, buckets = distillation_of(stage["loss"]), buckets_for(config, stage["data"])
    B, C = stage["batch"], stage["max_completion"]
    widths = [bucket + C for bucket in buckets]
    read = [rows_shape(teacher.mesh, jnp.int32, B, width) for width in widths]
    lessons = Program(
        lessons_of_rows,
        tuple((teacher.variables, x_BT, x_BT) for x_BT in read),
        {
            "module": teacher.module,
            "vocab": policy.config.vocab_size,
            "completion": C,
            "temperature": objective.temperature,
            "top_k": objective.top_k,
            "parts": stage["microbatches"],
        },
    )
    tokens = [rows_shape(policy.mesh, jnp.int32, B, width) for width in widths]
    weight_BC = rows_shape(policy.mesh, jnp.float32, B, C)
    batches = [
        Taught(x_BT, x_BT, weight_BC, weight_BC, weight_BC, **shapes_of_rows(policy, found))
        for x_BT, found in zip(tokens, lessons.eval_shape(), strict=True)
    ]
    lesson = Lesson(module=policy.module, teacher=teacher.config, objective=objective)
    programs = {
        "update": update_program(
            make_distillation_loss(lesson),
            student_of(policy, teacher, objective),
            optimizer=stage["optimizer"],
            updates=stage["steps"],
            microbatches=stage["microbatches"],
            batches=batches,
        ),
        "lessons": lessons,
    }
    if objective.student_share:
        programs |= sampling_programs(
            policy, buckets, prompts=B, sampling=stage["sampling"], group=1, max_new_tokens=C
        )
    if stage["evaluate_every"]:
        programs |= running_evaluation(config, name, policy)
    return programs


def shapes_of_rows(policy: Policy, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes of arrays whose rows lie where the batch's do."""
    return {name: rows_shape(policy.mesh, x.dtype, *x.shape) for name, x in arrays.items()}


def calls(config: Config, name: str) -> dict[str, int | None]:
    """How often each of them runs; completions are sampled for a share of the updates."""
    stage = config["stages"][name]
    steps, share = stage["steps"], distillation_of(stage["loss"]).student_share
    sampled = math.ceil(steps * share)
    return {
        "update": steps,
        "lessons": steps,
        "decoding weights": sampled,
        "rollout": sampled,
        **running_calls(config, name, steps),
    }


class Setting(NamedTuple):
    """What stays the same through the stage."""

    run: Run
    name: str
    stage: Config
    objective: Distillation
    teacher: Policy
    programs: dict[str, Program]
    examples: Sequence[Example]
    order: Callable[[int], int]  # of the examples
    buckets: Sequence[int]


def run(run: Run, name: str, policies: Policies) -> None:
    """Runs the stage from where it is to its end."""
    stage, start = run.config["stages"][name], policies.start(name)
    teacher = policies.asked(stage["teacher"])
    objective, examples = distillation_of(stage["loss"]), run.data_of(name).train
    if objective.student_share < 1:  # else nothing is learnt from solutions
        limit = stage["max_completion"]
        examples = solutions(run, name, start.own_tokenizer, source=None, limit=limit, most=None)
    setting = Setting(
        run=run,
        name=name,
        stage=stage,
        objective=objective,
        teacher=teacher,
        programs=build(run.config, name, start, teacher),
        examples=examples,
        order=run.data_of(name).order(examples, run.seed),
        buckets=buckets_for(run.config, stage["data"]),
    )
    _, frozen, _ = setting.programs["update"].cases[0]
    loop = StageLoop(run, name, start, stage["steps"], updates=1)
    loop.evaluate_at_start()
    while not loop.is_done:
        rows, is_own = lesson(setting, loop)
        state, metrics = setting.programs["update"](loop.state, frozen, rows)
        arrays = {field: x for field, x in rows._asdict().items() if x is not None}
        loop.keep_update(state, {**metrics, "own": float(is_own)}, arrays)
        loop.move_to(loop.iteration + 1, taken=stage["batch"])
        loop.evaluate_save_or_stop()


def lesson(setting: Setting, loop: StageLoop) -> tuple[Taught, bool]:
    """The rows of an update with what the teacher says of them, and whether they are own ones."""
    stage, seed, B = setting.stage, setting.run.seed, setting.stage["batch"]
    coin = np.random.RandomState([seed, loop.iteration]).uniform()
    is_own = bool(coin < setting.objective.student_share)
    data, tokenizer = setting.run.data_of(setting.name), loop.policy.own_tokenizer
    examples = [setting.examples[setting.order(loop.taken + n)] for n in range(B)]
    prompts = [prompt_ids(tokenizer, example, data.template) for example in examples]
    if is_own:
        sampled = Sampler(loop.policy, setting.buckets).sample(
            prompts,
            row_keys(seed, "distill", loop.iteration, jnp.arange(B)),
            sampling=stage["sampling"], group=1, max_new_tokens=stage["max_completion"],
        )  # fmt: skip
        ids_BT, mask_BT = sampled.ids_BT, sampled.mask_BT
    else:
        targets = [target_ids(tokenizer, example, data.template) for example in examples]
        pairs = list(zip(prompts, targets, strict=True))
        ids_BT, mask_BT, _ = one_each(pairs, setting.buckets, stage["max_completion"])
    read = put_rows((ids_BT, mask_BT), setting.teacher.mesh)
    said = setting.programs["lessons"](setting.teacher.variables, *read)
    if setting.teacher.mesh != loop.policy.mesh:
        said = jax.device_get(said)  # from its devices to the student's
    counts_BC = jnp.float32(mask_BT[:, -stage["max_completion"] :])
    rows = Taught(ids_BT, mask_BT, counts_BC, counts_BC, counts_BC, **said)
    return put_rows(with_weights(rows, is_own), loop.policy.mesh), is_own
