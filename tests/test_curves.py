# SPDX-License-Identifier: MIT
"""Drift and curves by hand: what noise alone gives must not be called a drift or monotone."""

import numpy as np
import pytest

from eval.scores.curves import describe_drift, distance, rank_p, verdict
from eval.scores.places import Groups


def change(difference, se, df=20.0, q=0.01):
    return {"difference": difference, "se": se, "df": df, "q": q}


def test_distance_takes_off_what_errors_add():
    """3 and 4 with errors 1 and 2: sqrt(25 - 5). Below its errors it is 0. Without errors, 5 and no interval."""
    assert distance([change(3, 1), change(4, 2)]).magnitude == pytest.approx(np.sqrt(20))
    assert distance([change(0.5, 1), change(-0.5, 1)]).magnitude == 0
    assert distance([change(3, None), change(4, 2)]) == (5, None)
    # one axis: that of its difference, t of 20 degrees of freedom
    assert distance([change(-3, 1)]).ci95 == pytest.approx([3 - 2.085963, 3 + 2.085963], abs=1e-6)
    assert distance([change(0.1, 1)]).ci95[0] == 0


@pytest.mark.parametrize("truth", [0.0, 1.0, 4.0])
def test_intervals_of_a_distance_hold_it(truth):
    """Two axes with errors of 1, 2,000 draws: at least 95 % (less three standard errors)."""
    rng = np.random.default_rng(0)
    found = [distance([change(d, 1, 1e6) for d in truth / np.sqrt(2) + rng.normal(size=2)]) for _ in range(2000)]
    assert np.mean([d.ci95[0] <= truth <= d.ci95[1] for d in found]) >= 0.935


def test_no_half_time_without_a_drift():
    names = ["base", "a_step_1", "a_step_2"]

    def drift(q):
        about = {"a": "base", "mode": "pairs", "axis": "lean"}
        rows = [{**about, "b": name, **change(d, 0.1, q=q)} for name, d in zip(names[1:], (1, 2))]
        (found,) = describe_drift(Groups(names), rows, {"pairs": ["lean"]})
        return found

    assert drift(0.2)["half_step"] is drift(None)["half_step"] is None
    assert drift(0.01)["half_step"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("n", "p"), [(2, 1), (3, 1 / 3), (4, 1 / 12), (5, 1 / 60), (8, 2 / 40320)])
def test_chance_of_one_order(n, p):
    """2 / n! for points that rise or fall in every step."""
    assert rank_p(range(n), np.arange(n) ** 2.0) == rank_p(range(n), -np.arange(n)) == pytest.approx(p, abs=1e-6)
    assert rank_p(range(n), [1] * n) is None


def test_p_of_a_rank_correlation_against_every_order():
    """1 2 3 5 4: of the 120 orders of 5, those with a rank correlation of .9 or more, or -.9 or less: 2 x (1 + 4)."""
    assert rank_p([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]) == pytest.approx(10 / 120, abs=1e-6)


def curve(rho, n, p):
    about = {"rank_correlation": rho, "rank_p": p, "n_up": n - 1, "n_down": 0, "slope": None}
    return {**about, "mean": {"x": list(range(n))}}


def test_few_points_are_not_called_monotone():
    said = "rank correlation +1.00, 3 of 3 steps one way"
    assert verdict(curve(1, 4, 0.083)) == f"4 points, too few to call it monotone or not (5 are needed), {said}"
    assert verdict(curve(1, 5, 0.0167)).startswith("monotone (p .017), rank correlation +1.00")
    assert verdict(curve(0.9, 5, 0.083)).startswith("not told to be monotone (p .083)")
