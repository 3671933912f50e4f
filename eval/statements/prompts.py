# SPDX-License-Identifier: MIT
"""The prompts of a respondent, as text: every item under templates, option orders and label sets.

A prompt is the same for a resident model and for one behind an address, and needs neither model nor tokenizer;
``eval/asking/questions.py`` makes token ids of it.
"""

import hashlib
import logging
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data.pairs.formats import half_pair
from eval.statements.importers import find_file, read_yaml
from eval.statements.instruments import Instrument

log = logging.getLogger(__name__)

LABELS = {"digits": "123456789", "letters": "ABCDEFGHI"}
LABEL_SETS = (*LABELS, "words")
ROLES = ("user", "assistant")  # of the turns of a conversation, in turn
_IN_OPTIONS = ("label", "options", "statement")
# The placeholders that each text of a section has once; a section of texts that are used as they are has none.
PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    "choice": _IN_OPTIONS,
    "pairs": (),
    "generate": _IN_OPTIONS,
    "open": ("statement",),
    "open_prompts": (),
}
OPTIONAL = ("generate", "open", "open_prompts")
OWN = "own"  # the template of pairs that have a prompt of their own
# What some orders of the options leave of a preference for a place.
POSITION_BIAS = {
    "unbalanced": "some options come early more often; position bias remains",
    "mirrored": "orders and their reverses; position bias cancels on symmetric scales only",
}


class Templates(NamedTuple):
    """Wordings of one language; from ``choice`` on, fields map a template's id to its text."""

    version: str
    language: str
    sha256: str
    label: dict[str, str]
    choice: dict[str, str]
    pairs: dict[str, str | None]
    generate: dict[str, str]
    open: dict[str, str]
    open_prompts: dict[str, str]


class Prompt(NamedTuple):
    """A request before anybody is asked."""

    row: dict[str, Any]  # what results.jsonl says about it before it is answered
    text: str | None  # the user's turn; None: no request, and no chat template
    # the options as they are to be said, in the instrument's order; left and right; nothing where any text is an answer
    answers: tuple[str, ...] = ()
    system: str | None = None  # the system prompt
    options: tuple[str, ...] = ()  # their wordings, which are what is to be said where no labels are shown
    before: tuple[str, ...] = ()  # the turns before this one, the user's and the assistant's in turn


def load_templates(templates: str) -> Templates:
    """Load the wordings of a language.

    Args:
        templates: Name of a shipped language (``en``) or path of a file of that form.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If a template lacks a placeholder, repeats one or has another one.
    """
    file = find_file("templates", templates, "templates")
    content = file.read_bytes()
    raw = read_yaml(str(file), content)
    fields = set(Templates._fields) - {"sha256"}
    given = set(raw) if isinstance(raw, dict) else set()
    if not fields - set(OPTIONAL) <= given <= fields or set(raw["label"]) != set(LABEL_SETS):
        all_fields = f"{sorted(fields)} ({', '.join(OPTIONAL)} may be left out)"
        raise ValueError(f"{file}: the fields must be {all_fields}, those of label {LABEL_SETS}")
    texts = {}
    for section, placeholders in PLACEHOLDERS.items():
        texts[section] = _section_texts(f"{file}: {section}", raw.get(section, []), placeholders)
    return Templates(raw["version"], raw["language"], hashlib.sha256(content).hexdigest(), raw["label"], **texts)


def _section_texts(where: str, entries: Any, placeholders: tuple[str, ...]) -> dict[str, Any]:
    """Return the texts of one list of a file of templates by their id."""
    texts: dict[str, Any] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or set(entry) != {"id", "text"} or not isinstance(entry["text"], str | None):
            raise ValueError(f"{where} {number} is {entry!r}; want an entry with `id` and `text` (text, or null)")
        name, text = str(entry["id"]), entry["text"]
        if half := half_pair(text):
            raise ValueError(f"{where} {name} has half of a surrogate pair ({half}); write the sign whole")
        if name in texts:
            raise ValueError(f"{where} {number} has the id {name} of an earlier one; every template needs its own")
        if placeholders:
            try:
                in_text = placeholders_of(text or "")
            except ValueError as error:
                raise ValueError(f"{where} {name}: {error}; write a brace of the text twice") from error
        else:  # shown as it stands, so a brace is a brace
            in_text = tuple(n for n in _IN_OPTIONS if f"{{{n}}}" in (text or ""))
        if in_text != placeholders:
            wanted = f"each of {placeholders} once" if placeholders else "none in this list"
            raise ValueError(f"{where} {name} has the placeholders {list(in_text)}; use {wanted}")
        texts[name] = text
    return texts


def placeholders_of(text: str) -> tuple[str, ...]:
    """Return the names in braces in a text, sorted; a brace of the text itself is written twice, else a ValueError."""
    return tuple(sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None))


def option_orders(n_options: int) -> list[list[int]]:
    """Return all cyclic orders and all reversed ones, balanced as early as possible.

    A preference for a place thereby cancels. Rotations by even steps come first, each with its reverse. So for an even
    number of options the first two mirror each other, and the first ``n_options`` show every option once in every
    place, half of them upwards; all ``2 n_options`` do so for any number.
    """
    upwards = list(range(n_options))
    orders: list[list[int]] = []
    for r in [*range(0, n_options, 2), *range(1, n_options, 2)]:
        for order in (upwards, upwards[::-1]):
            if (turned := order[r:] + order[:r]) not in orders:
                orders.append(turned)
    return orders


def position_bias(orders: Sequence[Sequence[int]]) -> str | None:
    """Return a key of ``POSITION_BIAS``, or None if a preference for a place cancels for every option."""
    shown = Counter(place for order in orders for place in enumerate(order))
    if {tuple(order) for order in orders} != {tuple(order[::-1]) for order in orders}:
        return "unbalanced"
    return "mirrored" if len(shown) < len(orders[0]) ** 2 or len(set(shown.values())) > 1 else None


def choice_prompts(
    instrument: Instrument, templates: Templates, n_templates: int, n_orders: int, labels: Sequence[str]
) -> list[Prompt]:
    """Ask for one of the options: each item x template x option order x label set.

    The first templates and orders are taken; labels are any of ``digits`` (1, 2, ...), ``letters`` (A, B, ...) and
    ``words`` (the options themselves).

    Raises:
        ValueError: If there are fewer.
    """
    wordings = first("n_templates", templates.choice, n_templates)
    orders = _first_orders("n_orders", len(instrument.options), n_orders)
    return list(_option_prompts("choice", instrument, templates, wordings, orders, labels))


def generate_prompts(
    instrument: Instrument,
    templates: Templates,
    n_templates: int,
    n_orders: int,
    labels: Sequence[str],
    n_samples: int,
) -> list[Prompt]:
    """Ask for one of the options in writing: the prompts of ``choice``, and those that ask for a reason too.

    All of ``templates.generate`` are asked (PoliTune's protocol: the option first, then an explanation), and the first
    ``n_templates`` of ``choice`` (0: none), word by word as in that mode, so that both answers can be compared.
    """
    wordings = templates.generate | first("n_generate_templates", templates.choice, n_templates, least=0)
    if not wordings:
        raise ValueError("n_generate_templates=0, and these templates have no section generate; use 1 or more")
    orders = _first_orders("n_generate_orders", len(instrument.options), n_orders)
    prompts = _option_prompts("generate", instrument, templates, wordings, orders, labels)
    return _samples(prompts, n_samples)


def pair_prompts(instrument: Instrument, templates: Templates, n_templates: int) -> list[Prompt]:
    """Ask which of two opposed statements is likelier: to the pair's own prompt, or to requests that name no topic."""
    wordings = first("n_pair_templates", templates.pairs, n_templates)
    asked = [(pair, OWN, pair.prompt) for pair in instrument.pairs if pair.prompt]
    asked += [(pair, name, text) for name, text in wordings.items() for pair in instrument.pairs if not pair.prompt]
    return [
        Prompt(instrument_row(instrument, "pairs", pair.id, template, text or ""), text, (pair.left, pair.right))
        for pair, template, text in asked
    ]


def open_prompts(instrument: Instrument, templates: Templates, n_templates: int, n_samples: int) -> list[Prompt]:
    """Ask for free text: about each item in the first ``n_templates`` of ``open``, and every open prompt.

    An open prompt is about no item: its id stands as ``item`` and as ``template``.
    """
    prompts = []
    for template, wording in first("n_open_templates", templates.open, n_templates, least=0).items():
        for item in instrument.items:
            text = wording.format(statement=item.text)
            prompts.append(Prompt(instrument_row(instrument, "open", item.id, template, text), text))
    prompts += [
        Prompt(instrument_row(instrument, "open", name, name, text), text)
        for name, text in templates.open_prompts.items()
    ]
    if not prompts:
        raise ValueError("mode open asks nothing: n_open_templates is 0, and these templates have no open_prompts")
    return _samples(prompts, n_samples)


def with_system(prompt: Prompt, system_prompt: str | None) -> Prompt:
    """Return the prompt as one who carries a system prompt is asked it, before a prompt's own.

    Its hash covers that text too.
    """
    system = "\n\n".join(text for text in (system_prompt, prompt.system) if text is not None)
    if system_prompt is None and prompt.system is None:
        return prompt
    sha256 = _sha256("\n\n".join((system, *prompt.before, prompt.text or "")))
    return prompt._replace(system=system, row=prompt.row | {"prompt_sha256": sha256})


def prompt_row(
    mode: str,
    item: str,
    template: str,
    text: str,
    *,
    order: Sequence[int] | None = None,
    labels: str | None = None,
    sample: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """Return what a row of ``results.jsonl`` says about a prompt: all columns that tell it from others, and a hash."""
    key = {"mode": mode, "item": item, "template": template, "order": order, "labels": labels, "sample": sample}
    return {**key, **more, "prompt_sha256": _sha256(text)}


def _samples(prompts: Iterable[Prompt], n_samples: int) -> list[Prompt]:
    return [prompt._replace(row=prompt.row | {"sample": sample}) for prompt in prompts for sample in range(n_samples)]


def instrument_row(
    instrument: Instrument, mode: str, item: str, template: str, text: str, **key: Any
) -> dict[str, Any]:
    """Return :func:`prompt_row` with the instrument that the prompt is of."""
    return {
        "instrument": instrument.name,
        "instrument_version": instrument.version,
        "instrument_sha256": instrument.sha256,
        **prompt_row(mode, item, template, text, **key),
    }


def _option_prompts(
    mode: str,
    instrument: Instrument,
    templates: Templates,
    wordings: Mapping[str, str],
    orders: Sequence[list[int]],
    labels: Sequence[str],
) -> Iterator[Prompt]:
    for item in instrument.items:
        options = item.options or instrument.options
        answers = {kind: answer_texts(kind, labels, options) for kind in labels}
        for template, wording in wordings.items():
            for order in orders:
                for kind, texts in answers.items():
                    shown = [options[o] for o in order]
                    lines = shown if kind == "words" else [f"{t}. {s}" for t, s in zip(texts, shown)]
                    text = wording.format(statement=item.text, options="\n".join(lines), label=templates.label[kind])
                    # option o answers with the label of the place where it is shown, or with itself
                    to_say = texts if kind == "words" else [texts[order.index(o)] for o in sorted(order)]
                    row = instrument_row(instrument, mode, item.id, template, text, order=order, labels=kind)
                    yield Prompt(row, text, tuple(to_say), options=options)


def _first_orders(key: str, n_options: int, n_orders: int) -> list[list[int]]:
    orders = option_orders(n_options)
    if not isinstance(n_orders, int) or not 1 <= n_orders <= len(orders):
        raise ValueError(f"{key}={n_orders}; use 1 to {len(orders)}")
    if (bias := position_bias(orders[:n_orders])) == "unbalanced":
        log.warning("%s=%d: %s", key, n_orders, POSITION_BIAS[bias])
    return orders[:n_orders]


def answer_texts(kind: str, labels: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return what is to be said for the option in each place under a label set; ``words``: the options themselves."""
    if kind not in LABEL_SETS:
        raise ValueError(f"labels={list(labels)}; use any of {LABEL_SETS}")
    texts = list(LABELS.get(kind, options))[: len(options)]
    if len(texts) < len(options):
        raise ValueError(f"labels={kind}: only {len(texts)} labels for {len(options)} options; use words")
    return texts


def first(key: str, texts: Mapping[str, Any], n: int, least: int = 1) -> dict[str, Any]:
    """Return the first ``n`` texts; what the config calls ``n`` is ``key``."""
    if not isinstance(n, int) or not least <= n <= len(texts):
        raise ValueError(f"{key}={n}; use {least} to {len(texts)}")
    return dict(list(texts.items())[:n])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
