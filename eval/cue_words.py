# SPDX-License-Identifier: MIT
"""The same text with its partisan cue words exchanged: who said it changes, what is said does not.

Language models that annotate follow such cues (arXiv 2408.15895). The words are of English-language party politics;
for another language give pairs of your own.
"""

import re
from collections.abc import Mapping, Sequence

# Of the left, of the right; each word once. One that is capitalised here counts only so: without its capital it has an
# everyday sense ("a democrat by conviction", "the right to vote").
CUES = (
    ("Democrat", "Republican"),
    ("Democrats", "Republicans"),
    ("Democratic Party", "Republican Party"),
    ("Labour Party", "Conservative Party"),
    ("left-wing", "right-wing"),
    ("left-winger", "right-winger"),
    ("left-wingers", "right-wingers"),
    ("left-leaning", "right-leaning"),
    ("leftist", "rightist"),
    ("leftists", "rightists"),
    ("liberal", "conservative"),
    ("liberals", "conservatives"),
    ("blue state", "red state"),
    ("blue states", "red states"),
    ("the Left", "the Right"),
)


def swap_cues(text: str, cues: Sequence[Sequence[str]] = CUES) -> tuple[str, int]:
    """Exchange the cue words of a text.

    Args:
        text: Any text.
        cues: Pairs of a left and a right word; capitals count where a word has them here.

    Returns:
        The text with each cue replaced by its counterpart, in its case, and how many more left cues than right ones it
        had: a positive number means that the new text names the right more often than the old one did. The text is
        returned as it is if it has no cue.

    Raises:
        ValueError: If a word stands in two pairs, so that exchanging twice would not give the text again.
    """
    counterpart = _counterparts(tuple(map(tuple, cues)))
    words = "|".join(re.escape(word) for word in sorted(counterpart, key=len, reverse=True))
    moved = 0

    def swap(match: re.Match[str]) -> str:
        nonlocal moved
        found = match[0]
        word = next((w for w in (found, found.lower()) if w in counterpart), None)
        word = word or next((w for w in counterpart if w.lower() == found.lower()), found)
        if any(w[0].isupper() and f[0].islower() for w, f in zip(word.split(), found.split())):
            return found
        other, is_left = counterpart[word]
        moved += 1 if is_left else -1
        return _in_case(other, found)

    return re.sub(rf"(?<![\w-])(?:{words})(?![\w-])", swap, text, flags=re.IGNORECASE), moved


def _counterparts(cues: tuple[tuple[str, ...], ...]) -> Mapping[str, tuple[str, bool]]:
    words = [word.lower() for pair in cues for word in pair]
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice or any(len(pair) != 2 for pair in cues):
        raise ValueError(f"cue words: want pairs of a left and a right word, each word once; twice: {twice}")
    left = {pair[0]: (pair[1], True) for pair in cues}
    return left | {pair[1]: (pair[0], False) for pair in cues}


def _in_case(word: str, like: str) -> str:
    if like.isupper():
        return word.upper()
    if like[0].isupper() and word[0].islower():
        return word[0].upper() + word[1:]
    return word
