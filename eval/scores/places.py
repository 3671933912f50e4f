# SPDX-License-Identifier: MIT
"""Models that belong together: checkpoints of a training, points of a dial, seeds and doses of a study.

From the places of models follow the lines that ``eval/scores/curves.py`` describes, and the runs of a study over their
seeds.
"""

import itertools
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.scores.comparisons import compare
from eval.scores.crossed import LEAST_LEVELS
from eval.scores.intervals import rounded
from eval.scores.scoring import Values

# With more runs of a study, two without a dose are compared only where they are the two sides of one name.
MANY_RUNS = 4
# Units of a dose of which a model that was not tuned has had 0.
AMOUNTS = ("pairs", "steps", "epochs", "tokens")
_STEP = re.compile(r"^(?P<run>.*?)[-_@/. ]?(?:step|epoch)[-_= ]?(?P<step>\d+)$")
_WEIGHT = re.compile(r"^(?P<run>.+)@(?P<weight>[-+]?\d+(?:\.\d+)?)$")
_SEED = re.compile(r"^(?P<run>.+)_seed-(?P<seed>\d+)$")
_SIDE = re.compile(r"(?<![A-Za-z])(left|right)(?![A-Za-z])")
_DOSE = re.compile(r"^(?:(?P<line>.+)_)?(?P<unit>[^_]+)-(?P<dose>\d+)$")


class Place(NamedTuple):
    """Where a model stands among models that belong together; what does not apply is None.

    ``run`` is the training of a checkpoint, the adapter of a point of a dial, or the run of a study. Runs of a study
    that differ in ``dose`` alone are on one ``line``; ``unit`` says what the dose counts.
    """

    run: str
    step: int | None = None
    weight: float | None = None
    seed: int | None = None
    line: str | None = None
    unit: str | None = None
    dose: int | None = None


def study_place(run: str, seed: int) -> Place:
    """Return the place of a seed of a study's run, whose dose stands in its name: ``left_pairs-40``, ``share-25``."""
    if match := _DOSE.match(run):
        unit, dose = match["unit"], int(match["dose"])
        return Place(run, seed=seed, line=match["line"] or unit, unit=unit, dose=dose)
    return Place(run, seed=seed)


def read_places(names: Iterable[str]) -> dict[str, Place]:
    """Return the places that names of models tell, for those that tell one.

    A checkpoint's name ends in a step (``left_step_40``, ``left@step40``, ``epoch_1``), a point of a dial is an adapter
    and its weight (``left@0.75``), and a run of a study ends in a seed (``left_pairs-40_seed-1``).
    """
    places = {}
    for name in names:
        if match := _WEIGHT.match(name):
            places[name] = Place(match["run"], weight=float(match["weight"]))
        elif match := _SEED.match(name):
            places[name] = study_place(match["run"], int(match["seed"]))
        elif match := _STEP.match(name):
            places[name] = Place(match["run"] or "run", step=int(match["step"]))
    return places


class Point(NamedTuple):
    """A position on a line, the name of what is compared with the base there, and the models that stand there."""

    x: float
    name: str
    models: list[str]


class Line(NamedTuple):
    """Points along a dial, along the steps of a training, or along the doses of a study."""

    kind: str
    run: str
    points: list[Point]


class Groups:
    """The models of a run, the base first, sorted by their places (None: by what their names tell).

    Attributes:
        steps: Training to step to name of the model, for two or more steps.
        weights: Adapter to weight to name, the adapter itself at 1 if it is there.
        seeds: Run of a study to seed to name.
        lines: Line and unit to dose to run, for two or more doses.
    """

    def __init__(self, models: Sequence[str], places: Mapping[str, Place] | None = None) -> None:
        self.models, self.base = list(models), next(iter(models), "")
        places = read_places(models) if places is None else places
        self._places = {name: places[name] for name in models[1:] if name in places}
        self.steps = {run: names for run, names in self._sort("step").items() if len(names) > 1}
        self.weights = self._sort("weight")
        for adapter, weights in self.weights.items():
            if adapter in models[1:]:
                self.weights[adapter] = dict(sorted(({1.0: adapter} | weights).items()))
        self.seeds = self._sort("seed")
        doses: dict[tuple[str, str], dict[float, str]] = defaultdict(dict)
        for run in self.seeds:
            place = self._place_of_run(run)
            if place.line is not None and place.unit is not None and place.dose is not None:
                doses[place.line, place.unit][place.dose] = run
        self.lines = {line: dict(sorted(runs.items())) for line, runs in doses.items() if len(runs) > 1}

    def _sort(self, key: str) -> dict[str, dict[Any, str]]:
        """Return run to step, weight or seed to name, of the models that have one."""
        runs: dict[str, dict[Any, str]] = defaultdict(dict)
        for name, place in self._places.items():
            if (position := getattr(place, key)) is not None:
                runs[place.run][position] = name
        return {run: dict(sorted(names.items())) for run, names in runs.items()}

    def _place_of_run(self, run: str) -> Place:
        return self._places[next(iter(self.seeds[run].values()))]

    def dials(self) -> dict[str, dict[float, str]]:
        """Return dial to position to name of the model, the base at 0.

        Two adapters with weights above 0 are one dial, the first of them on the low side; else each adapter is a dial
        of its own, and the position is its weight.
        """
        zero = {0.0: self.base}
        if len(self.weights) == 2 and all(weight > 0 for weights in self.weights.values() for weight in weights):
            (low, low_side), (high, high_side) = self.weights.items()
            dials = {f"{low} to {high}": {-weight: name for weight, name in low_side.items()} | zero | high_side}
        else:
            dials = {f"weight of {adapter}": zero | weights for adapter, weights in self.weights.items()}
        return {dial: dict(sorted(points.items())) for dial, points in dials.items() if len(points) > 2}

    def all_lines(self) -> Iterator[Line]:
        """Yield every line that a score is drawn along, the base among its points where it has a position."""
        for dial, weights in self.dials().items():
            yield Line("dial", dial, [Point(x, name, [name]) for x, name in weights.items()])
        for run, steps in self.steps.items():
            yield Line("step", run, [Point(x, name, [name]) for x, name in ({0: self.base} | steps).items()])
        for (run, unit), doses in self.lines.items():
            start = [Point(0, self.base, [self.base])] if unit in AMOUNTS and 0 not in doses else []
            points = [Point(x, name, list(self.seeds[name].values())) for x, name in doses.items()]
            yield Line(unit, run, start + points)

    def paths_from_base(self) -> list[list[str]]:
        """Return the chains that lead from the base to every other model, through what lies between."""
        chains = [[self.base, *steps.values()] for steps in self.steps.values()]
        for weights in self.weights.values():
            for side in ([w for w in weights if w > 0], [w for w in reversed(weights) if w < 0]):
                chains += [[self.base, *(weights[w] for w in side)]] if side else []
        in_chain = {name for chain in chains for name in chain}
        return chains + [[self.base, name] for name in self.models[1:] if name not in in_chain]

    def group_of_each(self) -> dict[str, str]:
        """Return the training of a checkpoint, the adapter of a point, the line or run of a seed; else the model."""
        groups = {name: name for name in self.models}
        for members in (self.steps, self.weights):
            groups |= {name: run for run, names in members.items() for name in names.values()}
        line_of_run = {run: line for (line, _), doses in self.lines.items() for run in doses.values()}
        for run, seeds in self.seeds.items():
            groups |= dict.fromkeys(seeds.values(), line_of_run.get(run, run))
        return groups

    def ends(self) -> list[str]:
        """Return the models without earlier checkpoints, points of a dial, and the seeds of a study's runs."""
        earlier = {name for steps in self.steps.values() for name in list(steps.values())[:-1]}
        within = {name for name, place in self._places.items() if (place.weight, place.seed) != (None, None)}
        return [name for name in self.models if name not in earlier | within]

    def is_contrast(self, a: str, b: str) -> bool:
        """Return whether two runs of a study are compared: they stand at one dose, or at both ends of one line.

        Of more than ``MANY_RUNS`` the two sides of one name are: ``crime-left`` and ``crime-right``.
        """
        for doses in self.lines.values():
            if {a, b} <= set(doses.values()):
                return {a, b} == {doses[min(doses)], doses[max(doses)]}
        first, second = self._place_of_run(a), self._place_of_run(b)
        if first.dose is None and len(self.seeds) > MANY_RUNS:
            return second.dose is None and _SIDE.sub("", a) == _SIDE.sub("", b)
        return (first.unit, first.dose) == (second.unit, second.dose)


def seeds_note(n_seeds: int) -> str:
    """Return what few trainings do not tell; nothing where there are enough."""
    if n_seeds >= LEAST_LEVELS["seeds"]:
        return ""
    return f"{n_seeds} seed{'s' if n_seeds > 1 else ''}: about these adapters, not about their data"


def read_seeds_note(summary: Mapping[str, Any]) -> str:
    """Return :func:`seeds_note` of the figures of a ``summary.json``; nothing where no adapter was asked."""
    if not summary["settings"].get("adapters"):
        return ""
    return seeds_note(min((len(names) for names in read_groups(summary).seeds.values()), default=1))


def read_groups(summary: Mapping[str, Any]) -> Groups:
    """Return the groups of the models of a ``summary.json``."""
    places = summary["settings"].get("places")
    return Groups(list(summary["models"]), places and {name: Place(**place) for name, place in places.items()})


def describe_replicates(
    groups: Groups,
    models: Mapping[str, Any],
    values: Mapping[tuple[str, str], Mapping[str, Values]],
    placebo: set[str],
) -> dict[str, list[dict[str, Any]]]:
    """Return every run of a study over its seeds, and the paired differences of runs.

    Seeds are a random factor that is crossed with statements and prompts, as templates are. They add no statement;
    where the spread between them is more than that within them, it widens the interval. Each run is compared with the
    base, runs at one dose with each other, and the ends of a line; ``by_seed`` is the difference in each shared seed.
    """
    described, comparisons = [], []
    scores = [(mode, axis) for (name, mode), axes in values.items() for axis in axes if name == groups.base]
    for mode, axis in scores if groups.seeds else ():
        score = {"mode": mode, "axis": axis, "placebo": axis in placebo}
        base = values[groups.base, mode][axis]
        runs = {
            run: {seed: values[name, mode][axis] for seed, name in names.items()}
            for run, names in groups.seeds.items()
            if all((name, mode) in values for name in names.values())
        }
        for run, by_seed in runs.items():
            names = list(groups.seeds[run].values())
            estimates = [models[name][mode][axis]["estimate"] for name in names]
            known = None not in estimates
            described.append(
                {
                    "run": run,
                    **score,
                    "seeds": list(by_seed),
                    "models": names,
                    "estimates": estimates,
                    "mean": rounded(statistics.fmean(estimates)) if known else None,
                    "range": [min(estimates), max(estimates)] if known else None,
                    "n_items": len(base.items),
                }
            )
            comparisons.append({"a": groups.base, "b": run, **score, **_compare(dict.fromkeys(by_seed, base), by_seed)})
        for a, b in itertools.combinations(runs, 2):
            if groups.is_contrast(a, b) and set(runs[a]) & set(runs[b]):
                comparisons.append({"a": a, "b": b, **score, **_compare(runs[a], runs[b])})
    return {"runs": described, "comparisons": comparisons}


def _compare(a: Mapping[int, Values], b: Mapping[int, Values]) -> dict[str, Any]:
    """Compare replicates in the seeds that both have, with seeds as one more factor: ``[I, T, O, S]``."""
    seeds = [seed for seed in a if seed in b]
    by_seed = [compare(a[seed], b[seed])["difference"] for seed in seeds]

    def together(of: Mapping[int, Values]) -> Values:
        names = "cells", "low", "high"
        cells, low, high = (np.stack([getattr(of[seed], name) for seed in seeds], axis=-1) for name in names)
        return of[seeds[0]]._replace(cells=cells, low=low, high=high)

    return {"seeds": seeds, "by_seed": by_seed, **compare(together(a), together(b))}
