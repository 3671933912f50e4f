# SPDX-License-Identifier: MIT
"""Prompts as token ids: what a resident model reads, and the answers that are compared after it."""

import itertools
import os
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from torchtune.data import CROSS_ENTROPY_IGNORE_IDX, Message

from data.pairs.tokens import Continuation
from eval.statements.prompts import ROLES, Prompt, with_system


class Question(NamedTuple):
    """One prompt with its answers: the options in the instrument's order, or left and right."""

    row: dict[str, Any]
    answers: list[Continuation]


def to_questions(prompts: Sequence[Prompt], tokenizer: Any, system_prompt: str | None = None) -> list[Question]:
    """Return prompts of the modes ``choice`` and ``pairs`` as token ids.

    Without a request (``text`` is None) the answer follows the begin token (or, where a tokenizer has none, the
    end token, as in lm-evaluation-harness), outside the chat template; a system prompt then precedes it as plain text.

    Raises:
        ValueError: If an option's answer begins like another one.
    """
    prompt_of = cache(lambda text, before: prompt_tokens(tokenizer, text, system_prompt, before))
    chat_answer = cache(lambda text: answer_tokens(tokenizer, text))
    plain_answer = cache(lambda text: _plain_tokens(tokenizer, text, after=_plain_system(system_prompt)))
    for kind, texts in {p.row["labels"]: sorted(p.answers) for p in prompts if p.row["mode"] == "choice"}.items():
        _check_distinct(kind, texts, [chat_answer(text) for text in texts])
    questions = []
    for prompt in prompts:
        before, answer_of = prompt_of(prompt.text, prompt.before), plain_answer if prompt.text is None else chat_answer
        answers = [continuation(before, answer_of(text)) for text in prompt.answers]
        questions.append(Question(with_system(prompt, system_prompt).row, answers))
    return questions


def prompt_tokens(
    tokenizer: Any, text: str | None, system_prompt: str | None = None, before: Sequence[str] = ()
) -> list[int]:
    """Return the ids that an answer follows; ``before`` are the turns before ``text``."""
    if text is None:
        begin = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        return [begin, *_plain_tokens(tokenizer, _plain_system(system_prompt))]
    system = [] if system_prompt is None else [Message(role="system", content=system_prompt)]
    turns = [Message(role=role, content=said) for role, said in zip(itertools.cycle(ROLES), (*before, text))]
    return tokenizer.prompt_tokens([*system, *turns])


def _plain_system(system_prompt: str | None) -> str:
    return "" if system_prompt is None else f"{system_prompt}\n\n"


def _plain_tokens(tokenizer: Any, text: str, after: str = "") -> list[int]:
    """Return the ids of text outside the chat template, as they are after other text where it keeps its own ids."""
    start, whole, alone = (tokenizer.encode(t, add_bos=False, add_eos=False) for t in (after, after + text, text))
    return whole[len(start) :] if whole[: len(start)] == start else alone


def continuation(prompt: list[int], answer: list[int]) -> Continuation:
    """Return a prompt and its answer, of which the answer alone is scored."""
    return Continuation([*prompt, *answer], [CROSS_ENTROPY_IGNORE_IDX] * len(prompt) + answer)


def n_shared(question: Question) -> int:
    """Return with how many tokens the answers of a question begin alike."""
    scored = [[x for x in answer.labels if x != CROSS_ENTROPY_IGNORE_IDX] for answer in question.answers]
    return len(os.path.commonprefix(scored))


def answer_tokens(tokenizer: Any, text: str, with_end: bool = False) -> list[int]:
    """Return the ids of an answer where it follows a prompt, as the chat template writes it."""
    turns = [Message(role="user", content="."), Message(role="assistant", content=text)]
    tokens, mask = tokenizer.tokenize_messages(turns, add_end_tokens=with_end)
    return [token for token, masked in zip(tokens, mask) if not masked]


def _check_distinct(kind: str, texts: Sequence[str], tokens: Sequence[list[int]]) -> None:
    """Refuse answers of which one begins another: its probability would contain the other's."""
    for a, b in itertools.permutations(range(len(texts)), 2):
        if tokens[b][: len(tokens[a])] == tokens[a]:
            raise ValueError(
                f"labels={kind}: with this tokenizer the answer {texts[b]!r} begins with {texts[a]!r}, so "
                "they cannot be told apart; use another label set"
            )
