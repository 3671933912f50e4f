# SPDX-License-Identifier: MIT
"""Files of a data set, written complete or not at all, with a manifest that names each by its SHA-256."""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON Lines, keys in their order, no ASCII escapes: the same rows give the same bytes."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as parquet; fields that differ in form from row to row become JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()} for row in rows
    ]
    sink = io.BytesIO()
    pq.write_table(pa.table({name: [row[name] for row in texts] for name in texts[0]}), sink)
    return sink.getvalue()


def write_files(folder: str | Path, files: Mapping[str, str | bytes], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write files and, last, ``manifest.json``; nothing of the time or the machine goes into it.

    Args:
        folder: Made if it is not there.
        files: Content by name.
        facts: What the manifest says beside ``files``: inputs, settings, funnel.

    Returns:
        The manifest.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    entries = {
        name: {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            **({"rows": content.count(b"\n")} if name.endswith(".jsonl") else {}),
        }
        for name, content in contents.items()
    }
    manifest = {**facts, "files": entries}
    contents["manifest.json"] = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    for name, content in contents.items():
        write_whole(folder / name, content)
    return manifest


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, sync and rename, so that a file is complete or absent."""
    staging = path.with_name(path.name + ".partial")
    with staging.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staging, path)
