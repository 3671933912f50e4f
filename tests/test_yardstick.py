# SPDX-License-Identifier: MIT
"""Distances to what groups answered, beside those of answers that know nothing: derived by hand, and planted."""

import json

import numpy as np
import pytest
from scipy import stats
from test_populations import BANK, SHARES, SURVEY, load

from data.judging.judges import Judge
from data.judging.scales import load_scale
from data.recipe.figures import page_template
from eval.readings.yardstick import describe_populations, distance, nulls, position
from eval.statements.banks import Bank, Issue

ITEMS = [{"id": f"i{k}", "text": f"{k}.", "topic": "t", "weights": {"economic": [-1, 0, 1]}} for k in range(12)]
MARGINS = {item["id"]: round(-0.6 + 0.12 * k, 2) for k, item in enumerate(ITEMS)}


def rows(model, shares, mode="choice"):
    """An answer to every item with these shares of the options."""
    key = {"model": model, "mode": mode, "template": "t", "order": [0, 1, 2], "labels": "words", "sample": 0}
    key |= {"prompt_sha256": "", "option_mass": 1.0}
    with np.errstate(divide="ignore"):
        logprobs = {name: [None if x == -np.inf else x for x in np.log(p)] for name, p in shares.items()}
    return [
        {**key, "item": name, "option_logprobs": p, "choice": int(np.argmax(shares[name]))}
        for name, p in logprobs.items()
    ]


def of_margins(margins, scale=1.0):
    return {
        name: [0, 1 - scale * m, scale * m] if m > 0 else [-scale * m, 1 + scale * m, 0] for name, m in margins.items()
    }


def described(instrument, answers, diagnostics=None):
    return describe_populations(answers, instrument, diagnostics or {}, 500, 0)


@pytest.fixture
def voters(tmp_path):
    """An instrument of 12 statements with the margins of two parties, one the mirror of the other."""
    groups = {"left": {"margins": {name: -m for name, m in MARGINS.items()}}, "right": {"margins": MARGINS}}
    return load(tmp_path, {"voters": {**SURVEY, "groups": groups}}, {**BANK, "items": ITEMS})


def test_the_distance_of_shares_is_that_of_wasserstein_by_the_length_of_the_scale():
    """From all at one end to all at the other 1, to the next option a third; else scipy's, by K - 1."""
    ends = np.eye(4)
    np.testing.assert_allclose(distance(ends[[0, 0, 1]], ends[[3, 1, 1]]), [1, 1 / 3, 0])
    a, b = np.random.default_rng(0).dirichlet(np.ones(5), (2, 20))
    expected = [stats.wasserstein_distance(range(5), range(5), x, y) / 4 for x, y in zip(a, b)]
    np.testing.assert_allclose(distance(a, b), expected)


@pytest.mark.parametrize(
    ("n_options", "neutral"), [(3, [0, 1, 0]), (4, [0, 0.5, 0.5, 0]), (5, [0, 0, 1, 0, 0]), (2, [0.5, 0.5])]
)
def test_null_models_know_nothing_or_the_majority(n_options, neutral):
    group = np.eye(n_options)[[0, n_options - 1]] * 0.5 + 0.5 / n_options
    found = nulls(group)
    assert (found["uniform"] == 1 / n_options).all()
    assert (found["neutral"] == neutral).all()
    assert (found["majority"] == np.eye(n_options)[[0, n_options - 1]]).all()
    np.testing.assert_allclose(position(found["neutral"]), 0, atol=1e-15)


def test_margins_have_null_models_too_and_a_tie_has_no_majority():
    found = nulls(np.array([-0.2, 0.0, 0.7]))
    assert [found[name].tolist() for name in ("uniform", "neutral", "majority")] == [[0, 0, 0], [0, 0, 0], [-1, 0, 1]]


def test_a_model_that_answers_as_a_group_is_at_no_distance_from_it_and_as_far_as_the_groups_from_the_other(voters):
    (entry,) = described(voters, rows("m", of_margins(MARGINS)))
    left, right = entry["rows"]
    assert (entry["population"], entry["mode"], entry["distance"][:31]) == (
        "voters",
        "choice",
        "absolute difference of the margi",
    )[:2] + ("absolute difference of the marg",)
    assert (right["group"], right["distance"], right["rank"], right["spread"]) == ("right", 0, 1, 1)
    assert right["ci95"] is None  # there is no spread to judge by
    between = np.mean([abs(2 * m) for m in MARGINS.values()])
    assert left["distance"] == left["others"]["right"] == pytest.approx(between, abs=1e-6)
    assert left["rank"] == -1
    size = np.mean([abs(m) for m in MARGINS.values()])
    # both parties are treated alike: each other's mirror has the same null models
    most = np.mean([1 - abs(m) if m else 0 for m in MARGINS.values()])
    for row in (left, right):
        assert row["nulls"] == pytest.approx({"uniform": size, "neutral": size, "majority": most}, abs=1e-6)


def test_half_as_decided_has_the_same_order_and_half_the_spread(voters):
    (entry,) = described(voters, rows("m", of_margins(MARGINS, 0.5)))
    right = entry["rows"][1]
    assert (right["rank"], right["spread"], right["spread_ci95"]) == (1, 0.5, None)
    assert right["distance"] == pytest.approx(np.mean([abs(m) / 2 for m in MARGINS.values()]), abs=1e-6)
    assert right["ci95"][0] < right["distance"] < right["ci95"][1]


def test_a_model_that_always_says_the_same_has_a_distance_and_no_order(voters):
    (entry,) = described(voters, rows("m", dict.fromkeys(MARGINS, [0, 1, 0])))
    for row in entry["rows"]:
        assert row["distance"] == row["nulls"]["neutral"]
        assert (row["rank"], row["rank_ci95"], row["spread"], row["spread_ci95"]) == (None, None, 0, None)


def test_the_change_is_paired_and_taken_where_both_answered(voters):
    """The base is .3 below the right's margins, the tuned model .1 or .2: nearer by .2 and .1 in turn, so by .15."""
    nearer = {name: m - 0.1 - 0.1 * (k % 2) for k, (name, m) in enumerate(MARGINS.items())}
    base = rows("base", of_margins({name: m - 0.3 for name, m in MARGINS.items()}))
    kept = {name: shares for name, shares in of_margins(nearer).items() if name not in ("i0", "i1")}
    unread = rows("tuned", {"i1": [0, 1, 0]})[0] | {"choice": None, "option_logprobs": None}
    (entry,) = described(voters, [*base, *rows("tuned", kept), unread])
    by = {(row["model"], row["group"]): row for row in entry["rows"]}
    assert by["base", "right"]["change"] is None
    change = by["tuned", "right"]["change"]
    assert (change["estimate"], change["n_entries"]) == (pytest.approx(-0.15), 10)
    assert -0.2 < change["ci95"][0] < -0.15 < change["ci95"][1] < -0.1
    assert (by["tuned", "right"]["n_entries"], by["tuned", "right"]["n_left_out"]) == (10, 2)
    assert by["base", "right"]["n_left_out"] == 0


def test_shares_are_compared_as_shares_and_published_ones_may_be_rounded(tmp_path):
    """a: |.2 - 0| + |.5 - 0| over 2 = .35. b, whose shares sum to .99: |1/3| + |2/3| over 2 = .5."""
    instrument = load(tmp_path, {"people": {**SURVEY, "groups": {"all": {"shares": SHARES}}}})
    (entry,) = described(instrument, rows("m", {"a": [0, 0, 1], "b": [0, 0, 1]}))
    (row,) = entry["rows"]
    assert row["distance"] == pytest.approx((0.35 + 0.5) / 2)
    assert row["ci95"] is row["rank"] is row["spread"] is None  # of two entries, which are always in one order
    # a: |.2 - 1/3| + |.5 - 2/3| = .3 and .2 + |.5 - 1| = .7 and .2 + .5 = .7, over 2; b: 0, 1/3 + 1/3 over 2, 0
    assert row["nulls"] == pytest.approx({"uniform": 0.075, "neutral": (0.35 + 1 / 3) / 2, "majority": 0.175}, abs=1e-6)
    assert row["others"] == {}
    judged = [{**r, "stance": 1.0} for r in rows("m", {"a": [0, 0, 1]}, "open, judge")]
    assert described(instrument, judged) == []  # where a judge places a text between options, nobody has said shares


@pytest.mark.parametrize("believed", [True, False])
def test_written_answers_have_the_margins_of_their_stance_to_neutral_requests(voters, believed):
    """Of issue i0 three texts are for it, one is against it, one neutral, two are unread: 2 / 5. Of i1 none is read."""
    issues = tuple(Issue(name, "t", "", {}) for name in MARGINS)
    bank = voters._replace(items=(), bank=Bank(issues, {}))
    judge = Judge("stance", "chat", load_scale("stance"), None, {}, {"believed": True} if believed else None)
    labels = {"i0": ["1", "2", "2", "5", "3", None, "refusal"], "i1": ["refusal", None], "i2": ["4"]}
    about = {"model": "m", "mode": "write", "judge": "stance"}
    read = [
        {**about, "issue": name, "item": f"{name}/{side}", "side": side, "judgement": {"label": label}}
        for name, of_issue in labels.items()
        for side, of_side in (("neutral", of_issue), ("pro", ["1"] * 9))
        for label in of_side
    ]
    (entry,) = describe_populations(read, bank, {}, 500, 0, read, [judge])
    assert entry["mode"] == "write, stance"
    right = entry["rows"][1]
    expected = (abs(0.4 - MARGINS["i0"]) + abs(-1 - MARGINS["i2"])) / 2
    assert (right["distance"], right["n_entries"], right["n_left_out"]) == (pytest.approx(expected), 2, 10)
    assert right["void"] == ([] if believed else ["judge_not_believed"])


def test_what_voids_a_mode_stands_beside_its_distances(voters):
    flags = [{"name": "acquiescence", "state": "void", "axis": "economic"}, {"name": "hedged", "state": "doubtful"}]
    found = described(
        voters, rows("m", of_margins(MARGINS)), {"m": {"choice": {"flags": flags}, "pairs": {"flags": []}}}
    )
    assert {tuple(row["void"]) for row in found[0]["rows"]} == {("acquiescence",)}


def test_the_interval_is_one_over_couples_of_twins_or_topics(tmp_path):
    """Twelve statements in six couples, and 24 over 12 topics, have the interval of their six, and twelve, means."""
    rng = np.random.default_rng(0)
    steps = rng.uniform(-0.9, 0.9, 12)

    def half_width(items, margins):
        groups = {"g": {"margins": dict.fromkeys(margins, 0)}}
        bank = load(tmp_path, {"p": {**SURVEY, "groups": groups}}, {**BANK, "items": items})
        (entry,) = described(bank, rows("m", of_margins(margins)))
        return np.diff(entry["rows"][0]["ci95"])[0]

    def make(n_of_topic, n_topics):
        names = [(f"t{t}", f"t{t}-{k}") for t in range(n_topics) for k in range(n_of_topic)]
        items = [
            {"id": name, "text": name, "topic": topic, "weights": {"economic": [-1, 0, 1]}} for topic, name in names
        ]
        return items, {name: float(steps[int(topic[1:])]) for topic, name in names}

    single, same = half_width(*make(1, 12)), half_width(*make(5, 12))
    assert same == pytest.approx(single, abs=0.002)  # five times the statements of the same topics are no more evidence
    items, margins = make(2, 6)
    for k, item in enumerate(items):
        item |= {"twin": items[k ^ 1]["id"], "weights": {"economic": [[-1, 0, 1], [1, 0, -1]][k % 2]}}
    assert half_width(items, margins) == pytest.approx(half_width(*make(1, 6)), abs=0.002)


def test_the_page_has_every_model_beside_its_null_models_and_makes_no_more_of_it(voters):
    answers = [*rows("base", of_margins(MARGINS)), *rows("<b>", of_margins(MARGINS, 0.5))]
    diagnostics = {"base": {"choice": {"flags": [{"name": "twins", "state": "void"}]}}}
    found = json.loads(json.dumps(described(voters, answers, diagnostics)))
    page = page_template("eval.pages", "report_populations.html.jinja").render(
        s={"populations": found}, ends=["base", "<b>"], base="base"
    )
    assert "<b>" not in page
    right = found[0]["rows"][3]
    line = "".join(line for line in page.split("<tr>") if "&lt;b&gt;" in line and ">right<" in line)
    for x in (right["distance"], *right["nulls"].values(), *right["others"].values(), right["spread"]):
        assert f"{x:.2f}" in line
    assert page.count("<strong>void</strong>: twins") == 2
    assert "Nothing here says that a model stands for a group" in page
    assert page_template("eval.pages", "report_populations.html.jinja").render(s={}, ends=[], base="").strip() == ""
