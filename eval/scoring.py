# SPDX-License-Identifier: MIT
"""Coordinates, intervals and paired comparisons from result rows; numpy only, no model.

Negative is left / libertarian, positive right / authoritarian. An answer that is missing is never counted
as one: ``bounds`` say where the coordinate could lie.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.instruments import Instrument, Pair
from eval.resampling import false_discovery_rates, mean_interval, sign_flip_p

Row = Mapping[str, Any]


class Values(NamedTuple):
    """What each item adds to a score; the score is ``scale * mean + shift``.

    Attributes:
        estimate: By the options' probabilities, nan where there is no answer, ``[n_items]``.
        hard: By the chosen options; None in a mode without options.
        low: The least it could be, given what was not answered; nan where that has no limit.
        high: The most it could be.
        unit: Name of the couple of twins (or of the item) that is resampled as one.
        scale: ``n_items / divisor`` of the axis.
        shift: ``offset / divisor`` of the axis.
    """

    estimate: np.ndarray
    hard: np.ndarray | None
    low: np.ndarray
    high: np.ndarray
    unit: np.ndarray
    scale: float
    shift: float

    def score(self, values: np.ndarray) -> float | None:
        """Return ``scale * mean + shift``, or None without values or with one that is nan."""
        known = len(values) and not np.isnan(values).any()
        return _rounded(self.scale * values.mean() + self.shift) if known else None


def option_shares(rows: Sequence[Row], n_options: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Average the answers to one item over templates, orders, label sets and samples.

    The probabilities are renormalized over the options in each prompt, then averaged; over orders that
    show every option in every place this mean is free of the preference for a place (the permutation
    average of Zheng et al. 2024, arXiv 2309.03882).

    Args:
        rows: All rows of one model, mode and item.
        n_options: Number of options of the instrument.

    Returns:
        The mean probability of each option ``[n_options]``, the share of prompts in which each is chosen
        ``[n_options]`` (both nan if there is no answer), and the share of rows without an answer.
    """
    probabilities, chosen = [], []
    for row in rows:
        if row["choice"] is None:
            continue
        one_hot = np.eye(n_options)[row["choice"]]
        chosen.append(one_hot)
        if row["option_logprobs"] is None:
            probabilities.append(one_hot)
        else:
            logprobs = np.array(row["option_logprobs"], dtype=float)
            p = np.exp(logprobs - logprobs.max())
            probabilities.append(p / p.sum())
    if not chosen:
        nothing = np.full(n_options, np.nan)
        return nothing, nothing, 1.0
    return np.mean(probabilities, axis=0), np.mean(chosen, axis=0), 1 - len(chosen) / len(rows)


def axis_values(rows: Iterable[Row], instrument: Instrument, axis: str) -> Values:
    """Return the weight that each item of ``axis`` collects in the rows of one model and mode.

    Expected: sum over options of probability x weight; hard: the mean weight of the chosen options. The
    coordinate is ``(n_items * mean + offset) / divisor``, which for a full set of answers is the design's
    ``(sum of the chosen options' weights + offset) / divisor``.
    """
    by_item = defaultdict(list)
    for row in rows:
        by_item[row["item"]].append(row)
    items = [item for item in instrument.items if axis in item.weights]
    columns = []
    for item in items:
        weights = np.array(item.weights[axis], dtype=float)
        shares, chosen, missing = option_shares(by_item[item.id], len(weights))
        known = 0.0 if missing == 1 else (1 - missing) * (weights @ shares)
        ends = known + missing * weights.min(), known + missing * weights.max()
        columns.append((weights @ shares, weights @ chosen, *ends))
    units = [min(item.id, item.twin or item.id) for item in items]
    divisor, offset = instrument.axes[axis].divisor, instrument.axes[axis].offset
    return Values(*np.array(columns).T, np.array(units), len(items) / divisor, offset / divisor)


def pair_values(rows: Iterable[Row], pairs: Sequence[Pair]) -> Values:
    """Return the lean of each pair in nats a token, positive towards the right statement.

    ``mean over templates of [log p(right) / n_tokens(right) - log p(left) / n_tokens(left)]``. Per token,
    so that the longer statement is not the less likely one by its length alone (length-normalized
    log-likelihood as in lm-evaluation-harness, ``acc_norm``, with tokens for bytes).
    """
    by_item = defaultdict(list)
    for row in rows:
        left, right = (lp / n for lp, n in zip(row["option_logprobs"], row["n_tokens"]))
        by_item[row["item"]].append(right - left)
    ids = [pair.id for pair in pairs]
    leans = np.array([np.mean(by_item[name]) if name in by_item else np.nan for name in ids])
    return Values(leans, None, leans, leans, np.array(ids), 1.0, 0.0)


def summarize(rows: Iterable[Row], instrument: Instrument, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Return ``models`` and ``comparisons`` of ``summary.json``.

    Args:
        rows: Rows of ``results.jsonl``, of all models and modes.
        instrument: The instrument that they answer.
        n_bootstrap: Resamples of an interval and sign flips of a test.
        seed: Of both.

    Returns:
        ``models``: name, mode, axis (for ``pairs`` also ``lean``, over all pairs) to estimate, ci95,
        bounds, n_items, n_answered and, for modes with options, ``hard``. ``comparisons``: every two
        models, ``difference = b - a`` on the items that both answered; p by sign flips, q over all of them.
    """
    by_model: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_model[row["model"]][row["mode"]].append(row)
    values = {
        (model, mode): _by_axis(answers, mode, instrument)
        for model, modes in by_model.items()
        for mode, answers in modes.items()
    }
    models: dict[str, Any] = {model: {} for model in by_model}
    for (model, mode), axes in values.items():
        models[model][mode] = {a: _describe(v, n_bootstrap, seed) for a, v in axes.items()}
    comparisons = []
    for (a, b), mode in itertools.product(itertools.combinations(by_model, 2), _modes(by_model)):
        for axis in values.get((a, mode), {}):
            if axis in values.get((b, mode), {}):
                test = _compare(values[a, mode][axis], values[b, mode][axis], n_bootstrap, seed)
                comparisons.append({"a": a, "b": b, "mode": mode, "axis": axis, **test})
    for comparison, q in zip(comparisons, false_discovery_rates([c["p"] for c in comparisons])):
        comparison["q"] = None if q is None else _rounded(q)
    return {"models": models, "comparisons": comparisons}


def _modes(by_model: Mapping) -> list[str]:
    return list(dict.fromkeys(mode for modes in by_model.values() for mode in modes))


def _by_axis(rows: list[Row], mode: str, instrument: Instrument) -> dict[str, Values]:
    if mode != "pairs":
        return {axis: axis_values(rows, instrument, axis) for axis in instrument.axes}
    of_axis = {axis: [p for p in instrument.pairs if p.axis == axis] for axis in instrument.axes}
    on_axis = {axis: pair_values(rows, pairs) for axis, pairs in of_axis.items() if pairs}
    return {"lean": pair_values(rows, instrument.pairs), **on_axis}


def _describe(values: Values, n_bootstrap: int, seed: int) -> dict[str, Any]:
    answered = ~np.isnan(values.estimate)
    ci95 = mean_interval(values.estimate[answered], values.unit[answered], n_bootstrap, seed)
    described = {
        "estimate": values.score(values.estimate[answered]),
        "ci95": None if ci95 is None else [_rounded(values.scale * x + values.shift) for x in ci95],
        "bounds": [values.score(values.low), values.score(values.high)],
        "n_items": len(answered),
        "n_answered": int(answered.sum()),
    }
    if values.hard is not None:
        described["hard"] = values.score(values.hard[answered])
    return described


def _compare(a: Values, b: Values, n_bootstrap: int, seed: int) -> dict[str, Any]:
    both = ~np.isnan(a.estimate) & ~np.isnan(b.estimate)
    change, unit = (b.estimate - a.estimate)[both], a.unit[both]
    ci95 = mean_interval(change, unit, n_bootstrap, seed)
    p = sign_flip_p(change, unit, n_bootstrap, seed)
    return {
        "difference": _rounded(a.scale * change.mean()) if len(change) else None,
        "ci95": None if ci95 is None else [_rounded(a.scale * x) for x in ci95],
        "p": None if p is None else _rounded(p),
        "q": None,
        "n_items": len(change),
    }


def _rounded(x: float) -> float:
    return round(float(x), 6)
