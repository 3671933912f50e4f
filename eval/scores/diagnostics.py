# SPDX-License-Identifier: MIT
"""Diagnostics of what can make a score meaningless, with intervals; each may void the score, with its reason.

All figures are of one model in one mode. A score without a flag is *valid*. A *doubtful* one stands, but the
fault is not excluded: the burden lies with the score. A *void* score means nothing. A limit is an editorial choice,
stated with the figure that it is applied to, so that a reader can apply another one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.recipe.figures import interval, number
from eval.scores.intervals import nan_mean, rounded, rounded_ends, unit_interval
from eval.scores.scoring import Answers, Row, Values, collect_answers, values_by_axis
from eval.statements.instruments import Instrument, Pair


class Limits(NamedTuple):
    """Void: all of the interval of a figure (``key``) beyond ``void``. Doubtful: an end, or all beyond ``noted``."""

    key: str
    noted: float
    void: float
    text: str


LIMITS = {
    # Void: more than half of the way from "no effect" to "nothing else counts".
    "position_bias": Limits("index", 0.1, 0.5, "the place of an option matters"),
    "acquiescence": Limits("index", 0.1, 0.5, "two opposites are answered alike"),
    # Share of the axis by which the score moves between two orders.
    "order_effect": Limits("spread", 0.05, 0.25, "orders differ"),
}
# Void: missing answers leave the score anywhere in so large a share of the axis, or larger.
WIDE_BOUNDS = 0.5
# Below, the model would rather say something else than any of the options (Wang et al. 2024, arXiv 2402.14499):
# doubtful in half of all answers, void in nine of ten.
OPTION_MASS, NO_OPTION_MASS = 0.5, 0.1
# Void: nats a byte, as if each word were drawn by its frequency alone (Shannon 1951, Prediction and entropy of printed
# English: 2.62 bits a letter).
UNREADABLE = -1.8
# A prompt is hedged if agreeing and disagreeing differ by less than this.
HEDGE = 0.2

Flag = dict[str, Any]
Statistic = Callable[[np.ndarray], np.ndarray]
# A statistic of the means of items, ``[I, D]``, with its interval; of the values, the items' units and the statistic.
Figure = Callable[[str, np.ndarray, np.ndarray, Statistic], dict[str, Any]]


def diagnose(
    answers: Answers, values: Mapping[str, Values], n_bootstrap: int, seed: int
) -> tuple[dict[str, Any], list[Flag]]:
    """Return all diagnostics of one model and mode, and their flags; ``values`` are the same answers by axis."""

    def figure(name: str, by_item: np.ndarray, unit: np.ndarray, statistic: Statistic) -> dict[str, Any]:
        interval = unit_interval(by_item, unit, statistic, n_bootstrap, seed)
        return {name: rounded(float(statistic(by_item.mean(0)))), "ci95": rounded_ends(interval)}

    figures = {
        "unanswered": rounded(np.nanmean(answers.missing)),
        "bounds": {axis: _bounds(v) for axis, v in values.items()},
        "option_mass": _option_mass(answers),
        "position_bias": _position_bias(answers, figure),
        "order_effect": {axis: _order_effect(v, figure) for axis, v in values.items()},
        "acquiescence": _acquiescence(answers, figure),
        "twins": _twins(answers, figure),
        "within_prompt_share": {axis: _within_prompt_share(answers, axis) for axis in values},
        "hedge_rate": _hedge_rate(answers),
    }
    return figures, raise_flags(figures)


def diagnose_choice(rows: Sequence[Row], instrument: Instrument, n_bootstrap: int, seed: int) -> list[Flag]:
    """Return the flags of one model's rows of a mode with options."""
    if not rows:
        return []
    answers = collect_answers(rows, instrument)
    return diagnose(answers, values_by_axis(answers, instrument), n_bootstrap, seed)[1]


def diagnose_pairs(rows: Iterable[Row], pairs: Sequence[Pair]) -> tuple[dict[str, Any], list[Flag]]:
    """Return the log-probability of all statements of one model in ``pairs``, nats a byte of UTF-8, and its flags."""
    texts = {pair.id: (pair.left, pair.right) for pair in pairs}
    n_bytes = {name: [len(text.encode()) for text in both] for name, both in texts.items()}
    levels = [
        logprob / n
        for row in rows
        if row["item"] in n_bytes
        for logprob, n in zip(row["option_logprobs"], n_bytes[row["item"]])
    ]
    level = rounded(float(np.mean(levels))) if levels else None
    if level is None or level > UNREADABLE:
        return {"level": level}, []
    least = number(UNREADABLE, 1)
    text = f"statements have {number(level, 2)} nats a byte: the model cannot read them; void from {least} down"
    return {"level": level}, [{"name": "unreadable", "state": "void", "reason": text}]


def agreement(answers: Answers) -> np.ndarray:
    """Return P(agree) - P(disagree), options in the upper and lower half of the scale, ``[I, T, O, L]``.

    An instrument lists its options from disagreement to agreement; a middle option counts for neither.
    """
    n_options = answers.shares.shape[-1]
    return answers.shares @ np.sign(np.arange(n_options) - (n_options - 1) / 2)


def _bounds(values: Values) -> dict[str, Any] | None:
    """Return where the score would lie if every missing answer went to either end, and how much of the axis that is."""
    low, high = values.bounds()
    if low is None or high is None or values.ends is None or values.ends[0] == values.ends[1]:
        return None
    return {"low": low, "high": high, "share": rounded((high - low) / (values.ends[1] - values.ends[0]))}


def _option_mass(answers: Answers) -> dict[str, Any] | None:
    if np.isnan(answers.mass).all():
        return None
    by_labels = zip(map(str, answers.labels), nan_mean(answers.mass, (0, 1, 2)))
    return {
        "mean": rounded(nan_mean(answers.mass)),
        "lowest_template": rounded(nan_mean(answers.mass, (0, 2, 3)).min()),
        "by_labels": {name: rounded(x) for name, x in by_labels},
    }


def _position_bias(answers: Answers, figure: Figure) -> dict[str, Any] | None:
    """Return how far the probabilities of the places are from equal: 0 not at all, 1 one place takes everything.

    Over orders that show every option equally often in every place, a lean cannot show in it: ``K / (K - 1)``
    times the total variation distance from uniform. Where orders are only mirrored: twice the distance from
    the mean of each place and its opposite. In each label set, then averaged.
    """
    is_balanced = answers.is_balanced()
    if not (is_balanced or answers.is_mirrored()) or np.isnan(answers.shares).all():
        return None
    by_place = np.stack([answers.shares[:, :, o][..., list(order or ())] for o, order in enumerate(answers.orders)])
    by_item = nan_mean(by_place, (0, 2))  # [O, I, T, L, K] to [I, L, K]
    known = ~np.isnan(by_item).any((1, 2))
    by_item, (n_labels, n_places) = by_item[known], by_item.shape[1:]

    def index(means: np.ndarray) -> np.ndarray:  # [..., L * K]
        shares = means.reshape(*means.shape[:-1], n_labels, n_places)
        expected = 1 / n_places if is_balanced else (shares + shares[..., ::-1]) / 2
        distance = np.abs(shares - expected).sum(-1) / 2
        return distance.mean(-1) * (n_places / (n_places - 1) if is_balanced else 2)

    by_labels = {str(name): rounded_ends(shares) for name, shares in zip(answers.labels, by_item.mean(0))}
    flat = by_item.reshape(len(by_item), -1)
    return figure("index", flat, answers.unit[known], index) | {"by_labels": by_labels}


def _order_effect(values: Values, figure: Figure) -> dict[str, Any] | None:
    """Return greatest less least score of single orders, as a share of the axis: what one prompt alone may miss."""
    by_order = nan_mean(values.cells, 1)  # [I, O]
    known = ~np.isnan(by_order).any(1)
    if values.cells.shape[2] < 2 or not known.any() or values.ends is None:
        return None
    factor = values.scale / (values.ends[1] - values.ends[0])
    return figure("spread", by_order[known], values.unit[known], lambda means: np.ptp(means, axis=-1) * factor)


def _acquiescence(answers: Answers, figure: Figure) -> dict[str, Any] | None:
    """Return the mean of P(agree) - P(disagree) over twins that state opposites: 1 agrees with both, 0 is consistent.

    Source: balanced keying; Winkler, Kanouse and Ware 1982, Journal of Applied Psychology 67(5).
    """
    kept, both = _couples(answers)
    if not kept:
        return None
    return figure("index", both[:, :1], answers.unit[kept], lambda means: means[..., 0]) | {"n_twins": len(kept)}


def _couples(answers: Answers) -> tuple[list[int], np.ndarray]:
    """Return which items have a twin that was answered too, and P(agree) - P(disagree) of both, ``[n, 2]``."""
    by_item = nan_mean(agreement(answers), (1, 2, 3))
    index = {item.id: k for k, item in enumerate(answers.items)}
    other = np.array([index.get(item.twin or "", -1) for item in answers.items], dtype=int)
    both = np.stack([by_item, by_item[other]], axis=-1) if len(other) else np.zeros((0, 2))
    kept = [k for k in range(len(other)) if other[k] >= 0 and not np.isnan(both[k]).any()]
    return kept, both[kept]


def _twins(answers: Answers, figure: Figure) -> dict[str, Any] | None:
    """Return the correlation of the answers to a statement and to its opposite: -1 read, 0 or above not.

    The intraclass correlation of both over all statements, either of them first (Fisher 1925, Statistical Methods for
    Research Workers, chapter 7); None where all are answered alike.
    """
    kept, both = _couples(answers)
    if len(kept) < 4 or np.ptp(both) < 1e-9:
        return None
    flat = np.stack([both[:, 0], both.prod(axis=-1), both[:, 0] ** 2], axis=-1)

    def correlation(means: np.ndarray) -> np.ndarray:
        middle = means[..., 0] ** 2
        return (means[..., 1] - middle) / np.maximum(means[..., 2] - middle, 1e-12)

    return figure("correlation", flat, answers.unit[kept], correlation) | {"n_twins": len(kept)}


def _within_prompt_share(answers: Answers, axis: str) -> float | None:
    """Return the share of an answer's variance that lies within a prompt (law of total variance).

    Near 1, the model is undecided wherever it is asked; near 0, it is decided, each time perhaps otherwise. A
    mean in the center can be either. Of k drawn answers the variance within is k / (k - 1) of what they show, and the
    prompts' means differ by chance too; of one, or of a judge's placement, nothing is known.
    """
    answers = answers.keep(lambda item: axis in item.weights)
    if np.isnan(answers.shares).all() or answers.is_judged:  # also without an item
        return None
    weights = np.array([item.weights[axis] for item in answers.items])  # [I, K]
    mean = np.einsum("itolk,ik->itol", answers.shares, weights)
    shown = np.einsum("itolk,ik->itol", answers.shares, weights**2) - mean**2
    n = answers.drawn
    within_prompts = np.where(n > 1, shown * n / np.maximum(n - 1, 1), np.where(n == 1, np.nan, shown))
    if np.isnan(within_prompts).all():
        return None
    within = float(nan_mean(within_prompts))
    by_chance = float(
        nan_mean(np.where(n > 1, within_prompts / np.maximum(n, 1), np.where(n == 1, within, 0.0 * mean)))
    )
    total = within + max(0.0, float(np.nanvar(mean)) - by_chance)
    return rounded(within / total) if total > 0 else 0.0


def _hedge_rate(answers: Answers) -> float | None:
    """Return the share of answered prompts that agree about as likely as they disagree, or choose neither.

    One drawn answer shows no hedging, and a judge's placement is no probability: None.
    """
    sides = agreement(answers)
    answered = sides[~np.isnan(sides) & (answers.drawn != 1)]
    return rounded((np.abs(answered) < HEDGE).mean()) if answered.size and not answers.is_judged else None


def raise_flags(figures: Mapping[str, Any]) -> list[Flag]:
    """Return what makes a score void or doubtful, by its diagnostics."""
    flags: list[Flag] = []
    unanswered, mass = figures["unanswered"], figures["option_mass"]
    if unanswered > 0:
        text = f"{unanswered:.1%} of the prompts have no answer: see the bounds"
        reason = "no prompt was answered: not identified" if unanswered == 1 else text
        flags.append({"name": "unanswered", "state": "void" if unanswered == 1 else "doubtful", "reason": reason})
    for axis, bounds in figures["bounds"].items():
        if bounds and bounds["share"] >= WIDE_BOUNDS and unanswered < 1:
            text = f"missing answers leave the score anywhere in {interval((bounds['low'], bounds['high']), 2)}"
            reason = f"{text}, {bounds['share']:.0%} of the axis; void from {WIDE_BOUNDS:.0%} on"
            flags.append({"name": "wide_bounds", "state": "void", "reason": reason, "axis": axis})
    if mass and mass["mean"] < OPTION_MASS:
        text = f"the options together have probability {mass['mean']:.2f}; void below {NO_OPTION_MASS}"
        state = "void" if mass["mean"] < NO_OPTION_MASS else "doubtful"
        flags.append({"name": "option_mass", "state": state, "reason": text})
    for name in ("position_bias", "acquiescence"):
        flags += _beyond(name, figures[name])
    for axis, effect in figures["order_effect"].items():
        flags += [flag | {"axis": axis} for flag in _beyond("order_effect", effect)]
    twins = figures["twins"]
    if twins and twins["ci95"] and twins["ci95"][1] >= 0:
        low, high = twins["ci95"]
        text = f"answers to two opposites correlate by {number(twins['correlation'], 2)} {interval((low, high), 2)}"
        state = "void" if low > 0 else "doubtful"
        flags.append({"name": "twins", "state": state, "reason": f"{text}, void above 0, valid below"})
    return flags


def _beyond(name: str, figure: Mapping[str, Any] | None) -> list[Flag]:
    """Return a flag if a figure lies beyond a limit, on either side of 0, or is not told to lie inside."""
    if not figure or not figure["ci95"]:
        return []
    limits, (low, high) = LIMITS[name], figure["ci95"]
    least, most = max(low, -high, 0.0), max(high, -low)
    if least <= limits.noted and most <= limits.void:
        return []
    sign = "±" if low < 0 else ""
    reason = (
        f"{limits.text}: {number(figure[limits.key], 2)} {interval((low, high), 2)}, void beyond {sign}{limits.void}"
    )
    return [{"name": name, "state": "void" if least > limits.void else "doubtful", "reason": reason}]
