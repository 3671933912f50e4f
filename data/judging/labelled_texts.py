# SPDX-License-Identifier: MIT
"""Texts with people's labels, or with a model's recorded answers, read strictly from a table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data.judging.scales import JudgeScale
from data.pairs.rows import read_records
from data.pairs.sources import file_format


class Text(NamedTuple):
    """What is judged, and the statement or subject that it is about ("" where the scale needs none)."""

    text: str
    target: str


class LabelledTexts(NamedTuple):
    """Texts with the classes that people gave them.

    Attributes:
        texts: All of them.
        truth: The class of each.
        raters: Name of a further human rater to his classes, None where he gave none.
    """

    texts: list[Text]
    truth: list[str]
    raters: dict[str, list[str | None]]


def read_labelled(
    source: str,
    scale: JudgeScale,
    text: str,
    label: str,
    target: str | None,
    raters: Sequence[str],
    label_map: Mapping[str, str] | None,
) -> LabelledTexts:
    """Read a file of labelled texts.

    Args:
        source: CSV, TSV, JSONL or parquet.
        scale: Says which labels there are.
        text: Column of the texts.
        label: Column of the labels that a judge is compared with.
        target: Column of what each text is about; None: no such column.
        raters: Columns of single people's labels, which may have gaps.
        label_map: Labels as the file has them to labels of the scale; None: they are the scale's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, or a column, text or label is missing or unknown; names file and row.
    """
    if scale.name == "stance" and target is None:
        raise ValueError(f"{source}: a stance is one towards something; name its column in columns.target")
    mapped = {str(key): str(value) for key, value in (label_map or {}).items()}
    found = LabelledTexts([], [], {name: [] for name in raters})
    for number, row in _rows(source, [name for name in (text, label, target, *raters) if name]):
        where = f"{source} row {number}"
        content, about = _cell(row, text), _cell(row, target) if target else ""
        if not content or (target and not about):
            raise ValueError(f"{where}: {text if not content else target} is empty; mend or remove the row")
        found.texts.append(Text(content, about or ""))
        truth = _class(scale, _cell(row, label), mapped, where, label)
        if truth is None:
            raise ValueError(f"{where}: {label} is empty; every text needs a label")
        found.truth.append(truth)
        for name, given in found.raters.items():
            given.append(_class(scale, _cell(row, name), mapped, where, name))
    return found


def read_labels(source: str, column: str, text: str, target: str | None) -> dict[Text, str]:
    """Return the answers of one column, found by the text (and what it is about) that they answer.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, or one text has two answers.
    """
    answers: dict[Text, str] = {}
    for number, row in _rows(source, [name for name in (text, column, target) if name]):
        answer = _cell(row, column)
        if answer is None:
            continue
        key = Text(_cell(row, text) or "", (_cell(row, target) or "") if target else "")
        if answers.setdefault(key, answer) != answer:
            hint = "" if target else "; if one text is judged on several subjects, name their column in target_column"
            raise ValueError(
                f"{source} row {number}: {column} is {answer!r}, before {answers[key]!r} for this text{hint}"
            )
    return answers


def _rows(source: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    kind = file_format(source)
    if kind is None:
        raise FileNotFoundError(f"{source}: no such file; give a CSV, TSV, JSONL or parquet file")
    for number, row in read_records(source, kind):
        missing = [name for name in columns if not _has(row, name)]
        if missing:
            raise ValueError(f"{source} row {number}: no column {', '.join(missing)}; it has {', '.join(_names(row))}")
        yield number, row


def _has(row: Mapping[str, Any], name: str) -> bool:
    head, _, rest = name.partition("/")
    return name in row or (bool(rest) and isinstance(row.get(head), Mapping) and _has(row[head], rest))


def _names(row: Mapping[str, Any]) -> list[str]:
    return [
        name
        for key, value in row.items()
        for name in ([f"{key}/{inner}" for inner in _names(value)] if isinstance(value, Mapping) else [key])
    ]


def _cell(row: Mapping[str, Any], name: str) -> str | None:
    """Return what stands in a column as text; None if nothing does."""
    head, _, rest = name.partition("/")
    if name not in row:
        return _cell(row[head], rest)
    value = row[name]
    return None if value is None or not str(value).strip() else str(value)


def _class(scale: JudgeScale, cell: str | None, mapped: Mapping[str, str], where: str, column: str) -> str | None:
    if cell is None:
        return None
    try:
        return scale.class_of(mapped.get(cell.strip(), cell.strip()))
    except ValueError as error:
        raise ValueError(f"{where}: {column}: {error}; say what it means in label_map") from error
