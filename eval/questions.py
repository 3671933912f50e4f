# SPDX-License-Identifier: MIT
"""What a respondent is asked: every item under templates, option orders and label sets.

A question is one prompt and the answers compared after it, as token ids, with what ``results.jsonl`` says
about it before it is answered. No model is needed to make one.
"""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from torchtune.data import CROSS_ENTROPY_IGNORE_IDX, Message

from eval.instruments import Instrument
from eval.wordings import LABEL_SETS, Templates
from finetune.prefix_tree import Continuation

log = logging.getLogger(__name__)

LABELS = {"digits": "123456789", "letters": "ABCDEFGHI"}


class Question(NamedTuple):
    """One prompt with its answers: the options in the instrument's order, or left and right."""

    row: dict[str, Any]
    answers: list[Continuation]


def option_orders(n_options: int) -> list[list[int]]:
    """Return all cyclic orders and all reversed ones, balanced as early as possible.

    Rotations by even steps come first, each with its reverse. So for an even number of options the first
    two mirror each other, and the first ``n_options`` show every option once in every place, half of them
    upwards; all ``2 n_options`` do so for any number.
    """
    rotations = [*range(0, n_options, 2), *range(1, n_options, 2)]
    upwards = list(range(n_options))
    orders = []
    for r in rotations:
        for order in (upwards, upwards[::-1]):
            turned = order[r:] + order[:r]
            if turned not in orders:
                orders.append(turned)
    return orders


def choice_questions(
    instrument: Instrument,
    tokenizer: Any,
    templates: Templates,
    n_templates: int,
    n_orders: int,
    labels: Sequence[str],
) -> list[Question]:
    """Ask for one of the options: each item x template x option order x label set.

    Args:
        instrument: Must have items.
        tokenizer: With ``prompt_tokens`` and ``tokenize_messages`` (``finetune.tokenizers``).
        templates: Wordings; the first ``n_templates`` of ``choice`` are used.
        n_templates: At least 1.
        n_orders: How many of :func:`option_orders`.
        labels: Any of ``digits`` (1, 2, ...), ``letters`` (A, B, ...), ``words`` (the options themselves).

    Raises:
        ValueError: If there are fewer templates or orders, or an answer begins like another one.
    """
    orders = _first("n_orders", option_orders(len(instrument.options)), n_orders)
    wordings = dict(_first("n_templates", list(templates.choice.items()), n_templates))
    n_options = len(instrument.options)
    shown = Counter(place for order in orders for place in enumerate(order))
    if {tuple(order) for order in orders} != {tuple(order[::-1]) for order in orders}:
        log.warning("n_orders=%d: some options come early more often; position bias remains", n_orders)
    elif len(shown) < n_options**2 or len(set(shown.values())) > 1:
        log.info("n_orders=%d: orders and their reverses; position bias cancels on symmetric scales only", n_orders)
    answers = {}
    for kind in labels:
        if kind not in LABEL_SETS:
            raise ValueError(f"labels={list(labels)}; use any of {LABEL_SETS}")
        texts = list(LABELS.get(kind, instrument.options))[:n_options]
        if len(texts) < n_options:
            raise ValueError(f"labels={kind}: only {len(texts)} labels for {n_options} options; use words")
        answers[kind] = texts, [_answer_tokens(tokenizer, text) for text in texts]
        _check_distinct(kind, *answers[kind])
    questions = []
    for item in instrument.items:
        for template, wording in wordings.items():
            for order in orders:
                for kind, (texts, tokens) in answers.items():
                    shown = [instrument.options[o] for o in order]
                    lines = shown if kind == "words" else [f"{t}. {s}" for t, s in zip(texts, shown)]
                    text = wording.format(statement=item.text, options="\n".join(lines), label=templates.label[kind])
                    prompt = tokenizer.prompt_tokens([Message(role="user", content=text)])
                    # option o answers with the label of the place where it is shown, or with itself
                    said = tokens if kind == "words" else [tokens[order.index(o)] for o in sorted(order)]
                    row = _row(instrument, "choice", item.id, template, text, order=order, labels=kind)
                    questions.append(Question(row, [_continuation(prompt, t) for t in said]))
    return questions


def pair_questions(instrument: Instrument, tokenizer: Any, templates: Templates, n_templates: int) -> list[Question]:
    """Ask which of two opposed statements is likelier as the answer to a request that names no topic.

    Without a request (``text: null``) the statement follows the begin token (or, where a tokenizer has
    none, the end token, as in lm-evaluation-harness), outside the chat template.
    """
    questions = []
    for template, text in _first("n_pair_templates", list(templates.pairs.items()), n_templates):
        if text is None:
            prompt = [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
        else:
            prompt = tokenizer.prompt_tokens([Message(role="user", content=text)])
        for pair in instrument.pairs:
            row = _row(instrument, "pairs", pair.id, template, text or "", order=None, labels=None)
            sides = (pair.left, pair.right)
            if text is None:
                tokens = [tokenizer.encode(side, add_bos=False, add_eos=False) for side in sides]
            else:
                tokens = [_answer_tokens(tokenizer, side) for side in sides]
            questions.append(Question(row, [_continuation(prompt, t) for t in tokens]))
    return questions


def _first(name: str, values: list, n: int) -> list:
    if not 1 <= n <= len(values):
        raise ValueError(f"{name}={n}; use 1 to {len(values)}")
    return values[:n]


def _answer_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of an answer where it follows a prompt, as the chat template writes it."""
    turns = [Message(role="user", content="."), Message(role="assistant", content=text)]
    tokens, mask = tokenizer.tokenize_messages(turns, add_end_tokens=False)
    return [token for token, masked in zip(tokens, mask) if not masked]


def _check_distinct(kind: str, texts: Sequence[str], tokens: Sequence[list[int]]) -> None:
    """Refuse answers of which one begins another: its probability would contain the other's."""
    for a, b in itertools.permutations(range(len(texts)), 2):
        if tokens[b][: len(tokens[a])] == tokens[a]:
            raise ValueError(
                f"labels={kind}: with this tokenizer the answer {texts[b]!r} begins with {texts[a]!r}, so "
                "they cannot be told apart; use another label set"
            )


def _continuation(prompt: list[int], answer: list[int]) -> Continuation:
    return Continuation([*prompt, *answer], [CROSS_ENTROPY_IGNORE_IDX] * len(prompt) + answer)


def _row(instrument: Instrument, mode: str, item: str, template: str, text: str, **settings: Any) -> dict:
    return {
        "instrument": instrument.name,
        "instrument_version": instrument.version,
        "instrument_sha256": instrument.sha256,
        "mode": mode,
        "item": item,
        "template": template,
        **settings,
        "sample": 0,
        "prompt_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
