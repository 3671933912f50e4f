# SPDX-License-Identifier: MIT
"""A judge's error comes out of shares, means and differences: formulas by hand, and judges of known confusion."""

import math

import numpy as np
import pytest

from benchmarks.judge_error import METHODS, simulate, truths
from eval.scores.judge_error import (
    CHANCE_TEXTS,
    Quantity,
    confusion_corrected,
    describe_estimate,
    judge_alone,
    p_of,
    prediction_powered,
    subtract,
    variance_of,
)


def share(judge, true, unit=None):
    """A share: amounts of 0 and 1, every text counts; nan where nobody was asked."""
    judge, true = np.array(judge, float), np.array(true, float)
    unit = np.arange(len(judge)) if unit is None else np.array(unit)
    count = np.where(np.isnan(true), np.nan, 1.0)
    return Quantity(judge, np.ones(len(judge)), true, count, unit, int(unit.max()) + 1)


def drawn(n=400, n_labelled=60, seed=0):
    """Correlated numbers, the first of which people have labelled too."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n)
    judge = 0.5 * true + rng.normal(size=n) + 1
    return judge, np.where(np.arange(n) < n_labelled, true, np.nan)


def test_the_prediction_powered_mean_is_the_regression_estimator():
    """Cochran 1977, equations 7.14 and 7.29: y + b (X - x), and its variance where the sample is part of the whole."""
    judge, true = drawn()
    n, k = len(judge), 60
    b = np.cov(true[:k], judge[:k])[0, 1] / judge[:k].var(ddof=1)
    found = prediction_powered(share(judge, true))
    assert 0 < found.weight < 1
    assert found.weight == pytest.approx(b, rel=0.1)  # Var(judge) from all texts, not from the labelled alone
    w = found.weight
    assert found.value == pytest.approx(true[:k].mean() + w * (judge.mean() - judge[:k].mean()), abs=1e-12)
    residual = true[:k] - w * judge[:k]
    total = true[:k].var() / n + (1 / k - 1 / n) * residual.var()  # of all texts, and of the drawn ones
    chance = CHANCE_TEXTS * (true[:k].var() + w**2 * judge[:k].var()) / k**2
    assert variance_of(found).variance == pytest.approx(total + chance, rel=0.06)
    assert k - 2 < variance_of(found).df < n


def test_what_the_weight_does():
    judge, true = drawn()
    known = ~np.isnan(true)
    alone = prediction_powered(share(judge, true), 0.0)
    assert alone.value == pytest.approx(true[known].mean(), abs=1e-12)
    plain = prediction_powered(share(judge, true), 1.0)
    assert plain.value == pytest.approx(judge.mean() + (true - judge)[known].mean(), abs=1e-12)
    tuned = prediction_powered(share(judge, true))
    assert variance_of(tuned).variance < min(variance_of(alone).variance, variance_of(plain).variance)
    # a judge that says the opposite is not used, and neither is one that always says the same
    assert prediction_powered(share(-judge, true)).weight == 0
    assert prediction_powered(share(np.ones(400), true)).weight == 0


def test_a_perfect_judge_is_taken_at_its_word():
    rng = np.random.default_rng(1)
    judge = (rng.random(500) < 0.4).astype(float)
    true = np.where(np.arange(500) % 5 == 0, judge, np.nan)
    found, alone = prediction_powered(share(judge, true)), judge_alone(share(judge, true))
    assert found.weight == pytest.approx(1, abs=0.01)
    assert found.value == pytest.approx(alone.value, abs=1e-3)
    # no error among 100 texts is not "never errs": the interval is wider than the judge's own
    assert found.chance > 0.04 * variance_of(alone).variance
    assert variance_of(found).variance == pytest.approx(variance_of(alone).variance + found.chance, rel=0.01)


def test_a_mean_without_refusals_is_a_ratio():
    """Three of four texts have a value; the judge takes one refusal for an answer of -1."""
    judge = Quantity(
        np.array([1.0, 0, 0, -1]), np.array([1.0, 1, 1, 1]), np.array([1.0, 0, 0, 0]), np.array([1.0, 1, 1, 0]),
        np.arange(4), 4,
    )  # fmt: skip
    assert judge_alone(judge).value == 0
    assert prediction_powered(judge, 0.0).value == pytest.approx(1 / 3)


def test_two_classes_are_rogan_and_gladen():
    """(said + specificity - 1) / (sensitivity + specificity - 1), from 100 labelled texts of 1,000."""
    said = np.array([1] * 410 + [0] * 590)
    true = np.full(1000, -1)
    true[[*range(27), *range(410, 413)]] = 1  # 27 of 30 found
    true[[*range(27, 41), *range(413, 469)]] = 0  # 14 of 70 taken for 1
    one, all_ = np.array([0.0, 1.0]), np.ones(2)
    found = confusion_corrected(said, true, one, all_, np.arange(1000), 1000)
    p, q, step = 0.3, 0.41, 1 / 0.7
    assert found.value == pytest.approx((q + 0.8 - 1) * step, abs=1e-12)
    assert found.value == pytest.approx(p, abs=1e-12)
    # their variance, and that of sensitivity and specificity (the delta method), less what the samples share
    large = q * (1 - q) / 1000 + 2 * (p * 0.9 - q * p - q * (1 - q) * step) / step / 1000
    labelled = p**2 * 0.9 * 0.1 / 30 + (1 - p) ** 2 * 0.8 * 0.2 / 70
    assert large < 0  # then the part of the large sample counts as 0
    by_hand = step**2 * labelled * 100 / 98 + found.chance
    assert variance_of(found).variance == pytest.approx(by_hand, rel=1e-3)


def test_an_answer_that_cannot_be_read_is_one_more_answer():
    """Three answers, two classes: least squares gives the truth where the shares fit exactly."""
    true = np.array([0] * 50 + [1] * 50)
    said = np.array([0] * 40 + [2] * 10 + [1] * 45 + [2] * 5)
    asked = np.where(np.arange(100) % 5 == 0, true, -1)  # 8 + 2 and 9 + 1: the exact matrix
    found = confusion_corrected(said, asked, np.array([1.0, 0.0]), np.ones(2), np.arange(100), 100)
    assert found.value == pytest.approx(0.5, abs=1e-12)


def test_where_nothing_can_be_said():
    judge, true = drawn(40, 0)
    assert math.isnan(prediction_powered(share(judge, true)).value)
    assert describe_estimate(prediction_powered(share(judge, true))) == {"estimate": None, "ci95": None}
    said = np.zeros(40, int)
    asked = np.arange(40) % 2
    blind = confusion_corrected(said, asked, np.array([1.0, 0.0]), np.ones(2), np.arange(40), 40)
    assert describe_estimate(blind)["estimate"] is None  # it says one thing whatever the text
    two = prediction_powered(share(*drawn(40, 2)))
    assert variance_of(two) is None


def test_what_people_never_said_may_still_occur():
    """0 of 100: no interval of width 0, whatever the judge says (the exact upper end is .036)."""
    true = np.where(np.arange(500) < 100, 0.0, np.nan)
    for judge in (np.zeros(500), np.random.default_rng(0).random(500) < 0.2):
        found = describe_estimate(prediction_powered(share(judge, true)), (0.0, 1.0))
        assert found["estimate"] == 0
        assert found["ci95"] == [0, pytest.approx(0.03, abs=0.01)]
    asked = np.where(np.arange(500) < 100, 0, -1)
    said = (np.arange(500) % 3 == 0).astype(int)
    no_share = confusion_corrected(said, asked, np.array([0.0, 1.0]), np.ones(2), np.arange(500), 500)
    assert describe_estimate(no_share)["estimate"] is None


def test_what_both_respondents_do_in_an_item_cancels():
    """Paired by item: the difference is told far better than either mean; unpaired items gain nothing."""
    rng = np.random.default_rng(2)
    item = rng.normal(size=100)
    found = []
    for _ in range(2):
        true = item + 0.1 * rng.normal(size=100)
        found.append(prediction_powered(share(true, np.where(np.arange(100) % 2, true, np.nan))))
    single, paired = variance_of(found[0]).variance, variance_of(subtract(found[1], found[0])).variance
    assert paired < single / 5
    assert p_of(subtract(found[0], found[0])) == 1
    b = found[1]
    away = b._replace(large=np.roll(b.large, 1), labelled=np.roll(b.labelled, 1))
    assert variance_of(subtract(away, found[0])).variance > single


def test_items_of_several_texts_are_units():
    """Every text five times over is no more evidence than once."""
    judge, true = drawn(100, 40)
    once = variance_of(prediction_powered(share(judge, true))).variance
    five = share(np.repeat(judge, 5), np.repeat(true, 5), np.repeat(np.arange(100), 5))
    assert variance_of(prediction_powered(five)).variance == pytest.approx(once, rel=0.05)


@pytest.mark.parametrize("scenario", ["a: 30 % against; b: 30 % for", "2 % everywhere"])
def test_planted_judges(scenario):
    """200 simulations of ``benchmarks/judge_error.py``: the truth is found, and the judge alone misses it."""
    found = simulate(scenario, 100, 200, seed=3)
    for quantity in truths():
        for method in METHODS[1:]:
            errors, covers, _ = found[quantity, method].T
            assert abs(errors.mean()) < 0.02, (quantity, method)
            assert 0.9 <= covers.mean() <= 0.995, (quantity, method)
    errors, covers, _ = found["share, b - a", "uncorrected"].T
    if scenario.startswith("a:"):
        assert errors.mean() < -0.15
        assert covers.mean() < 0.1
    tuned, alone = (found["share", method][:, 2].mean() for method in ("prediction-powered", "labels alone"))
    assert tuned < 0.8 * alone
