# SPDX-License-Identifier: MIT
"""What a respondent is asked, as text: every item under templates, option orders and label sets.

A prompt is the same for a resident model and for one behind an address; ``eval/asking/questions.py`` makes token ids
of it. No model and no tokenizer is needed to make one.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from eval.statements.instruments import Instrument
from eval.statements.option_orders import first_orders
from eval.statements.wordings import LABEL_SETS, Templates

LABELS = {"digits": "123456789", "letters": "ABCDEFGHI"}


class Prompt(NamedTuple):
    """A request before anybody is asked.

    Attributes:
        row: What ``results.jsonl`` says about it before it is answered.
        text: The user's turn; None: no request, and no chat template.
        answers: What is compared or looked for: the options as they are to be said, in the instrument's order;
            the left and the right statement; nothing where the answer is free text.
    """

    row: dict[str, Any]
    text: str | None
    answers: tuple[str, ...] = ()


def choice_prompts(
    instrument: Instrument, templates: Templates, n_templates: int, n_orders: int, labels: Sequence[str]
) -> list[Prompt]:
    """Ask for one of the options: each item x template x option order x label set.

    Args:
        instrument: Must have items.
        templates: Wordings; the first ``n_templates`` of ``choice`` are used.
        n_templates: At least 1.
        n_orders: How many of :func:`eval.statements.option_orders.option_orders`.
        labels: Any of ``digits`` (1, 2, ...), ``letters`` (A, B, ...), ``words`` (the options themselves).

    Raises:
        ValueError: If there are fewer templates, orders or labels.
    """
    wordings = dict(_first("n_templates", templates.choice, n_templates))
    orders = first_orders("n_orders", len(instrument.options), n_orders)
    return list(_option_prompts("choice", instrument, wordings, orders, labels, templates, 1))


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

    Raises:
        ValueError: If there are fewer templates, orders or labels, or nothing is asked.
    """
    wordings = templates.generate | dict(_first("n_generate_templates", templates.choice, n_templates, least=0))
    if not wordings:
        raise ValueError("n_generate_templates=0, and these templates have no section generate; use 1 or more")
    orders = first_orders("n_generate_orders", len(instrument.options), n_orders)
    return list(_option_prompts("generate", instrument, wordings, orders, labels, templates, n_samples))


def pair_prompts(instrument: Instrument, templates: Templates, n_templates: int) -> list[Prompt]:
    """Ask which of two opposed statements is likelier as the answer to a request that names no topic."""
    return [
        Prompt(
            _row(instrument, "pairs", pair.id, template, text or "", order=None, labels=None),
            text,
            (pair.left, pair.right),
        )
        for template, text in _first("n_pair_templates", templates.pairs, n_templates)
        for pair in instrument.pairs
    ]


def open_prompts(instrument: Instrument, templates: Templates, n_templates: int, n_samples: int) -> list[Prompt]:
    """Ask for free text: about each item in the first ``n_templates`` of ``open``, and every open prompt.

    An open prompt is about no item: its id stands as ``item`` and as ``template``.

    Raises:
        ValueError: If there are fewer templates, or nothing is asked.
    """
    asked = [
        (item.id, template, text.format(statement=item.text))
        for template, text in _first("n_open_templates", templates.open, n_templates, least=0)
        for item in instrument.items
    ]
    asked += [(name, name, text) for name, text in templates.open_prompts.items()]
    if not asked:
        raise ValueError("mode open asks nothing: n_open_templates is 0, and these templates have no open_prompts")
    return [
        Prompt(_row(instrument, "open", item, template, text, sample, order=None, labels=None), text)
        for item, template, text in asked
        for sample in range(n_samples)
    ]


def with_system(prompt: Prompt, system_prompt: str | None) -> Prompt:
    """Return the prompt as one who carries a system prompt is asked it: its hash covers that text too."""
    if system_prompt is None:
        return prompt
    return prompt._replace(row=prompt.row | {"prompt_sha256": _sha256(f"{system_prompt}\n\n{prompt.text or ''}")})


def _option_prompts(
    mode: str,
    instrument: Instrument,
    wordings: Mapping[str, str],
    orders: Sequence[list[int]],
    labels: Sequence[str],
    templates: Templates,
    n_samples: int,
) -> Iterator[Prompt]:
    answers = {kind: _answer_texts(kind, labels, instrument.options) for kind in labels}
    for item in instrument.items:
        for template, wording in wordings.items():
            for order in orders:
                for kind, texts in answers.items():
                    shown = [instrument.options[o] for o in order]
                    lines = shown if kind == "words" else [f"{t}. {s}" for t, s in zip(texts, shown)]
                    text = wording.format(statement=item.text, options="\n".join(lines), label=templates.label[kind])
                    # option o answers with the label of the place where it is shown, or with itself
                    said = texts if kind == "words" else [texts[order.index(o)] for o in sorted(order)]
                    for sample in range(n_samples):
                        row = _row(instrument, mode, item.id, template, text, sample, order=order, labels=kind)
                        yield Prompt(row, text, tuple(said))


def _answer_texts(kind: str, labels: Sequence[str], options: Sequence[str]) -> list[str]:
    if kind not in LABEL_SETS:
        raise ValueError(f"labels={list(labels)}; use any of {LABEL_SETS}")
    texts = list(LABELS.get(kind, options))[: len(options)]
    if len(texts) < len(options):
        raise ValueError(f"labels={kind}: only {len(texts)} labels for {len(options)} options; use words")
    return texts


def _first(name: str, texts: Mapping[str, Any], n: int, least: int = 1) -> list[tuple[str, Any]]:
    if not least <= n <= len(texts):
        raise ValueError(f"{name}={n}; use {least} to {len(texts)}")
    return list(texts.items())[:n]


def _row(
    instrument: Instrument, mode: str, item: str, template: str, text: str, sample: int = 0, **settings: Any
) -> dict:
    return {
        "instrument": instrument.name,
        "instrument_version": instrument.version,
        "instrument_sha256": instrument.sha256,
        "mode": mode,
        "item": item,
        "template": template,
        **settings,
        "sample": sample,
        "prompt_sha256": _sha256(text),
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
