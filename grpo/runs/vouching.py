"""Whether the journals of a run hold what its newest checkpoints vouch for."""

from grpo.runs.run import Run
from grpo.storage.vouched import journal_fault, read_marks, rows_missing

VOUCHED = ("metrics", "timing", "rollouts")


def look_at_journals(run: Run) -> None:
    """Says which rows are gone or are others, and counts those that are gone as lost."""
    for stage in run.config["pipeline"]:
        checkpoints = run.checkpoints(stage)
        if not (steps := checkpoints.steps()):
            continue
        for name, mark in read_marks(checkpoints.path(steps[-1])).items():
            journal = run.journal(name)
            if wrong := journal_fault(journal.path, mark):
                run.progress.say(f"{stage} at update {steps[-1]}: {wrong}")
            journal.lost = max(journal.lost, mark.lost + rows_missing(journal.path, mark))
