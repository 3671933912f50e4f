# SPDX-License-Identifier: MIT
"""What a training set has argued of an instrument: of each entry, its proposition, only its topic, or neither.

A shift on propositions that the training argues may be learning of these propositions; a shift on unseen topics cannot.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data.pairs import records
from data.pairs.rows import load_rows, read_table
from data.quality.contamination import is_row_held_out
from data.quality.propositions import PromptIndex
from eval.statements.instruments import Instrument, Item, Pair

Exposure = Literal["seen proposition", "seen topic", "unseen"]
EXPOSURES: tuple[Exposure, ...] = ("seen proposition", "seen topic", "unseen")
# The columns that say what a row argues; without one its wording alone is compared.
SAYING = ("propositions", "proposition", "topics", "topic")
KEYS = "propositions.jsonl"  # beside a training set: its rows' propositions and topics, by their id


class Taught(NamedTuple):
    """What a training set argues; where ``unkeyed`` rows have no proposition, their prompts are compared by meaning.

    ``no_topics``: the sets with rows that have neither proposition nor topic, so that on these rows' topics nothing is
    known to be unseen.
    """

    propositions: frozenset[str]
    topics: frozenset[str]
    unkeyed: tuple[Mapping[str, Any], ...] = ()
    no_topics: tuple[str, ...] = ()


def read_sources(sources: Iterable[str | Mapping[str, Any]]) -> Taught:
    """Read what sets argue that are named as the contamination check names them: :func:`read_sentences` there.

    The keys of a row are its columns ``propositions`` and ``topics`` (lists) or ``proposition`` and ``topic``, or those
    that ``propositions.jsonl`` beside the file gives its ``id``.

    A mapping may also have ``where`` and ``hold_out``, as a dataset of the trainer takes them: only these rows were
    trained on; or ``rows``, the numbers of those, from 1. Limits of a measured number (``{rank: {file:
    influence.jsonl, above: 30}}``) are left out: the rows beyond them count as argued, since what their numbers are is
    known of the answers as they were chosen alone.

    Raises:
        OSError, ValueError: If a set cannot be read from here.
    """
    rows: list[Mapping[str, Any]] = []
    no_topics: dict[str, None] = {}
    read: set[tuple[str, str, str, int]] = set()  # the rows that two trainings took are there once
    for source in sources:
        spec: dict[str, Any] = {"source": source} if isinstance(source, str) else dict(source)
        columns: Mapping[str, str] = spec.pop("column_map", None) or {}
        hold_out = spec.pop("hold_out", None) or 0
        keys = _keys(Path(spec["source"]).with_name(KEYS)) if Path(spec["source"]).is_file() else {}
        where = spec.pop("where", None) or {}
        values = {column: wanted for column, wanted in where.items() if not isinstance(wanted, Mapping)}
        taken = spec.pop("rows", None)
        rows_of_set, origin = load_rows(**spec)
        numbers = range(1, len(rows_of_set) + 1) if taken is None else taken
        numbered = [records.Pair(number, "", "", "") for number in numbers]
        for kept in records.keep_where(numbered, rows_of_set, values, origin):
            row = rows_of_set[kept.row - 1]
            place = (origin, str(spec.get("split", "train")), str(spec.get("revision")), kept.row)
            if place in read or is_row_held_out(row, columns, hold_out):
                continue
            read.add(place)
            named = {field: row.get(column) for field, column in columns.items()}
            rows.append({**row, **named, **keys.get(str(row.get("id")), {})})
            if all(rows[-1].get(column) in (None, "", []) for column in SAYING):
                no_topics[origin] = None
    return taught(rows)._replace(no_topics=tuple(no_topics))


def taught(rows: Iterable[Mapping[str, Any]]) -> Taught:
    """Return what rows of a training set argue, by their keys, and the rows that have none."""
    propositions: set[str] = set()
    topics: set[str] = set()
    unkeyed = []
    for row in rows:
        topics |= _texts(row, "topics", "topic")
        argued = _texts(row, "propositions", "proposition")
        propositions |= argued
        if not argued:
            unkeyed.append(row)
    return Taught(frozenset(propositions), frozenset(topics), tuple(unkeyed))


def without_topics(files: Iterable[str]) -> str:
    """Return what is said of training sets whose rows do not say their topics."""
    return f"no topic in rows of {', '.join(files)}: what is unseen is told by wording alone"


def exposures(instrument: Instrument, taught: Taught) -> dict[str, Exposure]:
    """Return for the id of every item and pair what the training has argued of it.

    ``seen proposition``: a row has its proposition's key, or a row without a key means it
    (``data.quality.propositions``). ``seen topic``: a row has its topic. ``unseen``: neither. Twins have one class.
    """
    index = PromptIndex(taught.unkeyed) if taught.unkeyed else None
    texts = {item.id: item.text for item in instrument.items}
    classes: dict[str, Exposure] = {}
    entries: tuple[Item | Pair, ...] = (*instrument.items, *instrument.pairs)
    for entry in entries:
        if isinstance(entry, Pair):
            about = [entry.left, entry.right]
        else:
            about = [entry.text, *([texts[entry.twin]] if entry.twin else [])]
        is_matched = index is not None and index.nearest(about, entry.topic).is_match
        if entry.proposition in taught.propositions or is_matched:
            classes[entry.id] = "seen proposition"
        else:
            classes[entry.id] = "seen topic" if entry.topic in taught.topics else "unseen"
    return classes


def _keys(file: Path) -> dict[str, Mapping[str, Any]]:
    """Return the propositions and topics of rows by their ids, from the file beside a training set."""
    if not file.is_file():
        return {}
    keys: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(read_table(str(file)), start=1):
        if set(row) != {"id", "propositions", "topics"} or not isinstance(row["id"], str):
            raise ValueError(
                f"{file}: row {number} has {list(row)}; want id, propositions and topics, the last two lists"
            )
        keys[row["id"]] = {"propositions": row["propositions"], "topics": row["topics"]}
    return keys


def _texts(row: Mapping[str, Any], many: str, one: str) -> set[str]:
    """Return what a row says in its column for several or in that for one."""
    given = row.get(many) or [row.get(one)]
    return {str(value) for value in ([given] if isinstance(given, str) else given) if value}
