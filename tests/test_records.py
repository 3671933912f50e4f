# SPDX-License-Identifier: MIT
"""Pairs out of rows, and their parts, mirrors and mixtures: only what is asked for changes."""

import re

import pytest

from data.pairs.records import (
    Pair,
    draw_subset,
    duplicate_ids,
    exchange,
    keep_where,
    mirror_pairs,
    mix_pairs,
    pair_key,
    read_answers,
    read_pairs,
)
from data.recipe.files import to_jsonl

PAIRS = [Pair(n, f"Question {n}?", f"Left {n}.", f"Right {n}.") for n in range(1, 301)]


def rows_of(pairs):
    return [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]


def texts(pairs):
    return {(pair.prompt, pair.chosen, pair.rejected) for pair in pairs}


def test_long_lists_of_invalid_rows_are_shortened_but_counted():
    with pytest.raises(ValueError, match=r"12 of 12 rows .*row 5: a is missing; \.\.\.\)"):
        read_pairs([{"a": None, "b": "", "c": ""}] * 12, "f", {"prompt": "a", "chosen": "b", "rejected": "c"})


def test_the_columns_that_evaluations_read_are_mapped_and_looked_for():
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c", "subject": "guns", "completion": "b", "label": "1"}]
    for read in (read_pairs, read_answers):
        assert len(read(rows, "f", {"topic": "subject"})) == 1
        with pytest.raises(ValueError, match="f: no column subjet; give .*column_map.topic=COLUMN; columns: .*subject"):
            read(rows, "f", {"topic": "subjet"})
    with pytest.raises(ValueError, match="column_map names theme; .* prompt, chosen, rejected, topic, proposition"):
        read_pairs(rows, "f", {"theme": "subject"})


# Subsets and rows by value


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [(True, [1, 2, 3]), ("true", [1, 2, 3]), (False, [4]), (None, [5]), ("None", [5]), (["007"], [6])],
)
def test_a_value_of_yaml_is_found_as_text_and_as_type(wanted, kept):
    rows = [{"held": value} for value in (True, "true", "TRUE", "false", None, "007")]
    assert [pair.row for pair in keep_where(PAIRS[:6], rows, {"held": wanted}, "x")] == kept


def test_pairs_are_kept_by_a_figure_that_a_file_has_of_them(tmp_path):
    path = tmp_path / "influence.jsonl"
    path.write_text(to_jsonl({"key": pair_key(pair), "influence": k / 10} for k, pair in enumerate(PAIRS[:6])))

    def kept(**limits):
        return [pair.row for pair in keep_where(PAIRS[:6], [], {"influence": {"file": str(path), **limits}}, "x")]

    assert kept(above=0.2) == [4, 5, 6]
    assert kept(below=0.2) == [1, 2]
    assert kept(above=0, below=0.25) == [2, 3]
    for wrong, message in [
        ({}, "give file, its path, and a number"),
        ({"above": "much"}, "are numbers"),
        ({"over": 1}, "give file"),
        ({"above": 9}, "no pair lies there"),
        ({"above": 1, "file": 5}, "give file, its path"),
    ]:
        with pytest.raises(ValueError, match=message):
            kept(**wrong)
    flipped = [exchange(pair) for pair in PAIRS[:6]]
    with pytest.raises(ValueError, match=r"knows 6 of 6 pairs not \(rows 1, .*same answers chosen"):
        keep_where(flipped, [], {"influence": {"file": str(path), "above": 0}}, "x")
    one = pair_key(PAIRS[0])
    (tmp_path / "two.jsonl").write_text(path.read_text() + to_jsonl([{"key": one, "influence": 0.0}]))
    assert kept(above=0.2, file=str(tmp_path / "two.jsonl")) == [4, 5, 6]
    (tmp_path / "two.jsonl").write_text(path.read_text() + to_jsonl([{"key": one, "influence": 0.7}]))
    with pytest.raises(ValueError, match=f"two.jsonl: the pair {one} has influence 0.0 and 0.7; files of several runs"):
        kept(above=0.2, file=str(tmp_path / "two.jsonl"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl not found; eval/influence.py writes"):
        keep_where(PAIRS[:6], [], {"influence": {"file": str(tmp_path / "nowhere.jsonl"), "above": 0}}, "x")
    path.write_text(path.read_text().replace("0.3", "NaN"))
    with pytest.raises(ValueError, match="knows 1 of 6 pairs not"):
        kept(above=-1)
    with pytest.raises(FileNotFoundError, match="no rows with key and projection"):
        keep_where(PAIRS[:6], [], {"projection": {"file": str(path), "above": 0}}, "x")


def test_smaller_subsets_lie_in_larger_ones_and_hang_on_the_seed():
    drawn = {n: draw_subset(PAIRS, n, 0, "x") for n in (50, 100, 250)}
    assert [len(pairs) for pairs in drawn.values()] == [50, 100, 250]
    assert texts(drawn[50]) < texts(drawn[100]) < texts(drawn[250])
    assert [pair.row for pair in drawn[100]] == sorted(pair.row for pair in drawn[100])
    assert texts(draw_subset(PAIRS, 50, 1, "x")) != texts(drawn[50])
    assert draw_subset(PAIRS, None, 0, "x") == PAIRS


def test_a_subset_draws_the_same_prompts_on_either_side_and_in_any_order():
    drawn = [pair.prompt for pair in draw_subset(PAIRS, 40, 0, "x")]
    assert [pair.prompt for pair in draw_subset([exchange(pair) for pair in PAIRS], 40, 0, "x")] == drawn
    assert [pair.prompt for pair in draw_subset(PAIRS[::-1], 40, 0, "x")] == drawn[::-1]


@pytest.mark.parametrize("n", [0, 301])
def test_a_subset_that_is_not_there_is_refused(n):
    with pytest.raises(ValueError, match=f"x: dataset.subset={n}, and there are 300 pairs; use 1 to 300, or null"):
        draw_subset(PAIRS, n, 0, "x")


# Mirrors


def test_without_a_mirror_every_row_is_exchanged():
    assert mirror_pairs(rows_of(PAIRS[:3]), "x", None, None, "error") == [exchange(pair) for pair in PAIRS[:3]]


MIRRORED = [
    {"id": "1l", "mirror_id": "1r", "side": "left", "prompt": "One?", "chosen": "L1", "rejected": "R1"},
    {"id": "1r", "mirror_id": "1l", "side": "right", "prompt": "One?", "chosen": "R1, again", "rejected": "L1"},
    {"id": "2r", "mirror_id": "2l", "side": "right", "prompt": "Two?", "chosen": "R2", "rejected": "L2"},
]


def test_a_row_flips_to_the_row_that_its_mirror_id_names():
    flipped = mirror_pairs(MIRRORED, "x", None, None, "error")
    assert [(pair.row, pair.chosen) for pair in flipped] == [(1, "R1, again"), (2, "L1"), (3, "L2")]


@pytest.mark.parametrize(("side", "chosen"), [("left", ["L1", "L2"]), ("right", ["R1, again", "R2"])])
def test_a_side_takes_each_prompt_once(side, chosen):
    assert [pair.chosen for pair in mirror_pairs(MIRRORED, "x", None, side, "error")] == chosen


@pytest.mark.parametrize(
    ("change", "side", "message"),
    [
        ({"id": "1l"}, None, "x row 2: id '1l' is that of row 1; give every row its own"),
        ({"mirror_id": "2r"}, None, "x row 2: mirror_id '2r' is row 3, whose prompt is another one"),
        ({"side": "up"}, "left", "x row 2: side is 'up'; dataset.side=left needs left or right in each row"),
        ({}, "middle", "dataset.side='middle'; use left or right, or null to flip every row"),
    ],
)
def test_mirrors_that_do_not_fit_are_refused(change, side, message):
    rows = [MIRRORED[0], MIRRORED[1] | change, MIRRORED[2]]
    with pytest.raises(ValueError, match=re.escape(message)):
        mirror_pairs(rows, "x", None, side, "error")


# Mixtures


def n_right(pairs):
    return sum(pair.chosen.startswith("Right") for pair in pairs)


def test_shares_hold_in_all_and_in_every_subset_and_are_nested():
    chose_right = {}
    for share in (0, 0.1, 0.25, 0.5, 0.9, 1):
        mixed = mix_pairs(PAIRS[:200], [exchange(pair) for pair in PAIRS[200:]], share, seed=0)
        assert [pair.prompt for pair in mixed] == [pair.prompt for pair in PAIRS]
        for n in (50, 100, 300):
            assert n_right(draw_subset(mixed, n, 0, "x")) == pytest.approx(share * n, abs=2.5)
        chose_right[share] = {pair.prompt for pair in mixed if pair.chosen.startswith("Right")}
    assert chose_right[0] == set() < chose_right[0.1] < chose_right[0.25] < chose_right[0.5] < chose_right[0.9]
    assert len(chose_right[1]) == 300
    assert mix_pairs(PAIRS, [], 0.5, seed=1) != mix_pairs(PAIRS, [], 0.5, seed=0)


def test_a_pair_that_is_in_both_sets_counts_once():
    assert mix_pairs(PAIRS, [exchange(pair) for pair in PAIRS], 0, seed=0) == PAIRS


def test_duplicate_ids_name_both_rows():
    assert duplicate_ids([{"id": "a"}, {"id": "b"}, {}, {"id": "a"}, {}]) == [(4, 1, "a")]
    assert duplicate_ids([{"id": [1]}, {"id": {"n": 1}}, {"id": [1]}]) == [(3, 1, [1])]


@pytest.mark.parametrize("prompt", ["\u200b\ufeff \u2060", "\t\n", ""])
def test_a_text_that_nobody_sees_is_empty(prompt):
    with pytest.raises(ValueError, match=r"x.jsonl: 1 of 1 rows are invalid \(row 1: prompt is empty"):
        read_pairs([{"prompt": prompt, "chosen": "All.", "rejected": "None."}], "x.jsonl")


def test_single_answers_are_desirable_or_not():
    rows = [{"question": "a", "completion": "Yes.", "label": label} for label in (True, "false", 1, "0", "TRUE")]
    pairs = read_answers(rows, "x.csv", {"prompt": "question"})
    assert [pair.chosen for pair in pairs] == ["Yes.", "", "Yes.", "", "Yes."]
    assert [pair.rejected for pair in pairs] == ["", "Yes.", "", "Yes.", ""]
    same = [{"prompt": "a", "completion": "True", "label": True}, {"prompt": "b", "completion": "0", "label": 0.0}]
    assert [(p.chosen, p.rejected) for p in read_answers(same, "x.csv")] == [("True", ""), ("", "0")]
    rows[2]["label"] = "good"
    with pytest.raises(ValueError, match=r"x.csv row 3: label is 'good'; use true or false, 1 or 0"):
        read_answers(rows, "x.csv", {"prompt": "question"})
    with pytest.raises(ValueError, match="column_map names chosen; use prompt, completion, label, topic"):
        read_answers(rows, "x.csv", {"chosen": "completion"})
    with pytest.raises(ValueError, match=r"no column label; give dataset\.column_map\.label=COLUMN; columns: prompt"):
        read_answers([{"prompt": "a", "completion": "b"}], "x.csv")
    with pytest.raises(ValueError, match=r"row 1: label is missing"):
        read_answers([{"prompt": "a", "completion": "b", "label": None}], "x.csv")
