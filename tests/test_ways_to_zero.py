# SPDX-License-Identifier: MIT
"""The table of ways to a lean of 0 says of known changes what they are."""

import random

from conftest import REPO

from benchmarks.controls import BANK, kept
from benchmarks.ways_to_zero import table


def cells(text, model):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {model} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_the_table_of_the_kept_answers():
    page = (REPO / "docs" / "measure" / "topics.md").read_text(encoding="utf-8")
    for study in ("centre", "centre_losses"):
        assert table(kept(study)[1]) in page, "run: python -m benchmarks.ways_to_zero"


def test_a_change_of_all_pairs_alike_has_no_spread_and_one_of_topics_has():
    draw = random.Random(0)
    topics = sorted({pair.topic for pair in BANK.pairs})
    rows = []
    for pair in BANK.pairs:
        lean = draw.gauss(0, 0.1)
        shifts = {"base": 0.0, "alike_seed-0": 0.1, "topics": 0.1 if topics.index(pair.topic) % 2 else -0.1}
        for model, shift in shifts.items():
            of_right = -20 * (2 - lean - shift)  # of 20 tokens, as the left one's -40
            row = {"model": model, "mode": "pairs", "item": pair.id, "template": "t", "n_tokens": [20, 20]}
            rows.append({**row, "option_logprobs": [-40.0, of_right]})
    text = table(rows)
    assert cells(text, "base")[2:5:2] == ["", ""]
    assert cells(text, "alike")[2].startswith("+0.100")
    assert cells(text, "alike")[5] == "0.000 [0.000, 0.000]"
    assert cells(text, "topics")[4].startswith("0.10")
    assert cells(text, "topics")[5].startswith("0.100 [")
