# SPDX-License-Identifier: MIT
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scores.intervals import add_false_discovery_rates, unit_interval
from eval.scores.summary import summarize
from eval.statements.instruments import Axis, Instrument, Item, Pair

OPTIONS = ("strongly disagree", "disagree", "agree", "strongly agree")
UP, DOWN = [-2, -1, 1, 2], [2, 1, -1, -2]


def instrument(weights=(UP, DOWN), offset=0.0, divisor=0.4, pairs=0) -> Instrument:
    """Items 0, 1, ... on one axis, (0, 1), (2, 3), ... twins; with two, [-4, 4] / 0.4 is [-10, 10]."""
    items = tuple(Item(str(i), "s", "t", {"x": w}, str(i ^ 1)) for i, w in enumerate(weights))
    pairs = tuple(Pair(f"p{i}", "t", "l", "r", "x" if i == 0 else None) for i in range(pairs))
    return Instrument("n", "1", "MIT", "en", "s", {"x": Axis("l", "h", offset, divisor)}, OPTIONS, items, pairs, "0")


def choice_row(item, probabilities=None, choice=None, model="base", mode="choice", template="a", order=None, sample=0):
    logprobs = None
    if probabilities is not None:
        # a mass of .5 on the options: the score must not depend on it
        logprobs = [math.log(0.5 * p) if p else -1e4 for p in probabilities]
        choice = int(np.argmax(probabilities))
    place = {"template": template, "order": order, "labels": "digits", "sample": sample, "prompt_sha256": "0"}
    answer = {"option_logprobs": logprobs, "option_mass": None, "choice": choice, "stance": None}
    return {"model": model, "mode": mode, "item": item, **place, **answer}


def pair_row(item, left, right, n_left, n_right, model="base", template="a"):
    return {
        "model": model,
        "mode": "pairs",
        "item": item,
        "template": template,
        "option_logprobs": [left, right],
        "n_tokens": [n_left, n_right],
        "choice": None,
    }


def score(rows, bank, n_bootstrap=200):
    return summarize(rows, bank, n_bootstrap, seed=0)


def test_expected_and_hard_coordinate_by_hand():
    """Item 0 (UP), two prompts: .1 .2 .3 .4 and .4 .3 .2 .1, mean .25 each: expected weight 0.

    Its chosen options are 3 and 0: hard weight (2 - 2) / 2 = 0. Item 1 (DOWN), one prompt: 0 0 .5 .5 (a tie
    chooses the first, 2): expected -1 * .5 - 2 * .5 = -1.5, hard -1. offset 1, divisor .5:
    expected (0 - 1.5 + 1) / .5 = -1, hard (0 - 1 + 1) / .5 = 0.
    """
    rows = [
        choice_row("0", [0.1, 0.2, 0.3, 0.4]),
        choice_row("0", [0.4, 0.3, 0.2, 0.1], template="b"),
        choice_row("1", [0, 0, 0.5, 0.5]),
    ]
    x = score(rows, instrument(offset=1, divisor=0.5))["models"]["base"]["choice"]["x"]
    assert x["estimate"] == pytest.approx(-1)
    assert x["hard"] == pytest.approx(0)
    assert x["bounds"] == pytest.approx([-1, -1])
    assert (x["n_items"], x["n_answered"]) == (2, 2)


def test_missing_answers_widen_the_bounds_by_hand():
    """Item 0: one prompt says option 3 (2), one is refused: known half 1, the other half in [-1, 1]: [0, 2].

    Item 1 has no answer at all: [-2, 2]. Bounds (0 - 2, 2 + 2) / .4 = [-5, 10]. The estimate takes what
    was answered to stand for the rest: 2 items * 2 / .4 = 10, with one of two items answered.
    """
    rows = [choice_row("0", choice=3, mode="generate"), choice_row("0", mode="generate", sample=1)]
    x = score(rows, instrument())["models"]["base"]["generate"]["x"]
    assert x["bounds"] == pytest.approx([-5, 10])
    assert x["estimate"] == pytest.approx(10)
    assert (x["n_items"], x["n_answered"], x["ci95"]) == (2, 1, None)


def test_refusing_everything_is_not_a_point():
    rows = [choice_row(item) for item in "01"]
    x = score(rows, instrument())["models"]["base"]["choice"]["x"]
    assert (x["estimate"], x["hard"], x["ci95"], x["n_answered"]) == (None, None, None, 0)
    assert x["bounds"] == [-10, 10]


def test_pairs_lean_by_hand():
    """p0: -6 / 3 - (-8 / 2) = 2 and -3 / 3 - (-4 / 2) = 1, mean 1.5; p1: -5 / 5 - (-1 / 2) = -.5; mean .5."""
    rows = [pair_row("p0", -8, -6, 2, 3), pair_row("p0", -4, -3, 2, 3, template="b"), pair_row("p1", -1, -5, 2, 5)]
    leans = score(rows, instrument(pairs=2))["models"]["base"]["pairs"]
    assert leans["lean"]["estimate"] == pytest.approx(0.5)
    assert leans["x"]["estimate"] == pytest.approx(1.5)
    assert (leans["lean"]["n_items"], leans["x"]["n_items"]) == (2, 1)


def test_political_compass_constants():
    """(E + 3) / 8 with sums in [-83, 77] has the range exactly +-10; -83 and 77 by one item of each."""
    bank = instrument(weights=([-83, 0, 0, 77],), offset=3, divisor=8)
    assert bank.axis_range("x") == (-10, 10)
    x = score([choice_row("0", choice=1)], bank)["models"]["base"]["choice"]["x"]
    assert x["estimate"] == pytest.approx(3 / 8)


def test_comparison_by_hand():
    """One couple of twins and p0: b moves item 0 from 0 to 2 and item 1 from 0 to 2: (4 - 0) / .4 = 10.

    There is one couple and one pair, so nothing is known about others: no interval, no p. The pair moves by 1 - 0.
    """
    flat = [0.25] * 4
    rows = [choice_row(i, flat) for i in "01"] + [pair_row("p0", -2, -2, 2, 2)]
    rows += [choice_row("0", [0, 0, 0, 1], model="b"), choice_row("1", [1, 0, 0, 0], model="b")]
    rows += [pair_row("p0", -2, 0, 2, 2, model="b")]
    comparisons = score(rows, instrument(pairs=1))["comparisons"]
    assert [(c["a"], c["b"], c["mode"], c["axis"]) for c in comparisons] == [
        ("base", "b", "choice", "x"),
        ("base", "b", "pairs", "lean"),  # with one axis that would be the same again
    ]
    assert [c["difference"] for c in comparisons] == pytest.approx([10, 1])
    assert [c["p"] for c in comparisons] == [None, None]


def test_false_discovery_rates_by_hand():
    """p .01 .02 .04 .5, m = 4: .04 .04 .0533 .5; and None is left out of m."""
    for p, expected in (
        ([0.04, 0.01, None, 0.5, 0.02], [0.053333, 0.04, None, 0.5, 0.04]),
        ([0.9, 0.95], [0.95, 0.95]),
        ([None], [None]),
        ([], []),
    ):
        tests = [{"p": x} for x in p]
        add_false_discovery_rates(tests)
        assert [test["q"] for test in tests] == expected


def test_twins_are_resampled_together():
    """Values 1 and -1 in every couple: each couple's mean is 0, so the interval is [0, 0]."""
    values, units = np.array([[1.0], [-1.0]] * 8), np.repeat(np.arange(8), 2)

    def interval(values, unit):
        return unit_interval(values, unit, lambda means: means[..., 0], 500, 0)

    assert interval(values, units) == [0, 0]
    assert interval(values, np.arange(16))[1] > 0.3
    assert interval(np.array([[1.0]]), np.array(["a"])) is None


sheets = st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=6, max_size=6)


def as_rows(sheet, model="base"):
    return [choice_row(str(i), np.array(p) / sum(p), model=model) for i, p in enumerate(sheet)]


@settings(max_examples=30, deadline=None)
@given(sheets)
def test_mirrored_answers_mirror_the_axis(sheet):
    bank = instrument(weights=[UP, DOWN] * 3)
    a, b = (score(as_rows(s), bank)["models"]["base"]["choice"]["x"] for s in (sheet, [p[::-1] for p in sheet]))
    for key in ("estimate", "hard"):
        # what rounds to a tie is one, and of a tie the first option is taken
        if key == "estimate" or all(len({round(x, 4) for x in p}) == 4 for p in sheet):
            assert a[key] == pytest.approx(-b[key], abs=1e-5)
    assert a["bounds"] == pytest.approx([-x for x in b["bounds"][::-1]], abs=1e-5)
    assert a["ci95"] == pytest.approx([-x for x in b["ci95"][::-1]], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(sheets, st.randoms())
def test_order_of_rows_changes_nothing(sheet, random):
    bank = instrument(weights=[UP, DOWN] * 3)
    rows = as_rows(sheet)
    shuffled = random.sample(rows, len(rows))
    assert score(rows, bank) == score(shuffled, bank)


@settings(max_examples=20, deadline=None)
@given(sheets)
def test_coordinates_stay_in_range_and_a_model_equals_itself(sheet):
    bank = instrument(weights=[UP, DOWN] * 3, divisor=1.2)
    summary = score(as_rows(sheet) + as_rows(sheet, model="again"), bank)
    x = summary["models"]["base"]["choice"]["x"]
    assert -10 <= x["ci95"][0] <= x["ci95"][1] <= 10
    assert summary["comparisons"][0]["difference"] == 0
    assert summary["comparisons"][0]["p"] == 1
    assert all(change["difference"] == 0 for change in summary["items"])


def test_scoring_imports_no_torch():
    code = "import sys, eval.scores.summary; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
