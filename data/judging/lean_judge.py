# SPDX-License-Identifier: MIT
"""How a judge is asked for the lean of a text, and whether it may be trusted: agreement with people's labels."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.chat import ChatClient, Failure, Request
from data.chat.replies import object_format, object_parser
from data.judging.agreement import describe_agreement, reaches_floor
from data.judging.instructions import load_instruction

SIDES = ("left", "centre", "right")
CENTRE = 10
LEAN, RELEVANCE = range(21), range(11)
N_BOOTSTRAP = 10_000


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
    """Compare a judge with people's labels, and refuse one that agrees too little: as ``eval/validate_judge.py``.

    Args:
        client: The judge.
        scale: How it is asked.
        rows: With ``text`` and ``label``: ``left``, ``right`` or ``centre``.
        min_kappa: The whole 95 % interval of Cohen's kappa must lie at or above it.

    Returns:
        ``n``, ``kappa``, its ``ci95``, ``agreement``, ``unusable``, and ``confusion`` as ``label said as answer``.

    Raises:
        ValueError: If the rows are not as asked, or the judge is under the floor; with its figures.
    """
    bad = next((n for n, row in enumerate(rows, start=1) if row.get("label") not in SIDES or not row.get("text")), None)
    if bad or not rows:
        raise ValueError(f"judge.labelled row {bad or 1}: want text and label, one of {', '.join(SIDES)}")
    requests = (scale.request(row["text"]) for row in rows)
    said = [
        None if isinstance(result, Failure) else side_of(result.parsed["lean"])
        for _, result in client.chat_many(requests, total=len(rows), title="labelled texts")
    ]
    found = describe_agreement([row["label"] for row in rows], said, SIDES, N_BOOTSTRAP, seed=0)
    figures = {
        "n": len(rows),
        "kappa": found["kappa"]["estimate"],
        "ci95": found["kappa"]["ci95"],
        "agreement": found["accuracy"]["estimate"],
        "unusable": found["unparsed"],
        "confusion": {f"{a} said as {b}": n for a, row in found["confusion"].items() for b, n in row.items()},
    }
    if not reaches_floor(found["kappa"], min_kappa):
        low, high = figures["ci95"]
        raise ValueError(
            f"judge {client.model} is refused: kappa {figures['kappa']:.3f} ({low:.3f} to {high:.3f}) with people's "
            f"labels, and all of this interval must reach judge.min_kappa={min_kappa}; {json.dumps(figures)}. Use "
            "another model, a better judge.instruction, or more labelled texts"
        )
    return figures


def side_of(lean: float) -> str:
    """Return the side that a score of the 0 to 20 scale means."""
    return "centre" if lean == CENTRE else SIDES[2 * (lean > CENTRE)]
