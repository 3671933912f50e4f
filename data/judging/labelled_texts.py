# SPDX-License-Identifier: MIT
"""Texts with people's labels, or with a model's recorded answers, read strictly from a table."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data.judging.scales import JudgeScale
from data.pairs.rows import read_records


class Text(NamedTuple):
    """A text to judge, and the statement or subject that it is about ("" where the scale needs none)."""

    text: str
    target: str


class LabelledTexts(NamedTuple):
    """Texts with their true classes, and the classes by further human raters (None where one gave none)."""

    texts: list[Text]
    truth: list[str]
    raters: dict[str, list[str | None]]


def read_labelled(
    source: str,
    scale: JudgeScale,
    *,
    text: str = "text",
    label: str = "label",
    target: str | None = None,
    raters: Sequence[str] = (),
    label_map: Mapping[str, str] | None = None,
) -> LabelledTexts:
    """Read labelled texts from a CSV, TSV, JSONL or parquet file; an error names file and row.

    Columns are named by ``text``, ``label``, ``target`` (what a text is about) and ``raters`` (single people's labels,
    which may have gaps). ``label_map`` says which label of the scale is meant by one of the file.
    """
    if scale.name == "stance" and target is None:
        raise ValueError(f"{source}: a stance is one towards something; name its column in columns.target")
    mapped = {str(key): str(value) for key, value in (label_map or {}).items()}
    labelled = LabelledTexts([], [], {name: [] for name in raters})
    for where, cells in _rows(source, [name for name in (text, label, target, *raters) if name]):
        if empty := [name for name in (text, target) if name and name not in cells]:
            raise ValueError(f"{where}: {empty[0]} is empty; mend or remove the row")
        if label not in cells:
            raise ValueError(f"{where}: {label} is empty; every text needs a label")
        classes: dict[str, str] = {}
        for column in [name for name in (label, *raters) if name in cells]:
            name = cells[column].strip()
            try:
                classes[column] = scale.class_of(mapped.get(name, name))
            except ValueError as error:
                hint = "say in label_map (eval/validate_judge.py) what it means, or mend the row"
                raise ValueError(f"{where}: {column}: {error}; {hint}") from error
        labelled.texts.append(Text(cells[text], cells[target] if target else ""))
        labelled.truth.append(classes[label])
        for rater, given in labelled.raters.items():
            given.append(classes.get(rater))
    return labelled


def read_labels(source: str, column: str, text: str, target: str | None) -> dict[Text, str]:
    """Return the answers of one column by the text, and what it is about, that they answer."""
    answers: dict[Text, str] = {}
    for where, cells in _rows(source, [name for name in (text, column, target) if name]):
        if column not in cells:
            continue
        key = Text(cells.get(text, ""), cells.get(target, "") if target else "")
        if answers.setdefault(key, cells[column]) != cells[column]:
            hint = "" if target else "; if one text is judged on several subjects, name their column in target_column"
            raise ValueError(f"{where}: {column} is {cells[column]!r}, before {answers[key]!r} for this text{hint}")
    return answers


def _rows(source: str, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield file and row number for messages, and the text of each cell that is not empty."""
    for number, row in read_records(source):
        values = _flat(row)
        where = f"{source} row {number}"
        if missing := [name for name in columns if name not in values]:
            raise ValueError(f"{where}: no column {', '.join(missing)}; it has {', '.join(values)}")
        yield where, {name: str(x) for name, x in values.items() if x is not None and str(x).strip()}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row by column; ``a/b`` is the field ``b`` of the column ``a``."""
    values: dict[str, Any] = {}
    for column, value in row.items():
        if isinstance(value, Mapping):
            values |= {f"{column}/{field}": inner for field, inner in _flat(value).items()}
        else:
            values[column] = value
    return values
