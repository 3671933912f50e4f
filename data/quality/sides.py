# SPDX-License-Identifier: MIT
"""Does each row's chosen answer stand for the side that the set says? Told by words, or "cannot tell".

A row's score is the sum of the weights of what its chosen answer says and its rejected one does not, less the other
way round, over the square root of their number. Most short answers are not told: words alone seldom say which side
of a well-balanced question somebody is on.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from data.pairs.records import Pair
from data.quality.classifiers import Measured, corrected_share, stored_side, words_of
from data.quality.defects import Defect

KIND = "exchanged sides"


class Told(NamedTuple):
    """Rows, and how many of them are told one way round and the other; the others cannot be told."""

    n: int
    right: int  # as they are labelled
    wrong: int  # the other way round


def side_score(left: str, right: str, weights: Mapping[str, float]) -> float:
    """Return how much more a first answer speaks as the left does than a second one; 0 if nothing is known of both."""
    one, other = words_of(left), words_of(right)
    found = [weights[name] for name in one - other if name in weights]
    against = [weights[name] for name in other - one if name in weights]
    return (sum(found) - sum(against)) / math.sqrt(max(1, len(found) + len(against)))


def exchanged_sides(pairs: Iterable[Pair], side: str | None) -> list[Defect]:
    """Return the rows whose answers are told to be the other way round than a set of this side says."""
    found = f"the words say that the rejected answer is the {side}'s"
    return [Defect(pair.row, KIND, "answers", found) for pair, told in _told(pairs, side) if told < 0]


def exchange(pairs: Iterable[Pair], topics: Iterable[str] | None, side: str | None) -> dict[str, Any] | None:
    """Return how many rows of a set are told, and the share that is exchanged, corrected for the error of the check.

    The correction is that of :func:`corrected_share` over the rows that are told, whose error is that on the source of
    ``held_out`` on which it was largest: an exchanged row is told as often as another one.
    """
    told = [(told, pair) for pair, told in _told(pairs, side)]
    if side is None or not told:
        return None
    by_topic: dict[str, list[int]] = defaultdict(list)
    for topic, (value, _) in zip(topics or [], told):
        by_topic[topic].append(value)
    counts = _count(value for value, _ in told)
    measured = side_error()
    n_told = counts.right + counts.wrong
    share = corrected_share(counts.wrong / n_told, n_told, measured) if n_told else None
    return {
        **counts._asdict(),
        "estimate": share and share.estimate,
        "ci95": share and share.ci95,
        "by_topic": {topic: _count(values)._asdict() for topic, values in sorted(by_topic.items())},
        "error": measured.false_alarms,
        "n_error": measured.n,
        "held_out": {name: told._asdict() for name, told in held_out().items()},
    }


def held_out() -> Mapping[str, Told]:
    """Return what was told of other sets, by source and topic, by weights that were fitted without that source."""
    return {name: Told(*counts) for name, counts in stored_side()["held_out"].items()}


def side_error() -> Measured:
    """Return how often a row that is told is told wrongly, on the source of ``held_out`` where that is most often."""
    sources: dict[str, list[Told]] = defaultdict(list)
    for name, told in held_out().items():
        sources[name.partition(":")[0]].append(told)
    sums = [(sum(t.right for t in of_source), sum(t.wrong for t in of_source)) for of_source in sources.values()]
    right, wrong = max(sums, key=lambda counts: counts[1] / max(1, sum(counts)))
    n = right + wrong
    return Measured(recall=right / n, n=n, false_alarms=wrong / n, n_others=n)


def _told(pairs: Iterable[Pair], side: str | None) -> list[tuple[Pair, int]]:
    """Return 1 for each pair that is told as labelled, -1 for one told the other way round, 0 for others."""
    if side is None:
        return []
    sign, least, weights = (1 if side == "left" else -1), stored_side()["threshold"], stored_side()["weights"]
    scores = [(pair, sign * side_score(pair.chosen, pair.rejected, weights)) for pair in pairs]
    return [(pair, (score > least) - (score < -least)) for pair, score in scores]


def _count(told: Iterable[int]) -> Told:
    values = list(told)
    return Told(len(values), values.count(1), values.count(-1))
