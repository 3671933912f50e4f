# SPDX-License-Identifier: MIT
"""Files of a run: written whole or not at all, appended to row by row so that a kill loses none, pushed to the Hub.

A data set's files have a manifest that names each by its SHA-256.
"""

import errno
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON Lines, keys in their order, no ASCII escapes: the same rows give the same bytes."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as parquet; fields of differing form become JSON text, and one that a row lacks is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def text(row: Mapping[str, Any], name: str) -> str | None:
        if name not in row or isinstance(row[name], str):
            return row.get(name)
        return json.dumps(row[name])

    names = dict.fromkeys(name for row in rows for name in row)
    sink = io.BytesIO()
    pq.write_table(pa.table({name: [text(row, name) for row in rows] for name in names}), sink)
    return sink.getvalue()


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON (``object_pairs_hook``); a key that it has twice is a ValueError: which value is meant?"""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object; keep one of them")
    return made


class _UniqueKeys(yaml.constructor.SafeConstructor):
    """Makes what YAML says; a key that a mapping has twice is an error, as YAML says, where PyYAML takes the last."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Check the tree before any merge key rewrites it."""
        _check_keys(node, set())
        return super().construct_document(node)


def _check_keys(node: yaml.Node, seen: set[int]) -> None:
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    met = set()
    for part in node.value:
        key, *inner = part if isinstance(node, yaml.MappingNode) else (None, part)
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if (key.tag, key.value) in met:
                said = f"the key {key.value!r} stands twice in a mapping; keep one of them"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            met.add((key.tag, key.value))
        for child in inner:
            _check_keys(child, seen)


class _Plain(_UniqueKeys, yaml.SafeLoader):
    pass


class _Fast(_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


def load_yaml(content: str | bytes) -> Any:
    """Return what YAML holds; anything that cannot be read, or a key that stands twice, is a ``yaml.YAMLError``."""
    try:
        return yaml.load(content, Loader=_Fast)
    except yaml.YAMLError:  # which libyaml says for half of a surrogate pair, too, that others here name with its entry
        return yaml.load(content, Loader=_Plain)


def write_files(folder: str | Path, files: Mapping[str, str | bytes], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write files by name and, last, ``manifest.json``, and return the manifest: their hashes beside some facts."""
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    entries: dict[str, dict[str, Any]] = {}
    for name, content in contents.items():
        entries[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        if name.endswith(".jsonl"):
            entries[name]["rows"] = content.count(b"\n")
    manifest = {**facts, "files": entries}
    contents["manifest.json"] = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    for name, content in contents.items():
        write_whole(Path(folder) / name, content)
    return manifest


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write beside, sync and rename, so that a file is complete or absent; its folder is made if it is not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(path.name + ".partial")
    with staging.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staging, path)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON text, whole."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def changed_settings(
    on_disk: Mapping[str, Any], current: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Name the settings that differ between a run on the disk and this one, as JSON would give them back."""
    current = json.loads(json.dumps(current))
    return [key for key in sorted({*on_disk, *current} - {*ignored}) if on_disk.get(key) != current.get(key)]


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a log; a last line without an end was not written whole and does not count."""
    path = Path(path)
    return _whole_rows(path, path.read_bytes() if path.exists() else b"")[0]


class AppendLog:
    """A JSON Lines file that one process appends to; every row is on its way to the disk when ``append`` returns.

    If ``synced``, each append waits for the disk, so that a power cut loses nothing either. It raises RuntimeError if
    another process has the file open, and ValueError if a line that was written whole is no JSON object.
    """

    def __init__(self, path: str | Path, synced: bool = False) -> None:
        self.path, self._synced = Path(path), synced
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        try:
            lock(self._file)
            self.rows, self._n_bytes = _whole_rows(self.path, self.path.read_bytes())
            self._file.truncate(self._n_bytes)
        except BlockingIOError as error:
            self._file.close()
            raise RuntimeError(f"{self.path}: another run has it open; end that one, or use another folder") from error
        except Exception:
            self._file.close()
            raise

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows behind those that are there; on an OSError, as on a full disk, the file is as before."""
        added = [dict(row) for row in rows]
        content = "".join(json.dumps(row) + "\n" for row in added).encode()
        try:
            if self._file.write(content) != len(content):
                raise OSError(errno.ENOSPC, "no space left on the device", str(self.path))
            if self._synced:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._n_bytes)
            raise
        self.rows += added
        self._n_bytes += len(content)

    def close(self) -> None:
        """Sync and close the file, so that another process can have it."""
        try:
            if not self._file.closed:
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


def _whole_rows(path: Path, content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a log, and the bytes that they take; lines end at line feeds alone."""
    n_bytes = content.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(content[:n_bytes].split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line, object_pairs_hook=unique_keys)
        except ValueError as error:
            raise ValueError(f"{path} line {number}: no JSON ({error}); restore the file, or delete it") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number}: a {type(row).__name__}, want an object; restore the file")
        rows.append(row)
    return rows, n_bytes


def lock(file: IO[Any] | int, wait: bool = False) -> None:
    """Keep a file, or a descriptor, for this process and its children until it is closed.

    BlockingIOError if another process has it, unless it is to ``wait``.
    """
    try:
        import fcntl
    except ImportError as error:
        raise OSError("locks of files need Linux or macOS; on Windows use WSL") from error
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def require_token(repo_id: str) -> str:
    """Return the Hub's token of the environment, or say how to give one."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise PermissionError(f"push_to_hub={repo_id} needs a token: set HF_TOKEN, or run `hf auth login`")
    return token


def push_folder(folder: Path, repo_id: str, private: bool, repo_type: str) -> str:
    """Upload a finished folder to the Hub, and return its address."""
    from huggingface_hub import HfApi

    api = HfApi(token=require_token(repo_id))
    api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repo_id, repo_type=repo_type, folder_path=folder, ignore_patterns="*.partial"))
