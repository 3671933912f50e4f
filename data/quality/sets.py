# SPDX-License-Identifier: MIT
"""A preference set as an audit looks at it: rows, valid pairs, and which side its chosen answers take."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from data.pairs.records import Pair, duplicate_ids, split_rows
from data.pairs.rows import file_format, load_rows
from data.quality.defects import Defect

SIDES = ("left", "right")


class PreferenceSet(NamedTuple):
    """One set, or the rows of one side of a set.

    Attributes:
        name: ``left``, ``right``, or ``set`` if the side is not known.
        side: Which side the chosen answers take, or None.
        origin: File or repository, as messages should name it.
        n_rows: Rows, invalid ones included.
        pairs: The valid rows; their numbers are those of the whole file.
        topics: Of each pair, or None without such a column.
        ids: Of each pair, its own or the row's number.
        broken: Invalid rows and ids that occur twice.
        sha256: Of all rows.
    """

    name: str
    side: str | None
    origin: str
    n_rows: int
    pairs: list[Pair]
    topics: list[str] | None
    ids: list[str]
    broken: list[Defect]
    sha256: str

    @property
    def dataset(self) -> str:
        """What a row should name as its source: the repository, or a file without its folders."""
        return Path(self.origin).name if file_format(self.origin) else self.origin


def load_sets(
    source: str | Mapping[str, str],
    column_map: Mapping[str, str] | None = None,
    side: str | None = None,
    topic_column: str = "topic",
    split: str = "train",
    revision: str | None = None,
) -> list[PreferenceSet]:
    """Load one set or two.

    Args:
        source: A file, a repository of the Hub, or ``{left: …, right: …}`` with one of these for each side.
        column_map: From ``prompt``, ``chosen``, ``rejected`` to the columns' names.
        side: Of the chosen answers of a single source: ``left``, ``right``, the name of a column that says so for
            each row, or None if it is not known.
        topic_column: Column with each row's topic, if there is one.
        split: Split of a Hub repository.
        revision: Branch, tag or commit of a Hub repository.

    Raises:
        ConnectionError: If the Hub cannot be reached.
        FileNotFoundError: If a file or repository does not exist.
        ValueError: If a source, its columns or its sides are not as asked.
    """
    if source is None:
        raise ValueError("source is null; give source=FILE or source=owner/name, or source.left=… source.right=…")
    if isinstance(source, Mapping):
        if not source or not {*source} <= {*SIDES}:
            raise ValueError(f"source has {', '.join(map(str, source))}; use one path or name, or left and right")
        if side is not None:
            raise ValueError(f"side={side}, but source.left and source.right say the sides; leave side=null")
        named = [(name, name, str(source[name])) for name in SIDES if name in source]
    else:
        named = [(side if side in SIDES else "set", side, str(source))]
    sets = []
    for name, its_side, path in named:
        kind = file_format(path)
        rows, origin = load_rows(kind, path) if kind else load_rows(path, None, split, revision)
        if its_side is None or its_side in SIDES:
            sets.append(_make(name, its_side, origin, list(enumerate(rows, start=1)), column_map, topic_column))
        else:
            sets += _by_column(its_side, origin, rows, column_map, topic_column)
    return sets


def _by_column(
    column: str, origin: str, rows: list[dict], column_map: Mapping[str, str] | None, topic_column: str
) -> list[PreferenceSet]:
    parts: dict[str, list[tuple[int, dict]]] = {name: [] for name in SIDES}
    for number, row in enumerate(rows, start=1):
        value = row.get(column)
        if value not in parts:
            found = f"no column {column}" if column not in row else f"{column}={value!r}"
            raise ValueError(
                f"{origin} row {number}: {found}; side must be left, right, or a column that holds one of them"
            )
        parts[value].append((number, row))
    return [_make(name, name, origin, part, column_map, topic_column) for name, part in parts.items() if part]


def _make(
    name: str,
    side: str | None,
    origin: str,
    numbered: list[tuple[int, dict]],
    column_map: Mapping[str, str] | None,
    topic_column: str,
) -> PreferenceSet:
    numbers, rows = zip(*numbered) if numbered else ((), ())
    pairs, invalid = split_rows(rows, origin, column_map)
    broken = [Defect(numbers[row - 1], "invalid row", "row", reason) for row, reason in invalid]
    broken += [
        Defect(numbers[row - 1], "duplicate id", "row", f"id {value!r} is that of row {numbers[first - 1]}")
        for row, first, value in duplicate_ids(rows)
    ]
    own = [rows[pair.row - 1] for pair in pairs]
    topics = [str(row[topic_column]) for row in own] if own and all(row.get(topic_column) for row in own) else None
    ids = [str(row.get("id") or f"{numbers[pair.row - 1]:06d}") for row, pair in zip(own, pairs)]
    digest = hashlib.sha256("\n".join(json.dumps(row, sort_keys=True, default=str) for row in rows).encode())
    pairs = [pair._replace(row=numbers[pair.row - 1]) for pair in pairs]
    return PreferenceSet(name, side, origin, len(rows), pairs, topics, ids, broken, digest.hexdigest())
