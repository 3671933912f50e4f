# SPDX-License-Identifier: MIT
"""The shape of a lean: does it differ between topics, lie on one side, have two humps; and which topics follow one.

Two models of one mean can differ in all of this: one leans a little on everything, the other far to both sides.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from data.pairs.records import SIDES
from eval.scores.crossed import item_means, one_way
from eval.scores.intervals import MeanError, nan_mean, rounded, rounded_ends, share, t_interval, unit_interval
from eval.scores.places import Groups
from eval.scores.scoring import Values

# With fewer units even two equal humps do not reach the 5/9 of a uniform distribution: nine have .525, ten .566.
LEAST_HUMPS = 10

ByScore = Mapping[tuple[str, str], Mapping[str, Values]]


def describe_shapes(values: ByScore, placebo: set[str], n_bootstrap: int, seed: int) -> list[dict[str, Any]]:
    """Describe the lean of each model: over all pairs, and in modes with options on each political axis.

    Args:
        values: Name and mode to axis to values; 0 is the middle between both sides.
        placebo: Axes that are not political.
        n_bootstrap: Resamples of an interval.
        seed: Of the resamples.

    Returns:
        ``topics``: see :func:`spread`. ``own_side``: share of the units (couples of twins, or items) that lie on the
        side of the model's mean, below half where a few far units carry the mean. ``couples``: share of the couples of
        twins whose two statements put the model on one side. ``bimodality``: see :func:`bimodality`. None where the
        data are too few.
    """
    described = []
    for (name, mode), axes in values.items():
        for axis, v in axes.items():
            if axis in placebo or (mode == "pairs" and axis != "lean"):
                continue
            means = item_means(v.cells)
            used = ~v.incomplete(means)
            means, units, first, index = means[used], *np.unique(v.unit[used], return_index=True, return_inverse=True)
            leans = abs(v.scale) * np.bincount(index, means) / np.bincount(index) if len(units) else means
            sides = np.sign(means)
            # a pair that is said twice is no couple
            couples = [sides[index == k] for k in range(len(units)) if (index == k).sum() == 2 and mode != "pairs"]
            own = int((np.sign(leans) == np.sign(leans.mean())).sum()) if len(leans) else 0
            described.append(
                {
                    "model": name,
                    "mode": mode,
                    "axis": axis,
                    "n_units": len(leans),
                    "topics": spread(leans, v.topic[used][first]),
                    "own_side": share(own, len(leans)),
                    "couples": share(sum(a == b for a, b in couples), len(couples)),
                    "bimodality": bimodality(leans, n_bootstrap, seed),
                }
            )
    return described


def spread(leans: np.ndarray, topic: np.ndarray) -> dict[str, Any] | None:
    """Return how far topics differ in their lean: the standard deviation of their means, less sampling error.

    With the mean squares between and within topics, ``sqrt((MSB - MSW) / n)``, 0 where MSB is the smaller; ``n`` is the
    mean size of a topic (:func:`~eval.scores.crossed.one_way`). The interval is that of Williams 1962 (Biometrika 49)
    and Tukey 1951; it holds the truth 95 % of the time or more where topics are normal and of equal size. None without
    two topics of which one has two units, or where all units of a topic are alike.

    Args:
        leans: Of each unit, ``[U]``.
        topic: Name of its topic, ``[U]``.
    """
    found = one_way(leans, topic)
    if found is None or found.within <= 0:
        return None
    variances = [(found.between - found.within) / found.size]
    for p in (0.975, 0.025):
        excess = found.df[0] * (found.between - found.within * float(special.fdtri(*found.df, p)))
        variances.append(excess / (found.size * float(special.chdtri(found.df[0], 1 - p))))
    sd, *ends = (rounded(math.sqrt(max(0.0, variance))) for variance in variances)
    return {"sd": sd, "ci95": ends, "n_topics": found.df[0] + 1}


def bimodality(leans: np.ndarray, n_bootstrap: int, seed: int) -> dict[str, Any] | None:
    """Return Sarle's coefficient with a bootstrap interval over units; a uniform distribution has 5/9, a normal 1/3.

    ``(g^2 + 1) / (k + 3 (n - 1)^2 / ((n - 2) (n - 3)))`` with the unbiased skewness ``g`` and excess kurtosis ``k``
    (SAS/STAT User's Guide 1990; Pfister et al. 2013, Frontiers in Psychology 4). A large value also comes from one long
    tail: it is a hint, and no test. None with fewer than ``LEAST_HUMPS`` units, or if all are alike.
    """
    n = len(leans)
    if n < LEAST_HUMPS or np.ptp(leans) < 1e-9:
        return None
    z = (leans - leans.mean()) / leans.std()

    def coefficient(moments: np.ndarray) -> np.ndarray:
        m1, m2, m3, m4 = np.moveaxis(moments, -1, 0)
        variance = m2 - m1**2
        variance = np.where(variance > 1e-6, variance, np.nan)  # of a resample that drew one unit alone there is none
        skew = (m3 - 3 * m1 * m2 + 2 * m1**3) / variance**1.5
        kurtosis = (m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4) / variance**2 - 3
        g = skew * math.sqrt(n * (n - 1)) / (n - 2)
        k = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * kurtosis + 6)
        return (g**2 + 1) / (k + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))

    powers = z[:, None] ** np.arange(1, 5)
    interval = unit_interval(powers, np.arange(n), coefficient, n_bootstrap, seed)
    return {"estimate": rounded(float(coefficient(powers.mean(0)))), "ci95": rounded_ends(interval)}


class Ratio(NamedTuple):
    """A ratio of two paired means with its 95 % interval; None where the denominator is not told from 0."""

    estimate: float
    ci95: list[float] | None


def fieller(top: MeanError, bottom: MeanError, covariance: float, means: tuple[float, float]) -> Ratio:
    """Return ``means[0] / means[1]`` with Fieller's interval (1954, Journal of the Royal Statistical Society B 16).

    Args:
        top: Standard error of the first mean.
        bottom: That of the second, with the same degrees of freedom.
        covariance: Of both means.
        means: Both.
    """
    a, b = means
    t2 = float(special.stdtrit(bottom.df, 0.975)) ** 2
    quadratic = b * b - t2 * bottom.error**2
    if quadratic <= 0:
        return Ratio(a / b, None)
    linear, constant = a * b - t2 * covariance, a * a - t2 * top.error**2
    root = math.sqrt(max(0.0, linear**2 - quadratic * constant))
    return Ratio(a / b, [(linear - root) / quadratic, (linear + root) / quadratic])


def tuned_axis(run: str) -> str:
    """Return the axis of the pairs that a run of a study is tuned on, by its name, AXIS-SIDE."""
    return run.rpartition("-")[0]


def describe_transfer(groups: Groups, values: ByScore) -> list[dict[str, Any]]:
    """Return, for each side of a study that tunes on single axes, how far the other axes follow.

    Runs are named by the axis that they are tuned on and the side: ``crime-left``. Each pair of statements has the
    change of the run of its own axis (*on*), and the mean change of the runs of the other axes (*off*), so both are
    paired; axes count alike. The intervals speak of other pairs on these axes, and of these adapters alone, neither of
    other axes nor of other seeds.

    Returns:
        For each side and mode: ``runs``, ``on`` and ``off`` with ``estimate`` and ``ci95`` (positive: towards the
        high end), ``ratio`` of off to on, and ``signs``: how many runs moved their own axis to their side (``on``), and
        how many of the other axes of all runs went with them (``off``), each of how many.
    """
    found = []
    modes = [mode for name, mode in values if name == groups.base]
    for side, mode in itertools.product(SIDES, modes):
        axes = values[groups.base, mode]
        runs = {tuned_axis(run): run for run in groups.seeds if run.endswith(f"-{side}") and tuned_axis(run) in axes}
        names = {axis: list(groups.seeds[run].values()) for axis, run in runs.items()}
        if len(runs) < 2 or any((name, mode) not in values for some in names.values() for name in some):
            continue
        # change of each pair of an axis under each run, [runs, pairs]
        changes = {
            axis: np.stack([_change([values[n, mode][axis] for n in some], axes[axis]) for some in names.values()])
            for axis in runs
        }
        own = {axis: k for k, axis in enumerate(runs)}
        on = [by_run[own[axis]] for axis, by_run in changes.items()]
        off = [np.delete(by_run, own[axis], axis=0).mean(0) for axis, by_run in changes.items()]
        sign = -1 if side == SIDES[0] else 1
        shifts = np.array([[nan_mean(by_run[k]) for by_run in changes.values()] for k in own.values()])  # [runs, axes]
        is_own = np.eye(len(runs), dtype=bool)
        found.append(
            {
                "side": side,
                "mode": mode,
                "runs": list(runs.values()),
                **_on_and_off(on, off),
                "signs": {
                    key: [int((sign * shifts[mask] > 0).sum()), int(mask.sum())]
                    for key, mask in (("on", is_own), ("off", ~is_own))
                },
            }
        )
    return found


def _change(tuned: list[Values], base: Values) -> np.ndarray:
    """Return the mean change of each item over seeds and prompts, on the scale of the axis, ``[I]``."""
    return base.scale * nan_mean(np.stack([item_means(v.cells - base.cells) for v in tuned]), 0)


def _on_and_off(on: list[np.ndarray], off: list[np.ndarray]) -> dict[str, Any]:
    """Return both means over axes that count alike, and their ratio; of each axis its pairs are the sample."""
    both = [np.stack(pair)[:, ~np.isnan(sum(pair))] for pair in zip(on, off)]  # [2, pairs] of each axis
    means = np.mean([pair.mean(1) for pair in both], axis=0)
    if min(pair.shape[1] for pair in both) < 2:
        return {"on": None, "off": None, "ratio": None}
    covariance = sum(np.cov(pair) / pair.shape[1] for pair in both) / len(both) ** 2
    df = float(sum(pair.shape[1] - 1 for pair in both))
    errors = [MeanError(math.sqrt(covariance[k, k]), df) for k in range(2)]
    described: dict[str, Any] = {
        key: {"estimate": rounded(mean), "ci95": rounded_ends(t_interval(mean, error))}
        for key, mean, error in zip(("on", "off"), means, errors)
    }
    if means[0] == 0:
        return {**described, "ratio": None}
    ratio = fieller(errors[1], errors[0], float(covariance[0, 1]), (float(means[1]), float(means[0])))
    return {**described, "ratio": {"estimate": rounded(ratio.estimate), "ci95": rounded_ends(ratio.ci95)}}
