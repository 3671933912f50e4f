# SPDX-License-Identifier: MIT
"""Ways to a lean of 0, and how they differ in shape: the table of ``docs/measure/topics.md`` out of kept answers.

    python -m benchmarks.ways_to_zero
    python -m benchmarks.controls --keep centre=outputs/ways

The first prints the tables; no model is loaded. The second keeps the answers of an evaluation that asked all ways.
"""

from typing import Any

import numpy as np

from benchmarks.controls import BANK, Rows, kept
from data.recipe.figures import interval, number
from eval.scores.crossed import item_means
from eval.scores.intervals import unit_interval
from eval.scores.scoring import Values, pair_values
from eval.scores.shape import spread
from eval.scores.summary import summarize

POLITICAL = BANK.political_pairs
N_BOOTSTRAP = 2000


def table(rows: Rows) -> str:
    """Return mean and shape of every model's lean, and of its change from the first model, in Markdown."""
    # keys that answers of other modes have
    summary = summarize([{**row, "order": None, "labels": None, "sample": 0} for row in rows], BANK, N_BOOTSTRAP, 0)
    shapes = {shape["model"]: shape for shape in summary["shape"]}
    base = next(iter(summary["models"]))
    changes = {c["b"]: c for c in summary["comparisons"] if c["a"] == base and c["axis"] == "lean"}
    leans = {name: _values(rows, name) for name in summary["models"]}
    lines = [
        "| model | lean | minus base | SD of topics | minus base: SD of topics | SD of pairs | own side | Sarle |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, of_modes in summary["models"].items():
        score, shape = of_modes["pairs"]["lean"], shapes[name]
        moved = leans[base].scale * item_means(leans[name].cells - leans[base].cells)
        asked = ~np.isnan(moved)  # of a part of the instrument
        of_change = [_cell(spread(moved[asked], leans[base].topic[asked]), "sd"), _cell(_deviation(moved[asked]), "sd")]
        cells = [
            f"{number(score['estimate'])} {interval(score['ci95'])}",
            f"{number(c['difference'])} {interval(c['ci95'])}" if (c := changes.get(name)) else "",
            _cell(shape["topics"], "sd"),
            *(of_change if c else ["", ""]),
            _cell(shape["own_side"], "share"),
            _cell(shape["bimodality"], "estimate"),
        ]
        lines.append(f"| {name.removesuffix('_seed-0')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _values(rows: Rows, name: str) -> Values:
    of_model: Any = [{**row, "order": None, "labels": None, "sample": 0} for row in rows if row["model"] == name]
    return pair_values(of_model, POLITICAL, BANK.units())


def _deviation(moved: np.ndarray) -> dict[str, Any]:
    """Return the standard deviation of the pairs' changes with a bootstrap interval over pairs."""

    def deviation(moments: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(0, moments[..., 1] - moments[..., 0] ** 2))

    moments = np.stack([moved, moved**2], axis=1)
    interval95 = unit_interval(moments, np.arange(len(moved)), deviation, N_BOOTSTRAP, 0)
    return {"sd": float(moved.std()), "ci95": interval95}


def _cell(figure: dict[str, Any] | None, key: str) -> str:
    return f"{number(figure[key], 3, False)} {interval(figure['ci95'], 3, False)}" if figure else "–"


if __name__ == "__main__":
    for study in ("centre", "centre_losses"):
        print(table(kept(study)[1]))
