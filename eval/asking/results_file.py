# SPDX-License-Identifier: MIT
"""The files of a run: ``results.jsonl``, written as answers come, and ``settings.json``, which they belong to."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

KEY = ("model", "mode", "item", "template", "order", "labels", "sample")
# Settings that change no row: a run with others is scored anew from the answers that are there.
SCORING = ("n_bootstrap", "training_data", "judges")
# Of a respondent behind an address: how it is called, which changes no answer either.
CALLING = ("api_key_env", "max_concurrency", "timeout_s", "max_retries", "retry_wait_s", "stop_after")


class ResultsFile:
    """Rows of ``results.jsonl``; a killed run goes on behind its last whole row.

    Args:
        folder: ``output_dir``; made when the first thing is written.
        settings: What the rows depend on; compared with those of the run that wrote them.

    Raises:
        FileExistsError: If the folder holds rows of other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / "results.jsonl"
        self._settings_path = folder / "settings.json"
        self._settings = json.loads(json.dumps(settings))
        self.rows: list[dict[str, Any]] = []
        if not self.path.exists() or not self.path.stat().st_size:
            return
        there = _compared(json.loads(self._settings_path.read_text()) if self._settings_path.exists() else {})
        here = _compared(self._settings)
        changed = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
        if changed:
            raise FileExistsError(
                f"{self.path} holds results of other settings ({', '.join(changed)} differ); "
                "choose another output_dir, or delete that file"
            )

    def open(self) -> None:
        """Read what is there, cut off a row that was not written whole, and note the settings."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.rows = [json.loads(line) for line in whole.splitlines()]
        write_whole(self._settings_path, lambda path: path.write_text(json.dumps(self._settings, indent=1) + "\n"))
        self._file = self.path.open("ab")
        self._file.truncate(len(whole))
        self._known = {row_key(row) for row in self.rows}

    def has(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Return whether all of these rows are there, answered or not."""
        return all(row_key(row) in self._known for row in rows)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the rows that are not there yet, so that a kill loses none of them."""
        new = [row for row in rows if row_key(row) not in self._known]
        self._file.write("".join(json.dumps(row) + "\n" for row in new).encode())
        self._file.flush()
        self.rows += new
        self._known |= {row_key(row) for row in new}

    def close(self) -> None:
        """Close the file; more can be opened again."""
        os.fsync(self._file.fileno())
        self._file.close()


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that rows depend on."""
    entries = (settings.get("respondents") or {}).items()
    asked = {name: {key: x for key, x in entry.items() if key not in CALLING} for name, entry in entries}
    return {key: x for key, x in settings.items() if key not in SCORING} | {"respondents": asked}


def row_key(row: Mapping[str, Any]) -> tuple:
    """Return what tells a row from all others of a run."""
    return tuple(tuple(row[k]) if isinstance(row[k], list) else row[k] for k in KEY)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside and rename, so that a file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f"{path.name}.partial")
    write(staging)
    os.replace(staging, path)
