# SPDX-License-Identifier: MIT
"""What a repair drops although each row alone is sound: copies, and rows that let length or style tell the side.

Each function returns the rows to drop, with the reason.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from data.language import words
from data.pairs.records import Pair
from data.quality.classifiers import N_FOLDS, style_scores
from data.quality.defects import Defect
from data.quality.duplicates import PairsOf, near_duplicate_clusters
from data.quality.measures import style_features
from data.quality.sets import PreferenceSet

OTHER = {"left": "right", "right": "left"}
ROUND_SHARE = 0.03  # of the rows, dropped before style is measured anew
STYLE_MARGIN = 0.01  # under the limit: the audit's folds are other ones
MIN_KEPT = 0.5  # of the rows, or style cannot be balanced by dropping


class Candidate(NamedTuple):
    """A row on its way through the repair: its set, its number and texts, and what is wrong with it so far."""

    one: PreferenceSet
    index: int
    pair: Pair
    defects: list[Defect]
    similarity: float

    @property
    def id(self) -> str:
        """The row's id in its set."""
        return self.one.ids[self.index]

    @property
    def masked(self) -> bool:
        """Whether personal data was masked in it."""
        return self.pair != self.one.pairs[self.index]

    @property
    def answers(self) -> dict[str, str]:
        """The answers by side."""
        return {self.one.side: self.pair.chosen, OTHER[self.one.side]: self.pair.rejected}

    @property
    def longer_by(self) -> float:
        """Logarithm of the left answer's words over the right one's."""
        left, right = (len(words(self.answers[side])) for side in ("left", "right"))
        return math.log(max(1, left) / max(1, right))

    def stratum(self, within: Sequence[str]) -> tuple[str | None, str | None]:
        """Its topic and its set, as far as lengths are balanced within them."""
        topic = self.one.topics[self.index] if self.one.topics and "topic" in within else None
        return topic, self.one.name if "set" in within else None


def near_duplicates(
    rows: Sequence[Candidate], threshold: float, seed: int, alike: PairsOf | None = None
) -> list[tuple[Candidate, Defect]]:
    """All rows but one of each cluster; which one stays is drawn by hash, so that no set and no place is favoured."""
    clusters: dict[int, list[Candidate]] = defaultdict(list)
    prompts = [row.pair.prompt for row in rows]
    for row, cluster in zip(rows, near_duplicate_clusters(prompts, threshold, alike=alike)):
        clusters[cluster].append(row)
    found = []
    for own in clusters.values():
        stays, *rest = sorted(own, key=lambda row: _hash(seed, row))
        like = f"like row {stays.pair.row} of {stays.one.name}, which stays"
        found += [(row, Defect(row.pair.row, "near-duplicate prompt", "prompt", like)) for row in rest]
    return found


def length_surplus(rows: Sequence[Candidate], within: Sequence[str]) -> list[tuple[Candidate, Defect]]:
    """The rows that make one side's answer the longer one more often, those of the largest difference first."""
    strata: dict[Hashable, list[Candidate]] = defaultdict(list)
    for row in rows:
        strata[row.stratum(within)].append(row)
    found = []
    for own in strata.values():
        longer = {"left": [r for r in own if r.longer_by > 0], "right": [r for r in own if r.longer_by < 0]}
        side = max(longer, key=lambda name: len(longer[name]))
        n_surplus = len(longer[side]) - len(longer[OTHER[side]])
        order = sorted(longer[side], key=lambda row: (-abs(row.longer_by), row.one.name, row.pair.row))
        why = f"the {side} answer is longer, as in most rows"
        found += [(row, Defect(row.pair.row, "length balance", "answers", why)) for row in order[:n_surplus]]
    return found


def style_surplus(
    rows: Sequence[Candidate], within: Sequence[str], limit: float | None, seed: int
) -> list[tuple[Candidate, Defect]]:
    """The rows whose style tells the side best, dropped until it tells no more than the limit.

    As adversarial filtering (Le Bras et al. 2020, AFLite) does: classify from folds without the row, drop what is
    guessed most surely, classify anew. Of each stratum a row with the longer left answer goes with one with the longer
    right answer, so that lengths stay balanced. Ends without success when half of the rows are gone.

    Args:
        rows: Rows of balanced lengths.
        within: As for :func:`length_surplus`.
        limit: Share of answers whose side may be guessed; None drops nothing.
        seed: Of the folds.
    """
    if limit is None or len(rows) < 2 * N_FOLDS:
        return []
    features = np.stack([style_features([row.answers[side] for row in rows]) for side in ("left", "right")])
    alive, found = np.arange(len(rows)), []
    while len(alive) > MIN_KEPT * len(rows):
        n = len(alive)
        labels, groups = np.repeat(["left", "right"], n), np.tile(alive, 2)
        left, right = np.split(style_scores(features[:, alive].reshape(2 * n, -1), labels, groups, seed), 2)
        accuracy = (np.mean(left <= 0) + np.mean(right > 0)) / 2
        if accuracy <= limit - STYLE_MARGIN:
            break
        telling = dict(zip(alive.tolist(), right - left))
        gone = []
        for couple in _couples([(i, rows[i]) for i in alive.tolist()], within, telling):
            if len(gone) >= ROUND_SHARE * n:
                break
            gone += couple
        why = f"style tells its side; {accuracy:.3f} of all sides were guessed when it was dropped"
        found += [(rows[i], Defect(rows[i].pair.row, "style balance", "answers", why)) for i in sorted(gone)]
        alive = np.setdiff1d(alive, gone)
    return found


def _couples(rows: list[tuple[int, Candidate]], within: Sequence[str], telling: dict[int, float]) -> list[list[int]]:
    """Couple the most telling rows of each stratum, longer left with longer right, the most telling couple first."""
    strata: dict[Hashable, tuple[list[int], list[int], list[int]]] = defaultdict(lambda: ([], [], []))
    for i, row in rows:
        sign = (row.longer_by > 0) - (row.longer_by < 0)
        strata[row.stratum(within)][sign].append(i)
    couples = []
    for same, longer, shorter in strata.values():
        ordered = (sorted(own, key=lambda i: -telling[i]) for own in (longer, shorter))
        couples += [[i for i in couple if i is not None] for couple in zip_longest(*ordered)]
        couples += [[i] for i in same]
    return sorted(couples, key=lambda couple: (-np.mean([telling[i] for i in couple]), couple))


def _hash(seed: int, row: Candidate) -> str:
    return hashlib.sha256(f"{seed}\n{row.pair.prompt}\n{row.pair.chosen}".encode()).hexdigest()
