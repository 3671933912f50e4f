# SPDX-License-Identifier: MIT
"""Sets as an audit loads and judges them."""

import pytest
from conftest import REPO

from data import audit
from data.quality.sets import judge, load_sets, measure
from data.recipe.files import to_jsonl


def test_a_side_column_splits_a_set(tmp_path):
    rows = [
        {"id": str(n), "prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No.", "side": side}
        for n, side in enumerate(("left", "right", "left"))
    ]
    path = tmp_path / "both.jsonl"
    path.write_text(to_jsonl(rows))
    sets = load_sets(str(path), side="side")
    assert [(s.name, s.side, [pair.row for pair in s.pairs]) for s in sets] == [
        ("left", "left", [1, 3]),
        ("right", "right", [2]),
    ]
    with pytest.raises(ValueError, match=r"row 1: no column stance; side must be left, right, or a column"):
        load_sets(str(path), side="stance")


def test_gates_pass_at_their_limit():
    sets = load_sets(str(REPO / "data/mirrored/pairs.jsonl"), {"chosen": "left", "rejected": "right"}, "left")
    report = measure(sets, {"left": []}, seed=0, unasked=["toxicity"])
    exact = {gate["gate"]: gate["value"] for gate in judge(report, {})}
    assert all(gate["passed"] is not False for gate in judge(report, exact))
    tighter = {name: value - 0.01 for name, value in exact.items() if value is not None}
    assert not any(gate["passed"] for gate in judge(report, tighter))
    assert "gates passed</h1>" in audit.render_report(
        report | {"gates": judge(report, exact), "passed": True, "instruments": [], "settings": {"topic_column": "t"}}
    )
