# SPDX-License-Identifier: MIT
"""Does a training prompt argue what a statement asks? By meaning, for sets that have no key of it.

A statement and a training row are compared by the stems of their words: the cosine of both, each stem weighed by its
rarity in the training set (tf-idf; Salton & Buckley 1988, Information Processing & Management 24(5)).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data.language import lower_words
from data.quality.measures import FUNCTION_WORDS

# Chosen on compass60 against the shipped set: recall .91, precision .82. On compass300, which had no part in it, .85
# and .70 (tests/test_propositions.py). An answer's word counts ANSWER of one of the prompt, a shared topic TOPIC more.
ANSWER, TOPIC, MATCH = 0.5, 0.3, 0.2395
STEM_LETTERS = 6
ENDINGS = ("ies", "ing", "ed", "es", "s", "ly")
# Words in which a question is put, of every subject.
_IGNORED = {
    *FUNCTION_WORDS,
    *"ought should give opinion share view think advise would what how able free people person must state law".split(),
}


class Nearest(NamedTuple):
    """The training row nearest to a statement, from 1, or 0 for none, and how near it is: 0 to 1 + ``TOPIC``."""

    row: int
    similarity: float

    @property
    def is_match(self) -> bool:
        """Whether the row is taken to argue the statement."""
        return self.similarity >= MATCH


class PromptIndex:
    """The rows of a training set, to be asked which of them is nearest to a statement.

    Args:
        rows: With a ``prompt``, answers in ``left`` and ``right`` or ``chosen`` and ``rejected``, and perhaps a
            ``topic``: one that is the statement's too counts as a sign.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count the stems of every row."""
        counted = [_row_stems(row) for row in rows]
        self._topics = [row.get("topic") for row in rows]
        self._n_rows = len(rows)
        self._n_with = Counter(stem for stems in counted for stem in stems)
        self._rows = [self._unit(stems) for stems in counted]

    def nearest(self, statements: Iterable[str], topic: str | None = None) -> Nearest:
        """Return the row nearest to a proposition, of which one or more statements are given, mostly both sides."""
        asked = self._unit({stem: 1 + math.log(n) for stem, n in _stems(" ".join(statements)).items()})
        best = Nearest(0, 0.0)
        for number, (row, its_topic) in enumerate(zip(self._rows, self._topics), start=1):
            similarity = sum(weight * row.get(stem, 0.0) for stem, weight in asked.items())
            similarity *= 1 + TOPIC * (topic is not None and topic == its_topic)
            best = max(best, Nearest(number, similarity), key=lambda found: found.similarity)
        return best

    def _unit(self, stems: Mapping[str, float]) -> dict[str, float]:
        """Weigh stems by their rarity and bring them to length 1."""
        rarity = {stem: math.log((1 + self._n_rows) / (1 + self._n_with[stem])) for stem in stems}
        weights = {stem: weight * rarity[stem] for stem, weight in stems.items()}
        length = math.sqrt(sum(weight**2 for weight in weights.values()))
        return {stem: weight / length for stem, weight in weights.items()} if length else {}


def _row_stems(row: Mapping[str, Any]) -> dict[str, float]:
    answers = " ".join(str(row.get(field) or "") for field in ("left", "right", "chosen", "rejected"))
    stems = {stem: ANSWER * (1 + math.log(n)) for stem, n in _stems(answers).items()}
    for stem, n in _stems(str(row.get("prompt") or "")).items():
        stems[stem] = max(stems.get(stem, 0.0), 1 + math.log(n))
    return stems


def _stems(text: str) -> Counter[str]:
    return Counter(_stem(word) for word in lower_words(text) if word not in _IGNORED and len(word) > 1)


def _stem(word: str) -> str:
    ending = next((end for end in ENDINGS if word.endswith(end) and len(word) - len(end) >= 4), "")
    return word.removesuffix(ending)[:STEM_LETTERS]
