# SPDX-License-Identifier: MIT
"""Measures of a whole preference set: duplicates, contamination, length bias, and features of style."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data.language import words

# Words that carry grammar rather than a subject: what style is made of once content is taken away.
FUNCTION_WORDS = tuple(
    """a about above after again against all almost also although always am among an and another any anyone
    are as at be because been before being below best better between both but by can cannot come could did do
    does down each either else enough even ever every everyone few fewer first for from full had has have he
    hence her here hers him his how however i if in instead into is it its itself just last least less let
    many may me might mine more most much must my neither never no nobody none nor not nothing now of off on
    once one only or other others ought our ours out over own perhaps quite rather same shall she should since
    so some somebody someone something sooner still such than that the their theirs them themselves then there
    these they this those though through thus to together too under until up upon us very was we well were
    what when where whether which while who whoever whole whom whose why will with within without would yes
    yet you your""".split()
)
PUNCTUATION = (",", ".", ";", ":", "!", "?", "-", "'", '"', "(")
STYLE_FEATURES = (
    *FUNCTION_WORDS,
    *PUNCTUATION,
    "n_words",
    "n_characters",
    "n_sentences",
    "characters_per_word",
    "words_per_sentence",
)


class Overlap(NamedTuple):
    """What a text shares with a list of statements.

    Attributes:
        similarity: Highest Jaccard similarity of word 3-grams with any statement, 0 to 1.
        nearest: Index of that statement, or None if nothing is shared.
        shared: A run of words found in both the text and a statement, or None.
    """

    similarity: float
    nearest: int | None
    shared: str | None


def shingles(text: str, n: int) -> frozenset[tuple[str, ...]]:
    """Return the word n-grams, lower case; a shorter text is one shingle."""
    tokens = [word.lower() for word in words(text)]
    return frozenset(tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1)))


def jaccard(a: frozenset, b: frozenset) -> float:
    """Return the share of all shingles of two texts that both have."""
    return len(a & b) / len(a | b)


def near_duplicates(texts: Sequence[str], threshold: float = 0.5, n: int = 3) -> list[tuple[int, int, float]]:
    """List all pairs of texts whose word n-grams have a Jaccard similarity of ``threshold`` or more.

    Exact: every pair with a common shingle is compared. For some ten thousand texts; more want MinHash.

    Args:
        texts: Prompts, say.
        threshold: Least similarity, above 0.
        n: Words in a shingle.

    Returns:
        Index, higher index and similarity of each pair.
    """
    grams = [shingles(text, n) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    pairs = []
    for j, own in enumerate(grams):
        n_shared = Counter(i for gram in own for i in holders[gram])
        for i, shared in sorted(n_shared.items()):
            similarity = shared / (len(grams[i]) + len(own) - shared)
            if similarity >= threshold:
                pairs.append((i, j, similarity))
        for gram in own:
            holders[gram].append(j)
    return pairs


def clusters(pairs: Iterable[tuple[int, int]], n: int) -> list[int]:
    """Give each of ``n`` items the lowest index among all items that a chain of pairs joins it to."""
    root = list(range(n))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = i = root[root[i]]
        return i

    for i, j in pairs:
        low, high = sorted((find(i), find(j)))
        root[high] = low
    return [find(i) for i in range(n)]


def overlaps(texts: Sequence[str], statements: Sequence[str], n: int = 8) -> list[Overlap]:
    """Compare each text with the statements of an instrument.

    Args:
        texts: Prompts or answers.
        statements: What a model will be measured with.
        n: Length in words of a shared run; a shorter statement counts if a text contains all of it.
    """
    runs = {}
    for statement in statements:
        for run in shingles(statement, n):
            runs.setdefault(len(run), set()).add(run)
    grams = [shingles(statement, 3) for statement in statements]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, known in enumerate(grams):
        for gram in known:
            holders[gram].append(index)
    found = []
    for text in texts:
        own = shingles(text, 3)
        n_shared = Counter(index for gram in own for index in holders.get(gram, ()))
        highest, nearest = max(((jaccard(own, grams[i]), -i) for i in n_shared), default=(0.0, None))
        shared = next((min(hit) for size, known in runs.items() if (hit := shingles(text, size) & known)), None)
        found.append(Overlap(highest, None if nearest is None else -nearest, " ".join(shared) if shared else None))
    return found


def longer_share(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the share of pairs whose first text has more words; a tie counts one half."""
    lengths = [(len(words(a)), len(words(b))) for a, b in zip(first, second, strict=True)]
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in lengths]))


def length_rule_accuracy(first: Sequence[str], second: Sequence[str]) -> float:
    """Return how often the better of "take the longer" and "take the shorter" finds the first text."""
    share = longer_share(first, second)
    return max(share, 1 - share)


def style_features(texts: Sequence[str]) -> np.ndarray:
    """Describe texts without their content: function words, punctuation and length.

    Returns:
        Float ``[N, F]``, columns as in ``STYLE_FEATURES``; words and punctuation per 100 words.
    """
    rows = []
    for text in texts:
        tokens = [word.lower() for word in words(text)]
        n_words = max(1, len(tokens))
        n_sentences = max(1, sum(text.count(mark) for mark in ".!?"))
        rate = 100 / n_words
        counts = Counter(tokens)
        rows.append(
            [counts[word] * rate for word in FUNCTION_WORDS]
            + [text.count(mark) * rate for mark in PUNCTUATION]
            + [n_words, len(text), n_sentences, sum(map(len, tokens)) / n_words, n_words / n_sentences]
        )
    return np.array(rows, dtype=float)
