# SPDX-License-Identifier: MIT
"""Do our coordinates equal what the 8values quiz shows? Random answer sheets, scored by its formula in Node.

.venv/bin/python benchmarks/eightvalues_agreement.py path/to/questions.js
"""

import argparse
import json
import random
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from eval.scores.scoring import axis_values, collect_answers  # noqa: E402
from eval.statements.importers import ANSWERS  # noqa: E402
from eval.statements.instruments import Instrument, load_instrument  # noqa: E402

SCRIPT = Path(__file__).with_name("eightvalues.js")


def score_in_node(questions: str, sheets: list[list[float]]) -> list[dict[str, list]]:
    """Return, a sheet, axis to the percentage as shown and in full."""
    done = subprocess.run(
        ["node", str(SCRIPT), questions], input=json.dumps(sheets), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def score_here(instrument: Instrument, sheets: list[list[float]]) -> list[dict[str, float]]:
    """Return our coordinates of each sheet, through rows and scores as in any run; a sheet stands as a template."""
    multipliers = list(ANSWERS.values())
    place = {"order": None, "labels": None, "sample": 0, "prompt_sha256": "0"}
    answer = {"option_logprobs": None, "option_mass": None}
    rows = [
        {"item": item.id, "template": f"{k:06}", **place, **answer, "choice": multipliers.index(multiplier)}
        for k, sheet in enumerate(sheets)
        for item, multiplier in zip(instrument.items, sheet, strict=True)
    ]
    answers = collect_answers(rows, instrument)
    values = {axis: axis_values(answers, instrument, axis) for axis in instrument.axes}
    return [{axis: v.score(v.cells[:, k, 0]) for axis, v in values.items()} for k in range(len(sheets))]


def as_shown(percent: float) -> str:
    """Round to one decimal like JavaScript's toFixed: the exact value of the number, half away from 0."""
    return str(Decimal(percent).quantize(Decimal("0.1"), ROUND_HALF_UP))


def count_differences(questions: str, n_sheets: int, seed: int = 0) -> tuple[int, float, int]:
    """Return how many coordinates are shown otherwise, the greatest difference in full, and how many there are."""
    instrument = load_instrument(questions, "8values")
    draw = random.Random(seed)
    sheets = [[draw.choice(list(ANSWERS.values())) for _ in instrument.items] for _ in range(n_sheets)]
    n_other, greatest, n_all = 0, 0.0, 0
    for ours, theirs in zip(score_here(instrument, sheets), score_in_node(questions, sheets), strict=True):
        for axis, (shown, percent) in theirs.items():
            n_all += 1
            n_other += as_shown(ours[axis]) != shown
            greatest = max(greatest, abs(ours[axis] - percent))
    return n_other, greatest, n_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", help="the quiz's questions.js")
    parser.add_argument("--sheets", type=int, default=10_000)
    options = parser.parse_args()
    n_other, greatest, n_all = count_differences(options.questions, options.sheets)
    print(f"{n_other} of {n_all} coordinates shown otherwise; greatest difference {greatest:.1e}")


if __name__ == "__main__":
    main()
