# SPDX-License-Identifier: MIT
"""Defects in the rows of a preference set, each with its kind, its row, and the text that shows it.

Kinds are of three groups. ``text`` and ``hard`` ones are defects by themselves: what a model left behind, a prompt
that nobody can answer, a row that is there twice. ``gate`` ones make a row teach something else beside the lean.
``note`` ones are counted and spoil nothing by themselves.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from data.language import garbled, not_english, words
from data.pairs.records import Pair, row_list
from data.quality import phrases
from data.quality.contamination import Statement, overlaps
from data.quality.duplicates import PairsOf, near_duplicate_clusters
from data.quality.phrases import Gate
from data.text_models import Cap


class Kind(NamedTuple):
    """A class of defects: its group (``text``, ``hard``, ``gate`` or ``note``) and what it means."""

    group: str
    meaning: str


KINDS: dict[str, Kind] = {
    "refusal": Kind("text", "a model's refusal stands where a prompt or an answer should"),
    "preamble": Kind("text", "the answer opens by talking about the answer"),
    "raw record": Kind("text", "a record of the source corpus, a masked link or a placeholder is left in the text"),
    "unseen post": Kind("text", "the prompt refers to a post, quote or article that the reader does not see"),
    "unfinished": Kind("text", "the text does not end as a sentence"),
    "garbled": Kind("text", "characters show that the text was read with a wrong encoding"),
    "language": Kind("text", "the text is not in the language asked for"),
    "invalid row": Kind("hard", "a field is missing, empty or no text, or both answers are the same"),
    "duplicate id": Kind("hard", "an earlier row has the same id"),
    "duplicate prompt": Kind("hard", "another row has the same prompt, letter case and punctuation aside"),
    "near-duplicate prompt": Kind("hard", "another row's prompt shares half of its word 3-grams or more"),
    "length ratio above 2": Kind("hard", "one answer has more than twice the words of the other"),
    "length mismatch": Kind("gate", "the ratio of the answers' lengths in words is outside the limits"),
    "framed prompt": Kind("gate", "the prompt names a side or orders a stance"),
    "contamination": Kind("gate", "eight words in a row, or a whole shorter statement, of an instrument"),
    "personal data": Kind("gate", "an e-mail address, a handle or a phone number"),
    "toxicity": Kind("gate", "a text scores more than max_toxicity"),
    "politician or party": Kind("note", "a living politician or a party is named, which dates the row"),
}
EITHER_WAY = (0.5, 2.0)
FIELDS = ("prompt", "chosen", "rejected")
TEXT_GATES: dict[str, Gate] = {
    "refusal": phrases.refusal,
    "preamble": phrases.preamble,
    "raw record": phrases.raw_record,
    "unfinished": phrases.unfinished,
    "garbled": garbled,
    "personal data": phrases.personal_data,
    "politician or party": phrases.names_politics,
}
PROMPT_GATES: dict[str, Gate] = {"unseen post": phrases.unseen_post, "framed prompt": phrases.not_neutral}


class Defect(NamedTuple):
    """One defect of one row.

    Attributes:
        row: Number of the row in its set, from 1.
        kind: A key of ``KINDS``.
        field: ``prompt``, ``chosen``, ``rejected``, ``answers`` or ``row``.
        found: The text that shows the defect, or a phrase about it.
    """

    row: int
    kind: str
    field: str
    found: str


class Checks(NamedTuple):
    """Settings by which rows are checked.

    Attributes:
        statements: Statements of instruments, which no row may repeat.
        length_ratio: Least and most words of one answer for a word of the other.
        language: From a text to the reason why it is not in the language asked for; None does not ask.
        threshold: Similarity from which two prompts are near duplicates.
        toxicity: Most that any text may score; None scores none.
        alike: Finds near duplicates of other words; see :func:`data.quality.duplicates.near_duplicate_clusters`.
    """

    statements: Sequence[Statement] = ()
    length_ratio: tuple[float, float] = phrases.LENGTH_RATIO
    language: Gate | None = not_english
    threshold: float = 0.5
    toxicity: Cap | None = None
    alike: PairsOf | None = None


def row_defects(
    pair: Pair, length_ratio: tuple[float, float] = phrases.LENGTH_RATIO, language: Gate | None = not_english
) -> list[Defect]:
    """List the defects of one valid pair, looked at alone; the settings are those of :class:`Checks`."""
    texts = {field: getattr(pair, field).strip() for field in FIELDS}
    gates = TEXT_GATES | ({"language": language} if language else {})
    reasons = [(kind, field, gate(text)) for field, text in texts.items() for kind, gate in gates.items()]
    reasons += [(kind, "prompt", gate(texts["prompt"])) for kind, gate in PROMPT_GATES.items()]
    answers = texts["chosen"], texts["rejected"]
    reasons.append(("length ratio above 2", "answers", phrases.length_mismatch(*answers, EITHER_WAY)))
    # both ways round: a mirrored row is read both ways, and 1 / 1.5 is under .67
    mismatch = (phrases.length_mismatch(a, b, length_ratio) for a, b in (answers, answers[::-1]))
    reasons.append(("length mismatch", "answers", next(filter(None, mismatch), None)))
    return [Defect(pair.row, kind, field, reason) for kind, field, reason in reasons if reason]


def duplicate_defects(pairs: Sequence[Pair], threshold: float, alike: PairsOf | None = None) -> list[Defect]:
    """List the prompts that occur again, in the same words or nearly; the settings are those of :class:`Checks`."""
    clusters: dict[int, list[Pair]] = defaultdict(list)
    for pair, cluster in zip(pairs, near_duplicate_clusters([pair.prompt for pair in pairs], threshold, alike)):
        clusters[cluster].append(pair)
    defects = []
    for members in clusters.values():
        same: dict[str, list[int]] = defaultdict(list)
        for pair in members:
            same[" ".join(words(pair.prompt)).lower()].append(pair.row)
        some = [pair.row for pair in members[:12]]  # as many as a message names, and one more
        for rows in same.values():
            for row in rows:
                near, equal = ([other for other in numbers if other != row] for numbers in (some, rows[:12]))
                if near:
                    like = f"similar ({threshold} or more) to {row_list(near)}"
                    defects.append(Defect(row, "near-duplicate prompt", "prompt", like))
                if equal:
                    defects.append(Defect(row, "duplicate prompt", "prompt", f"the same as {row_list(equal)}"))
    return defects


def contamination_defects(pairs: Sequence[Pair], statements: Sequence[Statement]) -> tuple[list[Defect], list[float]]:
    """List the fields that repeat an instrument, and give each pair's highest similarity to a statement."""
    defects, highest = [], [0.0] * len(pairs)
    for field in FIELDS:
        for index, overlap in enumerate(overlaps([getattr(pair, field) for pair in pairs], statements)):
            highest[index] = max(highest[index], overlap.similarity)
            if overlap.shared:
                near = overlap.nearest
                where = f" ({near.instrument} {near.id})" if near else ""
                defects.append(Defect(pairs[index].row, "contamination", field, f"{overlap.shared!r}{where}"))
    return defects, highest


def toxicity_defects(pairs: Sequence[Pair], cap: Cap | None) -> list[Defect]:
    """List the fields that score more than a cap; none without a cap."""
    if cap is None:
        return []
    return [
        Defect(pair.row, "toxicity", field, reason)
        for field in FIELDS
        for pair, reason in zip(pairs, cap.reasons([getattr(pair, field) for pair in pairs]))
        if reason
    ]


def set_defects(pairs: Sequence[Pair], checks: Checks) -> list[Defect]:
    """List every defect of a set, row by row."""
    defects = [defect for pair in pairs for defect in row_defects(pair, checks.length_ratio, checks.language)]
    defects += duplicate_defects(pairs, checks.threshold, checks.alike)
    defects += contamination_defects(pairs, checks.statements)[0] + toxicity_defects(pairs, checks.toxicity)
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(defects, key=lambda d: (d.row, order[d.kind], d.field))
