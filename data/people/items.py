# SPDX-License-Identifier: MIT
"""The texts that people are shown and the answers that they may give, blinded.

The order of texts, of two answers and of the sides is drawn by a hash of the seed, the reviewer and the text: it is the
same in every run and does not move when rows are added. The two sides change places from one reviewer to the next.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data.judging.scales import LEAN_SCALE, PAIR, JudgeScale, load_scale
from data.pairs.formats import BadRow, no_column
from data.pairs.records import SIDES, split_rows, text_fault
from data.pairs.rows import load_rows

NEITHER, SKIP, REJECT, TIE = "neither", "skip", "reject", "tie"


class Item(NamedTuple):
    """One text, or a prompt and two answers."""

    id: str  # a hash of the texts, whichever answer comes first
    row: int  # of the source, from 1
    texts: tuple[str, ...]  # (text,), (text, target), or (prompt, chosen, rejected) as the columns have them


class Button(NamedTuple):
    """One possible answer to a question, and the key to press for it."""

    question: str
    value: str
    label: str
    key: str


class Review(NamedTuple):
    """The items of a source by id, the rows left out by reason, and the answers that each reviewer may give.

    The mode ``label`` asks for the side of a text, or for its class on another scale of judges, and, with ``accept``,
    whether it may be used; ``prefer`` asks for the better of two answers.
    """

    mode: str
    items: Mapping[str, Item]
    left_out: Mapping[str, list[int]]
    reviewers: Sequence[str]
    accept: bool = True
    seed: int = 0
    scale: JudgeScale = LEAN_SCALE

    @property
    def questions(self) -> tuple[str, ...]:
        """The questions about an item, in the order of the page."""
        if self.mode == "prefer":
            return ("prefer",)
        question = "side" if self.scale.name == LEAN_SCALE.name else "label"
        return (question, "accept") if self.accept else (question,)

    def order(self, reviewer: str) -> list[str]:
        """Return the ids in the order in which a reviewer sees them."""
        return sorted(self.items, key=lambda item: self._draw("order", reviewer, item))

    def shown(self, item: Item, reviewer: str) -> list[tuple[str, str]]:
        """Return heading and text of each part of an item; A and B in the order drawn."""
        if self.mode == "label":
            text, *target = item.texts
            return [*(("Statement or subject", about) for about in target), ("Text", text)]
        prompt, *answers = item.texts
        if self.is_exchanged(item, reviewer):
            answers.reverse()
        return [("Prompt", prompt), ("A", answers[0]), ("B", answers[1])]

    def is_exchanged(self, item: Item, reviewer: str) -> bool:
        """Return whether a reviewer sees the rejected answer as A."""
        return self._draw("answers", reviewer, item.id) % 2 == 1

    def buttons(self, item: Item, reviewer: str) -> list[Button]:
        """Return all answers that a reviewer may give to an item, in the order of the page."""
        skip = Button(SKIP, SKIP, "Skip", "s")
        if self.mode == "prefer":
            _, *answers = self.shown(item, reviewer)
            # a value tells neither the column nor the place: it means the same in every tab and under every seed
            either = [Button("prefer", digest(text), name, name.lower()) for name, text in answers]
            return [*either, Button("prefer", TIE, "Tie", "t"), skip]
        is_turned = (self._draw("sides") + self.reviewers.index(reviewer)) % 2
        left, right = reversed(SIDES) if is_turned else SIDES
        if self.questions[0] == "side":
            labels = {side: side for side in (left, right, NEITHER)}
        else:  # a scale without sides keeps its order
            places = dict(zip(SIDES, (left, right)))
            labels = {name: self.scale.meanings[name] for name in (places.get(x, x) for x in self.scale.classes)}
        buttons = [
            Button(self.questions[0], name, meaning.capitalize(), str(n))
            for n, (name, meaning) in enumerate(labels.items(), start=1)
        ]
        if "accept" in self.questions:
            buttons += [Button("accept", "accept", "Accept", "a"), Button("accept", REJECT, "Reject", "r")]
        return [*buttons, skip]

    def is_done(self, given: Mapping[str, str]) -> bool:
        """Return whether nothing more is asked, from question to answer; skipping or rejecting ends an item."""
        return SKIP in given or given.get("accept") == REJECT or given.keys() >= set(self.questions)

    def _draw(self, *parts: str) -> int:
        return int(digest(str(self.seed), *parts), 16)


def digest(*texts: str) -> str:
    """Return 16 hexadecimal digits that stand for texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def read_items(
    source: str,
    mode: str,
    column_map: Mapping[str, str] | None = None,
    split: str = "train",
    revision: str | None = None,
    name: str | None = None,
    scale: str = LEAN_SCALE.name,
) -> tuple[dict[str, Item], dict[str, list[int]]]:
    """Read a file, or a repository of the Hub, and return the items by id in file order, and the rows left out.

    ``column_map`` leads from ``text`` (and ``target``, what it is about, for ``scale=stance``), or ``prompt``,
    ``chosen`` and ``rejected``, to the columns' names.
    """
    if mode not in ("label", "prefer"):
        raise ValueError(f"mode={mode}; use one of label, prefer")
    load_scale(scale)
    if scale == PAIR.name:
        raise ValueError("scale=pair compares two answers; use mode=prefer")
    rows, origin = load_rows(source, None, split, revision, name)
    texts_by_row: Iterable[tuple[int, tuple[str, ...]]]
    if mode == "prefer":
        pairs, invalid = split_rows(rows, origin, column_map)
        texts_by_row = [(pair.row, pair[1:4]) for pair in pairs]
    else:
        texts_by_row, invalid = _read_texts(rows, origin, column_map or {}, scale == "stance")
    left_out: dict[str, list[int]] = defaultdict(list)
    for row, reason in invalid:
        left_out[reason].append(row)
    items: dict[str, Item] = {}
    for row, texts in texts_by_row:
        first, *answers = texts
        item = Item(digest(first, *sorted(answers)), row, texts)
        if items.setdefault(item.id, item) is not item:
            left_out["duplicate"].append(row)
    return items, dict(left_out)


def _read_texts(
    rows: Sequence[Mapping[str, Any]], source: str, column_map: Mapping[str, str], with_target: bool
) -> tuple[list[tuple[int, tuple[str, ...]]], list[BadRow]]:
    """Return row and text (and target) of those that have one, and row and reason of the others."""
    wanted = ("text", "target") if with_target else ("text",)
    if unknown := sorted({*column_map} - {*wanted}):
        read = "two columns, text and target" if with_target else "one column, text"
        raise ValueError(f"column_map names {', '.join(unknown)}; mode=label reads {read}")
    columns = [column_map.get(name, name) for name in wanted]
    found = list(dict.fromkeys(name for row in rows for name in row))
    if missing := [column for column in columns if column not in found]:
        needed = [f"column_map.{name}" for name, column in zip(wanted, columns) if column in missing]
        raise ValueError(no_column(source, missing, needed, found))
    texts: list[tuple[int, tuple[str, ...]]] = []
    invalid = []
    for number, row in enumerate(rows, start=1):
        cells = tuple("" if row.get(column) is None else row[column] for column in columns)
        if reason := next(filter(None, map(text_fault, columns, cells)), None):
            invalid.append(BadRow(number, reason))
        else:
            texts.append((number, cells))
    return texts, invalid
