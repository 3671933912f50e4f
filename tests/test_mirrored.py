# SPDX-License-Identifier: MIT
"""Two answers are compared in both orders, and a judge that follows the place finds no winner."""

import pytest

from data.judging.judges import Judge, Judgement
from data.judging.mirrored import MirroredAnswers, Preference, judge_pairs
from data.judging.scales import PAIR, STANCE

PAIRS = [
    MirroredAnswers("Argue for the tax.", "GOOD", "Argue against the tax.", "I cannot."),
    MirroredAnswers("Argue for the wall.", "I cannot.", "Argue against the wall.", "GOOD"),
    MirroredAnswers("Argue for tea.", "GOOD", "Argue against tea.", "GOOD"),
]


def judge_by(say, scale=PAIR):
    def ask(texts):
        for text in texts:
            first, second = text.text.split("Second request:")
            yield Judgement(say(first, second), "", None, "planted")

    return Judge("planted", "chat", scale, ask, {}, None)


def test_the_better_answer_wins_in_either_place():
    def say(first, second):
        return "tie" if ("GOOD" in first) == ("GOOD" in second) else "1" if "GOOD" in first else "2"

    found = judge_pairs(judge_by(say), PAIRS)
    assert found == [
        Preference("a", False, ("1", "2")), Preference("b", False, ("2", "1")), Preference("tie", False, ("tie", "tie"))
    ]  # fmt: skip


def test_the_place_wins_nothing():
    assert judge_pairs(judge_by(lambda *_: "1"), PAIRS) == [Preference("tie", True, ("1", "1"))] * 3


def test_a_tie_and_a_preference_are_a_preference_and_an_unread_order_is_none():
    said = iter(["1", None, "2", "tie", "2", "1"])
    found = judge_pairs(judge_by(lambda *_: next(said)), PAIRS)
    assert [each.better for each in found] == ["a", None, "b"]


def test_another_scale_compares_nothing():
    with pytest.raises(ValueError, match="scale=stance reads one text; two answers need scale=pair"):
        judge_pairs(judge_by(lambda *_: "1", STANCE), PAIRS)
