# SPDX-License-Identifier: MIT
"""What is wrong with the rows of a preference set: every defect with its kind, its row, and what was found.

Kinds are of three groups. ``text`` and ``hard`` ones are defects by themselves: what a model left behind, a prompt
that nobody can answer, a row that is there twice. ``gate`` ones make a row teach something else beside the lean.
``note`` ones are counted and spoil nothing by themselves.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from data.language import garbled, not_english
from data.pairs.records import Pair, row_list
from data.quality import phrases as filters
from data.quality.contamination import Statement
from data.quality.duplicates import PairsOf, near_duplicate_clusters
from data.quality.measures import overlaps
from data.quality.privacy import personal_data
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
Gate = Callable[[str], str | None]
_TEXT_GATES: dict[str, Gate] = {
    "refusal": filters.refusal,
    "preamble": filters.preamble,
    "raw record": filters.raw_record,
    "unfinished": filters.unfinished,
    "garbled": garbled,
    "personal data": personal_data,
    "politician or party": filters.names_politics,
}


class Defect(NamedTuple):
    """One defect of one row.

    Attributes:
        row: Number of the row in its set, from 1.
        kind: A key of ``KINDS``.
        field: ``prompt``, ``chosen``, ``rejected``, ``answers`` or ``row``.
        found: What was found, as a phrase.
    """

    row: int
    kind: str
    field: str
    found: str


def row_defects(
    pair: Pair, length_ratio: tuple[float, float] = filters.LENGTH_RATIO, language: Gate | None = not_english
) -> list[Defect]:
    """List what is wrong with one row, looked at alone.

    Args:
        pair: A valid pair.
        length_ratio: Least and most words of one answer for a word of the other.
        language: From a text to the reason why it is not in the language asked for; None does not ask.
    """
    texts = {field: getattr(pair, field).strip() for field in FIELDS}
    found: list[tuple[str, str, str | None]] = []
    for field, text in texts.items():
        found += [(kind, field, gate(text)) for kind, gate in _TEXT_GATES.items()]
        if language:
            found.append(("language", field, language(text)))
    found.append(("unseen post", "prompt", filters.unseen_post(texts["prompt"])))
    found.append(("framed prompt", "prompt", filters.not_neutral(texts["prompt"])))
    answers = texts["chosen"], texts["rejected"]
    found.append(("length ratio above 2", "answers", filters.length_mismatch(*answers, EITHER_WAY)))
    # both ways round: a mirrored row is read both ways, and 1 / 1.5 is under .67
    mismatch = (filters.length_mismatch(a, b, length_ratio) for a, b in (answers, answers[::-1]))
    found.append(("length mismatch", "answers", next(filter(None, mismatch), None)))
    return [Defect(pair.row, kind, field, reason) for kind, field, reason in found if reason]


def duplicate_defects(pairs: Sequence[Pair], others: Sequence[int], threshold: float) -> list[Defect]:
    """List the prompts that occur again, in so many words or nearly.

    Args:
        pairs: Valid pairs.
        others: For each pair its cluster, as :func:`data.quality.duplicates.near_duplicate_clusters` gives it.
        threshold: As used there, for the message.
    """
    clusters: dict[int, list[Pair]] = {}
    for pair, cluster in zip(pairs, others, strict=True):
        clusters.setdefault(cluster, []).append(pair)
    found = []
    for members in clusters.values():
        same: dict[str, list[int]] = {}
        for pair in members:
            same.setdefault(" ".join(filters.words(pair.prompt)).lower(), []).append(pair.row)
        some = [pair.row for pair in members[:12]]  # as many as a message names, and one more
        for rows in same.values():
            for row in rows:
                near, equal = ([other for other in numbers if other != row] for numbers in (some, rows[:12]))
                if near:
                    like = f"similar ({threshold} or more) to {row_list(near)}"
                    found.append(Defect(row, "near-duplicate prompt", "prompt", like))
                if equal:
                    found.append(Defect(row, "duplicate prompt", "prompt", f"the same as {row_list(equal)}"))
    return found


def contamination_defects(pairs: Sequence[Pair], statements: Sequence[Statement]) -> tuple[list[Defect], list[float]]:
    """List fields that repeat an instrument; also give each pair's highest similarity to a statement."""
    defects, highest = [], [0.0] * len(pairs)
    known = [statement.text for statement in statements]
    for field in FIELDS:
        for index, overlap in enumerate(overlaps([getattr(pair, field) for pair in pairs], known)):
            highest[index] = max(highest[index], overlap.similarity)
            if overlap.shared:
                near = statements[overlap.nearest] if overlap.nearest is not None else None
                where = f" ({near.instrument} {near.id})" if near else ""
                defects.append(Defect(pairs[index].row, "contamination", field, f"{overlap.shared!r}{where}"))
    return defects, highest


def toxicity_defects(pairs: Sequence[Pair], cap: Cap | None) -> list[Defect]:
    """List the fields that score more than a cap; nothing without one."""
    if cap is None:
        return []
    return [
        Defect(pair.row, "toxicity", field, reason)
        for field in FIELDS
        for pair, reason in zip(pairs, cap.reasons([getattr(pair, field) for pair in pairs]))
        if reason
    ]


def set_defects(
    pairs: Sequence[Pair],
    statements: Sequence[Statement],
    length_ratio: tuple[float, float] = filters.LENGTH_RATIO,
    language: Gate | None = not_english,
    threshold: float = 0.5,
    toxicity: Cap | None = None,
    alike: PairsOf | None = None,
) -> tuple[list[Defect], list[int], list[float]]:
    """List every defect of a set by row, each prompt's cluster, and each row's highest similarity to a statement."""
    others = near_duplicate_clusters([pair.prompt for pair in pairs], threshold, alike=alike)
    copied, similarity = contamination_defects(pairs, statements)
    copied += toxicity_defects(pairs, toxicity)
    found = [defect for pair in pairs for defect in row_defects(pair, length_ratio, language)]
    found += duplicate_defects(pairs, others, threshold) + copied
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(found, key=lambda d: (d.row, order[d.kind], d.field)), others, similarity
