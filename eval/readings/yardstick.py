# SPDX-License-Identifier: MIT
"""Distances of models to what groups of people answered in a survey, beside those of answers that know nothing.

A distance is one to the answers of a group in a survey, under this instrument and these prompts. It does not say that a
model speaks for anybody. Beside its null models it must be read: where a group's answers are split, answers that know
nothing lie near to it.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from data.judging.judges import Judge
from eval.scores.crossed import LEAST_TOPICS, LEAST_UNITS, effective_size
from eval.scores.diagnostics import agreement
from eval.scores.intervals import nan_mean, rounded, rounded_ends, unit_interval
from eval.scores.scoring import Row, collect_answers
from eval.statements.instruments import Instrument
from eval.statements.populations import Group, Population
from eval.statements.requests import WRITE

# What a distance is, by what the survey published.
DISTANCES = {
    "shares": "Wasserstein distance of the shares along the options, 1 from end to end, mean over entries",
    "margins": "absolute difference of the margins (share for less share against), mean over entries",
}
# Modes whose rows choose among no options.
NO_OPTIONS = ("pairs", "open")
# Least variance of positions that have an order and a spread.
TINY = 1e-12


class Asked(NamedTuple):
    """What one model answered in one mode. Legend: I entries with an answer, K options."""

    entries: tuple[str, ...]
    shares: np.ndarray | None  # of each option, [I, K]; None where a judge placed the answers between them
    margins: np.ndarray  # P(agree) - P(disagree), [I]
    unit: np.ndarray  # name of what was sampled as one, [I]


def describe_populations(
    rows: Sequence[Row],
    instrument: Instrument,
    diagnostics: Mapping[str, Mapping[str, Any]],
    n_bootstrap: int,
    seed: int,
    read: Sequence[Row] = (),
    judges: Sequence[Judge] = (),
) -> list[dict[str, Any]]:
    """Return the ``populations`` of ``summary.json``: an entry for each survey, and mode in which it was asked.

    Args:
        rows: Rows of ``results.jsonl``, with judged stances as answers to options.
        instrument: Has the populations.
        diagnostics: Those of the summary: what voids a mode's scores stands beside its distances.
        n_bootstrap: Resamples of each interval.
        seed: Of the resamples.
        read: What the judges of mode ``write`` made of its answers; those to neutral requests have margins.
        judges: Those judges; of one that nobody need believe the distances are void.

    Returns:
        What is known of the survey, which ``distance`` it is, and ``rows``: for every model and group ``distance``,
        ``rank`` (Spearman's correlation over entries) and ``spread`` (standard deviation over entries, the model's by
        the group's), each with its interval over entries, couples of twins or topics; ``n_left_out``: entries of the
        survey that were not asked, or not answered; ``nulls``: the distances of answers that are uniform, neutral or
        the group's majority, on the same entries; ``others``: those of the other groups; ``change``: of the distance
        from the first model's; ``void``: flags that void the model's scores in this mode.
    """
    by_mode: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    ids = {item.id for item in instrument.items}
    for row in rows if instrument.populations else ():
        if row["item"] in ids and row["mode"] not in NO_OPTIONS:
            by_mode[row["mode"]][row["model"]].append(row)
    asked = {
        mode: {model: _choices(of_model, instrument) for model, of_model in by_model.items()}
        for mode, by_model in by_mode.items()
    }
    void: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for model, modes in diagnostics.items():
        for mode, figures in modes.items():
            flags = (flag["name"] for flag in figures["flags"] if flag["state"] == "void")
            void[mode][model] = list(dict.fromkeys(flags))
    for judge in judges if instrument.populations else ():
        mode = f"{WRITE}, {judge.name}"
        stances = [row for row in read if row["judge"] == judge.name and row.get("side") == "neutral"]
        if judge.scale.name == "stance" and stances:
            models = dict.fromkeys(row["model"] for row in stances)
            asked[mode] = {m: _stances([r for r in stances if r["model"] == m], judge, instrument) for m in models}
            void[mode] = dict.fromkeys(models, ["judge_not_believed"] if judge.why_not_believed else [])
    base = next((row["model"] for row in rows), "")
    return [
        {"population": name, "mode": mode, **_about(population), "rows": compared}
        for mode, of_mode in asked.items()
        for name, population in instrument.populations.items()
        if (compared := compare_models(population, of_mode, n_bootstrap, seed, void.get(mode, {}), base))
    ]


def _about(population: Population) -> dict[str, Any]:
    groups = {name: group.n for name, group in population.groups.items()}
    content = json.dumps(population, sort_keys=True)
    return {
        **{key: getattr(population, key) for key in ("wave", "licence", "source")},
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "n": groups,
        "distance": DISTANCES["margins" if population.has_margins else "shares"],
    }


def _choices(rows: Sequence[Row], instrument: Instrument) -> Asked:
    answers = collect_answers(rows, instrument)
    margins = nan_mean(agreement(answers), (1, 2, 3))
    known = ~np.isnan(margins)
    items = [item for item, is_known in zip(answers.items, known) if is_known]
    shares = None if answers.is_judged else nan_mean(answers.shares, (1, 2, 3))[known]
    units = _units(answers.unit[known].tolist(), [item.topic for item in items])
    return Asked(tuple(item.id for item in items), shares, margins[known], units)


def _stances(rows: Sequence[Row], judge: Judge, instrument: Instrument) -> Asked:
    """Return the margins of issues: texts for its statement less texts against it, by those whose stance was read."""
    sides: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        label = row["judgement"]["label"]
        if label is not None and (value := judge.scale.value(label)) is not None:
            sides[row["issue"]].append(np.sign(value))
    issues = [issue for issue in (instrument.bank.issues if instrument.bank else ()) if issue.id in sides]
    units = _units([issue.id for issue in issues], [issue.topic for issue in issues])
    ids = tuple(issue.id for issue in issues)
    return Asked(ids, None, np.array([np.mean(sides[name]) for name in ids]), units)


def _units(units: Sequence[str], topics: Sequence[str]) -> np.ndarray:
    """Return what was sampled as one: from enough topics on it is they, as in ``eval/scores/crossed.py``."""
    has_topics = len(topics) and LEAST_TOPICS <= effective_size(np.array(topics)) and len({*topics}) < len({*units})
    return np.array(topics if has_topics else units)


def compare_models(
    population: Population,
    models: Mapping[str, Asked],
    n_bootstrap: int,
    seed: int,
    void: Mapping[str, Sequence[str]],
    base: str,
) -> list[dict[str, Any]]:
    """Return the figures of every model and group, changes from ``base``; a model without an answer has none."""
    compared = []
    before: dict[str, dict[str, float]] = {}
    for (model, asked), name in ((m, g) for m in models.items() for g in population.groups):
        used = [k for k, entry in enumerate(asked.entries) if entry in population.groups[name].answers]
        ours = asked.margins if population.has_margins else asked.shares
        if not used or ours is None:
            continue
        entries = [asked.entries[k] for k in used]
        theirs = {group: answers_of(population.groups[group], entries) for group in population.groups}
        distances = distance(ours[used], theirs[name])
        unit = asked.unit[used]

        def interval(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], unit: np.ndarray) -> Any:
            enough = len({*unit}) >= LEAST_UNITS
            found = unit_interval(values, unit, statistic, n_bootstrap, seed) if enough else None
            # without spread there is nothing to judge by
            known = found is not None and not np.isnan(found).any() and found[0] < found[1] - TINY
            return rounded_ends(found) if known else None

        x, y = position(ours[used]), position(theirs[name])
        enough = len({*unit}) >= LEAST_UNITS  # two entries are always in the same order or in the opposite one
        has_order = enough and min(x.var(), y.var()) > TINY
        moments = np.stack([x, y, x * x, y * y], axis=1)
        figures: dict[str, Any] = {
            "model": model,
            "group": name,
            "n_entries": len(entries),
            "n_left_out": len(population.groups[name].answers) - len(entries),
            "distance": rounded(distances.mean()),
            "ci95": interval(distances[:, None], lambda means: means[..., 0], unit),
            "rank": None,
            "rank_ci95": None,
            "spread": rounded(x.std() / y.std()) if enough and y.var() > TINY else None,
            "spread_ci95": interval(moments, _spread, unit) if has_order else None,
            "nulls": {kind: rounded(distance(null, theirs[name]).mean()) for kind, null in nulls(theirs[name]).items()},
            "others": {
                group: rounded(distance(other, theirs[name]).mean()) for group, other in theirs.items() if group != name
            },
            "change": None,
            "void": list(void.get(model, ())),
        }
        if has_order:
            a, b = (stats.rankdata(positions) for positions in (x, y))
            ranks = np.stack([a, b, a * a, b * b, a * b], axis=1)
            figures |= {
                "rank": rounded(float(_correlation(ranks.mean(0)))),
                "rank_ci95": interval(ranks, _correlation, unit),
            }
        if model == base:
            before[name] = dict(zip(entries, distances))
        elif both := [k for k, entry in enumerate(entries) if entry in before.get(name, {})]:
            moved = np.array([[distances[k] - before[name][entries[k]]] for k in both])
            ci95 = interval(moved, lambda means: means[..., 0], unit[both])
            figures["change"] = {"estimate": rounded(moved.mean()), "ci95": ci95, "n_entries": len(both)}
        compared.append(figures)
    return compared


def answers_of(group: Group, entries: Sequence[str]) -> np.ndarray:
    """Return the margins of entries, ``[I]``, or their shares, ``[I, K]``, which then sum to 1."""
    answers = np.array([group.answers[entry] for entry in entries], dtype=float)
    return answers if group.margins is not None else answers / answers.sum(1, keepdims=True)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distance of each entry, ``[I]``, as :data:`DISTANCES` say: of margins 0 to 2, of shares 0 to 1.

    Options count as equally far apart. Source: of margins, Röttger et al. 2025 (arXiv 2502.08395); of shares, the
    normalized earth mover's distance of da Silva et al. 2026 (arXiv 2609.36253), which is 1 less the similarity of
    Santurkar et al. 2023 (arXiv 2303.17548).
    """
    if a.ndim == 1:
        return np.abs(a - b)
    return np.abs(np.cumsum(a - b, axis=1)[:, :-1]).sum(1) / (a.shape[1] - 1)


def position(answers: np.ndarray) -> np.ndarray:
    """Return where each entry's answers lie: the margin, or the mean option between -1 and 1, ``[I]``."""
    return answers if answers.ndim == 1 else answers @ np.linspace(-1, 1, answers.shape[1])


def nulls(group: np.ndarray) -> dict[str, np.ndarray]:
    """Return the answers of null models in the form of a group's: they know nothing, or only what most people say."""
    if group.ndim == 1:
        even = np.zeros_like(group)
        return {"uniform": even, "neutral": even, "majority": np.sign(group)}
    n_options = group.shape[1]
    middle = np.abs(np.arange(n_options) - (n_options - 1) / 2) < 1  # one option, or the two about the middle
    most = group == group.max(1, keepdims=True)
    return {
        "uniform": np.full_like(group, 1 / n_options),
        "neutral": np.broadcast_to(middle / middle.sum(), group.shape),
        "majority": most / most.sum(1, keepdims=True),
    }


def _spread(means: np.ndarray) -> np.ndarray:
    """Return the ratio of standard deviations from the means of x, y, x² and y², ``[..., 4]``."""
    x, y, xx, yy = np.moveaxis(means, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.maximum(xx - x * x, 0) / (yy - y * y))


def _correlation(means: np.ndarray) -> np.ndarray:
    """Return the correlation from the means of x, y, x², y² and xy, ``[..., 5]``.

    Resampled ranks are those of the whole sample.
    """
    x, y, xx, yy, xy = np.moveaxis(means, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))
