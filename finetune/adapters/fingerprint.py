# SPDX-License-Identifier: MIT
"""What tells the model, adapter or tokenizer in one folder from those in another."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

END = 1 << 20
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
# The same weights are another model under another rank, alpha or rotary base.
SETTINGS = ("adapter_config.json", "config.json")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab.*", "merges.txt", "added_tokens.json")


def fingerprint(folder: str | Path) -> str:
    """Return a SHA-256 over the weights and settings of a folder: names, sizes, first and last mebibyte of every file.

    Not the whole of it, because reading 16 GB takes a minute; an edit in the middle that keeps the size is missed.
    """
    paths = Path(folder).iterdir()
    return _digest(path for path in paths if path.suffix in WEIGHTS or path.name in SETTINGS)


def tokenizer_fingerprint(path: str | Path | None) -> str | None:
    """Return a SHA-256 over a tokenizer's files, the chat template among them, as :func:`fingerprint` does.

    Args:
        path: Its folder, or one file of it; None, or what is not there, gives None.
    """
    folder = Path(path) if path else None
    if folder is not None and folder.is_file():
        return _digest([folder])
    if folder is None or not folder.is_dir():
        return None
    return _digest({found for pattern in TOKENIZER for found in folder.glob(pattern) if found.is_file()})


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(END))
            file.seek(max(0, size - END))
            digest.update(file.read(END))
    return digest.hexdigest()
