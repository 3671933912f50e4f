# SPDX-License-Identifier: MIT
"""Intervals of means, by the variances of crossed factors or by a bootstrap over units, and false discovery rates.

A coordinate is a mean over items, templates and orders that are crossed: every item is asked in every
template and order. Its variance is the sum of what each of them and their interactions add, and with few
templates the variance itself is known badly; both go into the interval. Percentiles of a crossed bootstrap
do neither: over 1,000 simulations they cover between 65 and 100 % (``benchmarks/interval_coverage.py``).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from scipy import special, stats

# A factor's mean square must exceed its expectation without an effect by this many times 1 / sqrt(df) to count
# (near the 25 % point of F, as Bancroft 1964, Biometrics 20, advises for pooling). Chosen by simulation.
POOLING = 1.5
# Values held at once by the resampling loop; bounds its memory, does not change the draws.
BLOCK = 1_000_000


class MeanError(NamedTuple):
    """Standard error of a mean with its effective degrees of freedom."""

    error: float
    df: float


def mean_error(values: np.ndarray, units_first: bool) -> MeanError | None:
    """Return the standard error of the mean of crossed values, or None if no factor has two levels.

    Each axis of ``values`` (no nan) is a random factor. The excess of an effect ``S`` over what its interactions
    explain is ``sum over R containing S of (-1)^(|R| - |S|) MS_R``. Added up are the mean square of the units (items
    or couples of twins, on the first axis) and the excess of effects without units; where there are none, the residual
    mean square and the excess of all effects. An effect that is not told from 0 is pooled.

    Source: Satterthwaite 1946, Biometrics Bulletin 2(6), for degrees of freedom; Cornfield and Tukey 1956, Ann. Math.
    Stat. 27, for the expected mean squares; Bancroft 1964 for pooling.
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
    return MeanError(math.sqrt(variance / values.size), variance**2 / sum(x * x / d for x, d in terms))


def _mean_squares(values: np.ndarray) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], int]]:
    """Return mean square and degrees of freedom of every effect, by the axes that it spans."""
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
    half = float(special.stdtrit(error.df, 0.975)) * error.error * abs(scale)
    return [center - half, center + half]


def t_p(center: float, error: MeanError | None) -> float | None:
    """Return the two-sided p of "the mean is 0"."""
    if error is None:
        return None
    if error.error == 0:
        return 1.0 if center == 0 else 0.0
    return 2 * float(special.stdtr(error.df, -abs(center) / error.error))


def unit_interval(
    values: np.ndarray,
    unit: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    n_bootstrap: int,
    seed: int,
) -> list[float] | None:
    """Return the 95 % bootstrap interval of a statistic of means, whole units drawn; None for fewer than two.

    ``values`` has a row an item, ``[I, D]``, ``unit`` the name of what was sampled as one (a couple of twins states one
    proposition twice), ``[I]``; ``statistic`` maps means ``[..., D]`` to ``[...]``. Percentiles are expanded to what
    Student's t with n - 1 degrees of freedom asks for: with some 15 units they are else about 10 % too close (the
    expanded percentile interval of Hesterberg 2015, The American Statistician 69(4), section 5.3).
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
    return [float(x) for x in np.quantile(np.concatenate(resampled), [tail, 1 - tail])]


def add_false_discovery_rates(tests: Sequence[dict[str, Any]]) -> None:
    """Set the ``q`` of tests from their ``p`` (Benjamini-Hochberg); one without p is not counted and has no q."""
    known = [test for test in tests if test["p"] is not None]
    rates = stats.false_discovery_control([test["p"] for test in known]) if known else ()
    for test in tests:
        test["q"] = None
    for test, q in zip(known, rates):
        test["q"] = rounded(q)


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
