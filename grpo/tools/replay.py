"""Back to any update of a run, bit by bit: python -m grpo.tools.replay runs/tiny --step=37

--step=N             the update, from 1 on
--stage=NAME         its stage, of kind sft, preference or grpo; may be left out where the run has
                     one of them alone, or one of kind grpo
--set FIELD=VALUE    makes the update once more with another field of the stage, and shows both side
                     by side: loss.kl_coef=0, optimizer.learning_rate=1e-3, loss.scale=none; may be
                     given more than once
--forecast           each token's change, predicted to first order beside the realised one, by
                     learning rate
--by_reward          the gradient taken apart by reward function: norms, cosines, conflict
--write=FILE.json    all of it, and every token of the batch; its schema: grpo/replays/report.py
--scratch=DIRECTORY  where a temporary directory is made, by default the system's

The run's directory is only read. The update is made again by the stage's own code, from the nearest
checkpoint before it or from the beginning of the stage, and compared with the run's journals.

    exit code   0   bit-equal to what the run did        1   it differs: how, and what may be why
                2   it cannot be made again, in one line
"""

import argparse
import pathlib
import sys

from grpo.checks.arguments import command_line, end
from grpo.data.examples import DataError
from grpo.replays.changes import changes_of
from grpo.replays.looked_into import Wanted, looked_into
from grpo.replays.place import ReplayError, place_of
from grpo.replays.report import data_of, lines_of
from grpo.reporting.progress import Progress
from grpo.runs.compile_cache import keep_programs
from grpo.runs.stage_loop import TroubleError
from grpo.storage.journal import JournalError
from grpo.storage.manifest import write_json
from grpo.storage.snapshot import SnapshotError
from models.checkpoints.files import CheckpointError
from models.tokenizer import TokenizerError

EVERY_S = 10.0
WRONG = (
    ReplayError, SnapshotError, JournalError, DataError, CheckpointError, TokenizerError,
    TroubleError, OSError,
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command_line("replay", __doc__)
    flags.add_argument("run", type=pathlib.Path)
    flags.add_argument("--step", type=int, required=True)
    flags.add_argument("--stage")
    flags.add_argument("--set", action="append", default=[])
    flags.add_argument("--forecast", action="store_true")
    flags.add_argument("--by_reward", action="store_true")
    flags.add_argument("--write", type=pathlib.Path)
    flags.add_argument("--scratch", type=pathlib.Path)
    return flags


def main() -> int:
    """From the command line."""
    flags = parser().parse_args()
    keep_programs()
    progress = Progress(sys.stderr, every_s=EVERY_S)
    try:
        wanted = Wanted(changes_of(flags.set), flags.forecast, flags.by_reward)
        place = place_of(flags.run, flags.stage, flags.step)
        found = looked_into(place, wanted, flags.scratch, progress)
        if flags.write:
            write_json(flags.write, data_of(found))
    except WRONG as error:  # whatever a run's files may be; all of one line
        end(" ".join(str(error).split()))
    progress.close()
    print("\n".join(lines_of(found)))
    return 1 if found.verdict.different else 0


if __name__ == "__main__":
    sys.exit(main())
