# SPDX-License-Identifier: MIT
"""The prompts of the modes ``dialogue`` and ``identity``: a pair's two statements, and a user who takes a side.

The script is the same for a user of the left and one of the right, so that what one of them changes and the other does
not is a lean, and what both change towards themselves is following. A user takes a side by agreeing with one statement
or by disagreeing with the other, so that a model that merely repeats what was quoted follows nobody.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from data.pairs.formats import half_pair
from eval.statements.importers import find_file, read_yaml
from eval.statements.instruments import Instrument, Pair
from eval.statements.prompts import LABELS, Prompt, answer_texts, first, instrument_row, placeholders_of

DIALOGUE, IDENTITY = "dialogue", "identity"
SIDES = ("left", "right")
AGREES = "agrees"  # the user who takes no side
# The turns of a dialogue that are read: before anybody has taken a side, and after each turn of the user.
OPENING, TURNS = "opening", ("argues", "insists", "thanks")
PLACEBO = "placebo"
KINDS = ("party", "demographic", PLACEBO)
_PLACEHOLDERS = {"opening": "options", "ask": "label", "for": "statement", "against": "statement", "about": "cue"}
_NAMES = {*_PLACEHOLDERS.values()}
_PLAIN = (AGREES, "insists", "thanks")
_N_REPLIES = len(TURNS)
_SHOWN = 3  # pairs that a message names


class Cue(NamedTuple):
    """What a user says about himself or herself, in two mirrored sentences."""

    id: str
    kind: str
    left: str
    right: str


class Dialogues(NamedTuple):
    """The scripts and the cues of one language; of a script, its texts by the name of their turn."""

    version: str
    language: str
    sha256: str
    scripts: tuple[Mapping[str, Any], ...]
    cues: tuple[Cue, ...]


def load_dialogues(scripts: str) -> Dialogues:
    """Load scripts and cues.

    Args:
        scripts: Name of a shipped language (``en``) or path of a file of that form.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If the file breaks a rule; lists every fault.
    """
    file = find_file("scripts", scripts, "dialogues")
    content = file.read_bytes()
    raw = read_yaml(str(file), content)
    fields, sections = {*Dialogues._fields} - {"sha256"}, ("scripts", "cues")
    if not isinstance(raw, dict) or set(raw) != fields or not all(isinstance(raw[name], list) for name in sections):
        raise ValueError(f"{file}: the fields must be {sorted(fields)}, scripts and cues a list each")
    faults = [fault for entry in raw["scripts"] for fault in _script_faults(entry)]
    faults += [fault for entry in raw["cues"] for fault in _cue_faults(entry)]
    for section in sections:
        ids = [entry.get("id") for entry in raw[section] if isinstance(entry, dict)]
        faults += [f"{section}: the id {name} is there twice" for k, name in enumerate(ids) if name in ids[:k]]
    if not any(isinstance(entry, dict) and entry.get("kind") == PLACEBO for entry in raw["cues"]):
        faults.append(f"cues: none of kind {PLACEBO}, from which the others are told; give one")
    if faults:
        raise ValueError("\n  ".join([f"{file}: {len(faults)} fault(s)", *faults]))
    cues = tuple(Cue(**entry) for entry in raw["cues"])
    sha256 = hashlib.sha256(content).hexdigest()
    return Dialogues(str(raw["version"]), raw["language"], sha256, tuple(raw["scripts"]), cues)


def _script_faults(entry: Any) -> list[str]:
    if fault := _field_fault("script", entry, {"id", *_PLACEHOLDERS, *_PLAIN, "replies"}):
        return [fault]
    where = f"script {entry['id']}"
    faults = _text_faults(f"{where}: id", entry["id"], ())
    for name in (*_PLACEHOLDERS, *_PLAIN):
        wanted = (_PLACEHOLDERS[name],) if name in _PLACEHOLDERS else ()
        faults += _text_faults(f"{where}: {name}", entry[name], wanted)
    replies = entry["replies"]
    if not isinstance(replies, list) or len(replies) != _N_REPLIES:
        return [*faults, f"{where}: replies is {replies!r}; give a list of {_N_REPLIES} texts"]
    return faults + [fault for text in replies for fault in _text_faults(f"{where}: replies", text, ())]


def _cue_faults(entry: Any) -> list[str]:
    if fault := _field_fault("cue", entry, {*Cue._fields}):
        return [fault]
    faults = [fault for key in ("id", *SIDES) for fault in _text_faults(f"cue {entry['id']}: {key}", entry[key], ())]
    if entry["kind"] not in KINDS:
        faults.append(f"cue {entry['id']}: kind {entry['kind']!r}; use one of {list(KINDS)}")
    return faults


def _field_fault(kind: str, entry: Any, fields: set[str]) -> str | None:
    if not isinstance(entry, dict):
        return f"a {kind} is {entry!r}; give a mapping with {sorted(fields)}"
    if set(entry) != fields:
        lacks, extra = sorted(fields - set(entry)), sorted(map(str, set(entry) - fields))
        return f"{kind} {entry.get('id')}: lacks {lacks}, does not know {extra}"
    return None


def _text_faults(where: str, text: Any, wanted: tuple[str, ...]) -> list[str]:
    if not isinstance(text, str) or not text.strip():
        return [f"{where} is {text!r}; give a text, in quotes"]
    if half := half_pair(text):
        return [f"{where} has half of a surrogate pair ({half}); write the sign whole"]
    try:  # what has no placeholder is said as it stands, so a brace is a brace
        found = placeholders_of(text) if wanted else tuple(n for n in sorted(_NAMES) if f"{{{n}}}" in text)
    except ValueError as error:
        return [f"{where}: {error}; write a brace of the text twice"]
    said = f"{{{wanted[0]}}} once" if wanted else "none"
    return [] if found == wanted else [f"{where} has the placeholders {list(found)}; use {said}"]


class Frame(NamedTuple):
    """A pair in a script, before a user has said anything."""

    pair: Pair
    script: Mapping[str, Any]
    order: list[int]  # which statement is shown first
    labels: str
    opening: str
    ask: str
    answers: tuple[str, ...]  # left and right, as they are to be said


def frames(
    instrument: Instrument, dialogues: Dialogues, n_scripts: int | None, labels: Sequence[str], names: Mapping[str, str]
) -> Iterator[Frame]:
    """Yield every political pair in the first scripts under each label set; the statement shown first takes turns.

    Raises:
        ValueError: If there are fewer scripts, no political pair, or one that has a prompt of its own.
    """
    political = instrument.political_pairs
    by_id = {script["id"]: script for script in dialogues.scripts}
    scripts = first("n_scripts", by_id, len(by_id) if n_scripts is None else n_scripts).values()
    if not political:
        raise ValueError(f"{instrument.name} has no political pair for the modes {DIALOGUE} and {IDENTITY}")
    if own := [pair.id for pair in political if pair.prompt]:
        named = ", ".join(own[:_SHOWN]) + (f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else "")
        raise ValueError(
            f"{instrument.name}: pairs with a prompt of their own ({named}) are asked by it alone, "
            f"not in the modes {DIALOGUE} and {IDENTITY}; leave their prompt out, or use modes=[pairs]"
        )
    for (k, pair), (t, script), kind in itertools.product(enumerate(political), enumerate(scripts), labels):
        order = [0, 1] if (k + t) % 2 == 0 else [1, 0]
        said = (pair.left, pair.right)
        texts = answer_texts(kind, labels, said)
        shown = [said[o] if kind not in LABELS else f"{text}. {said[o]}" for text, o in zip(texts, order)]
        answers = tuple(texts[order.index(o)] for o in range(2)) if kind in LABELS else said
        opening = script["opening"].format(options="\n".join(shown))
        yield Frame(pair, script, order, kind, opening, script["ask"].format(label=names[kind]), answers)


def dialogue_prompts(instrument: Instrument, of: Sequence[Frame]) -> list[Prompt]:
    """Ask after every turn of five users: two of either side, and one who agrees with whatever was said.

    What the assistant says in between is the script's, the same for all, and takes no side.
    """
    prompts = []
    for frame in of:
        prompts.append(_prompt(instrument, DIALOGUE, frame, OPENING, frame.opening))
        script, pair = frame.script, frame.pair
        users = {
            ("left", "own"): script["for"].format(statement=pair.left),
            ("left", "other"): script["against"].format(statement=pair.right),
            ("right", "own"): script["for"].format(statement=pair.right),
            ("right", "other"): script["against"].format(statement=pair.left),
            (AGREES, None): script[AGREES],
        }
        for (user, quoted), argued in users.items():
            before = [frame.opening, script["replies"][0]]
            name = user if quoted is None else f"{user}-{quoted}"
            turns = zip(TURNS, (argued, script["insists"], script["thanks"]), (*script["replies"][1:], ""))
            for turn, said, reply in turns:
                about = {"user": user, "quoted": quoted, "turn": turn}
                prompts.append(_prompt(instrument, DIALOGUE, frame, f"{name}/{turn}", said, tuple(before), about))
                before += [said, reply]
    return prompts


def identity_prompts(instrument: Instrument, of: Sequence[Frame], cues: Sequence[Cue]) -> list[Prompt]:
    """Ask once without a cue, and once for each cue and side."""
    prompts = []
    for frame in of:
        prompts.append(_prompt(instrument, IDENTITY, frame, "none", frame.opening))
        for cue, side in itertools.product(cues, SIDES):
            text = f"{frame.opening}\n{frame.script['about'].format(cue=getattr(cue, side))}"
            about = {"user": side, "cue": cue.id, "kind": cue.kind}
            prompts.append(_prompt(instrument, IDENTITY, frame, f"{cue.id}-{side}", text, about=about))
    return prompts


def _prompt(
    instrument: Instrument,
    mode: str,
    frame: Frame,
    name: str,
    said: str,
    before: tuple[str, ...] = (),
    about: Mapping[str, Any] = MappingProxyType({}),
) -> Prompt:
    text, script = f"{said}\n{frame.ask}", frame.script["id"]
    row = instrument_row(
        instrument,
        mode,
        frame.pair.id,
        f"{script}/{name}",
        "\n\n".join((*before, text)),
        order=frame.order,
        labels=frame.labels,
        **{"script": script, "turn": OPENING, **dict.fromkeys(("user", "quoted", "cue", "kind")), **about},
    )
    return Prompt(row, text, frame.answers, before=before)
