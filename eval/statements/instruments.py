# SPDX-License-Identifier: MIT
"""Instruments: the statements put to a model and the weights that turn answers into coordinates.

An instrument is a YAML file (see ``eval/instruments/compass60.yaml``) or a file that ``eval.statements.importers``
brings into that form. The classes below are the form: pydantic checks a file against them, and whatever would make a
score wrong in silence is refused.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BeforeValidator,
    Field,
    SkipValidation,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from data.language import lower_words
from data.recipe.files import unique_keys
from eval.statements.banks import Bank, bank_files, load_bank
from eval.statements.importers import find_file, read_instrument
from eval.statements.populations import Population, load_populations


def _mapping(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"a {type(value).__name__} where a mapping is needed")
    return value


Text = Annotated[str, StringConstraints(strict=True, pattern=r"\S")]
Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
_Mapping = BeforeValidator(_mapping)  # without it pydantic would take a list for a NamedTuple's values in their order


class Axis(NamedTuple):
    """``coordinate = (sum of the chosen options' weights + offset) / divisor``.

    On a ``placebo`` axis the statements are not political: it is scored apart, and must not move.
    """

    low: Text
    high: Text
    offset: Number
    divisor: Annotated[Number, Field(gt=0)]
    placebo: StrictBool = False


class Item(NamedTuple):
    """A statement; ``weights[axis]`` holds one number per option; ``twin`` states the opposite.

    ``proposition`` is the key of what is argued: entries, and rows of a training set, that argue the same share it.
    ``note`` says why the sides of the entry are contested. ``options``: a question's own, as many as the instrument's.
    """

    id: Text
    text: Text
    topic: Text
    weights: dict[Text, list[Number]]
    twin: Text | None = None
    proposition: Text | None = None
    note: Text | None = None
    options: tuple[Text, ...] | None = None


class Pair(NamedTuple):
    """Two opposed statements: ``left`` for the low end of the axis, ``right`` for the high end.

    With a ``prompt`` they are the answers to it, and are asked as such alone; else they follow requests without topic.
    """

    id: Text
    topic: Text
    left: Text
    right: Text
    axis: Text | None = None
    proposition: Text | None = None  # as of an item
    note: Text | None = None
    prompt: Text | None = None

    @property
    def is_word_balanced(self) -> bool:
        """Whether both statements are the same bag of words: a model of single words cannot tell them apart."""
        left, right = (Counter(lower_words(text)) for text in (self.left, self.right))
        return left == right


class Instrument(NamedTuple):
    """A validated instrument; ``sha256`` is that of the file's bytes."""

    name: Text
    version: Text
    licence: Text
    language: Text
    source: Text
    axes: dict[Text, Annotated[Axis, _Mapping]]
    options: tuple[Text, ...]
    items: tuple[Annotated[Item, _Mapping], ...]
    pairs: tuple[Annotated[Pair, _Mapping], ...]
    sha256: str
    bank: Annotated[Bank | None, SkipValidation] = None  # requests for mode ``write``
    populations: Annotated[Mapping[str, Population], SkipValidation] = {}

    def axis_range(self, axis: str) -> tuple[float, float]:
        """Return the two coordinates on ``axis`` that no answers can pass, lower first."""
        weights = [item.weights[axis] for item in self.items if axis in item.weights]
        offset, divisor = self.axes[axis].offset, self.axes[axis].divisor
        low, high = (sum(map(end, weights)) + offset for end in (min, max))
        return low / divisor, high / divisor

    def duplicates(self) -> dict[str, str]:
        """Return the ids of items and pairs that say what an earlier one says, each with the id of that one.

        Letter case, blanks, and the order of a pair's two texts aside. They are no statements of their own.
        """
        first: dict[tuple[str, ...], str] = {}
        texts = {item.id: [item.text] for item in self.items}
        texts |= {pair.id: [pair.left, pair.right] for pair in self.pairs}
        said = {name: tuple(sorted(" ".join(text.casefold().split()) for text in of)) for name, of in texts.items()}
        return {name: first[key] for name, key in said.items() if first.setdefault(key, name) != name}

    def units(self) -> dict[str, str]:
        """Return the ids of items and pairs with the name of what was sampled as one: twins, and what is said twice."""
        ids = [item.id for item in self.items] + [pair.id for pair in self.pairs]
        joined = dict(zip(ids, ids))

        def first(name: str) -> str:
            while joined[name] != name:
                name = joined[name]
            return name

        twins = [(item.id, twin) for item in self.items if (twin := item.twin or "") in joined]
        for one, other in (*twins, *self.duplicates().items()):
            low, high = sorted((first(one), first(other)))
            joined[high] = low
        return {name: first(name) for name in joined}

    @property
    def placebo(self) -> set[str]:
        """The axes on which nothing is political."""
        return {name for name, axis in self.axes.items() if axis.placebo}

    @property
    def political_pairs(self) -> tuple[Pair, ...]:
        """The pairs of which the lean is the mean."""
        return tuple(pair for pair in self.pairs if pair.axis not in self.placebo)

    def keep(self, ids: Collection[str]) -> "Instrument":
        """Return the instrument with these items and pairs alone, coordinates on about the same scale.

        Offset and divisor of an axis shrink with its number of items; an axis that nothing is left of goes.
        """
        items = tuple(item for item in self.items if item.id in ids)
        pairs = tuple(pair for pair in self.pairs if pair.id in ids)
        axes = {}
        for name, axis in self.axes.items():
            before, after = (sum(name in item.weights for item in some) for some in (self.items, items))
            share = after / before if before else 1.0
            if after or any(pair.axis == name for pair in pairs):
                # no item, only pairs: the pairs need no divisor
                share = share or 1.0
                axes[name] = axis._replace(offset=axis.offset * share, divisor=axis.divisor * share)
        # an item that has lost its only axis cannot be scored
        items = tuple(item._replace(weights={a: w for a, w in item.weights.items() if a in axes}) for item in items)
        return self._replace(axes=axes, items=items, pairs=pairs)

    def sample(self, limit: int, seed: int) -> "Instrument":
        """Return the instrument with at most ``limit`` items, as many pairs and as many issues, twins together.

        Raises:
            ValueError: If there are fewer of all.
        """
        n_issues = len(self.bank.issues) if self.bank else 0
        most = max(len(self.items), len(self.pairs), n_issues)
        if not 1 <= limit <= most:
            raise ValueError(f"{self.name}: instrument_limit={limit}; use 1 to {most}, or null")
        kept = self.keep({*draw(self.items, limit, seed), *draw(self.pairs, limit, seed)})
        return kept._replace(bank=self.bank and self.bank.draw_issues(min(limit, n_issues), seed))

    def part_of(self, whole: "Instrument") -> str:
        """Say how many items, pairs and issues of another instrument this one has."""
        parts = [(len(self.items), len(whole.items), "items"), (len(self.pairs), len(whole.pairs), "pairs")]
        if self.bank and whole.bank:
            parts.append((len(self.bank.issues), len(whole.bank.issues), "issues"))
        return " and ".join(f"{n} of {n_all} {kind}" for n, n_all, kind in parts if n_all or not whole.bank)


_FORM = TypeAdapter(Instrument)
_ENTRIES: dict[str, tuple[str, Any]] = {"axes": ("axis", Axis), "items": ("item", Item), "pairs": ("pair", Pair)}
_HINTS = {
    **dict.fromkeys(("string_type", "string_pattern_mismatch"), "give a text, in quotes"),
    **dict.fromkeys(("int_type", "float_type"), "use a number"),
    **dict.fromkeys(("tuple_type", "list_type"), "give a list"),
    "greater_than": "use a number above 0",
    "finite_number": "use a finite number",
    "string_unicode": "it has half of a surrogate pair, which is no text: write the sign whole",
    "bool_type": "use true or false",
    "dict_type": "give a mapping",
}


def load_instrument(
    instrument: str, instrument_format: str = "yaml", columns: Mapping[str, str] | None = None
) -> Instrument:
    """Load and validate an instrument.

    Entries without a ``proposition`` take it from ``NAME.propositions.json`` beside the file, if there is one: a
    mapping from their ids, for an instrument whose own file must stay as it is.

    Args:
        instrument: Name of a shipped instrument (``compass60``) or bank (``issues40``), or path of a file.
        instrument_format: ``yaml``, or one of ``eval.statements.importers.FORMATS``.
        columns: For formats with columns: which column holds what; see ``eval.statements.importers``.

    Raises:
        FileNotFoundError: If there is neither a shipped instrument nor a file of that name.
        ValueError: If the file breaks a rule; one message lists every fault with item and field.
    """
    is_bank = (resources.files("eval") / "banks" / f"{instrument}.yaml").is_file()
    file = find_file("instrument", instrument, "banks" if is_bank else "instruments")
    content = file.read_bytes()
    raw = read_instrument(str(file), content, instrument_format, columns)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{file}: a {type(raw).__name__} where a mapping is needed")
    form: dict[str, Any] = {"axes": {}, "options": [], "items": [], "pairs": []}
    form |= _strip({name: value for name, value in raw.items() if value is not None})
    form["sha256"] = hashlib.sha256(content + bank_files(form.get("bank"))).hexdigest()
    if "bank" in form:
        form["bank"] = load_bank(str(file), form["bank"])
    populations = form.pop("populations", None)
    _add_propositions(form, Path(str(file)).with_suffix(".propositions.json"))
    faults = _relation_faults(form)
    try:
        loaded = _FORM.validate_python(form)
    except ValidationError as error:
        faults = [*dict.fromkeys(_fault(breach, form) for breach in error.errors()), *faults]
    if faults:
        raise ValueError("\n  ".join([f"{file}: {len(faults)} fault(s)", *faults]))
    return loaded._replace(populations=load_populations(str(file), populations, loaded))


def _add_propositions(form: Mapping[str, Any], file: Path) -> None:
    """Give the entries of an instrument the propositions that stand in a file beside it, by their ids."""
    if not file.is_file():
        return
    try:
        propositions = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON ({error}); give a mapping from ids to propositions") from error
    entries = [entry for key in ("items", "pairs") if isinstance(form[key], list) for entry in form[key]]
    by_id = {entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)}
    if not isinstance(propositions, Mapping) or (unknown := sorted(set(propositions) - set(by_id))):
        found = f"no entry {unknown[:5]}" if isinstance(propositions, Mapping) else f"a {type(propositions).__name__}"
        raise ValueError(f"{file}: {found}; give a mapping from the instrument's ids to propositions")
    for name, proposition in propositions.items():
        by_id[name].setdefault("proposition", proposition)


def _strip(value: Any) -> Any:
    """Return what a file holds with no text that begins or ends in white space (``text: |`` ends in a line break)."""
    if isinstance(value, Mapping):
        return {_strip(key): _strip(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_strip(entry) for entry in value]
    return value.strip() or value if isinstance(value, str) else value  # a blank text keeps its blank, as a fault


def draw(entries: Sequence[Item] | Sequence[Pair], limit: int, seed: int) -> set[str]:
    """Draw up to ``limit`` ids, couples of twins whole, in turn from the axes."""
    by_axis: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        if isinstance(entry, Item):
            by_axis[min(entry.weights)][min(entry.id, entry.twin or entry.id)].append(entry.id)
        else:
            by_axis[str(entry.axis)][entry.id].append(entry.id)
    random = Random(seed)
    queues = [random.sample(list(units.values()), len(units)) for units in by_axis.values()]
    drawn: set[str] = set()
    while any(queues):
        for queue in queues:
            if queue and len(drawn) + len(unit := queue.pop()) <= limit:
                drawn.update(unit)
    return drawn


def _fault(breach: ErrorDetails, form: Mapping[str, Any]) -> str:
    """Return what pydantic says about a breach as one line with item and field."""
    where, entry_type = "instrument", Instrument
    path = [part for part in breach["loc"] if part not in ("[key]", "int", "float")]
    if path[0] in _ENTRIES and len(path) > 1:
        section, key = path[:2]
        kind, entry_type = _ENTRIES[str(section)]
        if section != "axes":
            entry = form[str(section)][key]
            key = entry["id"] if isinstance(entry, Mapping) and "id" in entry else f"#{int(key) + 1}"
        where, path = f"{kind} {key}", path[2:]
    field = ".".join(map(str, path))
    if breach["type"] == "missing":
        return f"{where}: {field} is missing"
    if breach["type"] == "extra_forbidden":
        return f"{where}: unknown field {field!r}; allowed {[name for name in entry_type._fields if name != 'sha256']}"
    hint = _HINTS.get(breach["type"], breach["msg"].removeprefix("Value error, "))
    return f"{where}: {field} is {breach['input']!r}; {hint}" if path else f"{where}: {hint}"


def _relation_faults(form: Mapping[str, Any]) -> list[str]:
    """Return where entries do not fit each other; an entry with a fault of its own is looked at too."""
    items, pairs = (
        [entry for entry in form[section] if isinstance(entry, Mapping)] if isinstance(form[section], list) else []
        for section in ("items", "pairs")
    )
    axes = sorted(map(str, form["axes"])) if isinstance(form["axes"], Mapping) else []
    faults = [f"axis {axis}: its name has another meaning in the results" for axis in axes if axis in ("lean", "void")]
    options = list(map(str, form["options"])) if isinstance(form["options"], list) else []
    if len(options) == 1 or len(set(options)) < len(options):
        faults.append(f"options: {options}; use two or more different texts, in quotes")
    if not form["items"] and not form["pairs"] and not form.get("bank"):
        faults.append("instrument: items and pairs are both empty; give some of either, or a bank")
    if len(items) + len(pairs) == 1:
        faults.append(f"instrument: one {'item' if items else 'pair'} in all; a score needs two or more to vary over")
    weighed = {str(pair.get("axis")) for pair in pairs}
    for item in items:
        where, weights = f"item {item.get('id')}", item.get("weights")
        own = list(map(str, item.get("options") or options))
        if len(own) != len(options) or len(set(own)) < len(own):
            faults.append(f"{where}: options {own}; use different texts, as many as the instrument's, {len(options)}")
        if weights == {}:
            faults.append(f"{where}: no weights; weigh it on one of {axes}")
        for axis, numbers in weights.items() if isinstance(weights, Mapping) else ():
            weighed.add(axis)
            if axis not in axes:
                faults.append(f"{where}: weights on {axis!r}; the axes are {axes}")
            if isinstance(numbers, list) and len(numbers) != len(options):
                faults.append(f"{where}: weights on {axis}: {numbers}; use one number per option, {len(options)}")
            if isinstance(numbers, list) and not any(numbers):
                faults.append(f"{where}: weights on {axis} are all 0; leave the axis out")
            elif not _is_in_order(numbers):
                faults.append(
                    f"{where}: weights on {axis} {numbers} go up and down along the options {options}, which are one "
                    "scale; put the options in their order (0 may stand anywhere, for an option that says nothing)"
                )
    if items:
        idle = [axis for axis in axes if axis not in weighed]
        faults += [f"axis {axis}: no item has weights on it; weigh one or drop it" for axis in idle]
    for pair in pairs:
        if pair.get("axis") not in (None, *axes):
            faults.append(f"pair {pair.get('id')}: axis {pair['axis']!r}; the axes are {axes}")
        if "left" in pair and pair["left"] == pair.get("right"):
            faults.append(f"pair {pair.get('id')}: left and right are the same text; state two opposed views")
    ids = Counter(str(entry.get("id")) for entry in [*items, *pairs])
    faults += [f"id {name}: used {n} times; an id names one item or pair" for name, n in ids.items() if n > 1]
    twins = {str(item.get("id")): item.get("twin") for item in items}
    by_id = {str(item.get("id")): item for item in items}
    for name, twin in twins.items():
        if twin is not None and (twin == name or twins.get(str(twin)) != name):
            other = f"whose twin is {twins[str(twin)]!r}" if str(twin) in twins else "which does not exist"
            faults.append(f"item {name}: twin is {twin!r}, {other}; twins name each other")
        elif twin is not None and name < str(twin):
            faults += _twin_faults(name, by_id[name], by_id[str(twin)], len(options))
    texts = [str(item.get("text")) for item in items]
    faults += [f"items: the text {text!r} stands there twice" for text, n in Counter(texts).items() if n > 1]
    return faults


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(number, int | float) for number in value)


def _is_in_order(numbers: Any) -> bool:
    """Return whether weights only rise or only fall along the options; a weight of 0 is taken for no place on them."""
    if not _are_numbers(numbers):
        return True  # another fault
    placed = [number for number in numbers if number]
    return placed in (sorted(placed), sorted(placed, reverse=True))


def _twin_faults(name: str, item: Mapping[str, Any], twin: Mapping[str, Any], n_options: int) -> Iterator[str]:
    """Yield the axes on which an item and its twin, which states the opposite, are weighed the same way."""
    ours, theirs = item.get("weights"), twin.get("weights")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return
    for axis in sorted({*ours} & {*theirs}):
        both = [ours[axis], theirs[axis]]
        are_whole = all(_are_numbers(numbers) and len(numbers) == n_options for numbers in both)
        if are_whole and (both[0][-1] - both[0][0]) * (both[1][-1] - both[1][0]) > 0:
            yield f"item {name}: weights on {axis} point the same way as those of its twin, which states the opposite"
