# SPDX-License-Identifier: MIT
"""Checkpoints of a run: complete or absent, and enough to go on bit for bit.

A checkpoint is a folder ``epoch_N`` or ``step_N`` in the output folder. torchtune's checkpointer writes
the adapter (PEFT format) into a staging folder; what it leaves out is added; everything is synced and the
folder is renamed into place. So a folder that has its final name is complete.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torchtune import training, utils

log = utils.get_logger("INFO")

STAGING = ".saving"
STATE_FILE = "recipe_state.pt"
PROGRESS_FILE = "progress.json"
_NAME = re.compile(r"^(epoch|step)_\d+$")


def sync_folder(folder: Path) -> None:
    """Flush a folder and its files to the disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_progress(folder: Path) -> dict[str, int]:
    """Return where a checkpoint stands: ``global_step, epoch, step, seed``."""
    return json.loads((folder / PROGRESS_FILE).read_text())


class RunCheckpoints:
    """The checkpoints in one output folder.

    Args:
        output_dir: The run's folder.
        keep_last_n: How many ``step_N`` folders to keep; ``epoch_N`` folders are never removed.
    """

    def __init__(self, output_dir: str | Path, keep_last_n: int) -> None:
        if keep_last_n < 1:
            raise ValueError(f"keep_last_n_checkpoints={keep_last_n}; use 1 or more")
        self.output_dir = Path(output_dir)
        self.staging = self.output_dir / STAGING
        self._keep_last_n = keep_last_n
        # Left by a kill in the middle of a save: never complete, so never used.
        shutil.rmtree(self.staging, ignore_errors=True)

    def found(self) -> list[tuple[int, Path]]:
        """Return the complete checkpoints as (global step, folder), oldest first."""
        checkpoints = []
        for path in self.output_dir.iterdir() if self.output_dir.is_dir() else []:
            if _NAME.match(path.name) and (path / PROGRESS_FILE).is_file():
                # After the last step of an epoch both may exist; the epoch's is the later one.
                checkpoints.append((read_progress(path)["global_step"], path.name.startswith("epoch"), path))
        return [(step, path) for step, _, path in sorted(checkpoints)]

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        found = self.found()
        return found[-1][1] if found else None

    def save(self, name: str, write_adapter, state: Mapping[str, Any], progress: Mapping[str, int]) -> Path:
        """Write a checkpoint under its final name, or leave nothing of that name.

        Args:
            name: ``epoch_N`` or ``step_N``.
            write_adapter: Called with the staging folder; must return the folder it wrote.
            state: Tensors and plain values that resuming needs (loaded with ``weights_only=True``).
            progress: ``global_step, epoch, step`` (steps done in this epoch), ``seed``.

        Returns:
            The checkpoint's folder.

        Raises:
            OSError: If it cannot be written; says so and which checkpoint is the newest complete one.
        """
        target = self.output_dir / name
        try:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir(parents=True)
            written = write_adapter(self.staging)
            torch.save(dict(state), written / STATE_FILE)
            (written / PROGRESS_FILE).write_text(json.dumps(dict(progress)) + "\n")
            sync_folder(written)
            if target.exists():  # a foreign or incomplete folder of that name: keep it, out of the way
                os.replace(target, target.with_name(f"{name}.replaced_{os.getpid()}"))
            os.replace(written, target)
            sync_folder_entry(self.output_dir)
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is each of them, by who writes
            newest = self.newest()
            raise OSError(
                f"checkpoint {target} could not be written ({error}). Mend that (a full disk: free some space) and "
                f"go on with resume_from_checkpoint=True from {newest or 'the beginning: no checkpoint yet'}"
            ) from error
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
        self._remove_old_steps()
        log.info(f"saved {target}")
        return target

    def _remove_old_steps(self) -> None:
        steps = [path for _, path in self.found() if path.name.startswith("step")]
        for path in steps[: -self._keep_last_n]:
            doomed = path.with_name(f".removing_{path.name}")
            os.replace(path, doomed)  # first out of sight, so that a kill leaves no half checkpoint
            shutil.rmtree(doomed)

    def load(self, folder: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
        """Load a checkpoint and refuse one that belongs to another run.

        Args:
            folder: A folder from :meth:`newest`.
            expected: What must be equal for the result to be the same (data, model, LoRA, batch, seed).

        Returns:
            The saved state, with ``adapter`` (torchtune names) and the progress keys beside it.

        Raises:
            ValueError: If something differs or the files are damaged; lists what.
        """
        try:
            state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
            adapter = torch.load(folder / "adapter_model.pt", map_location="cpu", weights_only=True)
            saved = state["expected"]
        except Exception as error:  # torch.load raises many kinds
            raise ValueError(
                f"{folder} cannot be loaded ({type(error).__name__}: {error}); move it away and resume from "
                "an older checkpoint, or start again in another output_dir"
            ) from error
        differences = [
            f"{key}: checkpoint {saved.get(key)!r}, config {value!r}"
            for key, value in expected.items()
            if saved.get(key) != value
        ]
        if differences:
            raise ValueError(
                f"{folder} was made by another run:\n  - "
                + "\n  - ".join(differences)
                + "\nUse the config it was made with, or another output_dir"
            )
        return state | {training.ADAPTER_KEY: adapter}


def sync_folder_entry(folder: Path) -> None:
    """Flush a folder's list of names, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
