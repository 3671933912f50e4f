# SPDX-License-Identifier: MIT
"""Runs of models that belong together: the checkpoints of a training run, and the points of a dial.

Their names say so, so that ``results.jsonl`` alone is enough. A checkpoint's name ends in a step (``left_step_40``,
``left@step40``, ``epoch_1``); a point of a dial is an adapter and its weight (``left@0.75``).
"""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

NAME = re.compile(r"^(?P<run>.*?)[-_@/. ]?(?:step|epoch)[-_= ]?(?P<step>\d+)$")
WEIGHTED = re.compile(r"^(?P<adapter>.+)@(?P<weight>[-+]?\d+(?:\.\d+)?)$")
TOLD_APART = 0.05
# Least rank correlation, of either sign, that is called monotone.
MONOTONE = 0.95


def find_trajectories(models: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return run to step to name of the model, for runs of two or more steps."""
    runs: dict[str, dict[int, str]] = defaultdict(dict)
    for name in models:
        if found := NAME.match(name):
            runs[found["run"] or "run"][int(found["step"])] = name
    return {run: dict(sorted(steps.items())) for run, steps in runs.items() if len(steps) > 1}


def find_weighted(models: Sequence[str]) -> dict[str, dict[float, str]]:
    """Return adapter to weight to name of the model, the adapter itself at 1 if it is there."""
    found: dict[str, dict[float, str]] = defaultdict(dict)
    for name in models:
        if match := WEIGHTED.match(name):
            found[match["adapter"]][float(match["weight"])] = name
    for adapter, weights in found.items():
        if adapter in models:
            weights.setdefault(1.0, adapter)
    return {adapter: dict(sorted(weights.items())) for adapter, weights in found.items()}


def find_dials(models: Sequence[str]) -> dict[str, dict[float, str]]:
    """Return dial to position to name of the model, the first model (the base) at 0.

    Two adapters with weights above 0 are one dial, the first of them on the low side; else each adapter is a dial of
    its own, and the position is its weight.
    """
    weighted = find_weighted(models[1:])
    zero = {0.0: models[0]}
    if len(weighted) == 2 and all(weight > 0 for weights in weighted.values() for weight in weights):
        (low, of_low), (high, of_high) = weighted.items()
        dials = {f"{low} to {high}": {-weight: name for weight, name in of_low.items()} | zero | of_high}
    else:
        dials = {f"weight of {adapter}": zero | weights for adapter, weights in weighted.items()}
    return {dial: dict(sorted(points.items())) for dial, points in dials.items() if len(points) > 2}


def paths_from_base(models: Sequence[str]) -> list[list[str]]:
    """Return the chains that lead from the first model to every other, through what lies between."""
    chains = [[models[0], *steps.values()] for steps in find_trajectories(models[1:]).values()]
    for weights in find_weighted(models[1:]).values():
        for side in ([w for w in weights if w > 0], [w for w in reversed(weights) if w < 0]):
            chains += [[models[0], *(weights[w] for w in side)]] if side else []
    in_chain = {name for chain in chains for name in chain}
    return chains + [[models[0], name] for name in models[1:] if name not in in_chain]


def group_of(models: Sequence[str]) -> dict[str, str]:
    """Return the run of each checkpoint, the adapter of each point of a dial, and every other model as itself."""
    groups = {name: run for run, of in find_trajectories(models[1:]).items() for name in of.values()}
    groups |= {name: adapter for adapter, of in find_weighted(models[1:]).items() for name in of.values()}
    return {name: groups.get(name, name) for name in models}


def ends_of(models: Sequence[str]) -> list[str]:
    """Return the models without what lies between: earlier checkpoints, and points of a dial."""
    earlier = {name for steps in find_trajectories(models[1:]).values() for name in list(steps.values())[:-1]}
    return [name for name in models if name not in earlier and not WEIGHTED.match(name)]


def describe_curves(
    models: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]], placebo: set[str]
) -> list[dict[str, Any]]:
    """Return every score along every dial and every trajectory.

    ``ci95`` and ``ci95_items_fixed`` are those of the paired change from the base, put around the estimate: what the
    eye compares along a curve is the change, on the same prompts. ``rank_correlation`` is Spearman's,
    of position and estimate (None where all estimates are equal): 1 if the score rises at every step; ``n_up`` and
    ``n_down`` count the steps.

    Args:
        models: As in ``summary.json``, the base first.
        comparisons: As there.
        placebo: Axes to leave out.
    """
    names = list(models)
    base, found = names[0], {(c["a"], c["b"], c["mode"], c["axis"]): c for c in comparisons}
    runs = [("dial", dial, points) for dial, points in find_dials(names).items()]
    runs += [("step", run, {0: base} | steps) for run, steps in find_trajectories(names[1:]).items()]
    curves = []
    for kind, run, points in runs:
        for mode, axes in models[base].items():
            for axis in [axis for axis in axes if axis not in placebo]:
                values = [models[name].get(mode, {}).get(axis, {}).get("estimate") for name in points.values()]
                if any(value is None for value in values):
                    continue
                change = [found.get((base, name, mode, axis)) for name in points.values()]
                steps = [b - a for a, b in zip(values, values[1:])]
                curves.append(
                    {
                        "kind": kind,
                        "run": run,
                        "mode": mode,
                        "axis": axis,
                        "x": list(points),
                        "models": list(points.values()),
                        "estimate": values,
                        **{key: [_around(axes[axis], c, key) for c in change] for key in ("ci95", "ci95_items_fixed")},
                        "rank_correlation": rank_correlation(list(points), values),
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


def describe_drift(
    models: Sequence[str], comparisons: Sequence[Mapping[str, Any]], scores: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return drift magnitude and drift time of every trajectory and mode.

    Magnitude: the Euclidean distance of a checkpoint from the first model (the base) over the axes of the mode,
    from the paired differences. ``half_step``: where it first reaches half of what it has at the last
    checkpoint, linear between checkpoints, counted from 0 at step 0. ``told_apart_step``: the first
    checkpoint from which on some axis differs from the base at a false discovery rate of 5 % in every
    later one; None if there is none. Both definitions are ours: the rise time of a step response.

    Args:
        models: Names, the base first.
        comparisons: As in ``summary.json``.
        scores: The axes (placebo left out; ``lean`` for pairs) of each mode.
    """
    found = {(c["a"], c["b"], c["mode"], c["axis"]): c for c in comparisons}
    drifts = []
    for run, steps in find_trajectories(models[1:]).items():
        for mode, axes in scores.items():
            changes = [[found.get((models[0], name, mode, axis)) for axis in axes] for name in steps.values()]
            if any(c is None or c["difference"] is None for change in changes for c in change):
                continue
            magnitudes = [math.hypot(*(c["difference"] for c in change)) for change in changes]
            apart = [any(c["q"] is not None and c["q"] < TOLD_APART for c in change) for change in changes]
            last_same = max((k for k, is_apart in enumerate(apart) if not is_apart), default=-1)
            numbers = list(steps)
            drifts.append(
                {
                    "run": run,
                    "mode": mode,
                    "steps": numbers,
                    "models": list(steps.values()),
                    "magnitude": [round(x, 6) for x in magnitudes],
                    "half_step": _first_reach([0, *numbers], [0.0, *magnitudes], magnitudes[-1] / 2),
                    "told_apart_step": numbers[last_same + 1] if last_same + 1 < len(numbers) else None,
                }
            )
    return drifts


def _first_reach(steps: list[int], values: list[float], level: float) -> float | None:
    if level == 0:
        return None
    k = next(k for k, value in enumerate(values) if value >= level)
    share = (level - values[k - 1]) / (values[k] - values[k - 1])
    return round(steps[k - 1] + share * (steps[k] - steps[k - 1]), 6)
