# SPDX-License-Identifier: MIT
"""Pairs as token ids: messages, prompt template, and a length policy that never cuts in silence."""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX, Message
from torchtune.modules.transforms.tokenizers import ModelTokenizer
from tqdm import tqdm

from data.pairs.prompt_templates import Template, resolve_template
from data.pairs.records import Pair, row_list

TOO_LONG = ("drop", "truncate", "error")

_log = logging.getLogger(__name__)

TokenIds = Sequence[int] | np.ndarray


class Continuation(NamedTuple):
    """One whole sequence, prompt included, and which of its tokens are scored.

    Attributes:
        tokens: Token ids, ``[T]``.
        labels: ``[T]``; the token id where it is scored, ``CROSS_ENTROPY_IGNORE_IDX`` (-100) elsewhere. The first
            token has no predictor and is never scored, whatever its label.
    """

    tokens: TokenIds
    labels: TokenIds


class PreferencePairs(Dataset):
    """Preference pairs, tokenized at construction, in the form of torchtune's DPO recipes.

    An item is a dict of int lists: ``chosen_input_ids``, ``chosen_labels``, ``rejected_input_ids``,
    ``rejected_labels``; labels are the ids where scored and -100 elsewhere.

    Args:
        pairs: Valid pairs, in file order.
        origin: The file or repository, as messages should name it.
        tokenizer: Any torchtune ``ModelTokenizer``. Its own ``max_seq_len`` is the limit if
            ``max_seq_len`` is None; its silent truncation is never used.
        prompt_template: None (the tokenizer's template alone), a dotpath to a class or factory
            of a template, ``{role: [before, after]}``, or a callable from messages to messages.
        max_seq_len: Most tokens of prompt and answer together; None takes the tokenizer's.
        too_long: What to do with a pair over the limit: ``drop`` it, ``truncate`` the end of the answer
            (its last token is kept; a pair of which nothing scored remains is dropped), or ``error``.

    Attributes:
        rows: Row number in the file for each item, from 1.
        origin: As given.

    Raises:
        ValueError: If the template or the policy is unknown, a pair is too long under ``error``, or
            no pair is left.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        origin: str,
        tokenizer: ModelTokenizer,
        prompt_template: Template = None,
        max_seq_len: int | None = None,
        too_long: str = "drop",
    ) -> None:
        self.origin = origin
        self.rows, self._items = _tokenize(
            pairs, ("chosen", "rejected"), tokenizer, origin, prompt_template, max_seq_len, too_long
        )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        chosen, rejected = self._items[index]
        return {
            "chosen_input_ids": np.asarray(chosen.tokens).tolist(),
            "chosen_labels": np.asarray(chosen.labels).tolist(),
            "rejected_input_ids": np.asarray(rejected.tokens).tolist(),
            "rejected_labels": np.asarray(rejected.labels).tolist(),
        }


class ChosenAnswers(Dataset):
    """The chosen answers alone, for torchtune's supervised recipes: items ``tokens``, ``labels``.

    Arguments, attributes and errors are those of :class:`PreferencePairs`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        origin: str,
        tokenizer: ModelTokenizer,
        prompt_template: Template = None,
        max_seq_len: int | None = None,
        too_long: str = "drop",
    ) -> None:
        self.origin = origin
        self.rows, self._items = _tokenize(
            pairs, ("chosen",), tokenizer, origin, prompt_template, max_seq_len, too_long
        )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        (chosen,) = self._items[index]
        return {"tokens": np.asarray(chosen.tokens).tolist(), "labels": np.asarray(chosen.labels).tolist()}


def _tokenize(
    pairs: Sequence[Pair],
    fields: tuple[str, ...],
    tokenizer: ModelTokenizer,
    origin: str,
    prompt_template: Template,
    max_seq_len: int | None,
    too_long: str,
) -> tuple[list[int], list[tuple[Continuation, ...]]]:
    if too_long not in TOO_LONG:
        raise ValueError(f"too_long={too_long!r}; use one of {', '.join(TOO_LONG)}")
    limit = tokenizer.max_seq_len if max_seq_len is None else max_seq_len
    if limit is not None and limit < 1:
        raise ValueError(f"max_seq_len={limit}; use a positive integer or null")
    template = resolve_template(prompt_template)
    # torchtune's tokenizers cut at their own max_seq_len without a word.
    tokenizer = copy.copy(tokenizer)
    tokenizer.max_seq_len = None

    rows, items, long_rows, dropped, longest = [], [], [], [], 0
    for pair in tqdm(pairs, desc=f"Tokenizing {origin}", disable=len(pairs) <= 5000):
        item = tuple(_answer(pair.prompt, getattr(pair, field), tokenizer, template) for field in fields)
        n_tokens = max(len(answer.tokens) for answer in item)
        if limit is not None and n_tokens > limit:
            long_rows.append(pair.row)
            longest = max(longest, n_tokens)
            item = _cut(item, limit) if too_long == "truncate" else None
        if item is None:
            dropped.append(pair.row)
            continue
        rows.append(pair.row)
        items.append(item)
    if long_rows:
        _report(origin, len(pairs), limit, longest, long_rows, dropped, too_long)
    return rows, items


def _answer(prompt: str, answer: str, tokenizer: ModelTokenizer, template: Callable | None) -> Continuation:
    messages = [
        Message(role="user", content=prompt, masked=True, eot=True),
        Message(role="assistant", content=answer, masked=False, eot=True),
    ]
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
    has_room = all((labels[:-1] != CROSS_ENTROPY_IGNORE_IDX).any() for _, labels in cut)
    # Answers that begin alike, or of which only the assistant's header remains, can end up the same.
    differ = len({np.asarray(tokens).tobytes() for tokens, _ in cut}) == len(cut)
    return cut if has_room and differ else None


def _report(
    origin: str, n_pairs: int, limit: int, longest: int, long: list[int], dropped: list[int], too_long: str
) -> None:
    found = (
        f"{origin}: {len(long)} of {n_pairs} pairs have more than max_seq_len={limit} tokens "
        f"(longest {longest}; {row_list(long)})"
    )
    remedy = "raise dataset.max_seq_len"
    if too_long == "error":
        raise ValueError(f"{found}; {remedy}, or set dataset.too_long=drop or truncate")
    if len(dropped) == n_pairs:
        raise ValueError(f"{found}; no pair is left: {remedy}")
    if too_long == "drop":
        _log.warning("%s; dropped. To keep them, %s or set dataset.too_long=truncate", found, remedy)
    else:
        rows = f" ({row_list(dropped)})" if dropped else ""
        _log.warning(
            "%s; answers cut at their end, %d pairs dropped with nothing left to learn from%s",
            *(found, len(dropped), rows),
        )
