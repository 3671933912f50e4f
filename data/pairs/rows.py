# SPDX-License-Identifier: MIT
"""Rows of local files, read strictly, and rows of the Hub, read by ``datasets``.

CSV, TSV, JSON Lines, JSON arrays and parquet, the text formats also as ``.gz``, ``.bz2`` and ``.xz``. JSON Lines end at
line feeds only. A cell of CSV or TSV is text and an empty one is missing; JSON and parquet keep their types. A row that
cannot be right is an error that names file and row.
"""

import bz2
import codecs
import csv
import glob
import gzip
import io
import json
import lzma
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from fsspec.core import url_to_fs

FILE_FORMATS = ("json", "csv", "tsv", "parquet")
MAX_LINE_BYTES = 1_000_000  # where rows are streamed: one post is not that long
MAX_TABLE_LINE_BYTES = 50_000_000  # three texts of a million characters, each of up to twelve bytes (two escapes)
_SUFFIXES = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_UNPACK: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_ARCHIVES = (b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")  # zip, zstd, lz4

Row = tuple[int, dict[str, Any]]  # number from 1, and value by column


class BadRow(NamedTuple):
    """A row that cannot be read: its number and the reason."""

    number: int
    reason: str


def file_format(path: str) -> str | None:
    """Return the format of a file by its suffix, one of ``FILE_FORMATS``; None for a repository of the Hub."""
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1].lower() in (".gz", ".bz2", ".xz"):
        suffixes.pop()
    kind = _SUFFIXES.get(suffixes[-1].lower()) if suffixes else None
    if kind is None and Path(path).is_file():
        raise ValueError(f"{path}: cannot tell its format; name it {', '.join(_SUFFIXES)}")
    return kind


def matching_files(pattern: str) -> list[str]:
    """Return the files that a path or glob names, sorted; the pattern itself if there are none."""
    pattern = os.path.expanduser(pattern)
    if Path(pattern).is_file():
        return [pattern]
    return [path for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()] or [pattern]


def load_rows(
    source: str, data_files: str | Sequence[str] | None = None, split: str = "train", revision: str | None = None
) -> tuple[list[dict[str, Any]], str]:
    """Load the rows of one split, in file order, and their origin as messages should name it.

    The messages say what to do: ConnectionError without the Hub, FileNotFoundError without the repository or a file,
    ValueError if ``data_files`` is needed and missing, or the data cannot be read.

    Args:
        source: A dataset repository of the Hub; a file; or ``json`` (also JSON Lines), ``csv``, ``tsv`` or ``parquet``
            for ``data_files``.
        data_files: Path, list of paths, glob or URL; within the repository if ``source`` is one. Rows of
            several files are numbered through, in the order given.
        split: Name of the split, or a slice of it such as ``train[:10%]``; files have the split ``train``.
        revision: Branch, tag or commit of the repository.
    """
    paths = [data_files] if isinstance(data_files, str) else list(data_files or [])
    if source in FILE_FORMATS and not paths:
        raise ValueError(f"source={source} needs data_files; add dataset.data_files=PATH")
    kind = source if source in FILE_FORMATS else None if paths else file_format(source)
    if not kind:
        return list(hub_rows(source, split, revision, paths, streaming=False)), "/".join([source, *paths])
    paths = paths or [source]
    origin = ", ".join(paths)
    try:
        files = (file for path in paths for file in _located(path))
        tables = (read_records(name, kind, MAX_TABLE_LINE_BYTES, content, may_be_empty=True) for name, content in files)
        rows = [row for table in tables for _, row in table]
        if split not in ("train", "all"):  # a part such as ``train[:10%]``, rounded as ``datasets`` does
            from datasets import ReadInstruction

            parts = ReadInstruction.from_spec(str(split)).to_absolute({"train": len(rows)})
            rows = [row for part in parts for row in rows[part.from_ : part.to]]
    except ValueError as error:
        detail = str(error).removeprefix(origin).lstrip(": ")
        remedy = f"Mend the file, or check source ({', '.join(FILE_FORMATS)}) and split={split}"
        raise ValueError(f"{origin}: cannot be read as {kind}: {detail}. {remedy}") from error
    if not rows:
        raise ValueError(f"{origin}: no rows; give a file with at least one row")
    return rows, origin


def read_table(path: str | Path, kind: str | None = None, content: bytes | None = None) -> list[dict[str, Any]]:
    """Return all rows of a file, or of its bytes, where the caller has them; else as :func:`read_records`."""
    return [row for _, row in read_records(path, kind, MAX_TABLE_LINE_BYTES, content)]


def read_records(
    path: str | Path,
    kind: str | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    content: bytes | None = None,
    may_be_empty: bool = False,
) -> Iterator[Row]:
    """Yield number (from 1) and columns of each row; only a batch of rows is in memory, a JSON array excepted.

    ``kind`` is one of ``FILE_FORMATS``, None tells it by the suffix. A longer line, or CSV field, is a bad row. A file
    that is binary, empty or malformed, or has a bad row, is a ValueError that names file and row.
    """
    is_empty = True
    for row in scan_records(path, kind, max_line_bytes=max_line_bytes, content=content):
        if isinstance(row, BadRow):
            raise ValueError(f"{path} row {row.number}: {row.reason}")
        yield row
        is_empty = False
    if is_empty and not may_be_empty:
        raise ValueError(f"{path}: no rows; give a file with at least one row")


def scan_records(
    path: str | Path,
    kind: str | None = None,
    *,
    quoted: bool = True,
    max_line_bytes: int = MAX_LINE_BYTES,
    content: bytes | None = None,
) -> Iterator[Row | BadRow]:
    """Yield rows as :func:`read_records` does, bad rows too where the next row can be told, and none of an empty file.

    ``quoted=False`` takes the quotation marks of CSV and TSV as they are.
    """
    kind = kind or file_format(str(path))
    if content is None and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: not found from {Path.cwd()}; check the path")
    if kind not in FILE_FORMATS:
        raise ValueError(f"{path}: cannot tell its format; name it {', '.join(_SUFFIXES)}")
    try:
        if kind == "parquet":
            yield from _parquet_rows(path, content)
            return
        with _open(path, content) as file:
            if kind == "json":
                yield from _json_rows(path, file, max_line_bytes)
            else:
                yield from _table_rows(path, file, "\t" if kind == "tsv" else ",", quoted, max_line_bytes)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: cannot be read to its end ({error}); a compressed file may be cut off") from error


def hub_rows(
    source: str, split: str, revision: str | None, data_files: Sequence[str] = (), streaming: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Hub dataset, errors as :func:`load_rows`; streamed rows are not kept on the disk."""
    import datasets

    origin = "/".join([source, *data_files])
    to_files = "source=FILE, or dataset.source=json dataset.data_files=PATH (or csv, parquet)"
    options = {"data_files": list(data_files) or None, "split": split, "revision": revision, "streaming": streaming}
    try:
        yield from datasets.load_dataset(source, **options)
    except ConnectionError as error:
        raise ConnectionError(
            f"{origin}: cannot reach the Hugging Face Hub ({error}). Connect (and unset HF_HUB_OFFLINE) to "
            f"fetch it once with `hf download --repo-type dataset {source}`, or use local files: {to_files}"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{origin}: not found from {Path.cwd()} ({error}). Check the path or the repository's name (and "
            f"`hf auth login` if it is private); local files need {to_files}"
        ) from error
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        detail = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"{origin}: cannot be read: {detail}. Check source, its files and split={split}") from error


def _located(pattern: str) -> list[tuple[str, bytes | None]]:
    """Return the files of a path or a glob, or what lies at a URL, such as ``hf://datasets/owner/name/*.jsonl``."""
    if "://" not in pattern:
        return [(path, None) for path in matching_files(pattern)]
    try:
        if pattern.startswith(("http://", "https://")):
            with urlopen(pattern) as reply:
                return [(pattern, reply.read())]
        files, path = url_to_fs(pattern)
        return [(files.unstrip_protocol(name), files.cat_file(name)) for name in sorted(files.glob(path))]
    except (OSError, ImportError, ValueError) as error:
        raise ConnectionError(f"{pattern}: cannot be fetched ({error}); fetch it yourself and give the file") from error


@contextmanager
def _open(path: str | Path, content: bytes | None) -> "Iterator[io.BufferedReader[Any]]":
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


def _table_rows(
    path: str | Path, file: io.BufferedReader, delimiter: str, quoted: bool, limit: int
) -> Iterator[Row | BadRow]:
    csv.field_size_limit(limit)  # of the whole process; no line is longer either
    defects: deque[str] = deque(maxlen=1)
    options: dict[str, Any] = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(_lines(file, limit, defects), delimiter=delimiter, **options)
    header = next(reader, None)
    if header is None:
        return
    if defects:
        raise ValueError(f"{path}: the first line is {defects.pop()}")
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
            yield BadRow(number, f"{counts}; quote a field that holds {delimiter!r}, or mend the row")
        else:
            yield number, {column: field or None for column, field in zip(header, fields)}


def _json_rows(path: str | Path, file: io.BufferedReader, limit: int) -> Iterator[Row | BadRow]:
    if file.peek(1).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
        try:
            rows = json.loads(file.read().decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {error.lineno}: {error.msg} at column {error.colno}") from error
        for number, row in enumerate(rows, start=1):
            yield _object(number, row)
        return
    defects: deque[str] = deque(maxlen=1)
    texts = filter(str.strip, _lines(file, limit, defects))
    for number, text in enumerate(texts, start=1):
        if defects:
            yield BadRow(number, defects.pop())
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            yield BadRow(number, f"no JSON: {error.msg} at column {error.colno}")
        else:
            yield _object(number, row)


def _object(number: int, row: Any) -> Row | BadRow:
    return (number, row) if isinstance(row, dict) else BadRow(number, f"a {type(row).__name__}, want an object")


def _parquet_rows(path: str | Path, content: bytes | None) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path if content is None else pyarrow.BufferReader(content))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({error})") from error
    rows = (row for batch in file.iter_batches(batch_size=1000) for row in batch.to_pylist())
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
