# SPDX-License-Identifier: MIT
"""Paired comparisons: models on an axis, models on an item, and the items that change side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from eval.scores.answers import Answers
from eval.scores.diagnostics import agreement
from eval.scores.intervals import mean_error, t_interval, t_p
from eval.scores.scoring import Values, item_means, mean_errors, rounded


def compare(a: Values, b: Values) -> dict[str, Any]:
    """Return the paired difference ``b - a`` on what both answered, with both intervals and a p-value.

    Paired by prompt: the same item under the same template and order, averaged over samples and label sets.
    The p-value is that of Student's t with the items sampled too; what a model does in one template or order
    on all items alike is then no sign of a moved lean.
    """
    change = b.cells - a.cells
    means = item_means(change)
    both = ~np.isnan(means)
    mean = float(means[both].mean()) if both.any() else None
    fixed, too = mean_errors(change, a.unit)
    intervals = [None if mean is None or e is None else t_interval(a.scale * mean, e, a.scale) for e in (too, fixed)]
    p = None if mean is None else t_p(mean, too)
    return {
        "difference": None if mean is None else rounded(a.scale * mean),
        "ci95": None if intervals[0] is None else [rounded(x) for x in intervals[0]],
        "ci95_items_fixed": None if intervals[1] is None else [rounded(x) for x in intervals[1]],
        "p": None if p is None else rounded(p),
        "q": None,
        "n_items": int(both.sum()),
    }


def compare_items(a: Values, b: Values) -> list[dict[str, Any]]:
    """Return the paired difference of every item that both answered, over its templates and orders."""
    rows = []
    for k, item in enumerate(a.items):
        change = (b.cells - a.cells)[k]
        if np.isnan(change).all():
            continue
        mean = float(np.nanmean(change))
        # a prompt without an answer in one of both says nothing about this item's error
        error = None if np.isnan(change).any() else mean_error(change, units_first=False)
        p = t_p(mean, error)
        of_both = [float(item_means(v.cells[k : k + 1])[0]) for v in (a, b)]
        rows.append(
            {
                "item": item,
                "a_value": rounded(of_both[0]),
                "b_value": rounded(of_both[1]),
                "difference": rounded(mean),
                "p": None if p is None else rounded(p),
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
    """Return the items on whose side (sign of agreement) two modes or two models differ.

    Args:
        a: Agreement by item (:func:`item_agreement`).
        b: The same in another mode, or of another model.
    """
    both = [item for item in a if item in b]
    found = [{"item": item, "a_agreement": a[item], "b_agreement": b[item]} for item in both if a[item] * b[item] < 0]
    return {
        "n_items": len(both),
        "n_flipped": len(found),
        "agree_to_disagree": sum(flip["a_agreement"] > 0 for flip in found),
        "items": found,
    }
