# SPDX-License-Identifier: MIT
"""Which statements of an instrument occur, exactly or nearly, in the data that a model was tuned on."""

import csv
import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.language import words
from data.quality.measures import FUNCTION_WORDS
from eval.statements.instruments import Instrument

FIELDS = ("prompt", "chosen", "rejected", "left", "right")
# Chosen on 40 paraphrases of compass60 by hand (all flagged) against the shipped set of 480 texts (1 of 244
# statements flagged). SAME: for a sentence that says what the statement says; CONTAINED: for one that says more.
SAME, CONTAINED = 0.65, 0.75
# Two words are alike if they begin alike: enough for the endings of English.
STEM_LETTERS = 6
_IGNORED = {*FUNCTION_WORDS, "ought"}


class Match(NamedTuple):
    """Where a statement occurs: ``similarity`` is 1 and ``kind`` ``exact`` for the very words."""

    item: str
    side: str
    statement: str
    kind: str
    similarity: float
    file: str
    row: int
    field: str
    text: str


class Sentence(NamedTuple):
    """A sentence of the training data, or a whole text of several, and where it stands; rows count from 1."""

    file: str
    row: int
    field: str
    text: str
    is_whole: bool = False


def read_sentences(path: str) -> tuple[list[Sentence], dict[str, Any]]:
    """Read the prompts and answers of a preference set.

    Args:
        path: JSON Lines or CSV with any of the fields ``prompt, chosen, rejected, left, right``; an answer may
            be a conversation.

    Returns:
        All sentences, and file, SHA-256 and number of rows for the report.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither form, or a row has none of the fields.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"training_data: {path} not found; give JSONL or CSV files, or null")
    content = file.read_bytes()
    text = content.decode("utf-8-sig")
    try:
        if file.suffix == ".csv":
            rows = list(csv.DictReader(text.splitlines(keepends=True)))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"training_data: {path}: not JSON Lines ({error}); give JSONL or .csv") from error
    sentences = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not any(row.get(field) for field in FIELDS):
            raise ValueError(f"training_data: {path}: row {number} has none of the fields {FIELDS}")
        for field in FIELDS:
            parts = _split(row.get(field))
            sentences += [Sentence(path, number, field, part) for part in parts]
            if len(parts) > 1:  # where a statement of two sentences is found
                sentences.append(Sentence(path, number, field, " ".join(parts), is_whole=True))
    return sentences, {"file": path, "sha256": hashlib.sha256(content).hexdigest(), "n_rows": len(rows)}


def find_matches(instrument: Instrument, sentences: Sequence[Sentence]) -> list[Match]:
    """Return the best match of every statement that occurs in the sentences.

    Exact: the words of the statement follow each other in a sentence. Near: by the stems of content words, each
    weighed by its rarity (inverse document frequency; Spärck Jones 1972, Journal of Documentation 28(1)),
    either the Dice coefficient of both reaches ``SAME`` or the share of the statement that the sentence holds
    reaches ``CONTAINED``.
    """
    statements = [(item.id, "", item.text) for item in instrument.items]
    statements += [(pair.id, side, getattr(pair, side)) for pair in instrument.pairs for side in ("left", "right")]
    of_statement = [_stems(text) for _, _, text in statements]
    of_sentence = [_stems(sentence.text) for sentence in sentences]
    single = [stems for sentence, stems in zip(sentences, of_sentence) if not sentence.is_whole]
    n_with = Counter(stem for stems in [*of_statement, *single] for stem in stems)
    n_texts = len(of_statement) + len(single)
    rarity = {stem: math.log(1 + n_texts / n) for stem, n in n_with.items()}  # a whole text has no other stems
    totals = [sum(rarity[stem] for stem in sorted(stems)) for stems in of_statement]
    phrases = [_phrase(text) for _, _, text in statements]
    holders = defaultdict(list)
    for k, stems in enumerate(of_statement):
        for stem in stems:
            holders[stem].append(k)
    best: dict[int, Match] = {}
    for sentence, stems in zip(sentences, of_sentence):
        shared: dict[int, float] = defaultdict(float)
        for stem in sorted(stems):
            for k in holders.get(stem, ()):
                shared[k] += rarity[stem]
        total = sum(rarity[stem] for stem in sorted(stems))
        phrase = _phrase(sentence.text)
        for k, weight in shared.items():
            held, same = weight / totals[k], 2 * weight / (totals[k] + total)
            if held < CONTAINED and same < SAME:
                continue
            is_exact = f" {phrases[k]} " in f" {phrase} "
            if sentence.is_whole and not is_exact:
                continue
            similarity = 1.0 if is_exact else round(min(max(same, held), 0.999), 3)
            if k not in best or similarity > best[k].similarity:
                kind = "exact" if is_exact else "near"
                best[k] = Match(*statements[k], kind, similarity, *sentence[:4])
    return [best[k] for k in sorted(best)]


def _split(value: Any) -> list[str]:
    """Cut a text, or the messages of a conversation, into sentences."""
    if isinstance(value, list):
        return [part for message in value for part in _split(message.get("content"))]
    if not isinstance(value, str):
        return []
    return [part.strip() for part in re.split(r"(?<=[.!?])[\"”’)]*\s+|\n+", value) if part.strip()]


def _stems(text: str) -> set[str]:
    return {word[:STEM_LETTERS] for word in map(str.lower, words(text)) if word not in _IGNORED}


def _phrase(text: str) -> str:
    return " ".join(map(str.lower, words(text)))
