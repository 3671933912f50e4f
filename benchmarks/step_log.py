# SPDX-License-Identifier: MIT
"""One JSON line an optimizer step, written by whichever trainer runs; imports no torch.

Times are ``time.monotonic()``, which all processes of a machine share. Beside them stand the process's own CPU seconds:
what else a machine does counts less there.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


def write_event(log_file: str | Path, **values: Any) -> None:
    """Append ``values`` and the time as one line."""
    line = json.dumps({"time": time.monotonic(), "cpu": time.process_time(), **values})
    with open(log_file, "a", encoding="utf-8") as file:
        file.write(line + "\n")


class StepLog:
    """A torchtune metric logger: every metric of every step, with its time.

    Named by YAML (``metric_logger=benchmarks.step_log.StepLog``), so no recipe is changed to be measured.

    Args:
        log_file: JSON lines, appended to.
    """

    def __init__(self, log_file: str) -> None:
        self._log_file = log_file

    def log_config(self, config: Any) -> None:
        """Leave the config out: the benchmark keeps its own settings."""

    def log(self, name: str, data: Any, step: int) -> None:
        """Write one metric."""
        self.log_dict({name: data}, step)

    def log_dict(self, payload: Mapping[str, Any], step: int) -> None:
        """Write the metrics of a step."""
        write_event(self._log_file, step=step, **{name: float(value) for name, value in payload.items()})

    def close(self) -> None:
        """Do nothing: the file is closed after every line."""


class StepTimes(NamedTuple):
    """What a run's log says.

    Attributes:
        train_start: When set-up was done, monotonic seconds.
        ends: When each step was done, monotonic seconds.
        losses: Loss of each step.
        cache_s: Seconds in a reference pass apart from the steps; 0 if there was none.
        cpu_s: CPU seconds of the process from the end of set-up to the end of the last step.
        cache_cpu_s: CPU seconds of that reference pass.
        peak_device_gib: Largest of the peaks of a CUDA device's memory that were logged; None if none was.
    """

    train_start: float
    ends: list[float]
    losses: list[float]
    cache_s: float
    cpu_s: float
    cache_cpu_s: float
    peak_device_gib: float | None

    @property
    def train_s(self) -> float:
        """Seconds from the end of set-up to the end of the last step."""
        return self.ends[-1] - self.train_start

    @property
    def step_s(self) -> list[float]:
        """Wall seconds of each step, with whatever the trainer did between the steps."""
        return [end - start for start, end in zip([self.train_start, *self.ends], self.ends)]


def read_log(log_file: str | Path) -> StepTimes:
    """Read what :func:`write_event` wrote in one run.

    Raises:
        ValueError: If the log has no start, more than one, or steps other than 1, 2, 3 …
    """
    events = [json.loads(line) for line in Path(log_file).read_text(encoding="utf-8").splitlines()]
    starts = [e for e in events if e.get("event") == "train_start"]
    steps = [e for e in events if "step" in e]
    if len(starts) != 1 or not steps or [e["step"] for e in steps] != list(range(1, len(steps) + 1)):
        raise ValueError(
            f"{log_file}: {len(starts)} starts and steps {[e['step'] for e in steps]}; one start and steps from 1 are "
            "needed: delete the run's folder and start again"
        )
    passes = [e for e in events if e.get("event") == "reference_pass"]
    return StepTimes(
        train_start=starts[0]["time"],
        ends=[e["time"] for e in steps],
        losses=[e["loss"] for e in steps],
        cache_s=sum(e["seconds"] for e in passes),
        cpu_s=steps[-1]["cpu"] - starts[0]["cpu"],
        cache_cpu_s=sum(e["cpu_seconds"] for e in passes),
        peak_device_gib=max((e["peak_memory_alloc"] for e in steps if "peak_memory_alloc" in e), default=None),
    )
