# SPDX-License-Identifier: MIT
"""Do texts hold, exactly or nearly, the statements that models are measured with?

:func:`overlaps` asks of each row of a set whether it repeats a statement: by word 3-grams, and eight words in a row.
:func:`find_matches` asks of each statement whether the data of a training holds it, also in other words: by stems of
content words. Both find the statements that share terms with a text by one index.
"""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cache
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from data.language import lower_words
from data.pairs.records import ABOUT, is_held_out
from data.pairs.rows import load_rows
from data.quality.duplicates import shingles
from data.quality.measures import FUNCTION_WORDS
from data.recipe.files import load_yaml

SHIPPED = Path(__file__).parents[2] / "eval" / "instruments"
RUN = 8  # words in a row; a shorter statement counts if a text holds all of it
# Chosen on 40 paraphrases of compass60 by hand (all flagged) against the shipped set of 480 texts (1 of 244
# statements flagged). SAME: for a sentence that says what the statement says; CONTAINED: for one that says more.
SAME, CONTAINED = 0.65, 0.75
# Two words are alike if they begin alike: enough for the endings of English.
STEM_LETTERS = 6
TRAINING_FIELDS = ("prompt", "chosen", "rejected", "left", "right")
SOURCE_KEYS = ("source", "data_files", "split", "revision", "name", "column_map", "hold_out")
_TEXT_KEYS = ("messages", "content", "value", "text")  # of conversations
_IGNORED = {*FUNCTION_WORDS, "ought"}


class Statement(NamedTuple):
    """One statement of an instrument."""

    text: str
    instrument: str  # file name without its suffix
    item: str  # id of the item or pair
    side: str = ""  # of a pair

    @property
    def id(self) -> str:
        """Id of the item, or of the pair with its side."""
        return f"{self.item} {self.side}".rstrip()


class Overlap(NamedTuple):
    """The likeness of a text to the statements."""

    similarity: float  # highest Jaccard similarity of word 3-grams with any statement, 0 to 1
    nearest: Statement | None  # that statement, if anything is shared
    shared: str | None  # RUN words in a row, or a whole shorter statement, that both have


class Sentence(NamedTuple):
    """A sentence of the training data, or a whole text of several, and where it stands; rows count from 1."""

    file: str
    row: int
    field: str
    text: str
    is_whole: bool = False


class Match(NamedTuple):
    """A statement and the sentence that holds it: ``similarity`` is 1 and ``kind`` ``exact`` for the very words."""

    item: str
    side: str
    statement: str
    kind: str
    similarity: float
    file: str
    row: int
    field: str
    text: str


def shipped_statements(extra: Iterable[str | Path] = ()) -> list[Statement]:
    """Return every statement of every shipped instrument and of further files: YAML, or text with one a line."""
    statements = [*_shipped()]
    for path in map(Path, extra):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such instrument; give a YAML file, or a text file with a line each")
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            added = _instrument_statements(text, path)
        else:
            lines = enumerate(text.split("\n"), start=1)
            added = [Statement(line.strip(), path.stem, f"line {n}") for n, line in lines if line.strip()]
        if not added:
            raise ValueError(f"{path}: no statements; want `items` with `text`, or `pairs` with `left` and `right`")
        statements += added
    return statements


@cache  # a synthesis asks for them at its start and in two of its stages
def _shipped() -> tuple[Statement, ...]:
    paths = sorted(SHIPPED.glob("*.yaml"))
    return tuple(s for path in paths for s in _instrument_statements(path.read_text(encoding="utf-8"), path))


def _instrument_statements(text: str, path: Path) -> list[Statement]:
    try:
        instrument = load_yaml(text)
        items, pairs = (instrument.get(key) or [] for key in ("items", "pairs"))
        statements = [Statement(item["text"], path.stem, str(item["id"])) for item in items]
        sides = [(pair, side) for pair in pairs for side in ("left", "right")]
        return statements + [Statement(pair[side], path.stem, str(pair["id"]), side) for pair, side in sides]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        detail = str(error).splitlines()[0]
        raise ValueError(f"{path}: not an instrument ({type(error).__name__}: {detail})") from error


def _shared_weights(
    texts: Iterable[Set[Any]], statements: Sequence[Set[Any]], weights: Mapping[Any, float]
) -> Iterator[dict[int, float]]:
    """Yield the weight, 1 unless given, of the terms that each text shares with each statement that has any of them."""
    holders: dict[Any, list[int]] = defaultdict(list)
    for index, terms in enumerate(statements):
        for term in terms:
            holders[term].append(index)
    for terms in texts:
        shared: dict[int, float] = defaultdict(float)
        for term in sorted(terms):
            for index in holders.get(term, ()):
                shared[index] += weights.get(term, 1.0)
        yield shared


def overlaps(texts: Sequence[str], statements: Sequence[Statement]) -> list[Overlap]:
    """Compare each text, a prompt or an answer, with the statements."""
    runs: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    for statement in statements:
        for run in shingles(statement.text, RUN):
            runs[len(run)].add(run)
    of_text, again = tee(shingles(text, 3) for text in texts)
    of_statement = [shingles(statement.text, 3) for statement in statements]
    result = []
    for text, grams, n_shared in zip(texts, of_text, _shared_weights(again, of_statement, {})):
        similarity = {k: n / (len(grams) + len(of_statement[k]) - n) for k, n in n_shared.items()}
        nearest = max(similarity, key=lambda k: (similarity[k], -k), default=None)
        # three words or more in a row are a 3-gram that is shared too
        lengths = [n for n in runs if n_shared or n < 3]
        shared = next((min(both) for n in lengths if (both := shingles(text, n) & runs[n])), ())
        near: tuple[float, Statement | None] = (0.0, None)
        if nearest is not None:
            near = (similarity[nearest], statements[nearest])
        result.append(Overlap(*near, " ".join(shared) or None))
    return result


def read_sentences(source: str | Mapping[str, Any]) -> tuple[list[Sentence], dict[str, Any]]:
    """Return the sentences of a preference set, and its file, SHA-256 and number of rows for a report.

    ``source`` is a file, a repository of the Hub, or a mapping with ``source`` and, as a dataset of the trainer takes
    them, ``data_files``, ``split``, ``revision``, ``name``, ``column_map`` and ``hold_out``: the rows whose prompts are
    held out are left out and counted; those whose prompt is no text are taken.
    """
    if not isinstance(source, str | Mapping):
        raise ValueError(f"training_data: {source} names no set; give a file, a repository, or {{source: …}}")
    spec: dict[str, Any] = {"source": source} if isinstance(source, str) else dict(source)
    if "source" not in spec or (unknown := sorted({*spec} - {*SOURCE_KEYS})):
        found = f"has {', '.join(unknown)}" if "source" in spec else "has no source"
        raise ValueError(f"training_data: {dict(spec)} {found}; use source and any of {', '.join(SOURCE_KEYS[1:])}")
    column_map, hold_out = spec.pop("column_map", None) or {}, spec.pop("hold_out", None) or 0
    if unknown := sorted({*column_map} - {*TRAINING_FIELDS, *ABOUT}):
        allowed = ", ".join((*TRAINING_FIELDS, *ABOUT))
        raise ValueError(f"training_data: column_map names {', '.join(unknown)}; use {allowed}")
    if not isinstance(hold_out, int | float) or not 0 <= hold_out < 1:
        raise ValueError(f"training_data: hold_out={hold_out}; use a share from 0 to below 1, that of dataset.hold_out")
    try:
        rows, origin = load_rows(**spec)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"training_data: {error}; give JSONL, JSON, CSV, TSV or parquet files, or null"
        ) from error
    except ValueError as error:
        raise ValueError(f"training_data: {error}") from error
    fields = {field: column_map.get(field, field) for field in TRAINING_FIELDS}
    sentences, n_held_out = [], 0
    for number, row in enumerate(rows, start=1):
        if is_row_held_out(row, column_map, hold_out):
            n_held_out += 1
            continue
        if not any(row.get(column) for column in fields.values()):
            wanted = ", ".join(fields.values())
            raise ValueError(
                f"training_data: {origin}: row {number} has none of the fields {wanted}; say which is which with "
                f"training_data='[{{source: {spec['source']}, column_map: {{prompt: NAME, chosen: NAME}}}}]'"
            )
        for field, column in fields.items():
            parts = _split(row.get(column))
            sentences += [Sentence(origin, number, field, part) for part in parts]
            if len(parts) > 1:  # where a statement of two sentences is found
                sentences.append(Sentence(origin, number, field, " ".join(parts), is_whole=True))
    rows_text = json.dumps(rows, sort_keys=True, default=str).encode()
    content = Path(origin).read_bytes() if Path(origin).is_file() else rows_text
    about = {"file": origin, "sha256": hashlib.sha256(content).hexdigest(), "n_rows": len(rows)}
    return sentences, about | ({"hold_out": hold_out, "n_held_out": n_held_out} if hold_out else {})


def is_row_held_out(row: Mapping[str, Any], column_map: Mapping[str, str], share: float) -> bool:
    """Say whether a training with this ``hold_out`` left the row out; of a conversation it is not known."""
    prompt, *answers = (row.get(column_map.get(field, field)) for field in TRAINING_FIELDS)
    if not isinstance(prompt, str) or any(isinstance(answer, list) for answer in answers):
        return False
    return is_held_out(prompt, share)


def find_matches(sentences: Sequence[Sentence], statements: Sequence[Statement]) -> list[Match]:
    """Return the best match of every statement that occurs in the sentences.

    Exact: the words of the statement follow each other in a sentence. Near: by the stems of content words, each
    weighed by its rarity (inverse document frequency; Spärck Jones 1972, Journal of Documentation 28(1)),
    either the Dice coefficient of both reaches ``SAME`` or the share of the statement that the sentence holds
    reaches ``CONTAINED``.
    """
    of_statement = [_stems(statement.text) for statement in statements]
    of_sentence = [_stems(sentence.text) for sentence in sentences]
    single = [stems for sentence, stems in zip(sentences, of_sentence) if not sentence.is_whole]
    n_texts = len(of_statement) + len(single)
    n_with = Counter(stem for stems in [*of_statement, *single] for stem in stems)  # a whole text has no other stems
    rarity = {stem: math.log(1 + n_texts / n) for stem, n in n_with.items()}
    total_rarity = [sum(rarity[stem] for stem in sorted(stems)) for stems in of_statement]
    phrases = [_phrase(statement.text) for statement in statements]
    best: dict[int, Match] = {}
    for sentence, stems, shared in zip(sentences, of_sentence, _shared_weights(of_sentence, of_statement, rarity)):
        total, phrase = sum(rarity[stem] for stem in sorted(stems)), _phrase(sentence.text)
        for k, weight in shared.items():
            contained, same = weight / total_rarity[k], 2 * weight / (total_rarity[k] + total)
            if contained < CONTAINED and same < SAME:
                continue
            is_exact = phrases[k] in phrase
            if sentence.is_whole and not is_exact:
                continue
            similarity = 1.0 if is_exact else round(min(max(same, contained), 0.999), 3)
            if k not in best or similarity > best[k].similarity:
                statement, kind = statements[k], "exact" if is_exact else "near"
                best[k] = Match(statement.item, statement.side, statement.text, kind, similarity, *sentence[:4])
    return [best[k] for k in sorted(best)]


def _split(value: Any) -> list[str]:
    """Cut a text, or the messages of a conversation in any form, into sentences."""
    if isinstance(value, Mapping):
        return [part for key in _TEXT_KEYS for part in _split(value.get(key))]
    if isinstance(value, list):
        return [part for message in value for part in _split(message)]
    if not isinstance(value, str):
        return []
    return [part.strip() for part in re.split(r"(?<=[.!?])[\"”’)]*\s+|\n+", value) if part.strip()]


def _stems(text: str) -> set[str]:
    return {word[:STEM_LETTERS] for word in lower_words(text) if word not in _IGNORED}


def _phrase(text: str) -> str:
    """Return the words in lower case with a space around each, so that a phrase never begins inside a word."""
    return f" {' '.join(lower_words(text))} "
