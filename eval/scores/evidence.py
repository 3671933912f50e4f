# SPDX-License-Identifier: MIT
"""What stands beside a change in mode ``pairs``: its rivals, each with a figure that would tell it from a lean.

Vocabulary, learning of what was taught (seen and unseen propositions), sharpening of what
the base thought already, and whatever moves the placebo too.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.scores.comparisons import describe_change
from eval.scores.crossed import LEAST_TOPICS, effective_size, item_means
from eval.scores.diagnostics import diagnose_pairs
from eval.scores.intervals import fit_line, nan_mean, rounded
from eval.scores.places import Groups
from eval.scores.rivals import (
    NO_COMMON_PROMPT,
    NO_SENSITIVITY,
    Change,
    change_of,
    flags,
    less_placebo,
    level_of,
    lexical_shifts,
    other_leans,
    scaling,
)
from eval.scores.scoring import Row, Values, levels_of, pair_cells, pair_values
from eval.statements.exposure import EXPOSURES, Exposure, Taught, exposures, read_sources, without_topics
from eval.statements.instruments import Instrument

# With more models that stand for themselves, each is compared with the base alone.
MANY_MODELS = 4
ALL, BALANCED = "all political", "word-balanced"


class Background(NamedTuple):
    """What is known of the trainings behind a run's models.

    ``answers``: model to the answers that its training preferred and those that it dispreferred; ``exposure``: pair to
    what the training sets of the run have argued of it, or None where no set is known; ``taught``: model to what its
    own training has argued of each pair, of every adapter where one was taught less than all sets of the run have;
    ``no_topics``: training sets, of the run (None) and of the models of ``taught``, whose rows do not say their topics;
    ``lexical``: two names ``(a, b)`` to what :func:`predict` gave of them, where the answers are not at hand.
    """

    answers: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {}
    exposure: Mapping[str, Exposure] | None = None
    taught: Mapping[str, Mapping[str, Exposure]] = {}
    no_topics: Mapping[str | None, Sequence[str]] = {}
    lexical: Mapping[tuple[str, str], np.ndarray] = {}

    def exposure_of(self, models: Iterable[str]) -> Mapping[str, Exposure] | None:
        """Return what the trainings of these models have argued of each pair, the most of it where they differ.

        What a blend or a respondent was taught is not known, so it counts as taught all sets of the run.
        """
        names = self._told_apart(models)
        if self.exposure is None or not names:
            return self.exposure
        return {pair: min((self.taught[n][pair] for n in names), key=EXPOSURES.index) for pair in self.exposure}

    def without_topics(self, models: Iterable[str]) -> list[str]:
        """Return the sets behind :meth:`exposure_of` whose rows do not say their topics."""
        names: Sequence[str | None] = self._told_apart(models) or [None]
        return list(dict.fromkeys(file for name in names for file in self.no_topics.get(name, ())))

    def _told_apart(self, models: Iterable[str]) -> list[str]:
        names = list(models)
        return names if set(names) <= set(self.taught) else []


def read_background(
    instrument: Instrument,
    answers: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    given: Sequence[Any],
    own: Mapping[str, Sequence[Any]] | None,
) -> Background:
    """Return what the sets of a run have argued: those ``given``, and each adapter's ``own``; None: not known."""
    if own is None:
        return Background(answers)
    every = [source for sources in own.values() for source in sources]
    read: dict[str | None, Taught] = {None: read_sources([*given, *every])}
    if any(source not in sources for sources in own.values() for source in every):  # adapters were taught other rows
        read |= {name: read_sources([*given, *sources]) for name, sources in own.items()}
    classes = {name: exposures(instrument, taught) for name, taught in read.items()}
    no_topics = {name: taught.no_topics for name, taught in read.items()}
    return Background(answers, classes[None], {n: of for n, of in classes.items() if n is not None}, no_topics)


class Sides(NamedTuple):
    """Two models, or two runs of a study over the seeds that both have, and who they are called."""

    a: str
    b: str
    of_a: list[str]  # a model a seed
    of_b: list[str]


class Subset(NamedTuple):
    """Some of the pairs: ``mask``, ``[P]``, says which."""

    name: str
    is_placebo: bool
    mask: np.ndarray


def contrasts(groups: Groups, declared: Iterable[tuple[str, str] | None] = ()) -> list[Sides]:
    """Return what is compared: each end with the base, few ends with each other, the runs of a study, and ``declared``.

    What is declared, models or runs ``(a, b)``, is compared however many others there are.
    """
    ends = groups.ends()
    named = itertools.combinations(ends, 2) if len(ends) <= MANY_MODELS else ((ends[0], name) for name in ends[1:])
    found = [Sides(a, b, [a], [b]) for a, b in named]
    for run, names in groups.seeds.items():
        found.append(Sides(groups.base, run, [groups.base] * len(names), list(names.values())))
    for a, b in itertools.combinations(groups.seeds, 2):
        shared = [seed for seed in groups.seeds[a] if seed in groups.seeds[b]]
        if shared and groups.is_contrast(a, b):
            found.append(Sides(a, b, *([groups.seeds[run][seed] for seed in shared] for run in (a, b))))
    for pair in declared:
        if pair is not None and pair not in {(sides.a, sides.b) for sides in found}:
            runs = [groups.seeds[name] for name in pair if name in groups.seeds]
            shared = [seed for seed in runs[0] if seed in runs[-1]] if runs else [None]
            of_a, of_b = ([groups.seeds[n][s] if n in groups.seeds else n for s in shared] for n in pair)
            if shared:
                found.append(Sides(*pair, of_a, of_b))
    return found


def describe_evidence(
    rows: Iterable[Row],
    instrument: Instrument,
    groups: Groups,
    background: Background,
    declared: Iterable[tuple[str, str] | None] = (),
) -> list[dict[str, Any]]:
    """Return for each contrast its ``subsets``, a table of pairs with their change and what vocabulary alone shows.

    The subsets are all political pairs, those of each class of exposure, the word-balanced ones and each placebo. Each
    has the fields of a comparison, and: ``lexical``, the mean of the lexical prediction; ``slope`` of the changes on
    it, and ``beyond``, the change where it is 0; ``dz``, the mean over the pairs' standard deviation; ``up``, the
    share of the pairs that moved towards the right; ``sensitivity``, the change of the lean by the formulas of
    ``other_leans``; ``pairs_sha256``, which pairs they are; and of several seeds ``by_seed``, the change in each.
    ``scaling``, ``less_placebo`` and ``flags`` are those of ``eval/scores/rivals.py``. A contrast without pairs is left
    out. See :func:`contrasts` for ``declared``.
    """
    rows = [row for row in rows if row["mode"] == "pairs"]
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    units, templates = instrument.units(), levels_of(rows, instrument).templates
    values = {name: pair_values(of_model, instrument.pairs, units, templates) for name, of_model in by_model.items()}
    leans = {name: other_leans(of_model, instrument.pairs, templates) for name, of_model in by_model.items()}
    described = []
    for sides in contrasts(groups, declared):
        if not {*sides.of_a, *sides.of_b} <= set(values):
            continue
        a, b = (_together([values[name] for name in names]) for names in (sides.of_a, sides.of_b))
        change = b.cells - a.cells
        if np.isnan(change).all():  # asked in other templates
            continue
        lexical, why_not = predict(sides, instrument, groups, background)
        base = values.get(groups.base)
        tuned = {*sides.of_a, *sides.of_b} - {groups.base}
        masks = list(subsets(instrument, background.exposure_of(tuned)))
        no_topics = background.without_topics(tuned)
        level = [
            np.mean([pair_cells(by_model[name], instrument.pairs, level_of, templates) for name in names], axis=0)
            for names in (sides.of_a, sides.of_b)
        ]
        others = {
            key: _stack([leans[n][key] for n in sides.of_b]) - _stack([leans[n][key] for n in sides.of_a])
            for key in NO_SENSITIVITY
            if all(key in leans[n] for n in (*sides.of_a, *sides.of_b))
        }
        why_not_by = {
            key: NO_COMMON_PROMPT if key in others else why
            for key, why in NO_SENSITIVITY.items()
            if key not in others or np.isnan(others[key]).all()
        }
        others = {key: x for key, x in others.items() if key not in why_not_by}
        rivals = _rivals(a, change, level[1] - level[0], base, lexical, masks)
        unread = [
            {**flag, "reason": f"{name}: {flag['reason']}"}
            for name in dict.fromkeys((*sides.of_a, *sides.of_b))
            for flag in diagnose_pairs(by_model[name], instrument.pairs)[1]
        ]
        described.append(
            {
                "a": sides.a,
                "b": sides.b,
                "n_seeds": len(sides.of_a),
                "no_lexical": why_not,
                **({"no_topics": without_topics(no_topics)} if no_topics else {}),
                "no_sensitivity": why_not_by,
                "subsets": [
                    {"subset": name, "placebo": is_placebo, **_subset(a, change, lexical, others, mask)}
                    for name, is_placebo, mask in masks
                ],
                **rivals,
                "flags": [*unread, *rivals["flags"]],
            }
        )
    return described


def _rivals(
    like: Values,
    change: np.ndarray,
    level: np.ndarray,
    base: Values | None,
    lexical: np.ndarray | None,
    masks: Sequence[Subset],
) -> dict[str, Any]:
    """Return the scaling of the base's lean, the change less each placebo's, and the flags of a contrast.

    A placebo whose words the training loads more than those of the political pairs is about vocabulary, which
    ``beyond`` judges: it raises no flag.
    """
    by_name = {subset.name: subset for subset in masks}
    if ALL not in by_name:
        return {"scaling": None, "less_placebo": {}, "flags": []}
    political, placebos = by_name[ALL].mask, [subset for subset in masks if subset.is_placebo]

    def moved(mask: np.ndarray, of: np.ndarray) -> Change:
        return change_of(of[mask], like.unit[mask], like.topic[mask])

    def size(mask: np.ndarray) -> float:
        return float(np.sqrt(nan_mean(item_means(change[mask]) ** 2)))

    def words(mask: np.ndarray) -> float:
        return 0.0 if lexical is None else abs(float(lexical[mask].mean()))

    plain = [subset for subset in placebos if lexical is None or words(subset.mask) <= words(political)]
    lean = moved(political, change)
    line = None
    if base is not None:
        some = take(like, political)
        of_base = base.cells[..., None] if change.ndim == 4 else base.cells
        of_base = np.where(np.isnan(change), np.nan, of_base)  # in the prompts that the change is of
        line = scaling(item_means(of_base[political]), item_means(change[political]), clusters(some))
    either, any_plain = (
        np.any([subset.mask for subset in some], axis=0) for some in (placebos or masks, plain or masks)
    )
    found = flags(
        lean,
        {subset.name: moved(subset.mask, change) for subset in plain},
        (size(political), size(any_plain)) if plain else None,
        moved(either, level) if placebos else None,
        line,
    )
    less = {subset.name: less_placebo(lean, moved(subset.mask, change)) for subset in placebos}
    return {"scaling": line, "less_placebo": less, "flags": found}


def _together(values: Sequence[Values]) -> Values:
    """Return replicates with seeds as one more factor, ``[I, T, O, S]``; one model as it is."""
    return values[0]._replace(cells=_stack([v.cells for v in values]))


def _stack(cells: Sequence[np.ndarray]) -> np.ndarray:
    return cells[0] if len(cells) == 1 else np.stack(cells, axis=-1)


def subsets(instrument: Instrument, exposure: Mapping[str, Exposure] | None) -> list[Subset]:
    """Return the subsets that have any pair."""
    placebo = instrument.placebo
    axes = np.array([pair.axis or "" for pair in instrument.pairs])
    political = ~np.isin(axes, sorted(placebo))
    found = [Subset(ALL, False, political)]
    if exposure is not None:
        classes = np.array([exposure[pair.id] for pair in instrument.pairs])
        found += [Subset(name, False, political & (classes == name)) for name in EXPOSURES]
    balanced = np.array([pair.is_word_balanced for pair in instrument.pairs], dtype=bool)
    found.append(Subset(BALANCED, False, political & balanced))
    found += [Subset(axis, True, axes == axis) for axis in instrument.axes if axis in placebo]
    return [subset for subset in found if subset.mask.any()]


def predict(
    sides: Sides, instrument: Instrument, groups: Groups, background: Background
) -> tuple[np.ndarray | None, str | None]:
    """Return the lexical shift of the training data on every pair, or why there is none.

    Between two tuned models it is that from the answers of one to those of the other. Against the base, from the
    answers that a training dispreferred to those that it preferred. Of several seeds it is their mean.
    """
    if (sides.a, sides.b) in background.lexical:
        return background.lexical[sides.a, sides.b], None
    shifts = []
    for name_a, name_b in zip(sides.of_a, sides.of_b):  # seeds may have drawn other pairs
        before, after = background.answers.get(name_a), background.answers.get(name_b)
        if sides.a == groups.base and after is not None:
            before = (after[1], ())
            if not after[1]:
                return None, f"{sides.b} was tuned on preferred answers alone, so nothing stands for the base's words"
        if before is None or after is None:
            unknown = [name for name, texts in zip(sides, (before, after)) if texts is None]
            return None, f"the training answers of {' and '.join(map(str, unknown))} are not known"
        shifts.append(lexical_shifts(instrument.pairs, before[0], after[0]))
    return np.mean(shifts, axis=0), None


def _subset(
    like: Values,
    change: np.ndarray,
    lexical: np.ndarray | None,
    others: Mapping[str, np.ndarray],
    mask: np.ndarray,
) -> dict[str, Any]:
    """Return what one subset of the pairs says of a contrast."""
    some = take(like, mask)
    cells = change[mask]
    described = {key: x for key, x in describe_change(some, cells).items() if key != "q"}
    means = item_means(cells)
    described |= {
        "pairs_sha256": hashlib.sha256("\n".join(some.items).encode()).hexdigest(),
        **dict.fromkeys(("lexical", "slope", "beyond")),
        "sensitivity": {
            name: change_of(other[mask], some.unit, some.topic).describe()
            for name, other in others.items()
            if not np.isnan(other[mask]).all()
        },
    }
    if cells.ndim == 4:
        described["by_seed"] = [rounded(nan_mean(item_means(cells[..., s]))) for s in range(cells.shape[-1])]
    if lexical is None:
        return described
    line = fit_line(lexical[mask], means, clusters(some))
    described["lexical"] = rounded(float(lexical[mask].mean()) + 0.0)
    if line:
        described["beyond"] = Change(line.intercept, line.intercept_error).describe()
        described["slope"] = None if line.slope is None else Change(line.slope, line.slope_error).describe()
    return described


def take(values: Values, mask: np.ndarray) -> Values:
    """Return the values of some of the pairs."""
    arrays = {name: getattr(values, name)[mask] for name in ("cells", "low", "high", "unit", "topic")}
    return values._replace(items=tuple(itertools.compress(values.items, mask)), **arrays)


def clusters(values: Values) -> np.ndarray:
    """Return what the pairs were sampled by: their topics where there are enough, as in ``mean_errors``."""
    has_topics = effective_size(values.topic) >= LEAST_TOPICS and len(set(values.topic)) < len(set(values.unit))
    return values.topic if has_topics else values.unit
