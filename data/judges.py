# SPDX-License-Identifier: MIT
"""How a judge is asked for the lean of a text, and whether it may be trusted: agreement with people's labels."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.agreement import cohen_kappa
from data.chat import ChatClient, Failure, Request
from data.instructions import load_instruction
from data.replies import object_format, object_parser

SIDES = ("left", "centre", "right")
CENTRE = 10
LEAN, RELEVANCE = range(21), range(11)


class Scale(NamedTuple):
    """How a judge is asked.

    Attributes:
        topics: Topic to its axis.
        instruction: Shipped name or path.
        structured: Whether the server is told the form of the answer (``response_format``).
    """

    topics: Mapping[str, str]
    instruction: str = "judge"
    structured: bool = True

    def request(self, text: str) -> Request:
        """Return the question about one text."""
        rules = {"relevance": RELEVANCE, "lean": LEAN, "topic": tuple(self.topics)}
        messages = load_instruction(self.instruction).messages(
            text=text, topics=", ".join(self.topics), example=next(iter(self.topics))
        )
        form = {"response_format": object_format(rules, "judgement")} if self.structured else {}
        return Request(messages, object_parser(rules), form)


def check_judge(client: ChatClient, scale: Scale, rows: Sequence[Mapping[str, Any]], min_kappa: float) -> dict:
    """Compare a judge with people's labels, and refuse one that agrees too little.

    Args:
        client: The judge.
        scale: How it is asked.
        rows: With ``text`` and ``label``: ``left``, ``right`` or ``centre``.
        min_kappa: Least Cohen's kappa.

    Returns:
        ``n``, ``kappa``, ``agreement``, ``unusable``, and ``confusion`` as ``label said as answer: count``.

    Raises:
        ValueError: If the rows are not as asked, or the judge is under the floor; with its figures.
    """
    bad = next((n for n, row in enumerate(rows, start=1) if row.get("label") not in SIDES or not row.get("text")), None)
    if bad or not rows:
        raise ValueError(f"judge.labelled row {bad or 1}: want text and label, one of {', '.join(SIDES)}")
    requests = (scale.request(row["text"]) for row in rows)
    said = [
        "none" if isinstance(result, Failure) else side_of(result.parsed["lean"])
        for _, result in client.chat_many(requests, total=len(rows), title="labelled texts")
    ]
    labels = [row["label"] for row in rows]
    figures = {
        "n": len(rows),
        "kappa": round(cohen_kappa(labels, said), 4),
        "agreement": round(sum(map(str.__eq__, labels, said)) / len(rows), 4),
        "unusable": said.count("none"),
        "confusion": {f"{a} said as {b}": n for (a, b), n in sorted(Counter(zip(labels, said)).items())},
    }
    if figures["kappa"] < min_kappa:
        raise ValueError(
            f"judge {client.model} is refused: kappa {figures['kappa']:.3f} with people's labels is under "
            f"judge.min_kappa={min_kappa}; {json.dumps(figures)}. Use another model or a better judge.instruction"
        )
    return figures


def side_of(lean: float) -> str:
    """Return the side that a score of the 0 to 20 scale means."""
    return "centre" if lean == CENTRE else SIDES[2 * (lean > CENTRE)]
