# SPDX-License-Identifier: MIT
"""Planted respondents: what they do must be found out, and void what it voids."""

import itertools
import math

import numpy as np
import pytest

from eval.scores.comparisons import flips
from eval.scores.diagnostics import raise_flags
from eval.scores.summary import summarize
from eval.statements.instruments import Axis, Instrument, Item
from eval.statements.prompts import option_orders

OPTIONS = ("strongly disagree", "disagree", "agree", "strongly agree")
UP, DOWN = [-2, -1, 1, 2], [2, 1, -1, -2]
N_COUPLES = 8
BANK = Instrument(
    "planted", "1", "MIT", "en", "test",
    {"x": Axis("low", "high", 0, 3.2), "taste": Axis("low", "high", 0, 3.2, placebo=True)}, OPTIONS,
    tuple(
        Item(f"{axis}{k}{side}", f"{axis} {k}{side}", "t", {axis: w}, f"{axis}{k}{other}")
        for axis in ("x", "taste") for k in range(N_COUPLES) for side, other, w in (("a", "b", UP), ("b", "a", DOWN))
    ),
    (), "0",
)  # fmt: skip


def ask(respond, model="base", mode="choice", templates="abc", labels=("digits", "letters")):
    """Put the full factorial to ``respond(item, template, order)``: probabilities of the options, or None."""
    rows = []
    for item, template, order, kind in itertools.product(BANK.items, templates, option_orders(4), labels):
        p = respond(item, template, order)
        logprobs = None if p is None else [math.log(0.9 * max(x, 1e-30)) for x in p]
        rows.append(
            {
                "model": model, "mode": mode, "item": item.id, "template": template, "order": order, "labels": kind,
                "sample": 0, "prompt_sha256": "0", "option_logprobs": logprobs, "option_mass": p and 0.9,
                "choice": None if p is None else int(np.argmax(p)),
            }
        )  # fmt: skip
    return rows


def one_hot(option):
    return [float(k == option) for k in range(4)]


def place(k):
    return lambda item, template, order: one_hot(order[k])


def leaning(weight):
    """Expected weight of the right answer ``weight``: strongly agrees with (2 + weight) / 4 of the right statements."""

    def respond(item, template, order):
        direction = 1 if item.weights.get("x", [0])[0] == -2 else -1
        w = weight * direction if "x" in item.weights else 0
        return [(2 - w) / 4, 0, 0, (2 + w) / 4]

    return respond


def summary(rows):
    return summarize(rows, BANK, n_bootstrap=300, seed=0)


def flags(found, model="base"):
    return {f["name"]: f["state"] == "void" for f in found["diagnostics"][model]["choice"]["flags"]}


@pytest.mark.parametrize("k", range(4))
def test_always_one_place(k):
    """Position bias is 1 and void; the center is found, by expected and by hard answers."""
    found = summary(ask(place(k)))
    x = found["models"]["base"]["choice"]["x"]
    assert abs(x["estimate"]) < 0.1
    assert abs(x["hard"]) < 0.1
    assert x["ci95"] is None
    assert x["no_interval"]["ci95"] == "every item gave the same: there is no spread to judge by"
    bias = found["diagnostics"]["base"]["choice"]["position_bias"]
    assert bias["index"] == 1
    assert bias["ci95"] == [1, 1]
    assert bias["by_labels"]["digits"] == one_hot(k)
    assert flags(found)["position_bias"]
    assert "position_bias" in x["void"]


@pytest.mark.parametrize("k", range(4))
def test_always_one_place_in_two_mirrored_orders(k):
    rows = [row for row in ask(place(k)) if row["order"] in ([0, 1, 2, 3], [3, 2, 1, 0])]
    found = summary(rows)
    assert found["models"]["base"]["choice"]["x"]["estimate"] == pytest.approx(0, abs=1e-9)
    assert found["diagnostics"]["base"]["choice"]["position_bias"]["index"] == 1
    lean = summary([row for row in ask(leaning(1)) if row["order"] in ([0, 1, 2, 3], [3, 2, 1, 0])])
    assert lean["diagnostics"]["base"]["choice"]["position_bias"]["index"] == pytest.approx(0, abs=1e-9)
    one = summary([row for row in ask(place(k)) if row["order"] == [0, 1, 2, 3]])
    assert one["diagnostics"]["base"]["choice"]["position_bias"] is None


@pytest.mark.parametrize("option", [2, 3])
def test_always_agree(option):
    """Acquiescence is 1 and void; twins keep it out of the coordinate."""
    found = summary(ask(lambda *_: one_hot(option)))
    x = found["models"]["base"]["choice"]["x"]
    assert abs(x["estimate"]) < 0.1
    assert found["diagnostics"]["base"]["choice"]["acquiescence"] == {
        "index": 1, "ci95": [1, 1], "n_twins": 2 * N_COUPLES,
    }  # fmt: skip
    assert flags(found) == {"acquiescence": True}
    assert x["void"] == ["acquiescence"]


def test_always_refuse():
    found = summary(ask(lambda *_: None))
    x = found["models"]["base"]["choice"]["x"]
    assert (x["estimate"], x["hard"], x["ci95"], x["ci95_items_fixed"]) == (None, None, None, None)
    assert x["bounds"] == [-10, 10]
    assert (x["n_answered"], x["void"]) == (0, ["unanswered"])
    assert found["diagnostics"]["base"]["choice"]["hedge_rate"] is None


def test_answers_that_do_not_follow_the_statement_are_void():
    """40 couples: answered as opposites valid, alike void, and without looking doubtful."""
    couples = tuple(
        Item(f"{k}{side}", f"{k}{side}", "t", {"x": w}, f"{k}{other}")
        for k in range(40) for side, other, w in (("a", "b", UP), ("b", "a", DOWN))
    )  # fmt: skip
    bank = BANK._replace(items=couples, axes={"x": Axis("low", "high", 0, 8)})
    rng = np.random.default_rng(0)
    agrees = {item.id: rng.random() for item in couples}

    def found(agree):
        rows = []
        for item, order in itertools.product(couples, option_orders(4)[:2]):
            p = [(1 - agree(item.id)) / 2, (1 - agree(item.id)) / 2, agree(item.id) / 2, agree(item.id) / 2]
            place = {"model": "base", "mode": "choice", "item": item.id, "template": "a", "order": order, "sample": 0}
            logprobs = [math.log(max(x, 1e-30)) for x in p]
            rows.append({**place, "labels": "words", "prompt_sha256": "0", "option_logprobs": logprobs,
                         "option_mass": 0.9, "choice": int(np.argmax(p))})  # fmt: skip
        found = summarize(rows, bank, n_bootstrap=300, seed=0)
        figure = found["diagnostics"]["base"]["choice"]["twins"]
        return figure["correlation"], found["models"]["base"]["choice"]["x"]

    opposite, x = found(lambda name: agrees[name] if name[-1] == "a" else 1 - agrees[f"{name[:-1]}a"])
    assert (opposite, x["void"], x["doubtful"]) == (pytest.approx(-1), [], [])
    alike, x = found(lambda name: agrees[f"{name[:-1]}a"])
    assert (alike, x["void"]) == (pytest.approx(1), ["twins"])
    drawn, x = found(agrees.__getitem__)
    assert abs(drawn) < 0.3
    assert x["doubtful"] == ["twins"]


def test_an_interval_that_reaches_beyond_a_limit_is_doubtful():
    """The review's acquiescence of .33 [-.07, .67], which raised nothing."""
    figures = {**dict.fromkeys(("option_mass", "position_bias", "twins")), "unanswered": 0.0, "bounds": {}}
    figures |= {"order_effect": {}, "acquiescence": {"index": 0.33, "ci95": [-0.07, 0.67]}}
    (flag,) = raise_flags(figures)
    assert (flag["name"], flag["state"]) == ("acquiescence", "doubtful")
    assert raise_flags({**figures, "acquiescence": {"index": 0.1, "ci95": [-0.2, 0.4]}}) == []
    for mass, state in ((0.05, "void"), (0.3, "doubtful")):
        (flag,) = raise_flags({**figures, "acquiescence": None, "option_mass": {"mean": mass}})
        assert flag["state"] == state


def test_uniform_random():
    """An answer drawn anew for every prompt: the interval covers 0, nothing is void."""
    rng = np.random.default_rng(0)
    found = summary(ask(lambda *_: one_hot(rng.integers(4))))
    x = found["models"]["base"]["choice"]["x"]
    assert x["ci95"][0] <= 0 <= x["ci95"][1]
    assert x["ci95_items_fixed"][0] <= 0 <= x["ci95_items_fixed"][1]
    assert not any(flags(found).values())
    assert found["diagnostics"]["base"]["choice"]["within_prompt_share"]["x"] == pytest.approx(0, abs=1e-9)


def test_a_planted_lean_is_recovered():
    """Weight w a statement on 16 statements, divisor 3.2: coordinate 5 w. Half of all prompts follow the place."""
    for weight in (-1.2, 0.4):
        found = summary(ask(leaning(weight)))
        assert found["models"]["base"]["choice"]["x"]["estimate"] == pytest.approx(5 * weight, abs=0.1)
        assert flags(found) == {}

    def half(item, template, order):
        return place(1)(item, template, order) if template == "b" else leaning(1.0)(item, template, order)

    found = summary(ask(half, templates="ab"))
    assert found["models"]["base"]["choice"]["x"]["estimate"] == pytest.approx(2.5, abs=0.1)
    assert found["diagnostics"]["base"]["choice"]["position_bias"]["index"] == pytest.approx(0.5)


def test_within_prompt_share_and_hedge_rate():
    """Even between the ends in every prompt: all variance is within, every prompt is hedged. Decided: none is."""
    even = summary(ask(leaning(0)))["diagnostics"]["base"]["choice"]
    assert (even["within_prompt_share"]["x"], even["hedge_rate"]) == (1, 1)
    sure = summary(ask(leaning(2)))["diagnostics"]["base"]["choice"]
    assert (sure["within_prompt_share"]["x"], sure["hedge_rate"]) == (pytest.approx(0, abs=1e-9), 0)


def test_drawn_answers_show_what_is_within_a_prompt():
    """A coin in every prompt: of one answer nothing is known, of 2 or 5 all variance is within and none between."""
    rng = np.random.default_rng(0)

    def drawn(k):
        rows = [row | {"sample": i} for i in range(k) for row in ask(lambda *_: one_hot(3 * rng.integers(2)))]
        return summary([row | {"option_logprobs": None, "option_mass": None} for row in rows])

    one = drawn(1)["diagnostics"]["base"]["choice"]
    assert (one["within_prompt_share"]["x"], one["hedge_rate"]) == (None, None)
    for k in (2, 5):
        found = drawn(k)["diagnostics"]["base"]["choice"]
        assert found["within_prompt_share"]["x"] == pytest.approx(1, abs=0.1)


def test_order_effect():
    """Leans by 1.6 in four orders and by -1.6 in the others: 16 of 20 points, .8 of the axis; void."""

    def turning(item, template, order):
        return leaning(1.6 if order[0] < 2 else -1.6)(item, template, order)

    found = summary(ask(turning))
    effect = found["diagnostics"]["base"]["choice"]["order_effect"]["x"]
    assert effect["spread"] == pytest.approx(0.8)
    assert flags(found)["order_effect"]
    assert found["models"]["base"]["choice"]["x"]["void"] == ["order_effect"]


def test_placebo_is_scored_apart():
    rows = ask(leaning(0)) + ask(leaning(1), model="left")
    found = summary(rows)
    tests = {c["axis"]: c for c in found["comparisons"]}
    assert tests["x"]["q"] == round(2 / 2**8, 6)  # all eight couples moved alike: the exact test of all signs
    assert not tests["x"]["placebo"]
    assert (tests["taste"]["difference"], tests["taste"]["moved"]) == (0, False)

    def moved(item, template, order):
        return (
            one_hot(3 if max(item.weights.get("taste", [0, 0])[0], 0) else 0) if "taste" in item.weights else [0.25] * 4
        )

    found = summary(ask(leaning(0)) + ask(moved, model="left"))
    assert {c["axis"]: c.get("moved") for c in found["comparisons"]} == {"x": None, "taste": True}


def test_items_are_compared_one_by_one():
    """Only one statement moves, with noise in every prompt: its q is small, most others' are not."""
    rng = np.random.default_rng(1)

    def noisy(shift):
        def respond(item, template, order):
            w = np.clip(0.1 * rng.normal() + (shift if item.id == "x3a" else 0), -2, 2)
            return [(2 - w) / 4, 0, 0, (2 + w) / 4]

        return respond

    found = summary(ask(noisy(0)) + ask(noisy(1), model="left"))
    items = {(c["item"], c["axis"]): c for c in found["items"] if not c["placebo"]}
    assert len(items) == 2 * N_COUPLES
    assert items["x3a", "x"]["q"] < 0.01
    assert items["x3a", "x"]["difference"] == pytest.approx(1, abs=0.1)
    assert sum(c["q"] < 0.05 for c in items.values()) <= 2


def test_flips_between_modes():
    rows = ask(lambda *_: one_hot(3)) + ask(leaning(2), mode="generate")
    (flip,) = summary(rows)["flips"]
    assert (flip["a_mode"], flip["b_mode"], flip["n_items"]) == ("choice", "generate", 2 * N_COUPLES)
    assert (flip["n_flipped"], flip["agree_to_disagree"]) == (N_COUPLES, N_COUPLES)
    assert all(i["item"].endswith("b") for i in flip["items"])
    assert flips({"a": 0.0, "b": 1.0}, {"a": -1.0, "c": 1.0})["n_items"] == 1
