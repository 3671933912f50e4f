# SPDX-License-Identifier: MIT
"""The page of a review: plain HTTP on the loopback address, every answer on the disk before the next text.

The page loads nothing from anywhere. A request is refused unless it names this machine (``Host``, against DNS
rebinding), and an answer unless it comes from this page (``Origin``, against other sites that post to it).
"""

import errno
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, StrictUndefined

from data.review_answers import Answer, AnswerFile
from data.review_items import SKIP, Review

ADDRESS = "127.0.0.1"
MAX_FORM_BYTES = 10_000
_log = logging.getLogger(__name__)


class ReviewServer(ThreadingHTTPServer):
    """Serves a review to its reviewers.

    Args:
        review: What is asked.
        answers: The open file of each reviewer who may answer here.
        port: Of the loopback address; 0 takes any that is free.
        when_done: Called when a reviewer has answered everything, or has taken such an answer back.

    Raises:
        OSError: If the port cannot be had.
    """

    daemon_threads = True

    def __init__(
        self, review: Review, answers: Mapping[str, AnswerFile], port: int, when_done: Callable[[], None]
    ) -> None:
        self.review, self.answers, self.when_done, self.lock = review, dict(answers), when_done, threading.Lock()
        self.orders = {name: review.order(name) for name in answers}
        # whatever a text holds is shown as text, never as markup
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        self.template = environment.from_string(files("data").joinpath("templates", "review.html").read_text("utf-8"))
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                error.strerror = f"port={port} is in use; end what uses it, or give port=0 for any free one"
            raise

    @property
    def url(self) -> str:
        """Where a reviewer begins."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def n_done(self, reviewer: str) -> int:
        """Return how many items a reviewer is done with."""
        given = self.answers[reviewer].given
        return sum(self.review.is_done(given.get(item, {})) for item in self.review.items)

    def page(self, reviewer: str) -> dict[str, Any]:
        """Return what the page of a reviewer shows: the first item that is not done, and nobody else's answers."""
        with self.lock:
            own = self.answers[reviewer]
            todo = (x for x in self.orders[reviewer] if not self.review.is_done(own.given.get(x, {})))
            item = self.review.items.get(next(todo, ""))
            return {
                "reviewer": reviewer,
                "n_items": len(self.review.items),
                "n_done": self.n_done(reviewer),
                "n_skipped": sum(SKIP in own.given.get(x, {}) for x in self.review.items),
                "item": item and item.id,
                "texts": self.review.shown(item, reviewer) if item else [],
                "buttons": self.review.buttons(item, reviewer) if item else [],
                "given": own.given.get(item.id, {}) if item else {},
                "undo": own.n_lines if own.answers else None,
            }

    def take(self, reviewer: str, form: Mapping[str, str]) -> str:
        """Take an answer, or the last one back; return the name of a note for the next page.

        Raises:
            OSError: If the answer cannot be written; it then does not count.
            ValueError: If the form holds no possible answer.
        """
        with self.lock:
            own, before = self.answers[reviewer], self.n_done(reviewer)
            if "undo" in form:
                if form["undo"] != str(own.n_lines):
                    return "moved"
                note = "undone"
                own.undo()
            else:
                item = self.review.items.get(form.get("item", ""))
                question, _, value = form.get("answer", "").partition("=")
                known = self.review.buttons(item, reviewer) if item else []
                if not any((button.question, button.value) == (question, value) for button in known):
                    raise ValueError("This is no answer to a text of this review. Load the page again.")
                given = own.given.get(item.id, {})
                if question in given or self.review.is_done(given):
                    return "again"
                own.append(Answer(item.id, question, value))
                note = ""
            if len(self.review.items) in (before, self.n_done(reviewer)):
                self.when_done()
            return note


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 30  # seconds; a client that says nothing does not hold a thread for ever
    server_version, sys_version = "review", ""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        reviewer = path.path.strip("/")
        if not self._is_local():
            self._problem(
                HTTPStatus.MISDIRECTED_REQUEST, f"Open {self.server.url} on the machine that runs the review."
            )
        elif reviewer in self.server.answers:
            note = parse_qs(path.query).get("note", [""])[0]
            self._page(HTTPStatus.OK, note=note, **self.server.page(reviewer))
        elif not reviewer and len(self.server.answers) == 1:
            self._go(f"/{next(iter(self.server.answers))}")
        elif not reviewer:
            self._page(HTTPStatus.OK, reviewer=None, names=list(self.server.answers))
        else:
            self._unknown(reviewer)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_FORM_BYTES:
            return self._problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "This form is too large, or says no length.")
        # read first: a connection closed on unread bytes would lose the reply
        form = {k: v[0] for k, v in parse_qs(self.rfile.read(int(length)).decode("ascii", "replace")).items()}
        reviewer = urlsplit(self.path).path.strip("/")
        if not self._is_local() or self.headers.get("Origin") != f"http://{self.headers['Host']}":
            return self._problem(HTTPStatus.FORBIDDEN, "This answer was not given on this page and does not count.")
        if reviewer not in self.server.answers:
            return self._unknown(reviewer)
        try:
            note = self.server.take(reviewer, form)
        except ValueError as error:
            return self._problem(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            _log.error("an answer of %s could not be written: %s", reviewer, error)
            return self._problem(HTTPStatus.INSUFFICIENT_STORAGE, f"The answer could not be written: {error}")
        return self._go(f"/{reviewer}" + (f"?note={note}" if note else ""))

    def _is_local(self) -> bool:
        # any port: a tunnel may have another one here
        try:
            return urlsplit(f"//{self.headers['Host']}").hostname in (ADDRESS, "localhost")
        except ValueError:
            return False

    def _unknown(self, reviewer: str) -> None:
        self._problem(HTTPStatus.NOT_FOUND, f"No reviewer {reviewer[:40]!r}; known: {', '.join(self.server.answers)}.")

    def _problem(self, status: HTTPStatus, problem: str) -> None:
        self._page(status, reviewer=None, names=[], problem=problem)

    def _page(self, status: HTTPStatus, **shown: Any) -> None:
        nonce = secrets.token_urlsafe(16)
        shown = {"problem": "", "nonce": nonce, "mode": self.server.review.mode} | shown
        body = self.server.template.render(shown).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(
            "Content-Security-Policy",
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        )
        self._end()
        self.wfile.write(body)

    def _go(self, path: str) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", path)
        self.send_header("Content-Length", "0")
        self._end()

    def _end(self) -> None:
        self.send_header("Cache-Control", "no-store")  # going back must not show an answered text
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "same-origin")  # with no-referrer the browser would send Origin: null
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing of single requests."""
