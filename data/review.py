# SPDX-License-Identifier: MIT
"""Human judgement on a local page: the side of a text, or the better of two answers, by blinded reviewers.

    tune run data/review.py --config configs/review.yaml source=posts.csv
    tune run data/review.py --config configs/review.yaml source=pairs.jsonl mode=prefer "reviewers=[a]"

Every answer is on the disk before the next text is shown, so the same command goes on where it was. When all reviewers
are done, or with ``serve=False``, the items on which they agree are written.
"""

import re
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchtune import config, utils

from data.pairs.records import row_list
from data.people.items import Review, read_items
from data.people.page import ReviewServer
from data.people.results import AnswerFile, read_given, write_results
from data.recipe.config import check_config, plain_errors

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "source"}
OPTIONAL: dict[str, Any] = {
    "mode": "label",
    "column_map": None,
    "split": "train",
    "revision": None,
    "accept": True,
    "reviewers": ["a", "b"],
    "reviewer": None,
    "serve": True,
    "port": 8765,
    "n_bootstrap": 10_000,
    "seed": 0,
}


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
    items, left_out = read_items(cfg.source, cfg.mode, cfg.column_map, cfg.split, cfg.revision)
    for reason, rows in left_out.items():
        log.warning(f"{cfg.source}: {len(rows)} rows are not shown: {reason} ({row_list(rows)})")
    if not items:
        raise ValueError(f"no row can be shown: {', '.join(f'{k} ({len(v)})' for k, v in left_out.items())}")
    return Review(cfg.mode, items, left_out, reviewers, cfg.accept, cfg.seed)


def build_server(cfg: DictConfig, review: Review, stack: ExitStack) -> ReviewServer:
    """Open the answers of those who review here, and the port; the stack closes both."""
    answers: dict[str, AnswerFile] = {}
    for name in review.reviewers if cfg.reviewer is None else [str(cfg.reviewer)]:
        answers[name] = stack.enter_context(closing(AnswerFile(cfg.output_dir, name)))
        if n_elsewhere := read_given(review, cfg.output_dir, name).n_elsewhere:
            log.warning(f"{name} has answered {n_elsewhere} texts that {cfg.source} does not have; they are kept")
    return stack.enter_context(ReviewServer(review, answers, cfg.port, partial(_settle_if_done, cfg, review)))


def settle(cfg: DictConfig, review: Review) -> dict[str, Any]:
    """Write the items on which the reviewers agree, and log how far they do."""
    manifest = write_results(review, cfg.output_dir, cfg.source, cfg.n_bootstrap)
    outcomes = ", ".join(f"{reason} {n}" for reason, n in manifest["outcomes"].items())
    log.info(f"wrote {' and '.join(manifest['files'])} into {cfg.output_dir}; {manifest['n_items']} items: {outcomes}")
    for pair, questions in manifest["agreement"].items():
        for question, figures in questions.items():
            agreement = "nothing answered by both"
            if figures:
                agreement = f"kappa {figures['kappa']['estimate']}, 95 % {figures['kappa']['ci95']}, n {figures['n']}"
            log.info(f"{pair}, {question}: {agreement}")
    return manifest


def _settle_if_done(cfg: DictConfig, review: Review) -> None:
    """Settle when nobody has anything left, and again when an answer that was settled is taken back."""
    given = [read_given(review, cfg.output_dir, name).given for name in review.reviewers]
    is_done = all(sum(map(review.is_done, answers.values())) == len(review.items) for answers in given)
    if is_done or (Path(cfg.output_dir) / "manifest.json").exists():
        settle(cfg, review)


@config.parse
@plain_errors
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/review.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    config.log_config(recipe_name="review", cfg=cfg)
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
