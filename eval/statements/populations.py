# SPDX-License-Identifier: MIT
"""Populations: what groups of people answered to entries of an instrument, as a survey published it.

They stand under ``populations`` in the instrument's YAML, or in ``NAME.populations.yaml`` beside it, which leaves the
instrument, and the answers to it, as they are. ``docs/measure/populations.md`` shows the form.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import yaml
from pydantic import BeforeValidator, Field, StrictFloat, StrictInt, StringConstraints, TypeAdapter, ValidationError

from data.recipe.files import load_yaml

if TYPE_CHECKING:
    from eval.statements.instruments import Instrument

# Published shares are rounded, often to whole percents: their sum may be off by this.
ROUNDING = 0.02

_Text = Annotated[str, StringConstraints(strict=True, pattern=r"\S")]
_Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]
_Count = Annotated[StrictInt, Field(gt=0)]


def _fields(value: Any, kind: type) -> Any:
    """Refuse what is no mapping of a NamedTuple's fields: pydantic would take a list for its values."""
    known: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    if not isinstance(value, Mapping):
        raise ValueError(f"a {type(value).__name__} where a mapping with {', '.join(known)} is needed")
    if unknown := sorted({*map(str, value)} - {*known}):
        raise ValueError(f"unknown {', '.join(unknown)}; allowed {', '.join(known)}")
    return value


class Group(NamedTuple):
    """What one group answered: ``shares`` of the options in their order, or ``margins``, by the ids of entries.

    A margin is the share that is for a statement less the share that is against it. ``n`` is how many people were
    asked, of all entries or by entry; None where the source does not say.
    """

    shares: dict[_Text, list[Annotated[_Number, Field(ge=0, le=1)]]] | None = None
    margins: dict[_Text, Annotated[_Number, Field(ge=-1, le=1)]] | None = None
    n: _Count | dict[_Text, _Count] | None = None

    @property
    def answers(self) -> Mapping[str, Any]:
        """Shares or margins, whichever there are."""
        return (self.shares if self.margins is None else self.margins) or {}


class Population(NamedTuple):
    """One wave of one survey; all groups have shares of the same entries, or all have margins of them."""

    wave: _Text
    licence: _Text
    source: _Text
    groups: dict[_Text, Annotated[Group, BeforeValidator(lambda value: _fields(value, Group))]]

    @property
    def has_margins(self) -> bool:
        """Whether margins are what the survey published."""
        return next(iter(self.groups.values())).margins is not None


_FORM = TypeAdapter(dict[_Text, Annotated[Population, BeforeValidator(lambda value: _fields(value, Population))]])


def load_populations(file: str, given: Any, instrument: "Instrument") -> dict[str, Population]:
    """Return the populations of an instrument by name.

    Args:
        file: The instrument's.
        given: What it holds under ``populations``; None for nothing.
        instrument: What else it holds: populations are about its items, pairs and issues.

    Raises:
        ValueError: If anything breaks a rule; one message lists every fault with population, group and entry.
    """
    beside = Path(file).with_suffix(".populations.yaml")
    if beside.is_file():
        if given is not None:
            raise ValueError(f"{file}: populations stand there and in {beside}; put all of them into one of both")
        try:
            file, given = str(beside), load_yaml(beside.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{beside}: not valid YAML: {error}") from error
    if given is None:
        return {}
    faults: list[str] = []
    populations: dict[str, Population] = {}
    try:
        populations = _FORM.validate_python(given)
    except ValidationError as error:
        breaches: dict[str, str] = {}  # a value of neither of two types breaks a rule of each, and is one fault
        for breach in error.errors():
            path = ".".join(str(part) for part in breach["loc"] if "[" not in str(part) and part != "constrained-int")
            said = breach["msg"].removeprefix("Value error, ")
            breaches.setdefault(path, f"{path}: {breach['input']!r:.60}; {said}")
        faults += breaches.values()
    for name, population in populations.items():
        faults += _faults(name, population, instrument)
    if faults:
        raise ValueError("\n  ".join([f"{file}: populations: {len(faults)} fault(s)", *faults]))
    return populations


def _faults(name: str, population: Population, instrument: "Instrument") -> list[str]:
    """Return where the groups of one population do not fit the instrument or each other."""
    if not population.groups:
        return [f"{name}: no groups; give one or more"]
    faults, entries = [], {*next(iter(population.groups.values())).answers}
    ids = {entry.id for entry in instrument.items} | {pair.id for pair in instrument.pairs}
    ids |= {issue.id for issue in instrument.bank.issues} if instrument.bank else set()
    weights = [numbers for item in instrument.items for numbers in item.weights.values()]
    is_scale = all(numbers in (sorted(numbers), sorted(numbers, reverse=True)) for numbers in weights)
    if not population.has_margins and not is_scale:
        faults.append(
            f"{name}: shares need options that are one scale for every item, and some weights say otherwise (such as 0 "
            "for an option that says nothing, at an end); give margins"
        )
    for group_name, group in population.groups.items():
        where = f"{name}.{group_name}"
        if (group.shares is None) == (group.margins is None) or not group.answers:
            faults.append(f"{where}: give shares, or margins, of one entry or more")
        elif (group.margins is not None) != population.has_margins or {*group.answers} != entries:
            faults.append(f"{where}: other entries than its first group has, or shares beside margins; give all alike")
        if unknown := sorted({*group.answers, *(group.n if isinstance(group.n, dict) else {})} - ids):
            faults.append(f"{where}: the instrument has no entry {', '.join(unknown[:5])}; use the ids of its entries")
        for entry, shares in (group.shares or {}).items():
            if len(shares) != len(instrument.options):
                faults.append(f"{where}.{entry}: {len(shares)} shares; use one per option, {len(instrument.options)}")
            elif abs(sum(shares) - 1) > ROUNDING:
                faults.append(f"{where}.{entry}: shares sum to {sum(shares):.3f}; use shares of 1, all answers counted")
    return faults
