# SPDX-License-Identifier: MIT
"""The formats of files of rows: CSV and TSV, JSON Lines and arrays, parquet. A file that is none of them is named."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from data.pairs.hub import named_labels
from data.recipe.files import unique_keys

_UNPACK: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_ARCHIVES = (b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")  # zip, zstd, lz4
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_MOST_LOOKED_AT = 100_000_000  # bytes
_HALF_PAIR = re.compile("[\ud800-\udfff]")

Row = tuple[int, dict[str, Any]]  # number from 1, and value by column


class BadRow(NamedTuple):
    """A row that cannot be read: its number and the reason."""

    number: int
    reason: str


@contextmanager
def open_text(path: str | Path, content: bytes | None) -> "Iterator[io.BufferedReader[Any]]":
    """Open a text file, unpacked by what its first bytes say, not by its name."""
    raw: io.BufferedReader[Any] = open(path, "rb") if content is None else io.BufferedReader(io.BytesIO(content))
    with raw:
        start = raw.peek(8)[:8]
        if start.startswith(_ARCHIVES):
            raise ValueError(f"{path}: a zip, zstd or lz4 archive; unpack it (.gz, .bz2 and .xz are read as they are)")
        unpack = next((unpack for magic, unpack in _UNPACK.items() if start.startswith(magic)), None)
        file = io.BufferedReader(unpack(raw)) if unpack else raw
        head = file.peek(4096)[:4096]
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError(f"{path}: not UTF-8 but UTF-16 text; save it as UTF-8")
        if b"\0" in head:
            raise ValueError(f"{path}: a binary file (a zero byte at {head.index(0)}), want UTF-8 text")
        yield file


def table_rows(
    path: str | Path, file: io.BufferedReader, delimiter: str, quoted: bool, limit: int
) -> Iterator[Row | BadRow]:
    """Yield the rows of CSV or TSV; a field is text, and an empty one is None."""
    csv.field_size_limit(limit)  # of the whole process; no line is longer either
    defects: deque[str] = deque(maxlen=1)
    options: dict[str, Any] = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
    lines = _lines(file, limit, defects)
    first = next(lines, None)
    if first is None:
        return
    if defects:
        raise ValueError(f"{path}: the first line is {defects.pop()}")
    _check_delimiter(path, first, delimiter)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, **options)
    try:
        header = next(reader)
    except csv.Error as error:
        raise ValueError(f"{path}: the first line cannot be read ({error}); want names of columns") from error
    remedy = f"quote a field that holds {delimiter!r}, or mend the row"
    if padded := [name for name in header if name != name.strip()]:
        remedy = (
            f"the header has blanks around {', '.join(map(repr, padded))}: take the blanks beside {delimiter!r} out"
        )
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: the header has {', '.join(header)}; every column needs its own name")
    number = 0
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            number += 1
            reason = f"{error} (line {reader.line_num}); put one row on a line and quote what holds {delimiter!r}"
            yield BadRow(number, reason)
            continue
        if fields is None:
            return
        if not fields:
            continue
        number += 1
        if defects:
            yield BadRow(number, defects.pop())
        elif len(fields) != len(header):
            counts = f"{len(fields)} fields, the header has {len(header)} (line {reader.line_num})"
            yield BadRow(number, f"{counts}; {remedy}")
        else:
            yield number, {column: field or None for column, field in zip(header, fields)}


def _check_delimiter(path: str | Path, first: str, delimiter: str) -> None:
    """Refuse a table whose first line shows that another sign separates its columns."""
    if delimiter in first:
        return
    other = max(_DELIMITERS, key=first.count)
    if other in first:
        kind = {",": "csv", "\t": "tsv"}.get(other)
        remedy = f"name it .{kind}, or give source={kind} with data_files" if kind else "save it with commas (CSV)"
        found = f"columns are separated by {_DELIMITERS[other]}, not by {_DELIMITERS[delimiter]}"
        raise ValueError(f"{path}: {found}; {remedy}")


def json_rows(path: str | Path, file: io.BufferedReader, limit: int) -> Iterator[Row | BadRow]:
    """Yield the rows of JSON Lines, or of one JSON array."""
    if file.peek(1).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        try:
            whole = file.read().decode("utf-8-sig")
            rows = json.loads(whole, object_pairs_hook=unique_keys)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {error.lineno}: {error.msg} at column {error.colno}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        yield from (_object(number, row, whole) for number, row in enumerate(rows, start=1))
        return
    defects: deque[str] = deque(maxlen=1)
    texts = filter(str.strip, _lines(file, limit, defects))
    for number, text in enumerate(texts, start=1):
        if defects:
            yield BadRow(number, defects.pop())
            continue
        try:
            row = json.loads(text, object_pairs_hook=unique_keys)
        except json.JSONDecodeError as error:
            if number == 1 and text.lstrip().startswith("{"):
                position = file.tell()
                _check_one_object(path, text + file.read(_MOST_LOOKED_AT).decode(errors="replace"))
                file.seek(position)
            yield BadRow(number, f"no JSON: {error.msg} at column {error.colno}")
        except ValueError as error:
            yield BadRow(number, str(error))
        else:
            yield _object(number, row, text)


def _check_one_object(path: str | Path, text: str) -> None:
    """Refuse a file that is one object over several lines, or several such objects."""
    try:
        whole, end = json.JSONDecoder().raw_decode(text.lstrip())
    except json.JSONDecodeError:
        return
    if text.lstrip()[end:].lstrip().startswith(","):
        raise ValueError(f"{path}: commas between the rows; take them out, or put [ before all rows and ] behind them")
    if text.lstrip()[end:].strip():
        raise ValueError(f"{path}: objects over several lines; put each on one line: jq -c . FILE > NEW.jsonl")
    remedy = wrapped_rows([whole]) or "put it on one line: jq -c . FILE > NEW.jsonl"
    raise ValueError(f"{path}: one object over several lines; {remedy}")


def wrapped_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how to get at the rows where the only object of a file is no row but holds them; empty where it does not."""
    (row,) = rows if len(rows) == 1 else ({},)
    if columns := held_columns(rows):
        return columns
    lists = {key: value for key, value in row.items() if isinstance(value, list) and _are_objects(value)}
    if not lists:
        return ""
    key = max(lists, key=lambda name: len(lists[name]))
    what = f"[.{key}[].row]" if all("row" in part for part in lists[key]) else f".{key}"
    return f"the rows stand in the list `{key}`; save that list alone: jq '{what}' FILE > NEW.json"


def held_columns(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how to save rows where the only object of a file holds whole columns; empty where it does not."""
    (row,) = rows if len(rows) == 1 else ({},)
    values = [value for value in row.values() if isinstance(value, list | dict) and value]
    is_column = [not any(isinstance(x, dict) for x in v) if isinstance(v, list) else "0" in v for v in values]
    if (len(values) == len(row) > 1 and all(is_column)) or {"columns", "data"} <= {*row}:
        return "it holds columns, not rows; pandas saves rows by to_json(FILE, orient='records', lines=True)"
    return ""


def _are_objects(values: list[Any]) -> bool:
    """Return whether a list holds objects that are no messages."""
    return bool(values) and all(isinstance(part, dict) and not {"role", "from"} & {*part} for part in values)


def _object(number: int, row: Any, text: str) -> Row | BadRow:
    """Return a row that was parsed out of a text, if it is an object all of whose texts are Unicode."""
    if not isinstance(row, dict):
        return BadRow(number, f"a {type(row).__name__}, want an object")
    for column, value in row.items() if "\\u" in text else ():  # only an escape can give half of a pair
        if half := half_pair([column, value]):
            found = f"{column!a} has half of a surrogate pair ({half}), which is no text"
            return BadRow(number, f"{found}; write the sign whole, or take it out")
    return number, row


def no_column(where: str, missing: Iterable[str], options: Iterable[str], found: Iterable[str]) -> str:
    """Say which columns are missing, the options that name them, and which ones there are."""
    given = "".join(f" {option}=COLUMN" for option in options)
    there = f"columns: {', '.join(found) or 'none'}"
    return f"{where}: no column {', '.join(missing)}; {given and f'give{given}; '}{there}"


def half_pair(value: Any) -> str | None:
    """Return half of a surrogate pair that stands in a text of a value, as an escape; no file can hold it."""
    found = _HALF_PAIR.search(json.dumps(value, ensure_ascii=False))
    return f"{found[0]!a}" if found else None


def parquet_rows(path: str | Path, content: bytes | None) -> Iterator[Row]:
    """Yield the rows of a parquet file, or of its bytes."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path if content is None else pyarrow.BufferReader(content))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error})") from error
    # what ``datasets`` writes beside the columns says which numbers are class labels
    written = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    features = (written.get("info") or {}).get("features")
    rows = (named_labels(row, features) for batch in file.iter_batches(batch_size=1000) for row in batch.to_pylist())
    yield from enumerate(rows, start=1)


def _lines(file: io.BufferedReader, limit: int, defects: deque[str]) -> Iterator[str]:
    """Yield lines as text; one that is too long or no UTF-8 is a dash, and ``defects`` gets the reason."""
    encoding = "utf-8-sig"
    while line := file.readline(limit):
        text = "-\n"
        if len(line) >= limit and not line.endswith(b"\n"):
            n_bytes = len(line)
            while line and not line.endswith(b"\n"):
                line = file.readline(limit)
                n_bytes += len(line)
            defects.append(f"a line of {n_bytes:,} bytes, at most {limit:,} are read; is this one post?")
        else:
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                fault = f"not UTF-8 (byte {error.start} of the line, {line[error.start]:#x})"
                defects.append(f"{fault}; save it as UTF-8")
        encoding = "utf-8"
        yield text
