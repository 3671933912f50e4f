# SPDX-License-Identifier: MIT
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scores.comparisons import compare_items
from eval.scores.evidence import Background, describe_evidence
from eval.scores.intervals import add_false_discovery_rates, unit_interval
from eval.scores.places import Groups
from eval.scores.scoring import Values, axis_values, collect_answers
from eval.scores.summary import summarize
from eval.statements.instruments import Axis, Instrument, Item, Pair

OPTIONS = ("strongly disagree", "disagree", "agree", "strongly agree")
UP, DOWN = [-2, -1, 1, 2], [2, 1, -1, -2]


def instrument(weights=(UP, DOWN), offset=0.0, divisor=0.4, pairs=0) -> Instrument:
    """Items 0, 1, ... on one axis, (0, 1), (2, 3), ... twins; with two, [-4, 4] / 0.4 is [-10, 10]."""
    items = tuple(Item(str(i), f"s{i}", "t", {"x": w}, str(i ^ 1)) for i, w in enumerate(weights))
    pairs = tuple(Pair(f"p{i}", "t", f"l{i}", "r", "x" if i == 0 else None) for i in range(pairs))
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

    Item 1, its opposite, has no answer at all: [-2, 2]. Bounds (0 - 2, 2 + 2) / .4 = [-5, 10], three quarters of the
    axis; without its opposite item 0 may be agreement with anything.
    """
    rows = [choice_row("0", choice=3, mode="generate"), choice_row("0", mode="generate", sample=1)]
    x = score(rows, instrument())["models"]["base"]["generate"]["x"]
    assert x["bounds"] == pytest.approx([-5, 10])
    assert (x["estimate"], x["ci95"], x["void"]) == (None, None, ["wide_bounds"])
    assert (x["n_items"], x["n_answered"], x["n_used"]) == (2, 1, 0)


def test_agreeing_with_one_side_and_refusing_the_other_is_not_a_lean():
    """Six left-keyed statements (-2 each), no twin answered: it may agree with anything. (-12 +- 12) / 2.4."""
    rows = [choice_row(str(i), choice=3 if i % 2 else None) for i in range(12)]
    found = score(rows, instrument(weights=[UP, DOWN] * 6, divisor=2.4))
    x = found["models"]["base"]["choice"]["x"]
    assert (x["estimate"], x["bounds"], x["ci95"], x["n_answered"], x["n_used"]) == (None, [-10, 0], None, 6, 0)
    assert x["no_interval"]["ci95"].startswith("no complete couple")
    assert x["void"] == ["wide_bounds"]
    (flag,) = [flag for flag in found["diagnostics"]["base"]["choice"]["flags"] if flag["state"] == "void"]
    said = "missing answers leave the score anywhere in [−10.00, 0.00], 50% of the axis; void from 50% on"
    assert flag["reason"] == said


def test_bounds_of_a_difference_hold_every_completion():
    """What one did not answer goes to either end: 1,000 ways to fill the gaps of two sheets, all within the bounds."""
    rng = np.random.default_rng(0)
    bank = instrument(weights=[UP, DOWN] * 6, divisor=2.4)
    sheets = {model: [rng.integers(4) if rng.random() < 0.7 else None for _ in range(12)] for model in ("base", "b")}
    rows = [choice_row(str(i), choice=x, model=m) for m, sheet in sheets.items() for i, x in enumerate(sheet)]
    (c,) = score(rows, bank)["comparisons"]
    weights = np.array([item.weights["x"] for item in bank.items])

    def coordinate(sheet):
        filled = [rng.integers(4) if x is None else x for x in sheet]
        return weights[np.arange(12), filled].sum() / 2.4

    differences = [coordinate(sheets["b"]) - coordinate(sheets["base"]) for _ in range(1000)]
    assert c["bounds"][0] - 1e-6 <= min(differences) <= max(differences) <= c["bounds"][1] + 1e-6
    complete = [all(None not in (sheets[m][i], sheets[m][i ^ 1]) for m in sheets) for i in range(12)]
    assert (c["n_items"], c["n_left_out"]) == (sum(complete), 12 - sum(complete))


def test_intervals_lie_inside_the_scale():
    """Six couples at the ends by turns: an interval about 0 wider than the scale, and a difference wider than it."""
    bank = instrument(weights=[UP, DOWN] * 6, divisor=2.4)

    def ends(model, sign):
        options = [3 if (i // 2 % 2 == 0) == (i % 2 == 0) else 0 for i in range(12)]
        return [choice_row(str(i), choice=x if sign > 0 else 3 - x, model=model) for i, x in enumerate(options)]

    found = score(ends("base", 1) + ends("b", -1), bank)
    assert found["models"]["base"]["choice"]["x"]["ci95"] == [-10, 10]
    assert found["comparisons"][0]["ci95"] == [-20, 20]


def test_few_or_repeated_pairs_give_no_verdict():
    """2 pairs, or 7 of which 2 say the same as others in another case or order: 2 and 5 distinct statements."""
    pairs = [Pair(f"p{i}", "t", f"l{i}", f"r{i}", "x") for i in range(5)]
    pairs += [Pair("again", "t", "L0", "r0", "x"), Pair("turned", "t", "r1", "l1", "x")]
    for some, n in ((pairs[:2], 2), (pairs, 5)):
        bank = instrument()._replace(items=(), pairs=tuple(some))
        rows = [pair_row(pair.id, -2, -2, 2, 2) for pair in some]
        rows += [pair_row(pair.id, -3 - k / 50, -2, 2, 2, "b") for k, pair in enumerate(some)]
        (c,) = score(rows, bank)["comparisons"]
        assert (c["ci95"], c["no_interval"]["ci95"]) == (None, f"{n} distinct items: an interval needs 6")
        assert c["p"] == pytest.approx(2 / 2**n)
    assert bank.duplicates() == {"again": "p0", "turned": "p1"}
    assert {bank.units()[name] for name in ("p1", "turned")} == {"p1"}


def test_statements_that_say_the_same_are_one_unit_of_every_figure():
    """Items 0 and 1 are twins, and 2 says again what 1 does: in the score, the diagnostics and all that is compared."""
    items = (*instrument().items, Item("2", " S1", "t", {"x": DOWN}), Item("3", "s3", "t", {"x": UP}))
    bank = instrument()._replace(items=items)
    answers = collect_answers([choice_row(item.id, choice=2) for item in items], bank)
    assert list(answers.unit) == list(axis_values(answers, bank, "x").unit)
    assert list(answers.unit) == ["0", "0", "0", "3"]


def test_models_that_were_asked_in_other_templates_are_compared_in_those_that_both_know():
    """Base says 2, 1, -1 in templates a, b, c; the other was asked in b alone, or in b and d, and says there 1 too."""
    bank = instrument((UP,) * 8, divisor=8)._replace(pairs=tuple(Pair(f"p{k}", "t", "l", f"r{k}") for k in range(8)))
    said = {"a": 3, "b": 2, "c": 1}
    for others in (["b"], ["b", "d"]):
        asked = [("base", template) for template in said] + [("m", template) for template in others]
        rows = [choice_row(i.id, None, said.get(t, 0), m, template=t) for m, t in asked for i in bank.items]
        rows += [pair_row(pair.id, 0, said.get(t, 9), 1, 1, m, t) for m, t in asked for pair in bank.pairs]
        found = score(rows, bank)
        assert {c["mode"]: (c["difference"], c["n_items"]) for c in found["comparisons"]} == {
            "choice": (0, 8), "pairs": (0, 8)
        }  # fmt: skip
        assert [c["bounds"] for c in found["comparisons"]] == [[0, 0]] * 2
        assert {(row["a_value"], row["b_value"], row["difference"]) for row in found["items"]} == {(1, 1, 0), (2, 2, 0)}
        assert found["models"]["base"]["choice"]["x"]["estimate"] == pytest.approx(2 / 3)
        (contrast,) = describe_evidence(rows, bank, Groups(["base", "m"]), Background())
        assert (contrast["subsets"][0]["difference"], contrast["subsets"][0]["n_items"]) == (0, 8)
    rows = [row for row in rows if row["model"] == "base" or row["template"] == "d"]
    assert [(c["difference"], c["bounds"]) for c in score(rows, bank)["comparisons"]] == [(None, [None, None])] * 2
    assert describe_evidence(rows, bank, Groups(["base", "m"]), Background()) == []


def test_changes_of_an_item_are_tested_exactly():
    """2 x 2 prompts in which a statement moves by the same: 2 of 16 ways, p .125."""
    prompts = [(t, o) for t in "ab" for o in ([0, 1, 2, 3], [3, 2, 1, 0])]
    asked = [(m, t, o) for m in ("base", "b") for t, o in prompts]
    rows = [choice_row("0", choice=1 + (m == "b"), model=m, template=t, order=o) for m, t, o in asked]
    (item,) = score(rows, instrument())["items"]
    assert (item["difference"], item["p"]) == (2, 0.125)


def test_two_coin_flippers_do_not_differ_on_some_item():
    """60 statements in 2 x 2 prompts, answers drawn by a coin: in at most 6 % of runs some item has q < .05."""
    rng = np.random.default_rng(0)
    ids, ends = np.array([str(i) for i in range(60)]), np.ones(60)
    n_found = 0
    for run in rng.choice([-1.0, 1.0], size=(100, 2, 60, 2, 2)):
        a, b = (Values(tuple(ids), cells, None, -ends, ends, ids, ids) for cells in run)
        tests = compare_items(a, b)
        add_false_discovery_rates(tests)
        n_found += any(test["q"] < 0.05 for test in tests)
    assert n_found <= 6


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


sheets = st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=12, max_size=12)


def as_rows(sheet, model="base"):
    return [choice_row(str(i), np.array(p) / sum(p), model=model) for i, p in enumerate(sheet)]


@settings(max_examples=30, deadline=None)
@given(sheets)
def test_mirrored_answers_mirror_the_axis(sheet):
    bank = instrument(weights=[UP, DOWN] * 6)
    a, b = (score(as_rows(s), bank)["models"]["base"]["choice"]["x"] for s in (sheet, [p[::-1] for p in sheet]))
    for key in ("estimate", "hard"):
        # what rounds to a tie is one, and of a tie the first option is taken
        if key == "estimate" or all(len({round(x, 4) for x in p}) == 4 for p in sheet):
            assert a[key] == pytest.approx(-b[key], abs=1e-5)
    assert a["bounds"] == pytest.approx([-x for x in b["bounds"][::-1]], abs=1e-5)
    if a["ci95"] or b["ci95"]:  # neither where all couples gave the same
        assert a["ci95"] == pytest.approx([-x for x in b["ci95"][::-1]], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(sheets, st.randoms())
def test_order_of_rows_changes_nothing(sheet, random):
    bank = instrument(weights=[UP, DOWN] * 6)
    rows = as_rows(sheet)
    shuffled = random.sample(rows, len(rows))
    assert score(rows, bank) == score(shuffled, bank)


@settings(max_examples=20, deadline=None)
@given(sheets)
def test_coordinates_stay_in_range_and_a_model_equals_itself(sheet):
    bank = instrument(weights=[UP, DOWN] * 6, divisor=2.4)
    summary = score(as_rows(sheet) + as_rows(sheet, model="again"), bank)
    x = summary["models"]["base"]["choice"]["x"]
    if x["ci95"]:
        assert -10 <= x["ci95"][0] < x["ci95"][1] <= 10
    assert summary["comparisons"][0]["difference"] == 0
    assert summary["comparisons"][0]["p"] == 1
    assert all(change["difference"] == 0 for change in summary["items"])


def test_scoring_imports_no_torch():
    code = "import sys, eval.scores.summary; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
