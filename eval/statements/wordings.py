# SPDX-License-Identifier: MIT
"""Wordings: the templates of one language in which an instrument is put to a model."""

import hashlib
import string
from typing import NamedTuple

import yaml

from eval.statements.shipped import find_file

LABEL_SETS = ("digits", "letters", "words")
_OPTIONS = ("label", "options", "statement")
# What each text of a section holds, once; a section of texts that are used as they are holds nothing.
PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    "choice": _OPTIONS,
    "pairs": (),
    "generate": _OPTIONS,
    "open": ("statement",),
    "open_prompts": (),
}
OPTIONAL = ("generate", "open", "open_prompts")


class Templates(NamedTuple):
    """Wordings of one language; from ``choice`` on, fields map a template's id to its text."""

    version: str
    language: str
    sha256: str
    label: dict[str, str]
    choice: dict[str, str]
    pairs: dict[str, str | None]
    generate: dict[str, str]
    open: dict[str, str]
    open_prompts: dict[str, str]


def load_templates(templates: str) -> Templates:
    """Load the wordings of a language.

    Args:
        templates: Name of a shipped language (``en``) or path of a file of that form.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If a template lacks a placeholder, repeats one or has another one.
    """
    file = find_file("templates", templates, "templates")
    content = file.read_bytes()
    raw = yaml.safe_load(content)
    wanted = set(Templates._fields) - {"sha256"}
    fields = set(raw) if isinstance(raw, dict) else set()
    if not wanted - set(OPTIONAL) <= fields <= wanted or set(raw["label"]) != set(LABEL_SETS):
        raise ValueError(
            f"{file}: the fields must be {sorted(wanted)} ({', '.join(OPTIONAL)} may be left out), "
            f"those of label {LABEL_SETS}"
        )
    texts = {}
    for section, placeholders in PLACEHOLDERS.items():
        texts[section] = {template["id"]: template["text"] for template in raw.get(section, [])}
        for name, text in texts[section].items() if placeholders else ():
            found = tuple(sorted(n for _, n, _, _ in string.Formatter().parse(text) if n is not None))
            if found != placeholders:
                raise ValueError(
                    f"{file}: template {name} has the placeholders {list(found)}; use each of {placeholders} once"
                )
    return Templates(raw["version"], raw["language"], hashlib.sha256(content).hexdigest(), raw["label"], **texts)
