# SPDX-License-Identifier: MIT
"""``trajectory.jsonl``: where a model stood at step 0 (the base) and at later steps of its training, a row a step.

A row holds the scores of each mode, their paired change since step 0, and the log-probabilities that they come from.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.recipe.files import write_whole
from eval.scores.intervals import add_false_discovery_rates
from eval.scores.places import Groups, describe_drift

NAME = "trajectory.jsonl"


class Trajectory:
    """The rows of one run's file.

    Args:
        folder: The run's ``output_dir``.
        about: Instrument and questions, in every row.
        first_step: Steps that the run has behind it; later rows were measured by a process that was killed, and go.
        writes: Whether this process writes the file.

    Raises:
        ValueError: If the rows that are there answer other questions.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], first_step: int, writes: bool) -> None:
        self.path, self._about, self._writes = folder / NAME, dict(about), writes
        content = self.path.read_bytes() if first_step and self.path.exists() else b""
        rows = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
        self.rows: list[dict[str, Any]] = [row for row in rows if row["step"] <= first_step]
        changed = [key for row in self.rows[:1] for key in about if row.get(key) != about[key]]
        if changed:
            raise ValueError(
                f"{self.path} was measured with another probe ({', '.join(changed)} differ); use the settings it was "
                "made with, probe=null, or move the file away"
            )

    def open(self) -> None:
        """Leave the rows of this run, whole ones, in the file."""
        if self._writes:
            write_whole(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def append(self, step: int, row: Mapping[str, Any]) -> None:
        """Add what was measured at a step."""
        self.rows.append({"step": step, **self._about, **row})
        if self._writes:
            with self.path.open("a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")

    def find(self, step: int) -> dict[str, Any] | None:
        """Return the row of a step."""
        return next((row for row in self.rows if row["step"] == step), None)


def trajectory_drift(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return drift magnitude and drift time of each mode (:func:`~eval.scores.places.describe_drift`) from the rows.

    q is the false discovery rate over all rows, modes and axes.
    """
    comparisons = [
        {"a": "step_0", "b": f"step_{row['step']}", "mode": mode, "axis": axis, **score["change"]}
        for row in rows
        if row["step"]
        for mode, scores in row["scores"].items()
        for axis, score in scores.items()
    ]
    add_false_discovery_rates(comparisons)
    axes = {mode: list(scores) for mode, scores in rows[0]["scores"].items()} if rows else {}
    later = [f"step_{row['step']}" for row in rows if row["step"]]
    return describe_drift(Groups(["step_0", *later]), comparisons, axes)


def trajectory_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the scores as lines of text: a row a step, below it when each mode's drift came."""
    if not rows:
        return "nothing was measured"
    columns = [(mode, axis) for mode, scores in rows[0]["scores"].items() for axis in scores]
    drifts = [(mode, "drift") for mode in rows[0]["drift"]]
    lines = [f"{'step':>6}" + "".join(f"{' '.join(column):>18}" for column in [*columns, *drifts])]
    for row in rows:
        values = [row["scores"][mode][axis]["estimate"] for mode, axis in columns]
        values += [row["drift"][mode] for mode, _ in drifts]
        lines.append(f"{row['step']:>6}" + "".join(f"{value:>+18.3f}" for value in values))
    for drift in trajectory_drift(rows):
        half, apart = drift["half_step"], drift["told_apart_step"]
        told = "never told from the base" if apart is None else f"told from the base from step {apart} on"
        reached = "no drift" if half is None else f"half of its drift at step {half:.3g}"
        lines.append(f"{drift['mode']}: {reached}; {told} (q < 0.05)")
    return "\n".join(lines)
