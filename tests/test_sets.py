# SPDX-License-Identifier: MIT
"""Sets as an audit loads and judges them."""

import pytest
from conftest import REPO

from data import audit
from data.quality.sets import NEEDS, judge, load_sets, measure
from data.recipe.files import to_jsonl

TOO_FEW = "12 rows are too few to judge it (95 % interval from 0.320)"
LIMITS = {"length_rule": 0.52, "topic_length_bias": 0.02}


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


@pytest.mark.parametrize(
    ("n_longer", "n_rows", "passed", "note"),
    [
        (
            7,
            12,
            None,
            f"the longer answer is chosen in 58 %; {TOO_FEW}",
        ),
        (
            5,
            12,
            None,
            f"the shorter answer is chosen in 58 %; {TOO_FEW}",
        ),
        (6, 12, True, ""),
        (12, 12, False, "the longer answer is chosen in 100 %"),
        (70, 120, False, "the longer answer is chosen in 58 %"),
    ],
)
def test_length_of_few_rows_fails_only_where_chance_does_not_do_it(tmp_path, n_longer, n_rows, passed, note):
    answers = [("Yes, surely.", "No."), ("Yes.", "No, never.")]
    rows = [dict(zip(("chosen", "rejected"), answers[n >= n_longer]), prompt=f"Question {n}?") for n in range(n_rows)]
    (tmp_path / "few.jsonl").write_text(to_jsonl([row | {"topic": "tax"} for row in rows]))
    sets = load_sets(str(tmp_path / "few.jsonl"))
    gates = {gate["gate"]: gate for gate in judge(measure(sets, {"set": []}, seed=0, unasked=["toxicity"]), LIMITS)}
    assert (gates["length_rule"]["passed"], gates["length_rule"]["note"]) == (passed, note)
    assert gates["topic_length_bias"]["passed"] is passed


def test_each_gate_that_is_not_measured_says_what_it_needs(tmp_path):
    (tmp_path / "few.jsonl").write_text(to_jsonl([{"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}]))
    report = measure(load_sets(str(tmp_path / "few.jsonl")), {"set": []}, seed=0, unasked=["toxicity"])
    notes = {gate["gate"]: gate["note"] for gate in judge(report, LIMITS) if gate["value"] is None}
    assert notes == NEEDS


def test_a_set_without_a_valid_row_is_judged(tmp_path):
    (tmp_path / "none.jsonl").write_text(to_jsonl([{"prompt": "", "chosen": "Yes.", "rejected": "No."}] * 3))
    report = measure(load_sets(str(tmp_path / "none.jsonl")), {"set": []}, seed=0, unasked=["toxicity"])
    gates = {gate["gate"]: gate for gate in judge(report, LIMITS)}
    assert gates["length_rule"]["value"] is None


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
