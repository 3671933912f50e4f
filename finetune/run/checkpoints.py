# SPDX-License-Identifier: MIT
"""Checkpoints of a run: complete or absent, and enough to go on bit for bit; and the signals that ask for one.

A checkpoint is a folder ``epoch_N`` or ``step_N`` in the output folder. It is written in a staging folder, synced and
renamed into place. So a folder that has its final name is complete.
"""

import ast
import json
import logging
import os
import re
import shutil
import signal
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchtune import training, utils
from torchtune.training.precision import PRECISION_STR_TO_DTYPE

from data.recipe.files import changed_settings, lock
from finetune.run.policy import Policy
from finetune.run.processes import Processes

_log = utils.get_logger()  # of the recipe, which sets its level

STAGING = ".saving"
STATE_FILE = "recipe_state.pt"
PROGRESS_FILE = "progress.json"
# Settings whose change would change the result.
DECIDING = (
    "model", "loss", "optimizer", "lr_scheduler", "clip_grad_norm", "max_tokens_per_forward", "compile", "device",
)  # fmt: skip
_NAME = re.compile(r"^(epoch|step)_\d+$")


def _sync(*paths: Path) -> None:
    """Flush files, and the lists of names of folders, to the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing below a warning be logged; torchtune's checkpointer has our recipes' logger."""
    level = _log.level
    _log.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        _log.setLevel(level)


def read_progress(folder: Path) -> dict[str, int]:
    """Return where a checkpoint stands: ``global_step, epoch, step, seed``."""
    return json.loads((folder / PROGRESS_FILE).read_text())


class RunCheckpoints:
    """The checkpoints in one output folder; the last ``step_N`` folders are kept, and all ``epoch_N`` folders.

    The process that ``writes`` has the folder for itself until ``release``; RuntimeError if another run has it.
    """

    def __init__(self, output_dir: str | Path, keep_last_n: int, writes: bool = True) -> None:
        self._output_dir, self._keep_last_n = Path(output_dir), keep_last_n
        self.staging = self._output_dir / STAGING
        self.release: Callable[[], Any] = lambda: None
        if not writes:
            return
        self._output_dir.mkdir(parents=True, exist_ok=True)
        # the folder itself, so that no file is left; the lock ends with the process, however that ends
        folder = os.open(self._output_dir, os.O_RDONLY)
        self.release = weakref.finalize(self, os.close, folder)
        try:
            lock(folder)
        except BlockingIOError as error:
            raise RuntimeError(
                f"{self._output_dir}: another training is running in it; wait for its end, or use another output_dir"
            ) from error
        # Left by a kill in the middle of a save: never complete, so never used.
        shutil.rmtree(self.staging, ignore_errors=True)

    def complete(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        folders = self._output_dir.iterdir() if self._output_dir.is_dir() else ()
        complete = [path for path in folders if _NAME.match(path.name) and (path / PROGRESS_FILE).is_file()]
        # After the last step of an epoch both may exist; the epoch's is the later one.
        return sorted(complete, key=lambda path: (read_progress(path)["global_step"], path.name.startswith("epoch")))

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        return next(reversed(self.complete()), None)

    def save(
        self, name: str, write_adapter: Callable[[Path], Path], state: Mapping[str, Any], progress: Mapping[str, int]
    ) -> Path:
        """Write a checkpoint under its final name and return its folder, or leave nothing of that name.

        ``write_adapter`` is called with the staging folder and returns the folder that it wrote. ``state`` is tensors
        and plain values, ``progress`` the four numbers of :func:`read_progress`.
        """
        target = self._output_dir / name
        try:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir(parents=True)
            with _quiet():  # torchtune says where the staging folder is, and that an adapter must be merged
                written = write_adapter(self.staging)
            torch.save(dict(state), written / STATE_FILE)
            (written / PROGRESS_FILE).write_text(json.dumps(dict(progress)) + "\n")
            _sync(*written.rglob("*"), written)
            if target.exists():  # a foreign or incomplete folder of that name: keep it, out of the way
                os.replace(target, target.with_name(f"{name}.replaced_{os.getpid()}"))
            os.replace(written, target)
            _sync(self._output_dir)  # so that the rename survives a power cut
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is each of them, by who writes
            raise OSError(
                f"checkpoint {target} could not be written ({error}). Mend that (a full disk: free some space) and "
                f"go on with resume_from_checkpoint=True from {self.newest() or 'the beginning: no checkpoint yet'}"
            ) from error
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
        self._remove_old_steps()
        return target

    def _remove_old_steps(self) -> None:
        steps = [path for path in self.complete() if path.name.startswith("step")]
        for path in steps[: -self._keep_last_n]:
            doomed = path.with_name(f".removing_{path.name}")
            os.replace(path, doomed)  # first out of sight, so that a kill leaves no half checkpoint
            shutil.rmtree(doomed)

    def load(self, folder: Path, expected: Mapping[str, Any], ignored: Collection[str] = ()) -> dict[str, Any]:
        """Load a checkpoint's state, ``adapter`` beside it; refuse one that is damaged, or of another run.

        ``expected`` must be equal for the result to be the same: data, model, LoRA, batch, seed; but for the
        ``ignored`` keys.
        """
        state = self.read(folder)
        saved = {key: _as_value(value) if key in DECIDING else value for key, value in state["expected"].items()}
        if changed := changed_settings(saved, expected, ignored):
            differences = [f"{key}: checkpoint {saved.get(key)!r}, config {expected.get(key)!r}" for key in changed]
            remedy = "Use the config it was made with, or another output_dir"
            if "epochs" in changed:
                remedy = (
                    "lr_scheduler plans the learning rate of every step over all epochs, so a run cannot be made "
                    f"longer or shorter later. Start again with epochs={expected['epochs']} in another output_dir"
                )
            raise ValueError(f"{folder} was made by another run:\n  - " + "\n  - ".join(differences) + f"\n{remedy}")
        return state

    def recorded_dtype(self, folder: Path) -> str:
        """Return the dtype that a checkpoint's run computes in, as a config names it."""
        recorded = self.read(folder)["expected"]["dtype"]
        return next(name for name, dtype in PRECISION_STR_TO_DTYPE.items() if str(dtype) == recorded)

    def read(self, folder: Path) -> dict[str, Any]:
        """Return a checkpoint's state, ``adapter`` beside it, whatever run it is of."""
        try:
            state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
            # that of a transformers decoder is in the state, under the names that it has in training
            adapter = state.pop(training.ADAPTER_KEY, None)
            if adapter is None:
                adapter = torch.load(folder / "adapter_model.pt", map_location="cpu", weights_only=True)
            state["expected"]["dtype"]
        except Exception as error:  # torch.load raises many kinds
            raise ValueError(
                f"{folder} cannot be loaded: {STATE_FILE} or adapter_model.pt is damaged ({type(error).__name__}: "
                f"{str(error).partition('. ')[0]:.200}); move the folder away and resume from "
                "an older checkpoint, or start again in another output_dir"
            ) from error
        return state | {training.ADAPTER_KEY: adapter}


def _as_value(saved: Any) -> Any:
    """Return a setting of a checkpoint; those of before December 2026 hold it as Python's text of it."""
    try:
        return ast.literal_eval(saved) if isinstance(saved, str) else saved
    except (ValueError, SyntaxError):  # a text that is meant as one
        return saved


class RunState(NamedTuple):
    """The moving parts of a run beside its adapter; every process must call the same methods."""

    policy: Policy
    optimizer: Optimizer
    lr_scheduler: LRScheduler | None
    processes: Processes

    def capture(self) -> dict[str, Any]:
        """Return whole tensors on the CPU and plain values, the generators of every process among them."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        device = self.processes.device
        device_rng = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        state = {
            "optimizer": get_optimizer_state_dict(self.policy, self.optimizer, options=options),
            "rng": self.processes.gather((torch.get_rng_state(), device_rng)),
        }
        if self.lr_scheduler is not None:
            state["lr_scheduler"] = self.lr_scheduler.state_dict()
        return state

    def restore(self, state: Mapping[str, Any], has_dropout: bool) -> None:
        """Put back the values of :meth:`capture`, also with another number of processes.

        ``has_dropout`` says whether generators that cannot be put back are worth a warning.
        """
        n, device = self.processes.n, self.processes.device
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=n > 1)
        set_optimizer_state_dict(self.policy, self.optimizer, optim_state_dict=state["optimizer"], options=options)
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if len(state["rng"]) == n:
            rng, device_rng = state["rng"][self.processes.rank]
            torch.set_rng_state(rng)
            if device.type == "cuda":
                torch.cuda.set_rng_state(device_rng, device)
        elif has_dropout:
            _log.warning(
                f"saved by {len(state['rng'])} processes, resumed by {n}: dropout draws anew, so the run goes on "
                "validly, but not as it would have"
            )


class StopRequest:
    """Context manager that turns SIGTERM and Ctrl-C into a request, which the training loop answers at the next step.

    ``signal`` is the first signal received inside it, or None. A second one acts at once, as the user then expects, and
    says what ``newest`` returns, the checkpoint that is left.
    """

    def __init__(self, newest: Callable[[], Path | None]) -> None:
        self.signal: signal.Signals | None = None
        self._newest = newest

    def __enter__(self) -> "StopRequest":
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt(
                f"stopped at once; newest complete checkpoint: {self._newest() or 'none'}; the same command with "
                "resume_from_checkpoint=True goes on"
            )
        self.signal = signal.Signals(number)
        _log.warning(f"{self.signal.name} received: saving after this step (again to stop at once)")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
