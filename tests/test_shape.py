# SPDX-License-Identifier: MIT
"""The shape of leans that are known: spread, one-sidedness and humps by construction, and which axes follow one."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_report import Page, make_summary

from eval.pages.compass import draw_compass
from eval.pages.report import render_report
from eval.pages.study import AskedModel, Cost, describe_results, render_study
from eval.scores.intervals import MeanError
from eval.scores.places import Groups
from eval.scores.scoring import Values
from eval.scores.shape import bimodality, describe_shapes, describe_transfer, fieller, spread
from eval.statements.instruments import Axis, Instrument, Pair

AXES, N_PAIRS = ("crime", "race", "science"), 8
BANK = Instrument(
    "planted", "1", "MIT", "en", "test", {axis: Axis("low", "high", 0, 1) for axis in AXES}, (), (),
    tuple(Pair(f"{a}{k}", a, f"{a} {k} is bad", f"{a} {k} is good", a) for a in AXES for k in range(N_PAIRS)), "0",
)  # fmt: skip
WIGGLE = np.linspace(-0.1, 0.1, N_PAIRS)  # by which the pairs of an axis differ


def values(leans, topic=None, unit=None):
    """Return values of one template of items with these leans."""
    leans = np.asarray(leans, dtype=float)
    names = tuple(f"i{k}" for k in range(len(leans)))
    topic = np.repeat("t", len(leans)) if topic is None else np.array(topic)
    unit = np.array(names if unit is None else unit)
    return Values(names, leans[:, None, None], None, leans, leans, unit, topic)


def shape_of(v, mode="pairs", axis="lean"):
    (found,) = describe_shapes({("m", mode): {axis: v}}, set(), 200, 0)
    return found


def test_the_spread_between_topics_by_hand():
    """Topics (1, 3), (5, 7): MSB 16, MSW 2, so the variance between is (16 - 2) / 2 = 7."""
    found = spread(np.array([1.0, 3, 5, 7]), np.array(list("aabb")))
    assert (found["sd"], found["n_topics"]) == (pytest.approx(7**0.5, abs=1e-6), 2)
    low, high = found["ci95"]
    assert low == 0  # two topics tell next to nothing
    assert high > 50


def test_topics_that_differ_by_chance_alone_have_no_spread():
    found = spread(np.array([1.0, 3, 1, 3]), np.array(list("aabb")))
    assert (found["sd"], found["ci95"][0]) == (0, 0)
    assert spread(np.array([1.0, 2]), np.array(list("ab"))) is None
    assert spread(np.array([1.0, 1, 2, 2]), np.array(list("aabb"))) is None  # no error to judge by
    assert spread(np.array([1.0, 2, 3]), np.array(list("aaa"))) is None


@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_intervals_of_the_spread_hold_the_truth(sd):
    rng, topic = np.random.default_rng(1), np.repeat(np.arange(10), 6)
    drawn = [
        spread((rng.normal(size=10) * sd)[topic] + rng.normal(size=60), topic)["ci95"] for _ in range(400)
    ]  # fmt: skip
    assert 0.92 <= np.mean([low <= sd <= high for low, high in drawn]) <= 0.99


def test_sarles_coefficient_is_that_of_scipys_moments():
    leans = np.random.default_rng(0).gamma(2.0, size=40)
    n, g, k = 40, stats.skew(leans, bias=False), stats.kurtosis(leans, bias=False)
    expected = (g**2 + 1) / (k + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
    assert bimodality(leans, 100, 0)["estimate"] == pytest.approx(expected, abs=1e-6)


def test_two_humps_are_told_from_one():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=80), np.concatenate([rng.normal(-3, 0.5, 40), rng.normal(3, 0.5, 40)])
    assert bimodality(two, 300, 0)["ci95"][0] > 5 / 9 > bimodality(one, 300, 0)["ci95"][1]
    assert bimodality(np.ones(19), 300, 0) is None


def test_with_fewer_than_ten_units_two_equal_humps_would_not_pass_a_uniform_distribution():
    two = np.repeat([-1.0, 1.0], 5)
    assert bimodality(two, 300, 0)["estimate"] == pytest.approx(0.566, abs=5e-4)
    assert bimodality(two[:9], 300, 0) is None


def test_a_resample_of_one_unit_alone_has_no_shape(monkeypatch):
    """One of 64 resamples of four units: a division by 0, or a share below 0, by rounding."""
    monkeypatch.setattr("eval.scores.shape.LEAST_HUMPS", 4)
    with np.errstate(all="raise"):
        for leans in (np.array([0.1, -0.3, 0.2, 0.7]), np.array([1, 1, 1, 2.0])):
            low, high = bimodality(leans, 2000, 0)["ci95"]
            assert 0 < low < high < 1


def test_one_mean_has_two_shapes():
    """A mild model leans .1 everywhere, a torn one far to both sides by topic: mean .1 both."""
    topic = np.repeat(list("abcdef"), N_PAIRS)
    wiggle = np.tile(WIGGLE, 6) / 10
    mild = shape_of(values(0.1 + wiggle, topic))
    torn = shape_of(values(0.1 + np.where(np.isin(topic, list("abc")), 2.0, -2.0) + wiggle, topic))
    assert mild["topics"]["sd"] == 0
    assert torn["topics"]["sd"] == pytest.approx(2 * (6 / 5) ** 0.5, abs=0.01)
    assert (mild["own_side"]["share"], torn["own_side"]["share"]) == (1, 0.5)
    assert torn["bimodality"]["ci95"][0] > 5 / 9 > mild["bimodality"]["estimate"]
    assert mild["couples"] is None  # pairs have no twins
    assert shape_of(values([1, 1, 2], unit=list("aab")))["couples"] is None  # the first is said twice


def test_couples_of_twins_count_once_and_are_on_one_side_or_not():
    """Couples (1, 1), (1, -3), (2, 1): two of three agree, and two of three leans are above 0, as the mean is."""
    found = shape_of(values([1, 1, 1, -3, 2, 1], unit=list("aabbcc")), "choice", "x")
    assert found["n_units"] == 3
    assert (found["couples"]["share"], found["own_side"]["share"]) == (0.666667, 0.666667)


def test_placebos_and_the_axes_of_pairs_have_no_shape_of_their_own():
    v = values([1, 2, 3, 4])
    found = describe_shapes(
        {("m", "pairs"): {"lean": v, "x": v}, ("m", "choice"): {"x": v, "taste": v}}, {"taste"}, 9, 0
    )
    assert [(s["mode"], s["axis"]) for s in found] == [("pairs", "lean"), ("choice", "x")]


def test_fiellers_interval_by_hand():
    """The ends solve (a - r b)^2 = t^2 (A + r^2 B); with 2, 4 and t^2 A = t^2 B = 1 that is 15 r^2 - 16 r + 3 = 0."""
    df = 10.0
    error = MeanError(1 / stats.t.ppf(0.975, df), df)
    ratio = fieller(error, error, 0.0, (2.0, 4.0))
    assert ratio.ci95 == pytest.approx(sorted(np.roots([15, -16, 3])))
    assert fieller(error, error, 0.0, (2.0, 0.9)).ci95 is None  # the denominator is not told from 0


def test_intervals_of_a_ratio_hold_the_truth():
    rng, hits = np.random.default_rng(3), []
    for _ in range(300):
        top, bottom = rng.normal(0.5, 1, 40), rng.normal(1, 1, 40)
        covariance = np.cov(top, bottom) / 40
        errors = [MeanError(covariance[k, k] ** 0.5, 39.0) for k in range(2)]
        low, high = fieller(*errors, covariance[0, 1], (top.mean(), bottom.mean())).ci95
        hits.append(low <= 0.5 <= high)
    assert 0.92 <= np.mean(hits) <= 0.98


def planted(own=0.4, other=0.1):
    """A left and a right run on every axis: its own moves by ``own``, the others by ``other``; race-right goes left."""
    rows = []
    for name in ("base", *(f"{axis}-{side}_seed-0" for axis in AXES for side in ("left", "right"))):
        for pair in BANK.pairs:
            shift = 0.0
            if name != "base":
                shift = (own if name.startswith(pair.axis) else other) * (-1 if "left" in name else 1)
                shift += WIGGLE[int(pair.id[-1])]
            if name == "race-right_seed-0":
                shift = -0.2
            rows.append(
                {
                    "model": name, "mode": "pairs", "item": pair.id, "template": "own", "order": None, "labels": None,
                    "sample": 0, "prompt_sha256": "0", "option_logprobs": [-4.0, -4.0 + 2 * shift], "n_tokens": [2, 2],
                    "n_shared": 0, "option_mass": None, "choice": None, "stance": None, "text": None,
                }
            )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def summary():
    return make_summary(planted(), BANK)


def test_how_far_other_axes_follow_is_what_was_planted(summary):
    left, right = summary["transfer"]
    assert left["runs"] == ["crime-left", "race-left", "science-left"]
    assert (left["on"]["estimate"], left["off"]["estimate"]) == (-0.4, -0.1)
    assert left["ratio"]["estimate"] == 0.25
    assert left["ratio"]["ci95"][0] < 0.25 < left["ratio"]["ci95"][1]
    assert left["signs"] == {"on": [3, 3], "off": [6, 6]}
    assert right["on"]["estimate"] == pytest.approx((0.4 - 0.2 + 0.4) / 3, abs=1e-6)
    assert right["signs"] == {"on": [2, 3], "off": [4, 6]}


def test_pairs_that_were_not_answered_count_for_neither_side():
    rows = [row for row in planted() if (row["model"], row["item"]) != ("crime-left_seed-0", "race3")]
    left = make_summary(rows, BANK)["transfer"][0]
    assert left["signs"] == {"on": [3, 3], "off": [6, 6]}
    assert left["ratio"]["estimate"] == pytest.approx(0.25, abs=0.02)


def test_two_seeds_are_two_changes_and_no_more_pairs():
    base, one, two = values([0.0] * 4), values([1.0, 2, 3, 4]), values([3.0, 2, 1, 0])
    names = ["base", *(f"{axis}-left_seed-{seed}" for axis in "ab" for seed in (0, 1))]
    v = {(name, "pairs"): {"a": one, "b": one} for name in names if name.endswith("0")}
    v |= {(name, "pairs"): {"a": two, "b": two} for name in names if name.endswith("1")}
    (found,) = describe_transfer(Groups(names), v | {("base", "pairs"): {"a": base, "b": base}})
    assert (found["on"]["estimate"], found["ratio"]["estimate"], found["ratio"]["ci95"]) == (2, 1, [1, 1])


def test_names_that_tell_no_axis_are_no_transfer(summary):
    assert "transfer" not in make_summary(
        [row for row in planted() if row["model"] in ("base", "crime-left_seed-0")], BANK
    )
    assert describe_transfer(Groups(["base", "up-left_seed-0"]), {("base", "pairs"): {}}) == []


def test_many_runs_are_compared_with_the_base_and_their_other_side_alone(summary):
    compared = {(c["a"], c["b"]) for c in summary["replicates"]["comparisons"]}
    runs = [f"{axis}-{side}" for axis in AXES for side in ("left", "right")]
    assert compared == {("base", run) for run in runs} | {(f"{a}-left", f"{a}-right") for a in AXES}


def test_a_table_of_many_runs_shows_what_they_are_tuned_on_once(summary, monkeypatch):
    monkeypatch.setattr("eval.pages.panels.MOST_MARKED", 1)
    svg = draw_compass(summary)["svg"].decode()
    assert svg.count(">−0.40<") == 3
    assert "Thick lines" not in svg


def test_the_pages_show_every_change_and_the_shape(summary):
    asked = [AskedModel("tiny", Path("out/tiny/compass_6"), {}, summary)]
    page = render_study("topics", asked, "1 May 2026")
    assert "change from the base" in page
    svg = draw_compass(summary)["svg"].decode()
    assert svg.count(">−0.40<") == 3  # each left run on its own axis
    assert svg.count(">+0.40<") == 2
    text = Page(render_report(summary, BANK)).text
    assert "The shape of each lean" in text


def test_the_table_of_a_study_says_how_far_others_follow(summary):
    costs = dict.fromkeys(list(summary["models"])[1:], Cost(8, 100))
    asked = AskedModel("tiny", Path("out/tiny/compass_6"), costs, summary)
    text = describe_results("topics", [asked])
    assert "- left, pairs: the axis that is tuned on −0.400 [" in text
    assert "others over own +0.25 [" in text
    assert "3 of 3 own axes, 6 of 6 others" in text
    assert "| base, pairs, lean | – |" in text  # every pair of the base is alike: no error to judge by
