# SPDX-License-Identifier: MIT
"""Do the distances to populations come out as published, and as another library computes them?

    python -m benchmarks.populations --issuebench issuebench_prompts --ces popfidelity-0.1.2-….whl

The eight models of IssueBench are given to the program as answers to options with their published margins. Where
popfidelity is installed, the cells of the CES and of the model that it ships are compared by its distance and by ours.
"""

import argparse
import json
import math
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from eval.import_populations import CELLS, IN_WHEEL, MARGINS, read_cells, read_margins
from eval.readings.yardstick import describe_populations, distance
from eval.statements.instruments import Instrument, load_instrument


def load(raw: dict[str, Any]) -> Instrument:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bank.yaml"
        path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
        return load_instrument(str(path))


def answer(model: str, item: str, margin: float) -> dict[str, Any]:
    """A row of ``results.jsonl`` whose share for, less that against, is the margin."""
    shares = [(abs(margin) - margin) / 2, 1 - abs(margin), (abs(margin) + margin) / 2]
    logprobs = [math.log(share) if share > 0 else None for share in shares]
    key = {"mode": "choice", "template": "t", "order": [0, 1, 2], "labels": "words", "sample": 0, "prompt_sha256": ""}
    answered = {"option_logprobs": logprobs, "option_mass": 1.0, "choice": int(np.argmax(shares))}
    return {"model": model, "item": item, **key, **answered}


def issuebench(folder: Path) -> None:
    instrument = load(read_margins(folder))
    published = json.loads((folder / MARGINS).read_text(encoding="utf-8"))
    rows = [answer(name, row["topic_id"], m) for row in published for name, m in row["models"].items()]
    (described,) = describe_populations(rows, instrument, {}, 10_000, 0)
    print(f"IssueBench: {described['distance']}")
    for row in described["rows"]:
        nulls = " ".join(f"{name} {x:.2f}" for name, x in {**row["nulls"], **row["others"]}.items())
        ends = "[{:.2f}, {:.2f}]".format(*row["ci95"])
        print(
            f"{row['model']:14} {row['group']:12} {row['distance']:.2f} {ends}  rank {row['rank']:+.2f} "
            f"[{row['rank_ci95'][0]:+.2f}, {row['rank_ci95'][1]:+.2f}]  spread {row['spread']:.2f} "
            f"[{row['spread_ci95'][0]:.2f}, {row['spread_ci95'][1]:.2f}]  | {nulls}"
        )


def ces(folder: Any) -> None:
    instrument = load(read_cells(folder))
    everybody = instrument.populations["CES"].groups["all"]
    for name, shares in (everybody.shares or {}).items():
        print(f"CES 2024, {name}, n {everybody.n[name]}: {' '.join(f'{share:.3f}' for share in shares)}")  # type: ignore[index]
    try:
        import popfidelity as pf
        from popfidelity import examples
        from popfidelity.io import read_cells as cells_of
    except ImportError:
        print("popfidelity is not installed: no comparison with its distance")
        return
    questions = pf.read_questions(examples.path("ces") / "questions.yaml")
    survey = cells_of(examples.path("ces") / CELLS, questions)
    model = cells_of(examples.path("ces") / "model_cells.csv", questions, mode="ntp")
    for name, cells in survey.items():
        a, b = pf.align(cells, model[name])
        theirs, ours = pf.metrics.distance(a.shares, b.shares), distance(a.shares, b.shares)
        print(
            f"{name}: {len(ours)} cells, greatest difference from popfidelity's nemd {np.abs(ours - theirs).max():.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issuebench", type=Path, help="folder with party_margins.json and issues.csv")
    parser.add_argument("--ces", type=Path, help="wheel of popfidelity, or its folder of the CES")
    arguments = parser.parse_args()
    if arguments.issuebench:
        issuebench(arguments.issuebench)
    if arguments.ces:
        wheel = arguments.ces
        ces(zipfile.Path(wheel, IN_WHEEL) if zipfile.is_zipfile(wheel) else wheel)


if __name__ == "__main__":
    main()
