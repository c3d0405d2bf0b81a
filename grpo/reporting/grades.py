"""The tables of a stage that has completions graded, from evaluations/<stage>.json.

grades     a line per policy and grade: the mean out of 10, and how the judge is to be taken
ahead      a line per pair of policies and grade: the mean difference on the same examples
domains    a line per domain and grade, a column per policy, if there are several domains
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from grpo.reporting.evaluations import Found, Results, decimal, share
from grpo.reporting.progress import table
from grpo.storage.journal import Journal


def tables(results: Results, stage: Mapping[str, Any]) -> list[str]:
    """All of them; "" is one that has no lines."""
    names = [f"{judge}/{rubric}" for judge in stage["judges"] for rubric in stage["rubrics"]]
    return [grade_table(results, names), ahead_table(results, names), by_domain(results, names)]


def out_of_ten(found: Found, name: str) -> list[str]:
    """A grade and its interval; blank if no completion has one."""
    value, low, high = (found.get(f"{name}{end}") for end in ("", "/low", "/high"))
    around = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    return [decimal(value, 2), around]


def grade_table(results: Results, names: list[str]) -> str:
    """The grades, a line for each of a policy."""
    header = [
        "after",
        "judge/rubric",
        "of 10",
        "95 % interval",
        "no verdict",
        "agreement",
        "entropy",
    ]
    lines = [
        [
            policy,
            name,
            *out_of_ten(found, name),
            share(found.get(f"{name}/failed")),
            decimal(found.get(f"{name}/agreement"), 2),
            decimal(found.get(f"{name}/entropy"), 2),
        ]
        for policy, found in results.items()
        for name in names
    ]
    return table(header, lines)


def ahead_table(results: Results, names: list[str]) -> str:
    """How far policies are ahead of those before them; nothing of one policy."""
    policies = [*results]
    lines = [
        [later, earlier, name, *out_of_ten(results[later], f"{name}/over {earlier}")]
        for place, later in enumerate(policies)
        for earlier in policies[:place]
        for name in names
    ]
    header = ["after", "over", "judge/rubric", "difference", "95 % interval"]
    return table(header, lines) if lines else ""


def by_domain(results: Results, names: list[str]) -> str:
    """The grades by domain; nothing of one domain."""
    domains = next(iter(results.values()), {}).get("domains", {})
    if len(domains) < 2:
        return ""
    lines = [
        [domain, str(of_one["problems"]), name, *cells(results, domain, name)]
        for domain, of_one in domains.items()
        for name in names
    ]
    return table(["domain", "problems", "judge/rubric", *results], lines)


def cells(results: Results, domain: str, name: str) -> Iterator[str]:
    """A domain's grades by policy."""
    for found in results.values():
        value, around = out_of_ten(found["domains"][domain], name)
        yield f"{value} ({around})" if value else ""


def said_of(workdir: pathlib.Path, stage: str) -> dict[tuple[str, str], str]:
    """The grades of each completion in words, by policy and example; {} of other evaluations."""
    said: dict[tuple[str, str], str] = {}
    for row in Journal(workdir / "evaluations" / f"{stage}.grades.jsonl").rows():
        grade = "none" if row["grade"] is None else f"{row['grade']:.1f}"
        place = (row["policy"], row["id"])
        said[place] = f"{said.get(place, '')}, {row['by']} {grade}"
    return said
