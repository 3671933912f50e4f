# SPDX-License-Identifier: MIT
"""Defects of rows: seeded ones are found, all and no others."""

from benchmarks.audit_recall import score
from data.pairs.records import Pair
from data.quality.defects import Checks, row_defects, set_defects


def test_every_seeded_class_is_found_and_nothing_else():
    result = score(n_rows=280, seed=3)
    assert {kind: entry["n"] for kind, entry in result["classes"].items() if not entry["n"]} == {}
    assert result["recall"] >= 0.99, {k: e["missed"] for k, e in result["classes"].items() if e["missed"]}
    assert result["false_alarms"] <= 0.01, {k: e["false"] for k, e in result["classes"].items() if e["false"]}


def test_a_mirrored_row_has_the_same_length_defects():
    pair = Pair(1, "What about rents?", "a " * 150 + ".", "b " * 100 + ".")  # 1.5 passes, its inverse .667 does not
    for row in (pair, pair._replace(chosen=pair.rejected, rejected=pair.chosen)):
        assert [d.kind for d in row_defects(row, Checks()) if d.field == "answers"] == ["length mismatch"]


def test_near_duplicates_name_each_other():
    pairs = [
        Pair(n, p, "Yes, I do.", "No, I do not.") for n, p in enumerate(("A b c d?", "x y z w?", "a b c d"), start=4)
    ]
    assert [(d.row, d.kind, d.found) for d in set_defects(pairs, Checks()) if d.kind == "duplicate prompt"] == [
        (4, "duplicate prompt", "the same as row 6"),
        (6, "duplicate prompt", "the same as row 4"),
    ]
