# SPDX-License-Identifier: MIT
"""Importers: files in other forms become the mapping that an instrument's YAML holds.

An importer takes a file's name, its bytes and the columns to read; ``eval.statements.instruments`` validates what it
returns like any other instrument. ``docs/measure/instruments.md`` shows each format.
"""

import difflib
import json
import logging
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from data.pairs.rows import read_table
from data.recipe.files import load_yaml

# as TwinViews (Fulay et al. 2024, arXiv 2409.05283), and what a file may have besides
PAIR_COLUMNS = {"left": "l", "right": "r", "topic": "topic", "proposition": "proposition", "note": "note"}
OPTIONAL = ("proposition", "note")
# Requests of a bank: two a row, or one a row with what they share in ``pair``.
REQUEST_COLUMNS = {
    name: name for name in ("left", "right", "pro", "con", "neutral", "prompt", "pair", "side", "topic", "target")
}
_SIDES = ("neutral", "left", "right", "pro", "con")
ITEM_COLUMNS = {name: name for name in ("id", "text", "topic", "axis", "direction", "twin", "proposition", "note")}
# Points of the options for a statement whose direction is 1.
POINTS = {"strongly disagree": -2, "disagree": -1, "agree": 1, "strongly agree": 2}
# Answers of 8values and what they multiply an effect by, in the order of an instrument: disagreement first.
ANSWERS = {
    "strongly disagree": -1.0,
    "disagree": -0.5,
    "neutral or unsure": 0.0,
    "agree": 0.5,
    "strongly agree": 1.0,
}
UNVERSIONED = "unversioned"  # the version of a file that says none
# What 8values calls 0 and 100 % of its axes.
ENDS = {
    "econ": ("markets", "equality"),
    "dipl": ("nation", "globe"),
    "govt": ("authority", "liberty"),
    "scty": ("tradition", "progress"),
}

Columns = Mapping[str, str] | None

log = logging.getLogger(__name__)


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
    return read(file, content, {**known_columns, **(columns or {})})


def find_file(key: str, name: str, folder: str, suffix: str = ".yaml") -> Traversable:
    """Return the shipped file of a name, or the file at a path.

    Args:
        key: What the config calls it, for the message.
        name: Name without suffix, or path.
        folder: Of the shipped ones, in ``eval``.
        suffix: Of the shipped ones.

    Raises:
        FileNotFoundError: If there is neither; names the shipped ones.
    """
    shipped = resources.files("eval") / folder
    for file in (shipped / f"{name}{suffix}", Path(name)):
        if file.is_file():
            return file
    names = sorted(f.name.removesuffix(suffix) for f in shipped.iterdir() if f.name.endswith(suffix))
    raise FileNotFoundError(f"{key}={name}: no such file; give a path or one of {names}")


def read_yaml(file: str, content: bytes, columns: Mapping[str, str] | None = None) -> Any:
    """Return what a YAML file holds; one that cannot be read is a ValueError that names it. It has no columns."""
    try:
        return load_yaml(_decode(file, content))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not valid YAML: {error}") from error


def _read_pairs_csv(file: str, content: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    """Read two opposed statements a row."""
    pairs = []
    required = [field for field in PAIR_COLUMNS if field not in OPTIONAL]
    for number, row in enumerate(_rows(file, "csv", content, columns, required), start=1):
        pair = {field: (row.get(column) or "").strip() for field, column in columns.items()}
        if not all(pair[field] for field in required) or pair["left"] == pair["right"]:
            raise ValueError(f"{file}: data row {number}: {pair}; give a topic and two different statements")
        pairs.append({"id": f"row-{number}", **{field: text for field, text in pair.items() if text}})
    return {**_header(file), "pairs": pairs}


def _read_items(kind: str, file: str, content: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    """Read one statement a row, with named columns."""
    return _weigh(file, _rows(file, kind, content, columns, ["text"]), columns)


def _read_text(file: str, content: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    """Read one statement a line; blank lines do not count. PoliTune's form."""
    lines = [line.strip() for line in _decode(file, content).split("\n")]
    return _weigh(file, [{"text": line} for line in lines if line], ITEM_COLUMNS)


def _read_requests(file: str, content: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    """Read mirrored requests as they stand: a bank of one template, an issue for every two of them."""
    rows = _rows(file, "csv", content, columns, ())
    found = [{field: str(row[c]).strip() for field, c in columns.items() if row.get(c)} for row in rows]
    if all({"prompt", "pair"} <= {*row} for row in found):
        found = _paired(file, found)
    issues = []
    for number, row in enumerate(found, start=1):
        sides = [sides for sides in (("left", "right"), ("pro", "con")) if {*sides} <= {*row}]
        if len(sides) != 1:
            raise ValueError(
                f"{file} row {number}: it has {list(row)}; say which columns hold two mirrored requests, as "
                "instrument_columns.left=A instrument_columns.right=B (or pro and con, where no side is the left's), "
                "or instrument_columns.prompt=A instrument_columns.pair=B"
            )
        issue = {"id": row.get("pair", f"row-{number}"), "pro": row[sides[0][0]], "con": row[sides[0][1]]}
        issue |= {field: row[field] for field in ("neutral", "topic", "target") if field in row}
        issues.append(issue | ({"left": "pro"} if sides[0] == ("left", "right") else {}))
    return {**_header(file), "bank": {"issues": issues, "templates": [{"id": "as-it-stands", "text": "X"}]}}


def _paired(file: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return requests that share a pair as one row; without ``side`` the first is pro, the second con."""
    pairs: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=1):
        pair = pairs.setdefault(row["pair"], {})
        side = row.get("side") or ("con" if "pro" in pair else "pro")
        if side not in _SIDES or side in pair:
            raise ValueError(
                f"{file} row {number}: pair {row['pair']} has side {side!r}{' twice' if side in pair else ''}; "
                "use left and right, or pro and con, once each, and neutral"
            )
        pair |= {**row, side: row["prompt"]}
    return [{field: text for field, text in pair.items() if field not in ("prompt", "side")} for pair in pairs.values()]


def _decode(file: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error}); save it as UTF-8") from error


def _rows(
    file: str, kind: str, content: bytes, columns: Mapping[str, str], required: Collection[str]
) -> list[dict[str, Any]]:
    rows = read_table(file, kind, content)
    unread = {name.strip().lower(): name for row in rows for name in row if name not in columns.values()}
    for field, column in columns.items():
        likely = difflib.get_close_matches(column.lower(), unread, n=1, cutoff=0.8)
        if likely and not any(column in row for row in rows):
            raise ValueError(
                f"{file}: no column {column!r}, but one {unread[likely[0]]!r}; if it is that, give "
                f"instrument_columns.{field}={unread[likely[0]]!r}, else call it otherwise in the file"
            )
    if unread:
        log.warning("%s: not read: the columns %s", file, ", ".join(unread.values()))
    for number, row in enumerate(rows, start=1):
        if missing := [field for field in required if columns[field] not in row]:
            of_all = all(columns[field] not in other for other in rows for field in missing)
            where = file if of_all else f"{file} row {number}"
            keys = " ".join(f"instrument_columns.{field}=NAME" for field in missing)
            raise ValueError(
                f"{where}: no column {', '.join(columns[field] for field in missing)}; found {', '.join(row)}; "
                f"say which columns hold them: {keys}"
            )
    return rows


def _weigh(file: str, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    """Weigh statements by axis and direction; without them, on the one axis "agreement".

    The divisor of an axis lets its coordinates run from -10 to 10.
    """
    items: list[dict[str, Any]] = []
    largest: dict[str, float] = {}
    for number, row in enumerate(rows, start=1):
        given = {field: row[column] for field, column in columns.items() if row.get(column) not in (None, "")}
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
        largest[axis] = largest.get(axis, 0.0) + abs(direction) * max(POINTS.values())
        item = {
            "id": str(given.get("id", f"row-{number}")),
            "text": str(given.get("text", "")).strip(),
            "topic": str(given.get("topic", "none given")),
            "weights": {axis: [direction * p for p in POINTS.values()]},
        }
        items.append(item | {field: str(given[field]) for field in ("twin", *OPTIONAL) if field in given})
    ends = {axis: (f"low {axis}", f"high {axis}") for axis in largest} | {"agreement": ("disagree", "agree")}
    axes = {
        axis: {"low": ends[axis][0], "high": ends[axis][1], "offset": 0, "divisor": total / 10}
        for axis, total in largest.items()
    }
    return {**_header(file), "axes": axes, "options": list(POINTS), "items": items}


def _read_8values(file: str, content: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    """Read the questions of 8values or of a quiz that descends from it.

    They are a list of ``{"question": text, "effect": {axis: number}}``, as JSON or assigned to a name in JavaScript; a
    descendant may say ``effects`` and give an ``id``. The quiz shows ``100 (max + score) / (2 max)`` per cent, with
    ``score`` the sum of effect times answer and ``max`` the sum of absolute effects. That is
    ``(score + max) / (max / 50)``: offset ``max``, divisor ``max / 50``.
    """
    items: list[dict[str, Any]] = []
    largest: dict[str, float] = {}
    for number, entry in enumerate(_parse_javascript(file, _decode(file, content)), start=1):
        name = str(entry["id"]) if isinstance(entry, dict) and "id" in entry else f"q{number}"
        where = f"{file}: question {number} ({name})"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: a {type(entry).__name__}; use {{question: text, effect: {{axis: number}}}}")
        effects = entry.get("effect", entry.get("effects"))
        if not isinstance(effects, dict) or not effects:
            raise ValueError(f"{where}: effect is {effects!r}; give a number for each axis")
        for axis, effect in effects.items():
            if not isinstance(effect, int | float) or isinstance(effect, bool):
                raise ValueError(f"{where}: effect on {axis} is {effect!r}; give a number")
            largest[str(axis)] = largest.get(str(axis), 0) + abs(effect)
        # an effect of 0 says that the question is not about this axis, unless it is about none
        weighed = {axis: effect for axis, effect in effects.items() if effect or not any(effects.values())}
        weights = {str(axis): [effect * times for times in ANSWERS.values()] for axis, effect in weighed.items()}
        items.append({"id": name, "text": entry.get("question"), "topic": "none given", "weights": weights})
    if dead := [axis for axis, total in largest.items() if not total]:
        raise ValueError(f"{file}: no question has an effect on {dead}; drop these axes")
    axes = {}
    for axis, total in largest.items():
        low, high = ENDS.get(axis, (f"0 % {axis}", f"100 % {axis}"))
        axes[axis] = {"low": low, "high": high, "offset": total, "divisor": total / 50}
    return {**_header(file), "options": list(ANSWERS), "axes": axes, "items": items}


def _parse_javascript(file: str, text: str) -> list[Any]:
    """Read the list of a JSON or JavaScript file; YAML reads the literals that JSON does not."""
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*(?:export\s+)?(?:(?:const|let|var)\s+)?[\w.$]+\s*=\s*", "", text.strip())
    text = re.sub(r"^\s*export\s+default\s+", "", text).strip().rstrip(";")
    try:
        questions = json.loads(text)
    except json.JSONDecodeError as fault:
        try:
            questions = load_yaml(text.replace("\t", " "))
        except yaml.YAMLError:
            raise ValueError(f"{file}: line {fault.lineno}: not a JavaScript or JSON list ({fault.msg})") from fault
    if isinstance(questions, dict) and isinstance(questions.get("questions"), list):
        questions = questions["questions"]
    if not isinstance(questions, list) or not questions:
        raise ValueError(f'{file}: no list of questions; it must read [{{"question": …, "effect": {{…}}}}, …]')
    return questions


def _header(file: str) -> dict[str, str]:
    name = file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return {"name": name, "version": UNVERSIONED, "licence": "as the file's", "language": "en", "source": name}


# Name of the format: what reads it, and the columns that it has where none are named.
FORMATS: dict[str, tuple[Callable[[str, bytes, Mapping[str, str]], Any], Mapping[str, str]]] = {
    "yaml": (read_yaml, {}),
    "pairs_csv": (_read_pairs_csv, PAIR_COLUMNS),
    "requests_csv": (_read_requests, REQUEST_COLUMNS),
    "csv": (partial(_read_items, "csv"), ITEM_COLUMNS),
    "jsonl": (partial(_read_items, "json"), ITEM_COLUMNS),
    "text": (_read_text, {}),
    "8values": (_read_8values, {}),
}
