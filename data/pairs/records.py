# SPDX-License-Identifier: MIT
"""The pair record ``prompt, chosen, rejected``, and its one reader, which leaves no bad row unnamed.

No torch and no ``datasets`` here: tools that only look at rows start fast.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

COLUMNS = ("prompt", "chosen", "rejected")
SIDES = ("left", "right")
OTHER_SIDE = {"left": "right", "right": "left"}
INVALID_ROWS = ("error", "drop")
MAX_CHARACTERS = 1_000_000  # a longer text is a file that went into one field

_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """One prompt with its preferred and its dispreferred answer.

    Attributes:
        row: Number of the data row in its file, from 1; header and blank lines do not count.
        prompt: What the user says, without any template.
        chosen: The answer to prefer.
        rejected: The answer to disprefer.
    """

    row: int
    prompt: str
    chosen: str
    rejected: str


def read_pairs(
    rows: Iterable[Mapping[str, Any]],
    origin: str,
    column_map: Mapping[str, str] | None = None,
    invalid_rows: str = "error",
) -> list[Pair]:
    """Turn rows of a file into pairs; texts are kept as they are, untrimmed.

    A row is invalid if one of its three fields is missing, not text, blank or longer than ``MAX_CHARACTERS``, or if
    both answers are the same but for surrounding white space.

    Args:
        rows: Rows in file order, each a mapping from column to value.
        origin: The file or repository, as messages should name it.
        column_map: From our names (``prompt``, ``chosen``, ``rejected``) to the columns of the file.
        invalid_rows: ``error`` refuses the file, ``drop`` leaves invalid rows out, counted and logged.

    Returns:
        The valid rows, in file order.

    Raises:
        ValueError: If there are no rows, a column is missing, a row is invalid (under ``error``),
            or no row is valid.
    """
    if invalid_rows not in INVALID_ROWS:
        raise ValueError(f"invalid_rows={invalid_rows!r}; use one of {', '.join(INVALID_ROWS)}")
    pairs, invalid = split_rows(rows, origin, column_map)
    n_rows = len(pairs) + len(invalid)
    if invalid and invalid_rows == "error":
        shown = "; ".join(f"row {number}: {reason}" for number, reason in invalid[:5])
        more = "; ..." if len(invalid) > 5 else ""
        raise ValueError(
            f"{origin}: {len(invalid)} of {n_rows} rows are invalid ({shown}{more}). "
            "Fix these rows, or set dataset.invalid_rows=drop to leave them out."
        )
    if not pairs:
        raise ValueError(f"{origin}: all {n_rows} rows are invalid ({_summary(invalid)})")
    if invalid:
        _log.warning(
            "%s: left out %d of %d rows as invalid (%s; %s)",
            *(origin, len(invalid), n_rows, _summary(invalid)),
            row_list([number for number, _ in invalid]),
        )
    return pairs


def split_rows(
    rows: Iterable[Mapping[str, Any]], origin: str, column_map: Mapping[str, str] | None = None
) -> tuple[list[Pair], list[tuple[int, str]]]:
    """Return the valid rows as pairs, and number and reason of the others; see :func:`read_pairs`.

    Raises:
        ValueError: If there are no rows or a column is missing.
    """
    rows = list(rows)
    if not rows:
        raise ValueError(f"{origin}: no rows; give a file with at least one row")
    columns = _columns(rows, origin, column_map or {})
    pairs, invalid = [], []
    for number, row in enumerate(rows, start=1):
        reason = _invalid_reason(row, columns)
        if reason:
            invalid.append((number, reason))
        else:
            pairs.append(Pair(number, *(row[column] for column in columns)))
    return pairs, invalid


def duplicate_ids(rows: Iterable[Mapping[str, Any]], column: str = "id") -> list[tuple[int, int, Any]]:
    """List each row whose id an earlier row has: its number, the earlier one's, the id. Rows without one pass."""
    first: dict[Any, int] = {}
    found = []
    for number, row in enumerate(rows, start=1):
        value = row.get(column)
        if value is not None and first.setdefault(value, number) != number:
            found.append((number, first[value], value))
    return found


def row_list(numbers: list[int]) -> str:
    """Name the first ten row numbers, and say so if there are more."""
    shown = ", ".join(map(str, numbers[:10]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{', ...' if len(numbers) > 10 else ''}"


def _columns(rows: list[Mapping[str, Any]], origin: str, column_map: Mapping[str, str]) -> tuple[str, ...]:
    unknown = sorted(set(column_map) - set(COLUMNS))
    if unknown:
        raise ValueError(
            f"{origin}: column_map names {', '.join(unknown)}; its keys must be among "
            f"{', '.join(COLUMNS)} and its values columns of the file"
        )
    # The union over all rows: a field that only some rows lack is those rows' fault.
    found = list(dict.fromkeys(column for row in rows for column in row))
    wanted = tuple(column_map.get(name, name) for name in COLUMNS)
    missing = [column for column in wanted if column not in found]
    if missing:
        raise ValueError(
            f"{origin}: no column {', '.join(missing)}; found {', '.join(found) or 'none'}, "
            f"wanted {', '.join(wanted)}. Say which is which with column_map (of a dataset: dataset.column_map), "
            "for example column_map.prompt=question"
        )
    return wanted


def _invalid_reason(row: Mapping[str, Any], columns: tuple[str, ...]) -> str | None:
    for column in columns:
        value = row.get(column)
        if value is None:
            return f"{column} is missing"
        if not isinstance(value, str):
            return f"{column} is {type(value).__name__}, not text"
        if not value.strip():
            return f"{column} is empty"
        if len(value) > MAX_CHARACTERS:
            return f"{column} has {len(value):,} characters, at most {MAX_CHARACTERS:,} are taken"
    _, chosen, rejected = columns
    if row[chosen].strip() == row[rejected].strip():
        return f"{chosen} equals {rejected}"
    return None


def _summary(invalid: list[tuple[int, str]]) -> str:
    counts = Counter(reason for _, reason in invalid)
    return ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
