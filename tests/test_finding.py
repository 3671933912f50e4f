# SPDX-License-Identifier: MIT
"""The headline of a run says what was planted, and never more than the declared contrast does."""

import copy

import pytest
from test_diagnostics import ask, leaning, place
from test_evidence import BACKGROUND, BANK, CLASSES, FEW, IS_PLACEBO, WORDS, fake
from test_report import make_summary

from data.recipe.figures import page_template
from eval.pages.compass import caption, draw_compass
from eval.pages.finding import _dial_finding, describe_finding
from eval.pages.panels import moved
from eval.readings.controls import Null, add_null
from eval.scores.endpoint import describe_primary
from eval.scores.evidence import ALL, describe_evidence
from eval.scores.places import Groups, seeds_note
from eval.scores.rivals import OTHER_LEANS
from eval.scores.summary import add_voids


def summarized(rows, contrast=("left", "right"), wanted="unseen", background=BACKGROUND):
    summary = make_summary(rows, BANK)
    evidence = describe_evidence(rows, BANK, Groups(list(summary["models"])), background)
    add_voids(summary, evidence)
    primary = describe_primary(evidence, contrast, wanted, BANK.name)
    return {**summary, "evidence": evidence, "primary": primary}


@pytest.fixture(scope="module")
def leans():
    return summarized(fake(right=0.3 * ~IS_PLACEBO, noise=0.05, templates=1))


FURTHER = "“right” leans further right than “left”"


@pytest.mark.parametrize(
    ("planted", "contrast", "wanted", "headline"),
    [
        ({"right": WORDS, "noise": 0.03}, ("left", "right"), ALL, f"{FURTHER}, but a choice of words may be all of it"),
        (
            {"right": 0.3 * (CLASSES == "seen proposition")},
            ("left", "right"),
            "unseen",
            f"{FURTHER} on what was taught, and on nothing else",
        ),
        (
            {"noise": 0.3},
            ("left", "right"),
            "unseen",
            "No difference in lean between “right” and “left” was told from chance",
        ),
        (
            {"left": lambda base: 0.3 * base, "noise": 0.02},
            ("base", "left"),
            ALL,
            "What separates “left” from “base” cannot be read as a lean",
        ),
    ],
)
def test_what_was_planted_is_the_headline(planted, contrast, wanted, headline):
    summary = summarized(fake(**planted, templates=1), contrast, wanted)
    assert describe_finding(summary).headline == headline


def test_the_report_says_beside_which_pairs_there_is_no_null(leans):
    summary = {"evidence": copy.deepcopy(leans["evidence"])}
    add_null(summary["evidence"], Null(5, {ALL: [0.01] * 5}, {}, "b", {ALL: {254}}, {ALL: {None}}), "base", "b")
    part = page_template("eval.pages", "report_evidence.html.jinja", seeds_note=seeds_note)
    text = part.render(s=summary, base="base", other_leans=OTHER_LEANS)
    assert "None beside unseen: the null has no unseen pairs." in text
    assert f"None beside {ALL}" not in text


def test_a_lean_beyond_words_is_said_in_percent_a_token(leans):
    """exp(0.3) - 1 is 35 %."""
    finding = describe_finding(leans)
    assert finding.headline == "“right” leans further right than “left”, and its words alone do not explain it"
    row = next(row for row in leans["evidence"][-1]["subsets"] if row["subset"] == "unseen")
    assert f"is {100 * (2.718281828 ** row['difference'] - 1):.0f} % likelier than with “left”" in finding.lead
    assert finding.lead.endswith("1 seed: about these adapters, not about their data.")
    first, words, beyond, *others = finding.rows
    assert first["name"] == "pairs on topics never taught (132)"
    assert first["kind"] == "main"
    assert [row["name"].strip() for row in (words, beyond)] == ["what vocabulary alone would show", "beyond vocabulary"]
    assert [row["kind"] for row in others if "must not move" in row["name"]] == ["weak", "weak"]


def test_too_few_pairs_and_topics_that_nobody_named_are_said():
    few = BACKGROUND._replace(exposure=FEW, no_topics={None: ("mine.csv",)})
    finding = describe_finding(summarized(fake(right=0.3 * ~IS_PLACEBO, templates=1), background=few))
    assert finding.headline == "Too few unseen pairs to tell a difference in lean between “right” and “left”"
    assert finding.lead.startswith("Pairs unlike the training's wording: 5 pairs, too few for an interval (6 needed). ")
    assert "All political pairs (254): +0.28" in finding.lead
    assert finding.rows[0]["name"] == "pairs unlike the training's wording (5)"


def test_many_pairs_that_did_not_move_are_not_called_too_few():
    finding = describe_finding(summarized(fake(noise=0.0, templates=1)))
    assert finding.headline == "No difference in lean between “right” and “left” was told from chance"


def test_a_lean_in_doubt_is_said_to_be_so():
    """The placebo pairs scatter as much as the political ones."""
    summary = summarized(fake(right=0.1 * ~IS_PLACEBO, noise=0.05, templates=1))
    assert summary["primary"]["state"] == "doubtful"
    assert describe_finding(summary).headline.endswith("do not explain it; other causes are not excluded")


def test_the_words_about_a_picture_are_of_what_it_shows(leans):
    """Pairs are left and right, thick lines are named where there are some, and so is a version."""
    assert (moved("pairs"), moved("choice")) == tuple(
        f"moved to the {low}  ←  →  to the {high}" for low, high in (("left", "right"), ("low end", "high end"))
    )
    assert "Lines and regions: 95 % interval, statements sampled too" in caption(leans)
    assert f"these prompts: {BANK.name} {BANK.version}. " in caption(leans)
    plain = leans | {"instrument": leans["instrument"] | {"version": "unversioned"}}
    assert f"these prompts: {BANK.name}. " in caption(plain)
    prompts = {"ci95_items_fixed": [0.0, 1.0]}
    thick = leans | {"comparisons": [leans["comparisons"][0] | prompts]}
    assert "Thick lines: 95 % interval over templates and orders" in caption(thick)


def test_the_picture_has_it_as_its_title(leans):
    svg = draw_compass(leans)["svg"].decode()
    assert "its words alone" in svg
    assert "what vocabulary alone" in svg


def test_void_scores_and_single_models_have_words_too():
    void = make_summary(ask(place(1), templates="ab") + ask(place(1), model="right", templates="ab"))
    assert describe_finding(void).headline.endswith("“right” and “base”: their scores are void")
    rows = ask(lambda item, *prompt: leaning(1 + (item.id < "x4"))(item, *prompt), templates="ab")
    alone = describe_finding(make_summary(rows))
    assert alone.headline == "“base” stands towards high on x"
    assert alone.ends == ("low end", "high end")
    refused = describe_finding(make_summary(ask(lambda *_: None)))
    assert refused.headline == "Where “base” stands cannot be told: its score is void"


@pytest.mark.parametrize(
    ("void", "headline"),
    [
        (None, "From “left” to “right” the lean moves right: 1 of 3 steps go that way"),
        (["unreadable"], "Nothing can be concluded along the dial from “left” to “right”: an end of it is void"),
    ],
)
def test_a_dial_is_told_by_its_slope_and_not_where_an_end_is_void(void, headline):
    """0, -.1, -.2, +.5: the slope is up, and one step of three."""
    scores = {
        name: {"pairs": {"lean": {"void": void if name == "right" else None}}} for name in ("base", "left", "right")
    }
    slope = {"difference": 0.2, "ci95": [0.1, 0.3]}
    curve = {"estimate": [0.0, -0.1, -0.2, 0.5], "n_up": 1, "n_down": 2, "slope": slope, "rank_correlation": 0.2}
    curve |= {"models": ["left", "a", "b", "right"], "mode": "pairs", "axis": "lean"}
    assert _dial_finding({"models": scores, "comparisons": []}, curve).headline == headline
