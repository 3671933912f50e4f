# SPDX-License-Identifier: MIT
"""Scores along a dial, along training, and along the axis of a study."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eval.scores.drift import find_dials, find_trajectories
from eval.scores.replicates import AMOUNTS, find_lines, find_runs

# Least rank correlation, of either sign, that is called monotone.
MONOTONE = 0.95


def describe_curves(
    models: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]], placebo: set[str]
) -> list[dict[str, Any]]:
    """Return every score along every dial, every trajectory and every line of a study.

    ``ci95`` and ``ci95_items_fixed`` are those of the paired change from the base, put around the estimate: what the
    eye compares along a curve is the change, on the same prompts. ``mean`` has each position once, with the mean over
    what stands there (the seeds of a run) and the intervals of its change. ``rank_correlation`` is Spearman's,
    of position and mean (None where all means are equal): 1 if the score rises at every step; ``n_up`` and
    ``n_down`` count the steps.

    Args:
        models: As in ``summary.json``, the base first.
        comparisons: As there, with those of the runs of a study.
        placebo: Axes to leave out.
    """
    names = list(models)
    base, found = names[0], {(c["a"], c["b"], c["mode"], c["axis"]): c for c in comparisons}
    # kind, run, and position to what stands there: a name for the comparison with the base, and the models
    lines: list[tuple[str, str, dict[float, tuple[str, list[str]]]]] = []
    for kind, runs in (("dial", find_dials(names)), ("step", find_trajectories(names[1:]))):
        for run, points in runs.items():
            points = points if kind == "dial" else {0: base} | points
            lines.append((kind, run, {x: (name, [name]) for x, name in points.items()}))
    seeds = find_runs(names[1:])
    for (line, what), places in find_lines(names[1:]).items():
        start = {0: (base, [base])} if what in AMOUNTS and 0 not in places else {}
        lines.append((what, line, start | {x: (run, list(seeds[run].values())) for x, run in places.items()}))
    curves = []
    for kind, run, points in lines:
        for mode, axes in models[base].items():
            for axis in [axis for axis in axes if axis not in placebo]:
                flat = [(x, name) for x, (_, of_point) in points.items() for name in of_point]
                values = [models[name].get(mode, {}).get(axis, {}).get("estimate") for _, name in flat]
                if None in values:
                    continue
                means = [statistics.fmean(v for (at, _), v in zip(flat, values) if at == x) for x in points]
                steps = [b - a for a, b in zip(means, means[1:])]

                def around(names: Sequence[str], mode: str = mode, axis: str = axis) -> dict[str, list]:
                    changes = [found.get((base, name, mode, axis)) for name in names]
                    keys = ("ci95", "ci95_items_fixed")
                    return {key: [_around(models[base][mode][axis], c, key) for c in changes] for key in keys}

                curves.append(
                    {
                        "kind": kind,
                        "run": run,
                        "mode": mode,
                        "axis": axis,
                        "x": [x for x, _ in flat],
                        "models": [name for _, name in flat],
                        "estimate": values,
                        **around([name for _, name in flat]),
                        "mean": {
                            "x": list(points),
                            "estimate": [round(mean, 6) for mean in means],
                            **around([name for name, _ in points.values()]),
                        },
                        "rank_correlation": rank_correlation(list(points), means),
                        "n_up": sum(step > 0 for step in steps),
                        "n_down": sum(step < 0 for step in steps),
                    }
                )
    return curves


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None if either is constant."""
    ranks = [[sum(b < a for b in of) + sum(b == a for b in of) / 2 for a in of] for of in (x, y)]
    if any(len(set(of)) < 2 for of in ranks):
        return None
    return round(statistics.correlation(*ranks), 6)


def _around(base: Mapping[str, Any], change: Mapping[str, Any] | None, key: str) -> list[float] | None:
    if change is None or change[key] is None:
        return None
    return [round(base["estimate"] + end, 6) for end in change[key]]
