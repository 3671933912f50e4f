# SPDX-License-Identifier: MIT
"""A clean, mirrored set out of a flawed one: what fails a gate goes, every prompt takes both sides, lengths balance.

Nothing is rewritten but personal data, which is masked. A filter is a bias, so what each side keeps is counted by
reason, and the two may differ only so much.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from data.language import words
from data.pairs.records import Pair
from data.quality.balance import OTHER, Candidate, length_surplus, near_duplicates, style_surplus
from data.quality.contamination import Statement
from data.quality.defects import FIELDS, KINDS, Defect, contamination_defects, row_defects, toxicity_defects
from data.quality.duplicates import PairsOf
from data.quality.privacy import mask_personal
from data.quality.sets import PreferenceSet
from data.text_models import Cap

FRAMED = ("drop", "keep")


class Repaired(NamedTuple):
    """What came out: rows of each side, dropped rows with their reasons, and the funnel."""

    left: list[dict[str, Any]]
    right: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    funnel: dict[str, Any]


def repair(
    sets: Sequence[PreferenceSet],
    statements: Sequence[Statement],
    length_ratio: tuple[float, float],
    language: Callable[[str], str | None] | None,
    threshold: float,
    framed_prompts: str = "drop",
    balance_within: Sequence[str] = ("topic",),
    style_limit: float | None = None,
    seed: int = 0,
    toxicity: Cap | None = None,
    alike: PairsOf | None = None,
) -> Repaired:
    """Repair one set or two into one mirrored set.

    Args:
        sets: Sets of known sides.
        statements: What the set must not repeat.
        length_ratio: See :func:`data.quality.defects.row_defects`.
        language: See there.
        threshold: Similarity from which two prompts are near duplicates; one row of each cluster stays.
        framed_prompts: ``drop`` them, or ``keep`` them with a flag: both sides then answer the same framed prompt.
        balance_within: In each ``topic``, or each ``set``, or both, the left answer becomes the longer one as often
            as the right one, by dropping the rows of the largest difference.
        style_limit: Share of answers whose side may be guessed from style; rows whose style tells it are dropped
            until it holds. None drops none.
        seed: Of the choice among near duplicates, and of the folds.
        toxicity: Most that any text may score; None does not score them.
        alike: Finds near duplicates of other words; see :func:`data.quality.duplicates.near_duplicate_clusters`.

    Raises:
        ValueError: If a side is not known, a setting is unknown, or no row is left.
    """
    if unknown := [one.origin for one in sets if one.side is None]:
        raise ValueError(f"{', '.join(unknown)}: a mirrored set needs a side; set side to left, right or a column")
    if framed_prompts not in FRAMED or not {*balance_within} <= {"topic", "set"}:
        raise ValueError(
            f"framed_prompts={framed_prompts!r}, balance_within={list(balance_within)}; use {' or '.join(FRAMED)}, "
            "and any of topic, set"
        )
    candidates, rejected = [], []
    for one in sets:
        rejected += [_rejected(one, d.row, None, None, [d]) for d in one.broken if d.kind == "invalid row"]
        candidates += _candidates(one, statements, length_ratio, language, toxicity)
    kept = []
    for row in candidates:
        fatal = [d for d in row.defects if KINDS[d.kind].group != "note"]
        if framed_prompts == "keep":
            fatal = [d for d in fatal if d.kind != "framed prompt"]
        if fatal:
            rejected.append(_rejected(row.one, row.pair.row, row.id, row.pair, fatal))
        else:
            kept.append(row)
    steps: tuple[Callable[[list[Candidate]], list[tuple[Candidate, Defect]]], ...] = (
        lambda rows: near_duplicates(rows, threshold, seed, alike),
        lambda rows: length_surplus(rows, balance_within),
        lambda rows: style_surplus(rows, balance_within, style_limit, seed),
    )
    for find in steps:
        found = find(kept)
        rejected += [_rejected(row.one, row.pair.row, row.id, row.pair, [defect]) for row, defect in found]
        gone = {(row.one.name, row.index) for row, _ in found}
        kept = [row for row in kept if (row.one.name, row.index) not in gone]
    if not kept:
        raise ValueError(f"no row is left of {', '.join(o.origin for o in sets)}; see the audit's defects")
    sides = {side: [_row(row, side) for row in kept] for side in ("left", "right")}
    rejected.sort(key=lambda row: (row["set"], row["row"]))
    return Repaired(sides["left"], sides["right"], rejected, funnel(sets, kept, rejected))


def funnel(sets: Sequence[PreferenceSet], kept: Sequence[Candidate], rejected: Sequence[Mapping]) -> dict[str, Any]:
    """Count what each set kept and lost, a lost row once, under its first reason."""
    counted = {}
    for one in sets:
        reasons = Counter(row["reason"] for row in rejected if row["set"] == one.name)
        n_kept = sum(row.one.name == one.name for row in kept)
        counted[one.name] = {
            "rows": one.n_rows,
            "kept": n_kept,
            "kept_share": n_kept / one.n_rows,
            "dropped": dict(reasons.most_common()),
        }
    shares = [entry["kept_share"] for entry in counted.values()]
    return {"sets": counted, "side_difference": abs(shares[0] - shares[1]) if len(shares) == 2 else None}


def _candidates(one, statements, length_ratio, language, toxicity) -> list[Candidate]:
    masked = [pair._replace(**{field: mask_personal(getattr(pair, field)) for field in FIELDS}) for pair in one.pairs]
    copied, similarity = contamination_defects(masked, statements)
    again = [defect for defect in one.broken if defect.kind == "duplicate id"]
    by_row: dict[int, list[Defect]] = defaultdict(list)
    for defect in [*again, *copied, *toxicity_defects(masked, toxicity)]:
        by_row[defect.row].append(defect)
    return [
        Candidate(one, i, pair, row_defects(pair, length_ratio, language) + by_row[pair.row], similarity[i])
        for i, pair in enumerate(masked)
    ]


def _row(row: Candidate, side: str) -> dict[str, Any]:
    chosen, rejected = row.answers[side], row.answers[OTHER[side]]
    topic = {"topic": row.one.topics[row.index]} if row.one.topics else {}
    return {
        "id": f"{row.one.name}-{row.id}-{side}",
        "prompt": row.pair.prompt,
        "chosen": chosen,
        "rejected": rejected,
        "side": side,
        **topic,
        "mirror_id": f"{row.one.name}-{row.id}-{OTHER[side]}",
        "source": {"dataset": row.one.dataset, "set": row.one.name, "row": row.pair.row, "side": row.one.side},
        "n_words": {"chosen": len(words(chosen)), "rejected": len(words(rejected))},
        "similarity": {"contamination": round(row.similarity, 4)},
        "flags": sorted({defect.kind for defect in row.defects} | ({"masked"} if row.masked else set())),
    }


def _rejected(one: PreferenceSet, number: int, its_id: str | None, pair: Pair | None, why: list[Defect]) -> dict:
    reasons = [{"reason": d.kind, "field": d.field, "found": d.found} for d in why]
    texts = {field: getattr(pair, field) if pair else None for field in FIELDS}
    return {"set": one.name, "row": number, "id": its_id, "reason": why[0].kind, "reasons": reasons, **texts}
