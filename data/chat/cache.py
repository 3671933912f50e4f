# SPDX-License-Identifier: MIT
"""Replies on disk, found by the content of the request: one SQLite file, safe across threads and processes."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def request_key(model: str, messages: Sequence[Mapping[str, str]], params: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that the answer may depend on."""
    content = {"model": model, "messages": [dict(m) for m in messages], "params": dict(params)}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def call_key(model: str, path: str, body: Mapping[str, Any] | None) -> str:
    """Return the SHA-256 of a call of another kind than a chat."""
    text = json.dumps({"model": model, "path": path, "body": body}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find_confusions(clients: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which clients would take each other's replies: one model name in one cache, at different addresses.

    The address is no part of a request's key, so that replies can be replayed from anywhere. ``clients`` are settings
    by name; one without ``cache_dir`` or ``base_url`` disturbs nobody.
    """
    first: dict[tuple[str, Path], tuple[str, str]] = {}
    faults = []
    for name, client in clients.items():
        if client.get("cache_dir") and client.get("base_url"):
            address = client["base_url"].rstrip("/")
            place = client["model"], Path(client["cache_dir"]).resolve()
            other, other_address = first.setdefault(place, (name, address))
            if other_address != address:
                faults.append(
                    f"{name} and {other} ask for model {client['model']!r} at {address} and at {other_address} with "
                    f"one cache_dir, {client['cache_dir']}, and would share replies; give each its own cache_dir"
                )
    return faults


SYNCHRONOUS = "FULL"  # of SQLite: a reply that was paid for outlives a machine that goes out


class ReplyCache:
    """The replies of a server as it sent them, under the key of their request, in ``replies.sqlite`` of a folder.

    Requests are not stored: they hold posts, and what a person wrote is kept only by its hash. Several machines may
    share the file if their file system honours POSIX locks.
    """

    def __init__(self, folder: str | Path) -> None:
        self._lock = threading.Lock()
        self.path = Path(folder) / "replies.sqlite"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, timeout=120, isolation_level=None, check_same_thread=False)
        # A write-ahead log would be faster still, and does not work on the network disks of a cluster.
        try:
            self._db.execute("PRAGMA journal_mode=PERSIST")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: {error}; move it away, and the calls are made again") from error
        self._db.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
        self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID")

    def get(self, key: str) -> str | None:
        """Return the body of a reply, or None."""
        with self._lock:
            row = self._db.execute("SELECT body FROM replies WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, body: str) -> str:
        """Store a body, flushed to the disk when this returns, and return what is stored.

        If another process was first, its body stands, so that all go on with the same one.
        """
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, body))
        stored = self.get(key)
        assert stored is not None
        return stored

    def keys(self) -> set[str]:
        """Return the keys of all replies."""
        with self._lock:
            return {key for (key,) in self._db.execute("SELECT key FROM replies")}
