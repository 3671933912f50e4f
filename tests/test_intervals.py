# SPDX-License-Identifier: MIT
"""Student's t and the test of all signs by hand, and few simulations; benchmarks/interval_coverage.py runs many."""

import importlib.util
import re

import numpy as np
import pytest
from conftest import REPO
from scipy import stats

from eval.scores.intervals import MeanError, mean_p, paired_interval, sign_flip_p, t_interval, t_p

spec = importlib.util.spec_from_file_location("interval_coverage", REPO / "benchmarks" / "interval_coverage.py")
coverage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coverage)


@pytest.mark.parametrize(("df", "quantile"), [(1, 12.706205), (3, 3.182446), (14, 2.144787), (1000, 1.962339)])
def test_students_t_as_in_its_tables(df, quantile):
    assert t_interval(0, MeanError(1.0, df)) == pytest.approx([-quantile, quantile])
    assert t_p(-quantile, MeanError(1.0, df)) == pytest.approx(0.05)


def test_what_has_no_interval():
    assert t_interval(1.0, None) is None
    assert t_p(1.0, None) is None
    assert mean_p(np.array([1.0]), None) is None


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 1, 10), (12, 2, 50), (0, 0, 20), (5, 0, 5), (0, 3, 40)])
def test_a_paired_interval_ends_where_the_score_does(gained, lost, n):
    """At an end the difference found lies 1.96 standard errors away, the other share being the likeliest of a grid."""
    for end in paired_interval(gained, lost, n):
        if abs(end) == 1:
            assert end == (gained - lost) / n
            continue
        lost_share = np.linspace(max(0, -end), (1 - end) / 2, 200_001)[1:-1]
        shares = [lost_share + end, lost_share, 1 - end - 2 * lost_share]
        counts = (gained, lost, n - gained - lost)
        likelihood = sum(k * np.log(np.maximum(share, 1e-300)) for k, share in zip(counts, shares) if k)
        likeliest = lost_share[likelihood.argmax()]
        away = (gained - lost - n * end) / np.sqrt(n * (2 * likeliest + end * (1 - end)))
        assert abs(away) == pytest.approx(1.96, abs=0.01)
    assert paired_interval(0, 0, 0) is None


@pytest.mark.parametrize("n", range(1, 41))
def test_a_paired_interval_holds_what_was_found_and_mirrors(n):
    for gained, lost in ((n, 0), (0, n), (n // 2, n // 3), (0, 0), (n - n // 3, n // 3)):
        low, high = paired_interval(gained, lost, n)
        assert -1 <= low <= (gained - lost) / n <= high <= 1
        assert paired_interval(lost, gained, n) == pytest.approx([-high, -low], abs=1e-9)


@pytest.mark.parametrize(("n", "shares"), [(20, (0.1, 0)), (50, (0.08, 0)), (100, (0.02, 0)), (100, (0.03, 0.01))])
def test_a_paired_interval_holds_where_pairs_seldom_differ(n, shares):
    """In all samples, each by its probability; adding half a pair to each cell holds the first in 87.6 % alone."""
    most, covered = 25, 0.0
    for gained in range(min(n, most) + 1):
        for lost in range((min(n, most) - gained + 1) if shares[1] else 1):
            low, high = paired_interval(gained, lost, n)
            if low <= shares[0] - shares[1] <= high:
                covered += stats.multinomial.pmf([gained, lost, n - gained - lost], n, [*shares, 1 - sum(shares)])
    assert 0.94 < covered


def test_all_signs_by_hand():
    """Four equal changes: 2 of 16 ways have a sum as far from 0. 3, 1, 1: 5 or -5 by one way each, of 8."""
    assert sign_flip_p(np.full(4, 0.3)) == pytest.approx(0.125)
    assert sign_flip_p(np.array([3.0, 1, 1])) == pytest.approx(0.25)
    assert sign_flip_p(np.array([3.0, -1, 1])) == pytest.approx(0.75)  # 3, 5 and 3 of either sign, of 8
    assert sign_flip_p(np.zeros(5)) == 1
    assert sign_flip_p(np.array([0, 0, 2.0])) == 1  # what did not change has no sign
    # counted answers: 30 of 40 changed by 1 one way, which is a binomial test
    assert sign_flip_p(np.array([1.0] * 30 + [-1] * 10)) == pytest.approx(0.0022214, abs=1e-6)
    # many that differ are left to t
    assert sign_flip_p(np.random.default_rng(0).normal(size=12)) is None


def test_all_signs_against_every_way():
    rng = np.random.default_rng(1)
    parts = rng.normal(size=9)
    ways = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1).T @ np.abs(parts)
    assert sign_flip_p(parts) == pytest.approx((np.abs(ways) >= abs(parts.sum()) - 1e-12).mean())


def test_few_parts_have_the_greater_p():
    """4 equal changes have error 0, which is no certainty; and t of few is not trusted below the exact test."""
    assert mean_p(np.full(4, 0.25), None) == pytest.approx(0.125)
    assert mean_p(np.full(4, 0.25), MeanError(1e-6, 3)) == pytest.approx(0.125)
    assert mean_p(np.full(4, 0.25), MeanError(1.0, 3)) == pytest.approx(t_p(1.0, MeanError(1.0, 3)))


@pytest.mark.parametrize(("number", "name"), [(1, "items differ"), (13, "orders matter")])
def test_intervals_cover(number, name):
    """200 simulations, of complete tables and with 30 % missing: 95 % +- 4.6 (three standard errors)."""
    row = coverage.ROWS[number]
    assert (row.scenario, row.design.missing) == (name, 0.3 * (number > 1))
    shares = coverage.simulate(row.design, row.sd, 200, seed=1)
    assert 0.9 <= shares.fixed <= 1
    assert 0.9 <= shares.too <= 1
    assert shares.false_positives <= 0.1
    assert abs(shares.lean) < 0.05


def test_what_a_design_cannot_say_is_not_said():
    """Two templates say nothing about others; four couples nothing about other statements."""
    by_name = {row.design.name: row for row in coverage.ROWS}
    two = by_name["2 templates x 4 orders"]
    assert coverage.simulate(two.design, two.sd, 3)[:3] == (None, pytest.approx(1, abs=1), "items")
    few = by_name["10 templates x 8 orders, 4 couples"]
    assert coverage.simulate(few.design, few.sd, 3).too is None


def test_the_table_of_the_docs_is_that_of_the_benchmark():
    """Its rows are the benchmark's, every interval that is given covers 93 to 97 %, and A/A is at most 6 %."""
    text = (REPO / "docs" / "understand" / "scoring.md").read_text()
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if re.match(r"\| .*: .*%", line)
    ]
    assert [row[0] for row in table] == [f"{row.design.name}: {row.scenario}" for row in coverage.ROWS]
    shares = [float(cell.rstrip(" %")) for row in table for cell in row[1:3] if cell != "–"]
    assert 93 <= min(shares) <= max(shares) <= 97
    assert max(float(row[4].rstrip(" %")) for row in table) <= 6
