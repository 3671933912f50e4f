# SPDX-License-Identifier: MIT
"""Answers in writing: which option a text chooses, read strictly, and its row of ``results.jsonl``.

What cannot be read is no answer, and is never taken for one: "12/20" is not 1, "1-5" is not 1, "I" is not option I.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from data.chat.replies import plain_text, written_answer
from data.quality.phrases import refusal_words
from eval.asking.results import result_row
from eval.statements.prompts import Prompt

# What may precede an answer, in English; in another language an answer is read where it stands alone.
_LEAD = re.compile(
    r"(?:(?:(?:my|the) )?(?:(?:final )?answer|choice|reply|response|option|number|letter|label|mark)(?: is)?"
    r"|i(?:'d|'ll| would| will)? (?:choose|pick|select|say|answer|reply))(?:\s*:\s*|\s+)",
    re.IGNORECASE,
)
_BARE_LEAD = re.compile(r"(?:(?:my|the) )?(?:final )?(?:answer|choice|reply|response)(?: is)?\s*:?", re.IGNORECASE)
_ABOUT = r"(?: with (?:this|that|the) (?:claim|idea|opinion|sentence|statement|view))?"
_MARKUP = "*_`\"' \t"


class Decoding(NamedTuple):
    """How text is drawn: ``temperature`` 0 takes the likeliest token, ``top_k`` None draws from all of them."""

    temperature: float
    top_k: int | None
    max_new_tokens: int
    seed: int

    def seed_of(self, row: dict[str, Any]) -> int:
        """Return the seed of one answer: that of the prompt and the sample, the same for every model."""
        names = [row[k] for k in ("mode", "item", "template", "order", "labels", "sample")]
        return int.from_bytes(hashlib.sha256(repr((self.seed, names)).encode()).digest()[:4]) >> 1


class Writing(NamedTuple):
    """An answer in writing; without ``text`` where a server refused the call.

    ``finish`` is ``stop``, ``length`` where it was cut, or why there is no text.
    """

    text: str | None
    finish: str
    n_tokens: int


def read_option(text: str, options: Sequence[str], to_say: Sequence[str]) -> int | None:
    """Return the option that a text chooses, or None.

    The first line must be an answer: a label that was shown, alone or followed by ``.``, ``)``, ``:`` or a dash and
    anything but a number, or an option in its exact wording, which a full stop, a reason ("because") or "with this
    statement" may follow. "Answer:", "I choose" and their like may precede it. Nothing else may name another answer:
    a list of the options, a label beside another option's wording, a second label that stands alone ("1. or 2") or,
    where no labels were shown, a second option ("Agree. No, disagree.") is no answer. A letter may be written small
    after a colon alone ("answer: b"). ``to_say`` is what was to be said for each option: its label, or its wording
    where no labels were shown. Text and options are compared in one form of Unicode (``plain_text``), and what stands
    in a closed thinking block does not count.
    """
    labels = list(to_say) if list(to_say) != list(options) else []
    text, options = plain_text(written_answer(text)), [_folded(option) for option in options]
    if not set(labels) & {text} and options.count(_folded(text)) == 1:
        return options.index(_folded(text))
    lines = [line.strip(_MARKUP) for line in text.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) > 1 and _BARE_LEAD.fullmatch(lines[0]):
        lines = lines[1:]
    if not lines:
        return None
    chosen = _read_piece(lines[0], options, labels)
    if chosen is None:
        return None
    sentences = [s for line in lines for s in re.split(r"(?<=[.!?;])\s+", line)]
    others = {_read_piece(piece.strip(_MARKUP), options, labels) for piece in (*lines, *sentences)}
    others |= _named(text, options, labels)
    return chosen if others <= {chosen, None} else None


def written_row(
    name: str, prompt: Prompt, options: Sequence[str], decoding: Decoding, writing: Writing
) -> dict[str, Any]:
    """Return the row of ``results.jsonl`` about one answer in writing."""
    text = writing.text
    choice = read_option(text, prompt.options or options, prompt.answers) if text and prompt.answers else None
    return result_row(
        name,
        prompt.row,
        n_tokens=[writing.n_tokens],
        choice=choice,
        refused=choice is None and text is not None and refusal_words(written_answer(text)) is not None,
        text=text,
        decoding=decoding._replace(seed=decoding.seed_of(prompt.row))._asdict(),
        finish=writing.finish,
    )


def _folded(text: str) -> str:
    """Return a wording without case, outer marks and a last full stop."""
    plain = " ".join(plain_text(text).split()).strip(_MARKUP)
    return unicodedata.normalize("NFC", plain.rstrip(". ").casefold())


def _named(text: str, options: Sequence[str], labels: Sequence[str]) -> set[int]:
    """Return all options that a text names anywhere, whatever it says about them."""
    if labels:
        # "A society" and "I think" name none, nor do "1.5", "3%" and "1st"
        words = {label: r"(?!\s+[a-z])" if label in ("A", "I") else "" for label in labels}
        alone = [rf"(?<![\w.,]){re.escape(label)}(?![\w%']|[.,]\d){word}" for label, word in words.items()]
        return {k for k, pattern in enumerate(alone) if re.search(pattern, text)}
    longest = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
    named = set(re.findall(rf"(?<!\w)(?:{longest})(?!\w)", _folded(text)))
    return {k for k, option in enumerate(options) if option in named}


def _read_piece(piece: str, options: Sequence[str], labels: Sequence[str]) -> int | None:
    """Read one line or sentence as an answer."""
    lead = _LEAD.match(piece)
    body = piece[lead.end() :].strip(_MARKUP) if lead else piece
    small = {label.lower(): k for k, label in enumerate(labels)}
    if lead and lead[0].rstrip().endswith(":") and (k := small.get(body.rstrip(".)"))) is not None:
        return k
    for k, label in enumerate(labels):
        match = re.match(rf"[(\[]?{re.escape(label)}(?![\w'])[)\]]?(?P<mark>[.):]+(?=\s|$)|\s+[-–—=](?=\s)|)", body)
        if not match:
            continue
        rest = body[match.end() :].strip(_MARKUP)
        if not rest:
            # the pronoun stands alone only where a sentence was cut
            return k if label != "I" or match["mark"] else None
        worded = _read_wording(rest, options)
        if worded is not None:
            return k if worded == k else None
        free = match["mark"] and match["mark"][-1] != "=" and label != "I" and not rest[0].isdigit()
        return k if free else None
    return _read_wording(body, options)


def _read_wording(body: str, options: Sequence[str]) -> int | None:
    folded = unicodedata.normalize("NFC", body.casefold())
    # the longest first: "agree: fully" is not "agree"
    for k, option in sorted(enumerate(options), key=lambda entry: -len(entry[1])):
        wording = rf"(?:i(?:'d| would)? )?{re.escape(option)}{_ABOUT}(?=$|[.!;:](?:\s|$)|[*_`\"]|,? because\b)"
        if re.match(wording, folded):
            return k
    return None
