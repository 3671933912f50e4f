# SPDX-License-Identifier: MIT
"""Agreement against figures from print, by hand and by scikit-learn; intervals against drawn rows."""

import random

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from data.judging.agreement import cohen_kappa, describe_agreement, describe_panel, krippendorff_alpha
from data.judging.scales import LEAN_SCALE, STANCE

# Krippendorff 2011, section C: four observers, twelve units, missing data.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_kappa_by_hand():
    # observed 3/4; chance (2*1 + 2*3)/16 = 1/2
    assert cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"]) == 0.5
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None  # nobody could have disagreed


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_as_published(level, published):
    found = krippendorff_alpha(PUBLISHED, level)
    assert found["estimate"] == pytest.approx(published, abs=5e-4)
    assert (found["n_units"], found["n_raters"]) == (11, 4)  # a unit that one alone rated says nothing


def test_alpha_of_two_raters_by_hand():
    """Krippendorff 2011, section B: nominal data, two observers, no missing data: .692."""
    a, b = [*"aabbdcccedda"], [*"babbbccceddd"]
    assert krippendorff_alpha([a, b], "nominal")["estimate"] == pytest.approx(0.692, abs=5e-4)


def test_alpha_of_nothing():
    assert krippendorff_alpha([[1, None], [None, 2]], "nominal")["estimate"] is None
    assert krippendorff_alpha([[1, 1], [1, 1]], "ordinal")["estimate"] is None  # nobody could have disagreed
    assert krippendorff_alpha([], "nominal")["n_units"] == 0
    with pytest.raises(ValueError, match="level=ratio; use one of"):
        krippendorff_alpha(PUBLISHED, "ratio")


def drawn_labels(n=200, seed=0):
    rng = random.Random(seed)
    truth = [rng.choice("abc") for _ in range(n)]
    said = [x if rng.random() < 0.7 else rng.choice(["a", "b", "c", None]) for x in truth]
    return truth, said


def test_equal_to_scikit_learn():
    truth, said = drawn_labels()
    found = describe_agreement(truth, said, "abc", 0, 0)
    filled = [x or "none" for x in said]
    assert found["kappa"]["estimate"] == pytest.approx(cohen_kappa_score(truth, filled), abs=1e-6)
    assert found["kappa"]["estimate"] == pytest.approx(cohen_kappa(truth, filled), abs=1e-6)
    assert found["macro_f1"]["estimate"] == pytest.approx(
        f1_score(truth, filled, labels=list("abc"), average="macro"), abs=1e-6
    )
    assert found["accuracy"]["estimate"] == pytest.approx(sum(map(str.__eq__, truth, filled)) / len(truth))
    assert found["unparsed"] == said.count(None) > 0
    assert sum(n for row in found["confusion"].values() for n in row.values()) == len(truth)
    assert found["classes"]["a"]["n"] == truth.count("a")


def test_intervals_equal_those_of_drawn_rows():
    truth, said = drawn_labels()
    found = describe_agreement(truth, said, "abc", 20_000, 0)["kappa"]
    rng = np.random.default_rng(1)
    filled = np.array([x or "none" for x in said])
    truth = np.array(truth)
    drawn = rng.integers(len(truth), size=(800, len(truth)))
    by_rows = np.quantile([cohen_kappa(list(truth[k]), list(filled[k])) for k in drawn], [0.025, 0.975])
    assert found["ci95"] == pytest.approx(by_rows, abs=0.02)
    assert found == describe_agreement(list(truth), said, "abc", 20_000, 0)["kappa"]


def test_alpha_interval_covers_and_narrows():
    """True alpha .64: two of three raters agree beyond chance where both kept the truth, .8 x .8."""
    rng = random.Random(0)
    covered, widths = 0, {}
    for n in [60] * 200 + [600]:
        truth = [rng.randrange(5) for _ in range(n)]
        raters = [[x if rng.random() < 0.8 else rng.randrange(5) for x in truth] for _ in range(3)]
        low, high = krippendorff_alpha(raters, "nominal", 300, 0)["ci95"]
        covered += n == 60 and low < 0.64 < high
        widths[n] = high - low
    assert 180 <= covered <= 198
    assert widths[600] < widths[60] / 2


def test_raters_who_cannot_differ_have_no_kappa():
    """All "a" from both: agreement beyond chance is not defined; what is known is that they agree, on all six."""
    found = describe_agreement(["a"] * 6, ["a"] * 6, ["a", "b"], 200, 0)
    assert found["kappa"] == {"estimate": None, "ci95": None}
    assert found["accuracy"]["estimate"] == 1
    assert found["note"].startswith("no variation: both said one class alone")
    panel = describe_panel({"x": ["1"] * 6, "y": ["1"] * 6}, STANCE, 200, 0)
    pair = panel["kappa"][0]
    assert (pair["estimate"], pair["ci95"], pair["agreement"]) == (None, None, 1)


def test_agreement_on_few_texts_is_not_certain():
    """Six of six right: Clopper and Pearson's lower end is .025^(1/6), .541; with chance .5 kappa's is .081."""
    found = describe_agreement(["a", "b"] * 3, ["a", "b"] * 3, ["a", "b"], 200, 0)
    low = 0.025 ** (1 / 6)
    assert found["accuracy"] == {"estimate": 1, "ci95": [pytest.approx(low, abs=1e-6), 1]}
    assert found["kappa"] == {"estimate": 1, "ci95": [pytest.approx(2 * low - 1, abs=1e-6), 1]}
    assert (found["macro_f1"], found["note"]) == ({"estimate": 1, "ci95": None}, None)
    assert krippendorff_alpha([["a", "b"] * 3] * 2, "nominal", 200, 0)["ci95"] is None


def test_a_class_that_nobody_uses_is_left_out_of_macro_f1():
    found = describe_agreement(["a", "b"], ["a", "b"], ["a", "b", "c"], 50, 0)
    assert found["macro_f1"]["estimate"] == 1
    assert found["classes"]["c"]["f1"] is None


def test_panel_by_hand():
    labels = {"a": ["1", "2", None, "refusal"], "b": ["1", "3", "4", "refusal"], "c": [None] * 4}
    found = describe_panel(labels, STANCE, 0, 0)
    assert [p["n"] for p in found["kappa"]] == [3, 0, 0]
    # observed 2/3; chance: 1 and refusal, each 1/9 + 1/9
    assert found["kappa"][0]["estimate"] == pytest.approx((2 / 3 - 2 / 9) / (1 - 2 / 9), abs=1e-6)
    assert found["alpha_values"]["n_units"] == 2  # a refusal is no point of the five
    assert describe_panel({"a": ["1"]}, STANCE, 0, 0) is None
    leans = describe_panel({"a": ["0", "20", "10"], "people": ["left", "right", "right"]}, LEAN_SCALE, 0, 0)
    assert leans["kappa"][0]["estimate"] == pytest.approx(0.5, abs=1e-6)
    assert leans["alpha_values"]["estimate"] is None  # people named sides, not numbers
