# SPDX-License-Identifier: MIT
"""Human judgement on a local page: the side or another class of a text, or the better of two answers, blinded.

    tune run data/review.py --config configs/review.yaml source=posts.csv
    tune run data/review.py --config configs/review.yaml source=pairs.jsonl mode=prefer "reviewers=[a]"

Every answer is on the disk before the next text is shown, so the same command goes on where it was. When all reviewers
are done, or with ``serve=False``, the items on which they agree are written.
"""

import re
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from omegaconf import DictConfig
from torchtune import utils

from data.judging.scales import load_scale
from data.pairs.records import row_list
from data.people.items import SKIP, Review, read_items
from data.people.results import AnswerFile, read_given, write_results
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.pages import LocalServer, Reply

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "source"}
OPTIONAL: dict[str, Any] = {
    "mode": "label",
    "scale": "lean",
    "column_map": None,
    "split": "train",
    "revision": None,
    "name": None,
    "accept": True,
    "reviewers": ["a", "b"],
    "reviewer": None,
    "serve": True,
    "port": 8765,
    "n_bootstrap": 10_000,
    "seed": 0,
}


class ReviewServer(LocalServer):
    """Serves a review, and settles it when nobody has anything left."""

    def __init__(self, cfg: DictConfig, review: Review, answers: Mapping[str, AnswerFile]) -> None:
        self._cfg, self.review, self.answers, self._lock = cfg, review, answers, threading.Lock()
        self._orders = {name: review.order(name) for name in answers}
        super().__init__(cfg.port, "data.people", "review.html.jinja")

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
                    self._settle_if_done()
        except ValueError as error:
            return self.problem(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            log.error("an answer of %s could not be written: %s", reviewer, error)
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

    def _settle_if_done(self) -> None:
        """Settle when nobody has anything left, and again when an answer that was settled is taken back."""
        review, folder = self.review, self._cfg.output_dir
        given = [read_given(review, folder, name).given for name in review.reviewers]
        is_done = all(sum(map(review.is_done, answers.values())) == len(review.items) for answers in given)
        if is_done or (Path(folder) / "manifest.json").exists():
            settle(self._cfg, review)

    def _unknown(self, reviewer: str) -> Reply:
        known = ", ".join(self.answers)
        return self.problem(HTTPStatus.NOT_FOUND, f"No reviewer {reviewer[:40]!r}; known: {known}.")

    def _page(self, status: HTTPStatus, **shown: Any) -> Reply:
        return self.page(status, **({"problem": "", "mode": self.review.mode, "scale": self.review.scale.name} | shown))


def _go_to(path: str) -> Reply:
    return Reply(HTTPStatus.SEE_OTHER, "", headers={"Location": path})


def load_review(cfg: DictConfig) -> Review:
    """Read the source, and log which rows of it are not shown."""
    if cfg.source is None:
        raise ValueError("source is null; give source=FILE or source=owner/name")
    reviewers = [str(name) for name in cfg.reviewers]
    # a name becomes a file and an address
    bad = [name for name in reviewers if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name)]
    if bad or not reviewers or len({name.lower() for name in reviewers}) < len(reviewers):
        raise ValueError(f"reviewers={reviewers}; give different names of letters, digits, - and _, at most 40 of them")
    if cfg.reviewer is not None and str(cfg.reviewer) not in reviewers:
        known = ", ".join(reviewers)
        raise ValueError(f"reviewer={cfg.reviewer} is unknown; use one of {known}, or add it to reviewers")
    items, left_out = read_items(cfg.source, cfg.mode, cfg.column_map, cfg.split, cfg.revision, cfg.name, cfg.scale)
    for reason, rows in left_out.items():
        log.warning(f"{cfg.source}: {len(rows)} rows are not shown: {reason} ({row_list(rows)})")
    if not items:
        raise ValueError(f"no row can be shown: {', '.join(f'{k} ({len(v)})' for k, v in left_out.items())}")
    return Review(cfg.mode, items, left_out, reviewers, cfg.accept, cfg.seed, load_scale(cfg.scale))


def build_server(cfg: DictConfig, review: Review, stack: ExitStack) -> ReviewServer:
    """Open the answers of those who review here, and the port; the stack closes both."""
    answers: dict[str, AnswerFile] = {}
    for name in review.reviewers if cfg.reviewer is None else [str(cfg.reviewer)]:
        answers[name] = stack.enter_context(closing(AnswerFile(cfg.output_dir, name)))
        if n_elsewhere := read_given(review, cfg.output_dir, name).n_elsewhere:
            log.warning(f"{name} has answered {n_elsewhere} texts that {cfg.source} does not have; they are kept")
    return stack.enter_context(ReviewServer(cfg, review, answers))


def settle(cfg: DictConfig, review: Review) -> dict[str, Any]:
    """Write the items on which the reviewers agree, and log how far they do."""
    manifest = write_results(review, cfg.output_dir, cfg.source, cfg.n_bootstrap)
    outcomes = ", ".join(f"{reason} {n}" for reason, n in manifest["outcomes"].items())
    log.info(f"wrote {' and '.join(manifest['files'])} into {cfg.output_dir}; {manifest['n_items']} items: {outcomes}")
    for pair, questions in manifest["agreement"].items():
        for question, figures in questions.items():
            agreement = "nothing answered by both"
            if figures:
                kappa, share = figures["kappa"], figures["accuracy"]["estimate"]
                beyond_chance = figures["note"] or f"kappa {kappa['estimate']}, 95 % {kappa['ci95']}"
                agreement = f"{beyond_chance}; they agree on {share:.1%} of {figures['n']}"
            log.info(f"{pair}, {question}: {agreement}")
    return manifest


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/review.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    check_place(cfg)
    review = load_review(cfg)
    if not cfg.serve:
        settle(cfg, review)
        return
    with ExitStack() as stack:
        server = build_server(cfg, review, stack)
        log.info(f"{len(review.items)} items; open {server.url} in a browser, end with Ctrl-C")
        server.serve_forever()
        done = ", ".join(f"{name} {server.n_done(name)}" for name in server.answers)
        log.info(f"ended; done of {len(review.items)}: {done}. The same command goes on")


if __name__ == "__main__":
    sys.exit(recipe_main())
