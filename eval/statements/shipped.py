# SPDX-License-Identifier: MIT
"""Files that come with the project by their name, others by their path."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def find_file(key: str, name: str, folder: str, suffix: str = ".yaml") -> Traversable:
    """Return the shipped file of a name, or the file at a path.

    Args:
        key: What the config calls it, for the message.
        name: Name without suffix, or path.
        folder: Of the shipped ones, in ``eval``.
        suffix: Of the shipped ones.

    Raises:
        FileNotFoundError: If there is neither; names the shipped ones.
    """
    shipped = resources.files("eval") / folder
    for file in (shipped / f"{name}{suffix}", Path(name)):
        if file.is_file():
            return file
    names = sorted(f.name.removesuffix(suffix) for f in shipped.iterdir() if f.name.endswith(suffix))
    raise FileNotFoundError(f"{key}={name}: no such file; give a path or one of {names}")
