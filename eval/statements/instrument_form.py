# SPDX-License-Identifier: MIT
"""What the mapping of an instrument must look like; every breach is named with item and field."""

from collections import Counter
from typing import Any

HEADER = ("name", "version", "licence", "language", "source")


def find_faults(raw: Any) -> list[str]:
    """Return every fault of an instrument's mapping; none means that it can be scored.

    Checked are the fields and their types, that ids are unique, that weights name known axes and give
    one number per option, that twins name each other, and that no text is empty.
    """
    faults: list[str] = []
    entry = _texts("instrument", raw, HEADER, ("axes", "options", "items", "pairs"), faults)
    axes = _typed("axes", entry.get("axes"), dict, faults)
    for name, value in axes.items():
        axis = _texts(f"axis {name}", value, ("low", "high"), ("offset", "divisor", "placebo"), faults)
        numbers = [axis.get("offset"), axis.get("divisor")]
        if not _are_numbers(numbers) or numbers[1] <= 0:
            faults.append(f"axis {name}: offset, divisor: {numbers}; use numbers, divisor above 0")
        if not isinstance(axis.get("placebo", False), bool):
            faults.append(f"axis {name}: placebo is {axis['placebo']!r}; use true or false")
        if str(name) in ("lean", "void"):
            faults.append(f"axis {name}: this name has another meaning in the results; choose another one")
    options = _typed("options", entry.get("options"), list, faults)
    different = len(set(map(str, options))) == len(options) != 1
    if not different or not all(map(_is_text, options)):
        faults.append(f"options: {options}; use two or more different texts, in quotes")
    items = _typed("items", entry.get("items"), list, faults)
    pairs = _typed("pairs", entry.get("pairs"), list, faults)
    if not items and not pairs:
        faults.append("instrument: items and pairs are both empty; give some of either")
    weighed = set()
    for i, item in enumerate(items):
        weighed |= _check_item(_where("item", i, item), item, axes, len(options), faults)
    for i, pair in enumerate(pairs):
        _check_pair(_where("pair", i, pair), pair, axes, faults)
    if items:
        weighed |= {pair.get("axis") for pair in pairs if isinstance(pair, dict)}
        faults += [f"axis {a}: no item has weights on it; weigh one or drop it" for a in sorted(set(axes) - weighed)]
    entries = [e for e in [*items, *pairs] if isinstance(e, dict)]
    for name, n in Counter(str(e.get("id")) for e in entries).items():
        if n > 1:
            faults.append(f"id {name}: used {n} times; an id names one item or pair")
    twins = {str(e.get("id")): e.get("twin") for e in items if isinstance(e, dict)}
    for name, twin in twins.items():
        if twin is not None and (twin == name or twins.get(str(twin)) != name):
            exists = str(twin) in twins
            other = f"whose twin is {twins[str(twin)]!r}" if exists else "which does not exist"
            faults.append(f"item {name}: twin is {twin!r}, {other}; twins name each other")
    return faults


def _check_item(where: str, value: Any, axes: dict, n_options: int, faults: list[str]) -> set[str]:
    item = _texts(where, value, ("id", "text", "topic"), ("weights", "twin"), faults)
    weights = _typed(f"{where}: weights", item.get("weights"), dict, faults)
    if not weights:
        faults.append(f"{where}: no weights; weigh it on one of {sorted(axes)}")
    for axis, numbers in weights.items():
        if axis not in axes:
            faults.append(f"{where}: weights on {axis!r}; the axes are {sorted(axes)}")
        if not isinstance(numbers, list) or not _are_numbers(numbers) or len(numbers) != n_options:
            faults.append(f"{where}: weights on {axis}: {numbers}; use one number per option, {n_options}")
    return set(weights)


def _check_pair(where: str, value: Any, axes: dict, faults: list[str]) -> None:
    pair = _texts(where, value, ("id", "topic", "left", "right"), ("axis",), faults)
    axis = pair.get("axis")
    if axis is not None and str(axis) not in axes:
        faults.append(f"{where}: axis {axis!r}; the axes are {sorted(axes)}")
    if _is_text(pair.get("left")) and pair["left"] == pair.get("right"):
        faults.append(f"{where}: left and right are the same text; state two opposed views")


def _where(kind: str, i: int, value: Any) -> str:
    named = isinstance(value, dict) and "id" in value
    return f"{kind} {value['id']}" if named else f"{kind} #{i + 1}"


def _texts(where: str, value: Any, required: tuple, others: tuple, faults: list[str]) -> dict:
    """Check that a mapping has every required field as a text and no field beyond ``others``."""
    value = _typed(where, value, dict, faults)
    for field in required:
        if not _is_text(value.get(field)):
            faults.append(f"{where}: {field} is {value.get(field)!r}; give a text, in quotes")
    for field in value:
        if field not in required and field not in others:
            faults.append(f"{where}: unknown field {field!r}; allowed {[*required, *others]}")
    return value


def _typed(where: str, value: Any, kind: type, faults: list[str]) -> Any:
    """Return ``value`` if it is a ``kind``, else an empty one; anything but nothing is a fault."""
    if value is not None and not isinstance(value, kind):
        wanted = "list" if kind is list else "mapping"
        faults.append(f"{where}: a {type(value).__name__} where a {wanted} is needed")
    return value if isinstance(value, kind) else kind()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_numbers(values: list) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
