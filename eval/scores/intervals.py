# SPDX-License-Identifier: MIT
"""Intervals and tests of means and lines: Student's t, all signs, a bootstrap over units, and false discovery rates.

The standard error of a mean of crossed factors is that of ``eval/scores/crossed.py``.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from scipy import optimize, special, stats

from data.quality.measures import wilson

# Fewer parts than this are tested by all their signs; and so are more, if they take few values.
FEW_PARTS = 12
FEW_VALUES = 10
# Sums of signed parts that are told apart at most.
MOST_SUMS = 200_000
# Values held at once by the resampling loop; bounds its memory, does not change the draws.
BLOCK = 1_000_000
# Residuals whose variance rounding alone could leave.
_TINY = 1e-18


class MeanError(NamedTuple):
    """Standard error of a mean with its effective degrees of freedom."""

    error: float
    df: float


class Line(NamedTuple):
    """A straight line with the standard errors of its ends, robust to clusters; a slope of None: x does not vary."""

    intercept: float
    intercept_error: MeanError | None
    slope: float | None
    slope_error: MeanError | None


class Change(NamedTuple):
    """A paired change from the first model, its 95 % interval and p."""

    difference: float
    ci95: Sequence[float] | None
    p: float | None


def t_interval(center: float, error: MeanError | None, scale: float = 1.0) -> list[float] | None:
    """Return the 95 % interval of ``center``, whose standard error is ``scale`` times the given one."""
    if error is None:
        return None
    half = float(special.stdtrit(error.df, 0.975)) * error.error * abs(scale)
    return [center - half, center + half]


def mean_p(parts: np.ndarray, error: MeanError | None) -> float | None:
    """Return the two-sided p of "the mean is 0".

    Args:
        parts: What each unit adds to the mean, ``[n]``; they sum to it.
        error: Its standard error; None where none is known.

    Returns:
        That of Student's t. Where parts are few, or take few values as counted answers do, t is not to be trusted: then
        the greater of it and of the exact test of all signs (Fisher 1935, The Design of Experiments, section 21). None
        for fewer than two parts.
    """
    if len(parts) < 2:
        return None
    known = [p for p in (t_p(float(parts.sum()), error), sign_flip_p(parts)) if p is not None]
    return max(known, default=None)


def t_p(center: float, error: MeanError | None) -> float | None:
    """Return the two-sided p of "the mean is 0" by Student's t; None without an error."""
    return None if error is None else 2 * float(special.stdtr(error.df, -abs(center) / error.error))


def sign_flip_p(parts: np.ndarray) -> float | None:
    """Return the share of all ways to choose the signs of ``parts`` whose sum lies as far from 0 as theirs.

    None where t does: for FEW_PARTS or more that take more than FEW_VALUES values, signs aside.
    """
    sizes = np.round(np.abs(parts), 12)
    if len(sizes) >= FEW_PARTS and len(np.unique(sizes)) > FEW_VALUES:
        return None
    # 0 has no sign
    sums: np.ndarray = np.zeros(1)
    shares: np.ndarray = np.ones(1)
    for size in sizes[sizes > 0]:
        both = np.round(np.concatenate([sums + size, sums - size]), 10)
        sums, index = np.unique(both, return_inverse=True)
        shares = np.bincount(index, np.concatenate([shares, shares]) / 2)
        if len(sums) > MOST_SUMS:
            return None
    return min(1.0, float(shares[np.abs(sums) >= abs(parts.sum()) - 1e-9].sum()))


def nan_mean(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the mean of what is not nan; the mean of nothing is nan."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def unit_interval(
    values: np.ndarray,
    unit: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    n_bootstrap: int,
    seed: int,
) -> list[float] | None:
    """Return the 95 % bootstrap interval of a statistic of means, whole units drawn; None for fewer than two.

    ``values`` has a row an item, ``[I, D]``, ``unit`` the name of what was sampled as one (a couple of twins states one
    proposition twice), ``[I]``; ``statistic`` maps means ``[..., D]`` to ``[...]``, nan for a resample that does not
    count. Percentiles are expanded to what Student's t with n - 1 degrees of freedom asks for: with some 15 units they
    are else about 10 % too close (the expanded percentile interval of Hesterberg 2015, The American Statistician 69(4),
    section 5.3).
    """
    _, index = np.unique(unit, return_inverse=True)
    sizes = np.bincount(index)
    n = len(sizes)
    if n < 2:
        return None
    sums = np.zeros((n, values.shape[1]))
    np.add.at(sums, index, values)
    tail = special.ndtr(-math.sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.975))
    rng = np.random.default_rng(seed)
    resampled = []
    n_at_once = max(1, BLOCK // (n * values.shape[1]))
    for start in range(0, n_bootstrap, n_at_once):
        drawn = rng.integers(n, size=(min(n_at_once, n_bootstrap - start), n))
        resampled.append(statistic(sums[drawn].sum(1) / sizes[drawn].sum(1)[:, None]))
    found = np.concatenate(resampled)
    found = found[~np.isnan(found)]
    return [float(x) for x in np.quantile(found, [tail, 1 - tail])] if len(found) else None


def fit_line(x: np.ndarray, y: np.ndarray, cluster: np.ndarray) -> Line | None:
    """Return the least-squares line of ``y`` on ``x``; nan is left out, and fewer than three points give None.

    The errors are those of Liang and Zeger 1986 (Biometrika 73) over the clusters, times ``G / (G - 1) (n - 1) /
    (n - k)`` for few of them, with ``G - k`` degrees of freedom; None for fewer than six clusters.
    """
    known = ~(np.isnan(x) | np.isnan(y))
    x, y, cluster = x[known], y[known], cluster[known]
    n = len(y)
    if n < 3:
        return None
    has_slope = bool(np.ptp(x) > 1e-9)
    design = np.column_stack([np.ones(n), x]) if has_slope else np.ones((n, 1))
    k = design.shape[1]
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    index = np.unique(cluster, return_inverse=True)[1]
    scores = np.zeros((index.max() + 1, k))
    np.add.at(scores, index, design * (y - design @ coefficients)[:, None])
    n_clusters = len(scores)
    errors: list[MeanError | None] = [None] * k
    if n_clusters >= 6:
        factor = n_clusters / (n_clusters - 1) * (n - 1) / (n - k)
        variance = np.diag(inverse @ scores.T @ scores @ inverse) * factor
        errors = [MeanError(float(np.sqrt(max(v, _TINY))), n_clusters - k) for v in variance]
    slope = (float(coefficients[1]), errors[1]) if has_slope else (None, None)
    return Line(float(coefficients[0]), errors[0], *slope)


def add_false_discovery_rates(tests: Sequence[dict[str, Any]]) -> None:
    """Set the ``q`` of tests from their ``p`` (Benjamini-Hochberg); one without p is not counted and has no q."""
    known = [test for test in tests if test["p"] is not None]
    rates = stats.false_discovery_control([test["p"] for test in known]) if known else ()
    for test in tests:
        test["q"] = None
    for test, q in zip(known, rates):
        test["q"] = rounded(q)


def share_change(a: np.ndarray, b: np.ndarray) -> Change:
    """Return the paired difference of two shares, b - a, with :func:`paired_interval` and McNemar's exact test (1947).

    ``a`` and ``b`` say of each prompt whether it counts, bool ``[N]``.
    """
    gained, lost = int((~a & b).sum()), int((a & ~b).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Change(float(b.mean()) - float(a.mean()), paired_interval(gained, lost, len(a)), p)


def paired_interval(gained: int, lost: int, n: int, level: float = 0.95) -> list[float] | None:
    """Return the score interval of the difference of two shares of ``n`` pairs, of which some gained and some lost.

    A difference lies in it if what was found is within the normal quantile of its standard error under this difference,
    the other share being the likeliest there. Where no pair differs its ends are ``z^2 / (n + z^2)``. With 20 to 100
    pairs that seldom differ it holds the truth in 93 % of samples or more, where that of Agresti and Min 2005 falls to
    86. None without a pair. Source: Tango 1998, Statistics in Medicine 17(8).
    """
    if not n:
        return None
    z, found = float(special.ndtri((1 + level) / 2)), (gained - lost) / n

    def distance(difference: float) -> float:
        b = (2 * n - gained + lost) * difference - gained - lost
        lost_share = (math.sqrt(max(0.0, b * b + 8 * n * lost * difference * (1 - difference))) - b) / (4 * n)
        variance = n * (2 * lost_share + difference * (1 - difference))
        return (gained - lost - n * difference) / math.sqrt(variance) if variance > 0 else math.inf

    def end(sign: int) -> float:
        if found == sign:
            return found
        inside, outside = found + sign * 1e-12, sign * (1 - 1e-12)
        return float(optimize.brentq(lambda x: max(-99.0, min(99.0, sign * distance(x))) + z, inside, outside))

    return [end(-1), end(1)]


def add_holm(tests: Sequence[dict[str, Any]]) -> None:
    """Set the ``p_holm`` of tests from their ``p``: no false finding in all of them, at any level (Holm 1979).

    One without p is not counted and has none.
    """
    known = sorted((test for test in tests if test["p"] is not None), key=lambda test: test["p"])
    for test in tests:
        test["p_holm"] = None
    greatest = 0.0
    for k, test in enumerate(known):
        greatest = max(greatest, min(1.0, (len(known) - k) * test["p"]))
        test["p_holm"] = rounded(greatest)


@overload
def rounded(x: float) -> float: ...
@overload
def rounded(x: float | None) -> float | None: ...
def rounded(x: float | None) -> float | None:
    """Round to what the files hold, six decimals; None stays None."""
    return None if x is None else round(float(x), 6)


def rounded_ends(interval: Sequence[float] | None) -> list[float] | None:
    """Round the ends of an interval to what the files hold."""
    return None if interval is None else [rounded(x) for x in interval]


def share(n_up: int, n: int) -> dict[str, Any] | None:
    """Return a share with its 95 % interval; None of nothing."""
    return {"share": rounded(n_up / n), "ci95": rounded_ends(wilson(n_up / n, n))} if n else None
