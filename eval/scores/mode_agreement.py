# SPDX-License-Identifier: MIT
"""What became of answers in writing, and whether they agree with the log-probabilities.

A model's first token and what it goes on to write can choose differently (Wang et al. 2024, arXiv 2402.14499).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.judging.agreement import cohen_kappa
from eval.scores.answers import Row, unit_of
from eval.scores.intervals import rounded, unit_interval
from eval.statements.instruments import Instrument

# Modes of answers in writing, and what an answer that counts is called.
DONE = {"generate": "read", "open": "judged"}
NOT_SCORED = "not scored: no judge has said a stance; the texts are in results.jsonl"


def count_written(by_mode: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Count what became of one model's answers in writing, by mode, and the options that a server did not list.

    Unread answers are neither read nor refused; errors are calls that a server refused or answered without text.
    """
    counts = {mode: _count(by_mode[mode], done) for mode, done in DONE.items() if mode in by_mode}
    if "open" in counts:
        scored = counts["open"]["judged"] > 0
        counts["open"] |= {"scored": scored, "note": None if scored else NOT_SCORED}
    rows = by_mode.get("choice", [])
    short = [row for row in rows if "option_floor" in row and None in (row["option_logprobs"] or [None])]
    if short:
        n = sum((row["option_logprobs"] or [None] * len(row["n_tokens"])).count(None) for row in short)
        floors = [row["option_floor"] for row in short if row["option_floor"] is not None]
        most = rounded(np.exp(max(floors))) if floors else None
        counts["choice"] = {"rows": len(rows), "options_unlisted": n, "unlisted_at_most": most}
    return counts


def _count(rows: Sequence[Row], done: str) -> dict[str, Any]:
    outcomes = Counter(_outcome(row, done) for row in rows)
    counts = {name: outcomes[name] for name in (done, "refused", "unread", "errors")}
    return {"rows": len(rows), **counts, "cut": sum(row.get("finish") == "length" for row in rows)}


def _outcome(row: Row, done: str) -> str:
    if row.get("text") is None and row["choice"] is None and row["stance"] is None:
        return "errors"
    if row["choice" if done == "read" else "stance"] is not None:
        return done
    return "refused" if row["refused"] else "unread"


def compare_written(
    choice: Sequence[Row], generate: Sequence[Row], instrument: Instrument, n_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Compare the likeliest option with the one that one model writes; None where no prompt was asked both ways.

    Only prompts of ``generate`` that are word by word those of ``choice`` count. ``agreement`` is the share of the
    answers read that chose the likeliest option, ``same_side`` the share on the same side of the scale.
    """
    likeliest = {(row["item"], row["prompt_sha256"]): row["choice"] for row in choice}
    both = [row for row in generate if (row["item"], row["prompt_sha256"]) in likeliest]
    if not both:
        return None
    options = [(row["item"], likeliest[row["item"], row["prompt_sha256"]], row["choice"]) for row in both]
    read = [(item, a, b) for item, a, b in options if None not in (a, b)]
    described: dict[str, Any] = {
        "n_prompts": len({row["prompt_sha256"] for row in both}),
        "n_written": len(both),
        "n_read": len(read),
        **dict.fromkeys(("agreement", "ci95", "kappa", "same_side")),
    }
    if not read:
        return described
    items = list(dict.fromkeys(item for item, *_ in read))
    a, b = np.array([options for _, *options in read]).T
    # answers of an item weigh by their number, so that the mean is that over answers
    same = [[x == y for name, x, y in read if name == item] for item in items]
    flat = np.array([(sum(answers), len(answers)) for answers in same], dtype=float)
    unit = {item.id: unit_of(item) for item in instrument.items}
    units = np.array([unit.get(item, item) for item in items])
    interval = unit_interval(flat, units, lambda means: means[..., 0] / means[..., 1], n_bootstrap, seed)
    middle = (len(instrument.options) - 1) / 2
    return described | {
        "agreement": rounded(np.mean(a == b)),
        "ci95": None if interval is None else [rounded(min(max(x, 0.0), 1.0)) for x in interval],
        "kappa": rounded(cohen_kappa(list(map(str, a)), list(map(str, b)))),
        "same_side": rounded(np.mean(np.sign(a - middle) == np.sign(b - middle))),
    }
