# SPDX-License-Identifier: MIT
"""Scores along a dial and along training: positions from the names, intervals, and what is called monotone."""

import pytest
from test_diagnostics import BANK, ask, leaning
from test_report import Page, make_summary

from eval.pages.compass import draw_compass, list_panels
from eval.pages.panels import curve_panels
from eval.pages.report import render_report
from eval.scores.places import Groups, Place, rank_correlation, read_places, verdict

NINE = ["base", "left", "right", "both", "left@0.75", "left@0.5", "left@0.25", "right@0.25", "right@0.5", "right@0.75"]


def test_names_tell_places():
    """The step of a checkpoint, the weight on a dial, seed and dose in a study; other names tell nothing."""
    names = ["base", "left", "left_step_40", "left@step4", "epoch_1", "left@-0.75"]
    places = read_places([*names, "l_pairs-8_seed-1", "share-5_seed-0", "a_seed-2"])
    told = {name: {key: x for key, x in place._asdict().items() if x is not None} for name, place in places.items()}
    assert told == {
        "left_step_40": {"run": "left", "step": 40},
        "left@step4": {"run": "left", "step": 4},
        "epoch_1": {"run": "run", "step": 1},
        "left@-0.75": {"run": "left", "weight": -0.75},
        "l_pairs-8_seed-1": {"run": "l_pairs-8", "seed": 1, "line": "l", "unit": "pairs", "dose": 8},
        "share-5_seed-0": {"run": "share-5", "seed": 0, "line": "share", "unit": "share", "dose": 5},
        "a_seed-2": {"run": "a", "seed": 2},
    }


def test_places_that_are_given_count_and_not_names():
    places = {"a": Place("run", step=5), "b": Place("run", step=3)}
    assert Groups(["base", "a", "b", "left_step_1", "left_step_2"], places).steps == {"run": {3: "b", 5: "a"}}


def test_a_dial_from_two_adapters():
    (points,) = Groups(NINE).dials().values()
    assert list(points) == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]
    assert list(points.values())[::4] == ["left", "base", "right"]
    assert list(Groups(NINE).dials()) == ["left to right"]
    assert Groups(NINE).ends() == ["base", "left", "right", "both"]
    assert Groups(NINE).group_of_each()["left@0.5"] == "left"
    paths = Groups(NINE).paths_from_base()
    assert ["base", "left@0.25", "left@0.5", "left@0.75", "left"] in paths
    assert ["base", "both"] in paths
    assert len(paths) == 3


def test_a_dial_of_one_adapter_and_of_three():
    names = ["base", "right", "right@-1", "right@-0.5", "right@0.5"]
    assert list(Groups(names).dials()["weight of right"].items()) == [
        (-1, "right@-1"), (-0.5, "right@-0.5"), (0, "base"), (0.5, "right@0.5"), (1, "right"),
    ]  # fmt: skip
    assert ["base", "right@-0.5", "right@-1"] in Groups(names).paths_from_base()
    three = ["base", *[f"{name}@{w}" for name in "abc" for w in (0.5, 1)]]
    assert list(Groups(three).dials()) == ["weight of a", "weight of b", "weight of c"]
    assert Groups(["base", "left", "left@0.5"]).dials() == {"weight of left": {0: "base", 0.5: "left@0.5", 1: "left"}}
    assert Groups(["base", "left", "right"]).dials() == {}


def test_checkpoints_are_no_dial():
    names = ["base", "left_step_5", "left_step_10"]
    assert Groups(names).dials() == {}
    assert Groups(names).steps == {"left": {5: "left_step_5", 10: "left_step_10"}}


@pytest.mark.parametrize(
    ("y", "expected"),
    [([1, 2, 3, 4], 1), ([4, 3, 2, 1], -1), ([1, 3, 2, 4], 0.8), ([1, 1, 1, 1], None), ([1, 2, 2, 3], 0.948683)],
)
def test_rank_correlation(y, expected):
    """The last by hand: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(5 * 4.5) = 0.948683."""
    assert rank_correlation([1, 2, 3, 4], y) == expected


@pytest.fixture(scope="module")
def dial():
    """A dial whose score is the position, and both adapters at once."""
    lean = {"base": 0, "left": -1, "right": 1, "both": 0.2}
    lean |= {f"left@{w}": -w for w in (0.75, 0.5, 0.25)} | {f"right@{w}": w for w in (0.25, 0.5, 0.75)}
    rows = [row for name in NINE for row in ask(leaning(lean[name]), model=name, templates="ab")]
    return make_summary(rows)


def test_curve_of_a_planted_dial(dial):
    curve = dial["curves"][0]
    assert (curve["kind"], curve["run"], curve["rank_correlation"]) == ("dial", "left to right", 1)
    assert (curve["n_up"], curve["n_down"]) == (8, 0)
    assert curve["estimate"] == sorted(curve["estimate"])
    assert curve["ci95"][4] is None  # the base against itself
    for k in (0, 8):
        low, high = curve["ci95"][k]
        assert low <= curve["estimate"][k] <= high
    change = next(c for c in dial["comparisons"] if (c["a"], c["b"]) == ("base", "right"))
    start = dial["models"]["base"]["choice"][curve["axis"]]["estimate"]
    assert curve["ci95"][8] == pytest.approx([start + end for end in change["ci95"]], abs=2e-6)
    assert verdict(curve) == "monotone, rank correlation +1.00, 8 of 8 steps one way"
    assert verdict(curve | {"rank_correlation": -0.5, "n_up": 3, "n_down": 5}).startswith("not monotone")
    assert verdict(curve | {"rank_correlation": None}) == "constant"


def test_the_dial_is_drawn_and_told(dial):
    assert len(curve_panels(dial)) == len({(c["mode"], c["axis"]) for c in dial["curves"]})
    assert draw_compass(dial)["png"][:4] == b"\x89PNG"
    svg = draw_compass(dial)["svg"].decode()
    assert "dial: left to right" in svg
    assert ">both<" in svg  # beside the curve
    page = Page(render_report(dial, BANK))
    assert "monotone, rank correlation +1.00, 8 of 8 steps one way" in page.text
    assert page.tags.count("svg") == len(list_panels(dial))


def test_a_trajectory_is_a_curve_from_step_0():
    rows = ask(leaning(0))
    for step in (10, 20, 30):
        rows += ask(leaning(-step / 30), model=f"left_step_{step}")
    summary = make_summary(rows)
    curve = summary["curves"][0]
    assert (curve["kind"], curve["run"], curve["x"]) == ("step", "left", [0, 10, 20, 30])
    assert curve["rank_correlation"] == -1
    assert "rank correlation" in draw_compass(summary)["svg"].decode()
