# SPDX-License-Identifier: MIT
"""The prompts by which side effects are measured: adversarial requests, and neutral text.

Requests are answered in writing (mode ``open``); a line of neutral text is scored by its log-probability (mode
``neutral``), outside the chat template.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from data.pairs.formats import half_pair
from data.pairs.records import OTHER_SIDE
from data.recipe.files import load_yaml
from eval.statements.importers import find_file
from eval.statements.prompts import Prompt, prompt_row

OPEN, NEUTRAL, TASK = "open", "neutral", "task"  # the modes of rows
FIELDS = {"id", "kind", "side", "expect", "text"}
TWIN_SIDE: dict[str, str | None] = {**OTHER_SIDE, "neutral": None}
EXPECT = ("decline", "answer")
# A line is one unit of the interval, and one sequence of the model.
MOST_WORDS = 200


class SidePrompts(NamedTuple):
    """Prompts of one file, and what tells it from others."""

    prompts: list[Prompt]
    about: dict[str, Any]


def load_adversarial(name: str) -> SidePrompts:
    """Load adversarial requests from a shipped file (``en``) or a path; ValueError lists every fault of the file.

    Each row has its ``kind``, ``side``, ``expect`` and ``twin``.
    """
    path = find_file("adversarial", name, "adversarial")
    content = path.read_bytes()
    try:
        raw = load_yaml(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: no YAML: {error}") from error
    if not isinstance(raw, dict) or not {"name", "version", "prompts"} <= set(raw) or not raw["prompts"]:
        raise ValueError(f"{path}: it must have name, version and prompts; see eval/adversarial/en.yaml")
    if not all(isinstance(entry, dict) for entry in raw["prompts"]):
        raise ValueError(f"{path}: every prompt is a mapping with the fields {sorted(FIELDS)}")
    entries = {str(entry.get("id")): entry for entry in raw["prompts"]}
    faults = [] if len(entries) == len(raw["prompts"]) else ["two prompts have the same id"]
    faults += [f"{key}: {fault}" for key in entries if (fault := _find_fault(key, entries))]
    if faults:
        raise ValueError(f"{path} was refused:\n  - " + "\n  - ".join(faults))
    prompts = [
        _prompt(OPEN, key, e["text"], kind=e["kind"], side=e["side"], expect=e["expect"], twin=e.get("twin"))
        for key, e in entries.items()
    ]
    return SidePrompts(prompts, {"name": raw["name"], "version": str(raw["version"]), **_count(content, prompts)})


def _find_fault(key: str, entries: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the first rule that an entry breaks."""
    entry = entries[key]
    if not FIELDS <= set(entry) <= FIELDS | {"twin"}:
        return f"the fields are {sorted(FIELDS)}, and twin where the subject is political"
    if entry["side"] not in TWIN_SIDE or entry["expect"] not in EXPECT:
        return f"side is one of {list(TWIN_SIDE)}, expect one of {list(EXPECT)}"
    if not isinstance(entry["text"], str) or not entry["text"].strip():
        return "text is empty or no text"
    if half := half_pair(entry["text"]):
        return f"text has half of a surrogate pair ({half}); write the sign whole"
    if (side := TWIN_SIDE[entry["side"]]) is None:
        return None
    twin = entries.get(str(entry.get("twin")), {})
    wanted = {"side": side, "kind": entry["kind"], "expect": entry["expect"]}
    is_twin = str(twin.get("twin")) == key and all(twin.get(field) == value for field, value in wanted.items())
    return None if is_twin else "a request of one side needs a twin of the other, of its kind, that names it back"


def load_neutral(name: str) -> SidePrompts:
    """Load a neutral text from a shipped file (``en``) or a path, a prompt for every line that is not empty.

    ValueError says if it has fewer than two lines, two alike, or a line of more than ``MOST_WORDS`` words.
    """
    path = find_file("neutral_text", name, "neutral", ".txt")
    content = path.read_bytes()
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    if len(lines) < 2 or len(set(lines)) < len(lines):
        raise ValueError(f"{path}: {len(lines)} lines, {len(set(lines))} different; use two or more, no line twice")
    if long := [n for n, line in enumerate(lines, start=1) if len(line.split()) > MOST_WORDS]:
        raise ValueError(
            f"{path}: lines {long[:5]} (empty ones not counted) have over {MOST_WORDS} words; break them where a "
            "paragraph or sentence ends: a line is one sequence, and the unit of the interval"
        )
    prompts = [_prompt(NEUTRAL, f"line-{n}", None, (line,)) for n, line in enumerate(lines, start=1)]
    return SidePrompts(prompts, {"name": Path(name).stem, **_count(content, prompts)})


def _count(content: bytes, prompts: list[Prompt]) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "n": len(prompts)}


def _prompt(mode: str, item: str, text: str | None, answers: tuple[str, ...] = (), **about: Any) -> Prompt:
    return Prompt(prompt_row(mode, item, "as it is", text or answers[0], **about), text, answers)
