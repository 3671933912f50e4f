# SPDX-License-Identifier: MIT
"""What can make a score meaningless, measured with intervals: each may void the score, with its reason.

All figures are of one model in one mode. A limit is an editorial choice, stated with the figure that it is
applied to, so that a reader can apply another one.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from eval.scores.answers import Answers
from eval.scores.resampling import unit_interval
from eval.scores.scoring import Values, rounded

# Beyond "void" the greater part of what is measured is not the item: more than half of the way from "no effect"
# to "nothing else counts". From "noted" on it is reported beside the score.
POSITION = {"noted": 0.1, "void": 0.5}
ACQUIESCENCE = {"noted": 0.1, "void": 0.5}
# Share of the axis by which the score moves between two orders.
ORDER = {"noted": 0.05, "void": 0.25}
# Below it the model would rather say something else than any of the options (Wang et al. 2024, arXiv 2402.14499).
OPTION_MASS = 0.5
# A prompt is hedged if agreeing and disagreeing differ by less than this.
HEDGE = 0.2

Flag = dict[str, Any]


def diagnose(
    answers: Answers, values: Mapping[str, Values], n_bootstrap: int, seed: int
) -> tuple[dict[str, Any], list[Flag]]:
    """Return all diagnostics of one model and mode, and the flags that they raise.

    Args:
        answers: To all items.
        values: The same answers by axis.
        n_bootstrap: Resamples of each interval.
        seed: Of the resamples.
    """
    found = {
        "unanswered": rounded(np.nanmean(answers.missing)),
        "option_mass": _option_mass(answers),
        "position_bias": _position_bias(answers, n_bootstrap, seed),
        "order_effect": {axis: _order_effect(v, n_bootstrap, seed) for axis, v in values.items()},
        "acquiescence": _acquiescence(answers, n_bootstrap, seed),
        "within_prompt_share": {axis: _within_prompt_share(answers.of_axis(axis), axis) for axis in values},
        "hedge_rate": _hedge_rate(answers),
    }
    return found, _flags(found)


def agreement(answers: Answers) -> np.ndarray:
    """Return P(agree) - P(disagree), options in the upper and lower half of the scale, ``[I, T, O, L]``.

    An instrument lists its options from disagreement to agreement; a middle option counts for neither.
    """
    n_options = answers.shares.shape[-1]
    return answers.shares @ np.sign(np.arange(n_options) - (n_options - 1) / 2)


def _mean(values: np.ndarray, axis: Any = None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is nan
        return np.nanmean(values, axis=axis)


def _option_mass(answers: Answers) -> dict[str, Any] | None:
    if np.isnan(answers.mass).all():
        return None
    by_labels = zip(map(str, answers.labels), _mean(answers.mass, (0, 1, 2)))
    return {
        "mean": rounded(_mean(answers.mass)),
        "lowest_template": rounded(_mean(answers.mass, (0, 2, 3)).min()),
        "by_labels": {name: rounded(x) for name, x in by_labels},
    }


def _position_bias(answers: Answers, n_bootstrap: int, seed: int) -> dict[str, Any] | None:
    """How far the probabilities of the places are from equal: 0 not at all, 1 one place takes everything.

    Over orders that show every option equally often in every place, a lean cannot show in it: ``K / (K - 1)``
    times the total variation distance from uniform. Where orders are only mirrored: twice the distance from
    the mean of each place and its opposite. In each label set, then averaged.
    """
    is_balanced = answers.is_balanced()
    if not (is_balanced or answers.is_mirrored()) or np.isnan(answers.shares).all():
        return None
    by_place = np.stack([answers.shares[:, :, o][..., list(order)] for o, order in enumerate(answers.orders)])
    of_item = _mean(by_place, (0, 2))  # [O, I, T, L, K] to [I, L, K]
    there = ~np.isnan(of_item).any((1, 2))
    of_item, (n_labels, n_places) = of_item[there], of_item.shape[1:]

    def index(means: np.ndarray) -> np.ndarray:  # [..., L * K]
        places = means.reshape(*means.shape[:-1], n_labels, n_places)
        expected = 1 / n_places if is_balanced else (places + places[..., ::-1]) / 2
        distance = np.abs(places - expected).sum(-1) / 2
        return distance.mean(-1) * (n_places / (n_places - 1) if is_balanced else 2)

    flat = of_item.reshape(len(of_item), -1)
    return {
        "index": rounded(index(flat.mean(0))),
        "ci95": _rounded(unit_interval(flat, answers.units()[there], index, n_bootstrap, seed)),
        "by_labels": {str(name): [rounded(x) for x in places] for name, places in zip(answers.labels, of_item.mean(0))},
    }


def _order_effect(values: Values, n_bootstrap: int, seed: int) -> dict[str, Any] | None:
    """Greatest less least score of single orders, as a share of the axis; what one prompt alone may miss."""
    by_order = _mean(values.cells, 1)  # [I, O]
    there = ~np.isnan(by_order).any(1)
    if values.cells.shape[2] < 2 or not there.any() or values.ends is None:
        return None
    factor = values.scale / (values.ends[1] - values.ends[0])

    def spread(means: np.ndarray) -> np.ndarray:
        return (means.max(-1) - means.min(-1)) * factor

    interval = unit_interval(by_order[there], values.unit[there], spread, n_bootstrap, seed)
    return {"spread": rounded(spread(by_order[there].mean(0))), "ci95": _rounded(interval)}


def _acquiescence(answers: Answers, n_bootstrap: int, seed: int) -> dict[str, Any] | None:
    """Mean of P(agree) - P(disagree) over twins that state opposites: 1 agrees with both, 0 is consistent.

    Source: balanced keying; Winkler, Kanouse and Ware 1982, Journal of Applied Psychology 67(5).
    """
    ids = {item.id for item in answers.items}
    kept = [i for i, item in enumerate(answers.items) if item.twin in ids]
    of_item = _mean(agreement(answers), (1, 2, 3))
    kept = [i for i in kept if not np.isnan(of_item[i])]
    # both of a couple or none
    n_of_unit = {u: sum(answers.units()[i] == u for i in kept) for u in answers.units()[kept]}
    kept = [i for i in kept if n_of_unit[answers.units()[i]] == 2]
    if not kept:
        return None
    flat, unit = of_item[kept][:, None], answers.units()[kept]
    interval = unit_interval(flat, unit, lambda means: means[..., 0], n_bootstrap, seed)
    return {"index": rounded(flat.mean()), "ci95": _rounded(interval), "n_twins": len(kept)}


def _within_prompt_share(answers: Answers, axis: str) -> float | None:
    """Share of an answer's variance that lies within a prompt (law of total variance).

    Near 1, the model is undecided wherever it is asked; near 0, it is decided, each time perhaps otherwise. A
    mean in the center can be either.
    """
    if not answers.items or np.isnan(answers.shares).all():
        return None
    weights = np.array([item.weights[axis] for item in answers.items])  # [I, K]
    mean = np.einsum("itolk,ik->itol", answers.shares, weights)
    within = _mean(np.einsum("itolk,ik->itol", answers.shares, weights**2) - mean**2)
    total = within + np.nanvar(mean)
    return rounded(within / total) if total > 0 else 0.0


def _hedge_rate(answers: Answers) -> float | None:
    """Share of answered prompts in which agreeing and disagreeing are about as likely, or neither is chosen."""
    sides = agreement(answers)
    answered = sides[~np.isnan(sides)]
    return rounded((np.abs(answered) < HEDGE).mean()) if answered.size else None


def _flags(found: Mapping[str, Any]) -> list[Flag]:
    flags = []
    if found["unanswered"] == 1:
        flags.append({"name": "unanswered", "void": True, "reason": "no prompt was answered: not identified"})
    elif found["unanswered"] > 0:
        share = f"{found['unanswered']:.1%} of the prompts have no answer: see the bounds"
        flags.append({"name": "unanswered", "void": False, "reason": share})
    mass = found["option_mass"]
    if mass and mass["mean"] < OPTION_MASS:
        text = f"the options together have probability {mass['mean']:.2f}, below {OPTION_MASS}"
        flags.append({"name": "option_mass", "void": False, "reason": text})
    indices = [
        ("position_bias", None, found["position_bias"], "index", POSITION, "the place of an option matters"),
        ("acquiescence", None, found["acquiescence"], "index", ACQUIESCENCE, "two opposites are answered alike"),
    ]
    indices += [("order_effect", a, v, "spread", ORDER, "orders differ") for a, v in found["order_effect"].items()]
    for name, axis, value, key, limits, text in indices:
        if not value or not value["ci95"]:
            continue
        low, high = value["ci95"]
        sure = max(low, -high, 0.0)  # what the whole interval lies beyond
        if sure > limits["noted"]:
            is_void, sign = sure > limits["void"], "±" if low < 0 else ""
            limit = f"{'void' if is_void else 'would be void'} beyond {sign}{limits['void']}"
            reason = f"{text}: {value[key]:+.2f} [{low:+.2f}, {high:+.2f}], {limit}"
            flag = {"name": name, "void": is_void, "reason": reason}
            flags.append(flag | ({"axis": axis} if axis else {}))
    return flags


def _rounded(interval: list[float] | None) -> list[float] | None:
    return None if interval is None else [rounded(x) for x in interval]
