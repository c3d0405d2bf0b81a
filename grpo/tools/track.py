"""Sends the metrics of a run to a tracker: python -m grpo.tools.track RUN --to=tensorboard

    python -m grpo.tools.track runs/tiny --to=tensorboard --follow

--to is tensorboard, wandb or trackio (grpo/reporting/trackers.py). With --follow it waits for more
until the run is finished or has failed, or until Ctrl-C; start it in a terminal of its own, while
the run goes or after it. A tracker that is off or not installed is said in one line, with exit code
0; one that fails ends this process, with exit code 1, and no run.
"""

import pathlib
import sys
import time
from collections.abc import Sequence

from grpo.checks.arguments import command_line
from grpo.reporting.failure import reason_of
from grpo.reporting.html.run_files import NoRunError, read_run
from grpo.reporting.trackers import TRACKERS, Tracker, TrackerOffError, new_rows


def forward(workdir: pathlib.Path, tracker: Tracker, *, follow: bool, every_s: float) -> int:
    """Sends every row, and with `follow` those that come; returns how many."""
    seen: set[tuple] = set()
    sent = 0
    while True:
        run = read_run(workdir)  # the state first: rows after it are the last
        for stage, step, metrics in new_rows(run.metrics, seen):
            tracker.send(stage, step, metrics)
            sent += 1
        if not follow or run.state in ("finished", "failed"):
            return sent
        time.sleep(every_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """From the command line."""
    parser = command_line("track", __doc__)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--to", choices=sorted(TRACKERS), required=True)
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--every_s", type=float, default=5.0)
    flags = parser.parse_args(arguments)
    tracker = None
    try:
        tracker = TRACKERS[flags.to](flags.run, read_run(flags.run).config)
        sent = forward(flags.run, tracker, follow=flags.follow, every_s=flags.every_s)
    except TrackerOffError as off:
        print(off)
        return 0
    except NoRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        print(f"error: {flags.to}: {reason_of(error)}", file=sys.stderr)
        return 1
    finally:
        if tracker is not None:
            tracker.close()
    print(f"{sent} rows of {flags.run} sent to {flags.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
