# SPDX-License-Identifier: MIT
"""What people are shown and may answer, blinded: the order of texts, of two answers and of the sides is drawn.

Every draw is a hash of the seed, the reviewer and the text, so it is the same in every run and does not move when rows
are added. The two sides change places from one reviewer to the next.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data.pairs.records import SIDES, split_rows
from data.pairs.rows import file_format, hub_rows, read_records

MODES = ("label", "prefer")
SKIP, REJECT, TIE = "skip", "reject", "tie"


class Item(NamedTuple):
    """One text, or a prompt and two answers.

    Attributes:
        id: Of its texts alone, whichever answer comes first.
        row: Of the source, from 1.
        texts: ``(text,)``, or ``(prompt, chosen, rejected)`` as the columns have them.
    """

    id: str
    row: int
    texts: tuple[str, ...]


class Button(NamedTuple):
    """One possible answer: the question that it answers, its value, what the page calls it, and its key."""

    question: str
    value: str
    label: str
    key: str


class Review:
    """The items of a source, and what may be answered to each.

    Args:
        mode: ``label`` (left, right or neither) or ``prefer`` (one of two answers).
        items: By id, in file order.
        left_out: Reason to the rows of the source that are not shown.
        reviewers: All of them; the sides change places by the place in this list.
        accept: Whether ``label`` also asks if a text may be used.
        seed: Of every draw.

    Raises:
        ValueError: If there is no such mode, or no item is left.
    """

    def __init__(
        self,
        mode: str,
        items: Mapping[str, Item],
        left_out: Mapping[str, list[int]],
        reviewers: Sequence[str],
        accept: bool = True,
        seed: int = 0,
    ) -> None:
        if not items:
            raise ValueError(f"no row can be shown: {', '.join(f'{k} ({len(v)})' for k, v in left_out.items())}")
        self.mode, self.items, self.left_out, self.seed = mode, dict(items), dict(left_out), seed
        self.reviewers = list(reviewers)
        self.questions = ("prefer",) if mode == "prefer" else ("side", "accept") if accept else ("side",)

    def order(self, reviewer: str) -> list[str]:
        """Return the ids in the order in which a reviewer sees them."""
        return sorted(self.items, key=lambda item: self._draw("order", reviewer, item))

    def shown(self, item: Item, reviewer: str) -> list[tuple[str, str]]:
        """Return heading and text of what a reviewer sees of an item; A and B in the order drawn."""
        if self.mode == "label":
            return [("Text", item.texts[0])]
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
            texts = dict(self.shown(item, reviewer))
            # a value tells neither the column nor the place: it means the same in every tab and under every seed
            sides = [Button("prefer", digest(texts[name]), name, name.lower()) for name in "AB"]
            return [*sides, Button("prefer", TIE, "Tie", "t"), skip]
        turn = (self._draw("sides") + self.reviewers.index(reviewer)) % 2
        sides = [*SIDES, "neither"] if turn == 0 else [*SIDES[::-1], "neither"]
        buttons = [Button("side", side, side.capitalize(), str(n)) for n, side in enumerate(sides, start=1)]
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
) -> tuple[dict[str, Item], dict[str, list[int]]]:
    """Read a source; each text is shown once, however often it occurs.

    Args:
        source: CSV, TSV, JSON, JSON Lines or parquet, or a repository of the Hub.
        mode: ``label`` reads the column ``text``, ``prefer`` reads ``prompt``, ``chosen`` and ``rejected``.
        column_map: From these names to the columns'.
        split: Split of a Hub repository.
        revision: Branch, tag or commit of a Hub repository.

    Returns:
        Items by id in file order, and reason to the rows left out.

    Raises:
        ConnectionError: If the Hub cannot be reached.
        FileNotFoundError: If there is no such file or repository.
        ValueError: If the source cannot be read or lacks a column; names file and row.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode}; use one of {', '.join(MODES)}")
    kind = file_format(source)
    rows = [row for _, row in read_records(source, kind)] if kind else list(hub_rows(source, split, revision))
    left_out: dict[str, list[int]] = {}
    if mode == "prefer":
        pairs, invalid = split_rows(rows, source, column_map)
        found: Iterable[tuple[int, tuple[str, ...]]] = ((p.row, (p.prompt, p.chosen, p.rejected)) for p in pairs)
        for row, reason in invalid:
            left_out.setdefault(reason, []).append(row)
    else:
        found = _texts(rows, source, column_map or {}, left_out)
    items: dict[str, Item] = {}
    for row, texts in found:
        first, *answers = texts
        item = Item(digest(first, *sorted(answers)), row, texts)
        if any(0xD800 <= ord(sign) < 0xE000 for text in texts for sign in text):
            left_out.setdefault("no Unicode text (half a surrogate pair)", []).append(row)
        elif items.setdefault(item.id, item) is not item:
            left_out.setdefault("duplicate", []).append(row)
    return items, left_out


def _texts(
    rows: Sequence[Mapping[str, Any]], source: str, column_map: Mapping[str, str], left_out: dict[str, list[int]]
) -> Iterable[tuple[int, tuple[str]]]:
    column = column_map.get("text", "text")
    if unknown := sorted({*column_map} - {"text"}):
        raise ValueError(f"column_map names {', '.join(unknown)}; mode=label reads one column, text")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if column not in columns:
        found = ", ".join(columns) or "none"
        raise ValueError(f"{source}: no column {column}; found {found}. Name it with column_map.text=NAME")
    for number, row in enumerate(rows, start=1):
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            yield number, (value,)
        else:
            kind = "is empty" if value is None or isinstance(value, str) else f"is {type(value).__name__}, not text"
            left_out.setdefault(f"{column} {kind}", []).append(number)
