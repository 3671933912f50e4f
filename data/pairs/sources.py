# SPDX-License-Identifier: MIT
"""Rows from the Hub or from local files, through ``datasets``; what went wrong is said with its remedy."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.pairs.rows import read_records

FILE_FORMATS = ("json", "csv", "tsv", "parquet")
_SUFFIXES = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


def file_format(path: str) -> str | None:
    """Return what :func:`load_rows` calls the format of a file, by its suffix; None for a repository of the Hub.

    Raises:
        ValueError: If a file of another kind lies there.
    """
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1] in (".gz", ".bz2"):
        suffixes.pop()
    found = _SUFFIXES.get(suffixes[-1].lower()) if suffixes else None
    if found is None and Path(path).is_file():
        raise ValueError(f"{path}: cannot tell its format; name it {', '.join(_SUFFIXES)}")
    return found


def load_rows(
    source: str,
    data_files: str | Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """Load the rows of one split.

    Args:
        source: A dataset repository of the Hub, or ``json`` (also JSON Lines), ``csv``, ``tsv`` or ``parquet``
            for files.
        data_files: Path, list of paths, glob or URL; within the repository if ``source`` is one. Rows of
            several files are numbered through, in the order given.
        split: Name of the split, or a slice of it such as ``train[:10%]``.
        revision: Branch, tag or commit of the repository.

    Returns:
        The rows in file order, and their origin as messages should name it.

    Raises:
        ConnectionError: If the Hub cannot be reached.
        FileNotFoundError: If the repository or a file does not exist.
        ValueError: If ``data_files`` is needed and missing, or the data cannot be read.
    """
    import datasets

    paths = [data_files] if isinstance(data_files, str) else list(data_files or [])
    if source in FILE_FORMATS and not paths:
        # datasets would read whatever lies in the working directory.
        raise ValueError(f"source={source} needs data_files; add dataset.data_files=PATH")
    origin = ", ".join(paths) if source in FILE_FORMATS else "/".join([source, *paths])
    to_files = "dataset.source=json dataset.data_files=PATH (or csv, parquet)"
    try:
        if source in ("csv", "tsv") and (defect := _first_defect(paths, source)):
            # datasets would read a field too many in the first row as an index, and shift the columns in silence
            raise ValueError(defect)
        options = {"sep": "\t"} if source == "tsv" else {}
        builder = "csv" if source == "tsv" else source
        loaded = datasets.load_dataset(builder, data_files=paths or None, split=split, revision=revision, **options)
        rows = list(loaded)  # here, since some defects show only when rows are read
    except ConnectionError as error:
        raise ConnectionError(
            f"{origin}: cannot reach the Hugging Face Hub ({error}). Connect (and unset HF_HUB_OFFLINE) to "
            f"fetch it once with `hf download --repo-type dataset {source}`, or use local files: {to_files}"
        ) from error
    except FileNotFoundError as error:
        if source in FILE_FORMATS:
            missing = next((path for path in paths if not Path(path).exists()), origin)
            raise FileNotFoundError(f"{missing}: not found from {Path.cwd()}; check the path") from error
        raise FileNotFoundError(
            f"{origin}: not found from {Path.cwd()} ({error}). Check the path or the repository's name (and "
            f"`hf auth login` if it is private); local files need {to_files}"
        ) from error
    except StopIteration as error:  # how datasets reports a JSON file of no bytes
        raise ValueError(f"{origin}: no rows; give a file with at least one row") from error
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        if "corresponds to no data" in str(error):
            raise ValueError(f"{origin}: no rows; give a file with at least one row") from error
        detail = _first_defect(paths, source)
        detail = detail or str(error.__cause__ or error).strip().splitlines()[0]
        detail = detail.removeprefix(origin).lstrip(": ")
        raise ValueError(
            f"{origin}: cannot be read as {source}: {detail}. Mend the file, or check source "
            f"({', '.join(FILE_FORMATS)}) and split={split}"
        ) from error
    return rows, origin


def hub_rows(source: str, split: str, revision: str | None) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Hub dataset; nothing is kept on the disk.

    Raises:
        ConnectionError: If the Hub cannot be reached.
        FileNotFoundError: If there is no such repository.
    """
    import datasets

    try:
        yield from datasets.load_dataset(source, split=split, revision=revision, streaming=True)
    except ConnectionError as error:
        raise ConnectionError(
            f"{source}: cannot reach the Hugging Face Hub ({error}); connect, or use a file"
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}: no such file or repository from {Path.cwd()} ({error})") from error


def _first_defect(paths: Sequence[str], source: str) -> str | None:
    """Say in which file and row a local file is malformed; None if that cannot be told."""
    if source not in FILE_FORMATS:
        return None
    local = [Path(path) for pattern in paths for path in sorted(glob.glob(pattern, recursive=True)) or [pattern]]
    for path in filter(Path.is_file, local):
        try:
            for _ in read_records(path, source):
                pass
        except ValueError as error:
            return str(error)
    return None
