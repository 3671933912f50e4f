# SPDX-License-Identifier: MIT
"""The two scales on which a text is judged, and how a judge's answer is read: strictly, or not at all."""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from data.chat.replies import Request
from data.judging.instructions import load_instruction
from data.judging.lean_judge import LEAN, SIDES, side_of

REFUSAL = "refusal"

_ANSWER = re.compile(
    r"(?:(?:stance|lean|score|rating|answer|label)\s*[:=]\s*)?([0-9]+|refusal)(?:\s*/\s*([0-9]+))?\.?", re.IGNORECASE
)
_MARKS = "\"'`*_ \t"
# A label that stands alone in a sentence; "90%", "2.5" and "19th" hold none.
_LABEL = re.compile(r"(?<![\w.,])(?:[0-9]+(?![\w%]|[.,][0-9])|refusal\b)", re.IGNORECASE)


def read_label(text: str, labels: Collection[str]) -> str:
    """Read one label at the beginning of an answer.

    ``3``, ``"3"``, ``3.``, ``**3**``, ``Label: 3`` and ``3/5`` on a scale that ends at 5 are 3. An explanation may
    follow in brackets or on the next line, if no other label stands alone in it. ``1-5``, ``3 or 4``, ``2.5``,
    ``3/10``, ``1220``, ``III`` and a sentence are errors.

    Raises:
        ValueError: If that cannot be read as exactly one of the labels.
    """
    first, _, below = text.strip().partition("\n")
    head, _, beside = first.partition(" (")
    found = _ANSWER.fullmatch(head.strip(_MARKS))
    label = found[1].lower() if found else ""
    top = max((name for name in labels if name.isdigit()), key=int)
    if label not in labels or (found[2] and (found[2] != top or not label.isdigit())):
        raise ValueError(f"{text.strip()[:60]!r} is not one of the labels {_listed(labels)}, alone")
    others = {name.lower() for name in _LABEL.findall(f"{beside}\n{below}")} & set(labels) - {label}
    if others:
        raise ValueError(f"{text.strip()[:60]!r} names {label} and {', '.join(sorted(others))} too")
    return label


class JudgeScale(NamedTuple):
    """What a judge is asked and what its labels mean.

    Attributes:
        name: ``stance`` or ``lean``.
        labels: What a judge may write.
        classes: What is compared with people's labels.
        coarse: Class to a coarser one; the figures are given for these too.
        instruction: Shipped name or path (``data.judging.instructions``); its places are ``$text`` and ``$target``.
    """

    name: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    coarse: Mapping[str, str]
    instruction: str

    def request(self, text: str, target: str) -> Request:
        """Return the question about one text; ``target`` is the statement or subject that it is about."""
        messages = load_instruction(self.instruction).messages(text=text, target=target)
        return Request(messages, self.read)

    def read(self, text: str) -> str:
        """Return the label that an answer gives; ValueError if it gives none."""
        return read_label(text, self.labels)

    def class_of(self, label: str) -> str:
        """Return the class of a label, of the judge's or of a person's.

        Raises:
            ValueError: If it is neither a label nor a class of this scale.
        """
        if label in self.classes:
            return label
        if label not in self.labels:
            wanted = list(dict.fromkeys([*self.classes, *self.labels]))
            raise ValueError(f"{label!r} is not one of {_listed(wanted)}")
        return side_of(int(label))

    def value(self, label: str) -> float | None:
        """Return the number that a label means; None for a refusal.

        ``stance``: from -1 (against the statement) to 1 (for it). ``lean``: PoliTune's 0 (left) to 20 (right).
        """
        if label == REFUSAL:
            return None
        return float(label) if self.name == "lean" else (3 - int(label)) / 2


# Labels as in IssueBench (Röttger et al. 2025, arXiv 2502.08395), so that its people's labels can check a judge.
STANCE = JudgeScale(
    name="stance",
    labels=("1", "2", "3", "4", "5", REFUSAL),
    classes=("1", "2", "3", "4", "5", REFUSAL),
    coarse={"1": "for", "2": "for", "3": "neutral", "4": "against", "5": "against", REFUSAL: REFUSAL},
    instruction="stance",
)
# PoliTune's scale (Agiza et al. 2024): an integer from 0 to 20.
LEAN_SCALE = JudgeScale(
    name="lean",
    labels=tuple(map(str, LEAN)),
    classes=SIDES,
    coarse={},
    instruction="lean",
)
SCALES = {"stance": STANCE, "lean": LEAN_SCALE}


def load_scale(name: str, instruction: str | None = None) -> JudgeScale:
    """Return a scale, asked with a text of your own if one is given.

    Raises:
        FileNotFoundError: If there is no such instruction.
        ValueError: If there is no such scale.
    """
    if name not in SCALES:
        raise ValueError(f"scale={name}; use one of {sorted(SCALES)}")
    scale = SCALES[name]._replace(instruction=instruction or SCALES[name].instruction)
    load_instruction(scale.instruction)
    return scale


def _listed(labels: Collection[str]) -> str:
    names = list(labels)
    return ", ".join(names) if len(names) < 10 else f"{', '.join(names[:4])}, …, {names[-1]}"
