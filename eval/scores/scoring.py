# SPDX-License-Identifier: MIT
"""Coordinates with their bounds and two intervals.

Negative is left / libertarian, positive right / authoritarian. An answer that is missing is never counted
as one: ``bounds`` say where the coordinate could lie.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from eval.scores.answers import Answers, unit_of
from eval.scores.intervals import MeanError, mean_error, rounded, rounded_ends, t_interval
from eval.statements.instruments import Instrument, Pair


class Values(NamedTuple):
    """The amounts that items add to a score, which is ``scale * mean + shift``."""

    items: tuple[str, ...]  # ids
    cells: np.ndarray  # by the options' probabilities; nan where there is no answer, [I, T, O]
    hard: np.ndarray | None  # by the chosen options, [I]; None in a mode without options
    low: np.ndarray  # the least an item could add, given what was not answered; nan where that has no limit, [I]
    high: np.ndarray  # the most it could add, [I]
    unit: np.ndarray  # name of the couple of twins, or of the item, that is drawn as one, [I]
    scale: float = 1.0  # n_items / divisor of the axis
    shift: float = 0.0  # offset / divisor of the axis
    ends: tuple[float, float] | None = None  # least and greatest score that there is; None without a limit

    def score(self, values: np.ndarray) -> float | None:
        """Return ``scale * mean + shift``, or None without values or with one that is nan."""
        known = len(values) and not np.isnan(values).any()
        return rounded(self.scale * values.mean() + self.shift) if known else None


class MeanErrors(NamedTuple):
    """Standard errors of one mean: with the items fixed, and with the items sampled too."""

    fixed: MeanError | None
    sampled: MeanError | None


def axis_values(answers: Answers, instrument: Instrument, axis: str) -> Values:
    """Return the weight that each item of ``axis`` collects: the sum over options of probability x weight.

    Over orders that show every option equally often in every place the mean is free of a preference for a place (the
    permutation average of Zheng et al. 2024, arXiv 2309.03882). The coordinate is ``(n_items * mean + offset) /
    divisor``. Bounds put the least and the greatest weight in the place of every missing answer (the worst-case bounds
    of Manski 1989, Journal of Human Resources 24(3)).
    """
    items = [item for item in instrument.items if axis in item.weights]
    place = {item.id: k for k, item in enumerate(answers.items)}
    cells = np.full((len(items), *answers.shares.shape[1:3]), np.nan)
    hard, low, high = (np.full(len(items), np.nan) for _ in range(3))
    for k, item in enumerate(items):
        weights = np.array(item.weights[axis], dtype=float)
        low[k], high[k] = weights.min(), weights.max()
        if item.id not in place:
            continue
        i = place[item.id]
        expected, missing = answers.shares[i] @ weights, answers.missing[i]  # [T, O, L]
        cells[k] = nan_mean(expected, 2)
        hard[k] = nan_mean(answers.chosen[i] @ weights)
        known = np.where(missing == 1, 0.0, (1 - missing) * expected)
        low[k] = nan_mean(known + missing * weights.min())
        high[k] = nan_mean(known + missing * weights.max())
    about = instrument.axes[axis]
    return Values(
        items=tuple(item.id for item in items),
        cells=cells,
        hard=hard,
        low=low,
        high=high,
        unit=np.array([unit_of(item) for item in items]),
        scale=len(items) / about.divisor,
        shift=about.offset / about.divisor,
        ends=instrument.axis_range(axis),
    )


def pair_values(leans: np.ndarray, pairs: list[Pair]) -> Values:
    """Return leans ``[P, T]`` (``eval.scores.answers.collect_leans``) as values: the score is their mean."""
    ids, cells = tuple(pair.id for pair in pairs), leans[:, :, None]
    means = item_means(cells)
    return Values(items=ids, cells=cells, hard=None, low=means, high=means, unit=np.array(ids))


def nan_mean(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the mean of what is not nan; the mean of nothing is nan."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def item_means(cells: np.ndarray) -> np.ndarray:
    """Average over the cells that have an answer, ``[I, T, O]`` (and seeds) to ``[I]``; nan where none has."""
    return nan_mean(cells, tuple(range(1, cells.ndim)))


def mean_errors(cells: np.ndarray, unit: np.ndarray) -> MeanErrors:
    """Return the standard errors of the mean of items.

    With the items fixed, templates and orders are what varies: how far would other prompts about *these* statements
    move the score? With the items sampled too, couples of twins are a third factor: how far would other statements of
    the same kind? A missing cell gets its item's mean, and the errors grow by the square root of asked / answered.
    """
    means = item_means(cells)
    known = ~np.isnan(means)
    if not known.any():
        return MeanErrors(None, None)
    cells, unit, means = cells[known], unit[known], means[known]
    growth = np.sqrt(cells.size / (~np.isnan(cells)).sum())
    cells = np.where(np.isnan(cells), np.expand_dims(means, tuple(range(1, cells.ndim))), cells)
    names, index = np.unique(unit, return_inverse=True)
    # the mean over units of these is the mean over items, also where a unit has one item and another two
    by_unit = np.zeros((len(names), *cells.shape[1:]))
    np.add.at(by_unit, index, (cells - means.mean()) * len(names) / len(cells))
    fixed = mean_error(by_unit.mean(0), units_first=False)
    # one unit says nothing about others
    sampled = mean_error(by_unit, units_first=True) if len(names) > 1 else None
    return MeanErrors(*(e and e._replace(error=float(e.error * growth)) for e in (fixed, sampled)))


def describe(values: Values) -> dict[str, Any]:
    """Return estimate, both intervals, bounds and counts of one model, mode and axis."""
    means = item_means(values.cells)
    answered = ~np.isnan(means)
    estimate, errors = values.score(means[answered]), mean_errors(values.cells, values.unit)
    described = {
        "estimate": estimate,
        "ci95": _interval(values, estimate, errors.sampled),
        "ci95_items_fixed": _interval(values, estimate, errors.fixed),
        "bounds": [values.score(values.low), values.score(values.high)],
        "n_items": len(answered),
        "n_answered": int(answered.sum()),
    }
    if values.hard is not None:
        described["hard"] = values.score(values.hard[answered])
    return described


def _interval(values: Values, estimate: float | None, error: MeanError | None) -> list[float] | None:
    interval = None if estimate is None else t_interval(estimate, error, values.scale)
    return rounded_ends(list(np.clip(interval, *values.ends)) if interval and values.ends else interval)
