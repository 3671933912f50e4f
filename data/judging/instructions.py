# SPDX-License-Identifier: MIT
"""Instructions to models, as text files that are named by their hash in every row they helped to make."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple


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
    """Load a shipped instruction by its name, or one of your own by its path.

    The file holds the system message, a line ``---`` and the user message.
    """
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
