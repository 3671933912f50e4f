# SPDX-License-Identifier: MIT
"""Every statement with the prompts under which it was put, and what each model answered."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data.recipe.figures import number, percent
from eval.scores.scoring import lean_of
from eval.statements.dialogues import DIALOGUE, IDENTITY
from eval.statements.instruments import Instrument, Item, Pair
from eval.statements.prompts import Prompt
from eval.statements.requests import WRITE

# Of a written answer.
MOST_LETTERS = 1200
ELSEWHERE = (WRITE, DIALOGUE, IDENTITY)  # modes that are shown by themselves
NO_PROMPT = "(no request: the statements alone)"


class Asked(NamedTuple):
    """One prompt, and what each model answered to it."""

    mode: str
    prompt: str
    said: dict[str, str]  # model to answer


class Statement(NamedTuple):
    """A statement or a pair of them, with everything that was asked about it."""

    id: str
    text: str
    axis: str
    asked: list[Asked]


def statement_texts(instrument: Instrument) -> dict[str, str]:
    """Return item or pair to its text."""
    texts = {item.id: item.text for item in instrument.items}
    return texts | {pair.id: f"{pair.left} ↔ {pair.right}" for pair in instrument.pairs}


def describe_statements(
    rows: Iterable[Mapping[str, Any]], instrument: Instrument, prompts: Iterable[Prompt], models: Sequence[str]
) -> dict[str, list[Statement]]:
    """Return topic to its statements, each with its prompts and the answers of these models.

    Of a template of options its first order is shown, and the first sample: the others are in ``results.jsonl``.
    """
    texts = {_key(prompt.row): prompt.text or NO_PROMPT for prompt in prompts}
    shown: dict[str, dict[tuple[Any, ...], Asked]] = {}
    for row in rows:
        if row["model"] in models and row["sample"] == 0 and row["mode"] not in ELSEWHERE:
            of_item = shown.setdefault(row["item"], {})
            # the first order and label set of a template
            first = of_item.setdefault((row["mode"], row["template"]), Asked(row["mode"], texts.get(_key(row), ""), {}))
            first.said.setdefault(row["model"], _said(row, instrument))
    entries: list[tuple[Item | Pair, str]] = [(item, ", ".join(item.weights)) for item in instrument.items]
    entries += [(pair, pair.axis or "lean") for pair in instrument.pairs]
    named, topics = statement_texts(instrument), dict[str, list[Statement]]()
    for entry, axis in entries:
        if entry.id in shown:
            statement = Statement(entry.id, named[entry.id], axis, list(shown[entry.id].values()))
            topics.setdefault(entry.topic or axis, []).append(statement)
    for item in sorted(shown.keys() - named.keys()):  # open prompts, which belong to no statement
        asked = list(shown[item].values())
        topics.setdefault("open prompts", []).append(Statement(item, asked[0].prompt or item, "", asked))
    return topics


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["mode"], row["item"], row["template"], str(row["order"]), row["labels"]


def _said(row: Mapping[str, Any], instrument: Instrument) -> str:
    """Return an answer as a reader sees it: the text that was written, or what was likeliest."""
    if row["text"] is not None:
        return row["text"][:MOST_LETTERS] + (" …" if len(row["text"]) > MOST_LETTERS else "")
    if row["mode"] == "pairs" and row["option_logprobs"]:
        lean = lean_of(row)
        return f"{'right' if lean > 0 else 'left'} likelier, by {number(abs(lean), 2, False)} nats a token"
    if row["choice"] is None:
        return "no answer"
    share = f" ({percent(row['option_mass'])} on all options)" if row["option_mass"] is not None else ""
    own = next((item.options for item in instrument.items if item.id == row["item"]), None)
    return f"{(own or instrument.options)[row['choice']]}{share}"
