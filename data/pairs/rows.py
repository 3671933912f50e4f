# SPDX-License-Identifier: MIT
"""Rows of local files, read strictly, and the one way to a set's rows, wherever it lies.

CSV, TSV, JSON Lines, JSON arrays and parquet, the text formats also as ``.gz``, ``.bz2`` and ``.xz``. JSON Lines end at
line feeds only. A cell of CSV or TSV is text and an empty one is missing; JSON and parquet keep their types, but class
labels become names. A row that cannot be right is an error that names file and row.
"""

import glob
import lzma
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from fsspec.core import url_to_fs

from data.pairs.formats import BadRow, Row, json_rows, open_text, parquet_rows, table_rows
from data.pairs.hub import folder_config, hub_rows, named_labels

SHIPPED_SET = "data/mirrored/pairs.jsonl"  # of this package, from every folder
FILE_FORMATS = ("json", "csv", "tsv", "parquet")
MAX_LINE_BYTES = 1_000_000  # where rows are streamed: one post is not that long
MAX_TABLE_LINE_BYTES = 50_000_000  # three texts of a million characters, each of up to twelve bytes (two escapes)
_SUFFIXES = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


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
    source: str,
    data_files: str | Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
    name: str | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """Load the rows of one split, in file order, and their origin as messages should name it.

    The messages say what to do: ConnectionError without the Hub, FileNotFoundError without the repository or a file,
    ValueError if ``data_files`` or ``name`` is needed and missing, or the data cannot be read.

    Args:
        source: A dataset repository of the Hub, or a local folder in its form; a file; or ``json`` (also JSON Lines),
            ``csv``, ``tsv`` or ``parquet`` for ``data_files``.
        data_files: Path, list of paths, glob or URL; within the repository if ``source`` is one. Rows of
            several files are numbered through, in the order given.
        split: Name of the split, or a slice of it such as ``train[:10%]``; files have the split ``train``.
        revision: Branch, tag or commit of the repository.
        name: Config of the repository or folder, such as ``left``.
    """
    if not isinstance(source, str):
        raise ValueError(f"source={source} is no text; name a file, a folder or a repository of the Hub")
    paths = [data_files] if isinstance(data_files, str) else list(data_files or [])
    if source in FILE_FORMATS and not paths:
        raise ValueError(f"source={source} needs data_files; add dataset.data_files=PATH")
    if Path(source).is_dir() and source not in FILE_FORMATS:
        if paths:
            return load_rows(file_format(paths[0]) or "json", [str(Path(source, path)) for path in paths], split)
        config = folder_config(source, name, list(_SUFFIXES))
        rows = _read_splits(f"{source} ({name})" if name else source, config.files, split)
        return [named_labels(row, config.features) for row in rows], f"{source}/{name}" if name else source
    kind = source if source in FILE_FORMATS else None if paths else file_format(source)
    if not kind:
        origin = "/".join([source, *([name] if name else []), *paths])
        return list(hub_rows(source, split, revision, paths, streaming=False, name=name)), origin
    if name:
        raise ValueError(f"name={name}, but {', '.join(paths) or source} has no configs; leave dataset.name out")
    paths = paths or [source]
    origin = ", ".join(paths)
    return _read_splits(origin, {"train": paths}, split, kind), origin


def _read_splits(
    origin: str, paths_of: Mapping[str, Sequence[str]], split: str, kind: str | None = None
) -> list[dict[str, Any]]:
    """Read the files of a split, of a part of it such as ``train[:10%]``, or of ``all``."""

    def read(name: str) -> list[dict[str, Any]]:
        files = (file for path in paths_of[name] for file in _located(path))
        tables = (read_records(file, kind, MAX_TABLE_LINE_BYTES, content, may_be_empty=True) for file, content in files)
        return [row for table in tables for _, row in table]

    try:
        wanted = [name for name in paths_of if split == "all" or name in re.split(r"[+\[\]]", split)]
        rows_of = {name: read(name) for name in wanted}
        rows = [row for of_split in rows_of.values() for row in of_split]
        if split not in ("all", *wanted):  # a part of a split, rounded as ``datasets`` does
            from datasets import ReadInstruction

            if not wanted:
                raise ValueError(f"no split {split}; there are {', '.join(paths_of)}")
            parts = ReadInstruction.from_spec(str(split)).to_absolute({name: len(of) for name, of in rows_of.items()})
            rows = [row for part in parts for row in rows_of[part.splitname][part.from_ : part.to]]
    except ValueError as error:
        detail = str(error).removeprefix(origin).lstrip(": ")
        as_kind = f" as {kind}" if kind else ""
        remedy = f"Mend the file, or check source ({', '.join(FILE_FORMATS)}) and split={split}"
        raise ValueError(f"{origin}: cannot be read{as_kind}: {detail}. {remedy}") from error
    if not rows:
        raise ValueError(f"{origin}: no rows; give a file with at least one row")
    return rows


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
    if not isinstance(path, str | Path):
        raise ValueError(f"source={path} is no text; name one file")
    kind = kind or file_format(str(path))
    if content is None and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: not found from {Path.cwd()}; check the path")
    if kind not in FILE_FORMATS:
        raise ValueError(f"{path}: cannot tell its format; name it {', '.join(_SUFFIXES)}")
    try:
        if kind == "parquet":
            yield from parquet_rows(path, content)
            return
        with open_text(path, content) as file:
            if kind == "json":
                yield from json_rows(path, file, max_line_bytes)
            else:
                yield from table_rows(path, file, "\t" if kind == "tsv" else ",", quoted, max_line_bytes)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: cannot be read to its end ({error}); a compressed file may be cut off") from error


def _located(pattern: str) -> list[tuple[str, bytes | None]]:
    """Return the files of a path or a glob, or what lies at a URL, such as ``hf://datasets/owner/name/*.jsonl``."""
    if pattern == SHIPPED_SET:  # whatever else has this name in the working directory
        return [(pattern, resources.files("data").joinpath("mirrored", "pairs.jsonl").read_bytes())]
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
