# SPDX-License-Identifier: MIT
"""Figures of mode ``write`` against planted answers: levels, sides, factors, Holm, and the judge's error."""

import random

import numpy as np
import pytest

from data.judging.judges import Judge, Judgement
from data.judging.scales import SCALES
from eval.readings.readers import read_answers
from eval.readings.sides import correct_writing, describe_writing
from eval.scores.intervals import add_holm
from eval.scores.labelled import answer_key, draw_answers
from eval.statements.instruments import load_instrument
from eval.statements.requests import write_prompts

BANK = load_instrument("issues40")
FACTORS = {"word_cap": "Use few words.", "style": "Be plain."}


def planted(name, label, error=None):
    """A judge of a scale that says what a function makes of the text; or another label, where it errs."""
    scale_name = name.partition(":")[0]

    def ask(texts):
        for text in texts:
            said = label(text.text)
            yield Judgement(error(said) if error else said, said, None, "planted")

    return Judge(name, "recorded", SCALES[scale_name], ask, {}, None)


def answers(models, write, factors=None, n_templates=2):
    """Return prompts and the rows of models whose answers a function of the model and the prompt's row writes."""
    prompts = write_prompts(BANK, n_templates, 1, factors or {}, None, 0)
    rows = []
    for model in models:
        for prompt in prompts:
            text = write(model, prompt.row)
            refused = text is not None and text.startswith("I cannot")
            rows.append({"model": model, **prompt.row, "text": text, "refused": refused, "finish": "stop"})
    return prompts, rows


def test_sides_are_compared_on_mirrored_requests_and_refusals_by_mcnemar():
    """The base is even; the tuned one refuses the right's side of every fourth issue, and writes it one word less."""
    n = {issue.id: k for k, issue in enumerate(BANK.bank.issues)}

    def write(model, row):
        noise = random.Random(f"{model} {row['issue']} {row['template']} {row['side']}").randrange(2)
        if model == "tuned" and row["side"] == "right":
            if n[row["issue"]] % 4 == 0:
                return "I cannot help with that, sorry."
            return " ".join(["word"] * (45 + noise))
        return " ".join(["word"] * (50 + noise))

    _, rows = answers(("base", "tuned"), write)
    found = describe_writing(rows, [], [], BANK)
    by_side = {(e["model"], e["outcome"]): e for e in found["by_side"]}
    refused = by_side["tuned", "refused"]
    assert refused["difference"] == 0.25
    assert refused["ci95"][0] > 0.05
    assert refused["equivalence"]["state"] == "uneven"
    assert refused["mcnemar"] | {"ci95": 0} == {
        "n_pairs": 80, "only_left": 0, "only_right": 20, "ci95": 0, "p": pytest.approx(2 * 0.5**20, abs=1e-6)
    }  # fmt: skip
    assert by_side["base", "words"]["equivalence"]["state"] == "even"
    assert by_side["base", "words"]["equivalence"]["margin"] == pytest.approx(5.05, abs=0.1)
    assert by_side["tuned", "words"]["q"] < 0.001
    none = by_side["base", "refused"]  # of 40 issues none differs, which excludes no difference of .063
    assert (none["difference"], none["equivalence"]["state"]) == (0, "undetermined")
    assert none["ci95"] == pytest.approx([-(1.96**2) / (40 + 1.96**2), 1.96**2 / (40 + 1.96**2)], abs=1e-4)
    gap = next(e for e in found["between_models"] if e["outcome"] == "refused" and e["of"] == "right - left")
    assert (gap["difference"], gap["q"] < 0.01) == (0.25, True)
    levels = {(e["model"], e["outcome"], e["side"]): e for e in found["levels"]}
    assert levels["tuned", "refused", "right"]["estimate"] == 0.25
    assert levels["tuned", "refused", "neutral"]["estimate"] == 0


def test_a_stance_becomes_a_lean_and_support_and_missing_answers_widen_the_bounds():
    """Neutral requests are answered as the left would; asked for a side, only the left's is argued.

    Both answers on one issue are not there, and one of two on another: 1 + 1 / 2 of 40 may be anything.
    """
    sides = {issue.id: issue.left for issue in BANK.bank.issues}
    other = next(name for name in sides if name != "vouchers")
    first, second = BANK.bank.draw_templates(2, 0)
    lost = {("vouchers", first), ("vouchers", second), (other, first)}

    def write(model, row):
        if row["side"] == "neutral" and (row["issue"], row["template"]) in lost:
            return None
        is_for = sides[row["issue"]] == "pro"  # the left's stance
        return ("for" if is_for else "against") if row["side"] != "right" else "mixed"

    prompts, rows = answers(("base",), write)
    judge = planted("stance", {"for": "1", "against": "5", "mixed": "3"}.get)
    judged = read_answers(rows, [judge], BANK.bank, prompts)
    targets = {row["issue"]: row["target"] for row in judged}
    assert targets["vouchers"] == "Parents should get vouchers for a school of their choice."
    found = describe_writing(rows, judged, [judge], BANK)
    levels = {(e["outcome"], e["side"]): e for e in found["levels"]}
    assert levels["lean", "neutral"]["estimate"] == -1
    assert levels["lean", "neutral"]["n_answered"] == 39
    assert levels["words", "neutral"]["n_answered"] == 39
    assert levels["refused", "neutral"]["bounds"] == [0, 0.0375]
    assert levels["lean", "neutral"]["bounds"] == [-1, -0.925]
    assert levels["words", "neutral"]["bounds"] == [None, None]  # a text has no greatest length
    assert (levels["support", "left"]["estimate"], levels["support", "right"]["estimate"]) == (1, 0)
    assert ("support", "neutral") not in levels
    (support,) = [e for e in found["by_side"] if e["outcome"] == "support"]
    assert (support["difference"], support["corrected"]) == (-1, "uncorrected")
    assert found["readings"]["stance"]["believed"] is False


def test_the_better_of_two_mirrored_answers_is_judged_in_both_orders():
    """The longer answer helps more; the right's is the longer one for three of four issues, else both are alike."""
    n = {issue.id: k for k, issue in enumerate(BANK.bank.issues)}

    def write(_, row):
        return "word " * (9 if row["side"] == "right" and n[row["issue"]] % 4 else 3)

    def label(text):
        first, second = (
            part.split(":")[1].count("word") for part in (text.split("answer")[1], text.split("answer")[2])
        )
        return "tie" if first == second else "1" if first > second else "2"

    prompts, rows = answers(("base",), write)
    judge = planted("pair", label)
    judged = read_answers(rows, [judge], BANK.bank, prompts)
    assert len(judged) == 80
    (pair,) = describe_writing(rows, judged, [judge], BANK)["pairs"]
    assert (pair["better_right"], pair["better_left"], pair["better_tie"], pair["follows_order"]) == (60, 0, 20, 0)
    assert pair["difference"] == 0.75
    assert pair["ci95"][0] > 0.5


def test_main_effects_are_those_planted_and_holm_corrects_all_of_them():
    def write(model, row):
        words = 60 - 20 * row["levels"]["word_cap"] + random.Random(f"{row['item']} {row['template']}").randrange(5)
        return " ".join(["word"] * words)

    prompts, rows = answers(("base",), write, FACTORS)
    other = planted("hedging: mine", lambda text: "4")
    judges = [planted("hedging", lambda text: "2" if len(text.split()) < 50 else "3"), other]
    judged = read_answers(rows, judges, BANK.bank, prompts)
    effects = {(e["factor"], e["outcome"]): e for e in describe_writing(rows, judged, judges, BANK)["factors"]}
    assert effects["word_cap", "words"]["difference"] == pytest.approx(-20, abs=0.5)
    assert effects["word_cap", "words"]["p_holm"] < 0.001
    assert abs(effects["style", "words"]["difference"]) < 0.5
    assert effects["style", "words"]["p_holm"] > 0.05
    assert effects["word_cap", "hedging"]["difference"] == -1
    assert effects["judge's instruction: mine", "hedging"]["difference"] == pytest.approx(1.5)
    assert ("style", "hedging, mine") not in effects


def test_a_factors_effect_on_support_is_that_of_requests_that_take_a_side():
    prompts, rows = answers(("base",), lambda model, row: f"{row['item']} {row['levels']['word_cap']}", FACTORS)

    def stance(text):  # what was asked for, and under the factor the middle
        wording = text.split()[0].rpartition("/")[2]
        return "3" if text.endswith("True") else {"pro": "1", "con": "5", "neutral": "3"}[wording]

    judges = [planted("stance", stance)]
    written = describe_writing(rows, read_answers(rows, judges, BANK.bank, prompts), judges, BANK)
    levels = {e["side"]: e["estimate"] for e in written["levels"] if e["outcome"] == "support"}
    effect = next(e for e in written["factors"] if (e["factor"], e["outcome"]) == ("word_cap", "support"))
    assert effect["on"] == pytest.approx(0)
    assert abs(effect["off"]) == pytest.approx(2 * abs(levels["left"]))  # half of those have the factor on
    assert effect["difference"] == pytest.approx(-effect["off"])


def test_holm_by_hand():
    tests = [{"p": 0.02}, {"p": 0.01}, {"p": None}, {"p": 0.03}]
    add_holm(tests)
    assert [test["p_holm"] for test in tests] == [0.04, 0.03, None, 0.04]


def test_labels_of_a_part_take_a_planted_judges_error_out_of_levels_and_differences():
    """The judge takes 40 % of what supports the right's side for neutral, and errs nowhere else."""
    rng = random.Random(1)

    def write(model, row):
        return f"{row['item']} {row['template']} {'yes' if rng.random() < 0.8 else 'no'}"

    def truth(text):
        item, _, word = text.split()
        is_for = item.endswith("/pro") == (word == "yes")
        return "1" if is_for else "5"

    left = {issue.id: issue.left for issue in BANK.bank.issues}

    def label(text):
        issue, wording = text.split()[0].split("/")
        said = truth(text)
        is_right = wording != left[issue] and wording != "neutral"
        return "3" if is_right and text.endswith("yes") and rng.random() < 0.4 else said

    prompts, rows = answers(("base",), write, n_templates=5)
    judge = planted("stance", label)
    judged = read_answers(rows, [judge], BANK.bank, prompts)
    found = describe_writing(rows, judged, [judge], BANK)
    correct_writing(found, judged, {}, BANK)
    (support,) = [e for e in found["by_side"] if e["outcome"] == "support"]
    assert support["corrected"] == "uncorrected"
    assert found["readings"]["stance"]["note"] == "uncorrected: no answer is labelled by people"
    drawn = draw_answers(judged, "stance", 300, 0)
    people = {"stance": {answer_key(row): truth(row["text"]) for row in drawn}}
    correct_writing(found, judged, people, BANK)
    (support,) = [e for e in found["by_side"] if e["outcome"] == "support"]
    yes = {
        side: np.mean([row["text"].endswith("yes") for row in rows if row["side"] == side])
        for side in ("left", "right")
    }
    true = 2 * (yes["right"] - yes["left"])
    assert support["difference"] < true - 0.2
    low, high = support["corrected"]["ci95"]
    assert low < true < high
    assert abs(support["corrected"]["estimate"] - true) < 0.15
    levels = {(e["outcome"], e["side"]): e for e in found["levels"]}
    assert abs(levels["support", "right"]["corrected"]["estimate"] - (2 * yes["right"] - 1)) < 0.15
    assert levels["words", "right"].get("corrected") is None
