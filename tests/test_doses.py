# SPDX-License-Identifier: MIT
"""Doses, mirrors and mixtures: what is drawn, what is chosen, and that only this changes."""

import json
import re
from collections import Counter

import datasets as hf_datasets
import pytest
from conftest import REPO
from omegaconf import OmegaConf
from test_datasets import WordLengths
from torchtune import config
from torchtune.utils import get_logger

from data import datasets
from data.pairs.records import Pair, draw_subset, exchange, mirror_pairs, mix_pairs

PAIRS = [Pair(n, f"Question {n}?", f"Left {n}.", f"Right {n}.") for n in range(1, 301)]
PAPER = REPO / "configs" / "llama8b_lora_dpo_identical_prompts.yaml"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def write(tmp_path):
    def write_file(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write_file


def rows_of(pairs):
    return [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]


def texts(pairs):
    return {(pair.prompt, pair.chosen, pair.rejected) for pair in pairs}


# Subsets and rows by value


def test_rows_are_kept_by_value_counted_and_logged(write, caplog):
    given = [{**row, "axis": "ab"[k % 2], "n": k % 3} for k, row in enumerate(rows_of(PAIRS[:12]))]
    spec = {"source": "json", "data_files": write(given)}
    kept = datasets.preference_pairs(WordLengths(), **spec, where={"axis": "a"})
    assert kept.rows == [1, 3, 5, 7, 9, 11]  # the rows keep their numbers
    assert len(datasets.preference_pairs(WordLengths(), **spec, where={"axis": "a"}, subset=4)) == 4
    # said by torchtune's logger, which recipes print: INFO of a logger of ours would reach nobody
    assert {record.name for record in caplog.records} == {get_logger().name}
    assert "rows.jsonl: 6 of 12 pairs have {'axis': 'a'}" in caplog.text
    assert "rows.jsonl: drew 4 of 6 pairs (seed 0)" in caplog.text
    assert datasets.chosen_answers(WordLengths(), **spec, where={"axis": "b", "n": [0, 1]}).rows == [2, 4, 8, 10]
    assert datasets.mirrored(WordLengths(), **spec, where={"axis": "b", "n": 2}).rows == [6, 12]
    assert datasets.mixture(WordLengths(), left={**spec, "where": {"n": 2}}).rows == [3, 6, 9, 12]
    assert len(datasets.mirrored_left(WordLengths(), where={"axis": "economic"}, subset=60)) == 60


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"axis": "up"}, r"rows.jsonl: dataset.where.axis=up: no pair has it; found a \(2\), b \(1\)"),
        ({"axis": ["a", "up"]}, "dataset.where.axis=up"),
        ({"topic": "tax"}, "no column topic for dataset.where.topic; there are prompt, chosen, rejected, axis"),
    ],
)
def test_a_value_that_no_row_has_is_refused(write, where, message):
    given = [{**row, "axis": axis} for row, axis in zip(rows_of(PAIRS), "aba")]
    with pytest.raises(ValueError, match=message):
        datasets.preference_pairs(WordLengths(), source="json", data_files=write(given), where=where)


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


@pytest.mark.parametrize("builder", ["mirrored_left", "mirrored_right_sft"])
def test_shipped_builders_take_a_subset(builder):
    assert len(getattr(datasets, builder)(WordLengths(), subset=50)) == 50


def test_every_builder_takes_a_subset(write):
    path = write(rows_of(PAIRS))
    spec = {"source": "json", "data_files": path}
    for builder in (datasets.preference_pairs, datasets.chosen_answers, datasets.mirrored):
        assert len(builder(WordLengths(), **spec, subset=50)) == 50
    assert len(datasets.mixture(WordLengths(), left=spec, subset=50)) == 50


# Mirrors


def test_without_a_mirror_every_row_is_exchanged():
    assert mirror_pairs(rows_of(PAIRS[:3]), "x", None, None, "error") == [exchange(pair) for pair in PAIRS[:3]]


MIRRORED = [
    {"id": "1l", "mirror_id": "1r", "side": "left", "prompt": "One?", "chosen": "L1", "rejected": "R1"},
    {
        "id": "1r",
        "mirror_id": "1l",
        "side": "right",
        "prompt": "One?",
        "chosen": "R1, said otherwise",
        "rejected": "L1",
    },
    {"id": "2r", "mirror_id": "2l", "side": "right", "prompt": "Two?", "chosen": "R2", "rejected": "L2"},
]


def test_a_row_flips_to_the_row_that_its_mirror_id_names():
    flipped = mirror_pairs(MIRRORED, "x", None, None, "error")
    assert [(pair.row, pair.chosen) for pair in flipped] == [(1, "R1, said otherwise"), (2, "L1"), (3, "L2")]


@pytest.mark.parametrize(("side", "chosen"), [("left", ["L1", "L2"]), ("right", ["R1, said otherwise", "R2"])])
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


def test_mirroring_twice_gives_the_set_back(write):
    path = write(rows_of(PAIRS[:5]))
    straight = datasets.preference_pairs(WordLengths(), source="json", data_files=path)
    flipped = datasets.mirrored(WordLengths(), source="json", data_files=path)
    for i in range(5):
        assert straight[i]["chosen_labels"] == flipped[i]["rejected_labels"]
        assert straight[i]["rejected_input_ids"] == flipped[i]["chosen_input_ids"]


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


def test_the_papers_comparison_on_identical_prompts(write):
    spec = {
        "left": write(rows_of(PAIRS[:4]), "left.jsonl"),
        "right": write(rows_of(map(exchange, PAIRS[4:7])), "right.jsonl"),
    }
    built = {}
    for share in (0, 1):
        node = OmegaConf.load(PAPER).dataset
        node.right_share, node.prompt_template = share, None
        for side, path in spec.items():
            node[side] = {"source": "json", "data_files": path}
        built[share] = config.instantiate(node, WordLengths())
    assert built[0].rows == built[1].rows == [1, 2, 3, 4, 5, 6, 7]
    for i in range(7):
        assert built[0][i]["chosen_input_ids"] == built[1][i]["rejected_input_ids"]
    assert Counter(len(row["chosen_labels"]) for row in (built[0][i] for i in range(7)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"right_share": 1.5}, "dataset.right_share=1.5; use 0 (all left) to 1 (all right)"),
        ({"right": {"path": "x"}}, "dataset.right has path; use source and any of"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(write, settings, message):
    left = {"source": "json", "data_files": write(rows_of(PAIRS[:3]))}
    with pytest.raises(ValueError, match=re.escape(message)):
        datasets.mixture(WordLengths(), left=left, **settings)
