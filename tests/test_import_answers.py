# SPDX-License-Identifier: MIT
"""A set of opposed answers becomes an instrument on prompts that no training with the same share sees."""

import json
import logging

import pytest
import yaml
from documented import own_topics

from data import datasets
from data.pairs.records import is_held_out
from data.pairs.rows import read_table
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates, pair_prompts

CONFIG = ["--config", "configs/import_answers.yaml"]


@pytest.fixture
def run(tune, tmp_path, caplog):
    source = own_topics(tmp_path)

    def run(*more):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            done = tune(
                ["run", "eval/import_answers.py", *CONFIG, f"source={source}", f"output_dir={tmp_path / 'out'}", *more]
            )
        return done, caplog.text

    return run


def test_each_topic_is_an_axis_of_balanced_pairs_whose_labels_are_right(run, tmp_path):
    done, said = run("n_pairs=6")
    assert done == 0
    bank = load_instrument(str(tmp_path / "out" / "ideoinst.yaml"))
    rows = read_table(str(tmp_path / "topics.jsonl"))
    assert list(bank.axes) == ["crime", "economy", "gender", "immigration", "race", "science"]
    for axis in bank.axes:
        pairs = [pair for pair in bank.pairs if pair.axis == pair.topic == axis]
        assert sum(len(pair.left) > len(pair.right) for pair in pairs) == 3
        assert len(pairs) == 6
    for pair in bank.pairs:
        row = rows[int(pair.id.removeprefix("row-")) - 1]
        assert (pair.prompt, pair.left, pair.right, pair.topic) == tuple(
            row[key] for key in ("prompt", "left", "right", "topic")
        )
        assert row["right_label"].lower() == "right leaning"
    assert "crime: 6 of" in said


def test_trainings_of_the_same_share_never_see_its_prompts(run, tmp_path):
    class Texts:  # notes the texts that a training reads
        max_seq_len, seen = None, []

        def tokenize_messages(self, messages, add_end_tokens=True):
            self.seen.append(messages[0].text_content)
            return [0, 1, 2], [True, False, False]

    assert run("n_pairs=6")[0] == 0
    columns = {"chosen": "left", "rejected": "right"}
    for share in (0.25, 0.0):
        tokenizer = Texts()
        tokenizer.seen = []
        pairs = datasets.preference_pairs(
            tokenizer, source=str(tmp_path / "topics.jsonl"), column_map=columns, hold_out=share
        )
        assert all(pairs[k] for k in range(len(pairs)))
        asked = {pair.prompt for pair in load_instrument(str(tmp_path / "out" / "ideoinst.yaml")).pairs}
        assert bool(asked & {*tokenizer.seen}) == (share == 0)


def test_a_pair_with_a_prompt_is_asked_as_its_answers_alone(run, tmp_path):
    assert run("n_pairs=4")[0] == 0
    path = tmp_path / "out" / "ideoinst.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["pairs"] = raw["pairs"][:2] + [{"id": "plain", "topic": "t", "left": "No.", "right": "Yes."}]
    path.write_text(yaml.safe_dump(raw))
    prompts = pair_prompts(load_instrument(str(path)), load_templates("en"), 2)
    own = [(p.row["item"], p.row["template"], p.text) for p in prompts if p.row["template"] == "own"]
    assert own == [(pair["id"], "own", pair["prompt"]) for pair in raw["pairs"][:2]]
    assert [p.row["item"] for p in prompts if p.row["template"] != "own"] == ["plain", "plain"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["n_pairs=3"], "topic crime: n_pairs=3, and "),
        (["n_pairs=90"], "use an even number up to "),
        (["hold_out=0"], "hold_out=0; use a share above 0 and below 1"),
        (["~columns.left"], "columns names prompt, right, topic; say which columns are"),
        (["where.left_label=[Up]"], "dataset.where.left_label=Up: no pair has it"),
        (["columns.left=lef"], "no column lef; give columns.left=COLUMN; columns: "),
        (["max_words=1"], "no row is left; raise hold_out=0.25 or max_words, or widen where"),
        (["n_pairs=4", "name=null"], "name is missing"),
        (["columns.topic=topc"], "no column topc for columns.topic; there are "),
    ],
)
def test_what_cannot_be_drawn_is_refused(run, tmp_path, more, message):
    done, said = run(*more)
    assert message in f"{done}\n{said}"
    assert not (tmp_path / "out").exists()


def test_a_row_without_a_topic_is_refused(run, tmp_path):
    path = tmp_path / "topics.jsonl"
    rows = read_table(str(path))
    at = next(k for k, row in enumerate(rows) if is_held_out(row["prompt"], 0.25) and row["topic"] == "crime")
    rows[at]["topic"] = " "
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done, said = run("n_pairs=4")
    assert f"row {at + 1} has no topic; give it one" in f"{done}\n{said}"
    assert not (tmp_path / "out").exists()
    assert run("n_pairs=4", "where.topic=[economy]")[0] == 0  # a row that is left out needs none


def test_a_topic_has_one_name_with_blanks_around_it_or_not(run, tmp_path):
    path = tmp_path / "topics.jsonl"
    rows = read_table(str(path))
    for row in rows[::2]:
        row["topic"] += " "
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("n_pairs=4")[0] == 0
    bank = load_instrument(str(tmp_path / "out" / "ideoinst.yaml"))
    assert [sum(pair.axis == axis for pair in bank.pairs) for axis in bank.axes] == [4] * 6


def test_another_file_of_the_name_is_kept(run):
    assert run("n_pairs=4")[0] == 0
    assert run("n_pairs=4")[0] == 0  # the same again is no other file
    assert "is there, and is another one" in str(run("n_pairs=4", "seed=1"))
