# SPDX-License-Identifier: MIT
"""Models that belong together: the checkpoints of a training run, the points of a dial, the runs of a study.

Their names say so, so that ``results.jsonl`` alone is enough. A checkpoint's name ends in a step (``left_step_40``,
``left@step40``, ``epoch_1``); a point of a dial is an adapter and its weight (``left@0.75``); the names of a study are
those of :mod:`eval.scores.replicates`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from eval.scores.replicates import find_lines, find_runs

NAME = re.compile(r"^(?P<run>.*?)[-_@/. ]?(?:step|epoch)[-_= ]?(?P<step>\d+)$")
WEIGHTED = re.compile(r"^(?P<adapter>.+)@(?P<weight>[-+]?\d+(?:\.\d+)?)$")
TOLD_APART = 0.05


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
    """Return the run of each checkpoint, the adapter of a point of a dial, the line or run of a seed; else itself."""
    runs = find_runs(models)
    of_run = {run: line for (line, _), places in find_lines(models).items() for run in places.values()}
    replicates = {name: of_run.get(run, run) for run, seeds in runs.items() for name in seeds.values()}
    groups = {name: run for run, of in find_trajectories(models[1:]).items() for name in of.values()}
    groups |= {name: adapter for adapter, of in find_weighted(models[1:]).items() for name in of.values()}
    return {name: name for name in models} | groups | replicates


def ends_of(models: Sequence[str]) -> list[str]:
    """Return the models without earlier checkpoints, points of a dial, and the seeds of a study's runs."""
    seeds = {name for of_run in find_runs(models).values() for name in of_run.values()}
    earlier = {name for steps in find_trajectories(models[1:]).values() for name in list(steps.values())[:-1]}
    return [name for name in models if name not in earlier | seeds and not WEIGHTED.match(name)]


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
