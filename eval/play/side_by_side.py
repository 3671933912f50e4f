# SPDX-License-Identifier: MIT
"""Requests of the playground to base, adapters and a dial between two: answers, and readings of statements.

All get the same prompts with the same seed, so a difference between them comes from the weights.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from omegaconf import DictConfig

from eval.asking.generate import iterate_steps
from eval.asking.questions import Question, prompt_tokens, to_questions
from eval.asking.respond import answer_together
from eval.asking.respondents import BASE
from eval.asking.written_answers import Decoding
from eval.play.turns import Event, Part
from eval.scores.scoring import Values, axis_values, collect_answers, describe, pair_values
from eval.statements.instruments import Axis, Instrument, Item, Pair
from eval.statements.prompts import Templates, choice_prompts, pair_prompts
from finetune.adapters.folders import AdapterSet, Weights, dial_weights
from finetune.adapters.resident import AdaptedModel
from finetune.tree.prefix_tree import cut_by_tokens

DIAL = "dial"
AGREEMENT = "agreement"
# A statement is asked many times over.
MAX_STATEMENT_CHARACTERS = 1000

Record = dict[str, Any]


@dataclass
class SideBySide:
    """Turns the fields that the page sends into work; statements are answered with the options of the instrument."""

    cfg: DictConfig
    model: AdaptedModel
    adapters: AdapterSet
    tokenizer: Any
    instrument: Instrument
    templates: Templates

    def columns(self, position: float) -> dict[str, Weights]:
        """Return the name of each column, with the weights that are added to the base for it."""
        adapters = {name: self.adapters.blends.get(name, {name: 1.0}) for name in self.adapters.names}
        dial = self.cfg.dial
        return {BASE: {}, **adapters} | ({DIAL: dial_weights(dial.low, dial.high, position)} if dial else {})

    def statements(self) -> list[dict[str, str]]:
        """Return the instrument's statements; of twins only the one whose agreement is the high end."""
        shown = []
        texts = {item.id: item.text for item in self.instrument.items}
        for item in self.instrument.items:
            (axis, weights), *_ = item.weights.items()
            is_high = weights[-1] > weights[0]
            if item.twin is None or is_high:
                end = getattr(self.instrument.axes[axis], "high" if is_high else "low")
                about = f"{item.topic} ({axis}; agreeing is {end})"
                shown.append({"about": about, "statement": item.text, "opposite": texts.get(item.twin or "", "")})
        return shown

    def answer(self, sent: Mapping[str, Any]) -> tuple[Record, list[Part]]:
        """Return the record of a request for answers to a ``prompt``, and its parts, or say by a ValueError why not.

        Their events have ``text`` (all so far), ``n_tokens`` and ``finish`` (``stop`` or ``length`` when done).
        """
        prompt, position = _text(sent, "prompt"), _number(sent, "position", -1, 1)
        context = self.model.model.max_seq_len
        decoding = Decoding(
            _number(sent, "temperature", 0, 10),
            self.cfg.top_k,
            int(_number(sent, "max_new_tokens", 1, context - 1, whole=True)),
            int(_number(sent, "seed", 0, 2**53, whole=True)),
        )
        ids = prompt_tokens(self.tokenizer, prompt)
        if len(ids) + decoding.max_new_tokens > context:
            raise ValueError(
                f"The prompt has {len(ids)} tokens, the chat template's among them. The model's context is {context} "
                f"tokens, so before an answer of up to {decoding.max_new_tokens} there is room for "
                f"{max(0, context - decoding.max_new_tokens)}: shorten the prompt or the answer."
            )
        about = {"kind": "answers", "prompt": prompt, "n_prompt_tokens": len(ids), "decoding": decoding._asdict()}
        return self._request(about, position, partial(self._write, ids, decoding))

    def read(self, sent: Mapping[str, Any]) -> tuple[Record, list[Part]]:
        """Return the record of a request to read a ``statement``, and its parts, or say by a ValueError why not.

        An ``opposite`` is read too, so that a habit of agreeing cancels. The last event of a part has ``agreement``
        (-1 to 1) and, with an opposite, ``likelier`` (nats a token).
        """
        statement, position = _text(sent, "statement", MAX_STATEMENT_CHARACTERS), _number(sent, "position", -1, 1)
        opposite = sent.get("opposite") and _text(sent, "opposite", MAX_STATEMENT_CHARACTERS)
        instrument, cfg = _as_instrument(self.instrument, statement, opposite), self.cfg
        prompts = choice_prompts(instrument, self.templates, cfg.n_templates, cfg.n_orders, cfg.labels)
        if instrument.pairs:
            prompts += pair_prompts(instrument, self.templates, cfg.n_pair_templates)
        questions = to_questions(prompts, self.tokenizer)
        questions.sort(key=lambda question: list(question.answers[0].tokens))  # neighbours share prefixes
        about = {"kind": "reading", "statement": statement, "opposite": opposite or None, "n_prompts": len(questions)}
        return self._request(about, position, partial(self._read, instrument, questions))

    def _request(
        self, about: Record, position: float, steps: Callable[[], Iterator[Event]]
    ) -> tuple[Record, list[Part]]:
        columns = self.columns(position)
        about["columns"] = [{"name": name, "weights": weights} for name, weights in columns.items()]
        return about, [Part(weights, steps()) for weights in columns.values()]

    def _write(self, ids: list[int], decoding: Decoding) -> Iterator[Event]:
        stop_tokens = self.tokenizer.stop_tokens
        written: list[int] = []
        for step in iterate_steps(
            self.model.model, [ids], decoding, [decoding.seed], stop_tokens, self.cfg.max_tokens_per_forward
        ):
            if not step:
                yield {}
                continue
            written.append(step[0])
            is_over = written[-1] in stop_tokens
            text = self.tokenizer.decode(written[:-1] if is_over else written)
            finish = "stop" if is_over else "length" if len(written) == decoding.max_new_tokens else None
            # half a character is not shown until the other half is there
            yield {"text": text if finish else text.rstrip("\ufffd"), "n_tokens": len(written), "finish": finish}

    def _read(self, instrument: Instrument, questions: Sequence[Question]) -> Iterator[Event]:
        rows: list[dict[str, Any]] = []
        for forward in cut_by_tokens([question.answers for question in questions], self.cfg.max_tokens_per_forward):
            rows += answer_together(self.model.model, "", [questions[k] for k in forward])
            yield {"n_read": len(rows)}  # of n_prompts
        reading = {AGREEMENT: _figures(axis_values(collect_answers(rows, instrument), instrument, AGREEMENT))}
        if instrument.pairs:
            of_pairs = [row for row in rows if row["mode"] == "pairs"]
            reading["likelier"] = _figures(pair_values(of_pairs, instrument.pairs, instrument.units()))
        yield reading


def _figures(values: Values) -> Record:
    described = describe(values)
    return {"estimate": described["estimate"], "ci95": described["ci95_items_fixed"]}


def _as_instrument(template: Instrument, statement: str, opposite: str | None) -> Instrument:
    """Return an instrument of one statement: -1 all probability on the first option, 1 all on the last."""
    weights = np.linspace(-1, 1, len(template.options)).tolist()
    items = [Item("statement", statement, "", {AGREEMENT: weights}, "opposite" if opposite else None)]
    if opposite:
        items.append(Item("opposite", opposite, "", {AGREEMENT: weights[::-1]}, "statement"))
    pairs = (Pair("pair", "", opposite, statement, None),) if opposite else ()
    axis = Axis(template.options[0], template.options[-1], 0, len(items))
    return template._replace(axes={AGREEMENT: axis}, items=tuple(items), pairs=pairs)


def _text(sent: Mapping[str, Any], key: str, most: int | None = None) -> str:
    text = sent.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"The {key} is empty: type one.")
    if most and len(text) > most:
        raise ValueError(f"The {key} has {len(text):,} characters; the most is {most:,}: a sentence or two.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The {key} holds half a character (a lone surrogate) at {error.start}: remove it.") from error
    return text


def _number(sent: Mapping[str, Any], key: str, low: float, high: float, whole: bool = False) -> float:
    value = sent.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        if not whole or value == int(value):
            return value
    kind = "whole number" if whole else "number"
    raise ValueError(f"{key} is {json.dumps(value)[:40]}; give a {kind} from {low:g} to {high:g}.")
