# SPDX-License-Identifier: MIT
"""Rows with known defects: clean ones of the shipped set's sentences, some then spoilt by one class of defect each."""

import json
import random
from importlib.resources import files
from typing import NamedTuple

from benchmarks.defect_phrases import CUT, FOREIGN, FRAMED, GARBLED, PERSONAL, PREAMBLES, RAW, REFUSALS, UNSEEN
from data.quality.contamination import shipped_statements
from data.quality.duplicates import shingles


class Seeded(NamedTuple):
    """Rows of a set and, for each, the classes that it was given."""

    rows: list[dict[str, str]]
    truth: list[set[str]]


def clean_rows(n: int, rng: random.Random) -> list[dict[str, str]]:
    """Return rows without defects: prompts and answers recombined from those of the shipped set."""
    lines = files("data").joinpath("mirrored", "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    shipped = [json.loads(line) for line in lines]
    sentences = {side: [row[side].rstrip(".").split(". ") for row in shipped] for side in ("left", "right")}
    rows = []
    for _ in range(8 * n):
        asked, sources = rng.sample(shipped, 2), rng.sample(range(len(shipped)), 3)
        answers = []
        for own in sentences.values():
            parts = [own[source][min(place, len(own[source]) - 1)] for place, source in enumerate(sources)]
            answers.append(". ".join(parts) + ".")
        rows.append({"prompt": " ".join(row["prompt"] for row in asked), "chosen": answers[0], "rejected": answers[1]})
    return _distinct(rows, n)


def _jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b)


def _distinct(rows: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """Leave out what is a defect by its definition: prompts that are alike, answers of unlike length."""
    kept, grams, holders = [], [], {}
    for row in rows:
        own = shingles(row["prompt"], 3)
        ratio = len(row["chosen"].split()) / len(row["rejected"].split())
        near = {i for gram in own for i in holders.get(gram, ())}
        if not 0.75 <= ratio <= 1.33 or any(_jaccard(own, grams[i]) >= 0.45 for i in near):
            continue
        for gram in own:
            holders.setdefault(gram, []).append(len(grams))
        kept.append(row)
        grams.append(own)
        if len(kept) == n:
            return kept
    raise ValueError(f"only {len(kept)} of {n} clean rows can be made of {len(rows)}")


def seeded_rows(n: int = 1000, share: float = 0.5, seed: int = 0) -> Seeded:
    """Spoil a share of clean rows, the classes taking turns."""
    rng = random.Random(seed)
    rows = clean_rows(n, rng)
    truth: list[set[str]] = [set() for _ in rows]
    statements = [s.text for s in shipped_statements() if len(s.text.split()) >= 8]
    spoilt = sorted(rng.sample(range(2, n), int(share * n)))
    untouched = [i for i in range(n) if i not in set(spoilt)]
    for turn, index in enumerate(spoilt):
        kind = CLASSES[turn % len(CLASSES)]
        rows[index] = _spoil(kind, rows[index], rows[rng.choice(untouched)], turn // len(CLASSES), statements, rng)
        truth[index].add(kind)
    prompts = [" ".join(row["prompt"].lower().split()) for row in rows]
    grams = [shingles(prompt, 3) for prompt in prompts]
    for index, row in enumerate(rows):  # what follows from the texts as they are now
        a, b = (max(1, len(row[field].split())) for field in ("chosen", "rejected"))
        truth[index] |= {"length ratio above 2"} if max(a, b) / min(a, b) > 2 else set()
        truth[index] |= {"length mismatch"} if max(a, b) / min(a, b) > 1 / 0.67 else set()
        truth[index] |= {"duplicate prompt"} if prompts.count(prompts[index]) > 1 else set()
        near = any(_jaccard(grams[index], other) >= 0.5 for j, other in enumerate(grams) if j != index)
        truth[index] |= {"near-duplicate prompt"} if near else set()
    return Seeded(rows, truth)


CLASSES = (
    *("refusal", "preamble", "raw record", "unseen post", "framed prompt", "unfinished", "language", "garbled"),
    *(
        "personal data",
        "contamination",
        "length ratio above 2",
        "length mismatch",
        "near-duplicate prompt",
        "duplicate prompt",
    ),
)


def _spoil(kind: str, row: dict, other: dict, turn: int, statements: list[str], rng: random.Random) -> dict[str, str]:
    row = dict(row)
    answer = rng.choice(("chosen", "rejected"))
    start, _, rest = row[answer].partition(". ")
    if kind == "refusal":
        row[answer] = f"{REFUSALS[turn % len(REFUSALS)]} {rest or start}"
    elif kind == "preamble":
        row[answer] = f"{PREAMBLES[turn % len(PREAMBLES)]} {row[answer]}"
    elif kind == "raw record":
        row[answer] = f"{start}. {RAW[turn % len(RAW)]} {rest or start}."
    elif kind == "unseen post":
        row["prompt"] += " " + UNSEEN[turn % len(UNSEEN)]
    elif kind == "framed prompt":
        row["prompt"] += " " + FRAMED[turn % len(FRAMED)]
    elif kind == "unfinished":
        row[answer] += " " + CUT[turn % len(CUT)].capitalize()
    elif kind == "language":
        row[answer] = FOREIGN[turn % len(FOREIGN)]
    elif kind == "garbled":
        row[answer] += " " + GARBLED[turn % len(GARBLED)]
    elif kind == "personal data":
        row[answer] += " " + PERSONAL[turn % len(PERSONAL)]
    elif kind == "contamination":
        row[answer] += " " + statements[turn % len(statements)]
    elif kind == "length ratio above 2":
        row[answer] = " ".join([row[answer]] * 3)
    elif kind == "length mismatch":
        other_answer = row[({"chosen", "rejected"} - {answer}).pop()].split()
        row[answer] = " ".join((row[answer].rstrip(".").split() * 3)[: round(1.75 * len(other_answer))]) + "."
    elif kind == "near-duplicate prompt":
        row["prompt"] = other["prompt"].rstrip("?.") + ", in your honest view?"
    else:
        row["prompt"] = other["prompt"]
    return row
