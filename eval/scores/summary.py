# SPDX-License-Identifier: MIT
"""``summary.json``: everything that the rows of ``results.jsonl`` say, computed from them alone."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.scores.comparisons import compare, compare_items, compare_written, flips, item_agreement
from eval.scores.curves import describe_curves, describe_drift
from eval.scores.diagnostics import diagnose, diagnose_pairs
from eval.scores.intervals import add_false_discovery_rates, rounded
from eval.scores.places import Groups, Place, describe_replicates
from eval.scores.scoring import Row, Values, collect_answers, describe, levels_of, pair_values, values_by_axis
from eval.scores.shape import describe_shapes, describe_transfer
from eval.statements.dialogues import DIALOGUE, IDENTITY
from eval.statements.instruments import Instrument

PAIRS = "pairs"
# What has no place on an axis: a judge, or many readings, say what it is, or it is read by what a user says.
FREE = {"open", "write", DIALOGUE, IDENTITY}
# Modes of answers in writing, and what an answer that counts is called.
DONE = {"generate": "read", "open": "judged"}
# Level of the false discovery rate at which a placebo is said to have moved.
MOVED = 0.05


class Score(NamedTuple):
    """One score of the ``models`` of a ``summary.json``."""

    model: str
    mode: str
    axis: str
    value: Mapping[str, Any]


def iterate_scores(models: Mapping[str, Any]) -> Iterator[Score]:
    """Yield every score of the ``models`` of a ``summary.json``."""
    for model, modes in models.items():
        for mode, axes in modes.items():
            for axis, value in axes.items():
                yield Score(model, mode, axis, value)


def summarize(
    rows: Iterable[Row],
    instrument: Instrument,
    n_bootstrap: int,
    seed: int,
    places: Mapping[str, Place] | None = None,
) -> dict[str, Any]:
    """Score the answers of all models and modes.

    Args:
        rows: Rows of ``results.jsonl``; answers to what the instrument does not hold are left out.
        instrument: The instrument that they answer.
        n_bootstrap: Resamples of each diagnostic's interval.
        seed: Of the resamples.
        places: Where models stand among those that belong together; None: as their names tell.

    Returns:
        ``models``: name, mode, axis (for ``pairs`` also ``lean``, over all pairs) to estimate, both intervals
        (``ci95``: items sampled too; ``ci95_items_fixed``), bounds, counts, ``void`` and ``doubtful`` (names of the
        flags that make it so) and, for modes with options, ``hard``. ``comparisons``: every two models, ``difference =
        b - a``; q over all of them but void ones, which have none, and the placebo and the axes of pairs, which have
        their own.
        ``items``: the first model against every other by item.
        ``flips``: items whose side differs between modes, or models. ``replicates``: the runs of a study over their
        seeds. ``shape`` is that of each lean (:func:`~eval.scores.shape.describe_shapes`), ``transfer`` how far other
        axes follow the one that is tuned on (:func:`~eval.scores.shape.describe_transfer`). Answers in mode ``open``
        have no coordinate: a judge says their stance.
    """
    by_model: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_model[row["model"]][row["mode"]].append(row)
    groups = Groups(list(by_model), places)
    modes = sorted({mode for of_model in by_model.values() for mode in of_model} - FREE)
    levels = {m: levels_of((row for of in by_model.values() for row in of.get(m, ())), instrument) for m in modes}
    placebo = instrument.placebo
    political = [axis for axis in instrument.axes if axis not in placebo]
    values: dict[tuple[str, str], dict[str, Values]] = {}
    agreements: dict[tuple[str, str], dict[str, float]] = {}
    models: dict[str, Any] = {name: {} for name in by_model}
    diagnostics: dict[str, Any] = {name: {} for name in by_model}
    for name, mode in itertools.product(by_model, modes):
        if mode not in by_model[name]:
            continue
        flags: list[dict[str, Any]] = []
        own = by_model[name][mode]
        if mode == PAIRS:
            scores = _pair_values(own, instrument, levels[mode].templates)
            figures, flags = diagnose_pairs(own, instrument.pairs)
            diagnostics[name][mode] = {**figures, "flags": flags}
        else:
            scores = values_by_axis(collect_answers(own, instrument, levels[mode]), instrument)
            answers = collect_answers(own, instrument).keep(lambda item: not set(item.weights) <= placebo)
            if answers.items:
                without_placebo = {a: v for a, v in values_by_axis(answers, instrument).items() if a not in placebo}
                figures, flags = diagnose(answers, without_placebo, n_bootstrap, seed)
                diagnostics[name][mode] = {**figures, "flags": flags}
                agreements[name, mode] = item_agreement(answers)
        values[name, mode] = scores
        models[name][mode] = {
            axis: describe(v)
            | {
                state: [f["name"] for f in flags if f["state"] == state and f.get("axis", axis) == axis]
                for state in ("void", "doubtful")
            }
            for axis, v in scores.items()
        }
    comparisons, items = _compare_all(values, groups.models, modes, placebo)
    replicates = describe_replicates(groups, models, values, placebo)
    for family in (comparisons, items, replicates["comparisons"]):
        add_rates(family, models)
    written = {
        name: compare_written(rows.get("choice", []), rows.get("generate", []), instrument, n_bootstrap, seed)
        for name, rows in by_model.items()
    }
    return {
        "models": models,
        "comparisons": comparisons,
        "items": items,
        "flips": _all_flips(groups.base, agreements),
        "diagnostics": diagnostics,
        "written": {name: count_written(rows) for name, rows in by_model.items()},
        "mode_agreement": {name: agreed for name, agreed in written.items() if agreed},
        "drift": describe_drift(groups, comparisons, {m: ["lean"] if m == PAIRS else political for m in modes}),
        "curves": describe_curves(groups, models, [*comparisons, *replicates["comparisons"]], placebo, values),
        "replicates": replicates,
        "shape": describe_shapes(values, placebo, n_bootstrap, seed),
        **({"transfer": transfer} if (transfer := describe_transfer(groups, values)) else {}),
    }


def _pair_values(rows: Sequence[Row], instrument: Instrument, templates: Sequence[str]) -> dict[str, Values]:
    lean = list(instrument.political_pairs)
    groups = {axis: [pair for pair in instrument.pairs if pair.axis == axis] for axis in instrument.axes}
    # of a bank with one axis that is the lean again: a second test of the same would count twice among all
    groups = {"lean": lean} | {axis: pairs for axis, pairs in groups.items() if pairs != lean}
    units = instrument.units()
    return {name: pair_values(rows, pairs, units, templates) for name, pairs in groups.items() if pairs}


def _compare_all(
    values: Mapping[tuple[str, str], Mapping[str, Values]], models: list[str], modes: list[str], placebo: set[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare every two models by axis, and the first with every other by item."""
    comparisons, items = [], []
    for (a, b), mode in itertools.product(itertools.combinations(models, 2), modes):
        scores_a, scores_b = values.get((a, mode), {}), values.get((b, mode), {})
        for axis in [axis for axis in scores_a if axis in scores_b]:
            test = {"a": a, "b": b, "mode": mode, "axis": axis, "placebo": axis in placebo}
            comparisons.append({**test, **compare(scores_a[axis], scores_b[axis])})
            # the axes of pairs are parts of "lean": each pair is tested once
            if a == models[0] and (mode != PAIRS or axis == "lean" or axis in placebo):
                items += [{**test, **change} for change in compare_items(scores_a[axis], scores_b[axis])]
    return comparisons, items


def add_rates(family: Sequence[dict[str, Any]], models: Mapping[str, Any]) -> None:
    """Set q, and say of a placebo whether it moved.

    Placebos are a family of their own, and so are the axes of pairs, which the lean counts already. A test of a void
    score has no q and is not counted. One that a flag of its contrast voids (its own ``void``) has none either.
    """

    def is_void(test: Mapping[str, Any]) -> bool:
        scores = [models.get(test[side], {}).get(test["mode"], {}).get(test["axis"], {}) for side in "ab"]
        return any(score.get("void") for score in scores)

    def is_part(test: Mapping[str, Any]) -> bool:
        return test["mode"] == PAIRS and test["axis"] != "lean"

    political = [test for test in family if not test["placebo"]]
    placebo = [test for test in family if test["placebo"]]
    for tests in (
        [test for test in political if not is_void(test) and not is_part(test)],
        [test for test in political if not is_void(test) and is_part(test)],
        placebo,
    ):
        add_false_discovery_rates(tests)
    for test in political:
        if is_void(test) or test.get("void"):  # a rival that the same data show makes the family no smaller
            test["q"] = None
    for test in placebo:
        test["moved"] = test["q"] is not None and test["q"] < MOVED


def add_voids(scores: Mapping[str, Any], evidence: Sequence[Mapping[str, Any]]) -> None:
    """Name in each comparison of pairs the flags of its contrast that void it, and set q anew."""
    of_contrast: dict[frozenset[str], list[str]] = defaultdict(list)
    for e in evidence:  # a declared contrast may be the other way round than the comparison
        of_contrast[frozenset((e["a"], e["b"]))] += [flag["name"] for flag in e["flags"] if flag["state"] == "void"]
    for family in (scores["comparisons"], scores["replicates"]["comparisons"]):
        for test in family:
            found = of_contrast.get(frozenset((test["a"], test["b"])))
            if found and test["mode"] == PAIRS and not test["placebo"]:
                test["void"] = list(dict.fromkeys(found))
        add_rates(family, scores["models"])


def _all_flips(base: str, agreements: Mapping[tuple[str, str], Mapping[str, float]]) -> list[dict[str, Any]]:
    between_modes = [(a, b) for a, b in itertools.combinations(agreements, 2) if a[0] == b[0]]
    between_models = [((base, mode), (name, mode)) for name, mode in agreements if name != base]
    return [
        {"a": a[0], "a_mode": a[1], "b": b[0], "b_mode": b[1], **flips(agreements[a], agreements[b])}
        for a, b in [*between_modes, *between_models]
        if a in agreements
    ]


def count_written(by_mode: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Count what became of one model's answers in writing, by mode, and the options that a server did not list.

    Unread answers are neither read nor refused; errors are calls that a server refused or answered without text.
    """
    counts = {mode: _count(by_mode[mode], done) for mode, done in DONE.items() if mode in by_mode}
    if "open" in counts:
        scored = counts["open"]["judged"] > 0
        note = "not scored: no judge has said a stance; the texts are in results.jsonl"
        counts["open"] |= {"scored": scored, "note": None if scored else note}
    rows = by_mode.get("choice", [])
    short = [row for row in rows if "option_floor" in row and None in (row["option_logprobs"] or [None])]
    if short:
        n = sum((row["option_logprobs"] or [None] * len(row["n_tokens"])).count(None) for row in short)
        floors = [row["option_floor"] for row in short if row["option_floor"] is not None]
        most = rounded(np.exp(max(floors))) if floors else None
        counts["choice"] = {"rows": len(rows), "options_unlisted": n, "unlisted_at_most": most}
    return counts


def _count(rows: Sequence[Row], done: str) -> dict[str, Any]:
    outcomes = Counter(_outcome(row, done) for row in rows)
    counts = {name: outcomes[name] for name in (done, "refused", "unread", "errors")}
    return {"rows": len(rows), **counts, "cut": sum(row.get("finish") == "length" for row in rows)}


def _outcome(row: Row, done: str) -> str:
    if row.get("text") is None and row["choice"] is None and row["stance"] is None:
        return "errors"
    if row["choice" if done == "read" else "stance"] is not None:
        return done
    return "refused" if row["refused"] else "unread"
