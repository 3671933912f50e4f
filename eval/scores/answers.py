# SPDX-License-Identifier: MIT
"""The answers of one model in one mode as arrays: items x templates x orders (x label sets x options)."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.statements.instruments import Instrument, Item, Pair

Row = Mapping[str, Any]


class Answers(NamedTuple):
    """Answers to items. Legend: I items, T templates, O orders, L label sets, K options.

    Attributes:
        items: Those that were asked, in the instrument's order.
        orders: Each a tuple of options, or None where a mode shows no order.
        labels: Label sets, or None where a mode has none.
        shares: Probability of each option, renormalized over the options in each prompt and averaged over
            samples; nan without an answer, ``[I, T, O, L, K]``.
        chosen: Share of samples in which each option is chosen, the same shape.
        mass: Probability of all options together, nan where it is not known, ``[I, T, O, L]``.
        missing: Share of samples without an answer; nan where a prompt was not asked, ``[I, T, O, L]``.
    """

    items: tuple[Item, ...]
    templates: tuple[str, ...]
    orders: tuple[tuple[int, ...] | None, ...]
    labels: tuple[str | None, ...]
    shares: np.ndarray
    chosen: np.ndarray
    mass: np.ndarray
    missing: np.ndarray

    def of_axis(self, axis: str) -> "Answers":
        """Return the answers to the items of one axis."""
        return self.take([i for i, item in enumerate(self.items) if axis in item.weights])

    def take(self, kept: Sequence[int]) -> "Answers":
        """Return the answers to the items at these places."""
        arrays = {name: getattr(self, name)[list(kept)] for name in ("shares", "chosen", "mass", "missing")}
        return self._replace(items=tuple(self.items[i] for i in kept), **arrays)

    def units(self) -> np.ndarray:
        """Name the couple of twins, or the item, that was sampled as one, ``[I]``."""
        return np.array([min(item.id, item.twin or item.id) for item in self.items])

    def is_balanced(self) -> bool:
        """Return whether the orders show every option equally often in every place."""
        if None in self.orders:
            return False
        places = np.array(self.orders)  # [O, K]
        counts = np.stack([(places == option).sum(0) for option in range(places.shape[1])])
        return bool((counts == counts[0, 0]).all() and counts[0, 0] > 0)

    def is_mirrored(self) -> bool:
        """Return whether every order stands beside its reverse, so that an option is as often kth as kth from below."""
        return None not in self.orders and {order[::-1] for order in self.orders} == set(self.orders)


def collect_answers(rows: Iterable[Row], instrument: Instrument) -> Answers:
    """Arrange the rows of one model and mode; the order of the rows changes nothing.

    A row is without an answer if its ``choice`` is None. Where it has no ``option_logprobs`` its chosen
    option has probability 1. An option whose log-probability is None (a server did not list it) has probability 0.
    """
    rows = sorted(rows, key=lambda row: (row["item"], row["sample"], row["prompt_sha256"]))
    n_options = len(instrument.options)
    known = {item.id for item in instrument.items}
    rows = [row for row in rows if row["item"] in known]
    asked = {row["item"] for row in rows}
    items = tuple(item for item in instrument.items if item.id in asked)
    levels = [
        [item.id for item in items],
        _levels(row["template"] for row in rows),
        _levels(_order(row) for row in rows),
        _levels(row["labels"] for row in rows),
    ]
    index = [{level: k for k, level in enumerate(of)} for of in levels]
    shape = tuple(map(len, levels))
    shares, chosen = np.zeros((*shape, n_options)), np.zeros((*shape, n_options))
    mass, n_mass, n_rows, n_answered = (np.zeros(shape) for _ in range(4))
    for row in rows:
        names = (row["item"], row["template"], _order(row), row["labels"])
        cell = tuple(of[name] for of, name in zip(index, names))
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
        shares, chosen = shares / n_answered[..., None], chosen / n_answered[..., None]
        mass, missing = mass / n_mass, 1 - n_answered / n_rows
    _, templates, orders, labels = map(tuple, levels)
    return Answers(items, templates, orders, labels, shares, chosen, mass, missing)


def collect_leans(rows: Iterable[Row], pairs: Sequence[Pair]) -> np.ndarray:
    """Return the lean of each pair in each template in nats a token, positive towards the right statement.

    ``log p(right) / n_tokens(right) - log p(left) / n_tokens(left)``. Per token, so that the longer statement
    is not the less likely one by its length alone (length-normalized log-likelihood as in
    lm-evaluation-harness, ``acc_norm``, with tokens for bytes).

    Returns:
        ``[P, T]``, templates in alphabetical order, nan where a pair was not asked.
    """
    rows = list(rows)
    templates = {name: k for k, name in enumerate(_levels(row["template"] for row in rows))}
    places = {pair.id: k for k, pair in enumerate(pairs)}
    leans = np.full((len(pairs), len(templates)), np.nan)
    for row in rows:
        if row["item"] in places:
            left, right = (lp / n for lp, n in zip(row["option_logprobs"], row["n_tokens"]))
            leans[places[row["item"]], templates[row["template"]]] = right - left
    return leans


def _order(row: Row) -> tuple[int, ...] | None:
    return None if row["order"] is None else tuple(row["order"])


def _levels(values: Iterable[Hashable]) -> list:
    return sorted(set(values), key=lambda value: (value is None, value))
