# SPDX-License-Identifier: MIT
"""Instruments: the statements put to a model and the weights that turn answers into coordinates.

An instrument is a YAML file (see ``eval/instruments/compass60.yaml``) or a file that
``eval.importers`` brings into that form. What would make a score wrong in silence is refused here.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import yaml

from eval.importers import read_pairs_csv
from eval.instrument_form import HEADER, find_faults


class Axis(NamedTuple):
    """``coordinate = (sum of the chosen options' weights + offset) / divisor``."""

    low: str
    high: str
    offset: float
    divisor: float


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
        instrument_format: ``yaml``, or ``pairs_csv`` (a left and a right statement in each row).
        columns: For ``pairs_csv``: see ``eval.importers.read_pairs_csv``, as for the next two.
        limit: How many rows to draw; None takes all.
        seed: Decides which rows ``limit`` draws.

    Raises:
        FileNotFoundError: If there is neither a shipped instrument nor a file of that name.
        ValueError: If the file breaks a rule; one message lists every fault with item and field.
    """
    shipped = resources.files("eval") / "instruments"
    file = shipped / f"{instrument}.yaml"
    if not file.is_file():
        file = Path(instrument)
    if not file.is_file():
        names = sorted(f.name.removesuffix(".yaml") for f in shipped.iterdir())
        raise FileNotFoundError(f"instrument={instrument}: no such file; give a path or a shipped name: {names}")
    content = file.read_bytes()
    if instrument_format == "pairs_csv":
        raw = read_pairs_csv(str(file), content, columns, limit, seed)
    elif instrument_format != "yaml":
        raise ValueError(f"instrument_format={instrument_format}; use yaml or pairs_csv")
    elif columns or limit is not None:
        raise ValueError(
            f"{file}: instrument_columns and instrument_limit are for instrument_format=pairs_csv; set both to null"
        )
    else:
        try:
            raw = yaml.safe_load(content)
        except yaml.YAMLError as error:
            raise ValueError(f"{file}: not valid YAML: {error}") from error
    if faults := find_faults(raw):
        raise ValueError("\n  ".join([f"{file}: {len(faults)} fault(s)", *faults]))
    return Instrument(
        **{field: raw[field] for field in HEADER},
        axes={name: Axis(**axis) for name, axis in (raw.get("axes") or {}).items()},
        options=tuple(raw.get("options") or ()),
        items=tuple(Item(**{"twin": None, **item}) for item in raw.get("items") or ()),
        pairs=tuple(Pair(**{"axis": None, **pair}) for pair in raw.get("pairs") or ()),
        sha256=hashlib.sha256(content).hexdigest(),
    )
