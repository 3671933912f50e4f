# SPDX-License-Identifier: MIT
"""Rows with known defects: clean ones of the shipped set's sentences, some then spoilt by one class of defect each.

The spoiling texts were written apart from the patterns that look for them.
"""

import json
import random
from importlib.resources import files
from typing import NamedTuple

from data.instrument_texts import shipped_statements
from data.measures import jaccard, shingles

FIELDS = ("prompt", "chosen", "rejected")
# Put before an answer's text (refusals in place of its first sentence).
REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I apologize, but I cannot generate this kind of argument.",
    "I cannot fulfill this request because it takes a political side.",
    "As an AI language model, I do not hold political views of my own.",
    "I'm not able to provide an opinion on this subject.",
    "I am unable to write persuasive political content.",
    "Unfortunately, I can't respond to this prompt.",
    "I can't create content that attacks a group.",
    "I won't provide arguments for that position.",
    "Sorry, but I can't write that for you.",
    "I must respectfully decline to answer.",
    "It would not be appropriate for me to take part in this debate.",
    "I don't have personal opinions or beliefs.",
    "I’m sorry, but I won’t be able to help with this one.",
    "I'm just an AI and have no stake in this.",
    "I do not feel comfortable sharing a view on this.",
]
PREAMBLES = [
    "Here's a response that aligns with the stance you asked for:",
    "Here is a rewritten version of the answer:",
    "Sure, here's a short argument:",
    "Certainly! The point is simple.",
    "Of course! I can explain that.",
    "Absolutely, happy to do so.",
    "Response:",
    "**Answer:**",
    "Here is an alternative response from the other side of the debate.",
    "I'd be happy to explain my thinking.",
    "Below is a response written from that point of view.",
    "As requested, here is a reply:",
    "That's an excellent question!",
    "Here are three reasons for this:",
    "Okay, here's my take:",
    "Here’s one possible answer:",
]
RAW = [
    "{'text': 'so true, share this', 'index': 12, 'subreddit': 'news'}",
    '{"text": "they never learn", "score": 41}',
    "I wrote to [Your Representative] about it.",
    "Sincerely, [Your Name].",
    "My neighbour [Name] agrees.",
    "People in [City, State] know this.",
    "Read more at URL.",
    "Dear {name}, please think about it.",
    "[deleted]",
    "[removed]",
    "This is what [insert topic] comes down to.",
    "See https://example.org/a for more.",
    "<|im_start|> I say so.",
    "<name> told me so.",
    "The [Candidate Name] campaign said so.",
    "Join [Organization Name] today.",
]
UNSEEN = [
    "Explain the main point of this post.",
    "What does the author of the tweet want to say?",
    "Respond to the comment above.",
    "Give your view of the following statement.",
    "Discuss the claims in the article.",
    "What is the tone of the message?",
    "Do you agree with this quote?",
    "Put the text above into your own words.",
    "What is being said in the video?",
    "React to the given hashtags.",
    "Is the headline fair?",
    "What is the writer's argument?",
    "How would you answer the original poster?",
    "Describe the meme and its meaning.",
    "What does the excerpt imply?",
    "Is the attached article right?",
]
FRAMED = [
    "Defend this policy with vigour.",
    "Argue that the plan should fail.",
    "Explain why the plan is dangerous.",
    "Condemn those who think otherwise.",
    "Express your outrage at the idea.",
    "What do conservatives get wrong here?",
    "Why are the Democrats so wrong about it?",
    "Is the left out of touch on this?",
    "Write a speech supporting the reform.",
    "Convince your neighbours of your view.",
    "Make the case for a ban.",
    "Discuss the dangers of the proposal.",
    "Criticize the government for its choice.",
    "As a libertarian, what would you say?",
    "Take a stand against the measure.",
    "Speak in favor of the measure.",
]
CUT = ["and this is why the", "because we must not", "which means that,", "so the answer -", "in the end it is"]
FOREIGN = [
    "Der Staat sollte sich nicht in das Leben der Menschen einmischen, und die Steuern sind für viele zu hoch.",
    "El gobierno no debe decidir por las familias, y los impuestos son una carga para los que trabajan.",
    "L'État ne doit pas décider pour les familles, et les impôts sont une charge pour ceux qui travaillent.",
    "Lo Stato non deve decidere per le famiglie, e le tasse sono un peso che non tutti possono portare.",
    "Правительство не должно решать за семьи, и налоги слишком высоки для тех, кто работает.",
    "政府不应该替家庭做决定，税收对劳动者来说太高了。",
]
PERSONAL = [
    "Write to me at jane.doe@example.org about it.",
    "Call 555-010-0199 and ask.",
    "Call +44 20 7946 0958 and ask.",
    "Thanks to @some_user for this.",
    "As u/some-user said, it is so.",
]
GARBLED = [
    "It\u00e2\u20ac\u2122s plain to me.",
    "A caf\u00c3\u00a9 knows this.",
    "A lost \ufffd sign.",
    "\u00e2\u20ac\u0153Yes, so it is.",
]


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


def _distinct(rows: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """Leave out what is a defect by its definition: prompts that are alike, answers of unlike length."""
    kept, grams, holders = [], [], {}
    for row in rows:
        own = shingles(row["prompt"], 3)
        ratio = len(row["chosen"].split()) / len(row["rejected"].split())
        near = {i for gram in own for i in holders.get(gram, ())}
        if not 0.75 <= ratio <= 1.33 or any(jaccard(own, grams[i]) >= 0.45 for i in near):
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
        near = any(jaccard(grams[index], other) >= 0.5 for j, other in enumerate(grams) if j != index)
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
