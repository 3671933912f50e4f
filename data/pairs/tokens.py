# SPDX-License-Identifier: MIT
"""Pairs as token ids: messages, prompt templates, and a length policy that never cuts in silence."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf
from torch.utils.data import Dataset
from torchtune import config
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX, AlpacaToMessages, Message, PromptTemplate
from torchtune.modules.transforms.tokenizers import ModelTokenizer
from tqdm import tqdm

from data.pairs.conversations import Turn
from data.pairs.records import Pair, row_list

TOO_LONG = ("drop", "truncate", "error")

_log = logging.getLogger(__name__)

TokenIds = Sequence[int] | np.ndarray
Messages = Callable[[list[Message]], list[Message]]
# As YAML or Python may give it: a dotpath, {role: [before, after]}, or messages -> messages.
Template = str | Mapping[str, Sequence[str]] | Messages | None


ROLES = ("system", "user", "assistant")  # of the messages of a pair


class Continuation(NamedTuple):
    """One whole sequence, prompt included: token ids ``[T]``, and labels ``[T]`` that say which are scored.

    A label is the token's id where it is scored, ``CROSS_ENTROPY_IGNORE_IDX`` (-100) elsewhere. The first token has no
    predictor and is never scored, whatever its label.
    """

    tokens: TokenIds
    labels: TokenIds


def no_answer(answer: Continuation) -> Continuation:
    """Return what stands for the answer that a row lacks beside ``answer``: its first token, not scored."""
    return Continuation(answer.tokens[:1], [CROSS_ENTROPY_IGNORE_IDX])


class AlpacaInstructTemplate(PromptTemplate):
    """Put the prompt into the Alpaca instruction text, inside the user message (the paper's setting).

    The wording is torchtune's own; a chat template of the tokenizer still goes around it.
    """

    def __init__(self) -> None:
        before, after = AlpacaToMessages().template["prompt_no_input"].split("{instruction}")
        super().__init__({"user": (before, after)})


class PreferencePairs(Dataset):
    """Preference pairs, tokenized at construction, in the form of torchtune's DPO recipes.

    An item is a dict of int lists: ``chosen_input_ids``, ``chosen_labels``, ``rejected_input_ids``,
    ``rejected_labels``; labels are the ids where scored and -100 elsewhere. ``rows`` has the row number in the file for
    each item, from 1, ``pairs`` its texts. An unknown template or policy, and a set of which no pair is left, are
    ValueErrors.

    The ``pairs`` given are valid and in file order, ``origin`` is the file or repository as messages should name it.
    The other arguments are as for :func:`data.datasets.preference_pairs`; the tokenizer's silent truncation is never
    used.
    """

    # The answers that are taken, each with an item's names of its token ids and labels.
    fields: Mapping[str, tuple[str, str]] = {
        "chosen": ("chosen_input_ids", "chosen_labels"),
        "rejected": ("rejected_input_ids", "rejected_labels"),
    }

    def __init__(
        self,
        pairs: Sequence[Pair],
        origin: str,
        tokenizer: ModelTokenizer,
        prompt_template: Template = None,
        max_seq_len: int | None = None,
        too_long: str = "drop",
    ) -> None:
        if too_long not in TOO_LONG:
            raise ValueError(f"too_long={too_long!r}; use one of {', '.join(TOO_LONG)}")
        limit = tokenizer.max_seq_len if max_seq_len is None else max_seq_len
        if limit is not None and limit < 1:
            raise ValueError(f"max_seq_len={limit}; use a positive integer or null")
        template = _resolve_template(prompt_template)
        # torchtune's tokenizers cut at their own max_seq_len without a word.
        tokenizer = copy.copy(tokenizer)
        tokenizer.max_seq_len = None

        self.origin = origin
        self.rows: list[int] = []
        self.pairs: list[Pair] = []
        self._items: list[tuple[Continuation, ...]] = []
        long: list[tuple[int, int]] = []  # row and length of each pair over the limit
        dropped = []
        for pair in tqdm(pairs, desc=f"Tokenizing {origin}", disable=len(pairs) <= 5000):
            turns = pair.turns or (Turn("user", pair.prompt),)
            texts = [getattr(pair, name) for name in self.fields]
            given = {text: _tokenize(turns, text, tokenizer, template) for text in texts if text}
            item = tuple(given[text] if text else no_answer(next(iter(given.values()))) for text in texts)
            n_tokens = max(len(answer.tokens) for answer in item)
            if limit is not None and n_tokens > limit:
                long.append((pair.row, n_tokens))
                cut = _cut(item, limit) if too_long == "truncate" else None
                if cut is None:
                    dropped.append(pair.row)
                    continue
                item = cut
            self.rows.append(pair.row)
            self.pairs.append(pair)
            self._items.append(item)
        if not long:
            return
        fault = (
            f"{origin}: {len(long)} of {len(pairs)} pairs have more than max_seq_len={limit} tokens "
            f"(longest {max(n for _, n in long)}; {row_list([row for row, _ in long])})"
        )
        remedy = "raise dataset.max_seq_len"
        if too_long == "error":
            raise ValueError(f"{fault}; {remedy}, or set dataset.too_long=drop or truncate")
        if not self.rows:
            raise ValueError(f"{fault}; no pair is left: {remedy}")
        if too_long == "drop":
            _log.warning("%s; dropped. To keep them, %s or set dataset.too_long=truncate", fault, remedy)
        else:
            rows = f" ({row_list(dropped)})" if dropped else ""
            result = f"answers cut at their end, {len(dropped)} pairs dropped with nothing left to learn from{rows}"
            _log.warning("%s; %s", fault, result)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        named = zip(self.fields.values(), self._items[index])
        return {name: np.asarray(ids).tolist() for names, answer in named for name, ids in zip(names, answer)}


class ChosenAnswers(PreferencePairs):
    """The chosen answers alone, for torchtune's supervised recipes: items ``tokens``, ``labels``."""

    fields = {"chosen": ("tokens", "labels")}


def _resolve_template(template: Template) -> Messages | None:
    if isinstance(template, str):
        # torchtune's convention: a dotpath is called without arguments and gives the template.
        template = config.instantiate(OmegaConf.create({"_component_": template}))
    elif isinstance(template, Mapping):
        if not all(map(_are_two_texts, template.values())):
            raise ValueError(f"prompt_template={dict(template)}; use {{role: [before, after]}}")
        if unknown := sorted({*map(str, template)} - {*ROLES}):
            raise ValueError(f"prompt_template has {', '.join(unknown)}; a message's role is one of {', '.join(ROLES)}")
        template = PromptTemplate({role: tuple(texts) for role, texts in template.items()})
    if template is not None and not callable(template):
        raise ValueError(
            f"prompt_template={template!r}; use null, a dotpath such as "
            "data.datasets.AlpacaInstructTemplate, or {role: [before, after]}"
        )
    return template


def _are_two_texts(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and len(value) == 2 and all(isinstance(text, str) for text in value)


def _tokenize(turns: Sequence[Turn], answer: str, tokenizer: ModelTokenizer, template: Messages | None) -> Continuation:
    messages = [Message(role=turn.role, content=turn.text, masked=True, eot=turn.role != "system") for turn in turns]
    messages.append(Message(role="assistant", content=answer, masked=False, eot=True))
    if template is not None:
        # One text per message: tokenizers encode, and some strip, each part of a message on its own,
        # which would eat the line breaks between the template and the prompt.
        messages = [
            Message(role=m.role, content=m.text_content, masked=m.masked, eot=m.eot) for m in template(messages)
        ]
    tokens, mask = tokenizer.tokenize_messages(messages)
    tokens = np.asarray(tokens, dtype=np.int32)
    return Continuation(tokens, np.where(mask, CROSS_ENTROPY_IGNORE_IDX, tokens).astype(np.int32))


def _cut(item: tuple[Continuation, ...], limit: int) -> tuple[Continuation, ...] | None:
    """Cut answers to ``limit`` tokens, the last (end) token kept; None if nothing is left to compare."""
    cut = tuple(
        answer
        if len(answer.tokens) <= limit
        else Continuation(*(np.append(part[: limit - 1], part[-1]) for part in answer))
        for answer in item
    )
    has_room = all((np.asarray(labels[:-1]) != CROSS_ENTROPY_IGNORE_IDX).any() for _, labels in cut if len(labels) > 1)
    # Answers that begin alike, or of which only the assistant's header remains, can end up the same.
    differ = len({np.asarray(tokens).tobytes() for tokens, _ in cut}) == len(cut)
    return cut if has_room and differ else None
