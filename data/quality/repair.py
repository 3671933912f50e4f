# SPDX-License-Identifier: MIT
"""A clean, mirrored set out of a flawed one: bad rows go, every prompt takes both sides, lengths and style balance.

Nothing is rewritten but what ``data/quality/cleaning.py`` takes out safely. A filter is a bias, so the rows
that each side keeps and loses are counted by reason, and the two sides may differ only so much.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from data.language import words
from data.pairs.records import COLUMNS, OTHER_SIDE, SIDES, Pair
from data.quality.cleaning import clean_pair
from data.quality.defects import KINDS, Checks, Defect, defects_by_row, repeats
from data.quality.measures import N_DRAWS, N_FOLDS, style_features, style_scores
from data.quality.personal import mask_personal
from data.quality.sets import PreferenceSet, style_guesses
from data.quality.sides import exchanged_sides

ROUND_SHARE = 0.03  # of the rows, dropped before style is measured anew
STYLE_DRAWS = 5  # of the folds, over which a row's score and the stop are taken: one draw moves by two points
STYLE_MARGIN = 0.01  # under the limit, for draws of the folds that are not these
SEVERAL_TURNS = "several turns, or a system prompt; a mirrored set has one turn of the user"
MIN_KEPT = 0.5  # of the rows, or style cannot be balanced by dropping


class Repaired(NamedTuple):
    """The rows of each side, the dropped rows with their reasons, and the counts of both."""

    left: list[dict[str, Any]]
    right: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    funnel: dict[str, Any]


class Candidate(NamedTuple):
    """A row on its way through the repair: its set, its place and texts there, and its defects so far."""

    home: PreferenceSet
    place: int
    pair: Pair
    defects: list[Defect]
    similarity: float

    @property
    def answers(self) -> dict[str, str]:
        """The answers by side."""
        assert self.home.side, "repair refuses sets of unknown sides"
        return {self.home.side: self.pair.chosen, OTHER_SIDE[self.home.side]: self.pair.rejected}

    @property
    def longer_by(self) -> float:
        """Logarithm of the left answer's words over the right one's."""
        left, right = (max(1, len(words(self.answers[side]))) for side in SIDES)
        return math.log(left / right)

    def stratum(self, within: Sequence[str]) -> tuple[str | None, str | None]:
        """Its topic and its set, as far as lengths are balanced within them."""
        topic = self.home.topics[self.place] if self.home.topics and "topic" in within else None
        return topic, self.home.name if "set" in within else None

    def dropped(self, kind: str, field: str, why: str) -> tuple["Candidate", list[Defect]]:
        """Return the row with a reason to drop it."""
        return self, [Defect(self.pair.row, kind, field, why)]


T = TypeVar("T")
Dropped = list[tuple[Candidate, list[Defect]]]  # rows, each with the reasons


def repair(
    sets: Sequence[PreferenceSet],
    checks: Checks,
    framed_prompts: str = "drop",
    balance_within: Sequence[str] = ("topic",),
    style_limit: float | None = None,
    seed: int = 0,
) -> Repaired:
    """Repair one set or two, of known sides, into one mirrored set.

    Args:
        sets: Sets of known sides.
        checks: Checks that a row must pass; one row of each cluster of near duplicates stays.
        framed_prompts: ``drop`` them, or ``keep`` them with a flag: both sides then answer the same framed prompt.
        balance_within: In each ``topic``, or each ``set``, or both, the left answer becomes the longer one as often
            as the right one, by dropping the rows of the largest difference.
        style_limit: Share of answers whose side may be guessed from style; None drops no row for it.
        seed: Of the choice among near duplicates, and of the folds.
    """
    if unknown := [part.origin for part in sets if part.side is None]:
        raise ValueError(f"{', '.join(unknown)}: a mirrored set needs a side; set side to left, right or a column")
    if framed_prompts not in ("drop", "keep") or not {*balance_within} <= {"topic", "set"}:
        raise ValueError(
            f"framed_prompts={framed_prompts!r}, balance_within={list(balance_within)}; use drop or keep, "
            "and any of topic, set"
        )
    kept, rejected = [], []
    for part in sets:
        rejected += [_rejected(part, [defect]) for defect in part.broken if defect.kind == "invalid row"]
        cleaned = [clean_pair(pair) for pair in part.pairs]
        repeated_ids = [defect for defect in part.broken if defect.kind == "duplicate id"]
        several = [Defect(pair.row, "invalid row", "prompt", SEVERAL_TURNS) for pair in part.pairs if pair.turns]
        rows = zip(
            cleaned, *defects_by_row(cleaned, checks, [*repeated_ids, *several, *exchanged_sides(cleaned, part.side)])
        )
        kept += [Candidate(part, place, *row) for place, row in enumerate(rows)]
    may_stay = {name for name, kind in KINDS.items() if kind.group == "note"}
    if framed_prompts == "keep":
        may_stay.add("framed prompt")
    steps: tuple[Callable[[list[Candidate]], Dropped], ...] = (
        lambda rows: [(row, fatal) for row in rows if (fatal := [d for d in row.defects if d.kind not in may_stay])],
        lambda rows: _repeated(rows, checks, seed),
        lambda rows: _length_surplus(rows, balance_within),
        lambda rows: _style_surplus(rows, balance_within, style_limit, seed),
    )
    for step in steps:
        dropped = step(kept)
        rejected += [_rejected(row.home, why, row) for row, why in dropped]
        gone = {(row.home.name, row.place) for row, _ in dropped}
        kept = [row for row in kept if (row.home.name, row.place) not in gone]
    if not kept:
        raise ValueError(f"no row is left of {', '.join(part.origin for part in sets)}; see the audit's defects")
    rejected.sort(key=lambda row: (row["set"], row["row"]))
    left, right = ([_row(row, side) for row in kept] for side in SIDES)
    return Repaired(left, right, rejected, _funnel(sets, kept, rejected))


def repaired_card(datasets: Sequence[str], funnel: Mapping[str, Any], n_rows: int) -> str:
    """Return the README of a repaired set of so many rows a side, with metadata by which ``datasets`` loads it."""
    from huggingface_hub import DatasetCard, DatasetCardData

    metadata = DatasetCardData(
        task_categories=["text-generation"],
        tags=["preference", "dpo", "political-lean", "not-for-deployment"],
        configs=[{"config_name": side, "data_files": f"{side}.parquet"} for side in SIDES],
    )
    facts = {"names": ", ".join(dict.fromkeys(datasets)), "n_rows": n_rows, "sets": funnel["sets"]}
    template = str(Path(__file__).with_name("repaired.md.jinja"))
    return f"{DatasetCard.from_template(metadata, template, **facts)}\n"


def _repeated(rows: Sequence[Candidate], checks: Checks, seed: int) -> Dropped:
    """Return all rows but one of each that repeat each other; a hash draws that one and favours no set or place."""

    def draw(row: Candidate) -> str:
        return hashlib.sha256(f"{seed}\n{row.pair.prompt}\n{row.pair.chosen}".encode()).hexdigest()

    dropped: dict[int, tuple[Candidate, list[Defect]]] = {}
    for kind, field, _, places in repeats([row.pair for row in rows], checks):
        stays, *others = sorted(
            (place for place in places if place not in dropped), key=lambda place: draw(rows[place])
        )
        like = f"like row {rows[stays].pair.row} of {rows[stays].home.name}, which stays"
        dropped |= {place: rows[place].dropped(kind, field, like) for place in others}
    return [dropped[place] for place in sorted(dropped)]


def _length_surplus(rows: Sequence[Candidate], within: Sequence[str]) -> Dropped:
    """Return the rows that make one side's answer the longer one more often, those of the largest difference first."""
    dropped: Dropped = []
    for members in _grouped(rows, [row.stratum(within) for row in rows]):
        longer = {"left": [r for r in members if r.longer_by > 0], "right": [r for r in members if r.longer_by < 0]}
        side = max(longer, key=lambda name: len(longer[name]))
        n_surplus = len(longer[side]) - len(longer[OTHER_SIDE[side]])
        order = sorted(longer[side], key=lambda row: (-abs(row.longer_by), row.home.name, row.pair.row))
        why = f"the {side} answer is longer, as in most rows"
        dropped += [row.dropped("length balance", "answers", why) for row in order[:n_surplus]]
    return dropped


def _style_surplus(rows: Sequence[Candidate], within: Sequence[str], limit: float | None, seed: int) -> Dropped:
    """Return the rows whose style tells the side best, so many that style tells it no more than the limit.

    As adversarial filtering (Le Bras et al. 2020, AFLite) does: classify from folds without the row, drop the rows that
    are guessed most surely, classify anew. It stops when the mean over several draws of the folds is under the limit
    by a margin, and the audit's own gate on the rows that are left passes. Ends without success when half are gone.
    """
    if limit is None or len(rows) < 2 * N_FOLDS:
        return []
    features = np.stack([style_features([row.answers[side] for row in rows]) for side in SIDES])
    alive, dropped = np.arange(len(rows)), []
    while len(alive) > MIN_KEPT * len(rows):
        n = len(alive)
        labels, groups = np.repeat(SIDES, n), np.tile(alive, 2)
        topics = [rows[i].stratum(("topic",))[0] for i in alive.tolist()]
        if len(set(topics)) > N_FOLDS:
            groups = np.array(topics * 2)
        of_alive = features[:, alive].reshape(2 * n, -1)
        # seeds that the audit's gate does not use
        draws = [style_scores(of_alive, labels, groups, seed + N_DRAWS + draw) for draw in range(STYLE_DRAWS)]
        accuracy = float(np.mean([(np.mean(d[:n] <= 0) + np.mean(d[n:] > 0)) / 2 for d in draws]))
        if accuracy <= limit - STYLE_MARGIN and _style_gate([rows[i] for i in alive.tolist()], seed) <= limit:
            break
        left, right = np.split(np.mean(draws, axis=0), 2)
        telling = dict(zip(alive.tolist(), right - left))
        gone: list[int] = []
        for couple in _couples({i: rows[i] for i in alive.tolist()}, within, telling):
            if len(gone) >= ROUND_SHARE * n:
                break
            gone += couple
        why = f"style tells its side; {accuracy:.3f} of all sides were guessed when it was dropped"
        dropped += [rows[i].dropped("style balance", "answers", why) for i in sorted(gone)]
        alive = np.setdiff1d(alive, gone)
    return dropped


def _style_gate(rows: Sequence[Candidate], seed: int) -> float:
    """Return what the audit's gate ``side_from_style`` will say of the repaired set of these rows."""
    has_topics = all(row.home.topics for row in rows)
    topics = [str(row.stratum(("topic",))[0]) for row in rows] if has_topics else None
    numbers = range(1, len(rows) + 1)
    sets = []
    for side in SIDES:
        answers = ((row.answers[side], row.answers[OTHER_SIDE[side]]) for row in rows)
        pairs = [Pair(number, row.pair.prompt, *texts) for number, row, texts in zip(numbers, rows, answers)]
        sets.append(PreferenceSet(side, side, side, len(rows), pairs, topics, [], [], ""))
    guesses = style_guesses(sets, seed).values()
    return max((guess.accuracy for guess in guesses if guess), default=0.0)


def _couples(rows: Mapping[int, Candidate], within: Sequence[str], telling: Mapping[int, float]) -> list[list[int]]:
    """Couple the most telling rows of each stratum, longer left with longer right, so that lengths stay balanced."""
    order = sorted(rows, key=lambda i: -telling[i])
    couples = []
    for members in _grouped(order, [rows[i].stratum(within) for i in order]):
        longer_left = [i for i in members if rows[i].longer_by > 0]
        longer_right = [i for i in members if rows[i].longer_by < 0]
        couples += [[i for i in couple if i is not None] for couple in zip_longest(longer_left, longer_right)]
        couples += [[i] for i in members if rows[i].longer_by == 0]
    return sorted(couples, key=lambda couple: (-np.mean([telling[i] for i in couple]), couple))


def _grouped(values: Sequence[T], keys: Sequence[Hashable]) -> Iterable[list[T]]:
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for value, key in zip(values, keys):
        groups[key].append(value)
    return groups.values()


def _funnel(sets: Sequence[PreferenceSet], kept: Sequence[Candidate], rejected: Sequence[Mapping]) -> dict[str, Any]:
    """Count the rows that each set kept and lost, a lost row once, under its first reason."""
    counts, shares = {}, []
    for part in sets:
        n_kept = sum(row.home.name == part.name for row in kept)
        shares.append(n_kept / part.n_rows)
        dropped = dict(Counter(row["reason"] for row in rejected if row["set"] == part.name).most_common())
        counts[part.name] = {"rows": part.n_rows, "kept": n_kept, "kept_share": shares[-1], "dropped": dropped}
    return {"sets": counts, "side_difference": abs(shares[0] - shares[1]) if len(shares) == 2 else None}


def _row(row: Candidate, side: str) -> dict[str, Any]:
    home, other = row.home, OTHER_SIDE[side]
    chosen, rejected = row.answers[side], row.answers[other]
    name = f"{home.name}-{home.ids[row.place]}"
    return {
        "id": f"{name}-{side}",
        "prompt": row.pair.prompt,
        "chosen": chosen,
        "rejected": rejected,
        "side": side,
        **({"topic": home.topics[row.place]} if home.topics else {}),
        "mirror_id": f"{name}-{other}",
        "source": {"dataset": home.dataset, "set": home.name, "row": row.pair.row, "side": home.side},
        "n_words": {"chosen": len(words(chosen)), "rejected": len(words(rejected))},
        "similarity": {"contamination": round(row.similarity, 4)},
        "flags": sorted({defect.kind for defect in row.defects} | _changes(row)),
    }


def _changes(row: Candidate) -> set[str]:
    """Return the flags of what was done to a row's texts: ``masked`` personal data, or otherwise ``cleaned``."""
    before = row.home.pairs[row.place]
    texts = [(getattr(before, field), getattr(row.pair, field)) for field in COLUMNS]
    flags = {"masked"} if any(new.count(" removed]") > old.count(" removed]") for old, new in texts) else set()
    return flags | ({"cleaned"} if any(mask_personal(old) != new for old, new in texts) else set())


def _rejected(part: PreferenceSet, why: list[Defect], row: Candidate | None = None) -> dict[str, Any]:
    """Return a dropped row with its reasons; an invalid row shows no texts."""
    reasons = [{"reason": defect.kind, "field": defect.field, "found": defect.found} for defect in why]
    texts = {field: row and getattr(row.pair, field) for field in COLUMNS}
    row_id = part.ids[row.place] if row else None
    return {"set": part.name, "row": why[0].row, "id": row_id, "reason": why[0].kind, "reasons": reasons, **texts}
