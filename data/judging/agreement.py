# SPDX-License-Identifier: MIT
"""How far raters agree beyond chance: Cohen's kappa, macro-F1, accuracy, Krippendorff's alpha, with intervals.

Legend: C classes, R raters, U rated units, B resamples. A table ``[C, C + 1]`` counts truth (rows) against what was
said; its last column counts what could not be used, which agrees with nothing.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

LEVELS = ("nominal", "ordinal", "interval")


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Return the agreement of two raters beyond chance (Cohen 1960); 0 if chance alone would make them agree."""
    n = len(a)
    observed = sum(x == y for x, y in zip(a, b)) / n
    counts = Counter(a), Counter(b)
    chance = sum(counts[0][label] * counts[1][label] for label in counts[0]) / n**2
    return (observed - chance) / (1 - chance) if chance < 1 else 0.0


def describe_agreement(
    truth: Sequence[str], said: Sequence[str | None], classes: Sequence[str], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Compare what a rater says with the truth.

    What is None counts as said wrongly. The interval is the percentile bootstrap over texts (Efron and Tibshirani
    1993, chapter 13); drawing texts with replacement is drawing the cells of their table from a multinomial.

    Args:
        truth: One of ``classes`` for each text.
        said: The same, or None where the answer could not be used.
        classes: All of them, in the order of the tables.
        n_bootstrap: Resamples.
        seed: Of the draws.

    Returns:
        ``n``, ``unparsed``, then ``kappa``, ``macro_f1`` and ``accuracy``, each ``{"estimate", "ci95"}``, ``classes``
        (class to ``n``, ``said``, ``precision``, ``recall``, ``f1``) and ``confusion`` (class to what was said for it).
    """
    table = _table(truth, said, classes)
    drawn = _resample(table, n_bootstrap, seed)
    measures = {"kappa": _kappa, "macro_f1": _macro_f1, "accuracy": _accuracy}
    precision, recall, f1 = _by_class(table)
    names = [*classes, "unparsed"]
    return {
        "n": len(truth),
        "unparsed": int(table[:, -1].sum()),
        **{name: _with_interval(measure, table, drawn) for name, measure in measures.items()},
        "classes": {
            name: {
                "n": int(table[k].sum()),
                "said": int(table[:, k].sum()),
                "precision": _rounded(precision[k]),
                "recall": _rounded(recall[k]),
                "f1": _rounded(f1[k]),
            }
            for k, name in enumerate(classes)
        },
        "confusion": {a: {b: int(n) for b, n in zip(names, table[k]) if n} for k, a in enumerate(classes)},
    }


def reaches_floor(kappa: Mapping[str, Any], floor: float) -> bool:
    """Return the one verdict on a judge: whether the whole interval of its kappa lies at or above the floor.

    The estimate alone would let a judge pass by the luck of a few texts.

    Args:
        kappa: ``estimate`` and ``ci95``, as :func:`describe_agreement` gives them.
        floor: Least kappa.
    """
    low = kappa["ci95"][0] if kappa["ci95"] else kappa["estimate"]
    return low is not None and low >= floor


def krippendorff_alpha(
    ratings: Sequence[Sequence[float | str | None]],
    level: str,
    n_bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Return Krippendorff's alpha of any number of raters, who may leave units out.

    Args:
        ratings: For each rater a value for each unit, None where there is none.
        level: ``nominal``, ``ordinal`` (values are sorted) or ``interval`` (values are numbers).
        n_bootstrap: Resamples of units for the interval; 0 gives none.
        seed: Of the draws.

    Returns:
        ``estimate`` (None if no two ratings of a unit exist, or all ratings are the same), ``ci95``, ``n_units``
        with two or more ratings, ``n_raters``, ``level``.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level}; use one of {LEVELS}")
    values = sorted({value for rater in ratings for value in rater if value is not None})
    place = {value: k for k, value in enumerate(values)}
    counts = np.zeros((len(ratings[0]) if ratings else 0, len(values)))  # [U, C]
    for rater in ratings:
        for u, value in enumerate(rater):
            if value is not None:
                counts[u, place[value]] += 1
    counts = counts[counts.sum(1) > 1]
    # coincidences of a unit: its pairs of ratings by different raters, each rating with a weight of one
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    pairs /= (counts.sum(1) - 1)[:, None, None]
    numbers = np.array(values, dtype=float) if level == "interval" else np.arange(len(values), dtype=float)
    found = {"estimate": None, "ci95": None, "n_units": len(counts), "n_raters": len(ratings), "level": level}
    if not len(counts):
        return found
    estimate = _alpha(pairs.sum(0), level, numbers)
    if np.isnan(estimate):
        return found
    found["estimate"] = _rounded(estimate)
    if n_bootstrap and len(counts) > 1:
        drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), n_bootstrap)
        totals = (drawn @ pairs.reshape(len(counts), -1)).reshape(-1, *pairs.shape[1:])
        found["ci95"] = _percentiles(_alpha(totals, level, numbers))
    return found


def _alpha(coincidences: np.ndarray, level: str, numbers: np.ndarray) -> np.ndarray:
    # coincidences: [..., C, C]
    n_c = coincidences.sum(-1)
    n = n_c.sum(-1)
    if level == "nominal":
        distance = 1 - np.eye(len(numbers))
    elif level == "interval":
        distance = (numbers[:, None] - numbers[None, :]) ** 2
    else:
        # ratings between two values, those at the ends counted half
        middle = np.cumsum(n_c, -1) - n_c / 2
        distance = (middle[..., :, None] - middle[..., None, :]) ** 2
    observed = (coincidences * distance).sum((-1, -2))
    expected = (n_c[..., :, None] * n_c[..., None, :] * distance).sum((-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (n - 1) * observed / expected


def _table(truth: Sequence[str], said: Sequence[str | None], classes: Sequence[str]) -> np.ndarray:
    place = {name: k for k, name in enumerate(classes)} | {None: len(classes)}
    table = np.zeros((len(classes), len(classes) + 1))
    for a, b in zip(truth, said, strict=True):
        table[place[a], place[b]] += 1
    return table


def _resample(table: np.ndarray, n_bootstrap: int, seed: int) -> np.ndarray:
    rng, n = np.random.default_rng(seed), int(table.sum())
    return rng.multinomial(n, table.ravel() / n, n_bootstrap).reshape(-1, *table.shape).astype(float)


def _kappa(table: np.ndarray) -> np.ndarray:
    n = table.sum((-1, -2))
    observed = _accuracy(table)
    chance = (table.sum(-1) * table[..., :-1].sum(-2)).sum(-1) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - chance), 0.0)


def _accuracy(table: np.ndarray) -> np.ndarray:
    return np.trace(table, axis1=-2, axis2=-1) / table.sum((-1, -2))


def _macro_f1(table: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that are true or said at all."""
    f1 = _by_class(table)[2]
    there = ~np.isnan(f1)
    return np.where(there, f1, 0).sum(-1) / there.sum(-1)


def _by_class(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hit, true, said = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table[..., :-1].sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hit / said, hit / true, 2 * hit / (true + said)


def _with_interval(measure: Callable[[np.ndarray], np.ndarray], table: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    return {"estimate": _rounded(measure(table)), "ci95": _percentiles(measure(drawn)) if len(drawn) else None}


def _percentiles(values: np.ndarray) -> list[float] | None:
    values = values[~np.isnan(values)]
    return [_rounded(x) for x in np.quantile(values, [0.025, 0.975])] if len(values) else None


def _rounded(x: float) -> float | None:
    return None if np.isnan(x) else round(float(x), 6)
