# SPDX-License-Identifier: MIT
"""Importers: files in other forms become the mapping that an instrument's YAML holds.

An importer takes a file's name, its text and the columns to read; ``eval.statements.instruments`` validates what it
returns like any other instrument. ``docs/measure/instruments.md`` shows each format.
"""

import csv
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from eval.statements.javascript_banks import read_javascript

log = logging.getLogger(__name__)

PAIR_COLUMNS = {"left": "l", "right": "r", "topic": "topic"}  # as TwinViews (Fulay et al. 2024, arXiv 2409.05283)
ITEM_COLUMNS = {name: name for name in ("id", "text", "topic", "axis", "direction", "twin")}
OPTIONS = ["strongly disagree", "disagree", "agree", "strongly agree"]
# Points of the options for a statement whose direction is 1.
POINTS = [-2, -1, 1, 2]

Columns = Mapping[str, str] | None


def read_instrument(file: str, content: bytes, instrument_format: str, columns: Columns = None) -> dict[str, Any]:
    """Read a file of any format.

    Raises:
        ValueError: If the format is unknown, the file is not of it, or it takes no columns.
    """
    if instrument_format not in FORMATS:
        raise ValueError(f"instrument_format={instrument_format}; use one of {', '.join(FORMATS)}")
    if instrument_format == "yaml" and Path(file).suffix in (".csv", ".jsonl", ".txt", ".js"):
        raise ValueError(f"{file}: not YAML by its name; add instrument_format=, one of {', '.join(FORMATS)}")
    read, known_columns = FORMATS[instrument_format]
    if columns and not known_columns:
        with_columns = [name for name, (_, known) in FORMATS.items() if known]
        raise ValueError(
            f"{file}: instrument_columns is for instrument_format={'/'.join(with_columns)}; set it to null"
        )
    if unknown := set(columns or {}) - set(known_columns):
        raise ValueError(f"instrument_columns: unknown {sorted(unknown)}; allowed {sorted(known_columns)}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error}); save it as UTF-8") from error
    return read(file, text, {**known_columns, **(columns or {})})


def _read_yaml(file: str, text: str, columns: Mapping[str, str]) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not valid YAML: {error}") from error


def _read_pairs_csv(file: str, text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """Two opposed statements a row."""
    pairs = []
    for number, row in enumerate(_csv_rows(file, text, columns, required=PAIR_COLUMNS), start=1):
        pair = {field: (row[column] or "").strip() for field, column in columns.items()}
        if not all(pair.values()) or pair["left"] == pair["right"]:
            raise ValueError(f"{file}: data row {number}: {pair}; give a topic and two different statements")
        pairs.append({"id": f"row-{number}", **pair})
    return {**_header(file), "pairs": pairs}


def _read_items_csv(file: str, text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """One statement a row, with named columns."""
    return _from_rows(file, _csv_rows(file, text, columns, required=("text",)), columns)


def _read_items_jsonl(file: str, text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """One statement a line, as a JSON object."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}: line {number}: not JSON ({error.msg})") from error
        if not isinstance(row, dict) or columns["text"] not in row:
            raise ValueError(
                f"{file}: line {number}: no field {columns['text']!r}; found {sorted(row) if row else row}; "
                "say which field holds the statement: instrument_columns.text=NAME"
            )
        rows.append(row)
    return _from_rows(file, rows, columns)


def _read_text(file: str, text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """One statement a line; blank lines do not count. PoliTune's form."""
    rows = [{"text": line.strip()} for line in text.splitlines() if line.strip()]
    return _from_rows(file, rows, ITEM_COLUMNS)


def _from_rows(file: str, rows: list[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    """Weigh statements by axis and direction; without them, on the one axis "agreement".

    The divisor of an axis lets its coordinates run from -10 to 10.
    """
    items, largest = [], {}
    for number, row in enumerate(rows, start=1):
        given = {field: row.get(column) for field, column in columns.items()}
        given = {field: value for field, value in given.items() if value not in (None, "")}
        try:
            direction = float(given.get("direction", 1))
        except (TypeError, ValueError):
            direction = 0.0
        if not direction or direction != direction:
            raise ValueError(
                f"{file}: data row {number}: {columns['direction']} is {given['direction']!r}; use 1 where agreeing "
                "points to the high end of the axis, -1 where it points to the low end"
            )
        axis = str(given.get("axis", "agreement"))
        largest[axis] = largest.get(axis, 0.0) + abs(direction) * max(POINTS)
        item = {
            "id": str(given.get("id", f"row-{number}")),
            "text": str(given.get("text", "")).strip(),
            "topic": str(given.get("topic", "none given")),
            "weights": {axis: [direction * p for p in POINTS]},
        }
        items.append(item | ({"twin": str(given["twin"])} if "twin" in given else {}))
    ends = {axis: (f"low {axis}", f"high {axis}") for axis in largest} | {"agreement": ("disagree", "agree")}
    axes = {
        axis: {"low": ends[axis][0], "high": ends[axis][1], "offset": 0, "divisor": total / 10}
        for axis, total in largest.items()
    }
    return {**_header(file), "axes": axes, "options": OPTIONS, "items": items}


def _read_8values(file: str, text: str, columns: Mapping[str, str]) -> dict[str, Any]:
    return {**_header(file), **read_javascript(file, text)}


def _csv_rows(file: str, text: str, columns: Mapping[str, str], required: Any) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    found = reader.fieldnames or []
    if missing := [columns[field] for field in required if columns[field] not in found]:
        raise ValueError(
            f"{file}: no column {missing}; found {found}; say which columns hold them, "
            f"such as instrument_columns.{next(iter(required))}=NAME"
        )
    return list(reader)


def _header(file: str) -> dict[str, str]:
    name = file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return {"name": name, "version": "unversioned", "licence": "as the file's", "language": "en", "source": name}


# Name of the format: what reads it, and the columns that it has where none are named.
FORMATS: dict[str, tuple[Callable[[str, str, Mapping[str, str]], Any], Mapping[str, str]]] = {
    "yaml": (_read_yaml, {}),
    "pairs_csv": (_read_pairs_csv, PAIR_COLUMNS),
    "csv": (_read_items_csv, ITEM_COLUMNS),
    "jsonl": (_read_items_jsonl, ITEM_COLUMNS),
    "text": (_read_text, {}),
    "8values": (_read_8values, {}),
}
