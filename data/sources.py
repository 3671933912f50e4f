# SPDX-License-Identifier: MIT
"""Rows from the Hub or from local files, through ``datasets``; what went wrong is said with its remedy."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE_FORMATS = ("json", "csv", "parquet")


def load_rows(
    source: str,
    data_files: str | Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """Load the rows of one split.

    Args:
        source: A dataset repository of the Hub, or ``json`` (also JSON Lines), ``csv`` or ``parquet`` for
            files.
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
        loaded = datasets.load_dataset(source, data_files=paths or None, split=split, revision=revision)
        rows = list(loaded)  # here, since some defects show only when rows are read
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
    except StopIteration as error:  # how datasets reports a JSON file of no bytes
        raise ValueError(f"{origin}: no rows; give a file with at least one row") from error
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        if "corresponds to no data" in str(error):
            raise ValueError(f"{origin}: no rows; give a file with at least one row") from error
        detail = _json_defect(paths) if source == "json" else None
        detail = detail or str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(
            f"{origin}: cannot be read as {source}: {detail}. Mend the file, or check dataset.source "
            f"({', '.join(FILE_FORMATS)}) and dataset.split={split}"
        ) from error
    return rows, origin


def _json_defect(paths: Sequence[str]) -> str | None:
    """Say where a local JSON or JSON Lines file is malformed; None if that cannot be told."""
    for path in filter(Path.is_file, map(Path, paths)):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            return f"{path} is not UTF-8 text (byte {error.start})"
        if text.lstrip().startswith("["):
            try:
                json.loads(text)
            except json.JSONDecodeError as error:
                return f"{path} line {error.lineno}: {error.msg}"
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                return f"{path} line {number}: {error.msg} at column {error.colno}"
            if not isinstance(row, dict):
                return f"{path} line {number}: a {type(row).__name__}, want an object"
    return None
