# SPDX-License-Identifier: MIT
"""How far raters agree beyond chance: Cohen's kappa, macro-F1, accuracy, Krippendorff's alpha, with intervals.

Legend: C classes, U rated units. A table ``[..., C, C + 1]`` counts the true classes (rows) against a rater's; its last
column counts answers that could not be used, which agree with nothing. Texts are resampled by drawing the cells of
their table from a multinomial, which ``eval/scores/intervals.py`` cannot share: it draws means of whole units.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from data.judging.scales import JudgeScale

LEVELS = ("nominal", "ordinal", "interval")
NO_VARIATION = "no variation: both said one class alone, so agreement beyond chance is not defined; see the accuracy"


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float | None:
    """Return the agreement of two raters beyond chance (Cohen 1960); None if they could not have disagreed."""
    return _rounded(_kappa(_count(a, b, list(dict.fromkeys([*a, *b])))))


def describe_agreement(
    truth: Sequence[str], answers: Sequence[str | None], classes: Sequence[str], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Compare a rater's answers with the truth; an answer that is None could not be used, and counts as a wrong one.

    Kappa, macro-F1 and accuracy are ``{"estimate", "ci95"}``, the interval being the percentile bootstrap over texts
    (Efron and Tibshirani 1993, chapter 13). Where the two agree on every text a resample does too; then accuracy has
    Clopper and Pearson's exact interval, kappa that of the accuracy with the same margins, and macro-F1 none. Where
    both said one class alone, kappa is None, and ``note`` says so. ``confusion`` has for each class the answers to its
    texts.
    """
    table = _count(truth, answers, classes)
    n = int(table.sum())
    resamples = np.random.default_rng(seed).multinomial(n, table.ravel() / n, n_bootstrap)
    tables = resamples.reshape(-1, *table.shape).astype(float)
    figures: dict[str, Any] = {"n": n, "unparsed": int(table[:, -1].sum())}
    agrees = bool(_accuracy(table) == 1)
    for name, measure in (("kappa", _kappa), ("macro_f1", _macro_f1), ("accuracy", _accuracy)):
        estimate = _rounded(measure(table))
        ci95 = _perfect_ends(name, table) if agrees else _percentiles(measure(tables))
        figures[name] = {"estimate": estimate, "ci95": ci95 if n_bootstrap and estimate is not None else None}
    figures["note"] = NO_VARIATION if figures["kappa"]["estimate"] is None else None
    shares = np.transpose(_by_class(table))  # [C, 3]
    figures["classes"] = {
        name: {"n": int(table[k].sum()), "said": int(table[:, k].sum())}
        | dict(zip(("precision", "recall", "f1"), map(_rounded, shares[k])))
        for k, name in enumerate(classes)
    }
    names = [*classes, "unparsed"]
    figures["confusion"] = {a: {b: int(x) for b, x in zip(names, row) if x} for a, row in zip(classes, table)}
    return figures


def describe_panel(
    labels: Mapping[str, Sequence[str | None]], scale: JudgeScale, n_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Return the agreement of two raters or more, judges and people alike; None for fewer than two.

    ``labels`` has the label or class of each text by rater. A gap (None) is no disagreement: ``kappa`` compares every
    two on the texts that both have rated, and ``agreement`` is the share of these on which they agree. ``alpha`` is
    Krippendorff's of the classes (nominal), ``alpha_values`` that of the five steps without refusals (ordinal) or of
    the lean (interval).
    """
    if len(labels) < 2:
        return None
    classes = {name: [None if x is None else scale.class_of(x) for x in given] for name, given in labels.items()}
    kappas = []
    for a, b in itertools.combinations(classes, 2):
        both = [(x, y) for x, y in zip(classes[a], classes[b]) if x is not None and y is not None]
        kappa, agreement = {"estimate": None, "ci95": None}, None
        if both:
            truth, answers = [x for x, _ in both], [y for _, y in both]
            figures = describe_agreement(truth, answers, scale.classes, n_bootstrap, seed)
            kappa, agreement = figures["kappa"], figures["accuracy"]["estimate"]
        kappas.append({"a": a, "b": b, "n": len(both), "agreement": agreement, **kappa})
    # people may name a side of the lean instead of a number: that is no value
    values = [[scale.value(x) if x and x in scale.labels else None for x in given] for given in labels.values()]
    level = "interval" if scale.name == "lean" else "ordinal"
    numbered = [given for given in values if any(x is not None for x in given)]
    return {
        "kappa": kappas,
        "alpha": krippendorff_alpha(list(classes.values()), "nominal", n_bootstrap, seed),
        "alpha_values": krippendorff_alpha(numbered, level, n_bootstrap, seed),
    }


def krippendorff_alpha(
    ratings: Sequence[Sequence[float | str | None]], level: str, n_bootstrap: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Return Krippendorff's alpha of raters who may leave units out (None), with an interval over units.

    The estimate is None if no two ratings of a unit exist, or all are the same; ``n_units`` counts the units with two
    or more. Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level}; use one of {LEVELS}")
    units = list(zip(*ratings, strict=True))
    values: list[Any] = sorted({value for unit in units for value in unit if value is not None})
    counts = np.array([[unit.count(value) for value in values] for unit in units], dtype=float)
    counts = counts.reshape(len(units), len(values))  # [U, C], also where there are none
    counts = counts[counts.sum(1) > 1]
    n_units = len(counts)
    # coincidences of a unit: its pairs of ratings by different raters, each rating with a weight of one
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    pairs /= (counts.sum(1) - 1)[:, None, None]
    numbers = np.array(values if level == "interval" else range(len(values)), dtype=float)
    estimate = _rounded(_alpha(pairs.sum(0), level, numbers))
    ci95 = None
    # units that all agree have resamples that all agree: no interval of width 0
    if estimate is not None and estimate < 1 and n_bootstrap and n_units > 1:
        drawn = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), n_bootstrap)
        totals = (drawn @ pairs.reshape(n_units, -1)).reshape(-1, *pairs.shape[1:])
        ci95 = _percentiles(_alpha(totals, level, numbers))
    return {"estimate": estimate, "ci95": ci95, "n_units": n_units, "n_raters": len(ratings), "level": level}


def _alpha(coincidences: np.ndarray, level: str, numbers: np.ndarray) -> np.ndarray:
    """Return alpha of coincidences ``[..., C, C]``; nan if nobody could have disagreed."""
    n_c = coincidences.sum(-1)
    n = n_c.sum(-1)
    # ordinal: ratings between two values, those at the ends counted half
    places = np.cumsum(n_c, -1) - n_c / 2 if level == "ordinal" else numbers
    distance = (places[..., :, None] - places[..., None, :]) ** 2
    if level == "nominal":
        distance = 1 - np.eye(len(numbers))
    observed = (coincidences * distance).sum((-1, -2))
    expected = (n_c[..., :, None] * n_c[..., None, :] * distance).sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (n - 1) * observed / expected


def _count(truth: Sequence[Hashable], answers: Sequence[Hashable], classes: Sequence[Hashable]) -> np.ndarray:
    place = {name: k for k, name in enumerate([*classes, None])}
    table = np.zeros((len(classes), len(classes) + 1))
    for a, b in zip(truth, answers, strict=True):
        table[place[a], place[b]] += 1
    return table


def _kappa(table: np.ndarray) -> np.ndarray:
    observed = _accuracy(table)
    chance = (table.sum(-1) * table[..., :-1].sum(-2)).sum(-1) / table.sum((-1, -2)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def _perfect_ends(name: str, table: np.ndarray) -> list[float | None] | None:
    """Return the interval of a measure where no answer was wrong: a resample would have none either."""
    low = 0.025 ** (1 / table.sum())
    if name == "kappa":
        chance = float((table.sum(-1) * table[..., :-1].sum(-2)).sum() / table.sum() ** 2)
        low = (low - chance) / (1 - chance) if chance < 1 else math.nan
    return None if name == "macro_f1" else [_rounded(low), 1.0]


def _accuracy(table: np.ndarray) -> np.ndarray:
    return np.trace(table, axis1=-2, axis2=-1) / table.sum((-1, -2))


def _macro_f1(table: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the classes that occur in the truth or in the answers."""
    f1 = _by_class(table)[2]
    return np.nansum(f1, -1) / (~np.isnan(f1)).sum(-1)


def _by_class(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of each class; nan where a class does not occur."""
    hits, n_true, n_answered = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table[..., :-1].sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / n_answered, hits / n_true, 2 * hits / (n_true + n_answered)


def _percentiles(values: np.ndarray) -> list[float | None] | None:
    values = values[~np.isnan(values)]
    return [_rounded(x) for x in np.quantile(values, [0.025, 0.975])] if len(values) else None


def _rounded(x: float | np.ndarray) -> float | None:
    return None if np.isnan(x) else round(float(x), 6)
