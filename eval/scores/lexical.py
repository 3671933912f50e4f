# SPDX-License-Identifier: MIT
"""What vocabulary alone would show: a model of single words of the training answers, scored on the same pairs.

A tuned model may only have learned which words its answers hold. So beside every change stands the one that such a
model shows, and the change that is left where it shows none.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from eval.scores.intervals import MeanError
from eval.statements.instruments import Pair

# Added to the count of every word (Lidstone's estimate with the Jeffreys-Perks value).
ADDED = 0.5
_WORD = re.compile(r"[a-z']+")
# Residuals whose variance rounding alone could leave.
_TINY = 1e-18


class Line(NamedTuple):
    """A straight line with the standard errors of its ends, robust to clusters; a slope of None: x does not vary."""

    intercept: float
    intercept_error: MeanError | None
    slope: float | None
    slope_error: MeanError | None


def lexical_shifts(pairs: Sequence[Pair], before: Iterable[str], after: Iterable[str]) -> np.ndarray:
    """Return the shift of a model of single words from one set of texts to another on each pair, ``[P]``.

    The mean log-probability a word of the right statement less that of the left one, under the words of ``after``, less
    the same under those of ``before``; in nats a word, as ``pairs`` scores in nats a token. The words are ``[a-z']+``
    in lower case, those of both sets are the vocabulary, and each is counted ``ADDED`` times more.
    """
    counts = [Counter(word for text in texts for word in _words(text)) for texts in (before, after)]
    n_words = len(counts[0] | counts[1])
    if not n_words:
        return np.zeros(len(pairs))
    totals = [count.total() + ADDED * n_words for count in counts]

    def shift(text: str) -> float:
        logs = [
            [np.log((count[word] + ADDED) / total) for word in _words(text)] for count, total in zip(counts, totals)
        ]
        return float(np.mean(logs[1]) - np.mean(logs[0])) if logs[0] else 0.0

    return np.array([shift(pair.right) - shift(pair.left) for pair in pairs])


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


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
