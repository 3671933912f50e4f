# SPDX-License-Identifier: MIT
"""Rows with known defects: clean ones of the shipped set's sentences, some then spoilt by one class of defect each."""

import itertools
import random
from collections import defaultdict
from importlib.resources import files
from typing import NamedTuple

from benchmarks.defect_phrases import (
    ADDRESSES,
    CUT,
    FOREIGN,
    FRAMED,
    GARBLED,
    MARKUP,
    PERSONAL,
    PREAMBLES,
    RAW,
    REFUSALS,
    TURNS,
    UNSEEN,
)
from data.pairs.records import SIDES
from data.pairs.rows import read_table
from data.quality.contamination import shipped_statements
from data.quality.duplicates import shingles

# Phrases of each class, and the form that puts one into a text: before it, behind it, or between its sentences
EDITS = {
    "refusal": (REFUSALS, "{phrase} {rest}"),
    "preamble": (PREAMBLES, "{phrase} {text}"),
    "raw record": (RAW, "{start}. {phrase} {rest}"),
    "markup": (MARKUP, "{text} {phrase}"),
    "web address": (ADDRESSES, "{text} {phrase}"),
    "turn of a chat": (TURNS, "{text} {phrase}"),
    "unseen post": (UNSEEN, "{text} {phrase}"),
    "framed prompt": (FRAMED, "{text} {phrase}"),
    "unfinished": ([phrase.capitalize() for phrase in CUT], "{text} {phrase}"),
    "language": (FOREIGN, "{phrase}"),
    "garbled": (GARBLED, "{text} {phrase}"),
    "personal data": (PERSONAL, "{text} {phrase}"),
}
CLASSES = (
    *(*EDITS, "contamination", "length ratio above 2", "length mismatch"),
    *("near-duplicate prompt", "duplicate prompt", "near-duplicate answer"),
    *("echoed prompt", "repetition", "equal answers", "exchanged fields", "wrapped"),
)


# Classes that are true of some phrases of another one too
FOLLOWS = {
    "exchanged fields": {"framed prompt"},  # an answer in a prompt's place takes a stance
    "unseen post": {"framed prompt"},
    "markup": {"raw record", "unfinished"},
    "raw record": {"markup"},
    "web address": {"raw record"},
    "turn of a chat": {"raw record", "markup", "unfinished"},
    "equal answers": {"raw record"},
}


class Seeded(NamedTuple):
    """Rows of a set and, for each, the classes that it was given."""

    rows: list[dict[str, str]]
    truth: list[set[str]]


def clean_rows(n: int, rng: random.Random) -> list[dict[str, str]]:
    """Return rows without defects: prompts and answers recombined from those of the shipped set."""
    shipped = read_table(files("data").joinpath("mirrored", "pairs.jsonl"))
    sentences = {side: [row[side].rstrip(".").split(". ") for row in shipped] for side in SIDES}
    rows = []
    for _ in range(8 * n):
        asked, sources = rng.sample(shipped, 2), rng.sample(range(len(shipped)), 3)
        answers = []
        for of_side in sentences.values():
            parts = [of_side[source][min(place, len(of_side[source]) - 1)] for place, source in enumerate(sources)]
            answers.append(". ".join(parts) + ".")
        rows.append({"prompt": " ".join(row["prompt"] for row in asked), "chosen": answers[0], "rejected": answers[1]})
    return _distinct(rows, n)


def seeded_rows(n: int = 1000, share: float = 0.5, seed: int = 0) -> Seeded:
    """Spoil a share of clean rows, the classes taking turns."""
    rng = random.Random(seed)
    rows = clean_rows(n, rng)
    truth: list[set[str]] = [set() for _ in rows]
    statements = [s.text for s in shipped_statements() if len(s.text.split()) >= 8]
    edits = EDITS | {"contamination": (statements, "{text} {phrase}")}
    spoilt = sorted(rng.sample(range(2, n), int(share * n)))
    untouched = [i for i in range(n) if i not in set(spoilt)]
    for turn, index in enumerate(spoilt):
        kind, row, other = CLASSES[turn % len(CLASSES)], dict(rows[index]), rows[rng.choice(untouched)]
        answer = rng.choice(("chosen", "rejected"))
        if kind in edits:
            field = "prompt" if kind in ("unseen post", "framed prompt") else answer
            phrases, form = edits[kind]
            start, _, rest = row[field].partition(". ")
            phrase = phrases[turn // len(CLASSES) % len(phrases)]
            row[field] = form.format(text=row[field], start=start, rest=rest or start, phrase=phrase)
        elif kind.startswith("length"):
            n_words = len(row[({"chosen", "rejected"} - {answer}).pop()].split())
            more = (rng.choice(rows)[side] for side in itertools.cycle(("rejected", "chosen")))
            least = 2.2 if kind == "length ratio above 2" else 1.6
            while len(row[answer].split()) < least * n_words:
                row[answer] += f" {next(more).partition('. ')[0]}."
        elif kind == "near-duplicate answer":
            row[answer] = other[answer]
        elif kind == "echoed prompt":
            row[answer] = f"{row['prompt']} {row[answer]}"
        elif kind == "repetition":
            row[answer] = f"{row[answer]} {row[answer].partition('. ')[0]}."
        elif kind == "equal answers":
            row[answer] = row[({"chosen", "rejected"} - {answer}).pop()].upper()
        elif kind == "exchanged fields":
            row["prompt"], row["chosen"] = row["chosen"], row["prompt"].partition("? ")[0].rstrip(".?") + "?"
        elif kind == "wrapped":
            row[answer] = f'"{row[answer]}"' if turn % 2 else f" {row[answer]}\n"
        elif kind == "near-duplicate prompt":
            row["prompt"] = other["prompt"].rstrip("?.") + ", in your honest view?"
        else:
            row["prompt"] = other["prompt"]
        rows[index] = row
        truth[index].add(kind)
    _add_consequences(rows, truth)
    return Seeded(rows, truth)


def _add_consequences(rows: list[dict[str, str]], truth: list[set[str]]) -> None:
    """Add the classes that follow from the texts as they are now."""
    prompts = [" ".join(row["prompt"].lower().split()) for row in rows]
    owners: dict[str, set[int]] = defaultdict(set)
    for index, row in enumerate(rows):
        for field in ("chosen", "rejected"):
            owners[" ".join(row[field].lower().strip(' "').split())].add(index)
    shared = {index for indices in owners.values() if len(indices) > 1 for index in indices}
    grams = [shingles(prompt, 3) for prompt in prompts]
    for index, row in enumerate(rows):
        a, b = (max(1, len(row[field].split())) for field in ("chosen", "rejected"))
        ratio = max(a, b) / min(a, b)
        near = any(_jaccard(grams[index], other) >= 0.5 for j, other in enumerate(grams) if j != index)
        follows = {
            "length ratio above 2": ratio > 2,
            "length mismatch": ratio > 1 / 0.67,
            "duplicate prompt": prompts.count(prompts[index]) > 1,
            "near-duplicate prompt": near,
            "near-duplicate answer": index in shared,
        }
        truth[index] |= {kind for kind, is_so in follows.items() if is_so}


def _distinct(rows: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """Leave out what is a defect by its definition: prompts that are alike, answers of unlike length."""
    kept, grams, holders = [], [], {}
    for row in rows:
        of_row = shingles(row["prompt"], 3)
        ratio = len(row["chosen"].split()) / len(row["rejected"].split())
        near = {i for gram in of_row for i in holders.get(gram, ())}
        if not 0.75 <= ratio <= 1.33 or any(_jaccard(of_row, grams[i]) >= 0.45 for i in near):
            continue
        for gram in of_row:
            holders.setdefault(gram, []).append(len(grams))
        kept.append(row)
        grams.append(of_row)
        if len(kept) == n:
            return kept
    raise ValueError(f"only {len(kept)} of {n} clean rows can be made of {len(rows)}")


def _jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b)
