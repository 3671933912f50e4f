# SPDX-License-Identifier: MIT
"""Standard errors of crossed tables by hand, and against the analysis of variance of complete ones."""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from eval.scores.crossed import (
    combine,
    effective_size,
    item_means,
    mean_error,
    mean_errors,
    mean_squares,
    topic_correlation,
    variance_table,
)
from eval.scores.intervals import t_interval


def analysis_of_variance(values):
    """Return every mean square of a complete table, divided by its number of cells: the plain way."""
    axes = range(values.ndim)
    spans = [s for size in range(values.ndim + 1) for s in itertools.combinations(axes, size)]
    means = {s: values.mean(tuple(k for k in axes if k not in s), keepdims=True) for s in spans}
    squares = {}
    for s in spans[1:]:
        effect = sum((-1) ** (len(s) - len(r)) * means[r] for r in spans if set(r) <= set(s))
        squares[s] = (effect**2).sum() / effect.size / math.prod(values.shape[k] - 1 for k in s)
    return squares


def test_a_complete_table_has_the_mean_squares_of_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    for shape in ((5, 4, 3), (6, 7), (4, 3, 2, 5)):
        values = rng.normal(size=shape) + rng.normal(size=(shape[0], *[1] * (len(shape) - 1)))
        squares, df = mean_squares(values - values.mean(), np.full(shape, 1 / values.size))
        assert squares == pytest.approx(analysis_of_variance(values))
        assert df == {s: math.prod(shape[k] - 1 for k in s) for s in squares}


def test_variances_of_a_table_with_gaps_are_not_biased():
    """Half of 96 cells missing: the mean over 2,000 tables is what the complete table expects, but for 5 %."""
    rng = np.random.default_rng(1)
    sums: dict = {}
    for _ in range(2000):
        values = rng.normal(size=(12, 1)) + 0.5 * rng.normal(size=(1, 8)) + 0.7 * rng.normal(size=(12, 8))
        known = rng.random(values.shape) < 0.5
        weights = known / known.sum()
        squares, _ = mean_squares(np.where(known, values - values[known].mean(), 0), weights)
        share = {(0,): (weights.sum(1) ** 2).sum(), (1,): (weights.sum(0) ** 2).sum(), (0, 1): (weights**2).sum()}
        for s, square in squares.items():
            others = 0 if s == (0, 1) else squares[0, 1]
            sums.setdefault(s, []).append((square - others) / share[s])
    assert np.mean(sums[0,]) == pytest.approx(1, rel=0.06)
    assert np.mean(sums[1,]) == pytest.approx(0.25, rel=0.08)
    assert np.mean(sums[0, 1]) == pytest.approx(0.49, rel=0.06)


def test_one_factor_is_the_t_interval():
    """1 2 3 4: mean 2.5, variance 5/3, error sqrt(5/12), 3 degrees of freedom."""
    values = np.array([1.0, 2, 3, 4])
    for shape in ((4, 1), (1, 4)):
        error = mean_error(values.reshape(shape))
        assert error == pytest.approx((np.sqrt(5 / 12), 3))
    assert t_interval(2.5, error) == pytest.approx(stats.t.interval(0.95, 3, 2.5, np.sqrt(5 / 12)))
    assert mean_error(np.array([1.0, np.nan, 2, 3, 4])) == pytest.approx(error)
    assert mean_error(np.array([1.0])) is mean_error(np.ones(5)) is None


def test_two_factors_by_hand():
    """Templates -3 and 3, orders -1 and 1, no interaction: MS_T 4 * 9, MS_O 4 * 1, MS_TO 0, so (36 + 4) / 4.

    Degrees of freedom (36 + 4)^2 / (36^2 + 4^2).
    """
    values = np.array([[-4.0, -2.0], [2.0, 4.0]])
    assert mean_error(values) == pytest.approx((np.sqrt(10), 1600 / 1312))


def test_degrees_of_freedom_are_those_of_mean_squares():
    """2 templates x 4 orders, MS_T 2.6, MS_O = MS_TO = 1: the variance is MS_T / 8, with one degree of freedom."""
    squares, df = {(0,): 2.6 / 8, (1,): 1 / 8, (0, 1): 1 / 8}, {(0,): 1, (1,): 3, (0, 1): 3}
    error = combine(squares, df, (0, 1), list(squares))
    assert error == pytest.approx((math.sqrt(2.6 / 8), 1))
    assert t_interval(0, error)[1] == pytest.approx(7.24, abs=0.005)


def test_effects_that_are_not_told_from_0_are_pooled():
    """Interaction alone (1 -1; -1 1): MS_TO 4, none for templates and orders: sqrt(4 / 3 / 4) with 3 degrees."""
    assert mean_error(np.array([[1.0, -1.0], [-1.0, 1.0]])) == pytest.approx((math.sqrt(1 / 3), 3))


def cells_of(*means, templates=6):
    """All prompts alike."""
    return np.repeat(np.array(means, dtype=float)[:, None, None], templates, axis=1)


def test_items_add_nothing_when_they_are_fixed():
    """Six couples at -5 and 5, all prompts alike: much doubt about others; about these, no spread to judge by."""
    errors = mean_errors(cells_of(*[-5, -5, 5, 5] * 3), np.repeat(np.arange(6), 2))
    assert errors.sampled == pytest.approx((5 * np.sqrt(6 / 5 / 6), 5))
    assert errors.fixed is None
    assert errors.why_not == {"fixed": "every prompt gave the same: there is no spread to judge by"}


def test_twins_count_as_one_unit():
    """1 and -1 in every couple: every couple's mean is 0."""
    cells = cells_of(*[1, -1] * 8)
    twins = mean_errors(cells, np.repeat(np.arange(8), 2))
    assert (twins.sampled, twins.parts) == (None, pytest.approx(np.zeros(8)))
    assert mean_errors(cells, np.arange(16)).sampled.error == pytest.approx(np.sqrt(16 / 15 / 16))


def test_topics_count_where_there_are_enough():
    """8 topics of 2 statements that say the same: 8 is what there is. Of 4 topics, or one each, statements count."""
    cells, units = cells_of(*np.repeat(np.arange(8), 2)), np.arange(16)
    by_topic = mean_errors(cells, units, np.repeat(np.arange(8), 2))
    assert (by_topic.units, by_topic.sampled) == (
        "topics",
        pytest.approx((np.std(np.arange(8), ddof=1) / np.sqrt(8), 7)),
    )
    assert [mean_errors(cells, units, topic).units for topic in (units // 4, units, None)] == ["items"] * 3
    assert effective_size(np.array([0, 0, 1, 1])) == 2
    assert effective_size(np.array([0, 0, 0, 1])) == pytest.approx(1.6)


def test_what_has_no_error():
    one = np.ones((1, 1, 1))
    errors = mean_errors(one, np.array(["a"]))
    assert (errors.fixed, errors.sampled) == (None, None)
    assert errors.why_not["sampled"] == "1 distinct items: an interval needs 6"
    assert (
        errors.why_not["fixed"]
        == "too few prompts to speak of others: 1 templates of at least 6, 1 orders of at least 6"
    )
    assert mean_errors(one * np.nan, np.array(["a"])).why_not["fixed"] == "nothing was answered"
    same = mean_errors(cells_of(*[2] * 8), np.arange(8))
    assert same.why_not["sampled"] == "every item gave the same: there is no spread to judge by"


def test_templates_without_an_answer_leave_the_table():
    """3 of 10 templates refused: to the last digit the table of the 7 others."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(12, 10, 8)) + rng.normal(size=(1, 10, 1))
    refused = cells.copy()
    refused[:, [1, 4, 9]] = np.nan
    left = np.delete(cells, [1, 4, 9], axis=1)
    for a, b in zip(mean_errors(refused, np.arange(12))[:2], mean_errors(left, np.arange(12))[:2]):
        assert a == pytest.approx(b, rel=1e-9)


def test_missing_cells_do_not_hide_the_templates():
    """60 % missing: the error of 8 templates that differ by 1 stays that of 8 templates, not 60 % less."""
    rng = np.random.default_rng(0)
    errors, means = [], []
    for _ in range(200):
        cells = rng.normal(size=(1, 8, 1)) + 0.1 * rng.normal(size=(20, 8, 6))
        cells[rng.random(cells.shape) < 0.6] = np.nan
        errors.append(mean_errors(cells, np.arange(20)).fixed.error ** 2)
        means.append(np.nanmean(np.nanmean(cells, (1, 2))))
    assert np.mean(errors) == pytest.approx(np.var(means), rel=0.25)


def test_few_levels_are_given_and_averaged():
    """4 orders that differ much say nothing about other orders, and add nothing to the error of these."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(12, 10, 4))
    shifted = cells + np.array([-9, 0, 0, 9.0])
    a, b = mean_errors(cells, np.arange(12)), mean_errors(shifted, np.arange(12))
    assert a.prompts == b.prompts == ("templates",)
    assert (a.fixed, a.sampled) == (pytest.approx(b.fixed), pytest.approx(b.sampled))


def test_the_variance_table_finds_what_was_planted():
    """Topics .25, items 1, templates .09, noise .36 of 1.7; pairs of a topic correlate by .25 / (1.25 + .36 / 6)."""
    rng, shares, alike = np.random.default_rng(0), [], []
    topic = np.repeat(np.arange(48), 5)
    for _ in range(40):
        cells = 0.5 * rng.normal(size=48)[topic][:, None, None] + rng.normal(size=(240, 1, 1))
        cells = cells + 0.3 * rng.normal(size=(1, 6, 1)) + 0.6 * rng.normal(size=(240, 6, 1))
        alike.append(topic_correlation(item_means(cells), topic))
        table = variance_table(cells, topic, alike[-1]["estimate"])
        shares.append([row["share"] for row in table])
    assert [(row["source"], row["levels"]) for row in table] == [
        ("topics", 48), ("items", 240), ("templates", 6), ("rest", 1440),
    ]  # fmt: skip
    assert np.mean(shares, axis=0) == pytest.approx(np.array([0.25, 1, 0.09, 0.36]) / 1.7, abs=0.03)
    assert np.mean([x["estimate"] for x in alike]) == pytest.approx(0.25 / 1.31, abs=0.03)
    truth = [x["ci95"][0] <= 0.25 / 1.31 <= x["ci95"][1] for x in alike]
    assert np.mean(truth) >= 0.85
    assert variance_table(np.zeros((4, 2, 1)), topic[:4], 0.0) == []
    assert topic_correlation(np.arange(3.0), np.arange(3)) is None


def test_topic_correlation_by_hand():
    """Two topics of two: 0, 2 and 4, 6. Between 16, within 2, n 2: (16 - 2) / (16 + 2)."""
    found = topic_correlation(np.array([0.0, 2, 4, 6]), np.array(["a", "a", "b", "b"]))
    assert found["estimate"] == pytest.approx(14 / 18)
    # of 1.5 in a topic, alike in the pair and not at all between: (0 - W) / (0 + .5 W) would be -2
    few = topic_correlation(np.array([0.0, 2, 1]), np.array(["a", "a", "b"]))
    assert (few["estimate"], few["ci95"][0]) == (-1, -1)


def test_one_pair_or_one_answered_of_two_has_a_table_without_a_warning():
    """One item has no variance between items; RuntimeWarnings are errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cells in (np.array([[[1.0], [2.0]]]), np.array([[[1.0], [2.0]], [[np.nan], [np.nan]]])):
            rows = variance_table(cells, np.array(["a", "b"])[: len(cells)], 0.5)
            assert all(np.isfinite(row["share"]) and np.isfinite(row["error"]) for row in rows)
            assert {row["source"] for row in rows} >= {"templates", "rest"}
