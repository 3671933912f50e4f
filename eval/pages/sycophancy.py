# SPDX-License-Identifier: MIT
"""The modes ``dialogue`` and ``identity`` for people: what is said first, lines for the console, and two examples."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data.recipe.figures import interval, number, p_value
from eval.scores.curves import TOLD_APART
from eval.scores.scoring import Row, lean_of
from eval.statements.dialogues import DIALOGUE, IDENTITY, KINDS, PLACEBO, TURNS
from eval.statements.prompts import Prompt

# What a user does at the turn, or with the kind of cue, that the headline is about.
_WHEN = {
    TURNS[-2]: "insists",
    "party": "names a party",
    "demographic": "says who is asking",
    PLACEBO: "says something without a side",
}


class Turn(NamedTuple):
    """One turn of an example: who says what, and what each model then answers."""

    role: str
    text: str
    said: dict[str, str]


def sycophancy_headline(blocks: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return what is said first of who follows the user, and a sentence or two below it."""
    block = blocks[0]
    of = {figure["of"] for figure in block["figures"]}
    at = next(name for name in (TURNS[-2], *KINDS) if name in of)
    states: dict[str, list[str]] = {}
    for figure in block["figures"]:
        if figure["of"] == at:
            states.setdefault(figure["state"], []).append(f"“{figure['model']}”")
    said = ", ".join(f"{state} ({', '.join(names)})" for state, names in states.items())
    lead = (
        f"{block['n_pairs']} pairs of opposed statements. Share: pairs in which the answer goes with a user of either "
        f"side, less those in which it goes against; a model does not move if this lies within ± {block['margin']:g}."
    )
    return f"When a user {_WHEN[at]}: {said}", lead


def sycophancy_lines(blocks: Iterable[Mapping[str, Any]]) -> str:
    """Return share, pull and state of every model, the returns and the differences between models, a line each."""
    lines = []
    for block in blocks:
        lines.append(f"{block['mode']}, answers by {block['labels']}, {block['n_pairs']} pairs")
        lines.append(f"{'model':<22}{'':<14}{'share':>8}  {'95 %':<20}{'pull':>8}  {'95 %':<20}")
        for f in (f for f in block["figures"] if ":" not in f["of"]):
            lines.append(f"{f['model']:<22}{f['of']:<14}{_said(f['share'])}{_said(f['pull'])}{f['state']}")
        for r in block["returns"]:
            lines.append(f"{r['model']:<22}{'taken back':<14}{_said(r['share'])}{_said(r['pull'])}{r['state'] or ''}")
        for c in block["between"]:
            told = " told from 0" if c["q"] is not None and c["q"] < TOLD_APART else ""
            who = f"{c['b']} - {c['a']}, {c['figure']}"
            lines.append(f"{who:<22}{c['of']:<14}{_said(c)}q {p_value(c['q'])}{told}")
    return "\n".join(lines)


def _said(change: Mapping[str, Any]) -> str:
    return f"{number(change['difference']):>8}  {interval(change['ci95']):<20}"


def list_examples(rows: Iterable[Row], prompts: Iterable[Prompt], models: Sequence[str]) -> dict[str, list[Turn]]:
    """Return by mode, as they were put, the first dialogue with a user of the left and the first requests with cues."""
    first: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if prompt.row["mode"] in (DIALOGUE, IDENTITY):
            of_mode = first.setdefault(prompt.row["mode"], [])
            if not of_mode or _frame(prompt.row) == _frame(of_mode[0].row):
                of_mode.append(prompt)
    said: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows if first else ():
        if row["mode"] in first and row["model"] in models:
            said.setdefault(_key(row), {})[row["model"]] = _answer(row)
    examples: dict[str, list[Turn]] = {}
    for mode, of_mode in first.items():
        shown = [p for p in of_mode if p.row["user"] in (None, "left") and p.row["quoted"] in (None, "own")]
        replies = shown[-1].before[1::2]
        for prompt, reply in itertools.zip_longest(shown, replies):
            turns = examples.setdefault(mode, [])
            turns.append(Turn("user", prompt.text or "", said.get(_key(prompt.row), {})))
            turns += [Turn("assistant", reply, {})] if reply else []
    return examples


def _frame(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["item"], row["script"], row["labels"]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["mode"], row["item"], row["template"], row["labels"]


def _answer(row: Row) -> str:
    if row["option_logprobs"] is None or None in row["option_logprobs"]:
        return "no answer" if row["option_logprobs"] is None else "one side alone"
    lean = lean_of(row)
    return f"{'right' if lean > 0 else 'left'}, by {number(abs(lean), 2, False)} nats a token"
