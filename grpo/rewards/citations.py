r"""Rewards for legal citations: as published, and of what the example's context has (S12).

    citations_published   0.7 for one match of PUBLISHED, 0.1 for each more, at most 1      0 to 1
    citations             (cited and in the context) / cited, of different citations        0 to 1

The first is that of JudicAIta (src/judicaita/training/rewards.py), with its flaws: it pays for
invented citations, for the same one again, and for "42 U.S.C. § 1983" twice, as a statute and as a
section; small letters do as well, so "versus" in the style of "one v. other" is a case.

The second reads the completion and `example["context"]` with the same forms, in the case that they
are written in, each place as one citation only, and asks which of the completion's stand in the
context too. No citation is 0, and so is an invented one; an example without a context abstains.
Known flaws: that a citation is there does not mean that it fits, and of a case's name only the
words beside the "v." are compared.

Runs of digits, letters and spaces are taken whole, which plain patterns would try again from each
of their characters: what follows a run cannot be a part of it, so the matches are the same.
"""

import re
from collections.abc import Mapping

NUMBER, EDITION = r"(?<!\d)\d++\s++", r"(?:\s*+\d++d?+\s++|\s*+d\s++|\s++)\d++"
PUBLISHED = (
    NUMBER + r"U\.S\.C\.\s++(?:§\s*+)?\d++",
    NUMBER + r"U\.S\.\s++\d++",
    NUMBER + r"F\.\d++d\s++\d++",
    NUMBER + r"F\.\s*+Supp\." + EDITION,
    r"(?<![A-Za-z])[A-Z][a-z]++\s++v\.\s++[A-Z][a-z]++",
    r"§\s*+\d++[.\d]*+",
    NUMBER + r"S\.\s*+Ct\.\s++\d++",
    NUMBER + r"L\.\s*+Ed\." + EDITION,
)
EACH = [re.compile(pattern, re.IGNORECASE) for pattern in PUBLISHED]
ANY = re.compile("|".join(PUBLISHED))
FIRST, MORE, MOST = 0.7, 0.1, 4


def citations_published(example: Mapping, completion: str) -> float:
    """What is paid for anything that looks like a citation."""
    count = sum(sum(1 for _ in pattern.finditer(completion)) for pattern in EACH)
    return FIRST + MORE * (min(count, MOST) - 1) if count else 0.0


def cited_in(text: str) -> set[str]:
    """The different citations of a text, their white space as one space."""
    return {" ".join(found[0].rstrip(".").split()) for found in ANY.finditer(text)}


def citations(example: Mapping, completion: str) -> float:
    """The share of the completion's citations that stand in the context."""
    if not isinstance(example.get("context"), str):
        raise ValueError("the example has no context to cite from")
    cited = cited_in(completion)
    return len(cited & cited_in(example["context"])) / max(len(cited), 1)
