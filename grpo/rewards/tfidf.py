"""The relevance of the reasoning's vocabulary, against "yapping" (S8): no judge, only counts.

    r = max(0, cos(w(reasoning), w(target)) · min(1, words / len(reasoning)) - penalty · repeated)
    w_t(text) = tf_t · idf_t                tf = 1 + log count, or the count; cos is of L2 norms
    idf_t = log((1 + N) / (1 + df_t)) + 1   df_t: of N training examples, how many have t

                                                                                    0 to 1

IDEA-E's blog says no more than that a TF-IDF reward on the CPU favours words relevant to the
context; all numbers are this project's. Terms are n-grams of words or characters (`kind`, `n`), the
former without stop words. Options:

    target    "prompt_and_reference", "reference", or "reference_minus_prompt": without the terms of
              the prompt, so that copying it earns nothing. The reference is the worked solution and
              the answer, the answer alone where there is none
    copied    runs of so many words or more that stand in the prompt as well are left out first
    words     length of a reasoning, in words, from which on it is worth less
    penalty   what repetition of 3-grams of words costs: this times its share (`words`)

`document_frequencies` is learnt once, of question, solution and answer of every training example
(`table.FITS`). A target without terms abstains. Gate this reward on the form: it reads the first
<reasoning> block, and cares for no answer.

Known flaws: a bag of words has no order, so the reference's words in any order are the best; and
what is relevant in other words than the reference's is not.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from grpo.rewards.batch import Count, Share
from grpo.rewards.extract import REASONING, REASONING_END
from grpo.rewards.trajectory import block
from grpo.rewards.words import WORD, Kind, ngrams, repeated_share, units, words_of

REPEATED = 3  # words of the n-grams whose repetition costs
_COMMON = """
    a about after all also an and any are as at be because been before but by can could did do
    does each for from had has have he her here his how i if in into is it its just me more most
    my no not now of on one only or other our out over she should so some such than that the their
    them then there these they this to too up us very was we were what when where which while who
    will with would you your
"""
STOP_WORDS = frozenset(_COMMON.split())
Term = tuple[str, ...]
Target = Literal["prompt_and_reference", "reference", "reference_minus_prompt"]


class Frequencies(NamedTuple):
    """Of how many documents the terms were counted, and in how many each occurs."""

    documents: int
    count: Mapping[Term, int]


def terms(text: str, *, kind: str, n: int, stop_words: bool) -> list[Term]:
    """The terms of a text, in order; stop words are left out before n-grams are made."""
    parts = units(text, kind)
    if kind == "word" and stop_words:
        parts = [word for word in parts if word not in STOP_WORDS]
    return ngrams(parts, n)


def reference_of(example: Mapping) -> str:
    """The worked solution, where there is one, and the answer."""
    return f"{example.get('reasoning') or ''}\n{example['answer']}"


def document_frequencies(train: Sequence[Mapping], options: Mapping) -> Frequencies:
    """What `tfidf` with these options learns of the training examples."""
    how = {name: options[name] for name in ("kind", "n", "stop_words")}
    count: Counter[Term] = Counter()
    for example in train:
        count.update(set(terms(f"{example['question']}\n{reference_of(example)}", **how)))
    return Frequencies(len(train), count)


def weights(found: Sequence[Term], fitted: Frequencies, *, sublinear: bool) -> dict[Term, float]:
    """w of a text's terms."""

    def idf(term: Term) -> float:
        return math.log((1 + fitted.documents) / (1 + fitted.count.get(term, 0))) + 1

    counts = Counter(found).items()
    return {t: (1 + math.log(count) if sublinear else count) * idf(t) for t, count in counts}


def cosine(one: Mapping[Term, float], other: Mapping[Term, float]) -> float:
    """The cosine of two sparse vectors, 0 if one is empty."""
    norms = math.hypot(*one.values()) * math.hypot(*other.values())
    product = math.fsum(weight * other[term] for term, weight in one.items() if term in other)
    return min(product / norms, 1.0) if norms else 0.0


def without_copies(text: str, source: str, run: int) -> str:
    """A text without its runs of so many words or more that stand in the source as well."""
    places = [(found.start(), found.end()) for found in WORD.finditer(text)]
    known = set(ngrams(words_of(source), run))
    own = [text[start:end].lower() for start, end in places]
    kept, copied_to = [], 0  # words before copied_to are copied
    for place, (start, end) in enumerate(places):
        if tuple(own[place : place + run]) in known:
            copied_to = place + run
        if place >= copied_to:
            kept.append(text[start:end])
    return " ".join(kept)


def tfidf(
    example: Mapping,
    completion: str,
    *,
    kind: Kind,
    n: Count,
    stop_words: bool,
    sublinear: bool,
    target: Target,
    copied: Count,
    words: Count,
    penalty: Share,
    fitted: Frequencies,
) -> float:
    """How near the reasoning's vocabulary is to the target's, for its length."""
    how = {"kind": kind, "n": n, "stop_words": stop_words}
    prompt, wanted = example["question"], terms(reference_of(example), **how)
    if target == "prompt_and_reference":
        wanted = terms(prompt, **how) + wanted
    elif target == "reference_minus_prompt":
        of_prompt = set(terms(prompt, **how))
        wanted = [term for term in wanted if term not in of_prompt]
    if not wanted:
        return math.nan
    reasoning = block(completion, REASONING, REASONING_END) or ""
    count = len(reasoning.split())
    own = weights(
        terms(without_copies(reasoning, prompt, copied), **how), fitted, sublinear=sublinear
    )
    near = cosine(own, weights(wanted, fitted, sublinear=sublinear))
    repeated = repeated_share(ngrams(units(reasoning, "word"), REPEATED))
    return max(0.0, near * min(1.0, words / max(count, 1)) - penalty * repeated)
