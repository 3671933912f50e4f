# SPDX-License-Identifier: MIT
"""Drift of a run's checkpoints away from the base: how far, and when.

A model belongs to a trajectory if its name ends in a step: ``left_step_40``, ``left@step40``, ``epoch_1``.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

NAME = re.compile(r"^(?P<run>.*?)[-_@/. ]?(?:step|epoch)[-_= ]?(?P<step>\d+)$")
TOLD_APART = 0.05


def find_trajectories(models: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return run to step to name of the model, for runs of two or more steps."""
    runs: dict[str, dict[int, str]] = defaultdict(dict)
    for name in models:
        if found := NAME.match(name):
            runs[found["run"] or "run"][int(found["step"])] = name
    return {run: dict(sorted(steps.items())) for run, steps in runs.items() if len(steps) > 1}


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
