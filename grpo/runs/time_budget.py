"""A budget of time for a launch, such as '8h40m': it ends, saved, before that is used up.

    it stops as soon as    left <= MARGIN · (longest step + longest save)

A step is what lies between two looks at the wish to stop, whatever it is: compiling, a rollout, an
update. It counts for AGE times its own length: so a rollout does, which comes again, and compiling
does not for ever, which is done once. Before the first save SHARE of the budget is kept for it.
What takes longer than anything before it, such as compiling an evaluation late in a run, may be
late. The time begins with the launch; Python's own start is not in it.
"""

import time
from collections import deque

from grpo.checks.durations import seconds_of

MARGIN, AGE, SHARE = 1.2, 50.0, 0.05


def now() -> float:
    """Seconds of a clock that never goes back."""
    return time.monotonic()


class TimeBudget:
    """The time of a launch, from now on."""

    def __init__(self, text: str):
        self.text, self._seconds = text, seconds_of(text)
        self._began = self._looked = now()
        self._steps: deque[tuple[float, float]] = deque()  # when each ended, and how long it was
        self._save = SHARE * self._seconds
        self._is_measured = False

    def is_used_up(self) -> bool:
        """Whether it must end now; to be asked all the while."""
        here = now()
        self._steps.append((here, here - self._looked))
        self._looked = here
        self._steps = deque(step for step in self._steps if here - step[0] <= AGE * step[1])
        longest = max((length for _, length in self._steps), default=0.0)
        left = self._seconds - (here - self._began)
        return left <= MARGIN * (longest + self._save)

    def saved(self, seconds: float) -> None:
        """A save has taken so long, which is no step."""
        self._save = max(self._save, seconds) if self._is_measured else seconds
        self._is_measured, self._looked = True, now()
