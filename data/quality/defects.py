# SPDX-License-Identifier: MIT
"""Defects in the rows of a preference set, each with its kind, its row, and the text that shows it.

Kinds are of three groups. ``text`` and ``hard`` ones are defects by themselves: what a model left behind, a prompt
that nobody can answer, a row that is there twice. ``gate`` ones make a row teach something else beside the lean.
``note`` ones are counted and spoil nothing by themselves.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data.language import garbled, lower_words, not_english
from data.pairs.records import COLUMNS, Pair, row_list
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
    """One defect of one row."""

    row: int  # number in its set, from 1
    kind: str  # key of KINDS
    field: str  # prompt, chosen, rejected, answers or row
    found: str  # the text that shows it, or a phrase about it


class Checks(NamedTuple):
    """Settings by which rows are checked; None for a component leaves its check out."""

    statements: Sequence[Statement] = ()  # of instruments, which no row may repeat
    length_ratio: tuple[float, float] = phrases.LENGTH_RATIO  # least and most words of one answer for one of the other
    language: Gate | None = not_english  # from a text to the reason why it is not in the language asked for
    threshold: float = 0.5  # similarity from which two prompts are near duplicates
    toxicity: Cap | None = None  # most that any text may score
    alike: PairsOf | None = None  # finds near duplicates of other words


def row_defects(pair: Pair, checks: Checks) -> list[Defect]:
    """List the defects of one valid pair, looked at alone."""
    texts = {field: getattr(pair, field).strip() for field in COLUMNS}
    gates = TEXT_GATES | ({"language": checks.language} if checks.language else {})
    reasons = [(kind, field, gate(text)) for field, text in texts.items() for kind, gate in gates.items()]
    reasons += [(kind, "prompt", gate(texts["prompt"])) for kind, gate in PROMPT_GATES.items()]
    answers = texts["chosen"], texts["rejected"]
    reasons.append(("length ratio above 2", "answers", phrases.length_mismatch(*answers, (0.5, 2.0))))
    # both ways round: a mirrored row is read both ways, and 1 / 1.5 is under .67
    mismatch = (phrases.length_mismatch(a, b, checks.length_ratio) for a, b in (answers, answers[::-1]))
    reasons.append(("length mismatch", "answers", next(filter(None, mismatch), None)))
    return [Defect(pair.row, kind, field, reason) for kind, field, reason in reasons if reason]


def defects_by_row(
    pairs: Sequence[Pair], checks: Checks, known: Iterable[Defect] = ()
) -> tuple[list[list[Defect]], list[float]]:
    """List the defects of each pair, near duplicates aside but ``known`` ones included, and its highest similarity."""
    by_row = {pair.row: row_defects(pair, checks) for pair in pairs}
    highest = dict.fromkeys(by_row, 0.0)
    for defect in known:
        by_row.get(defect.row, []).append(defect)
    texts = {field: [getattr(pair, field) for pair in pairs] for field in COLUMNS}
    for field, column in texts.items():
        for pair, overlap in zip(pairs, overlaps(column, checks.statements)):
            highest[pair.row] = max(highest[pair.row], overlap.similarity)
            if overlap.shared:
                where = f" ({overlap.nearest.instrument} {overlap.nearest.id})" if overlap.nearest else ""
                by_row[pair.row].append(Defect(pair.row, "contamination", field, f"{overlap.shared!r}{where}"))
    for field, column in texts.items():
        for pair, reason in zip(pairs, checks.toxicity.reasons(column) if checks.toxicity else ()):
            by_row[pair.row] += [Defect(pair.row, "toxicity", field, reason)] if reason else []
    return list(by_row.values()), list(highest.values())


def set_defects(pairs: Sequence[Pair], checks: Checks) -> list[Defect]:
    """List every defect of a set, row by row; among them the prompts that occur again, in the same words or nearly."""
    defects = [defect for of_row in defects_by_row(pairs, checks)[0] for defect in of_row]
    near: dict[int, list[int]] = defaultdict(list)
    same: dict[tuple[str, ...], list[int]] = defaultdict(list)
    clusters = near_duplicate_clusters([pair.prompt for pair in pairs], checks.threshold, checks.alike)
    for pair, cluster in zip(pairs, clusters):
        near[cluster].append(pair.row)
        same[tuple(lower_words(pair.prompt))].append(pair.row)
    for kind, like, groups in (
        ("near-duplicate prompt", f"similar ({checks.threshold} or more) to", near),
        ("duplicate prompt", "the same as", same),
    ):
        for rows in groups.values():
            for row in rows:
                # as many as a message names, and one more
                if others := [other for other in rows[:12] if other != row]:
                    defects.append(Defect(row, kind, "prompt", f"{like} {row_list(others)}"))
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(defects, key=lambda d: (d.row, order[d.kind], d.field))
