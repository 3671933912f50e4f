# SPDX-License-Identifier: MIT
"""Wordings: the templates of one language in which an instrument is put to a model."""

import hashlib
import string
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import yaml

LABEL_SETS = ("digits", "letters", "words")
PLACEHOLDERS = ("label", "options", "statement")


class Templates(NamedTuple):
    """Wordings of one language; ``choice`` and ``pairs`` map a template's id to its text."""

    version: str
    language: str
    label: dict[str, str]
    choice: dict[str, str]
    pairs: dict[str, str | None]
    sha256: str


def load_templates(templates: str) -> Templates:
    """Load the wordings of a language.

    Args:
        templates: Name of a shipped language (``en``) or path of a file of that form.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If a template lacks a placeholder, repeats one or has another one.
    """
    shipped = resources.files("eval") / "templates"
    file = shipped / f"{templates}.yaml"
    if not file.is_file():
        file = Path(templates)
    if not file.is_file():
        names = sorted(f.name.removesuffix(".yaml") for f in shipped.iterdir())
        raise FileNotFoundError(f"templates={templates}: no such file; give a path or one of {names}")
    content = file.read_bytes()
    raw = yaml.safe_load(content)
    wanted = set(Templates._fields) - {"sha256"}
    if not isinstance(raw, dict) or set(raw) != wanted or set(raw["label"]) != set(LABEL_SETS):
        raise ValueError(f"{file}: the fields must be {sorted(wanted)}, those of label {LABEL_SETS}")
    for template in raw["choice"]:
        found = sorted(name for _, name, _, _ in string.Formatter().parse(template["text"]) if name is not None)
        if found != list(PLACEHOLDERS):
            raise ValueError(
                f"{file}: template {template['id']} has the placeholders {found}; use each of {PLACEHOLDERS} once"
            )
    texts = {mode: {t["id"]: t["text"] for t in raw.pop(mode)} for mode in ("choice", "pairs")}
    return Templates(**raw, **texts, sha256=hashlib.sha256(content).hexdigest())
