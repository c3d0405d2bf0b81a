"""Rewards for the form: <reasoning>..</reasoning> <answer>..</answer> and nothing else.

    strict_format   1 if the whole completion has the form (`extract.strict`), else 0: a gate
    tag_format      share of the four tags in place; 1 exactly where strict_format is 1

A tag is in place if it occurs once and its neighbourhood is right: before <reasoning> and between
</reasoning> and <answer> only white space; in each block something else; after </answer> only white
space. A model too small to hit the form by chance climbs it by quarters.
"""

from collections.abc import Mapping

from grpo.rewards.extract import LIMIT, TAGS, strict


def strict_format(example: Mapping, completion: str) -> float:
    """1 if the completion has exactly the form asked for, else 0."""
    return float(strict(completion) is not None)


def tag_format(example: Mapping, completion: str) -> float:
    """The share of the four tags in place."""
    if len(completion) > LIMIT:
        return 0.0
    places = [completion.find(tag) if completion.count(tag) == 1 else -1 for tag in TAGS]
    in_place = 0
    end = 0  # of the tag before this one; -1 where that is not there once
    for place, tag, block_ends in zip(places, TAGS, (False, True, False, True), strict=True):
        if place >= 0 and end >= 0:
            between = completion[end:place]
            last = tag == TAGS[-1]
            in_place += (
                place >= end
                and bool(between.strip()) == block_ends
                and not (last and completion[place + len(tag) :].strip())
            )
        end = place + len(tag) if place >= 0 else -1
    return in_place / 4
