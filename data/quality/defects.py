# SPDX-License-Identifier: MIT
"""Defects in the rows of a preference set, each with its kind, its row, and the text that shows it.

Kinds are of three groups. ``text`` and ``hard`` ones are defects by themselves: what a model left behind, a prompt
that nobody can answer, a row that is there twice. ``gate`` ones make a row teach something else beside the lean.
``note`` ones are counted and spoil nothing by themselves.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from data.language import garbled, not_english
from data.pairs.records import COLUMNS, Pair, row_list
from data.quality import likeness, phrases
from data.quality.contamination import Statement, overlaps
from data.quality.duplicates import PairsOf, near_duplicate_clusters
from data.quality.leftovers import Gate, chat_turn, markup, raw_record, web_address
from data.quality.personal import mask_personal, personal_data
from data.text_models import Cap


class Kind(NamedTuple):
    """A class of defects: its group (``text``, ``hard``, ``gate`` or ``note``) and what it means."""

    group: str
    meaning: str


KINDS: dict[str, Kind] = {
    "refusal": Kind("text", "a model's refusal stands where a prompt or an answer should"),
    "preamble": Kind("text", "the answer opens or ends by talking about the answer"),
    "raw record": Kind("text", "a record or a mask of the source corpus, or a placeholder, is left in the text"),
    "markup": Kind("text", "tags, entities or escapes of a page are left in the text"),
    "web address": Kind("text", "a link, or a domain, written out or masked"),
    "turn of a chat": Kind("text", "a label of who speaks, or a mark of a chat template"),
    "unseen post": Kind("text", "the prompt refers to a post, quote, event or person that the reader does not see"),
    "unfinished": Kind("text", "the text does not end as a sentence"),
    "garbled": Kind("text", "characters show that the text was read with a wrong encoding"),
    "language": Kind("text", "the text, or a sentence of it, is not in the language asked for"),
    "echoed prompt": Kind("text", "an answer repeats its prompt"),
    "repetition": Kind("text", "an answer says a sentence or a passage twice"),
    "wrapped": Kind("text", "blanks stand before or after the text, or it stands in quotes as a whole"),
    "invalid row": Kind("hard", "a field is missing, empty or no text, or both answers are the same"),
    "equal answers": Kind(
        "hard", "both answers are the same but for blanks, case, widths, marks, numbers or a few words"
    ),
    "exchanged fields": Kind("hard", "an answer asks and the prompt does not"),
    "duplicate id": Kind("hard", "an earlier row has the same id"),
    "duplicate prompt": Kind("hard", "another row has the same prompt, letter case and punctuation aside"),
    "near-duplicate prompt": Kind(
        "hard", "another row's prompt shares half of its word 3-grams or more, numbers aside"
    ),
    "near-duplicate answer": Kind("hard", "another row's answer shares seven tenths of its word 3-grams or more"),
    "length ratio above 2": Kind("hard", "one answer has more than twice the words of the other"),
    "length mismatch": Kind("gate", "the ratio of the answers' lengths in words is outside the limits"),
    "framed prompt": Kind("gate", "the prompt names a side, or orders, praises or presupposes a stance"),
    "contamination": Kind("gate", "eight words in a row, or a whole shorter statement, of an instrument"),
    "personal data": Kind("gate", "an e-mail address, a handle or a phone number"),
    "toxicity": Kind("gate", "a text scores more than max_toxicity"),
    "exchanged sides": Kind("note", "the words of the answers are those of the other sides than the row says"),
    "politician or party": Kind("note", "a living politician or a party is named, which dates the row"),
}
TEXT_GATES: dict[str, Gate] = {
    "refusal": phrases.refusal,
    "preamble": phrases.preamble,
    "raw record": raw_record,
    "markup": markup,
    "web address": web_address,
    "turn of a chat": chat_turn,
    "unfinished": phrases.unfinished,
    "garbled": garbled,
    "politician or party": phrases.names_politics,
}
# A prompt is no answer: none of its questions talks about one, and people leave its mark out
PROMPT_TEXT_GATES: dict[str, Gate] = {"preamble": phrases.preamble_prompt, "unfinished": phrases.unfinished_prompt}
WORD_GATES: dict[str, Gate] = {"refusal": phrases.refusal_words, "preamble": phrases.preamble_words}
WORD_PROMPT_GATES: dict[str, Gate] = {"unseen post": phrases.unseen_words, "framed prompt": phrases.neutral_words}
# What is seen only before outer blanks and personal data go
RAW_GATES: dict[str, Gate] = {"personal data": personal_data, "wrapped": likeness.wrapped, "invalid row": likeness.void}
ANSWER_GATES = {"echoed prompt": likeness.echo, "exchanged fields": likeness.exchanged}
PROMPT_GATES: dict[str, Gate] = {"unseen post": phrases.unseen_post, "framed prompt": phrases.not_neutral}


SAME_ANSWER = 0.7  # Jaccard similarity of word 3-grams from which two rows have one answer
MIN_ANSWER = 24  # letters; shorter answers, such as "Yes, I do.", are common


class Defect(NamedTuple):
    """One defect of one row."""

    row: int  # number in its set, from 1
    kind: str  # key of KINDS
    field: str  # prompt, chosen, rejected, answers or row
    found: str  # the text that shows it, or a phrase about it


class Repeats(NamedTuple):
    """Pairs that say the same, by their places."""

    kind: str  # key of KINDS
    field: str
    like: str  # words before the numbers of the other rows
    places: list[int]


class Checks(NamedTuple):
    """Settings by which rows are checked; None for a component leaves its check out."""

    statements: Sequence[Statement] = ()  # of instruments, which no row may repeat
    length_ratio: tuple[float, float] = phrases.LENGTH_RATIO  # least and most words of one answer for one of the other
    language: Gate | None = not_english  # from a text to the reason why it is not in the language asked for
    threshold: float = 0.5  # similarity from which two prompts are near duplicates
    toxicity: Cap | None = None  # most that any text may score
    alike: PairsOf | None = None  # finds near duplicates of other words
    by_words: bool = False  # leave out what classifiers say and what repeats itself, as a generator's own gates do


class Read(NamedTuple):
    """What the gates that look at one text alone found in it, by kind; None: nothing."""

    masked: str  # the text without outer blanks and personal data, as all but the first gates see it
    raw: dict[str, str | None]
    gates: dict[str, str | None]
    of_prompt: dict[str, str | None]


@lru_cache(maxsize=2**15)  # the sides of a mirrored set have the same texts, and so have a set and its repair
def _read(text: str, is_prompt: bool, by_words: bool) -> Read:
    masked = mask_personal(text).strip()
    gates = TEXT_GATES | (WORD_GATES if by_words else {}) | (PROMPT_TEXT_GATES if is_prompt else {})
    prompt_gates = PROMPT_GATES | (WORD_PROMPT_GATES if by_words else {}) if is_prompt else {}
    return Read(
        masked,
        {kind: gate(text) for kind, gate in RAW_GATES.items()},
        {kind: gate(masked) for kind, gate in gates.items()},
        {kind: gate(masked) for kind, gate in prompt_gates.items()},
    )


def row_defects(pair: Pair, checks: Checks) -> list[Defect]:
    """List the defects of one valid pair, looked at alone; what was found is shown with personal data masked."""
    read = {field: _read(getattr(pair, field), field == "prompt", checks.by_words) for field in COLUMNS}
    texts = {field: of_text.masked for field, of_text in read.items()}
    reasons = [(kind, field, reason) for field, of_text in read.items() for kind, reason in of_text.raw.items()]
    kinds = read["prompt"].gates  # those of every text, a few of them stricter in a prompt
    reasons += [(kind, field, of_text.gates[kind]) for kind in kinds for field, of_text in read.items()]
    if checks.language:
        reasons += [("language", field, checks.language(text)) for field, text in texts.items()]
    reasons += [(kind, "prompt", reason) for kind, reason in read["prompt"].of_prompt.items()]
    prompt, *answers = texts.values()
    if not checks.by_words:
        for field, answer in zip(COLUMNS[1:], answers):
            reasons += [(kind, field, gate(prompt, answer)) for kind, gate in ANSWER_GATES.items()]
            reasons.append(("repetition", field, likeness.repetition(answer)))
        reasons.append(("equal answers", "answers", likeness.equal_answers(answers[0], answers[1])))
    reasons.append(("length ratio above 2", "answers", phrases.length_mismatch(answers[0], answers[1], (0.5, 2.0))))
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
    places = [(pair, field) for field in COLUMNS for pair in pairs]
    for (pair, field), overlap in zip(places, overlaps([getattr(*place) for place in places], checks.statements)):
        highest[pair.row] = max(highest[pair.row], overlap.similarity)
        if overlap.shared:
            where = f" ({overlap.nearest.instrument} {overlap.nearest.id})" if overlap.nearest else ""
            by_row[pair.row].append(Defect(pair.row, "contamination", field, f"{overlap.shared!r}{where}"))
    for field in COLUMNS:
        texts = [getattr(pair, field) for pair in pairs]
        for pair, reason in zip(pairs, checks.toxicity.reasons(texts) if checks.toxicity else ()):
            by_row[pair.row] += [Defect(pair.row, "toxicity", field, reason)] if reason else []
    return list(by_row.values()), list(highest.values())


def repeats(pairs: Sequence[Pair], checks: Checks) -> list[Repeats]:
    """Return the pairs that say again what others say: prompts in the same words or nearly, and answers nearly."""
    near: dict[int, set[int]] = defaultdict(set)
    same: dict[str, set[int]] = defaultdict(set)
    answers: dict[int, set[int]] = defaultdict(set)
    prompts = [likeness.numberless(pair.prompt) for pair in pairs]
    for place, cluster in enumerate(near_duplicate_clusters(prompts, checks.threshold, checks.alike)):
        near[cluster].add(place)
        same[likeness.skeleton(pairs[place].prompt)].add(place)
    texts = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]
    for place, cluster in enumerate(near_duplicate_clusters(texts, SAME_ANSWER)):
        if len(likeness.skeleton(texts[place])) >= MIN_ANSWER:
            answers[cluster].add(place // 2)
    kinds = (
        ("near-duplicate prompt", "prompt", f"similar ({checks.threshold} or more) to", near),
        ("duplicate prompt", "prompt", "the same as", same),
        ("near-duplicate answer", "answers", f"an answer similar ({SAME_ANSWER} or more) to one of", answers),
    )
    return [
        Repeats(kind, field, like, sorted(places))
        for kind, field, like, groups in kinds
        for places in groups.values()  # type: ignore[attr-defined]
        if len(places) > 1
    ]


def set_defects(pairs: Sequence[Pair], checks: Checks) -> list[Defect]:
    """List every defect of a set, row by row; among them the prompts and answers that occur again."""
    defects = [defect for of_row in defects_by_row(pairs, checks)[0] for defect in of_row]
    for kind, field, like, places in repeats(pairs, checks):
        rows = [pairs[place].row for place in places]
        for row in rows:
            others = [other for other in rows[:12] if other != row]  # as many as a message names, and one more
            defects.append(Defect(row, kind, field, f"{like} {row_list(others)}"))
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(defects, key=lambda d: (d.row, order[d.kind], d.field))
