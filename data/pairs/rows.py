# SPDX-License-Identifier: MIT
"""Tables read row by row and strictly: what cannot be right is an error that names file and row.

CSV, TSV, JSON Lines, JSON arrays and parquet, the text formats also as ``.gz`` and ``.bz2``. Only a batch of rows is
ever in memory (a JSON array excepted).
"""

import bz2
import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

MAX_LINE_BYTES = 1_000_000
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}


class BadRow(NamedTuple):
    """A row that cannot be read, with the reason and its number; yielded only under ``bad_rows="skip"``."""

    number: int
    reason: str


def read_records(
    path: str | Path,
    file_format: str,
    quoted: bool = True,
    max_line_bytes: int = MAX_LINE_BYTES,
    bad_rows: str = "error",
) -> Iterator[tuple[int, dict[str, Any]] | BadRow]:
    """Yield number (from 1) and columns of each row.

    Args:
        path: File.
        file_format: ``csv``, ``tsv``, ``json`` (also JSON Lines) or ``parquet``.
        quoted: Whether quotation marks of CSV and TSV quote; False takes them as they are.
        max_line_bytes: A longer line is a bad row: one post is not that long.
        bad_rows: ``error``, or ``skip`` to go on with the next row where that can be told.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is binary, empty or malformed, or a row is bad under ``error``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found from {Path.cwd()}")
    n_rows = 0
    for row in _rows(path, file_format, quoted, max_line_bytes):
        n_rows += 1
        if isinstance(row, BadRow) and bad_rows == "error":
            raise ValueError(f"{path} row {row.number}: {row.reason}")
        yield row
    if not n_rows:
        raise ValueError(f"{path}: no rows; give a file with at least one row")


def _rows(path: Path, file_format: str, quoted: bool, limit: int) -> Iterator[tuple[int, dict[str, Any]] | BadRow]:
    if file_format == "parquet":
        return _parquet_rows(path)
    if file_format == "json":
        return _json_rows(path, limit)
    return _table_rows(path, "\t" if file_format == "tsv" else ",", quoted, limit)


def _table_rows(path: Path, delimiter: str, quoted: bool, limit: int) -> Iterator[tuple[int, dict[str, Any]] | BadRow]:
    with _open(path) as file:
        lines = _Lines(path, file, limit)
        options = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader(lines, delimiter=delimiter, **options)
        header = next(reader, None)
        if header is None:
            return
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
            if lines.defect:
                yield BadRow(number, lines.take_defect())
            elif len(fields) != len(header):
                found = f"{len(fields)} fields, the header has {len(header)} (line {reader.line_num})"
                yield BadRow(number, f"{found}; quote a field that holds {delimiter!r}, or mend the row")
            else:
                yield number, dict(zip(header, fields))


def _json_rows(path: Path, limit: int) -> Iterator[tuple[int, dict[str, Any]] | BadRow]:
    with _open(path) as file:
        if file.peek(1).lstrip()[:1] == b"[":
            try:
                rows = json.loads(file.read().decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} line {error.lineno}: {error.msg} at column {error.colno}") from error
            for number, row in enumerate(rows, start=1):
                yield _object(number, row)
            return
        lines, number = _Lines(path, file, limit), 0
        for line in lines:
            if not line.strip() and not lines.defect:
                continue
            number += 1
            if lines.defect:
                yield BadRow(number, lines.take_defect())
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield BadRow(number, f"no JSON: {error.msg} at column {error.colno}")
            else:
                yield _object(number, row)


def _object(number: int, row: Any) -> tuple[int, dict[str, Any]] | BadRow:
    return (number, row) if isinstance(row, dict) else BadRow(number, f"a {type(row).__name__}, want an object")


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error})") from error
    number = 0
    for batch in file.iter_batches(batch_size=1000):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _open(path: Path) -> BinaryIO:
    file = _OPENERS.get(path.suffix, open)(path, "rb")
    head = file.peek(4096)[:4096]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        file.close()
        raise ValueError(f"{path}: not UTF-8 but UTF-16 text; save it as UTF-8")
    if b"\0" in head:
        file.close()
        raise ValueError(f"{path}: a binary file (a zero byte at {head.index(0)}), want UTF-8 text")
    return file


class _Lines:
    """Lines of a file as text. A line that is too long or no UTF-8 comes empty of it, with ``defect`` set."""

    def __init__(self, path: Path, file: BinaryIO, limit: int) -> None:
        self._path, self._file, self._limit = path, file, limit
        self._first, self.defect = True, ""

    def take_defect(self) -> str:
        """Return the defect of the last line and forget it."""
        defect, self.defect = self.defect, ""
        return defect

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(self._limit):
            if len(line) >= self._limit and not line.endswith(b"\n"):
                n_bytes = len(line)
                while line and not line.endswith(b"\n"):
                    line = self._file.readline(self._limit)
                    n_bytes += len(line)
                self.defect = f"a line of {n_bytes:,} bytes, at most {self._limit:,} are read; is this one post?"
                yield "-\n"
                continue
            try:
                text = line.decode("utf-8-sig" if self._first else "utf-8")
            except UnicodeDecodeError as error:
                self.defect = f"not UTF-8 (byte {error.start} of the line, {line[error.start]:#x}); save it as UTF-8"
                text = "-\n"
            if self._first and self.defect and self._path.suffix not in (".json", ".jsonl", ".ndjson"):
                raise ValueError(f"{self._path}: the first line is {self.take_defect()}")
            self._first = False
            yield text
