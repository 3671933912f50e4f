# SPDX-License-Identifier: MIT
"""The page of a review, on the loopback address: every answer on the disk before the next text."""

import logging
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from data.people.answers import Answer, AnswerFile
from data.people.items import SKIP, Review
from data.recipe.pages import LocalServer, Reply

_log = logging.getLogger(__name__)


class ReviewServer(LocalServer):
    """Serves a review to its reviewers.

    Args:
        review: What is asked.
        answers: The open file of each reviewer who may answer here.
        port: Of the loopback address; 0 takes any that is free.
        when_done: Called when a reviewer has answered everything, or has taken such an answer back.

    Raises:
        OSError: If the port cannot be had.
    """

    def __init__(
        self, review: Review, answers: Mapping[str, AnswerFile], port: int, when_done: Callable[[], None]
    ) -> None:
        self.review, self.answers, self.when_done, self.lock = review, dict(answers), when_done, threading.Lock()
        self.orders = {name: review.order(name) for name in answers}
        super().__init__(port, "data.people", "review.html.jinja")

    def n_done(self, reviewer: str) -> int:
        """Return how many items a reviewer is done with."""
        given = self.answers[reviewer].given
        return sum(self.review.is_done(given.get(item, {})) for item in self.review.items)

    def _shown(self, reviewer: str) -> dict[str, Any]:
        """Return the fields of a reviewer's page: the first item that is not done, and nobody else's answers."""
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

    def _note(self, reviewer: str, form: Mapping[str, str]) -> str:
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
        """Take an answer and go on to the next text."""
        form = {name: values[0] for name, values in parse_qs(sent.decode("ascii", "replace")).items()}
        reviewer = path.strip("/")
        if reviewer not in self.answers:
            return self._unknown(reviewer)
        try:
            note = self._note(reviewer, form)
        except ValueError as error:
            return self.problem(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            _log.error("an answer of %s could not be written: %s", reviewer, error)
            return self.problem(HTTPStatus.INSUFFICIENT_STORAGE, f"The answer could not be written: {error}")
        return _go_to(f"/{reviewer}" + (f"?note={note}" if note else ""))

    def problem(self, status: HTTPStatus, problem: str) -> Reply:
        """Show a page that says what is wrong."""
        return self._page(status, reviewer=None, names=[], problem=problem)

    def _unknown(self, reviewer: str) -> Reply:
        known = ", ".join(self.answers)
        return self.problem(HTTPStatus.NOT_FOUND, f"No reviewer {reviewer[:40]!r}; known: {known}.")

    def _page(self, status: HTTPStatus, **shown: Any) -> Reply:
        return self.page(status, **({"problem": "", "mode": self.review.mode} | shown))


def _go_to(path: str) -> Reply:
    return Reply(HTTPStatus.SEE_OTHER, "", headers={"Location": path})
