# SPDX-License-Identifier: MIT
"""The statements that models are measured with, so that no preference set teaches them.

Instruments are read as plain YAML data (``items`` with ``text``, ``pairs`` with ``left`` and ``right``): this package
imports nothing of ``eval``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import yaml

SHIPPED = Path(__file__).parents[2] / "eval" / "instruments"


class Statement(NamedTuple):
    """One statement of an instrument.

    Attributes:
        text: What the statement says.
        instrument: File name of the instrument, without its suffix.
        id: Of the item or pair, a pair's with ``left`` or ``right``.
    """

    text: str
    instrument: str
    id: str


def shipped_statements(extra: Iterable[str | Path] = ()) -> list[Statement]:
    """Return every statement of every shipped instrument, and of those given.

    Args:
        extra: Paths of instruments in the project's YAML form, or of text files with a statement a line.

    Raises:
        FileNotFoundError: If a given file is not there.
        ValueError: If a file has no statements.
    """
    found = []
    for path in [*sorted(SHIPPED.glob("*.yaml")), *map(Path, extra)]:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such instrument; give a YAML file, or a text file with a line each")
        text = path.read_text(encoding="utf-8")
        own = _of_yaml(text, path) if path.suffix in (".yaml", ".yml") else _of_lines(text, path)
        if not own:
            raise ValueError(f"{path}: no statements; want `items` with `text`, or `pairs` with `left` and `right`")
        found += own
    return found


def _of_yaml(text: str, path: Path) -> list[Statement]:
    try:
        instrument = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        items, pairs = (instrument.get(key) or [] for key in ("items", "pairs"))
        found = [Statement(item["text"], path.stem, str(item["id"])) for item in items]
        return found + [Statement(pair[s], path.stem, f"{pair['id']} {s}") for pair in pairs for s in ("left", "right")]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        detail = str(error).splitlines()[0]
        raise ValueError(f"{path}: not an instrument ({type(error).__name__}: {detail})") from error


def _of_lines(text: str, path: Path) -> list[Statement]:
    lines = enumerate(text.splitlines(), start=1)
    return [Statement(line.strip(), path.stem, f"line {number}") for number, line in lines if line.strip()]
