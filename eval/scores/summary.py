# SPDX-License-Identifier: MIT
"""``summary.json``: everything that the rows of ``results.jsonl`` say, computed from them alone."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from eval.asking.results import Place
from eval.scores.answers import Answers, Row, collect_answers, collect_leans
from eval.scores.comparisons import compare, compare_items, flips, item_agreement
from eval.scores.curves import describe_curves
from eval.scores.diagnostics import diagnose
from eval.scores.drift import describe_drift
from eval.scores.mode_agreement import compare_written, count_written
from eval.scores.replicates import describe_replicates
from eval.scores.resampling import false_discovery_rates
from eval.scores.scoring import Values, axis_values, describe, pair_values, rounded
from eval.statements.instruments import Instrument

PAIRS, OPEN = "pairs", "open"
# Level of the false discovery rate at which a placebo is said to have moved.
MOVED = 0.05


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
        places: Where models stand among others, as in ``settings.json``; None: as their names tell.

    Returns:
        ``models``: name, mode, axis (for ``pairs`` also ``lean``, over all pairs) to estimate, both intervals
        (``ci95``: items sampled too; ``ci95_items_fixed``), bounds, counts, ``void`` (names of the flags that
        void it) and, for modes with options, ``hard``. ``comparisons``: every two models, ``difference = b - a``;
        q over all of them but the placebo, which has its own. ``items``: the first model against every
        other, item by item, with a q of its own. ``flips``: items whose side differs between modes, and
        between the first model and others. ``diagnostics``, ``drift`` and ``curves``. ``replicates``: the runs of a
        study over their seeds, and their differences.
        ``written``: what became of answers in writing, by model and mode. ``mode_agreement``: by model, whether they
        choose what was likeliest. Answers in mode ``open`` have no coordinate: a judge says their stance.
    """
    by_model: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_model[row["model"]][row["mode"]].append(row)
    names = list(by_model)
    modes = sorted({mode for of_model in by_model.values() for mode in of_model} - {OPEN})
    placebo = {name for name, axis in instrument.axes.items() if axis.placebo}
    values: dict[tuple[str, str], dict[str, Values]] = {}
    agreements: dict[tuple[str, str], dict[str, float]] = {}
    models: dict[str, Any] = {name: {} for name in names}
    diagnostics: dict[str, Any] = {name: {} for name in names}
    for name, mode in itertools.product(names, modes):
        if mode not in by_model[name]:
            continue
        flags: list[dict] = []
        if mode == PAIRS:
            values[name, mode] = _pair_values(by_model[name][mode], instrument)
        else:
            answers = collect_answers(by_model[name][mode], instrument)
            weighed = [axis for axis in instrument.axes if any(axis in item.weights for item in instrument.items)]
            values[name, mode] = {axis: axis_values(answers, instrument, axis) for axis in weighed}
            political = _without(answers, placebo)
            if political.items:
                of_axis = {axis: v for axis, v in values[name, mode].items() if axis not in placebo}
                found, flags = diagnose(political, of_axis, n_bootstrap, seed)
                diagnostics[name][mode] = {**found, "flags": flags}
                agreements[name, mode] = item_agreement(political)
        models[name][mode] = {
            axis: describe(v) | {"void": [f["name"] for f in flags if f["void"] and f.get("axis", axis) == axis]}
            for axis, v in values[name, mode].items()
        }
    comparisons, items = _compare_all(names, modes, values, placebo)
    replicates = describe_replicates(models, values, placebo)
    for family in (comparisons, items, replicates["comparisons"]):
        _add_false_discovery_rates(family)
    scores = {mode: ["lean"] if mode == PAIRS else [a for a in instrument.axes if a not in placebo] for mode in modes}
    return {
        "models": models,
        "comparisons": comparisons,
        "items": items,
        "flips": _all_flips(names, agreements),
        "diagnostics": diagnostics,
        "written": {name: count_written(of_model) for name, of_model in by_model.items()},
        "mode_agreement": {
            name: found
            for name, of in by_model.items()
            if (found := compare_written(of.get("choice", []), of.get("generate", []), instrument, n_bootstrap, seed))
        },
        "drift": describe_drift(names, comparisons, scores),
        "curves": describe_curves(models, [*comparisons, *replicates["comparisons"]], placebo) if names else [],
        "replicates": replicates,
    }


def _without(answers: Answers, axes: set[str]) -> Answers:
    return answers.take([i for i, item in enumerate(answers.items) if not set(item.weights) <= axes])


def _pair_values(rows: list[Row], instrument: Instrument) -> dict[str, Values]:
    placebo = {name for name, axis in instrument.axes.items() if axis.placebo}
    groups = {"lean": [p for p in instrument.pairs if p.axis not in placebo]}
    groups |= {axis: [p for p in instrument.pairs if p.axis == axis] for axis in instrument.axes}
    # of a bank with one axis that is the lean again: a second test of the same would count twice among all
    groups = {name: pairs for name, pairs in groups.items() if name == "lean" or pairs != groups["lean"]}
    return {name: pair_values(collect_leans(rows, pairs), pairs) for name, pairs in groups.items() if pairs}


def _compare_all(
    names: list[str], modes: list[str], values: Mapping[tuple[str, str], dict[str, Values]], placebo: set[str]
) -> tuple[list[dict], list[dict]]:
    """Paired comparisons of every two models by axis, and of the first with every other by item."""
    comparisons, items = [], []
    for (a, b), mode in itertools.product(itertools.combinations(names, 2), modes):
        of_a, of_b = values.get((a, mode), {}), values.get((b, mode), {})
        for axis in [axis for axis in of_a if axis in of_b]:
            place = {"a": a, "b": b, "mode": mode, "axis": axis, "placebo": axis in placebo}
            comparisons.append({**place, **compare(of_a[axis], of_b[axis])})
            # the axes of pairs are parts of "lean": each pair is tested once
            if a == names[0] and (mode != PAIRS or axis == "lean" or axis in placebo):
                items += [{**place, **change} for change in compare_items(of_a[axis], of_b[axis])]
    return comparisons, items


def _add_false_discovery_rates(family: list[dict]) -> None:
    for is_placebo in (False, True):
        tests = [test for test in family if test["placebo"] == is_placebo]
        for test, q in zip(tests, false_discovery_rates([test["p"] for test in tests])):
            test["q"] = None if q is None else rounded(q)
            if is_placebo:
                test["moved"] = q is not None and q < MOVED


def _all_flips(names: list[str], agreements: Mapping[tuple[str, str], dict[str, float]]) -> list[dict]:
    between_modes = [pair for pair in itertools.combinations(agreements, 2) if pair[0][0] == pair[1][0]]
    between_models = [((names[0], mode), (name, mode)) for name, mode in agreements if name != names[0]]
    return [
        {"a": a[0], "a_mode": a[1], "b": b[0], "b_mode": b[1], **flips(agreements[a], agreements[b])}
        for a, b in [*between_modes, *between_models]
        if a in agreements
    ]
