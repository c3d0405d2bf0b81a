"""What reward processes cost: microseconds per completion, beside the run's own process.

    python benchmarks/reward_pool.py

64 prompts, 16 completions each of about 600 characters, scored by correct_answer and strict_format:
quick functions, so that what is measured is the way there and back. The ways take turns; the table
has their medians, and the quickest turn.
"""

import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from configs import base
from grpo.reporting.progress import table
from grpo.rewards.pool import caller_of
from grpo.rewards.scores import Caller, score
from grpo.rewards.table import reward_table

PROMPTS, GROUP, TURNS, SECONDS = 64, 16, 15, 5.0
WAYS = {"the run's own process": 0, "1 process": 1, "2 processes": 2}
LINES = [
    {"name": "correct_answer", "weight": 1.0, "low": 0.0, "high": 1.0, "options": {"strict": True}},
    {"name": "strict_format", "weight": 0.1, "low": 0.0, "high": 1.0},
]


def main() -> None:
    """Prints the table."""
    rewards, took = reward_table(LINES), {name: [] for name in WAYS}
    steps = " ".join(f"Then {n} and {n} are {2 * n}." for n in range(25))
    examples = [
        {"question": f"What is {n} and {n}? {'So it is asked. ' * 20}", "answer": str(2 * n)}
        for n in range(PROMPTS)
        for _ in range(GROUP)
    ]
    texts = [
        f"<reasoning>{steps}</reasoning>\n<answer>{row // GROUP * 2 + row % 2}</answer>"
        for row in range(len(examples))
    ]

    def measure(left: list[str], callers: dict[str, Caller]) -> None:
        if left:
            stage = base.grpo().to_dict() | {"reward_workers": WAYS[left[0]]}
            began = time.perf_counter()
            with caller_of(rewards, [], stage, lambda: None) as caller:
                print(f"{left[0]}: {time.perf_counter() - began:.2f} s to start")
                measure(left[1:], {**callers, left[0]: caller})
            return
        for turn in range(TURNS + 1):
            for name, caller in callers.items():
                began = time.perf_counter()
                got = score(rewards, examples, texts, seconds=SECONDS, caller=caller)
                assert abs(got.total.mean() - 0.6) < 1e-9 and not got.reasons
                if turn:  # the first one warms up
                    took[name].append((time.perf_counter() - began) / len(texts) * 1e6)

    measure([*WAYS], {})
    rows = [
        [name, f"{statistics.median(of):.0f}", f"{min(of):.0f}",
         f"{statistics.median(of) * len(texts) / 1e3:.0f}"]
        for name, of in took.items()
    ]  # fmt: skip
    print(table(["scored in", "µs a completion", "least", "ms a batch"], rows))


if __name__ == "__main__":
    main()
