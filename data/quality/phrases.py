# SPDX-License-Identifier: MIT
"""Gates for single rows: a gate looks at one text (or one pair of answers) and gives a reason or None.

What they look for is in ``data/quality/patterns.py``.
"""

import re
from collections.abc import Callable, Sequence

from data.language import words
from data.quality import patterns

LENGTH_RATIO = (0.67, 1.5)


def refusal(text: str) -> str | None:
    """Name the refusal of a model that stands where a prompt or an answer should."""
    return _found("refusal", patterns.REFUSAL, text)


def preamble(text: str) -> str | None:
    """Name an opening that talks about the answer instead of giving it."""
    return _found("preamble", patterns.PREAMBLE, text)


def raw_record(text: str) -> str | None:
    """Name a record of the source corpus, a masked link or a placeholder left in the text."""
    return _found("raw record or placeholder", patterns.RAW_RECORD, text)


def names_politics(text: str) -> str | None:
    """Name a living politician or a party found in the text."""
    return _found("politician or party", patterns.POLITICS, text)


def unfinished(text: str) -> str | None:
    """Say that a text does not end as a sentence, and how it ends."""
    return None if patterns.FINISHED.search(text) else f"does not end as a sentence: ...{text[-20:]!r}"


def unseen_post(prompt: str) -> str | None:
    """Name a prompt's reference to a post, quote or article that the reader does not see."""
    return _found("refers to an unseen post", patterns.UNSEEN_POST, prompt)


def not_neutral(prompt: str) -> str | None:
    """Name a side in a prompt, or words that order a stance."""
    return _found("names a side", patterns.SIDE, prompt) or _found("orders a stance", patterns.ORDER, prompt)


def length_mismatch(a: str, b: str, ratio: tuple[float, float] = LENGTH_RATIO) -> str | None:
    """Say that one answer is so much longer, in words, that length alone tells the two apart."""
    found = len(words(a)) / max(1, len(words(b)))
    return None if ratio[0] <= found <= ratio[1] else f"length ratio {found:.2f}, want {ratio[0]}..{ratio[1]}"


def wrong_size(text: str, n_words: tuple[int, int]) -> str | None:
    """Say that a text has fewer or more words than asked for."""
    found = len(words(text))
    return None if n_words[0] <= found <= n_words[1] else f"{found} words, want {n_words[0]}..{n_words[1]}"


TEXT_GATES: tuple[Callable[[str], str | None], ...] = (
    refusal,
    preamble,
    raw_record,
    names_politics,
    unfinished,
)
PROMPT_GATES: tuple[Callable[[str], str | None], ...] = (unseen_post, not_neutral)


def row_reasons(prompt: str, answers: Sequence[str], n_words: tuple[int, int] | None = None) -> list[str]:
    """List every reason for which a row fails; an empty list passes.

    Args:
        prompt: What both answers reply to.
        answers: The two answers, in any order.
        n_words: Fewest and most words of an answer; None does not ask.

    Returns:
        Reasons, each with the field and what was found in it.
    """
    reasons = [("prompt", gate(prompt)) for gate in TEXT_GATES + PROMPT_GATES]
    for number, answer in enumerate(answers, start=1):
        reasons += [(f"answer {number}", gate(answer)) for gate in TEXT_GATES]
        if n_words:
            reasons.append((f"answer {number}", wrong_size(answer, n_words)))
    reasons.append(("answers", length_mismatch(*answers)))
    return [f"{field}: {reason}" for field, reason in reasons if reason]


def _found(name: str, pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text.replace("’", "'"))
    return f"{name}: {match[0][:60]!r}" if match else None
