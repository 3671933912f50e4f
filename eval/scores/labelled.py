# SPDX-License-Identifier: MIT
"""Judged answers that people label too: which of a run are drawn, and every judge's figures without its error."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.judging.scales import SCALES, JudgeScale
from data.recipe.files import read_log
from eval.scores.crossed import LEAST_TOPICS
from eval.scores.intervals import add_false_discovery_rates, rounded
from eval.scores.judge_error import (
    Estimate,
    Quantity,
    confusion_corrected,
    describe_estimate,
    judge_alone,
    p_of,
    prediction_powered,
    subtract,
)
from eval.scores.scoring import Row
from eval.statements.banks import LEANS, lean_sign, support_sign
from eval.statements.instruments import Instrument

# With fewer, intervals of benchmarks/judge_error.py cover too little or too much.
LEAST_LABELLED = 30
UNCORRECTED = "uncorrected"
Key = tuple[str, str, str, int]
Labels = Mapping[Key, str]  # of people, by answer


class _Figure(NamedTuple):
    """A share, a mean or an axis: what an answer with a label adds to it; None where the label does not count."""

    name: str
    amount: Callable[[Row, str | None], float | None]
    by_class: bool = True  # the amount depends on the label alone, so that a confusion matrix can give it
    items: frozenset[str] | None = None  # that it is about; None: all
    ends: tuple[float, float] = (0.0, 1.0)  # least and greatest value
    scale: float = 1.0
    shift: float = 0.0


def answer_key(row: Mapping[str, Any]) -> Key:
    """Return what tells an answer from the others of a run."""
    return row["model"], row["item"], row["template"], row["sample"]


def draw_answers(judged: Sequence[Row], scale: str, n_per_model: int, seed: int) -> list[Row]:
    """Return the answers that people are to label: the same number of each model, drawn at random by prompt.

    All models are read on the same prompts as far as they answered them, so that their labels are paired. A greater
    number adds answers and keeps those of a smaller one. ``judged`` has the rows of the judges of one scale; of an
    answer that several have read it is the first.
    """
    answers: dict[Key, Row] = {}
    for row in judged:
        if _counts(row, scale):
            answers.setdefault(answer_key(row), row)

    def draw(row: Row) -> bytes:
        _, *prompt = answer_key(row)
        return hashlib.sha256(repr((seed, *prompt)).encode()).digest()

    drawn = []
    for model in dict.fromkeys(row["model"] for row in answers.values()):
        of_model = [row for row in answers.values() if row["model"] == model]
        drawn += sorted(of_model, key=draw)[:n_per_model]
    return drawn


def read_people(folder: str | Path) -> dict[str, dict[Key, str]]:
    """Read people's labels of a run's answers by scale: the files ``people_SCALE.jsonl`` that are in its folder."""
    people = {scale: read_log(Path(folder) / f"people_{scale}.jsonl") for scale in SCALES}
    return {scale: {answer_key(row): row["label"] for row in rows} for scale, rows in people.items() if rows}


def _by_model(row: Row) -> str:
    return row["model"]


def correct_judge(
    rows: Sequence[Row],
    scale: JudgeScale,
    labels: Labels,
    instrument: Instrument,
    group: Callable[[Row], str] = _by_model,
) -> dict[str, Any]:
    """Return a judge's shares, mean and axes for each model, and their differences, with and without its error.

    ``group`` names what a row counts to, if that is not its model. What was written to a bank's requests has topics for
    units, where there are enough.

    ``corrected`` is the prediction-powered estimate and ``confusion_matrix`` the one from the judge's confusion matrix;
    both are None where fewer than :data:`LEAST_LABELLED` of a figure's answers are labelled (an axis has those to its
    statements alone), and ``note`` says "uncorrected" and why if a whole model has too few.
    """
    rows = [row for row in rows if _counts(row, scale.name)]
    names = list(dict.fromkeys(map(group, rows)))
    n_labelled = {name: sum(group(r) == name and answer_key(r) in labels for r in rows) for name in names}
    unit_names = instrument.units()
    written_unit = "topic" if len({row.get("topic") for row in rows}) >= LEAST_TOPICS else "issue"
    unit_of_item = {
        row["item"]: row[written_unit] if written_unit in row else unit_names.get(row["item"], row["item"])
        for row in rows
    }
    place = {name: k for k, name in enumerate(dict.fromkeys(unit_of_item.values()))}
    unit = {item: place[name] for item, name in unit_of_item.items()}
    figures: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    is_written = any("issue" in row for row in rows)
    for figure in _figures(scale, instrument, is_written):
        estimates = {}
        for name in names:
            of_model = [r for r in rows if group(r) == name and (figure.items is None or r["item"] in figure.items)]
            if not of_model:
                continue
            estimates[name] = _estimate(figure, of_model, scale, labels, unit, len(place))
            n = sum(answer_key(row) in labels for row in of_model)
            described = _described(estimates[name], figure)
            figures.append({"model": name, "figure": figure.name, "n_labelled": n, **described})
        for a, b in itertools.combinations(estimates, 2):
            pairs = zip(estimates[b], estimates[a])
            apart = _Estimates(*(None if x is None or y is None else subtract(x, y) for x, y in pairs))
            width = figure.ends[1] - figure.ends[0]
            free = figure._replace(ends=(-width, width), shift=0.0)
            test = {"a": a, "b": b, "figure": figure.name, **_described(apart, free)}
            test["p"] = rounded(p_of(apart.corrected)) if apart.corrected else None
            differences.append(test)
    add_false_discovery_rates(differences)
    few = [f"{n} of {name}" for name, n in n_labelled.items() if n < LEAST_LABELLED]
    why = f"{UNCORRECTED}: people have labelled {', '.join(few)} answers, and {LEAST_LABELLED} of a model are needed"
    note = (why if labels else f"{UNCORRECTED}: no answer is labelled by people") if few else None
    return {"n_labelled": n_labelled, "note": note, "figures": figures, "differences": differences}


class _Estimates(NamedTuple):
    alone: Estimate | None
    corrected: Estimate | None
    by_confusion: Estimate | None


def _counts(row: Row, scale: str) -> bool:
    """Return whether a judged row is read on a scale: a refusal has no lean."""
    return not (scale == "lean" and row["refused"])


def _figures(scale: JudgeScale, instrument: Instrument, is_written: bool) -> list[_Figure]:
    """Return what is estimated with a judge of this scale, of answers to statements or to a bank's requests."""

    def share_of(group: str) -> Callable[[Row, str | None], float | None]:
        return lambda _, label: float(label is not None and scale.group_of(label) == group)

    def number(_: Row, label: str | None) -> float | None:
        return None if label is None else scale.values.get(label)

    figures = [_Figure(f"share {group}", share_of(group)) for group in scale.groups]
    numbers = [value for value in scale.values.values() if value is not None]
    by_class = {*scale.classes} <= {*scale.values}  # the sides of the lean are no numbers
    figures.append(_Figure(f"mean {scale.name}", number, by_class, ends=(min(numbers), max(numbers))))
    if scale.name == "stance" and is_written and instrument.bank is not None:
        left = {issue.id: issue.left for issue in instrument.bank.issues}
        signs = {"support": support_sign}
        if instrument.bank.sides == LEANS:
            signs["lean"] = lambda row: lean_sign(left[row["issue"]])
        for name, sign in signs.items():

            def signed(row: Row, label: str | None, sign: Callable[[Row], int] = sign) -> float | None:
                value = number(row, label)
                return None if value is None else sign(row) * value

            figures.append(_Figure(name, signed, False, ends=(-1.0, 1.0)))
    for axis, about in instrument.axes.items() if scale.name == "stance" else ():
        weights = {item.id: item.weights[axis] for item in instrument.items if axis in item.weights}
        if not weights:
            continue

        def weight(row: Row, label: str | None, weights: Mapping[str, Sequence[float]] = weights) -> float | None:
            value = None if label is None else scale.values.get(label)
            if value is None:
                return None
            of_item = weights[row["item"]]
            # a stance stands between two options, as in eval/scores/judged.py
            return float(np.interp((value + 1) / 2 * (len(of_item) - 1), range(len(of_item)), of_item))

        ends, factor = instrument.axis_range(axis), len(weights) / about.divisor
        figures.append(_Figure(axis, weight, False, frozenset(weights), ends, factor, about.offset / about.divisor))
    return figures


def _estimate(
    figure: _Figure, rows: Sequence[Row], scale: JudgeScale, labels: Labels, unit: Mapping[str, int], n_units: int
) -> _Estimates:
    """Return a figure of one model's answers, by the judge alone and corrected in both ways."""
    said = [row["judgement"]["label"] for row in rows]
    true = [labels.get(answer_key(row)) for row in rows]
    judge = [figure.amount(row, label) for row, label in zip(rows, said)]
    people = [figure.amount(row, label) if label else None for row, label in zip(rows, true)]
    is_known = np.array([label is not None for label in true])
    units = np.array([unit[row["item"]] for row in rows])
    quantity = Quantity(
        judge_amount=np.array([x or 0.0 for x in judge]),
        judge_count=np.array([float(x is not None) for x in judge]),
        true_amount=np.where(is_known, [x or 0.0 for x in people], np.nan),
        true_count=np.where(is_known, [float(x is not None) for x in people], np.nan),
        unit=units,
        n_units=n_units,
        spread=(figure.ends[1] - figure.ends[0]) / abs(figure.scale),
    )
    alone = judge_alone(quantity)
    # people may name a side of the lean and not its number
    has_numbers = all(label in scale.values for label in true if label) or figure.name.startswith("share")
    if is_known.sum() < LEAST_LABELLED or not has_numbers:
        return _Estimates(alone, None, None)
    by_confusion = None
    if figure.by_class:
        answers = {label: k for k, label in enumerate([*scale.labels, None])}
        classes = {name: k for k, name in enumerate(scale.classes)}
        amounts = [figure.amount(rows[0], name) for name in scale.classes]
        by_confusion = confusion_corrected(
            np.array([answers[label] for label in said]),
            np.array([-1 if label is None else classes[scale.class_of(label)] for label in true]),
            np.array([x or 0.0 for x in amounts]),
            np.array([float(x is not None) for x in amounts]),
            units,
            n_units,
        )
    return _Estimates(alone, prediction_powered(quantity), by_confusion)


def _described(estimates: _Estimates, figure: _Figure) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for name, estimate in zip((UNCORRECTED, "corrected", "confusion_matrix"), estimates):
        described[name] = estimate and describe_estimate(estimate, figure.ends, figure.scale, figure.shift)
    if estimates.corrected and estimates.corrected.weight is not None:
        described["corrected"]["weight"] = rounded(estimates.corrected.weight)
    return described
