# SPDX-License-Identifier: MIT
"""The rows of a study of topics, small enough to be shipped, and the tables of docs/measure/topics.md out of them.

    python -m benchmarks.study_rows docs/results/topics
    python -m benchmarks.study_rows docs/results/topics all outputs/studies/topics/smollm2-135m/compass_12 INSTRUMENT

The first prints the tables. The second writes ``all.jsonl.xz`` and ``instrument.yaml`` there, from the evaluation of a
study. The texts of an instrument that is not ours to copy stay out: signs of the same number stand in their place.
"""

import json
import lzma
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from data.recipe.figures import interval, number
from data.recipe.files import read_log, to_jsonl, write_whole
from eval.asking.results import describe_run
from eval.pages.panels import transfer_changes, tuned_axis
from eval.pages.study import transfer_lines
from eval.scores.summary import summarize
from eval.statements.instruments import load_instrument

KEPT = ("model", "mode", "item", "template", "order", "labels", "sample", "option_logprobs", "n_tokens", "n_shared")
NONE = {"prompt_sha256": "", "option_mass": None, "choice": None, "stance": None, "text": None}
N_BOOTSTRAP = 2000


def pack(folder: Path, name: str, evaluation: Path, instrument: str) -> None:
    """Write the rows of an evaluation and its instrument without texts."""
    raw = yaml.safe_load(Path(instrument).read_text(encoding="utf-8"))
    for pair in raw["pairs"]:
        for field in ("prompt", "left", "right"):
            pair[field] = f"{field} of {pair['id']} ".ljust(len(pair[field].encode()), ".")
    raw["source"] = Path(raw["source"]).name
    write_whole(folder / "instrument.yaml", yaml.safe_dump(raw, sort_keys=False, width=1000))
    rows = [{key: row[key] for key in KEPT} for row in read_log(evaluation / "results.jsonl")]
    write_whole(folder / f"{name}.jsonl.xz", lzma.compress(to_jsonl(rows).encode(), preset=9))


def summary_of(folder: Path, name: str) -> dict[str, Any]:
    """Return the scores of shipped rows, as ``summary.json`` has them."""
    bank = load_instrument(str(folder / "instrument.yaml"))
    lines = lzma.decompress((folder / f"{name}.jsonl.xz").read_bytes()).decode().splitlines()
    rows = [{**NONE, **json.loads(line)} for line in lines]
    return {**describe_run(bank, {"seed": 0}), **summarize(rows, bank, N_BOOTSTRAP, 0)}


def change_table(summary: Mapping[str, Any], mode: str = "pairs") -> list[str]:
    """Return the change of every run on every axis with its interval, an arrow before the axis that it is tuned on."""
    changes = transfer_changes(summary, mode)
    runs, axes = ([*dict.fromkeys(names)] for names in zip(*changes))
    lines = ["| tuned on | " + " | ".join(axes) + " |", "|---|" + "---|" * len(axes)]
    for run in runs:
        cells = []
        for axis in axes:
            c = changes[run, axis]
            own = "→ " if tuned_axis(run) == axis else ""
            cells.append(f"{own}{number(c['difference'], 2)} {interval(c['ci95'], 2)}")
        lines.append(f"| {run} | {' | '.join(cells)} |")
    return lines


def tables(folder: Path, name: str) -> str:
    """Return the tables of shipped rows in Markdown."""
    summary = summary_of(folder, name)
    return "\n".join([*change_table(summary), "", *transfer_lines(summary)]) + "\n"


def main(folder: str, *more: str) -> None:
    """Print all tables, or write rows."""
    if more:
        pack(Path(folder), more[0], Path(more[1]), more[2])
    else:
        for path in sorted(Path(folder).glob("*.jsonl.xz")):
            print(f"{path.name}\n\n{tables(Path(folder), path.name.removesuffix('.jsonl.xz'))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
