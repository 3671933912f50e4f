# SPDX-License-Identifier: MIT
"""Models that belong together: dials, trainings and studies, from their places to curves, drift and replicates."""

from pathlib import Path

import numpy as np
import pytest
from chromium import BINARY, Chromium
from test_diagnostics import BANK, ask, leaning
from test_report import Page, make_summary

from eval.pages.compass import draw_compass, list_panels
from eval.pages.panels import STYLES, curve_panels
from eval.pages.report import render_report, score_table
from eval.pages.study import AskedModel, render_study
from eval.scores.comparisons import compare
from eval.scores.curves import describe_drift, rank_correlation, verdict
from eval.scores.places import Groups, Place, describe_replicates, read_places
from eval.scores.scoring import Values

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


def test_names_that_carry_a_step():
    names = ["base", "left", "a@step5", "a@step10", "epoch_0", "epoch_1", "b-step-3", "mistral7"]
    assert Groups(names).steps == {"a": {5: "a@step5", 10: "a@step10"}, "run": {0: "epoch_0", 1: "epoch_1"}}


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


def varied(weight):
    """Lean by ``weight`` a statement, of the couples from .8 to 1.15 of it."""
    return lambda item, *prompt: leaning(weight * (0.8 + 0.05 * int(item.id[-2])))(item, *prompt)


@pytest.fixture(scope="module")
def dial():
    """A dial whose score is the position, and both adapters at once."""
    lean = {"base": 0, "left": -1, "right": 1, "both": 0.2}
    lean |= {f"left@{w}": -w for w in (0.75, 0.5, 0.25)} | {f"right@{w}": w for w in (0.25, 0.5, 0.75)}
    rows = [row for name in NINE for row in ask(varied(lean[name]), model=name, templates="ab")]
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
    # by hand: the score is 5 x .975 for each unit of the dial, and couples differ by .05 x 5 x sqrt(6)
    slope = curve["slope"]
    half = 2.364624 * 0.25 * np.sqrt(6 / 8)
    assert slope["difference"] == pytest.approx(4.875, abs=1e-5)
    assert slope["ci95"] == pytest.approx([4.875 - half, 4.875 + half], abs=1e-5)
    said = "rank correlation +1.00, 8 of 8 steps one way"
    assert verdict(curve) == f"slope +4.875 [+4.363, +5.387] a unit of the dial, {said}"
    assert verdict(curve | {"rank_correlation": None}) == "constant"
    assert verdict(curve | {"slope": None}) == f"monotone (p < .001), {said}"
    assert verdict(curve | {"slope": None, "rank_correlation": 0.9}).startswith("not told to be monotone")


def test_the_dial_is_drawn_and_told(dial):
    assert len(curve_panels(dial)) == len({(c["mode"], c["axis"]) for c in dial["curves"]})
    picture = draw_compass(dial)
    assert picture["png"][:4] == b"\x89PNG"
    svg = picture["svg"].decode()
    assert "dial: left to right" in svg
    assert ">both<" in svg  # beside the curve
    page = Page(render_report(dial, BANK))
    assert "Along the dial" in page.text
    assert "slope +4.875 [+4.363, +5.387] a unit of the dial, rank correlation +1.00" in page.text
    assert page.tags.count("svg") == sum(map(len, list_panels(dial)))


def test_a_trajectory_is_a_curve_from_step_0_and_a_drift():
    rows = ask(varied(0))
    for step in (10, 20, 30):
        rows += ask(varied(-step / 30), model=f"left_step_{step}")
    summary = make_summary(rows)
    curve, (drift,) = summary["curves"][0], summary["drift"]
    assert (curve["kind"], curve["run"], curve["x"]) == ("step", "left", [0, 10, 20, 30])
    assert curve["rank_correlation"] == -1
    assert drift["steps"] == [10, 20, 30]
    # 4.875 at the end, less the square of its error: couples differ by .25 sqrt(6), and there are 8
    assert drift["magnitude"][2] == pytest.approx(np.sqrt(4.875**2 - 0.0625 * 6 / 8), abs=1e-5)
    assert drift["magnitude"] == pytest.approx([drift["magnitude"][2] * k / 3 for k in (1, 2, 3)], abs=1e-5)
    low, high = drift["magnitude_ci95"][2]
    assert low < drift["magnitude"][2] < high
    assert drift["half_step"] == pytest.approx(15, abs=1e-3)
    page = render_report(summary, BANK)
    assert "rank correlation −1.00" in page
    assert "half of the last distance is reached at step 15.0" in Page(page).text
    assert (
        sum(map(len, list_panels(summary))) == 4
    )  # one axis that is no placebo: scores, differences, score by step, drift


def test_drift_by_hand():
    """Distances 3, 5 (a 3-4 triangle) and 10 at steps 10, 20, 40: half of 10 is reached at 20; apart from 20 on."""
    names = ["base", "left_step_10", "left_step_20", "left_step_40"]

    def row(name, axis, difference, q):
        return {"a": "base", "b": name, "mode": "choice", "axis": axis, "difference": difference, "q": q}

    rows = [row(names[1], "x", 3, 0.01), row(names[1], "y", 0, 0.9), row(names[2], "x", 3, 0.5)]
    rows += [row(names[2], "y", 4, 0.01), row(names[3], "x", 6, 0.01), row(names[3], "y", 8, 0.01)]
    (drift,) = describe_drift(Groups(names), rows, {"choice": ["x", "y"]})
    assert (drift["steps"], drift["magnitude"], drift["half_step"]) == ([10, 20, 40], [3, 5, 10], 20)
    assert drift["told_apart_step"] == 10
    rows[0]["q"] = None
    assert describe_drift(Groups(names), rows, {"choice": ["x", "y"]})[0]["told_apart_step"] == 20


def test_names_say_run_seed_and_place():
    names = ["base", "left_pairs-40_seed-1", "left_pairs-40_seed-0", "left_pairs-8_seed-0", "right-share-25_seed-0"]
    assert Groups(names).seeds["left_pairs-40"] == {0: names[2], 1: names[1]}
    assert Groups(names).lines == {("left", "pairs"): {8: "left_pairs-8", 40: "left_pairs-40"}}
    shares = ["base", *(f"right-share-{n}_seed-0" for n in (0, 100))]
    assert Groups(shares).lines == {("right-share", "right-share"): {0: "right-share-0", 100: "right-share-100"}}
    assert Groups(["base", "left_step_5", "left@0.5"]).seeds == {}


def test_seeds_are_a_factor_of_their_own_and_add_no_statement():
    """By hand: 2 statements x 1 prompt x 2 seeds, 1 2 / 3 6: mean 3; seed by seed it is 2 and 4, of 2 statements."""

    def values(*cells):
        cells = np.array(cells, dtype=float)[:, None, None]
        names = list("abcdef")[: len(cells)]
        return Values(tuple(names), cells, None, cells, cells, *[np.array(names)] * 2)

    of = {("base", "pairs"): {"lean": values(0, 0)}}
    of |= {("r_seed-0", "pairs"): {"lean": values(1, 3)}, ("r_seed-1", "pairs"): {"lean": values(2, 6)}}
    models = {name: {"pairs": {"lean": {"estimate": v["lean"].cells.mean()}}} for (name, _), v in of.items()}
    found = describe_replicates(Groups(list(models)), models, of, set())
    (run,), (change,) = found["runs"], found["comparisons"]
    assert (run["mean"], run["range"], run["n_items"], run["seeds"]) == (3, [2, 4], 2, [0, 1])
    assert (change["difference"], change["by_seed"], change["n_items"]) == (3, [2, 4], 2)
    assert change["bounds"] == [3, 3]
    assert change["ci95"] is None
    assert change["no_interval"]["ci95"] == "2 distinct items: an interval needs 6"
    # the same seed twice is no new information on the statements: the interval is that of one
    once = {name: values(*([0] * 6 if name == "base" else [1, 3, 4, 0, 2, 7])) for name in models}
    of = {(name, "pairs"): {"lean": v} for name, v in once.items()}
    twice = describe_replicates(Groups(list(models)), models, of, set())
    assert twice["comparisons"][0]["ci95"] == compare(once["base"], once["r_seed-0"])["ci95"] is not None


def test_one_seed_is_the_plain_comparison():
    """Templates and orders stay factors of their own: six prompts of 3 x 2 are no six independent ones."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(2, 8, 3, 2))
    cells[1] += np.array([-1, 0, 2])[None, :, None]
    items = tuple("abcdefgh")
    base, run = (Values(items, c, None, *np.zeros((2, 8)), *[np.array(items)] * 2) for c in cells)
    models = {name: {"choice": {"x": {"estimate": 0.0}}} for name in ("base", "r_seed-0")}
    found = describe_replicates(
        Groups(list(models)), models, {("base", "choice"): {"x": base}, ("r_seed-0", "choice"): {"x": run}}, set()
    )
    for key in ("difference", "ci95", "ci95_items_fixed", "p"):
        assert found["comparisons"][0][key] == compare(base, run)[key]


@pytest.fixture(scope="module")
def doses():
    """Two lines of two doses and two seeds, whose lean is the dose's, and 0.1 more in the second seed."""
    rows = ask(leaning(0), templates="ab")
    for side, sign in (("left", -1), ("right", 1)):
        for n, seed in [(n, seed) for n in (10, 40) for seed in (0, 1)]:
            name = f"{side}_pairs-{n}_seed-{seed}"
            rows += ask(leaning(sign * n / 40 + seed / 10), model=name, templates="ab")
    return make_summary(rows)


def test_a_planted_dose_gives_a_curve_with_every_seed(doses):
    curve = next(c for c in doses["curves"] if c["run"] == "right" and c["axis"] == "x")
    assert (curve["kind"], curve["x"], curve["mean"]["x"]) == ("pairs", [0, 10, 10, 40, 40], [0, 10, 40])
    unit = curve["estimate"][3] - curve["estimate"][0]
    assert unit > 0
    assert curve["mean"]["estimate"][2] == pytest.approx(unit * 1.05, abs=1e-5)
    assert (curve["rank_correlation"], curve["n_up"]) == (1, 2)
    pairs = {(c["a"], c["b"]) for c in doses["replicates"]["comparisons"]}
    assert {("left_pairs-40", "right_pairs-40"), ("left_pairs-10", "left_pairs-40")} < pairs
    assert ("left_pairs-10", "right_pairs-40") not in pairs
    placebo = [c for c in doses["replicates"]["comparisons"] if c["axis"] == "taste"]
    assert placebo
    assert not any(c["moved"] for c in placebo)


def test_the_page_of_a_study_says_what_moved_and_leads_to_the_reports(doses):
    page = Page(render_study("doses", [AskedModel("tiny", Path("out/tiny/compass_4"), {}, doses)], "1 May 2026"))
    assert "tiny: 4 of 4 runs differ from “base” in x" in page.text
    assert "right along pairs: 3 points, too few" in page.text
    assert ("a", "href", "tiny/compass_4/report.html") in page.attributes
    assert page.tags.count("svg") == 1


def test_the_study_is_drawn_and_told(doses):
    svg = draw_compass(doses)["svg"].decode()
    assert "runs minus base" in svg
    assert "x against the pairs" in svg
    page = Page(render_report(doses, BANK))
    assert "Runs of the study, over their seeds" in page.text
    assert "right_pairs-40 − left_pairs-40" in page.text
    assert "mean and range of seeds 0, 1" in score_table(doses)


@pytest.fixture(scope="module")
def many_runs():
    """Eight runs of one seed, more than rows of marks can show."""
    rows = ask(leaning(0), templates="a")
    for k in range(8):
        rows += ask(leaning((k - 4) / 4), model=f"immigration-{'abcdefgh'[k]}_seed-0", templates="a")
    return make_summary(rows)


def test_many_runs_are_a_table_of_colors_that_names_each(many_runs):
    page = render_study("many", [AskedModel("tiny", Path("out/tiny/compass_8"), {}, many_runs)], None)
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert "change from the base" in svg
    assert all(f">immigration-{letter}<" in svg for letter in "abcdefgh")
    assert "frame:" not in svg  # no run says which axis it is tuned on


def test_fourteen_models_look_different():
    assert len(set(STYLES)) == len({(style.color, style.marker) for style in STYLES}) == 14


@pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine")
def test_no_words_of_a_study_are_cut_on_a_phone_or_a_screen(doses, many_runs, tmp_path):
    for name, summary in (("doses", doses), ("many", many_runs)):
        page = render_study(name, [AskedModel("tiny", Path("out/tiny/compass_8"), {}, summary)], None)
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
    outside = """[...document.querySelectorAll("svg text")].filter(text => {
        const box = text.getBoundingClientRect(), room = text.closest("svg").getBoundingClientRect();
        return box.left < room.left - 2 || box.right > room.right + 2;
    }).map(text => text.textContent)"""
    with Chromium(tmp_path / "profile") as browser:
        for name in ("doses", "many"):
            for width in (400, 1400):
                browser.size(width, 900)
                browser.open(f"file://{tmp_path / name}.html")
                assert browser.run("document.documentElement.scrollWidth <= innerWidth")
                assert browser.run(outside) == []
