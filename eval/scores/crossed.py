# SPDX-License-Identifier: MIT
"""Standard errors of the mean of a crossed table: items x templates x orders (x seeds), with cells missing or not.

Every item is asked in every template and order, so the mean moves with each of them and with their combinations. With
few levels of a factor nobody can tell how much it moves: such a factor is *given*, and the interval speaks of these
levels alone. ``benchmarks/interval_coverage.py`` counts how often intervals that follow these rules hold the truth.
"""

import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from eval.scores.intervals import MeanError, nan_mean, rounded

# The factors of a table, after its items, in the order of its axes. With fewer levels a factor is given, not sampled:
# with 3 templates between 92 and 98 % would be covered, not 95.
LEAST_LEVELS = {"templates": 6, "orders": 6, "seeds": 5}
# Fewer units (couples of twins, or items without a twin) give no interval: no exact test of 5 can reach p < .05.
LEAST_UNITS = 6
# From as many topics (of equal size) on topics are what was sampled, since the statements of one move together.
LEAST_TOPICS = 8
# A mean square must exceed what it would be without its effect by 1.55 / df^.45 of that to count (Bancroft 1964,
# Biometrics 20, on pooling). Chosen by simulation: with less, intervals of mere noise are too wide; with more, those of
# a small effect are too narrow.
POOLING = 1.55
POOLING_POWER = 0.45
# Rounds of the additive fit where cells are missing; a complete table needs one.
ROUNDS = 12
# A variance of the mean that rounding alone could leave.
TINY = 1e-18

Span = tuple[int, ...]  # the axes that an effect spans
Squares = Mapping[Span, float]


class MeanErrors(NamedTuple):
    """Standard errors of one mean, what they speak of, and why one is missing."""

    fixed: MeanError | None  # with these items: how far would other prompts move the mean?
    sampled: MeanError | None  # with other items of the kind, too
    units: str  # what the items count as: ``topics``, or ``items`` (twins as one)
    prompts: tuple[str, ...]  # the factors of LEAST_LEVELS that count as samples
    why_not: dict[str, str]  # ``fixed`` or ``sampled`` to the reason why it is None
    parts: np.ndarray  # what each sampled topic or unit adds to the mean, ``[units]``


def item_means(cells: np.ndarray) -> np.ndarray:
    """Average over the cells that have an answer, ``[I, T, O]`` (and seeds) to ``[I]``; nan where none has."""
    return nan_mean(cells, tuple(range(1, cells.ndim)))


def mean_errors(cells: np.ndarray, unit: np.ndarray, topic: np.ndarray | None = None) -> MeanErrors:
    """Return the standard errors of the mean of items, from cells ``[I, T, O]`` or ``[I, T, O, S]``; nan: no answer.

    With the items fixed, prompts are what varies: how far would other prompts about *these* statements move the mean?
    With the items sampled too, couples of twins (``unit``, ``[I]``) are one more factor, or their topics (``topic``)
    where there are enough. The mean is that over items of the means over their cells.

    Levels without an answer leave the table. What the items add is the scatter of the units about the mean, whatever
    they answered (the cluster-robust variance of Liang and Zeger 1986, Biometrika 73, with Kish's effective number of
    units). What prompts add is in :func:`mean_squares` and :func:`combine`.
    """
    means = item_means(cells)
    known = ~np.isnan(means)
    cells, means, unit = cells[known], means[known], unit[known]
    n_units = len(set(unit))
    if not n_units:
        return MeanErrors(None, None, "items", (), dict.fromkeys(("fixed", "sampled"), "nothing was answered"), means)
    has_topics = topic is not None and LEAST_TOPICS <= effective_size(topic[known]) and len(set(topic[known])) < n_units
    index = np.unique(topic[known] if has_topics and topic is not None else unit, return_inverse=True)[1]
    shares, parts = np.bincount(index) / len(means), np.bincount(index, means) / len(means)
    n_levels = [int((~np.isnan(cells)).any(tuple(_others(cells.ndim, (k,)))).sum()) for k in range(cells.ndim)]
    factors = list(LEAST_LEVELS)[: cells.ndim - 1]
    sampled_axes = [k for k, name in enumerate(factors, start=1) if n_levels[k] >= LEAST_LEVELS[name]]
    residuals, weights = _prompt_table(cells, index, sampled_axes)
    squares, df = mean_squares(residuals, weights)
    # the axis of the units comes first, those of the prompts after it
    of_prompts = {span: square for span, square in squares.items() if 0 not in span}
    fixed = combine(of_prompts, df, max(of_prompts, key=len), of_prompts) if of_prompts else None
    sampled = None
    if n_units >= LEAST_UNITS:
        n = 1 / (shares**2).sum()
        scatter = ((parts - shares * means.mean()) ** 2).sum() * n / (n - 1)
        squares, df = {**squares, (0,): float(scatter)}, {**df, (0,): n - 1}
        sampled = combine(squares, df, (0,), of_prompts)
    why_not = {}
    if not sampled_axes:
        counts = ", ".join(f"{n} {name} of at least {LEAST_LEVELS[name]}" for n, name in zip(n_levels[1:], factors))
        why_not["fixed"] = f"too few prompts to speak of others: {counts}"
    elif not fixed:
        why_not["fixed"] = "every prompt gave the same: there is no spread to judge by"
    if n_units < LEAST_UNITS:
        why_not["sampled"] = f"{n_units} distinct items: an interval needs {LEAST_UNITS}"
    elif not sampled:
        why_not["sampled"] = "every item gave the same: there is no spread to judge by"
    prompts = tuple(factors[k - 1] for k in sampled_axes)
    return MeanErrors(fixed, sampled, "topics" if has_topics else "items", prompts, why_not, parts)


def mean_error(values: np.ndarray) -> MeanError | None:
    """Return the standard error of the mean of all values, each axis a random factor; nan: no answer.

    None if no axis has two levels, or nothing differs. Of one axis it is that of Student's t.
    """
    known = ~np.isnan(values)
    if known.sum() < 2:
        return None
    weights = known / known.sum()
    squares, df = mean_squares(np.where(known, values - np.nanmean(values), 0.0), weights)
    return combine(squares, df, max(squares, key=len), squares) if squares else None


def effective_size(names: np.ndarray) -> float:
    """Return how many groups of equal size tell as much as these do (Kish 1965, Survey Sampling)."""
    counts = np.unique(names, return_counts=True)[1]
    return float(counts.sum() ** 2 / (counts**2).sum())


def _prompt_table(cells: np.ndarray, index: np.ndarray, sampled_axes: Collection[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return what is left of the cells without the items' own effects, and the weight of each cell in the mean.

    Items are averaged to their units, and the factors that are given are averaged over.
    """
    known = ~np.isnan(cells)
    filled = np.where(known, cells, 0.0)
    effects = [np.zeros(())] * cells.ndim
    axes = [0, *sampled_axes]
    counts = {k: np.maximum(known.sum(_others(cells.ndim, (k,)), keepdims=True), 1) for k in axes}
    # of a table with gaps, the mean of an item would hold a part of the effects of the templates that it was asked in
    for _ in range(1 if known.all() else ROUNDS):
        for k in axes:
            left = np.where(known, filled - sum(effects[j] for j in axes if j != k), 0.0)
            effects[k] = left.sum(_others(cells.ndim, (k,)), keepdims=True) / counts[k]
    weights = known / known.sum(_others(cells.ndim, (0,)), keepdims=True) / len(cells)
    given = tuple(k for k in range(1, cells.ndim) if k not in sampled_axes)
    weighted, weights = (weights * (filled - effects[0])).sum(given), weights.sum(given)
    by_unit = [np.zeros((index.max() + 1, *weights.shape[1:])) for _ in range(2)]
    for total, x in zip(by_unit, (weighted, weights)):
        np.add.at(total, index, x)
    return np.divide(by_unit[0], by_unit[1], out=np.zeros_like(by_unit[0]), where=by_unit[1] > 0), by_unit[1]


def mean_squares(residuals: np.ndarray, weights: np.ndarray) -> tuple[dict[Span, float], dict[Span, float]]:
    """Return what stands for the mean square of each effect, divided by the number of cells, and degrees of freedom.

    Args:
        residuals: Cells less a constant of each level of the first axis, any number of axes.
        weights: Of the cells in the mean, summing to 1; 0 where a cell is missing.

    The covariance of two cells that share just the levels of ``S`` is the sum of the variances of all effects within
    ``S``. It is estimated by the mean product of all such pairs of cells, so nothing is filled in. An effect ``R`` adds
    its variance times the sum of squared weights of its levels to the variance of the mean; the square of ``S`` is what
    all ``R`` that span ``S`` add. Of a complete table it is MS_S / n of the analysis of variance.

    Source: Henderson 1953, Biometrics 9, and Searle, Casella and McCulloch 1992, Variance Components, chapter 5, on
    moments of unbalanced data; Cornfield and Tukey 1956, Ann. Math. Stat. 27, on expected mean squares.
    """
    sizes, variance = _variances(residuals, weights)
    if not variance:
        return {}, {}
    spans = list(sizes)
    squares = {s: sum(sizes[r] * variance[r] for r in spans if set(s) <= set(r)) for s in spans[1:]}
    levels = {k: int((weights.sum(_others(weights.ndim, (k,))) > 0).sum()) for s in spans for k in s}
    share = {s: (weights.sum(_others(weights.ndim, s)) > 0).sum() / math.prod(levels[k] for k in s) for s in spans[1:]}
    df = {s: max(1.0, share[s] * math.prod(levels[k] - 1 for k in s)) for s in spans[1:]}
    return squares, df


def _variances(residuals: np.ndarray, weights: np.ndarray) -> tuple[dict[Span, float], dict[Span, float]]:
    """Return the sum of squared weights of the levels of each effect, and its variance; empty if effects are mixed."""
    axes = [k for k in range(weights.ndim) if (weights.sum(_others(weights.ndim, (k,))) > 0).sum() > 1]
    spans: list[Span] = [s for size in range(len(axes) + 1) for s in itertools.combinations(axes, size)]
    products, sizes = {}, {}
    for s in spans:
        rest = _others(weights.ndim, s)
        products[s] = float(((weights * residuals).sum(rest) ** 2).sum())
        sizes[s] = float((weights.sum(rest) ** 2).sum())
    covariance = {}
    for s in spans:
        wider = [(r, (-1) ** (len(r) - len(s))) for r in spans if set(s) <= set(r)]
        size = sum(sign * sizes[r] for r, sign in wider)
        if size < 1e-12:  # no two cells share just this: the design cannot tell these effects apart
            return {}, {}
        covariance[s] = sum(sign * products[r] for r, sign in wider) / size
    variance = {s: sum((-1) ** (len(s) - len(r)) * covariance[r] for r in spans if set(r) <= set(s)) for s in spans}
    return sizes, variance


def variance_table(cells: np.ndarray, topic: np.ndarray, alike: float) -> list[dict[str, Any]]:
    """Return where cells ``[I, T, O]`` (and seeds) differ, a row each source.

    The sources are topics, items within a topic, the prompts' factors and seeds, and the ``rest``: how these differ
    together, and noise. Topics have the part ``alike`` of the variance of items' means (:func:`topic_correlation`).
    ``share`` is that of the variance of a cell, ``error`` what the source adds to the standard error: with m
    levels for n it would be sqrt(n / m) times that. Estimates below 0 count as 0. Empty where nothing differs.
    """
    known = ~np.isnan(cells)
    if known.sum() < 2:
        return []
    residuals = np.where(known, cells - np.nanmean(cells), 0.0)
    sizes, found = _variances(residuals, known / known.sum())
    variance = {s: max(0.0, x) for s, x in found.items() if s}
    total = sum(variance.values())
    if total <= TINY:
        return []
    items = variance.pop((0,), 0.0)
    means = item_means(cells)
    means = means[~np.isnan(means)]
    of_topics = min(items, max(0.0, alike) * float(means.var(ddof=1))) if len(means) > 1 else 0.0
    alone = [variance.pop((k,), 0.0) for k in range(1, cells.ndim)]
    names = ["topics", "items", *list(LEAST_LEVELS)[: cells.ndim - 1]]
    parts = zip(names, [len(set(topic)), *cells.shape], [of_topics, items - of_topics, *alone])
    rows = [
        {"source": name, "levels": int(n), "share": rounded(x / total), "error": rounded(math.sqrt(x / n))}
        for name, n, x in parts
        if n > 1
    ]
    error = math.sqrt(sum(x * sizes[s] for s, x in variance.items()))
    rest = {"share": rounded(sum(variance.values()) / total), "error": rounded(error)}
    return [*rows, {"source": "rest", "levels": int(known.sum()), **rest}]


class OneWay(NamedTuple):
    """The mean squares of values in groups: between the groups' means, and within the groups."""

    between: float
    within: float
    df: tuple[int, int]
    size: float  # mean size of a group, for sizes that differ


def one_way(values: np.ndarray, group: np.ndarray) -> OneWay | None:
    """Return the one-way analysis of variance; None without two groups of which one has two values.

    ``size`` is that of Searle, Casella and McCulloch 1992, Variance Components, section 3.6.
    """
    index = np.unique(group, return_inverse=True)[1]
    counts = np.bincount(index)
    n, n_groups = len(values), len(counts)
    if not 1 < n_groups < n:
        return None
    centers, df = np.bincount(index, values) / counts, (n_groups - 1, n - n_groups)
    within = float(((values - centers[index]) ** 2).sum()) / df[1]
    between = float((counts * (centers - values.mean()) ** 2).sum()) / df[0]
    return OneWay(between, within, df, (n - float((counts**2).sum()) / n) / df[0])


def topic_correlation(means: np.ndarray, topic: np.ndarray) -> dict[str, Any] | None:
    """Return how alike the items of one topic are: the intraclass correlation of one-way groups, with its interval.

    ``(B - W) / (B + (n - 1) W)`` of the mean squares between and within topics; the interval is by F, with the mean
    size of the groups for ``n`` where they differ (Fisher 1925; Donner 1979, American Journal of Epidemiology 110). A
    size below 2 would let it pass -1, where it ends.
    None without two topics of which one has two items.
    """
    known = ~np.isnan(means)
    found = one_way(means[known], topic[known])
    if found is None or found.within <= TINY:
        return None
    ratios = [found.between / found.within]
    ratios += [ratios[0] / float(special.fdtri(*found.df, p)) for p in (0.975, 0.025)]
    estimate, *ends = (rounded(max(-1.0, (ratio - 1) / (ratio + found.size - 1))) for ratio in ratios)
    return {"estimate": estimate, "ci95": ends}


def combine(squares: Squares, df: Squares, first: Span, others: Collection[Span]) -> MeanError | None:
    """Return the standard error from the square of ``first`` and the excess of other effects; None if it is 0.

    The excess of an effect ``S`` over what its interactions explain is ``sum over R spanning S of (-1)^(|R| - |S|)
    MS_R``. One that is not told from 0 is pooled: it is left out, and where ``first`` is the residual, its square is
    averaged with that. With ``a`` the number of times that each square counts then, the variance is ``sum a MS`` and
    its degrees of freedom ``(sum a MS)^2 / sum (a MS)^2 / df``.

    Source: Satterthwaite 1946, Biometrics Bulletin 2(6); Bancroft 1964, Biometrics 20, for pooling.
    """
    squares, df = dict(squares), dict(df)
    counted = {s: float(s == first) for s in squares}
    pooled = [first]
    for s in others:
        if s == first:
            continue
        signs = {r: (-1) ** (len(r) - len(s)) for r in squares if set(s) <= set(r)}
        excess = sum(sign * squares[r] for r, sign in signs.items())
        if excess > 0 and squares[s] > (1 + POOLING / df[s] ** POOLING_POWER) * (squares[s] - excess):
            for r, sign in signs.items():
                counted[r] += sign
        else:
            pooled.append(s)
    if len(first) == max(map(len, squares)):
        total = sum(df[s] for s in pooled)
        squares[first], df[first] = sum(df[s] * squares[s] for s in pooled) / total, total
    terms = {s: a * squares[s] for s, a in counted.items()}
    variance = sum(terms.values())
    if variance <= TINY:
        return None
    return MeanError(math.sqrt(variance), max(1.0, variance**2 / sum(x * x / df[s] for s, x in terms.items())))


def _others(ndim: int, axes: Span) -> Span:
    return tuple(k for k in range(ndim) if k not in axes)
