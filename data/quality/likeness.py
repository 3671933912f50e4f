# SPDX-License-Identifier: MIT
"""Is a text of a row another one of it again, or itself again? Compared after one normal form of Unicode.

Each function names what it found, or returns None.
"""

import re
from collections.abc import Sequence

from data.chat.replies import plain_text
from data.language import lower_words, sentences
from data.quality.duplicates import shingles

SAME_ANSWERS = 0.7  # share of the shorter answer's word 3-grams, numbers aside, from which two answers are one
MIN_SHARED = 6  # 3-grams of an answer; shorter ones are much alike
ECHO = 0.8  # share of the prompt's word 3-grams that its answer holds
MIN_ECHO = 5  # words of a prompt; a shorter one is in any answer
SAME_SENTENCES = 0.8  # Jaccard similarity of the words of two sentences
MIN_STATEMENT = 25  # words of a prompt of one sentence that may be an answer
MIN_SENTENCE = 4  # words; shorter sentences may be said twice
MIN_PASSAGE = 10  # words that stand twice in a text
_NUMBERS = frozenset(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion
    half third quarter percent per cent""".split()
)
_NOTHING = frozenset("na none null nan nil undefined empty blank tbd noanswer noresponse notext".split())
_ASKS = re.compile(
    r"^\W*(?:what|why|how|who|when|where|which|whose|should|would|could|can|do|does|did|is|are|was|were|will|has|have"
    r"|may|must|in your (?:view|opinion)|give|explain|describe|discuss|write|tell|share|say|state|name|argue|consider"
    r"|imagine|assess|evaluate|outline|comment|weigh|compare|list|suggest|respond|reply|summari[sz]e|analy[sz]e|provide"
    r"|please)\b",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """Return a text in one form of Unicode; plain ASCII is left as it is, but for blanks."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines()) if text.isascii() else plain_text(text)


def skeleton(text: str) -> str:
    """Return letters and digits alone, in lower case: what blanks, case, quotes and widths do not change."""
    return "".join(character for character in plain(text).casefold() if character.isalnum())


def numberless(text: str) -> str:
    """Return the words of a text, a number of any form as ``0``: rows of one mould become the same."""
    tokens = ["0" if word[0].isdigit() or word in _NUMBERS else word for word in lower_words(plain(text))]
    return " ".join(word for place, word in enumerate(tokens) if word != "0" or tokens[place - 1 : place] != ["0"])


def void(text: str) -> str | None:
    """Say that a text has no letter and no digit, or only a word that stands for nothing."""
    core = skeleton(text)
    return f"says nothing: {text[:20]!r}" if not core or core in _NOTHING else None


def equal_answers(a: str, b: str) -> str | None:
    """Say that two answers are the same but for blanks, case, widths, marks, numbers, or a few words."""
    if skeleton(a) == skeleton(b):
        return "both answers are the same but for blanks, case, widths or marks"
    first, second = (shingles(numberless(text), 3) for text in (a, b))
    if min(len(first), len(second)) < MIN_SHARED:
        return None
    alike = len(first & second) / min(len(first), len(second))
    return (
        f"the answers share {alike:.2f} of the word 3-grams of the shorter one, numbers aside"
        if alike >= SAME_ANSWERS
        else None
    )


def echo(prompt: str, answer: str) -> str | None:
    """Say that an answer repeats its prompt."""
    asked, given = (lower_words(plain(text)) for text in (prompt, answer))
    if len(asked) < MIN_ECHO:
        return "repeats the prompt" if skeleton(prompt) == skeleton(answer) else None
    grams = _grams(asked, 3)
    share = len(grams & _grams(given, 3)) / len(grams)
    return f"repeats {share:.2f} of the prompt's word 3-grams" if share >= ECHO else None


def repetition(text: str) -> str | None:
    """Name a sentence or a passage that a text says twice, or a word that it says three times on end."""
    seen: list[tuple[str, frozenset[str]]] = []
    for sentence in sentences(plain(text)):
        tokens = lower_words(sentence)
        if len(tokens) < MIN_SENTENCE:
            continue
        kinds = frozenset(tokens)
        for earlier, of_earlier in seen:
            alike = len(kinds & of_earlier) / len(kinds | of_earlier)
            if alike >= (SAME_SENTENCES if len(tokens) > MIN_SENTENCE + 1 else 1):
                return f"repeats: {earlier[:60]!r}"
        seen.append((sentence, kinds))
    tokens = lower_words(plain(text))
    places: dict[tuple[str, ...], int] = {}
    for start in range(len(tokens) - MIN_PASSAGE + 1):
        passage = tuple(tokens[start : start + MIN_PASSAGE])
        if start - places.setdefault(passage, start) >= MIN_PASSAGE:
            return f"repeats: {' '.join(passage)!r}"
    for size in (1, 2, 3):
        for start in range(len(tokens) - 3 * size + 1):
            gram = tokens[start : start + size]
            if gram == tokens[start + size : start + 2 * size] == tokens[start + 2 * size : start + 3 * size]:
                return f"repeats: {' '.join(gram)!r} three times"
    return None


def exchanged(prompt: str, answer: str) -> str | None:
    """Say that a short answer asks and a longer prompt does not: the two fields may be exchanged."""
    said, asked = plain(prompt).strip(), plain(answer).strip()
    n_said, n_asked = len(lower_words(said)), len(lower_words(asked))
    if n_asked >= n_said or len(sentences(asked)) > 2 or not (_asks(asked) and not _asks(said)):
        return None
    is_statement = len(sentences(said)) > 1 or n_said >= MIN_STATEMENT
    return "the answer asks and the prompt does not" if is_statement else None


def _asks(text: str) -> bool:
    return text.rstrip("\"')* ").endswith("?") or bool(_ASKS.match(text))


def wrapped(text: str) -> str | None:
    """Say that a text has outer blanks, or stands as a whole in quotes."""
    if text != text.strip() or text.strip("\u200b\ufeff\u2060\u200e\u200f") != text:
        return "blanks before or after the text"
    return "the text stands in quotes" if unwrapped(text) != text else None


def unwrapped(text: str) -> str:
    """Return a text without outer blanks and without quotes, or stars, that hold it as a whole."""
    text = text.strip(" \t\r\n\f\v\u00a0\u200b\ufeff\u2060\u200e\u200f\u3000")
    for left, right in ('""', "“”", "''", "‘’", "«»", "„“", "``", "**"):
        inner = text[1:-1]
        if len(text) > 2 and text[0] == left and text[-1] == right and left not in inner and right not in inner:
            return unwrapped(inner)
    return text


def _grams(tokens: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
