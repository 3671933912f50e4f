# SPDX-License-Identifier: MIT
"""What vocabulary alone would show, and what is left without it."""

import math

import numpy as np
import pytest

from data.datasets import SHIPPED_SET
from data.pairs.rows import read_table
from eval.scores.intervals import fit_line
from eval.scores.rivals import lexical_shifts
from eval.statements.instruments import Pair, load_instrument

ROWS = read_table(SHIPPED_SET)


def test_the_shift_of_a_model_of_words_by_hand():
    """Vocabulary a, b, c; before: a twice, b; after: b, c. p(a) 2.5/4.5 to .5/3.5, p(c) .5/4.5 to 1.5/3.5."""
    pair = Pair("p", "t", left="A a", right="c A")
    a, c = (math.log(new / old) for new, old in ((0.5 / 3.5, 2.5 / 4.5), (1.5 / 3.5, 0.5 / 4.5)))
    assert lexical_shifts([pair], ["a A", "b"], ["b c"]) == pytest.approx([(c + a) / 2 - a])
    assert lexical_shifts([pair], [], []) == [0]


def test_the_published_shift_of_the_shipped_answers():
    """A methodological review published .0860 with t 4.29 on the 60 political pairs of compass60."""
    pairs = [pair for pair in load_instrument("compass60").pairs if pair.axis != "placebo"]
    shifts = lexical_shifts(pairs, [row["left"] for row in ROWS], [row["right"] for row in ROWS])
    assert len(ROWS) == 160
    assert shifts.mean() == pytest.approx(0.0860, abs=5e-5)
    assert shifts.mean() / (shifts.std(ddof=1) / math.sqrt(60)) == pytest.approx(4.29, abs=0.005)


def test_a_line_by_hand():
    """Six clusters of one: the errors are HC1, ``n / (n - 2)`` times White's."""
    x, y = np.arange(6.0), np.array([1.0, 3, 4, 8, 9, 10])
    line = fit_line(x, y, np.arange(6))
    slope, intercept = np.polyfit(x, y, 1)
    assert (line.intercept, line.slope) == pytest.approx((intercept, slope))
    residuals, from_mean = y - intercept - slope * x, x - x.mean()
    expected = math.sqrt(6 / 4 * (from_mean**2 * residuals**2).sum()) / (from_mean**2).sum()
    assert line.slope_error.error == pytest.approx(expected)
    assert line.slope_error.df == 4


def test_a_line_on_what_does_not_vary_is_the_mean():
    line = fit_line(np.zeros(8), np.arange(8.0), np.arange(8))
    assert (line.intercept, line.slope) == (3.5, None)
    assert line.intercept_error.error == pytest.approx(np.std(np.arange(8), ddof=1) / math.sqrt(8))
    assert fit_line(np.zeros(4), np.array([1, 2, np.nan, np.nan]), np.arange(4)) is None


@pytest.mark.parametrize("per_cluster", [1, 5])
def test_intervals_of_a_line_hold_the_truth(per_cluster):
    """40 clusters that move together: 95 % of the intervals of the intercept hold it, and of the slope."""
    rng, cluster = np.random.default_rng(0), np.repeat(np.arange(40), per_cluster)
    held = np.zeros(2)
    for _ in range(400):
        x = rng.normal(0.5, 1, len(cluster))
        y = 0.3 + 0.8 * x + rng.normal(size=40)[cluster] * 0.5 + rng.normal(size=len(cluster))
        line = fit_line(x, y, cluster)
        ends = ((line.intercept, line.intercept_error, 0.3), (line.slope, line.slope_error, 0.8))
        held += [abs(found - truth) < 2.02 * error.error for found, error, truth in ends]
    assert (held / 400 > 0.92).all()
    assert (held / 400 < 0.98).all()
