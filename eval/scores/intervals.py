# SPDX-License-Identifier: MIT
"""Intervals of means over crossed factors (items, templates, orders), and Student's t; numpy only.

A coordinate is a mean over items, templates and orders that are crossed: every item is asked in every
template and order. Its variance is the sum of what each of them and their interactions add, and with few
templates the variance itself is known badly; both go into the interval. Percentiles of a crossed bootstrap
do neither: over 1,000 simulations they cover between 65 and 100 % (``benchmarks/interval_coverage.py``).
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

# A factor's mean square must exceed its expectation without an effect by this many times 1 / sqrt(df) to count
# (near the 25 % point of F, as Bancroft 1964, Biometrics 20, advises for pooling). Chosen by simulation.
POOLING = 1.5
# Points of the integral of Student's t.
GRID = 4001


class MeanError(NamedTuple):
    """Standard error of a mean with its effective degrees of freedom."""

    error: float
    df: float


def mean_error(values: np.ndarray, units_first: bool) -> MeanError | None:
    """Return the standard error of the mean of crossed values, or None if no factor has two levels.

    Each axis is a random factor. Mean squares come from the analysis of variance; the excess of an effect
    ``S`` over what its interactions explain is ``sum over R containing S of (-1)^(|R| - |S|) MS_R``.
    Added up are the mean square of the units and the excess of effects without units; where there are none,
    the residual mean square and the excess of all effects. An effect that is not told from 0 is pooled. Degrees
    of freedom by Satterthwaite.

    Source: Satterthwaite 1946, Biometrics Bulletin 2(6); Cornfield and Tukey 1956, Ann. Math. Stat. 27, for
    the expected mean squares; Bancroft 1964 for pooling.

    Args:
        values: One to four crossed factors, no nan.
        units_first: Whether the first axis is units (items or couples of twins), which always count.
    """
    units_first = units_first and values.shape[0] > 1
    values = values.squeeze()
    if not values.ndim:
        return None
    squares, df = _mean_squares(values)
    excess = {s: sum((-1) ** (len(r) - len(s)) * squares[r] for r in squares if set(s) <= set(r)) for s in squares}
    kept = {
        s: x for s, x in excess.items() if x > 0 and squares[s] > (1 + POOLING / math.sqrt(df[s])) * (squares[s] - x)
    }
    # without units everything is measured against the scatter that is left when all effects are taken away
    first = (0,) if units_first else tuple(range(values.ndim))
    others = [s for s in kept if (not set(s) & set(first) if units_first else s != first)]
    terms = [(squares[first], df[first])] + [(kept[s], df[s]) for s in others]
    variance = sum(x for x, _ in terms)
    if variance <= 0:
        return MeanError(0.0, float(df[first]))
    error = math.sqrt(variance / values.size)
    return MeanError(error, variance**2 / sum(x * x / d for x, d in terms))


def _mean_squares(values: np.ndarray) -> tuple[dict[tuple, float], dict[tuple, int]]:
    """Mean square and degrees of freedom of every effect, by the axes that it spans."""
    axes = range(values.ndim)
    spans = [s for size in range(values.ndim + 1) for s in itertools.combinations(axes, size)]
    means = {s: values.mean(tuple(k for k in axes if k not in s), keepdims=True) for s in spans}
    squares, df = {}, {}
    for s in spans[1:]:
        effect = sum((-1) ** (len(s) - len(r)) * means[r] for r in spans if set(r) <= set(s))
        df[s] = math.prod(values.shape[k] - 1 for k in s)
        squares[s] = float((effect**2).sum()) * values.size / effect.size / df[s]
    return squares, df


def t_interval(center: float, error: MeanError | None, scale: float = 1.0) -> list[float] | None:
    """Return the 95 % interval of ``center``, whose standard error is ``scale`` times the given one."""
    if error is None:
        return None
    half = t_quantile(error.df) * error.error * abs(scale)
    return [center - half, center + half]


def t_quantile(df: float, level: float = 0.95) -> float:
    """Return x with ``P(|t| <= x) = level`` for Student's t with ``df`` degrees of freedom, also fractional."""
    angles, share = _t_shares(df)
    return math.sqrt(_bounded(df)) * math.tan(np.interp(level, share, angles))


def t_p(center: float, error: MeanError | None) -> float | None:
    """Return the two-sided p of "the mean is 0"."""
    if error is None:
        return None
    if error.error == 0:
        return 1.0 if center == 0 else 0.0
    angles, share = _t_shares(error.df)
    angle = math.atan(abs(center) / error.error / math.sqrt(_bounded(error.df)))
    return float(1 - np.interp(angle, angles, share))


def _bounded(df: float) -> float:
    return min(max(df, 1.0), 1e4)


def _t_shares(df: float) -> tuple[np.ndarray, np.ndarray]:
    """``P(|t| <= sqrt(df) tan(angle))``: the density in the angle is proportional to ``cos(angle)^(df - 1)``."""
    angles = np.linspace(0, math.pi / 2, GRID)
    density = np.cos(angles) ** (_bounded(df) - 1)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return angles, share / share[-1]
