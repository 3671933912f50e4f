# SPDX-License-Identifier: MIT
"""How a score moves along a line: the drift of a training, and curves along dials, trainings and doses of a study."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from data.recipe.figures import interval, number, p_value
from eval.scores.comparisons import describe_change
from eval.scores.intervals import rounded, rounded_ends
from eval.scores.places import Groups
from eval.scores.scoring import Values

# False discovery rate below which a checkpoint is told from the base.
TOLD_APART = 0.05
# Least rank correlation, of either sign, that is called monotone: of at least so many points, and with p below .05.
MONOTONE = 0.95
LEAST_POINTS = 5
# Orders of the points that are tried for the p of a rank correlation: all of 8 points.
MOST_ORDERS = 50_000

Comparisons = Sequence[Mapping[str, Any]]


def describe_drift(
    groups: Groups, comparisons: Comparisons, scores: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return drift magnitude and drift time of every training and mode.

    Magnitude: the distance of a checkpoint from the base over the axes of the mode (``scores``), from the paired
    differences, see :func:`distance`. ``half_step``: where it first reaches half of what it has at the last checkpoint,
    linear between checkpoints, counted from 0 at step 0; None unless the last is told from the base.
    ``told_apart_step``: the first checkpoint from which on some axis differs from the base at a false discovery rate of
    5 % in every later one. Both are ours: the rise time of a step response.
    """
    by_place = {(c["a"], c["b"], c["mode"], c["axis"]): c for c in comparisons}
    drifts = []
    for (run, names), (mode, axes) in itertools.product(groups.steps.items(), scores.items()):
        known = [[by_place.get((groups.base, name, mode, axis)) for axis in axes] for name in names.values()]
        changes = [[c for c in change if c is not None and c["difference"] is not None] for change in known]
        if any(len(change) < len(axes) for change in changes):
            continue
        distances = [distance(change) for change in changes]
        magnitudes = [d.magnitude for d in distances]
        apart = [any(c["q"] is not None and c["q"] < TOLD_APART for c in change) for change in changes]
        n_until_apart = max((k for k, is_apart in enumerate(apart, start=1) if not is_apart), default=0)
        steps = list(names)
        drifts.append(
            {
                "run": run,
                "mode": mode,
                "steps": steps,
                "models": list(names.values()),
                "magnitude": [rounded(x) for x in magnitudes],
                "magnitude_ci95": [rounded_ends(d.ci95) for d in distances],
                "half_step": _first_reach([0, *steps], [0.0, *magnitudes], magnitudes[-1] / 2) if apart[-1] else None,
                "told_apart_step": steps[n_until_apart] if n_until_apart < len(steps) else None,
            }
        )
    return drifts


class Distance(NamedTuple):
    """How far a model lies from the base over some axes, with its 95 % interval."""

    magnitude: float
    ci95: list[float] | None


def distance(changes: Sequence[Mapping[str, Any]]) -> Distance:
    """Return ``sqrt(max(0, sum of d^2 - se^2))`` of paired differences: a sum of squares alone is never near 0.

    The interval is that of the distances of the box of the differences' intervals, at 1 - .05 / axes each (Bonferroni),
    so that it holds the distance at least as often. It is None, and nothing is taken off, where a difference has no
    error.
    """
    differences = [abs(c["difference"]) for c in changes]
    errors = [c["se"] for c in changes if c.get("se") is not None]
    if len(errors) < len(changes):
        return Distance(math.hypot(*differences), None)
    square = sum(d * d - se * se for d, se in zip(differences, errors))
    magnitude = math.sqrt(max(0.0, square))
    halves = [float(special.stdtrit(c["df"], 1 - 0.025 / len(changes))) * c["se"] for c in changes]
    low = math.hypot(*(max(0.0, d - half) for d, half in zip(differences, halves)))
    return Distance(magnitude, [min(low, magnitude), math.hypot(*(d + half for d, half in zip(differences, halves)))])


def _first_reach(steps: list[int], values: list[float], level: float) -> float | None:
    if level == 0:
        return None
    k = next(k for k, value in enumerate(values) if value >= level)
    share = (level - values[k - 1]) / (values[k] - values[k - 1])
    return rounded(steps[k - 1] + share * (steps[k] - steps[k - 1]))


def describe_curves(
    groups: Groups,
    models: Mapping[str, Any],
    comparisons: Comparisons,
    placebo: set[str],
    values: Mapping[tuple[str, str], Mapping[str, Values]],
) -> list[dict[str, Any]]:
    """Return every score along every dial, every training and every line of a study.

    Intervals are those of the paired change from the base, put around the estimate: what the eye compares along a curve
    is the change, on the same prompts. ``mean`` has each position once, with the mean over what stands there (the seeds
    of a run). ``rank_correlation`` is that of position and mean, ``rank_p`` its exact p; ``n_up`` and ``n_down`` count
    the steps. A dial has a ``slope``, see :func:`_slope`: its points are one line of weights, not so many trials.
    """
    changes = [c for c in comparisons if c["a"] == groups.base]
    scores = [(mode, axis) for mode, axes in models.get(groups.base, {}).items() for axis in axes]
    scores = [(mode, axis) for mode, axis in scores if axis not in placebo]
    curves = []
    for line, (mode, axis) in itertools.product(groups.all_lines(), scores):
        flat = [(point.x, name) for point in line.points for name in point.models]
        estimates = {name: models[name].get(mode, {}).get(axis, {}).get("estimate") for _, name in flat}
        if None in estimates.values():
            continue
        start, ends = models[groups.base][mode][axis]["estimate"], values[groups.base, mode][axis].ends
        of_name = {c["b"]: c for c in changes if (c["mode"], c["axis"]) == (mode, axis)}
        xs = [point.x for point in line.points]
        means = [statistics.fmean(estimates[name] for name in point.models) for point in line.points]
        slope = None
        if line.kind == "dial":
            slope = _slope({x: values[name, mode][axis] for x, name in flat})
        curves.append(
            {
                "kind": line.kind,
                "run": line.run,
                "mode": mode,
                "axis": axis,
                "x": [x for x, _ in flat],
                "models": [name for _, name in flat],
                "estimate": list(estimates.values()),
                **_around(start, [of_name.get(name, {}) for _, name in flat], ends),
                "mean": {
                    "x": xs,
                    "estimate": [rounded(mean) for mean in means],
                    **_around(start, [of_name.get(point.name, {}) for point in line.points], ends),
                },
                "rank_correlation": rank_correlation(xs, means),
                "rank_p": rank_p(xs, means),
                "slope": slope,
                "n_up": sum(b > a for a, b in itertools.pairwise(means)),
                "n_down": sum(b < a for a, b in itertools.pairwise(means)),
            }
        )
    return curves


def _around(
    start: float, changes: Sequence[Mapping[str, Any]], ends: tuple[float, float] | None
) -> dict[str, list[list[float] | None]]:
    """Return the intervals of changes, put around where they start, inside the scale."""
    low, high = ends or (-math.inf, math.inf)
    intervals = {key: [change.get(key) for change in changes] for key in ("ci95", "ci95_items_fixed")}
    return {
        key: [between and [rounded(min(max(start + x, low), high)) for x in between] for between in of_key]
        for key, of_key in intervals.items()
    }


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None if either is constant."""
    return None if min(len(set(x)), len(set(y))) < 2 else rounded(stats.spearmanr(x, y).statistic)


def rank_p(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return the two-sided p of the rank correlation over all orders of the points, or 50,000 drawn ones.

    Of n points in one order it is 2 / n!: 1, .33, .08, .02 of 2, 3, 4, 5. None if either is constant.
    """
    if min(len(set(x)), len(set(y))) < 2:
        return None
    ranks = stats.rankdata(x) - (len(x) + 1) / 2

    def tilt(order: np.ndarray, axis: int) -> np.ndarray:
        return np.abs(np.round((np.moveaxis(order, axis, -1) * ranks).sum(-1), 6))

    test = stats.permutation_test(
        [stats.rankdata(y)], tilt, permutation_type="pairings", vectorized=True, n_resamples=MOST_ORDERS,
        alternative="greater", rng=np.random.default_rng(0),
    )  # fmt: skip
    return rounded(test.pvalue)


def _slope(values: Mapping[float, Values]) -> dict[str, Any]:
    """Return how much the score moves for each unit of a dial: least squares by item and prompt, then their mean.

    With the interval and p of a paired difference, over items and prompts.
    """
    x = np.array(list(values)) - np.mean(list(values))
    cells = np.stack([v.cells for v in values.values()])
    like = next(iter(values.values()))
    return describe_change(like, np.tensordot(x, cells, 1) / (x**2).sum())


def verdict(curve: Mapping[str, Any]) -> str:
    """Return in words how the score moves along a curve: the slope of a dial, else whether it is monotone."""
    rho, n_up, n_down, slope = (curve[key] for key in ("rank_correlation", "n_up", "n_down", "slope"))
    if rho is None:
        return "constant"
    said = f"rank correlation {number(rho, 2)}, {max(n_up, n_down)} of {n_up + n_down} steps one way"
    if slope:
        return f"slope {number(slope['difference'])} {interval(slope['ci95'])} a unit of the dial, {said}"
    n, p = len(curve["mean"]["x"]), curve["rank_p"]
    if n < LEAST_POINTS:
        return f"{n} points, too few to call it monotone or not ({LEAST_POINTS} are needed), {said}"
    shape = "monotone" if abs(rho) >= MONOTONE and p < TOLD_APART else "not told to be monotone"
    return f"{shape} (p {p_value(p)}), {said}"
