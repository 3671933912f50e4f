# SPDX-License-Identifier: MIT
"""The page of the playground, on the loopback address: answers as they are written, nothing kept unless asked.

The page sends JSON. An answer is a stream of JSON lines: first the record of the request, then an event a line
(``eval/play/side_by_side.py`` says of which form), at last the ``id`` by which it can be saved.
"""

import json
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from data.recipe.files import AppendLog
from data.recipe.pages import LocalServer, Reply
from eval.play.side_by_side import Record, SideBySide
from eval.play.turns import Event, Request, Turns

# Finished answers that can still be saved; they lie in memory alone.
N_KEPT = 64
_log = logging.getLogger(__name__)


class PlaygroundServer(LocalServer):
    """Serves the playground.

    ``side_by_side`` turns a request into work, and ``turns`` does the work. On request an answer is saved in ``path``,
    a line each, beside ``run``: models, hashes, settings and versions. ``defaults`` are first values of the fields.
    """

    max_bytes = 1 << 20

    def __init__(
        self,
        port: int,
        side_by_side: SideBySide,
        turns: Turns,
        path: str | Path,
        run: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> None:
        self.side_by_side, self.turns, self.path, self.run = side_by_side, turns, Path(path), run
        self._fields = {
            "columns": side_by_side.columns(0),
            "statements": side_by_side.statements(),
            "instrument": side_by_side.instrument,
            "run": run,
            "defaults": defaults,
        }
        self._kept: dict[str, Record] = {}
        self._lock = threading.Lock()
        super().__init__(port, "eval.play", "playground.html.jinja")

    def show(self, path: str, query: Mapping[str, str]) -> Reply:
        """Show the page."""
        if path == "/":
            return self.page(HTTPStatus.OK, **self._fields)
        return self.problem(HTTPStatus.NOT_FOUND, f"Nothing here; open {self.url}.")

    def take(self, path: str, sent: bytes) -> Reply:
        """Answer a prompt, read a statement, or save one of these."""
        prepare = {"/answer": self.side_by_side.answer, "/read": self.side_by_side.read}.get(path)
        try:
            fields = json.loads(sent)
        except ValueError:  # neither JSON nor Unicode
            fields = None
        if (prepare is None and path != "/save") or not isinstance(fields, dict):
            return self.problem(HTTPStatus.BAD_REQUEST, "This is no request of this page. Load the page again.")
        if prepare is None:
            return self._save(str(fields.get("id")))
        try:
            record, parts = prepare(fields)
        except ValueError as error:
            return self.problem(HTTPStatus.BAD_REQUEST, str(error))
        try:
            request = self.turns.request(parts)
        except RuntimeError as error:
            return self.problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        lines = (json.dumps(event) + "\n" for event in self._events(record, request))
        # if the reader leaves, the rest is not computed
        return Reply(HTTPStatus.OK, lines, "application/x-ndjson", close=request.close)

    def problem(self, status: HTTPStatus, problem: str) -> Reply:
        """Say what is wrong, for the page to show."""
        return _json(status, {"problem": problem})

    def _events(self, record: Record, request: Request) -> Iterator[Event]:
        yield record
        for event in request:
            yield event
            record["columns"][event.pop("part")].update(event)
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[name] = record
            while len(self._kept) > N_KEPT:
                del self._kept[next(iter(self._kept))]
        yield {"id": name}

    def _save(self, name: str) -> Reply:
        with self._lock:
            record = self._kept.get(name)
            if record is None:
                problem = "This is saved already or no longer in memory; the same seed gives it again."
                return self.problem(HTTPStatus.BAD_REQUEST, problem)
            try:
                with closing(AppendLog(self.path, synced=True)) as saved:
                    time = datetime.now(UTC).isoformat(timespec="seconds")
                    saved.append([{"time": time, **record, "run": self.run}])
            except (OSError, RuntimeError, ValueError) as error:
                _log.error("an answer could not be saved: %s", error)
                return self.problem(HTTPStatus.INSUFFICIENT_STORAGE, f"It could not be saved: {error}")
            del self._kept[name]
        return _json(HTTPStatus.OK, {"saved": f"Saved as the last line of {self.path.resolve()}"})


def _json(status: HTTPStatus, value: Record) -> Reply:
    return Reply(status, json.dumps(value), "application/json")
