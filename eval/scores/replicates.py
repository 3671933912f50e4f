# SPDX-License-Identifier: MIT
"""Runs of a study: their seeds are replicates, and some stand at a place on an axis.

Their names say so, so that ``results.jsonl`` alone is enough: ``left_pairs-40_seed-1`` is the run ``left_pairs-40``
with seed 1, at 40 on the axis ``pairs``, on the line ``left``; ``left_seed-1`` is the run ``left``, at no place.
"""

import itertools
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.scores.comparisons import compare
from eval.scores.scoring import Values, rounded

_RUN = re.compile(r"^(?P<run>.+)_seed-(?P<seed>\d+)$")
_PLACE = re.compile(r"^(?:(?P<line>.+)_)?(?P<what>[^_]+)-(?P<x>\d+)$")
# Axes on which a model that was not tuned stands at 0.
AMOUNTS = ("pairs", "steps", "epochs", "tokens")


class Place(NamedTuple):
    """Where a run stands: on which line, on which axis, and at what."""

    line: str
    what: str
    x: int


def find_runs(models: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return run to seed to name of the model."""
    runs: dict[str, dict[int, str]] = defaultdict(dict)
    for name in models:
        if found := _RUN.match(name):
            runs[found["run"]][int(found["seed"])] = name
    return {run: dict(sorted(seeds.items())) for run, seeds in runs.items()}


def find_lines(models: Sequence[str]) -> dict[tuple[str, str], dict[int, str]]:
    """Return line and axis to place to name of the run, for lines of two or more places."""
    lines: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for run in find_runs(models):
        if found := _PLACE.match(run):
            lines[found["line"] or found["what"], found["what"]][int(found["x"])] = run
    return {line: dict(sorted(places.items())) for line, places in lines.items() if len(places) > 1}


def describe_replicates(
    models: Mapping[str, Any], values: Mapping[tuple[str, str], Mapping[str, Values]], placebo: set[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return every run of a study over its seeds, and the paired differences of runs.

    Seeds are a random factor that is crossed with statements and prompts, as templates are. They add no statement;
    where the spread between them is more than that within them, it widens the interval.

    Args:
        models: As in ``summary.json``, the base first.
        values: Of each model and mode by axis.
        placebo: Axes that must not move.

    Returns:
        ``runs``: estimates by seed, their mean and range. ``comparisons``: each run with the base, runs at one place
        with each other, and the ends of a line; ``by_seed`` has the difference in each seed that both have.
    """
    names = list(models)
    runs = find_runs(names[1:])
    seeds = {run: dict(of_run) for run, of_run in runs.items()}
    described, comparisons = [], []
    for (name, mode), of_base in values.items():
        for axis in of_base if name == names[0] and runs else ():
            place = {"mode": mode, "axis": axis, "placebo": axis in placebo}
            here = {run: of for run, of in seeds.items() if all((n, mode) in values for n in of.values())}
            of_runs = {run: {s: values[n, mode][axis] for s, n in of.items()} for run, of in here.items()}
            for run, of in here.items():
                scores = [models[n][mode][axis]["estimate"] for n in of.values()]
                known = None not in scores
                described.append(
                    {
                        "run": run,
                        **place,
                        "seeds": list(of),
                        "models": list(of.values()),
                        "estimates": scores,
                        "mean": rounded(statistics.fmean(scores)) if known else None,
                        "range": [min(scores), max(scores)] if known else None,
                        "n_items": len(of_base[axis].items),
                    }
                )
                changes = compare(_together([of_base[axis]]), _together(of_runs[run].values()))
                by_seed = [compare(of_base[axis], v)["difference"] for v in of_runs[run].values()]
                comparisons.append({"a": names[0], "b": run, **place, "seeds": list(of), "by_seed": by_seed, **changes})
            for a, b in [pair for pair in itertools.combinations(here, 2) if _is_contrast(*pair, names)]:
                shared = [seed for seed in here[a] if seed in here[b]]
                of_a, of_b = ([of_runs[run][seed] for seed in shared] for run in (a, b))
                if shared:
                    by_seed = [compare(x, y)["difference"] for x, y in zip(of_a, of_b)]
                    changes = compare(_together(of_a), _together(of_b))
                    comparisons.append({"a": a, "b": b, **place, "seeds": shared, "by_seed": by_seed, **changes})
    return {"runs": described, "comparisons": comparisons}


def _together(replicates: Sequence[Values]) -> Values:
    """The values of replicates as one, seeds as one more factor: ``[I, T, O, S]``."""
    replicates = list(replicates)
    return replicates[0]._replace(cells=np.stack([values.cells for values in replicates], axis=-1))


def _is_contrast(a: str, b: str, names: Sequence[str]) -> bool:
    """Whether two runs stand at one place, or at both ends of one line."""
    for places in find_lines(names).values():
        ends = {min(places), max(places)}
        if {a, b} <= set(places.values()):
            return {x for x, run in places.items() if run in (a, b)} == ends
    of = [found and (found["what"], found["x"]) for found in map(_PLACE.match, (a, b))]
    return of[0] == of[1]
