# SPDX-License-Identifier: MIT
"""Which rows have their answers exchanged: few are told, hardly one wrongly, and the share carries that error."""

import numpy as np
import pytest

from data.pairs.records import OTHER_SIDE, Pair
from data.pairs.rows import read_table
from data.quality.classifiers import Measured, corrected_share, stored_side
from data.quality.defects import Checks
from data.quality.repair import repair
from data.quality.sets import judge, load_sets, measure
from data.quality.sides import exchange, exchanged_sides, held_out, side_error, side_score
from data.recipe.files import to_jsonl

LEFT = "We need stricter gun control laws and background checks, because too many families suffer."
RIGHT = "Law-abiding citizens have the right to own guns. Stricter laws only infringe on individual freedom."
PLAIN = ("I would try it in one town first, and look at the figures.", "I would wait, and see what the neighbours do.")


def pairs(side, n=12, exchanged=()):
    answers = {"left": LEFT, "right": RIGHT}
    told = [Pair(k + 1, f"Question {k}?", answers[side], answers[OTHER_SIDE[side]]) for k in range(n)]
    told = [p._replace(chosen=p.rejected, rejected=p.chosen) if p.row in exchanged else p for p in told]
    return [*told, Pair(n + 1, "And this?", *PLAIN)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_with_its_answers_exchanged_is_named_and_one_that_words_cannot_tell_is_not(side):
    found = exchanged_sides(pairs(side, exchanged=(3, 7)), side)
    assert [(d.row, d.kind, d.field) for d in found] == [
        (3, "exchanged sides", "answers"),
        (7, "exchanged sides", "answers"),
    ]
    facts = exchange(pairs(side, exchanged=(3, 7)), ["guns"] * 12 + ["towns"], side)
    assert (facts["n"], facts["right"], facts["wrong"]) == (13, 10, 2)
    assert facts["by_topic"] == {"guns": {"n": 12, "right": 10, "wrong": 2}, "towns": {"n": 1, "right": 0, "wrong": 0}}
    assert facts["estimate"] == pytest.approx((2 / 12 - facts["error"]) / (1 - 2 * facts["error"]))
    assert facts["ci95"][0] < facts["estimate"] < facts["ci95"][1]


def test_the_two_sides_are_read_alike():
    weights = stored_side()["weights"]
    assert side_score(LEFT, RIGHT, weights) == -side_score(RIGHT, LEFT, weights) > stored_side()["threshold"]
    assert side_score(LEFT, LEFT, weights) == side_score("", "", weights) == 0


def test_nothing_is_said_of_a_set_without_a_side_or_whose_words_tell_nothing():
    assert exchanged_sides(pairs("left"), None) == []
    assert exchange(pairs("left"), None, None) is None
    facts = exchange([Pair(1, "And this?", *PLAIN)], None, "left")
    assert (facts["right"], facts["wrong"], facts["estimate"], facts["ci95"]) == (0, 0, None, None)


def test_at_most_one_in_two_hundred_of_a_source_that_was_not_fitted_on_is_taken_for_exchanged():
    for source in ("TwinViews", "IdeoINST", "shipped"):
        told = [counts for name, counts in held_out().items() if name.startswith(source)]
        assert sum(counts.wrong for counts in told) <= 0.005 * sum(counts.n for counts in told) + 1
    assert side_error().false_alarms < 0.02


def test_a_share_is_corrected_by_the_error_that_was_measured():
    assert corrected_share(0.2, 1000, Measured(0.8, 100, 0.05, 100)).estimate == pytest.approx(0.2)
    assert corrected_share(0.05, 1000, Measured(0.8, 100, 0.05, 100)).estimate == 0
    low, high = corrected_share(0.0, 50, Measured(1.0, 50, 0.0, 50)).ci95
    assert low == 0 < high  # nothing was found of 50, which is no proof that nothing is there
    # as many as it finds of texts that are all of the kind, and more: they are easier than those it was measured on
    assert corrected_share(0.8, 1000, Measured(0.8, 100, 0.05, 100)).estimate == pytest.approx(1.0)
    assert corrected_share(0.95, 1000, Measured(0.8, 100, 0.05, 100)) == (None, (pytest.approx(0.9), 1.0))
    with pytest.raises(ValueError, match="no more right than chance"):
        corrected_share(0.2, 1000, Measured(0.3, 100, 0.7, 100))


@pytest.mark.parametrize("true", [0.0, 0.05, 0.3])
def test_the_interval_of_a_corrected_share_covers_it(true):
    """2,000 sets of 300 rows, and as many measurements of a classifier on 200 texts of either kind."""
    rng, n, n_measured, recall, false_alarms = np.random.default_rng(0), 300, 200, 0.85, 0.02
    covered = []
    for _ in range(2000):
        measured = Measured(
            rng.binomial(n_measured, recall) / n_measured,
            n_measured,
            rng.binomial(n_measured, false_alarms) / n_measured,
            n_measured,
        )
        found = rng.binomial(n, true * recall + (1 - true) * false_alarms) / n
        low, high = corrected_share(found, n, measured).ci95
        covered.append(low <= true <= high)
    assert np.mean(covered) > 0.94


def test_the_audit_reports_exchanged_sides_and_the_repair_flags_them(tmp_path):
    shipped = [row for row in read_table("data/mirrored/pairs.jsonl")]
    rows = [
        {"prompt": row["prompt"], "topic": row["topic"], "chosen": row[a], "rejected": row[b]}
        for k, row in enumerate(shipped)
        for a, b in [("right", "left") if k % 2 else ("left", "right")]
    ]
    path = tmp_path / "left.jsonl"
    path.write_text(to_jsonl(rows))
    sets = load_sets(str(path), side="left")
    defects = exchanged_sides(sets[0].pairs, "left")
    report = measure(sets, {"left": defects}, seed=0, unasked=[])
    low, high = report["sides"]["left"]["ci95"]
    assert low < 0.5 < high
    (gate,) = [gate for gate in judge(report, {"exchanged_sides": 0.02}) if gate["gate"] == "exchanged_sides"]
    assert (gate["value"], gate["passed"]) == (low, False)
    (entry,) = [entry for entry in report["defects"] if entry["kind"] == "exchanged sides"]
    assert entry["rows"]["left"] == len(defects) > 10
    kept = repair(sets, Checks(), balance_within=[]).left
    flagged = {row["source"]["row"] for row in kept if "exchanged sides" in row["flags"]}
    assert flagged == {d.row for d in defects} & {row["source"]["row"] for row in kept}
    assert len(flagged) > 10
