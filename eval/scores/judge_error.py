# SPDX-License-Identifier: MIT
"""The error of a judge taken out of shares, means and differences, by a sample of its texts that people have labelled.

A judge reads all N texts of a respondent, people label n of them, drawn at random. Every estimator here is the people's
figure on the n, moved by how far the judge's figure on all N lies from its figure on the n. They differ in how much of
that move they take: nothing (labels alone), all of it, as much as makes the variance least (prediction-powered), or the
inverse of the confusion matrix times it (Rogan and Gladen). People's labels count as the truth.

Legend: N texts, U units (items; all respondents are asked the same), J answers of the judge, C classes of people.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from eval.scores.intervals import rounded

# A judge that errs seldom may show no error among the labelled texts, and an interval would then carry none. So the
# variance of the labelled part counts as many texts more, answered by chance (as Agresti and Min 2005, Statistics in
# Medicine 24, put half a text into each cell of a paired table). Chosen by simulation.
CHANCE_TEXTS = 0.5
# Least singular value of a confusion matrix that is inverted: under it, its inverse is mostly noise.
LEAST_TOLD = 0.1


class Quantity(NamedTuple):
    """What is estimated: sum of amounts / sum of counts; a share has counts of 1, a mean leaves refusals out by 0."""

    judge_amount: np.ndarray  # of what the judge says, [N]
    judge_count: np.ndarray  # [N]
    true_amount: np.ndarray  # of what people say; nan where nobody was asked, [N]
    true_count: np.ndarray  # [N]
    unit: np.ndarray  # index of the item that a text answers, [N]
    n_units: int
    spread: float = 1.0  # greatest less least amount that there could be


class Estimate(NamedTuple):
    """An estimate, and how its error is made up; two that share their units can be subtracted."""

    value: float
    large: np.ndarray  # what each unit adds to the error through the judge's answers, [U]
    labelled: np.ndarray  # what it adds through people's labels, [U]
    chance: float  # variance of :data:`CHANCE_TEXTS`
    n_units: int  # with a text
    n_labelled_units: int  # with a labelled text
    weight: float | None  # how much of the judge's move is taken, 0 to 1; None for a confusion matrix


class Variance(NamedTuple):
    """Variance of an estimate, and its effective degrees of freedom."""

    variance: float
    df: float


def judge_alone(quantity: Quantity) -> Estimate:
    """Return what the judge says, as if it never erred."""
    amount, count = quantity.judge_amount, quantity.judge_count
    n, total = len(amount), count.sum()
    if not total:
        return _nothing(quantity.n_units)
    value = float(amount.sum() / total)
    large = _by_unit(quantity, (amount - value * count) / total, np.ones(n, bool))
    return Estimate(value, large, np.zeros_like(large), 0.0, _n_units(quantity, np.ones(n, bool)), 0, None)


def prediction_powered(quantity: Quantity, weight: float | None = None) -> Estimate:
    """Return the prediction-powered estimate; ``weight`` None takes the one with the least estimated variance.

    The labelled texts are some of the N, so that the weight of least variance is Cov(truth, judge) / Var(judge), here
    over units and for the linearised ratio, kept between 0 and 1.

    Source: Angelopoulos, Duchi and Zrnic 2023, "PPI++" (arXiv 2311.01453), section 6 for the tuned weight; Egami et al.
    2023 (arXiv 2306.04746) for labels that are drawn by design; Cochran 1977, "Sampling Techniques", chapter 7, for the
    regression estimator that both extend.
    """
    q, everyone = quantity, np.ones(len(quantity.unit), bool)
    known = ~np.isnan(q.true_amount)
    n = known.sum()
    if not n or not q.true_count[known].sum():
        return _nothing(quantity.n_units)

    def parts(value: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        judge, true = q.judge_amount - value * q.judge_count, q.true_amount - value * q.true_count
        large = _by_unit(q, (judge - judge.mean()) / len(judge), everyone)
        same = _by_unit(q, (judge - judge[known].mean()) / n, known)
        return large, same, _by_unit(q, (true - true[known].mean()) / n, known)

    if weight is None:
        large, same, labelled = parts(float(q.true_amount[known].sum() / q.true_count[known].sum()))
        move = same - large
        weight = float(np.clip((labelled @ move) / (move @ move), 0, 1)) if move @ move else 0.0

    def total(judge: np.ndarray, true: np.ndarray) -> float:
        return float(true[known].mean() + weight * (judge.mean() - judge[known].mean()))

    count = total(q.judge_count, q.true_count)
    if count <= 0:
        return _nothing(quantity.n_units)
    value = total(q.judge_amount, q.true_amount) / count
    large, same, labelled = parts(value)
    true, judge = ((a - value * c)[known] for a, c in ((q.true_amount, q.true_count), (q.judge_amount, q.judge_count)))
    chance = CHANCE_TEXTS * (true.var() + weight**2 * judge.var()) / (n * count) ** 2
    if not true.var():  # all the same to people: as with two texts more at either end (Agresti and Coull 1998)
        share = 2 / (n + 4)
        chance = q.spread**2 * share * (1 - share) / n
    n_units = _n_units(q, everyone), _n_units(q, known)
    return Estimate(value, weight * large / count, (labelled - weight * same) / count, float(chance), *n_units, weight)


def confusion_corrected(
    said: np.ndarray, true: np.ndarray, amount: np.ndarray, count: np.ndarray, unit: np.ndarray, n_units: int
) -> Estimate:
    """Return the estimate from the judge's confusion matrix: people's shares p that solve ``matrix' p = judge's``.

    ``said`` is the index of the judge's answer, ``[N]``; ``true`` that of people's class, -1 where nobody was asked,
    ``[N]``. ``amount`` and ``count`` of each class, ``[C]``, say what is estimated, as in :class:`Quantity`. With more
    answers than classes (an answer that cannot be read is one) it is solved by least squares. Classes that people never
    said have share 0. The value is nan if the judge does not tell the classes apart, or if nothing that people said
    differs in what is estimated.

    Source: Rogan and Gladen 1978, American Journal of Epidemiology 107(1), for two classes; the delta method for the
    interval.
    """
    known = true >= 0
    classes, answers = np.unique(true[known]), np.unique(said)
    n_known = int(known.sum())
    if not n_known:
        return _nothing(n_units)
    judge = (said[:, None] == answers).astype(float)  # [N, J]
    people = (true[known][:, None] == classes).astype(float)  # [n, C]
    matrix = (people.T @ judge[known]) / people.sum(0)[:, None]  # [C, J], rows add up to 1
    if np.linalg.matrix_rank(matrix, tol=LEAST_TOLD) < len(classes):
        return _nothing(n_units)
    inverse = np.linalg.pinv(matrix.T)  # [C, J]
    solved = inverse @ judge.mean(0)
    amount, count = amount[classes], count[classes]
    total = float(count @ solved)
    if total <= 0:
        return _nothing(n_units)
    value = float(amount @ solved) / total
    of_class = (amount - value * count) / total
    if np.allclose(of_class, 0):
        return _nothing(n_units)
    of_answer = of_class @ inverse  # [J]
    n = len(said)
    large = np.bincount(unit, (judge - judge.mean(0)) @ of_answer / n, n_units)
    errors = people @ of_class - judge[known] @ of_answer
    labelled = np.bincount(unit[known], errors / n_known, n_units)
    chance = CHANCE_TEXTS * ((people @ of_class).var() + (judge[known] @ of_answer).var()) / n_known**2
    n_units_known = len(np.unique(unit[known]))
    return Estimate(value, large, labelled, float(chance), len(np.unique(unit)), n_units_known, None)


def subtract(b: Estimate, a: Estimate) -> Estimate:
    """Return ``b - a`` of two respondents who were asked the same items: what both do in an item cancels."""
    return Estimate(
        b.value - a.value,
        b.large - a.large,
        b.labelled - a.labelled,
        a.chance + b.chance,
        min(a.n_units, b.n_units),
        min(a.n_labelled_units, b.n_labelled_units),
        None,
    )


def variance_of(estimate: Estimate) -> Variance | None:
    """Return the variance over units, which carries both samples; None for fewer than two units, or three labelled.

    The labelled texts are among the N, so the two parts are correlated; what this takes off is at most the part of the
    large sample. Degrees of freedom are Satterthwaite's.
    """
    e, n, k = estimate, estimate.n_units, estimate.n_labelled_units
    if n < 2 or math.isnan(e.value) or (e.labelled.any() and k < 3):
        return None
    large = max(n / (n - 1) * float(e.large @ e.large) + 2 * float(e.large @ e.labelled), 0.0)
    # two degrees of freedom go into the labelled texts' mean and into the weight
    labelled = e.chance + (k / (k - 2) * float(e.labelled @ e.labelled) if k > 2 else 0.0)
    total = large + labelled
    if not total:
        return Variance(0.0, n - 1.0)
    return Variance(total, total**2 / (large**2 / (n - 1) + (labelled**2 / (k - 2) if k > 2 else 0.0)))


def describe_estimate(
    estimate: Estimate, ends: tuple[float, float] | None = None, scale: float = 1.0, shift: float = 0.0
) -> dict[str, Any]:
    """Return ``estimate`` and ``ci95`` of ``scale * value + shift``, cut at the ends of its range; None if unknown."""
    variance = variance_of(estimate)
    if variance is None:
        return {"estimate": None, "ci95": None}
    middle = scale * estimate.value + shift
    half = float(special.stdtrit(variance.df, 0.975)) * math.sqrt(variance.variance) * abs(scale)
    low, high = ends or (-math.inf, math.inf)
    value, *interval = (rounded(min(max(x, low), high)) for x in (middle, middle - half, middle + half))
    return {"estimate": value, "ci95": interval}


def p_of(estimate: Estimate) -> float | None:
    """Return the two-sided p of "the value is 0"; None where the variance is unknown or 0."""
    variance = variance_of(estimate)
    if variance is None or not variance.variance:
        return None
    return 2 * float(special.stdtr(variance.df, -abs(estimate.value) / math.sqrt(variance.variance)))


def _nothing(n_units: int) -> Estimate:
    zeros = np.zeros(n_units)
    return Estimate(math.nan, zeros, zeros, 0.0, 0, 0, None)


def _by_unit(quantity: Quantity, values: np.ndarray, some: np.ndarray) -> np.ndarray:
    return np.bincount(quantity.unit[some], values[some], quantity.n_units)


def _n_units(quantity: Quantity, some: np.ndarray) -> int:
    return len(np.unique(quantity.unit[some]))
