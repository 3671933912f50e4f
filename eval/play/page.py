# SPDX-License-Identifier: MIT
"""The page of the playground, on the loopback address: answers as they are written, nothing kept unless asked.

What the page sends and what it gets are JSON; an answer is a stream of lines: what was asked, one event a line
(``eval/play/side_by_side.py`` says of which form), and the ``id`` by which it can be saved.
"""

import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from data.recipe.pages import LocalServer, Reply
from eval.play.side_by_side import Record, SideBySide
from eval.play.turns import Event, Request, Turns

# Finished answers that can still be saved; they lie in memory alone.
N_KEPT = 64
_log = logging.getLogger(__name__)


class PlaygroundServer(LocalServer):
    """Serves the playground.

    Args:
        port: Of the loopback address; 0 takes any that is free.
        asked: What the page may ask.
        turns: Computes it.
        path: Where answers are saved on request, a line each.
        run: Models, hashes, settings and versions, written beside every saved answer.
        defaults: What the fields for decoding hold at first.

    Raises:
        OSError: If the port cannot be had.
    """

    max_bytes = 1 << 20

    def __init__(
        self,
        port: int,
        asked: SideBySide,
        turns: Turns,
        path: str | Path,
        run: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> None:
        self.asked, self.turns, self.path, self.run = asked, turns, Path(path), run
        self.shown = {"columns": asked.columns(0), "statements": asked.statements(), "instrument": asked.instrument}
        self.shown |= {"run": run, "defaults": defaults}
        self._kept: dict[str, Record] = {}
        self._lock = threading.Lock()
        super().__init__(port, "eval.play", "playground.html.jinja")

    def keep(self, record: Record) -> str:
        """Keep a finished answer in memory, so that it can be saved; return by what name."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[name] = record
            while len(self._kept) > N_KEPT:
                del self._kept[next(iter(self._kept))]
        return name

    def save(self, name: Any) -> str:
        """Write a kept answer; return a sentence that says where.

        Raises:
            OSError: If it cannot be written.
            ValueError: If it is not kept, or saved already.
        """
        with self._lock:
            record = self._kept.get(str(name))
            if record is None:
                raise ValueError("This is saved already or no longer in memory; the same seed gives it again.")
            row = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **record, "run": self.run}
            line = json.dumps(row).encode() + b"\n"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(line) != len(line):
                        raise OSError("no space left on the device")
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
            del self._kept[str(name)]
        return f"Saved as the last line of {self.path.resolve()}"

    def show(self, path: str, query: Mapping[str, str]) -> Reply:
        """Show the page."""
        if path == "/":
            return self.page(HTTPStatus.OK, **self.shown)
        return self.problem(HTTPStatus.NOT_FOUND, f"Nothing here; open {self.url}.")

    def take(self, path: str, sent: bytes) -> Reply:
        """Answer, read or save, as the page asks."""
        asks = {"/answer": self.asked.answer, "/read": self.asked.read}
        try:
            asked = json.loads(sent)
        except ValueError:  # neither JSON nor Unicode
            asked = None
        if path not in (*asks, "/save") or not isinstance(asked, dict):
            return self.problem(HTTPStatus.BAD_REQUEST, "This is no request of this page. Load the page again.")
        try:
            if path == "/save":
                return _json(HTTPStatus.OK, {"saved": self.save(asked.get("id"))})
            record, parts = asks[path](asked)
        except ValueError as error:
            return self.problem(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            _log.error("an answer could not be saved: %s", error)
            return self.problem(HTTPStatus.INSUFFICIENT_STORAGE, f"It could not be saved: {error}")
        try:
            request = self.turns.request(parts)
        except RuntimeError as error:
            return self.problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        lines = (json.dumps(event) + "\n" for event in self._events(record, request))
        # of whoever has gone, what was not computed is dropped
        return Reply(HTTPStatus.OK, lines, "application/x-ndjson", close=request.close)

    def problem(self, status: HTTPStatus, problem: str) -> Reply:
        """Say what is wrong, for the page to show."""
        return _json(status, {"problem": problem})

    def _events(self, record: Record, request: Request) -> Iterator[Event]:
        yield record
        for event in request:
            yield event
            record["columns"][event.pop("part")].update(event)
        yield {"id": self.keep(record)}


def _json(status: HTTPStatus, value: Record) -> Reply:
    return Reply(status, json.dumps(value), "application/json")
