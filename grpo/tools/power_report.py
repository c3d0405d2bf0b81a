"""What grpo.tools.power prints of its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from grpo.evaluation.power import DEAD, advised_difficulty, advised_group
from grpo.evaluation.reward_order import format_first, wrong_above_right
from grpo.reporting.progress import table
from grpo.rewards.table import pays
from grpo.tools.hack import about, report_of

Numbers = Mapping[str, Any]


def report(config: Mapping[str, Any], found: Numbers) -> list[str]:
    """All lines."""
    own = found["by temperature"][str(found["temperature"])]
    reward = "none" if own["reward"] is None else f"{own['reward']:.3f}"
    return [
        f"{found['stage']}: {found['examples']} training examples, {found['samples']} samples of "
        f"each at temperature {found['temperature']:g}; {own['tokens']:.1f} tokens, "
        f"{own['truncated']:.1%} truncated, mean reward {reward}, "
        f"{own['without reward']:.1%} without a reward",
        "", *about_rates(own),
        "", *about_signal(found, own),
        *about_temperatures(found),
        "", *about_differences(found),
        "", *about_rewards(config, found["stage"]),
    ]  # fmt: skip


def share(value: float) -> str:
    """Per cent."""
    return f"{100 * value:.1f}"


def with_interval(part: Numbers, name: str) -> str:
    """A share with its interval."""
    if "low" not in part:
        return share(part[name])
    return f"{share(part[name])} ({100 * part['low']:.0f} to {100 * part['high']:.0f})"


def about_rates(own: Numbers) -> Iterator[str]:
    """Pass rates."""
    parts = own["by difficulty"]
    ks = [name for name in parts["all"] if name.startswith("pass@") and name != "pass@1"]
    rows = [
        [name, str(part["problems"]), with_interval(part, "share"), *(share(part[k]) for k in ks)]
        for name, part in parts.items()
    ]
    yield table(["right, % (95 %)", "problems", "pass@1", *ks], rows)
    yield ""
    yield table(["right of a problem's samples", *own["histogram"]],
                [["problems", *map(str, own["histogram"].values())]])  # fmt: skip
    if len(parts) > 2:
        yield ""
        yield (
            f"difficulty: {advised_difficulty(parts)}, whose share of right answers is nearest "
            "50 % (where their variance is largest)"
        )


def about_signal(found: Numbers, own: Numbers) -> Iterator[str]:
    """Dead groups by size."""
    rows = []
    for one in own["signal"]:
        note = "here" if one["group"] == found["group"] else ""
        note = f"{note} fitted".strip() if one["fitted"] else note
        rows.append([f"G = {one['group']}", with_interval(one, "dead"), f"{one['groups']:g}",
                     f"{one['teaching']:.1f}", note])  # fmt: skip
    yield table(["group", "dead, % (95 %)", "groups", "that teach", ""], rows)
    rows_of_iteration = found["prompts"] * found["group"]
    yield ""
    yield (
        f"group: G = {advised_group(own['signal'])}, the smallest with fewer than {DEAD:.0%} dead "
        f"groups (or the one with the fewest), with {rows_of_iteration} completions per iteration"
    )


def about_temperatures(found: Numbers) -> Iterator[str]:
    """What other temperatures change."""
    if len(found["by temperature"]) < 2:
        return
    rows, dead_at = [], {}
    for temperature, own in found["by temperature"].items():
        signal = next(one for one in own["signal"] if one["group"] == found["group"])
        right, dead_at[temperature] = own["by difficulty"]["all"], signal["dead"]
        most = [name for name in right if name.startswith("pass@")][-1]
        rows.append([temperature, with_interval(right, "share"), share(right[most]),
                     with_interval(signal, "dead"), f"{own['tokens']:.1f}",
                     share(own["truncated"])])  # fmt: skip
    yield ""
    header = ["temperature", "right, %", most, f"dead, G = {found['group']}", "tokens", "truncated"]
    yield table(header, rows)
    best = min(dead_at, key=lambda temperature: dead_at[temperature])
    yield ""
    yield f"temperature: {best}, with the fewest dead groups of those tried"


def about_differences(found: Numbers) -> Iterator[str]:
    """What the evaluation can show."""
    rows = [
        [what, str(one["problems here"]), str(one["completions"]), share(one["paired_se"]),
         share(one["paired"]), share(one["unpaired"]), str(one["problems"]), str(one["seeds"])]
        for what, one in found["differences"].items()
    ]  # fmt: skip
    wanted = f"{100 * found['wanted']:g} points"
    yield table(
        ["evaluation", "problems", "of each", "SE, points", "shown", "unpaired",
         f"problems for {wanted}", "or seeds"],
        rows,
    )  # fmt: skip
    yield ""
    yield (
        "shown: the smallest difference between two policies, in points, on the same problems, one "
        f"seed each, at 5 % and with a power of 80 %; {100 * found['seed_sd']:g} points of "
        "deviation over seeds; problems: if seeds did not vary"
    )


def about_rewards(config: Mapping[str, Any], name: str) -> Iterator[str]:
    """The test bench, and which order it shows."""
    if not pays(config["stages"][name]["rewards"]):
        return
    bench, own = report_of(config, name)
    yield from about(name, bench, own)
    if (pair := format_first(bench)) is not None:
        verdict = "outweighs" if pair[0] > pair[1] else "does not outweigh"
        yield (
            f"{name}: a wrong answer in form earns {pair[0]:.2f}, the right one in a sentence "
            f"{pair[1]:.2f}: format {verdict} correctness"
        )
    for above in wrong_above_right(bench):
        yield (
            f"{name}: wrong '{above.wrong}' earns {above.wrong_total:.2f}, right '{above.right}' "
            f"{above.right_total:.2f}"
        )
