"""Log-probs of an iteration's tokens that its updates leave as they are: step (2) of GRPO.

    log π_old    of the policy that sampled; not needed if there is one update, which begins there
    log π_ref    of the reference, where there is a KL
    log π_T      of the teacher, where there is one

All of them are of the tokens as sampled, at the sampler's temperature. A teacher may be of another
size; rows of its table beyond the policy's tokens, which larger Gemmas have, are left out.

Where tokens are logged (`log.tokens`) there is one more pass of the policy, for the entropy of what
each token was drawn from. The drawing could say it for less; but then a program that training
depends on would be another one where tokens are logged, and that must change no bit.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from grpo.algorithms.objective import Objective
from grpo.algorithms.presets import objective_of
from grpo.rollout.sampler import Rollout
from grpo.training.logprobs import Logprobs, logprobs_of_rows
from grpo.training.parts import in_parts
from grpo.training.program import Program, Shape, rows_shape
from models.policy import Policy
from models.sharding import put_rows

Config = Mapping[str, Any]


class Needs(NamedTuple):
    """What the objective makes of an iteration."""

    objective: Objective
    updates: int  # of an iteration
    old: bool  # log-probs of the policy that sampled
    ratio: bool  # that updates compare theirs with: they do not all begin at that policy
    reference: bool  # log-probs of the reference
    penalty: bool  # of which the KL is taken from the reward
    teacher: bool  # log-probs of the teacher


def needs_of(stage: Config) -> Needs:
    """What an iteration of the stage needs."""
    objective = objective_of(stage["loss"])
    updates, reference = stage["epochs"] * stage["minibatches"], objective.kl_coef > 0
    penalty = reference and objective.kl_in == "reward"
    ratio = updates > 1 or stage["staleness"] > 0
    return Needs(
        objective=objective,
        updates=updates,
        old=ratio or penalty,
        ratio=ratio,
        reference=reference,
        penalty=penalty,
        teacher=stage["teacher"] is not None,
    )


class Frozen(NamedTuple):
    """The log-probs, as [B, C]; None is what is not needed."""

    old_BC: Any
    ref_BC: Any
    teacher_BC: Any
    entropy_BC: Any = None  # of the policy that sampled; in nats, and learnt from by nobody


def learnt(frozen: Frozen, needs: Needs) -> dict[str, Any]:
    """Those that the updates read, by the fields of Groups."""
    return {
        "old_logprob_BC": frozen.old_BC if needs.ratio else None,
        "ref_logprob_BC": frozen.ref_BC,
        "teacher_logprob_BC": frozen.teacher_BC,
    }


def frozen_programs(
    stage: Config,
    needs: Needs,
    logprobs: Logprobs,
    policy: Policy,
    teacher: Policy | None,
    tokens: Sequence[Shape],
    *,
    logged: bool,
) -> dict[str, Program]:
    """What reads the rows of a rollout, for each shape of them; `logprobs` are the policy's.

    `logged`: each token is written down, with its entropy.
    """

    def case(policy: Policy, x_BT: Shape) -> tuple:
        rows_BT = rows_shape(policy.mesh, x_BT.dtype, *x_BT.shape)
        return policy.variables, rows_BT, rows_BT

    def program(logprobs: Logprobs, *policies: Policy, of_rows: Any = logprobs_of_rows) -> Program:
        return Program(
            of_rows,
            tuple(case(one, x_BT) for one in policies for x_BT in tokens),
            {
                "logprobs": logprobs,
                "completion": stage["max_new_tokens"],
                "parts": stage["microbatches"] * stage["minibatches"],
            },
        )

    found = {}
    if scored := [policy] * needs.old + [policy.base()] * needs.reference:
        found["log-probs"] = program(logprobs, *scored)
    if teacher is not None:
        found["teacher log-probs"] = program(
            Logprobs(
                module=teacher.module,
                temperature=logprobs.temperature,
                with_entropy=False,
                vocab=policy.config.vocab_size,
                group=logprobs.group,
            ),
            teacher,
        )
    if logged:
        measured = dataclasses.replace(logprobs, with_entropy=True, entropy_learns=False)
        found["entropy"] = program(measured, policy, of_rows=entropy_of_rows)
    return found


@functools.partial(jax.jit, static_argnames=("logprobs", "completion", "parts"))
def entropy_of_rows(
    variables: dict[str, Any],
    ids_BT: jax.Array,
    mask_BT: jax.Array,
    *,
    logprobs: Logprobs,
    completion: int,
    parts: int,
) -> jax.Array:
    """entropy_BC of many rows: of the distribution that each token was drawn from."""

    def one(ids_BT: jax.Array, mask_BT: jax.Array) -> jax.Array | None:
        return logprobs(variables, ids_BT, mask_BT, completion)[1]

    return in_parts(one, ids_BT, mask_BT, parts=parts, group=logprobs.group)


def frozen_logprobs(
    programs: Mapping[str, Program],
    needs: Needs,
    policy: Policy,
    reference: Policy | None,
    teacher: Policy | None,
    rollout: Rollout,
) -> Frozen:
    """The log-probs of a rollout by `policy`, which has sampled it."""

    def by(one: Policy, name: str) -> jax.Array:
        rows = rollout.ids_BT, rollout.mask_BT
        if one.mesh != policy.mesh:
            rows = put_rows(rows, one.mesh)
        return programs[name](one.variables, *rows)

    return Frozen(
        old_BC=by(policy, "log-probs") if needs.old else None,
        ref_BC=by(reference, "log-probs") if reference is not None else None,
        teacher_BC=by(teacher, "teacher log-probs") if teacher is not None else None,
        entropy_BC=by(policy, "entropy") if "entropy" in programs else None,
    )
