"""The same test problems as each policy answered them, side by side.

Of evaluations/<stage>.jsonl the first problems are shown, and of each policy the completion that
stands first, which is the greedy one where there is one.
"""

import pathlib
from typing import Any

from grpo.reporting.html.markup import escaped, folded, section
from grpo.reporting.html.run_files import read_rows

SHOWN, LONGEST = 8, 2000  # problems, characters of a completion


def answers(workdir: pathlib.Path, stages: list[str], unread: list[str]) -> str:
    """The section of the answers of all evaluations."""
    parts = []
    for stage in stages:
        rows = read_rows(workdir / "evaluations" / f"{stage}.jsonl", unread)
        by_problem: dict[Any, dict[Any, dict[str, Any]]] = {}
        for row in rows:
            if row.get("id") in by_problem or len(by_problem) < SHOWN:
                by_problem.setdefault(row.get("id"), {}).setdefault(row.get("policy"), row)
        shown = "\n".join(map(problem, by_problem.values()))
        parts += [folded(f"{stage}: {len(by_problem)} problems", shown)] if shown else []
    return section("answers", "Answers", *parts)


def problem(by_policy: dict[Any, dict[str, Any]]) -> str:
    """A problem and what was answered."""
    first = next(iter(by_policy.values()))
    cards = "\n".join(map(card, by_policy.items()))
    gold = f'<span class="gold">gold {escaped(first.get("gold"))}</span>'
    return (
        f'<article class="problem"><p>{escaped(first.get("question"))} {gold}</p>'
        f'<div class="cards">{cards}</div></article>'
    )


def card(answered: tuple[Any, dict[str, Any]]) -> str:
    """An answer of a policy."""
    policy, row = answered
    right = row.get("right")
    verdict = "right" if isinstance(right, dict) and right.get("strict") else "wrong"
    said = str(row.get("completion"))
    text = escaped(said[:LONGEST]) + "…" * (len(said) > LONGEST)
    return (
        f'<div class="card {verdict}"><p class="head"><b>{escaped(policy)}</b> '
        f'<span class="verdict">{verdict}</span></p><pre dir="auto">{text}</pre></div>'
    )
