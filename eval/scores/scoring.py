# SPDX-License-Identifier: MIT
"""From the rows of one model in one mode to answers in arrays, and to coordinates with bounds and two intervals.

Negative is left / libertarian, positive right / authoritarian. An answer that is missing is never counted
as one: ``bounds`` say where the coordinate could lie.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.scores.crossed import MeanErrors, item_means, mean_errors
from eval.scores.intervals import nan_mean, rounded, rounded_ends, t_interval
from eval.statements.instruments import Instrument, Item, Pair

Row = Mapping[str, Any]


class Answers(NamedTuple):
    """Answers to items, averaged over samples. Legend: I items, T templates, O orders, L label sets, K options."""

    items: tuple[Item, ...]  # those that were asked, in the instrument's order
    unit: np.ndarray  # of each item, see Instrument.units, [I]
    templates: tuple[str, ...]
    orders: tuple[tuple[int, ...] | None, ...]  # of options; None where a mode shows no order
    labels: tuple[str | None, ...]
    shares: np.ndarray  # probability of each option among all options; nan without an answer, [I, T, O, L, K]
    chosen: np.ndarray  # share of samples in which each option is chosen, [I, T, O, L, K]
    mass: np.ndarray  # probability of all options together; nan where it is not known, [I, T, O, L]
    missing: np.ndarray  # share of samples without an answer; nan where a prompt was not asked, [I, T, O, L]
    drawn: np.ndarray  # answers that the shares are counted from; 0 where probabilities are known, [I, T, O, L]
    is_judged: bool  # a judge placed the answers between the options: their shares are no probabilities

    def keep(self, is_kept: Callable[[Item], bool]) -> "Answers":
        """Return the answers to some of the items."""
        kept = [i for i, item in enumerate(self.items) if is_kept(item)]
        arrays = {name: getattr(self, name)[kept] for name in ("unit", "shares", "chosen", "mass", "missing", "drawn")}
        return self._replace(items=tuple(self.items[i] for i in kept), **arrays)

    def is_balanced(self) -> bool:
        """Return whether the orders show every option equally often in every place."""
        if None in self.orders:
            return False
        places = np.array(self.orders)  # [O, K]
        counts = np.stack([(places == option).sum(0) for option in range(places.shape[1])])
        return bool((counts == counts[0, 0]).all() and counts[0, 0] > 0)

    def is_mirrored(self) -> bool:
        """Return whether every order stands beside its reverse, so that an option is as often kth as kth from below."""
        orders = {order for order in self.orders if order is not None}
        return None not in self.orders and {order[::-1] for order in orders} == orders


class Levels(NamedTuple):
    """The levels of the prompts of a mode: where models are compared those of all, so that a cell is one prompt."""

    templates: tuple[str, ...]
    orders: tuple[tuple[int, ...] | None, ...]
    labels: tuple[str | None, ...]


def levels_of(rows: Iterable[Row], instrument: Instrument) -> Levels:
    """Return the levels of the prompts about an instrument's items or pairs."""
    known = {item.id for item in instrument.items} | {pair.id for pair in instrument.pairs}
    rows = [row for row in rows if row["item"] in known]
    return Levels(*(_levels(row.get(key) for row in rows) for key in ("template", "order", "labels")))


def collect_answers(rows: Iterable[Row], instrument: Instrument, levels: Levels | None = None) -> Answers:
    """Arrange the rows of one model and mode; the order of the rows changes nothing.

    ``levels`` None: those of the rows.

    A row is without an answer if its ``choice`` is None. Where it has no ``option_logprobs`` its chosen
    option has probability 1. An option whose log-probability is None (a server did not list it) has probability 0.
    """
    known = {item.id for item in instrument.items}
    rows = sorted(
        (row for row in rows if row["item"] in known),
        key=lambda row: (row["item"], row["sample"], row["prompt_sha256"]),
    )
    asked = {row["item"] for row in rows}
    items = tuple(item for item in instrument.items if item.id in asked)
    levels = levels or levels_of(rows, instrument)
    index = [{level: k for k, level in enumerate(factor)} for factor in ([item.id for item in items], *levels)]
    shape = tuple(map(len, index))
    shares, chosen = (np.zeros((*shape, len(instrument.options))) for _ in range(2))
    mass, n_mass, n_rows, n_answered, n_drawn = (np.zeros(shape) for _ in range(5))
    for row in rows:
        keys = (row["item"], row["template"], _hashable(row["order"]), row["labels"])
        cell = tuple(factor[key] for factor, key in zip(index, keys))
        n_rows[cell] += 1
        if row["option_mass"] is not None:
            mass[cell] += row["option_mass"]
            n_mass[cell] += 1
        if row["choice"] is None:
            continue
        n_answered[cell] += 1
        chosen[cell][row["choice"]] += 1
        if row["option_logprobs"] is None:
            n_drawn[cell] += 1
            shares[cell][row["choice"]] += 1
        else:
            logprobs = np.array([-np.inf if x is None else x for x in row["option_logprobs"]])
            p = np.exp(logprobs - logprobs.max())
            shares[cell] += p / p.sum()
    units = instrument.units()
    with np.errstate(invalid="ignore", divide="ignore"):
        return Answers(
            items=items,
            unit=np.array([units[item.id] for item in items]),
            **levels._asdict(),
            shares=shares / n_answered[..., None],
            chosen=chosen / n_answered[..., None],
            mass=mass / n_mass,
            missing=1 - n_answered / n_rows,
            drawn=n_drawn,
            is_judged=any(row.get("stance") is not None for row in rows),
        )


def _hashable(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, list) else value


def _levels(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(set(map(_hashable, values)), key=lambda value: (value is None, value)))


class Values(NamedTuple):
    """The amounts that items add to a score, which is ``scale * mean + shift``."""

    items: tuple[str, ...]  # ids
    cells: np.ndarray  # by the options' probabilities; nan where there is no answer, [I, T, O]
    hard: np.ndarray | None  # by the chosen options, [I]; None in a mode without options
    low: np.ndarray  # the least, given what was not answered; nan where not asked or without a limit, [I, T, O]
    high: np.ndarray  # the most, [I, T, O]
    unit: np.ndarray  # of each item, see Instrument.units, [I]
    topic: np.ndarray  # of each item, [I]
    scale: float = 1.0  # n_items / divisor of the axis
    shift: float = 0.0  # offset / divisor of the axis
    ends: tuple[float, float] | None = None  # least and greatest score that there is; None without a limit

    def score(self, values: np.ndarray) -> float | None:
        """Return ``scale * mean + shift``, or None without values or with one that is nan."""
        known = len(values) and not np.isnan(values).any()
        return rounded(self.scale * values.mean() + self.shift) if known else None

    def bounds(self) -> list[float | None]:
        """Return the least and the greatest score that missing answers leave open."""
        return [self.score(item_means(ends)) for ends in (self.low, self.high)]

    def incomplete(self, means: np.ndarray) -> np.ndarray:
        """Return which items have no answer, or a twin without one, ``[I]``.

        A statement alone does not tell agreement with it from agreement with anything: both of a couple count, or none.
        """
        return np.isin(self.unit, self.unit[np.isnan(means)])


def values_by_axis(answers: Answers, instrument: Instrument) -> dict[str, Values]:
    """Return the values on every axis that an item of the instrument is weighed on."""
    weighed = {axis for item in instrument.items for axis in item.weights}
    return {axis: axis_values(answers, instrument, axis) for axis in instrument.axes if axis in weighed}


def axis_values(answers: Answers, instrument: Instrument, axis: str) -> Values:
    """Return the weight that each item of ``axis`` collects: the sum over options of probability x weight.

    Over orders that show every option equally often in every place the mean is free of a preference for a place (the
    permutation average of Zheng et al. 2024, arXiv 2309.03882). The coordinate is ``(n_items * mean + offset) /
    divisor``. Bounds put the least and the greatest weight in the place of every missing answer (the worst-case bounds
    of Manski 1989, Journal of Human Resources 24(3)).
    """
    items = [item for item in instrument.items if axis in item.weights]
    units = instrument.units()
    place = {item.id: k for k, item in enumerate(answers.items)}
    cells, low, high = (np.full((len(items), *answers.shares.shape[1:3]), np.nan) for _ in range(3))
    hard = np.full(len(items), np.nan)
    for k, item in enumerate(items):
        weights = np.array(item.weights[axis], dtype=float)
        low[k], high[k] = weights.min(), weights.max()
        if item.id not in place:
            continue
        i = place[item.id]
        expected, missing = answers.shares[i] @ weights, answers.missing[i]  # [T, O, L]
        cells[k] = nan_mean(expected, 2)
        hard[k] = nan_mean(answers.chosen[i] @ weights)
        known = np.where(missing == 1, 0.0, (1 - missing) * expected)
        low[k] = nan_mean(known + missing * weights.min(), 2)
        high[k] = nan_mean(known + missing * weights.max(), 2)
    about = instrument.axes[axis]
    return Values(
        items=tuple(item.id for item in items),
        cells=cells,
        hard=hard,
        low=low,
        high=high,
        unit=np.array([units[item.id] for item in items]),
        topic=np.array([item.topic for item in items]),
        scale=len(items) / about.divisor,
        shift=about.offset / about.divisor,
        ends=instrument.axis_range(axis),
    )


def pair_values(
    rows: Iterable[Row], pairs: Sequence[Pair], units: Mapping[str, str], templates: Sequence[str] | None = None
) -> Values:
    """Return the lean of each pair in each template in nats a token, positive towards the right statement.

    ``log p(right) / n_tokens(right) - log p(left) / n_tokens(left)``. Per token, so that the longer statement
    is not the less likely one by its length alone (length-normalized log-likelihood as in
    lm-evaluation-harness, ``acc_norm``, with tokens for bytes). ``units`` are the instrument's: pairs that say the same
    are one statement, so that intervals count it once. ``templates``: as in :func:`pair_cells`.
    """
    cells = pair_cells(rows, pairs, lean_of, templates)
    ids = tuple(pair.id for pair in pairs)
    unit = np.array([units[name] for name in ids])
    topic = np.array([pair.topic for pair in pairs])
    return Values(items=ids, cells=cells, hard=None, low=cells, high=cells, unit=unit, topic=topic)


def text_values(
    samples: Mapping[tuple[str, str], Sequence[float | None]],
    asked: Mapping[str, Collection[str]],
    units: Mapping[str, str],
    topics: Mapping[str, str],
    ends: tuple[float, float] | None,
) -> Values:
    """Arrange numbers of written texts by item and template, averaged over samples; None is one that is missing.

    Args:
        samples: Item and template to the numbers of one model; what is not there it was not asked.
        asked: Item to the templates in which anybody was asked. Unless all items have the same, templates are no factor
            of the table, and an item's are averaged.
        units: Item to its unit; one that is not there is its own.
        topics: The same of topics.
        ends: The least and the greatest number, which the bounds put in place of what is missing; None: no limit.
    """
    items, templates = list(asked), sorted(set[str]().union(*asked.values()))
    cells, low, high = (np.full((len(items), len(templates), 1), np.nan) for _ in range(3))
    for i, item in enumerate(items):
        for t, template in enumerate(templates):
            numbers = samples.get((item, template), [])
            if known := [x for x in numbers if x is not None]:
                cells[i, t] = np.mean(known)
            for bound, end in zip((low, high), ends or (np.nan, np.nan)):
                if numbers:
                    bound[i, t] = np.mean([end if x is None else x for x in numbers])
    if any(len(asked[item]) < len(templates) for item in items):
        cells, low, high = (item_means(of)[:, None, None] for of in (cells, low, high))
    return Values(
        items=tuple(items),
        cells=cells,
        hard=None,
        low=low,
        high=high,
        unit=np.array([units.get(item, item) for item in items]),
        topic=np.array([topics.get(item, item) for item in items]),
        ends=ends,
    )


def lean_of(row: Row) -> float:
    """Return the lean that a row of ``pairs`` shows."""
    left, right = (logprob / n for logprob, n in zip(row["option_logprobs"], row["n_tokens"]))
    return right - left


def pair_cells(
    rows: Iterable[Row], pairs: Sequence[Pair], figure: Callable[[Row], float], templates: Sequence[str] | None = None
) -> np.ndarray:
    """Arrange a figure of each row of ``pairs`` by its pair and template, ``[P, T, 1]``; nan where none was asked.

    ``templates`` are those of all models that are compared; None: those of the rows.
    """
    rows = list(rows)
    columns = _levels(row["template"] for row in rows) if templates is None else templates
    place = {name: k for k, name in enumerate(columns)}
    index = {pair.id: k for k, pair in enumerate(pairs)}
    cells = np.full((len(pairs), len(columns), 1), np.nan)
    for row in rows:
        if row["item"] in index:
            cells[index[row["item"]], place[row["template"]]] = figure(row)
    return cells


def describe(values: Values) -> dict[str, Any]:
    """Return estimate, both intervals, bounds and counts of one model, mode and axis.

    The estimate is that of complete couples where items have twins. ``no_interval`` has the reason for each interval
    that is None, ``over`` what ``ci95`` generalizes to: topics or items, and the factors of the prompts that have
    enough levels; of the other factors it speaks of the levels that were asked alone.
    """
    means = item_means(values.cells)
    used = ~values.incomplete(means)
    estimate = values.score(means[used])
    errors = mean_errors(values.cells[used], values.unit[used], values.topic[used])
    if not used.any() and not np.isnan(means).all():
        reason = "no complete couple: of no statement its opposite was answered too"
        errors = errors._replace(why_not=dict.fromkeys(errors.why_not, reason))
    described = {
        "estimate": estimate,
        **describe_intervals(errors, estimate, values.scale, values.ends),
        "bounds": values.bounds(),
        "n_items": len(means),
        "n_answered": int((~np.isnan(means)).sum()),
        "n_used": int(used.sum()),
    }
    return described if values.hard is None else described | {"hard": values.score(values.hard[used])}


def describe_intervals(
    errors: MeanErrors, center: float | None, scale: float, ends: tuple[float, float] | None
) -> dict[str, Any]:
    """Return both intervals about a center, inside the scale, with what they speak of, or why there is none."""
    intervals = {
        key: None if center is None else t_interval(center, error, scale)
        for key, error in (("ci95", errors.sampled), ("ci95_items_fixed", errors.fixed))
    }
    if ends:
        intervals = {key: between and np.clip(between, *ends).tolist() for key, between in intervals.items()}
    reasons = {"ci95": errors.why_not.get("sampled"), "ci95_items_fixed": errors.why_not.get("fixed")}
    return {
        **{key: rounded_ends(between) for key, between in intervals.items()},
        "over": [errors.units, *errors.prompts] if intervals["ci95"] else [],
        "no_interval": {key: reason for key, reason in reasons.items() if reason},
    }
