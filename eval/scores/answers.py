# SPDX-License-Identifier: MIT
"""The answers of one model in one mode as arrays: items x templates x orders (x label sets x options)."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.statements.instruments import Instrument, Item, Pair

Row = Mapping[str, Any]


class Answers(NamedTuple):
    """Answers to items, averaged over samples. Legend: I items, T templates, O orders, L label sets, K options."""

    items: tuple[Item, ...]  # those that were asked, in the instrument's order
    templates: tuple[str, ...]
    orders: tuple[tuple[int, ...] | None, ...]  # of options; None where a mode shows no order
    labels: tuple[str | None, ...]
    shares: np.ndarray  # probability of each option among all options; nan without an answer, [I, T, O, L, K]
    chosen: np.ndarray  # share of samples in which each option is chosen, [I, T, O, L, K]
    mass: np.ndarray  # probability of all options together; nan where it is not known, [I, T, O, L]
    missing: np.ndarray  # share of samples without an answer; nan where a prompt was not asked, [I, T, O, L]

    def of_axis(self, axis: str) -> "Answers":
        """Return the answers to the items of one axis."""
        return self.take([i for i, item in enumerate(self.items) if axis in item.weights])

    def take(self, kept: Sequence[int]) -> "Answers":
        """Return the answers to the items at these indices."""
        arrays = {name: getattr(self, name)[list(kept)] for name in ("shares", "chosen", "mass", "missing")}
        return self._replace(items=tuple(self.items[i] for i in kept), **arrays)

    def units(self) -> np.ndarray:
        """Return the name of each item's unit, ``[I]``."""
        return np.array([unit_of(item) for item in self.items])

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


def unit_of(item: Item) -> str:
    """Return the name of what was sampled as one: the couple of twins, or the item."""
    return min(item.id, item.twin or item.id)


def collect_answers(rows: Iterable[Row], instrument: Instrument) -> Answers:
    """Arrange the rows of one model and mode; the order of the rows changes nothing.

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
    templates, orders, labels = (_levels(row[key] for row in rows) for key in ("template", "order", "labels"))
    levels = ([item.id for item in items], templates, orders, labels)
    index = [{level: k for k, level in enumerate(factor)} for factor in levels]
    shape = tuple(map(len, levels))
    shares, chosen = (np.zeros((*shape, len(instrument.options))) for _ in range(2))
    mass, n_mass, n_rows, n_answered = (np.zeros(shape) for _ in range(4))
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
            shares[cell][row["choice"]] += 1
        else:
            logprobs = np.array([-np.inf if x is None else x for x in row["option_logprobs"]])
            p = np.exp(logprobs - logprobs.max())
            shares[cell] += p / p.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        return Answers(
            items=items,
            templates=tuple(templates),
            orders=tuple(orders),
            labels=tuple(labels),
            shares=shares / n_answered[..., None],
            chosen=chosen / n_answered[..., None],
            mass=mass / n_mass,
            missing=1 - n_answered / n_rows,
        )


def collect_leans(rows: Iterable[Row], pairs: Sequence[Pair]) -> np.ndarray:
    """Return the lean of each pair in each template (sorted) in nats a token, positive towards the right statement.

    ``log p(right) / n_tokens(right) - log p(left) / n_tokens(left)``. Per token, so that the longer statement
    is not the less likely one by its length alone (length-normalized log-likelihood as in
    lm-evaluation-harness, ``acc_norm``, with tokens for bytes). ``[P, T]``, nan where a pair was not asked.
    """
    rows = list(rows)
    templates = {name: k for k, name in enumerate(_levels(row["template"] for row in rows))}
    index = {pair.id: k for k, pair in enumerate(pairs)}
    leans = np.full((len(pairs), len(templates)), np.nan)
    for row in rows:
        if row["item"] in index:
            left, right = (logprob / n for logprob, n in zip(row["option_logprobs"], row["n_tokens"]))
            leans[index[row["item"]], templates[row["template"]]] = right - left
    return leans


def _hashable(value: Any) -> Hashable:
    return tuple(value) if isinstance(value, list) else value


def _levels(values: Iterable[Any]) -> list[Any]:
    return sorted(set(map(_hashable, values)), key=lambda value: (value is None, value))
