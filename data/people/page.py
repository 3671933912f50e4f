# SPDX-License-Identifier: MIT
"""The page of a review, on the loopback address: every answer is on the disk before the next text is shown."""

import logging
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from data.people.items import SKIP, Review
from data.people.results import AnswerFile
from data.recipe.pages import LocalServer, Reply

_log = logging.getLogger(__name__)


class ReviewServer(LocalServer):
    """Serves a review to those reviewers whose answers are open here.

    ``when_done`` is called when a reviewer has answered everything, or has taken back an answer after that.
    """

    def __init__(
        self, review: Review, answers: Mapping[str, AnswerFile], port: int, when_done: Callable[[], None]
    ) -> None:
        self.review, self.answers = review, dict(answers)
        self._when_done, self._lock = when_done, threading.Lock()
        self._orders = {name: review.order(name) for name in answers}
        super().__init__(port, "data.people", "review.html.jinja")

    def n_done(self, reviewer: str) -> int:
        """Return how many items a reviewer is done with."""
        given = self.answers[reviewer].given
        return sum(self.review.is_done(given.get(item, {})) for item in self.review.items)

    def show(self, path: str, query: Mapping[str, str]) -> Reply:
        """Show a reviewer's page; at ``/`` ask who reviews."""
        reviewer = path.strip("/")
        if reviewer in self.answers:
            return self._page(HTTPStatus.OK, note=query.get("note", ""), **self._shown(reviewer))
        if reviewer:
            return self._unknown(reviewer)
        if len(self.answers) == 1:
            return _go_to(f"/{next(iter(self.answers))}")
        return self._page(HTTPStatus.OK, reviewer=None, names=list(self.answers))

    def take(self, path: str, sent: bytes) -> Reply:
        """Take an answer, or the last one back, and go on to the next text."""
        form = {name: values[0] for name, values in parse_qs(sent.decode("ascii", "replace")).items()}
        reviewer = path.strip("/")
        if reviewer not in self.answers:
            return self._unknown(reviewer)
        try:
            with self._lock:
                n_lines, n_done = self.answers[reviewer].n_lines, self.n_done(reviewer)
                note = self._answer(reviewer, form)
                is_written = self.answers[reviewer].n_lines > n_lines
                if is_written and len(self.review.items) in (n_done, self.n_done(reviewer)):
                    self._when_done()
        except ValueError as error:
            return self.problem(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            _log.error("an answer of %s could not be written: %s", reviewer, error)
            return self.problem(HTTPStatus.INSUFFICIENT_STORAGE, f"The answer could not be written: {error}")
        return _go_to(f"/{reviewer}" + (f"?note={note}" if note else ""))

    def problem(self, status: HTTPStatus, problem: str) -> Reply:
        """Show a page that says what is wrong."""
        return self._page(status, reviewer=None, names=[], problem=problem)

    def _shown(self, reviewer: str) -> dict[str, Any]:
        """Return the fields of a reviewer's page: the first item that is not done, and nobody else's answers."""
        with self._lock:
            given = self.answers[reviewer].given
            todo = (item for item in self._orders[reviewer] if not self.review.is_done(given.get(item, {})))
            item = self.review.items.get(next(todo, ""))
            return {
                "reviewer": reviewer,
                "n_items": len(self.review.items),
                "n_done": self.n_done(reviewer),
                "n_skipped": sum(SKIP in given.get(item, {}) for item in self.review.items),
                "item": item and item.id,
                "texts": self.review.shown(item, reviewer) if item else [],
                "buttons": self.review.buttons(item, reviewer) if item else [],
                "given": given.get(item.id, {}) if item else {},
                "undo": self.answers[reviewer].n_lines if given else None,
            }

    def _answer(self, reviewer: str, form: Mapping[str, str]) -> str:
        """Write an answer, if there is none yet, or take the last one back; return the next page's note."""
        answers, item = self.answers[reviewer], self.review.items.get(form.get("item", ""))
        if "undo" in form:
            if form["undo"] != str(answers.n_lines):  # of an old page
                return "moved"
            if answers.given:
                answers.append(undo=True)
            return "undone"
        question, _, value = form.get("answer", "").partition("=")
        buttons = self.review.buttons(item, reviewer) if item else []
        if item is None or (question, value) not in {(button.question, button.value) for button in buttons}:
            raise ValueError("This is no answer to a text of this review. Load the page again.")
        given = answers.given.get(item.id, {})
        if question in given or self.review.is_done(given):
            return "again"
        answers.append(item=item.id, question=question, answer=value)
        return ""

    def _unknown(self, reviewer: str) -> Reply:
        known = ", ".join(self.answers)
        return self.problem(HTTPStatus.NOT_FOUND, f"No reviewer {reviewer[:40]!r}; known: {known}.")

    def _page(self, status: HTTPStatus, **shown: Any) -> Reply:
        return self.page(status, **({"problem": "", "mode": self.review.mode} | shown))


def _go_to(path: str) -> Reply:
    return Reply(HTTPStatus.SEE_OTHER, "", headers={"Location": path})
