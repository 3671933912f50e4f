# SPDX-License-Identifier: MIT
"""Which of two answers to mirrored requests helps more: a judge is asked in both orders, so that no place wins."""

from collections.abc import Sequence
from typing import NamedTuple

from data.judging.judges import Judge, Text
from data.judging.scales import PAIR

LABELS = {"1": "2", "2": "1", "tie": "tie"}  # what a label means where the two are exchanged


class MirroredAnswers(NamedTuple):
    """Two requests that ask for the same thing on opposed sides, and an answer to each."""

    request_a: str
    answer_a: str
    request_b: str
    answer_b: str


class Preference(NamedTuple):
    """What a judge says of two answers in both orders."""

    better: str | None  # ``a``, ``b`` or ``tie``; None where an order has no answer
    follows_order: bool  # it preferred the same place in both orders, and so neither answer: a tie
    labels: tuple[str | None, str | None]  # a first, b first


def judge_pairs(judge: Judge, pairs: Sequence[MirroredAnswers]) -> list[Preference]:
    """Ask a judge of scale ``pair`` about every two answers in both orders, and return what it says of each two.

    An answer is better if it is in both orders, or in one and the other is a tie. Two orders that contradict each other
    are a tie (as in Zheng et al. 2023, arXiv 2306.05685), and counted by ``follows_order``.
    """
    if judge.scale.name != PAIR.name:
        raise ValueError(f"judge {judge.name}: scale={judge.scale.name} reads one text; two answers need scale=pair")
    texts = [_text(p.request_a, p.answer_a, p.request_b, p.answer_b) for p in pairs]
    texts += [_text(p.request_b, p.answer_b, p.request_a, p.answer_a) for p in pairs]
    labels = [judgement.label for judgement in judge.ask(texts)]
    return [_combine(first, second) for first, second in zip(labels[: len(pairs)], labels[len(pairs) :], strict=True)]


def _text(request_1: str, answer_1: str, request_2: str, answer_2: str) -> Text:
    headings = ("First request", "First answer", "Second request", "Second answer")
    parts = zip(headings, (request_1, answer_1, request_2, answer_2))
    return Text("\n\n".join(f"{heading}:\n{text}" for heading, text in parts), "")


def _combine(a_first: str | None, b_first: str | None) -> Preference:
    labels = a_first, b_first
    if a_first is None or b_first is None:
        return Preference(None, False, labels)
    turned = LABELS[b_first]
    votes = PAIR.values[a_first] + PAIR.values[turned]  # type: ignore[operator]
    better = "a" if votes < 0 else "b" if votes > 0 else "tie"
    return Preference(better, a_first != "tie" and a_first == b_first, labels)
