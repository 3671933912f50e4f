# SPDX-License-Identifier: MIT
"""Sides, shares and doses: which answer of a pair is the chosen one, and how many pairs there are.

A study of dose needs sets in which the smaller lies in the larger, and a study of mixtures needs identical prompts on
which only the chosen side changes. All of it is drawn by hash of the texts and a seed, so neither the order of a file
nor the side that a row is given changes what is drawn.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data.pairs.records import SIDES, Pair, duplicate_ids, read_pairs
from data.pairs.rows import load_rows

_log = logging.getLogger(__name__)

_GOLDEN = (5**0.5 - 1) / 2  # multiples of it fill [0, 1) evenly, whatever their number


def draw_subset(pairs: Sequence[Pair], n: int | None, seed: int, origin: str) -> list[Pair]:
    """Return ``n`` pairs in file order; those of a smaller ``n`` are among those of a larger one.

    Args:
        pairs: Valid pairs.
        n: Pairs to draw; None takes all.
        seed: Of the draw.
        origin: The file or repository, as messages should name it.

    Raises:
        ValueError: If there are fewer pairs, or ``n`` is not positive.
    """
    if n is None:
        return list(pairs)
    if not 1 <= n <= len(pairs):
        raise ValueError(
            f"{origin}: dataset.subset={n}, and there are {len(pairs)} pairs; use 1 to {len(pairs)}, or null"
        )
    drawn = set(_order(pairs, seed)[:n])
    return [pair for index, pair in enumerate(pairs) if index in drawn]


def keep_where(
    pairs: Sequence[Pair], rows: Sequence[Mapping[str, Any]], where: Mapping[str, Any] | None, origin: str
) -> list[Pair]:
    """Return the pairs whose rows have given values, counted and logged.

    Args:
        pairs: Pairs read from ``rows``.
        rows: All rows of the set, in file order.
        where: From a column to the value, or any of several, that it must have, such as
            ``{axis: economic, topic: [taxation, welfare]}``; None keeps every pair.
        origin: The file or repository, as messages should name it.

    Raises:
        ValueError: If there is no such column or no pair with a value; says what there is.
    """
    kept = list(pairs)
    for column, wanted in (where or {}).items():
        if not any(column in row for row in rows):
            columns = ", ".join(dict.fromkeys(name for row in rows for name in row))
            raise ValueError(f"{origin}: no column {column} for dataset.where.{column}; there are {columns}")
        values = {str(value) for value in ([wanted] if isinstance(wanted, str | int | float) else wanted)}
        found = Counter(str(rows[pair.row - 1].get(column)) for pair in kept)
        if unknown := sorted(values - found.keys()):
            held = ", ".join(f"{value} ({n})" for value, n in found.most_common(20))
            raise ValueError(
                f"{origin}: dataset.where.{column}={', '.join(unknown)}: no pair has it; "
                f"found {held}{', ...' if len(found) > 20 else ''}"
            )
        kept = [pair for pair in kept if str(rows[pair.row - 1].get(column)) in values]
    if where:
        _log.info("%s: %d of %d pairs have %s", origin, len(kept), len(pairs), dict(where))
    return kept


def exchange(pair: Pair) -> Pair:
    """Return the pair with the rejected answer chosen."""
    return pair._replace(chosen=pair.rejected, rejected=pair.chosen)


def mirror_pairs(
    rows: Sequence[Mapping[str, Any]],
    origin: str,
    column_map: Mapping[str, str] | None,
    side: str | None,
    invalid_rows: str,
) -> list[Pair]:
    """Read rows as pairs of one side, or flip each of them.

    Args:
        rows: Rows in file order. With columns ``id`` and ``mirror_id`` a row's mirror is the row that it names;
            without one, its own with both answers exchanged.
        origin: The file or repository, as messages should name it.
        column_map: From ``prompt``, ``chosen``, ``rejected`` to the columns' names.
        side: Side of the chosen answers, by the column ``side``: every prompt comes once, rows of the other side
            flipped. None flips every row.
        invalid_rows: See :func:`data.pairs.records.read_pairs`.

    Raises:
        ValueError: If a side is unknown, an id occurs twice, or a ``mirror_id`` names a row with another prompt.
    """
    pairs = {pair.row: pair for pair in read_pairs(rows, origin, column_map, invalid_rows)}
    mirrors = _mirrors(rows, pairs, origin)
    if side is None:
        return [pairs[mirrors[n]]._replace(row=n) if n in mirrors else exchange(pair) for n, pair in pairs.items()]
    if side not in SIDES:
        raise ValueError(f"dataset.side={side!r}; use left or right, or null to flip every row")
    found = []
    for number, pair in pairs.items():
        own = rows[number - 1].get("side")
        if own not in SIDES:
            raise ValueError(
                f"{origin} row {number}: side is {own!r}; dataset.side={side} needs left or right in each row"
            )
        if own == side:
            found.append(pair)
        elif number not in mirrors:
            found.append(exchange(pair))
    return found


def mix_pairs(left: Sequence[Pair], right: Sequence[Pair], right_share: float, seed: int) -> list[Pair]:
    """Choose the right answer for a share of all prompts, the left one for the others.

    A prompt that chooses right at one share does so at every larger one, and the share holds, to two or three pairs, in
    every subset drawn with the same seed.

    Args:
        left: Pairs whose chosen answer is the left one.
        right: Pairs whose chosen answer is the right one. A pair that is the mirror of one in ``left`` counts once.
        right_share: 0 to 1.
        seed: Of the choice.

    Raises:
        ValueError: If the share is not between 0 and 1.
    """
    if not 0 <= right_share <= 1:
        raise ValueError(f"dataset.right_share={right_share}; use 0 (all left) to 1 (all right)")
    by_texts = {(pair.prompt, pair.chosen, pair.rejected): pair for pair in left}
    for pair in map(exchange, right):
        by_texts.setdefault((pair.prompt, pair.chosen, pair.rejected), pair)
    pairs = list(by_texts.values())
    place = {index: number for number, index in enumerate(_order(pairs, seed))}
    return [exchange(pair) if (place[i] * _GOLDEN) % 1 < right_share else pair for i, pair in enumerate(pairs)]


def read_side(side: str, spec: Mapping[str, Any], invalid_rows: str) -> tuple[list[Pair], str, int]:
    """Load one set of a mixture: its pairs, its origin, and how many rows it has.

    Raises:
        ValueError: If ``spec`` has unknown keys or no ``source``.
    """
    known = ("source", "data_files", "split", "revision", "column_map", "where")
    if not {"source"} <= {*spec} <= {*known}:
        raise ValueError(
            f"dataset.{side} has {', '.join(map(str, spec)) or 'nothing'}; use source and any of {known[1:]}"
        )
    arguments = {key: spec[key] for key in known[:4] if key in spec}
    rows, origin = load_rows(**arguments)
    pairs = read_pairs(rows, origin, spec.get("column_map"), invalid_rows)
    return keep_where(pairs, rows, spec.get("where"), origin), origin, len(rows)


def _mirrors(rows: Sequence[Mapping[str, Any]], pairs: Mapping[int, Pair], origin: str) -> dict[int, int]:
    """Row number of each row's mirror, where the set has it."""
    if again := duplicate_ids(rows):
        number, first, value = again[0]
        raise ValueError(f"{origin} row {number}: id {value!r} is that of row {first}; give every row its own")
    numbers = {rows[number - 1].get("id"): number for number in pairs}
    mirrors = {}
    for number, pair in pairs.items():
        named = rows[number - 1].get("mirror_id")
        if named is None or named not in numbers:
            continue
        other = numbers[named]
        if pairs[other].prompt != pair.prompt or other == number:
            raise ValueError(f"{origin} row {number}: mirror_id {named!r} is row {other}, whose prompt is another one")
        mirrors[number] = other
    return mirrors


def _order(pairs: Sequence[Pair], seed: int) -> list[int]:
    """Indices in an order that hangs on the texts and the seed, not on the file or on which answer is chosen."""

    def key(index: int) -> bytes:
        pair = pairs[index]
        texts = "\0".join([str(seed), pair.prompt, *sorted((pair.chosen, pair.rejected))])
        return hashlib.sha256(texts.encode()).digest()

    return sorted(range(len(pairs)), key=key)
