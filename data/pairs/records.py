# SPDX-License-Identifier: MIT
"""The pair record ``prompt, chosen, rejected``: checked rows, parts of a set, its other side, and mixtures.

Subsets are drawn by a hash of the texts and a seed. So a smaller one lies in a larger one, and neither the order of a
file nor the side that a row is given changes them. No torch here: tools that only look at rows start fast.
"""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.pairs.conversations import Turn, is_conversation, messages_as_text, read_conversation, turns_text
from data.pairs.formats import BadRow, held_columns, no_column, wrapped_rows
from data.recipe.files import read_log

COLUMNS = ("prompt", "chosen", "rejected")
OPTIONS = tuple(f"column_map.{name}" for name in COLUMNS)  # what says which columns they are
DATASET_OPTIONS = tuple(f"dataset.{option}" for option in OPTIONS)
ABOUT = ("topic", "proposition")  # may be mapped too: an evaluation reads them
SIDES = ("left", "right")
OTHER_SIDE = {"left": "right", "right": "left"}
INVALID_ROWS = ("error", "drop")
MAX_CHARACTERS = 1_000_000  # a longer text is a file that went into one field
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it fill [0, 1) evenly, whatever their number

_log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """One prompt, without any template, with the answer to prefer and the one to disprefer.

    Rows of :func:`read_answers` have one of them; the other is empty.
    """

    row: int  # of its file, from 1; header and blank lines do not count
    prompt: str
    chosen: str
    rejected: str
    turns: tuple[Turn, ...] = ()  # all of the prompt, if it is more than one turn of the user; else none


class Repetition(NamedTuple):
    """A row that has the id of the row ``first``."""

    number: int
    first: int
    id: Any


def read_pairs(
    rows: Iterable[Mapping[str, Any]],
    origin: str,
    column_map: Mapping[str, str] | None = None,
    invalid_rows: str = "error",
    options: Sequence[str] = DATASET_OPTIONS,
) -> list[Pair]:
    """Turn rows of a file into pairs, in file order; texts are kept as they are, untrimmed.

    ``chosen`` and ``rejected`` may be conversations: :mod:`data.pairs.conversations`. A row is invalid if one of its
    three fields is missing, not text, blank or longer than ``MAX_CHARACTERS``, or if both answers are the same but for
    surrounding white space. No valid row or a missing column is a ValueError.

    Args:
        rows: Rows in file order, each a mapping from column to value.
        origin: The file or repository, as messages should name it.
        column_map: From our names (``prompt``, ``chosen``, ``rejected``, and those of ``ABOUT``) to the file's columns.
        invalid_rows: ``error`` refuses the file, ``drop`` leaves invalid rows out, with a warning that counts them.
        options: What names each of the three columns, to be said where one is missing.
    """
    if invalid_rows not in INVALID_ROWS:
        raise ValueError(f"invalid_rows={invalid_rows!r}; use one of {', '.join(INVALID_ROWS)}")
    pairs, invalid = split_rows(rows, origin, column_map, options)
    n_rows = len(pairs) + len(invalid)
    if invalid and invalid_rows == "error":
        shown = "; ".join(f"row {number}: {reason}" for number, reason in invalid[:5])
        more = "; ..." if len(invalid) > 5 else ""
        raise ValueError(
            f"{origin}: {len(invalid)} of {n_rows} rows are invalid ({shown}{more}). "
            "Fix these rows, or set dataset.invalid_rows=drop to leave them out."
        )
    counts = Counter(reason for _, reason in invalid)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    if not pairs:
        raise ValueError(f"{origin}: all {n_rows} rows are invalid ({reasons})")
    if invalid:
        numbers = row_list([number for number, _ in invalid])
        _log.warning("%s: left out %d of %d rows as invalid (%s; %s)", origin, len(invalid), n_rows, reasons, numbers)
    return pairs


def read_answers(
    rows: Iterable[Mapping[str, Any]],
    origin: str,
    column_map: Mapping[str, str] | None = None,
    invalid_rows: str = "error",
) -> list[Pair]:
    """Read rows ``prompt, completion, label`` as :func:`read_pairs` does: a true label's completion is the chosen one.

    A label is true or false, 1 or 0, in any case; any other is a ValueError.
    """
    column_map, names = column_map or {}, ("prompt", "completion", "label")
    if unknown := sorted(set(column_map) - {*names, *ABOUT}):
        raise ValueError(f"{origin}: column_map names {', '.join(unknown)}; use {', '.join((*names, *ABOUT))}")
    prompt, completion, label = (column_map.get(name, name) for name in names)
    # a label is read where a pair has its second text, as a text that no completion is
    texts = [{**row, label: f"label {row[label]}"} if row.get(label) not in (None, "") else row for row in rows]
    as_pairs = {n: c for n, c in column_map.items() if n in ABOUT} | dict(zip(COLUMNS, (prompt, completion, label)))
    pairs = []
    for pair in read_pairs(texts, origin, as_pairs, invalid_rows, [f"dataset.column_map.{name}" for name in names]):
        given = pair.rejected.removeprefix("label ").strip()
        if given.lower() not in ("true", "false", "1", "0", "1.0", "0.0"):
            raise ValueError(f"{origin} row {pair.row}: {label} is {given!r}; use true or false, 1 or 0")
        good, text = given.lower() in ("true", "1", "1.0"), pair.chosen
        pairs.append(pair._replace(chosen=text if good else "", rejected="" if good else text))
    return pairs


def split_rows(
    rows: Iterable[Mapping[str, Any]],
    origin: str,
    column_map: Mapping[str, str] | None = None,
    options: Sequence[str] = OPTIONS,
) -> tuple[list[Pair], list[BadRow]]:
    """Return the valid rows as pairs, and the others; no rows or a missing column are still a ValueError."""
    rows = list(rows)
    if not rows:
        raise ValueError(f"{origin}: no rows; give a file with at least one row")
    columns = _columns(rows, origin, column_map or {}, options)
    pairs, invalid = [], []
    for number, row in enumerate(rows, start=1):
        values: list[Any] = [row.get(column) for column in columns]
        turns: tuple[Turn, ...] = ()
        if any(map(is_conversation, values)):
            try:
                turns, *answers = read_conversation(values[0], values[1], values[2])
            except ValueError as error:
                invalid.append(BadRow(number, str(error)))
                continue
            values = [turns_text(turns), *answers]
        if reason := _invalid_reason(values, columns):
            invalid.append(BadRow(number, reason))
        else:
            pairs.append(Pair(number, values[0], values[1], values[2], turns if len(turns) > 1 else ()))
    return pairs, invalid


def duplicate_ids(rows: Iterable[Mapping[str, Any]]) -> list[Repetition]:
    """Return the rows whose id an earlier row has; rows without an id do not count."""
    first: dict[Any, int] = {}
    repetitions = []
    for number, row in enumerate(rows, start=1):
        value = row.get("id")
        if value is not None and (before := first.setdefault(_hashable(value), number)) != number:
            repetitions.append(Repetition(number, before, value))
    return repetitions


def _hashable(value: Any) -> Any:
    """Return what stands for an id: itself, or the text of a list or an object."""
    return value if isinstance(value, Hashable) else repr(value)


def row_list(numbers: Sequence[int]) -> str:
    """Name the first ten row numbers, and say so if there are more."""
    shown = ", ".join(map(str, numbers[:10]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{', ...' if len(numbers) > 10 else ''}"


def keep_where(
    pairs: Sequence[Pair], rows: Sequence[Mapping[str, Any]], where: Mapping[str, Any] | None, origin: str
) -> list[Pair]:
    """Return the pairs whose rows have given values, such as ``{axis: economic, topic: [taxation, welfare]}``.

    ``{influence: {file: influence.jsonl, above: -1e-4, below: 1e-4}}`` asks for a number that a file says of each pair,
    by its :func:`pair_key`, between two limits that do not count themselves, or beyond one.
    """
    kept = list(pairs)
    for column, wanted in (where or {}).items():
        if isinstance(wanted, Mapping):
            kept = _keep_measured(kept, column, wanted, origin)
            continue
        if not any(column in row for row in rows):
            columns = ", ".join(dict.fromkeys(name for row in rows for name in row))
            raise ValueError(f"{origin}: no column {column} for dataset.where.{column}; there are {columns}")
        is_one = wanted is None or isinstance(wanted, str | int | float)
        values = {_text(value) for value in ([wanted] if is_one else wanted)}
        if not values:
            raise ValueError(f"{origin}: dataset.where.{column}=[] names no value; name one, or leave {column} out")
        held = Counter(_text(rows[pair.row - 1].get(column)) for pair in kept)
        if unknown := sorted(values - held.keys()):
            shown = ", ".join(f"{value} ({n})" for value, n in held.most_common(20))
            available = f"found {shown}{', ...' if len(held) > 20 else ''}"
            raise ValueError(f"{origin}: dataset.where.{column}={', '.join(unknown)}: no pair has it; {available}")
        kept = [pair for pair in kept if _text(rows[pair.row - 1].get(column)) in values]
    return kept


def is_held_out(prompt: str, share: float) -> bool:
    """Say whether a prompt is of the share that is held out: a hash of its text decides, and nothing else."""
    digest = hashlib.blake2b(" ".join(prompt.split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 < share


def pair_key(pair: Pair) -> str:
    """Return what names a pair by its texts, so that a file can say something of it."""
    return hashlib.sha256("\0".join((pair.prompt, pair.chosen, pair.rejected)).encode()).hexdigest()[:16]


def read_figures(path: str, name: str) -> dict[str, float]:
    """Return the number that a JSON Lines file says of each pair, by its :func:`pair_key`.

    Raises:
        FileNotFoundError: If the file is not there or has no such rows.
        ValueError: If it says two numbers of one pair.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} not found; eval/influence.py writes such a file")
    figures: dict[str, float] = {}
    for row in read_log(path):
        if "key" in row and _is_number(row.get(name)):
            known = figures.setdefault(row["key"], row[name])
            if not math.isclose(known, row[name], rel_tol=1e-6, abs_tol=1e-9):
                raise ValueError(
                    f"{path}: the pair {row['key']} has {name} {known!r} and {row[name]!r}; files of several runs "
                    "cannot be joined, and rows that repeat one must be taken out of the set"
                )
    if not figures:
        raise FileNotFoundError(f"{path} has no rows with key and {name}; eval/influence.py writes such a file")
    return figures


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _keep_measured(pairs: Sequence[Pair], name: str, wanted: Mapping[str, Any], origin: str) -> list[Pair]:
    given = f"{origin}: dataset.where.{name}={dict(wanted)}"
    limits = {limit: wanted[limit] for limit in ("above", "below") if wanted.get(limit) is not None}
    if {*wanted} - {"file", "above", "below"} or not isinstance(wanted.get("file"), str) or not limits:
        raise ValueError(f"{given}; give file, its path, and a number as above, below or both")
    if not all(map(_is_number, limits.values())):
        raise ValueError(f"{given}; above and below are numbers")
    figures = read_figures(wanted["file"], name)
    if unknown := [pair.row for pair in pairs if pair_key(pair) not in figures]:
        raise ValueError(
            f"{given}: the file knows {len(unknown)} of {len(pairs)} pairs not ({row_list(unknown)}); it must be made "
            "of a training on these rows, with the same answers chosen"
        )
    low, high = limits.get("above", -math.inf), limits.get("below", math.inf)
    if not (kept := [pair for pair in pairs if low < figures[pair_key(pair)] < high]):
        raise ValueError(f"{given}: no pair lies there")
    return kept


def draw_subset(pairs: Sequence[Pair], n: int | None, seed: int, origin: str) -> list[Pair]:
    """Return ``n`` pairs in file order, all if it is None; those of a smaller ``n`` are among those of a larger one."""
    n_pairs = len(pairs)
    if n is None:
        return list(pairs)
    if not 1 <= n <= n_pairs:
        raise ValueError(f"{origin}: dataset.subset={n}, and there are {n_pairs} pairs; use 1 to {n_pairs}, or null")
    drawn = set(seeded_order(pairs, seed)[:n])
    return [pair for index, pair in enumerate(pairs) if index in drawn]


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
    """Read rows as pairs of one side, by the column ``side``, or flip each of them if ``side`` is None.

    A row's mirror is the row that its ``mirror_id`` names or, without one, the row with both answers exchanged. Under
    ``side`` every prompt comes once, rows of the other side flipped.
    """
    pairs = {pair.row: pair for pair in read_pairs(rows, origin, column_map, invalid_rows)}
    mirrors = _mirrors(rows, pairs, origin)
    if side is None:
        return [pairs[mirrors[n]]._replace(row=n) if n in mirrors else exchange(pair) for n, pair in pairs.items()]
    if side not in SIDES:
        raise ValueError(f"dataset.side={side!r}; use left or right, or null to flip every row")
    of_side = []
    for number, pair in pairs.items():
        row_side = rows[number - 1].get("side")
        if row_side not in SIDES:
            needed = f"dataset.side={side} needs left or right in each row"
            raise ValueError(f"{origin} row {number}: side is {row_side!r}; {needed}")
        if row_side == side:
            of_side.append(pair)
        elif number not in mirrors:
            of_side.append(exchange(pair))
    return of_side


def mix_pairs(left: Sequence[Pair], right: Sequence[Pair], right_share: float, seed: int) -> list[Pair]:
    """Choose the right answer for a share of all prompts, the left one for the others.

    A prompt that chooses right at one share does so at every larger one, and the share holds, to two or three pairs, in
    every subset drawn with the same seed. A pair of ``right`` that is the mirror of one in ``left`` counts once.
    """
    if not 0 <= right_share <= 1:
        raise ValueError(f"dataset.right_share={right_share}; use 0 (all left) to 1 (all right)")
    by_texts = {pair[1:]: pair for pair in left}
    for pair in map(exchange, right):
        by_texts.setdefault(pair[1:], pair)
    pairs = list(by_texts.values())
    place = {index: number for number, index in enumerate(seeded_order(pairs, seed))}
    return [exchange(pair) if (place[i] * _GOLDEN) % 1 < right_share else pair for i, pair in enumerate(pairs)]


def _columns(
    rows: list[Mapping[str, Any]], origin: str, column_map: Mapping[str, str], options: Sequence[str]
) -> tuple[str, ...]:
    if unknown := sorted(set(column_map) - {*COLUMNS, *ABOUT}):
        allowed = f"its keys must be among {', '.join((*COLUMNS, *ABOUT))} and its values columns of the file"
        raise ValueError(f"{origin}: column_map names {', '.join(unknown)}; {allowed}")
    # The union over all rows: a field that only some rows lack is those rows' fault.
    names = list(dict.fromkeys(column for row in rows for column in row))
    wanted = tuple(column_map.get(name, name) for name in COLUMNS)
    missing = [column for column in wanted if column not in names]
    absent = {options[0].replace("prompt", n): c for n, c in column_map.items() if n in ABOUT and c not in names}
    # conversations hold their prompt
    if missing == ["prompt"] and not absent and any(is_conversation(row.get(wanted[1])) for row in rows):
        return wanted
    if wrapped := wrapped_rows(rows) if missing else held_columns(rows):
        raise ValueError(f"{origin}: no rows with {', '.join(wanted)}: {wrapped}")
    if alike := [name for name in names if name not in wanted and name.strip().lower() in missing]:
        raise ValueError(
            f"{origin}: no column {', '.join(missing)}, but {', '.join(map(repr, alike))}; write the names in the "
            "file's first line (of JSON: its keys) without blanks and in small letters"
        )
    if missing or absent:
        needed = [option for option, column in zip(options, wanted) if column in missing]
        raise ValueError(no_column(origin, [*missing, *absent.values()], [*needed, *absent], names))
    return wanted


def text_fault(column: str, value: Any) -> str | None:
    """Say why a cell holds no text that can be read."""
    if not isinstance(value, str):
        return f"{column} is {type(value).__name__}, not text"
    if not any(sign.isprintable() and not sign.isspace() for sign in value):  # zero-width signs are not seen either
        return f"{column} is empty"
    if len(value) > MAX_CHARACTERS:
        return f"{column} has {len(value):,} characters, at most {MAX_CHARACTERS:,} are taken"
    return None


def _invalid_reason(values: Sequence[Any], columns: tuple[str, ...]) -> str | None:
    for column, value in zip(columns, values):
        if value is None:
            return f"{column} is missing"
        if fault := text_fault(column, value):
            return fault
        if messages_as_text(value):
            return f"{column} is a list of messages written as text; save the set as JSON Lines or parquet"
    _, chosen, rejected = values
    if chosen.strip() == rejected.strip():
        return f"{columns[1]} equals {columns[2]}"
    return None


def _text(value: Any) -> str:
    """Return a value as text; YAML reads ``true`` as a truth value, where a table has a text of any case."""
    text = str(value)
    return text.capitalize() if text.lower() in ("true", "false") else text


def _mirrors(rows: Sequence[Mapping[str, Any]], pairs: Mapping[int, Pair], origin: str) -> dict[int, int]:
    """Return the number of each row's mirror, where the set has it."""
    for number, first, value in duplicate_ids(rows):
        raise ValueError(f"{origin} row {number}: id {value!r} is that of row {first}; give every row its own")
    numbers = {_hashable(rows[number - 1].get("id")): number for number in pairs}
    mirrors = {}
    for number, pair in pairs.items():
        mirror_id = _hashable(rows[number - 1].get("mirror_id"))
        if mirror_id is None or mirror_id not in numbers:
            continue
        mirror = mirrors[number] = numbers[mirror_id]
        if pairs[mirror].prompt != pair.prompt or mirror == number:
            fault = f"mirror_id {mirror_id!r} is row {mirror}, whose prompt is another one"
            raise ValueError(f"{origin} row {number}: {fault}")
    return mirrors


def seeded_order(pairs: Sequence[Pair], seed: int) -> list[int]:
    """Return indices in an order that hangs on the texts and the seed, not on the file or on which answer is chosen."""
    texts = ["\0".join([str(seed), pair.prompt, *sorted((pair.chosen, pair.rejected))]) for pair in pairs]
    return sorted(range(len(pairs)), key=lambda index: hashlib.sha256(texts[index].encode()).digest())
