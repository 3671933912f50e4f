# SPDX-License-Identifier: MIT
"""Paired comparisons: models on an axis and on an item, and one model with itself in another mode.

A model's first token and what it goes on to write can choose differently (Wang et al. 2024, arXiv 2402.14499).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.judging.agreement import cohen_kappa
from eval.scores.diagnostics import agreement
from eval.scores.intervals import mean_error, rounded, rounded_ends, t_interval, t_p, unit_interval
from eval.scores.scoring import Answers, Row, Values, item_means, mean_errors, unit_of
from eval.statements.instruments import Instrument


def compare(a: Values, b: Values) -> dict[str, Any]:
    """Return the paired difference ``b - a`` on what both answered, with both intervals and a p-value.

    Paired by prompt: the same item under the same template and order, averaged over samples and label sets.
    The p-value is that of Student's t with the items sampled too; what a model does in one template or order
    on all items alike is then no sign of a moved lean.
    """
    change = b.cells - a.cells
    means = item_means(change)
    both = ~np.isnan(means)
    mean, errors = float(means[both].mean()) if both.any() else None, mean_errors(change, a.unit)
    intervals = [None if mean is None or e is None else t_interval(a.scale * mean, e, a.scale) for e in errors]
    return {
        "difference": None if mean is None else rounded(a.scale * mean),
        "ci95": rounded_ends(intervals[1]),
        "ci95_items_fixed": rounded_ends(intervals[0]),
        "p": None if mean is None else rounded(t_p(mean, errors.sampled)),
        "q": None,
        "n_items": int(both.sum()),
    }


def compare_items(a: Values, b: Values) -> list[dict[str, Any]]:
    """Return the paired difference of every item that both answered, over its templates and orders."""
    rows = []
    for item, cells_a, cells_b in zip(a.items, a.cells, b.cells):
        change = cells_b - cells_a
        if np.isnan(change).all():
            continue
        mean = float(np.nanmean(change))
        # a prompt without an answer in one of both says nothing about this item's error
        error = None if np.isnan(change).any() else mean_error(change, units_first=False)
        rows.append(
            {
                "item": item,
                "a_value": rounded(np.nanmean(cells_a)),
                "b_value": rounded(np.nanmean(cells_b)),
                "difference": rounded(mean),
                "p": rounded(t_p(mean, error)),
                "q": None,
            }
        )
    return rows


def item_agreement(answers: Answers) -> dict[str, float]:
    """Return the mean of P(agree) - P(disagree) of every answered item."""
    sides = agreement(answers)  # [I, T, O, L]
    means = item_means(sides.reshape(*sides.shape[:2], -1))
    return {item.id: rounded(x) for item, x in zip(answers.items, means) if not np.isnan(x)}


def flips(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, Any]:
    """Return the items on whose side (sign of :func:`item_agreement`) two modes or two models differ."""
    both = [item for item in a if item in b]
    flipped = [item for item in both if a[item] * b[item] < 0]
    return {
        "n_items": len(both),
        "n_flipped": len(flipped),
        "agree_to_disagree": sum(a[item] > 0 for item in flipped),
        "items": [{"item": item, "a_agreement": a[item], "b_agreement": b[item]} for item in flipped],
    }


def compare_written(
    choice: Sequence[Row], generate: Sequence[Row], instrument: Instrument, n_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Compare the likeliest option with the one that one model writes; None where no prompt was asked both ways.

    Only prompts of ``generate`` that are word by word those of ``choice`` count. ``agreement`` is the share of the
    answers read that chose the likeliest option, ``same_side`` the share on the same side of the scale.
    """

    def prompt(row: Row) -> tuple[str, str]:
        return row["item"], row["prompt_sha256"]

    likeliest = {prompt(row): row["choice"] for row in choice}
    both = [row for row in generate if prompt(row) in likeliest]
    if not both:
        return None
    read = [row for row in both if None not in (likeliest[prompt(row)], row["choice"])]
    described: dict[str, Any] = {
        "n_prompts": len({row["prompt_sha256"] for row in both}),
        "n_written": len(both),
        "n_read": len(read),
        **dict.fromkeys(("agreement", "ci95", "kappa", "same_side")),
    }
    if not read:
        return described
    a, b = np.array([likeliest[prompt(row)] for row in read]), np.array([row["choice"] for row in read])
    item = np.array([row["item"] for row in read])
    # answers of an item weigh by their number, so that the mean is that over answers
    flat = np.array([((a == b)[item == name].sum(), (item == name).sum()) for name in dict.fromkeys(item)], dtype=float)
    unit = {item.id: unit_of(item) for item in instrument.items}
    units = np.array([unit.get(name, name) for name in dict.fromkeys(item)])
    interval = unit_interval(flat, units, lambda means: means[..., 0] / means[..., 1], n_bootstrap, seed)
    middle = (len(instrument.options) - 1) / 2
    return described | {
        "agreement": rounded(np.mean(a == b)),
        "ci95": None if interval is None else [rounded(min(max(x, 0.0), 1.0)) for x in interval],
        "kappa": rounded(cohen_kappa(list(map(str, a)), list(map(str, b)))),
        "same_side": rounded(np.mean(np.sign(a - middle) == np.sign(b - middle))),
    }
