# SPDX-License-Identifier: MIT
"""Instruments: the statements put to a model and the weights that turn answers into coordinates.

An instrument is a YAML file (see ``eval/instruments/compass60.yaml``) or a file that
``eval.statements.importers`` brings into that form. What would make a score wrong in silence is refused here.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from random import Random
from typing import Any, NamedTuple

from eval.statements.importers import read_instrument
from eval.statements.instrument_form import HEADER, find_faults
from eval.statements.shipped import find_file

log = logging.getLogger(__name__)


class Axis(NamedTuple):
    """``coordinate = (sum of the chosen options' weights + offset) / divisor``.

    On a ``placebo`` axis the statements are not political: it is scored apart, and must not move.
    """

    low: str
    high: str
    offset: float
    divisor: float
    placebo: bool = False


class Item(NamedTuple):
    """A statement; ``weights[axis]`` holds one number per option; ``twin`` states the opposite."""

    id: str
    text: str
    topic: str
    weights: dict[str, list[float]]
    twin: str | None


class Pair(NamedTuple):
    """Two opposed statements: ``left`` for the low end of the axis, ``right`` for the high end."""

    id: str
    topic: str
    left: str
    right: str
    axis: str | None


class Instrument(NamedTuple):
    """A validated instrument; ``sha256`` is that of the file's bytes."""

    name: str
    version: str
    licence: str
    language: str
    source: str
    axes: dict[str, Axis]
    options: tuple[str, ...]
    items: tuple[Item, ...]
    pairs: tuple[Pair, ...]
    sha256: str

    def axis_range(self, axis: str) -> tuple[float, float]:
        """Return the two coordinates on ``axis`` that no answers can pass, lower first."""
        weights = [item.weights[axis] for item in self.items if axis in item.weights]
        offset, divisor = self.axes[axis].offset, self.axes[axis].divisor
        low, high = (sum(map(end, weights)) + offset for end in (min, max))
        return low / divisor, high / divisor

    def keep(self, ids: Collection[str]) -> "Instrument":
        """Return the instrument with these items and pairs alone, coordinates on about the same scale.

        Offset and divisor of an axis shrink with its number of items; an axis that nothing is left of goes.
        """
        items = tuple(item for item in self.items if item.id in ids)
        pairs = tuple(pair for pair in self.pairs if pair.id in ids)
        axes = {}
        for name, axis in self.axes.items():
            before, after = (sum(name in item.weights for item in of) for of in (self.items, items))
            share = after / before if before else 1.0
            if after or any(pair.axis == name for pair in pairs):
                # no item, only pairs: the pairs need no divisor
                share = share or 1.0
                axes[name] = axis._replace(offset=axis.offset * share, divisor=axis.divisor * share)
        # an item that has lost its only axis cannot be scored
        items = tuple(item._replace(weights={a: w for a, w in item.weights.items() if a in axes}) for item in items)
        return self._replace(axes=axes, items=items, pairs=pairs)


def load_instrument(
    instrument: str,
    instrument_format: str = "yaml",
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Instrument:
    """Load and validate an instrument.

    Args:
        instrument: Name of a shipped instrument (``compass60``) or path of a file.
        instrument_format: ``yaml``, or one of ``eval.statements.importers.FORMATS``.
        columns: For formats with columns: which column holds what; see ``eval.statements.importers``.
        limit: Draw at most this many items and as many pairs, twins together; None takes all.
        seed: Decides what ``limit`` draws.

    Raises:
        FileNotFoundError: If there is neither a shipped instrument nor a file of that name.
        ValueError: If the file breaks a rule; one message lists every fault with item and field.
    """
    file = find_file("instrument", instrument, "instruments")
    content = file.read_bytes()
    raw = read_instrument(str(file), content, instrument_format, columns)
    if faults := find_faults(raw):
        raise ValueError("\n  ".join([f"{file}: {len(faults)} fault(s)", *faults]))
    loaded = Instrument(
        **{field: raw[field] for field in HEADER},
        axes={name: Axis(**axis) for name, axis in (raw.get("axes") or {}).items()},
        options=tuple(raw.get("options") or ()),
        items=tuple(Item(**{"twin": None, **item}) for item in raw.get("items") or ()),
        pairs=tuple(Pair(**{"axis": None, **pair}) for pair in raw.get("pairs") or ()),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    if limit is None:
        return loaded
    most = max(len(loaded.items), len(loaded.pairs))
    if not 1 <= limit <= most:
        raise ValueError(f"{file}: instrument_limit={limit}; use 1 to {most}, or null")
    drawn = loaded.keep({*draw(loaded.items, limit, seed), *draw(loaded.pairs, limit, seed)})
    counts = (len(drawn.items), len(loaded.items), len(drawn.pairs), len(loaded.pairs))
    log.info("%s: %d of %d items and %d of %d pairs taken (limit %d, seed %d)", file, *counts, limit, seed)
    return drawn


def draw(entries: tuple[Any, ...], limit: int, seed: int) -> set[str]:
    """Draw up to ``limit`` ids, couples of twins whole, in turn from the axes."""
    by_axis: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        is_item = isinstance(entry, Item)
        axis = min(entry.weights) if is_item else str(entry.axis)
        unit = min(entry.id, entry.twin or entry.id) if is_item else entry.id
        by_axis[axis][unit].append(entry.id)
    random = Random(seed)
    queues = [random.sample(list(units.values()), len(units)) for units in by_axis.values()]
    drawn: set[str] = set()
    while any(queues):
        for queue in queues:
            if queue and len(drawn) + len(unit := queue.pop()) <= limit:
                drawn.update(unit)
    return drawn
