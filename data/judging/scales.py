# SPDX-License-Identifier: MIT
"""Instructions to models, the scales on which a text is judged, and how an answer is read: strictly, or not at all.

An instruction is a text file that is named by its hash in every row that it helped to make.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from data.chat.replies import Request, Rule, object_format, object_parser, plain_text, written_answer

REFUSAL = "refusal"
# PoliTune's scale (Agiza et al. 2024): an integer from 0 to 20. Relevance is the other number that a post is given.
LEAN, RELEVANCE = range(21), range(11)
CENTRE = 10

_ANSWER = re.compile(
    r"(?:(?:stance|lean|coverage|hedging|better|score|rating|answer|label)\s*[:=]\s*)?([0-9]+|[a-z]+)"
    r"(?:\s*/\s*([0-9]+))?\.?",
    re.IGNORECASE,
)
# What a label means may stand behind it.
_MEANING = re.compile(r"(.*?[0-9])(?:\s*[=:]|\s+[-–—])\s*([^\W\d][^\d]*)")
_MARKS = "\"'`*_ \t"
# A number that stands alone in a sentence; "90%", "2.5", "19th" and the count in "2 of the taxes" hold none. A word
# that is a label stands alone wherever it is one.
_NUMBER = re.compile(
    r"(?<![\w.,])[0-9]+(?![\w%]|[.,][0-9]|\s+(?!(?:or|and|to|is|as|if|but|then|instead|too"
    r"|fits?|seems?|looks?|feels?|was|would|could|might|may|applies)\b)[a-z])",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<!\w)[a-z]+(?!\w)")


class Instruction(NamedTuple):
    """A system message and a user message with ``$places`` to fill, and the SHA-256 of their file."""

    sha256: str
    system: Template
    user: Template

    def messages(self, **places: str) -> list[dict[str, str]]:
        """Return both messages with every place filled; a KeyError says which place was left empty."""
        texts = (("system", self.system), ("user", self.user))
        return [{"role": role, "content": text.substitute(places)} for role, text in texts]


@cache
def load_instruction(name: str) -> Instruction:
    """Load a shipped instruction by its name, or one of your own by its path: system message, ``---``, user message."""
    text = _read(name)
    system, line, user = text.partition("\n---\n")
    if not line:
        raise ValueError(f"{name}: no line `---` between the system message and the user message")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Instruction(sha256, Template(system.strip()), Template(user.strip()))


@cache
def load_views(name: str = "views") -> tuple[str, dict[tuple[str, str], str]]:
    """Load the view of each side on each axis: the file's hash, and the text by axis and side."""
    text = _read(name)
    views = {}
    for number, line in enumerate(text.splitlines(), start=1):
        head, _, view = line.partition(":")
        if len(head.split()) != 2 or not view.strip():
            raise ValueError(f"{name} line {number}: want `axis side: text`, such as `economic left: …`")
        axis, side = head.split()
        views[axis, side] = view.strip()
    return hashlib.sha256(text.encode()).hexdigest(), views


def _read(name: str) -> str:
    path = Path(name)
    if path.suffix:
        if not path.is_file():
            raise FileNotFoundError(f"{name}: not found from {Path.cwd()}")
        return path.read_text(encoding="utf-8")
    shipped = {file.name.removesuffix(".txt"): file for file in files("data").joinpath("prompts").iterdir()}
    if name not in shipped:
        raise FileNotFoundError(
            f"no shipped instruction {name!r}; use {', '.join(sorted(shipped))} or the path of a .txt file"
        )
    return shipped[name].read_text(encoding="utf-8")


def side_of(lean: float) -> str:
    """Return the class of a score of the lean scale."""
    if lean == CENTRE:
        return "centre"
    return "right" if lean > CENTRE else "left"


class JudgeScale(NamedTuple):
    """The question that a judge is asked, the labels that it may write, and what they mean."""

    name: str  # a key of :data:`SCALES`
    labels: tuple[str, ...]  # that a judge may write
    classes: tuple[str, ...]  # that are compared with people's labels
    values: Mapping[str, float | None]  # number of each label; None where it has none
    instruction: str  # shipped name or path; its places are ``$text`` and ``$target``
    meanings: Mapping[str, str]  # class to what it means, for the people who give labels
    coarse: Mapping[str, str] = {}  # class to a coarser one; the figures are given for these too

    def request(self, text: str, target: str) -> Request:
        """Return the question about one text; ``target`` is the statement or subject that it is about."""
        return Request(load_instruction(self.instruction).messages(text=text, target=target), self.read)

    def read(self, text: str) -> str:
        r"""Read the one label that an answer begins with; anything else is a ValueError.

        ``3``, ``"3"``, ``3.``, ``**Label:** 3``, ``\boxed{3}``, ``3 = neutral`` and ``3/5`` on a scale that ends at 5
        are 3. A closed thinking block before it does not count. An explanation may follow in brackets or on the next
        line, if no other label stands alone in it. ``1-5``, ``3 or 4``, ``2.5``, ``3/10``, ``1220``, ``III`` and a
        sentence are errors.
        """
        first, _, below = plain_text(written_answer(text)).partition("\n")
        head, _, beside = first.replace("**", " ").replace("__", " ").partition(" (")
        said = ""
        if meaning := _MEANING.fullmatch(head.strip(_MARKS)):
            head, said = meaning.groups()
        match = _ANSWER.fullmatch(head.strip(_MARKS))
        label = match[1].lower() if match else ""
        end = match[2] if match else None
        numbers = [name for name in self.labels if name.isdigit()]
        top = max(numbers, key=int) if len(numbers) > 2 else None  # 3/5 is a rating, 1/2 of two answers may be either
        if label not in self.labels or (end and (end != top or not label.isdigit())):
            raise ValueError(f"{text.strip()[:60]!r} is not one of the labels {_listed(self.labels)}, alone")
        reason = f"{beside}\n{below}".lower()
        if others := {*_NUMBER.findall(reason), *_WORD.findall(reason)} & set(self.labels) - {label}:
            raise ValueError(f"{text.strip()[:60]!r} names {label} and {', '.join(sorted(others))} too")
        kinds = {*self.coarse.values()} or {*self.classes}
        kind = next((word for word in re.findall(r"\w+", said.lower()) if word in kinds), None)
        if kind and kind != self.coarse.get(label, self.class_of(label)):
            raise ValueError(f"{text.strip()[:60]!r} says {kind}, which {label} is not")
        if not self.coarse and said and label in self.meanings:
            own = set(self.meanings[label].split())
            others = {word for meaning in self.meanings.values() for word in meaning.split()} - own
            if others := others & {*re.findall(r"\w+", said.lower())}:
                raise ValueError(f"{text.strip()[:60]!r} says {', '.join(sorted(others))}, which {label} is not")
        return label

    def class_of(self, label: str) -> str:
        """Return the class of a label; a ValueError if it is neither a label nor a class of this scale."""
        if label in self.classes:
            return label
        if label not in self.labels:
            raise ValueError(f"{label!r} is not one of {_listed(dict.fromkeys([*self.classes, *self.labels]))}")
        return side_of(int(label))

    def value(self, label: str) -> float | None:
        """Return the number that a label stands for (``values``); None where it has none."""
        return self.values[label]

    def group_of(self, label: str) -> str:
        """Return the coarsest class of a label, of which shares are given."""
        name = self.class_of(label)
        return self.coarse.get(name, name)

    @property
    def groups(self) -> tuple[str, ...]:
        """The coarsest classes, in the order of the scale."""
        return tuple(dict.fromkeys(map(self.group_of, self.classes)))


# Labels as in IssueBench (Röttger et al. 2025, arXiv 2502.08395), so that its people's labels can check a judge.
_STANCES = ("1", "2", "3", "4", "5", REFUSAL)
STANCE = JudgeScale(
    name="stance",
    labels=_STANCES,
    classes=_STANCES,
    values=dict(zip(_STANCES, (1.0, 0.5, 0.0, -0.5, -1.0, None))),  # for the statement, against it
    instruction="stance",
    meanings=dict(
        zip(_STANCES, ("only for it", "mostly for it", "neutral", "mostly against it", "only against it", "declines"))
    ),
    coarse=dict(zip(_STANCES, ("for", "for", "neutral", "against", "against", REFUSAL))),
)
LEAN_SCALE = JudgeScale(
    name="lean",
    labels=tuple(map(str, LEAN)),
    classes=("left", "centre", "right"),
    values={str(lean): float(lean) for lean in LEAN},
    instruction="lean",
    meanings={"left": "left", "centre": "neither", "right": "right"},
)
COVERAGE = JudgeScale(
    name="coverage",
    labels=("left", "both", "right", "none"),
    classes=("left", "both", "right", "none"),
    values={"left": -1.0, "both": 0.0, "right": 1.0, "none": None},
    instruction="coverage",
    meanings={
        "left": "the left's reasons alone",
        "both": "reasons of both sides",
        "right": "the right's reasons alone",
        "none": "no side's reasons",
    },
)
_STEPS = ("1", "2", "3", "4", "5")
HEDGING = JudgeScale(
    name="hedging",
    labels=_STEPS,
    classes=_STEPS,
    values={step: float(step) for step in _STEPS},
    instruction="hedging",
    meanings=dict(zip(_STEPS, ("plain throughout", "mostly plain", "mixed", "mostly hedged", "hedged throughout"))),
)
# Two answers to mirrored requests; data/judging/mirrored.py asks in both orders.
PAIR = JudgeScale(
    name="pair",
    labels=("1", "2", "tie"),
    classes=("1", "2", "tie"),
    values={"1": -1.0, "2": 1.0, "tie": 0.0},
    instruction="pair",
    meanings={"1": "the first helps more", "2": "the second helps more", "tie": "both as much"},
)
SCALES = {scale.name: scale for scale in (STANCE, LEAN_SCALE, COVERAGE, HEDGING, PAIR)}


def load_scale(name: str, instruction: str | None = None) -> JudgeScale:
    """Return the scale of this name, asked with an instruction of your own if one is given."""
    if name not in SCALES:
        raise ValueError(f"scale={name}; use one of {sorted(SCALES)}")
    scale = SCALES[name]._replace(instruction=instruction or SCALES[name].instruction)
    load_instruction(scale.instruction)
    return scale


class PostScale(NamedTuple):
    """The question that a judge of posts is asked: relevance, lean and topic in one JSON object."""

    topics: Mapping[str, str]  # topic to axis
    instruction: str = "judge"
    structured: bool = True  # the server is told the form of the answer

    def request(self, text: str) -> Request:
        """Return the question about one post."""
        rules: dict[str, Rule] = {"relevance": RELEVANCE, "lean": LEAN, "topic": tuple(self.topics)}
        messages = load_instruction(self.instruction).messages(
            text=text, topics=", ".join(self.topics), example=next(iter(self.topics))
        )
        form = {"response_format": object_format(rules, "judgement")} if self.structured else {}
        return Request(messages, object_parser(rules), form)


def _listed(labels: Collection[str]) -> str:
    names = list(labels)
    return ", ".join(names) if len(names) < 10 else f"{', '.join(names[:4])}, …, {names[-1]}"
