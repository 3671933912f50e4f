# SPDX-License-Identifier: MIT
"""Standard errors by hand, and few simulations; benchmarks/interval_coverage.py runs the full 1,000."""

import importlib.util

import numpy as np
import pytest
from conftest import REPO
from scipy import stats

from eval.scores.intervals import MeanError, mean_error, t_interval, t_p
from eval.scores.scoring import mean_errors

spec = importlib.util.spec_from_file_location("interval_coverage", REPO / "benchmarks" / "interval_coverage.py")
coverage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coverage)


@pytest.mark.parametrize(("df", "quantile"), [(1, 12.706205), (3, 3.182446), (14, 2.144787), (1000, 1.962339)])
def test_students_t_as_in_its_tables(df, quantile):
    assert t_interval(0, MeanError(1.0, df)) == pytest.approx([-quantile, quantile])
    assert t_p(-quantile, MeanError(1.0, df)) == pytest.approx(0.05)


def test_one_factor_is_the_t_interval():
    """1 2 3 4: mean 2.5, variance 5/3, error sqrt(5/12), 3 degrees of freedom."""
    values = np.array([1.0, 2, 3, 4])
    for shape in ((4, 1), (1, 4)):
        error = mean_error(values.reshape(shape), units_first=False)
        assert error == pytest.approx((np.sqrt(5 / 12), 3))
    assert t_interval(2.5, error) == pytest.approx(stats.t.interval(0.95, 3, 2.5, np.sqrt(5 / 12)))


def test_two_factors_by_hand():
    """Templates -3 and 3, orders -1 and 1, no interaction: MS_T 4 * 9, MS_O 4 * 1, MS_TO 0, so (36 + 4) / 4.

    Degrees of freedom (36 + 4)^2 / (36^2 + 4^2).
    """
    values = np.array([[-4.0, -2.0], [2.0, 4.0]])
    assert mean_error(values, units_first=False) == pytest.approx((np.sqrt(10), 1600 / 1312))


def test_effects_that_are_not_told_from_0_are_pooled():
    """Interaction alone (1 -1; -1 1): MS_TO 4, none for templates and orders: sqrt(4 / 4) with 1 degree of freedom."""
    assert mean_error(np.array([[1.0, -1.0], [-1.0, 1.0]]), units_first=False) == pytest.approx((1, 1))


def test_items_add_nothing_when_they_are_fixed():
    """Two couples at -5 and 5, all prompts alike: no doubt about these items, much about others."""
    cells = np.repeat(np.array([-5.0, -5.0, 5.0, 5.0])[:, None, None], 6, axis=1).reshape(4, 3, 2)
    fixed, too = mean_errors(cells, np.array(list("aabb")))
    assert fixed.error == 0
    assert too == pytest.approx((5.0, 1.0))


def test_twins_count_as_one_unit():
    """1 and -1 in every couple: every couple's mean is 0."""
    cells = np.array([1.0, -1.0] * 8)[:, None, None] + np.zeros((16, 2, 2))
    assert mean_errors(cells, np.repeat(np.arange(8), 2))[1].error == 0
    assert mean_errors(cells, np.arange(16))[1].error == pytest.approx(np.sqrt(16 / 15 / 16))


def test_what_has_no_interval():
    one = np.ones((1, 1, 1))
    assert mean_errors(one, np.array(["a"])) == (None, None)
    assert mean_errors(one * np.nan, np.array(["a"])) == (None, None)
    assert t_interval(1.0, None) is None
    assert t_p(1.0, None) is None
    assert t_p(0.0, MeanError(0.0, 3)) == 1
    assert t_p(0.1, MeanError(0.0, 3)) == 0


def test_missing_cells_widen_the_error():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(8, 6, 4))
    full = mean_errors(cells, np.arange(8))[1].error
    cells[:, ::2] = np.nan
    assert mean_errors(cells, np.arange(8))[1].error > 1.1 * full


@pytest.mark.parametrize("scenario", ["items differ", "all matter"])
def test_intervals_cover(scenario):
    """300 simulations: 95 % +- 3.8 (three standard errors); a planted lean is found."""
    shares = coverage.simulate(scenario, "10 templates x 8 orders", 300, n_bootstrap=0)
    assert 0.912 <= shares["fixed"] <= 0.988
    assert 0.912 <= shares["too"] <= 0.988
    assert 0.012 <= shares["false_positives"] <= 0.088
    assert abs(shares["lean"]) < 0.05
