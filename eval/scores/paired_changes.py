# SPDX-License-Identifier: MIT
"""A measure of several models, each with its paired change from the first one; numpy only.

A share has Wilson's interval. Its change is paired by prompt: Agresti and Min's interval and McNemar's exact test,
which hold with few prompts and where nothing changed (a bootstrap would give [0, 0] there). A mean, and a ratio of
sums, have Student's t over prompts or lines.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.quality.measures import wilson
from eval.scores.intervals import MeanError, mean_error, t_interval, t_p
from eval.scores.scoring import rounded

Entries = list[dict[str, Any]]


def share_change(a: np.ndarray, b: np.ndarray) -> tuple[list[float], float]:
    """Return the 95 % interval of the paired difference of two shares, b - a, and p.

    Source: Agresti and Min 2005, Statistics in Medicine 24 (half a pair added to each cell of the 2 x 2 table); McNemar
    1947 in its exact form, two-sided binomial over the discordant pairs.

    Args:
        a: Of each prompt whether it counts, bool ``[N]``.
        b: The same prompts, of the other model.
    """
    gained, lost = int((~a & b).sum()), int((a & ~b).sum())
    n = len(a) + 2
    middle = (gained - lost) / n
    half = 1.96 * math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / n) / n
    discordant = gained + lost
    tail = sum(math.comb(discordant, k) for k in range(min(gained, lost) + 1)) / 2**discordant
    return [max(middle - half, -1.0), min(middle + half, 1.0)], min(1.0, 2 * tail)


def ratio(x: np.ndarray, n: np.ndarray) -> tuple[float, MeanError | None]:
    """Return sum(x) / sum(n) and its standard error over units, linearized; with n = 1 a mean.

    Source: Cochran 1977, Sampling Techniques, section 6.4 (variance of a ratio estimator).
    """
    value = float(x.sum() / n.sum())
    return value, mean_error((x - value * n) / n.mean(), units_first=True) if len(x) > 1 else None


def shares(measure: str, of: str, values: Mapping[str, np.ndarray]) -> Entries:
    """Return the share that counts, bool ``[N]`` by model, in entries as :func:`entry` makes them."""
    first, found = next(iter(values.values()), None), []
    for name, these in values.items():
        share = float(these.mean())
        made = entry(name, measure, of, "share", len(these), share, wilson(share, len(these)))
        if these is not first:
            interval, p = share_change(first, these)
            made |= {"difference": rounded(share - float(first.mean())), "p": rounded(p)}
            made["difference_ci95"] = [rounded(x) for x in interval]
        found.append(made)
    return found


def means(measure: str, of: str, unit: str, values: Mapping[str, np.ndarray], n: np.ndarray | None = None) -> Entries:
    """Return sum(values) / sum(n) by model (n None: the mean), in entries as :func:`entry` makes them."""
    first, found = next(iter(values.values())), []
    n = np.ones(len(first)) if n is None else n
    for name, these in values.items():
        value, error = ratio(these, n)
        made = entry(name, measure, of, unit, len(these), value, t_interval(value, error))
        if these is not first:
            change, error = ratio(these - first, n)
            made |= {"difference": rounded(change), **tested(change, error)}
        found.append(made)
    return found


def tested(change: float, error: MeanError | None) -> dict[str, Any]:
    """Return interval and p of a change with this standard error."""
    interval, p = t_interval(change, error), t_p(change, error)
    return {
        "difference_ci95": None if interval is None else [rounded(x) for x in interval],
        "p": None if p is None else rounded(p),
    }


def entry(
    model: str, measure: str, of: str, unit: str, n: int | None, value: float | None, ci95: Sequence[float] | None
) -> dict[str, Any]:
    """Return a measure of one model, its change from the first one still open."""
    return {
        "model": model,
        "measure": measure,
        "of": of,
        "unit": unit,
        "n": n,
        "value": None if value is None else rounded(value),
        "ci95": [rounded(x) for x in ci95] if ci95 else None,
        "difference": None,
        "difference_ci95": None,
        "p": None,
        "q": None,
    }
