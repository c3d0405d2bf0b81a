"""The loop around a training stage's updates: what it remembers, writes down, measures and saves.

A stage's memory is its TrainState, a cursor, between the updates of one iteration the groups that
these learn from, and perhaps a batch that was sampled and not scored, of this iteration or, where
one samples ahead, of the next (grpo/rollout/ahead.py). All of it goes
into a checkpoint, so a stage can end at any update and go on bit by bit; its journals are cut back
to the checkpoint it goes on from.

    iteration   of the stage, those done        update      those done of the iteration's updates
    taken       examples taken from the order   evaluated   the last iteration that was evaluated
    bad_updates, bad_rewards    updates that were not finite, iterations without rewards, in a row
    curriculum  what that remembers (grpo/data/curriculum.py), of stages that have one

An update that is not finite changes nothing (train_step.py). After `patience` bad ones in a row the
stage fails: the last good checkpoint stays the newest, and the batch is written into the run's
directory. Nor are parameters ever saved that are not finite, wherever they come from.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from grpo.data.datasets import buckets_for
from grpo.evaluation.evaluate import evaluate_greedy, greedy_programs
from grpo.reporting.html.report import write_if_old
from grpo.runs.resume import Resumed, cut_back, resume, together
from grpo.runs.run import Run, StoppedError
from grpo.runs.vouching import VOUCHED
from grpo.storage.vouched import Witness
from grpo.training.optimizer import optimizer_of, rate_of
from grpo.training.program import Program
from grpo.training.train_step import TrainState, all_finite, init_state
from models.policy import Policy
from models.reward_model import RewardModel
from models.sharding import shardings

Arrays = Mapping[str, Any]
SHOWN = {  # metric -> its name in the line of progress
    "loss": "loss",
    "reward/mean": "reward",
    "right": "right",
    "kl": "kl",
    "teacher/kl": "to teacher",
    "length/mean": "tokens",
    "preference/accuracy": "preferred",
}
FRESH = {
    "iteration": 0, "update": 0, "taken": 0, "evaluated": -1, "bad_updates": 0, "bad_rewards": 0,
}  # fmt: skip
BEST = "accuracy/strict"  # of the running evaluation: decides which checkpoint is the best


class TroubleError(RuntimeError):
    """A stage that cannot go on as it is; one line."""


class Late(NamedTuple):
    """Metrics of an update that are still on the device."""

    step: int
    iteration: int
    metrics: Arrays
    batch: Arrays


class StageLoop:
    """A training stage on its way, from its newest checkpoint if there is one."""

    def __init__(
        self,
        run: Run,
        stage: str,
        start: Policy | RewardModel,
        iterations: int,
        updates: int,  # of an iteration
    ):
        run.stop.check()  # nothing is begun that is not to go on
        self.run, self.stage, self.start, self.total = run, stage, start, iterations
        self.config = run.config["stages"][stage]
        self._finite = jax.jit(all_finite)
        self._rate = jax.jit(rate_of(self.config["optimizer"], iterations * updates))
        optimizer = optimizer_of(self.config["optimizer"], iterations * updates)
        self._metrics, self._timing = run.journal("metrics"), run.journal("timing")
        self._rollouts = run.journal("rollouts")
        self._witnesses = {name: Witness(run.journal(name)) for name in VOUCHED}
        self._checkpoints = run.checkpoints(stage)
        make = functools.partial(init_state, optimizer=optimizer)
        shapes = placed_shapes(jax.eval_shape(make, start.trainable), start.mesh)
        there = resume(self._checkpoints, stage, shapes, run.progress)
        if there is None:
            where = jax.tree.map(lambda x: x.sharding, shapes)
            state = jax.jit(make, out_shardings=where)(start.trainable)
            there = Resumed(state, dict(FRESH), {}, {}, 0.0, None)
        self.state: TrainState = there.state
        self.cursor, self.seconds = there.cursor, there.seconds  # of the stage, over all launches
        self.groups = there.groups  # that the iteration's updates learn from, by name
        self.ahead = there.ahead  # a batch that waits for its verdicts, by name
        # The batch that is now being scored, for a stop meanwhile: sampling takes longest.
        self.sampled: Callable[[], Arrays] = dict
        self._metric = there.metric
        self._skipped, self.step = float(self.state.skipped), int(self.state.step)
        cut_back(
            stage, self.step, self.cursor, bool(self.groups),
            metrics=self._metrics, timing=self._timing, rollouts=self._rollouts,
        )  # fmt: skip
        self._since = time.monotonic()
        self._facts: dict[str, float] = {}
        self._late: Late | None = None
        self._waiting: Sequence[dict[str, Any]] = ()  # rows of rollouts.jsonl

    # Where the stage is.

    @property
    def policy(self) -> Policy:
        """The policy as it stands; of a reward model the one below its head."""
        model = self.start.with_trained(self.state.trainable)
        return model if isinstance(model, Policy) else model.policy

    @property
    def iteration(self) -> int:
        """How many iterations are done."""
        return self.cursor["iteration"]

    @property
    def update(self) -> int:
        """How many updates of the iteration are done."""
        return self.cursor["update"]

    @property
    def taken(self) -> int:
        """How many examples have been taken from their order."""
        return self.cursor["taken"]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.iteration >= self.total

    # What a stage tells it.

    def keep_groups(
        self,
        groups: Arrays,
        rows: Sequence[dict[str, Any]],
        *,
        ahead: Arrays,
        taken: int,
        abstained: float,
        waits: bool,
    ) -> None:
        """Keeps what the iteration's updates learn from, and writes the rows that show it.

        Where these wait, for what the first update does to their tokens, `write_rollouts` is called
        after it: nothing is saved before. With the groups goes what was sampled for the next
        iteration, in place of what was for this one.

        Where it is one too many without rewards, all that was learnt before is saved first: a judge
        that is gone costs a launch, and no updates.
        """
        is_bad = abstained > self.config["max_abstained"]
        if is_bad and self.cursor["bad_rewards"] + 1 >= self.run.config["patience"]:
            self.save()
        self.groups, self.ahead, self.sampled = groups, ahead, dict
        self.cursor["taken"] += taken
        self._waiting = rows
        if not waits:
            self.write_rollouts(rows)
        reason = f"{abstained:.0%} of the completions have no reward"
        self._count_bad("bad_rewards", is_bad, reason, groups, self.step)

    def write_rollouts(self, rows: Sequence[dict[str, Any]]) -> None:
        """Writes the rows that show an iteration's groups; none of them waits any more."""
        self._waiting = ()
        for row in rows:
            self._rollouts.write(row)

    def keep_update(self, state: TrainState, metrics: Arrays, batch: Arrays) -> None:
        """Keeps the state after an update; its metrics are written with the next one.

        To look at them now would have the device wait for the host, once per update.
        """
        self.write_metrics()
        self.state, self.step = state, self.step + 1
        self._late = Late(self.step, self.iteration, metrics, batch)

    def write_metrics(self) -> None:
        """Writes and shows the metrics of the last update, if they are not yet written."""
        late, self._late = self._late, None
        if late is None:
            return
        row = {name: float(value) for name, value in jax.device_get(dict(late.metrics)).items()}
        row["learning_rate"] = float(np.asarray(self._rate(late.step - 1 - self._skipped)))
        where = {"stage": self.stage, "step": late.step, "iteration": late.iteration}
        self._metrics.write({**where, **row})
        self._timing.write({**where, "seconds": round(self._elapsed(), 3)})
        self._facts |= {short: row[name] for name, short in SHOWN.items() if name in row}
        self.run.progress.update(self.stage, late.iteration + 1, self.total, self._facts)
        is_bad, self._skipped = row["skipped"] > self._skipped, row["skipped"]
        reason = "loss, gradient or what the optimizer makes of it is not finite"
        self._count_bad("bad_updates", is_bad, reason, late.batch, late.step)

    def move_to(self, iteration: int, update: int = 0, taken: int = 0) -> None:
        """Moves the cursor; the groups of an iteration that is done are forgotten."""
        taken += self.cursor["taken"]
        self.cursor |= {"iteration": iteration, "update": update, "taken": taken}
        if update == 0:
            self.groups = {}

    # What is due where it stands.

    def evaluate_save_or_stop(self) -> None:
        """Between two updates: the running evaluation and the checkpoint that are due, or the end.

        Asked to stop, the run ends here, saved.
        """
        is_between = self.update == 0
        if is_between:
            self.evaluate_if_due()
        if self.is_done:
            self.save(final=True)
            return
        self.save_and_stop_if_asked()
        is_due = self.iteration % self.config["checkpoint_every"] == 0
        if is_between and (is_due or self._is_best()):
            self.save()

    def evaluate_at_start(self) -> None:
        """The evaluation before the first update, or one that was cut short."""
        if self.evaluate_if_due() and self.is_done:
            self.save(final=True)

    def save_and_stop_if_asked(self) -> None:
        """Ends the run here if it is to stop; what was not kept is made again later."""
        self.run.stop.hold()
        if self.run.stop.reason:
            self.save()
            raise StoppedError(self.run.stop.reason)

    def evaluate_if_due(self) -> bool:
        """The running evaluation, if it is due here and not done; whether it was."""
        every = self.config.get("evaluate_every", 0)  # a reward model answers nothing
        is_due = every and (self.iteration % every == 0 or self.is_done)
        if not is_due or self.cursor["evaluated"] == self.iteration:
            return False
        self.write_metrics()
        evaluation = self.run.config["evaluation"]
        name, split = evaluation["data"], evaluation["split"]
        dataset = self.run.datasets[name] if name else self.run.data_of(self.stage)
        examples = getattr(dataset, split)[: evaluation["examples"]]
        sizes = {field: evaluation[field] for field in ("batch", "max_new_tokens")}
        try:
            metrics, _ = evaluate_greedy(self.policy, examples, self.run.setting(dataset), **sizes)
        except StoppedError:
            self.save()
            raise
        self._metric = metrics[BEST]
        self.cursor["evaluated"] = self.iteration
        where = {"stage": self.stage, "step": self.step, "iteration": self.iteration}
        self._metrics.write({**where, **{f"eval/{name}": x for name, x in metrics.items()}})
        share, low, high = (metrics[f"{BEST}{end}"] for end in ("", "/low", "/high"))
        self.run.progress.say(
            f"{self.stage} {self.iteration}/{self.total}: {share:.1%} of {len(examples)} {split} "
            f"problems right ({low:.1%} to {high:.1%}), {metrics['length/mean']:.1f} tokens"
        )
        write_if_old(self.run.workdir, self.run.progress.say)
        return True

    def save(self, *, final: bool = False) -> None:
        """Writes a checkpoint of everything, and of the journals what they hold."""
        began = time.monotonic()
        self.run.stop.hold()
        self.write_metrics()
        if not self._finite((self.state.trainable, self.state.opt_state)):
            raise TroubleError(
                f"stage {self.stage}, update {self.step}: what is trained, or a moment of it, is "
                "not finite, and is not saved; the checkpoints before it are as they were"
            )
        # The accuracy is that of the parameters between two iterations.
        is_measured = self.cursor["evaluated"] == self.iteration and self.update == 0
        self._metric = self._metric if is_measured else None
        self._checkpoints.save(
            self.step,
            self.state,
            extra={
                "cursor": self.cursor,
                "seconds": round(self._elapsed(), 3),
                "metric": self._metric,
            },
            pending=together(self.groups, self.sampled() or self.ahead) or None,
            metric=self._metric,
            final=final,
            marks={name: witness.mark() for name, witness in self._witnesses.items()},
        )
        if self.run.stop.budget is not None:
            self.run.stop.budget.saved(time.monotonic() - began)

    def _is_best(self) -> bool:
        """Whether the evaluation just made is better than that of every checkpoint."""
        if self.cursor["evaluated"] != self.iteration or self._metric is None:
            return False  # before anything is read from the disk
        return self._checkpoints.beats_best(self._metric)

    def _count_bad(self, what: str, is_bad: bool, reason: str, batch: Arrays, step: int) -> None:
        """Counts bad ones in a row; too many end the run."""
        self.cursor[what] = self.cursor[what] + 1 if is_bad else 0
        patience = self.run.config["patience"]
        if self.cursor[what] < patience:
            return
        self.write_rollouts(self._waiting)
        file = self.run.workdir / f"{self.stage}-{step:08d}-bad.npz"
        np.savez(file, **batch)
        raise TroubleError(
            f"stage {self.stage}, update {step}: {reason}, {patience} times in a row; "
            f"the batch is in {file}"
        )

    def _elapsed(self) -> float:
        """Seconds that this stage has taken so far."""
        return self.seconds + time.monotonic() - self._since


def running_evaluation(config: Mapping[str, Any], stage: str, policy: Policy) -> dict[str, Program]:
    """The programs of `evaluate_if_due`."""
    evaluation = config["evaluation"]
    sizes = {field: evaluation[field] for field in ("examples", "batch", "max_new_tokens")}
    buckets = buckets_for(config, evaluation["data"] or config["stages"][stage]["data"])
    programs = greedy_programs(policy, buckets, **sizes)
    return {f"running evaluation, {name}": program for name, program in programs.items()}


def running_calls(config: Mapping[str, Any], stage: str, iterations: int) -> dict[str, int]:
    """How often these programs run in a stage: before the first iteration, and at its end."""
    evaluation, every = config["evaluation"], config["stages"][stage]["evaluate_every"]
    if not every:
        return {}
    times = 1 + -(-iterations // every)
    batches = -(-evaluation["examples"] // evaluation["batch"])
    return {
        "running evaluation, decoding weights": times,
        "running evaluation, rollout": times * batches,
    }


def placed_shapes(state: TrainState, mesh: Mesh | None) -> TrainState:
    """The shapes of a state, every array with the place where it is to stay.

    A state that is committed in parts (restored parameters, fresh counters) has another signature
    than the one that an update returns, and would compile the update twice.
    """
    if mesh is None:
        where = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), state)
    else:
        where = shardings(state, mesh)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, where
    )
