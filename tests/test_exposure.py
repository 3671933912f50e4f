# SPDX-License-Identifier: MIT
import json
from collections import Counter

import pytest
from conftest import REPO

from data.pairs.records import is_held_out
from data.pairs.rows import read_table
from eval.scores.evidence import Background
from eval.statements.exposure import Taught, exposures, read_sources, taught, without_topics
from eval.statements.instruments import Instrument, Item, Pair, load_instrument

PAIRS = REPO / "data" / "mirrored" / "pairs.jsonl"
KEYS = read_table(str(PAIRS.with_name("propositions.jsonl")))
GOLD = {row["id"]: row for row in read_table(str(REPO / "tests" / "gold_propositions.jsonl"))}


def unit(entry_id):
    """The gold names a couple once."""
    return entry_id if entry_id in GOLD else entry_id[:-1]


def test_the_shipped_set_has_keys_for_every_row():
    rows = read_table(str(PAIRS))
    assert [row["id"] for row in KEYS] == [row["id"] for row in rows]
    assert all(key["topics"][0] == row["topic"] for key, row in zip(KEYS, rows))
    assert all(key["propositions"] and len(set(key["propositions"])) == len(key["propositions"]) for key in KEYS)
    assert list(rows[0]) == ["id", "axis", "topic", "prompt", "left", "right"]  # what is trained on stays as it was


def test_compass60_has_the_54_entries_that_a_prompt_argues():
    """Its own file is as it was; ``gold_propositions.jsonl`` was made by reading both sets."""
    instrument = load_instrument("compass60")
    assert instrument.sha256 == "91ccee70d48d6f6106f88924eaeef8ef315bbf8967b7f4f7b57bfd82437c7da2"
    classes = exposures(instrument, read_sources([str(PAIRS)]))
    argued = {key["id"]: set(key["propositions"]) for key in KEYS}
    entries = [*instrument.items, *instrument.pairs]
    for entry in entries:
        if unit(entry.id) in GOLD:
            prompts = {name for name, keys in argued.items() if entry.proposition in keys}
            assert prompts == set(GOLD[unit(entry.id)]["same"]), entry.id
            assert (classes[entry.id] == "seen proposition") == bool(prompts)
    assert Counter(classes[p.id] for p in instrument.pairs) == {"seen proposition": 31, "seen topic": 29, "unseen": 8}
    couples = [item for item in instrument.items if item.id < item.twin]
    assert Counter(classes[i.id] for i in couples) == {"seen proposition": 23, "seen topic": 7, "unseen": 8}
    assert all(classes[item.id] == classes[item.twin] for item in instrument.items)


BANK = Instrument(
    "b", "1", "MIT", "en", "s", {}, (),
    (Item("a", "A.", "housing", {}, "b", "rent-cap"), Item("b", "B.", "housing", {}, "a", "rent-cap")),
    (Pair("c", "housing", "L.", "R.", None, "zoning"), Pair("d", "guns", "L.", "R.", None, "gun-register"),
     Pair("e", "guns", "L.", "R.")),
    "",
)  # fmt: skip


def test_three_classes_by_hand():
    rows = [{"proposition": "rent-cap", "topic": "housing"}, {"propositions": ["x", "y"], "topics": ["x", "taxation"]}]
    assert taught(rows) == Taught(frozenset({"rent-cap", "x", "y"}), frozenset({"housing", "x", "taxation"}))
    assert exposures(BANK, taught(rows)) == {
        "a": "seen proposition", "b": "seen proposition", "c": "seen topic", "d": "unseen", "e": "unseen",
    }  # fmt: skip
    assert set(exposures(BANK, taught([])).values()) == {"unseen"}


def test_a_row_without_a_key_is_compared_by_meaning():
    row = {
        "prompt": "Should each gun be entered in a register?",
        "left": "Register guns.",
        "right": "No register.",
    }
    others = [{"prompt": f"Is {word} pleasant?", "left": "Yes.", "right": "No."} for word in ("tea", "rain", "chess")]
    pair = BANK.pairs[1]._replace(left="Guns belong in a register.", right="Guns belong in no register.")
    classes = exposures(BANK._replace(pairs=(pair,)), taught([row, *others]))
    assert classes == {"a": "unseen", "b": "unseen", "d": "seen proposition"}


def test_sets_whose_rows_do_not_say_their_topics_are_named(tmp_path):
    """A column may have another name; with neither topic nor proposition only wording tells, and the set is named."""
    for name, column in (("mine", "subject"), ("other", "topic")):
        (tmp_path / f"{name}.csv").write_text(f"prompt,chosen,rejected,{column}\nWhy?,a,b,guns\nHow?,c,d,\n")
    mine, other = (str(tmp_path / f"{name}.csv") for name in ("mine", "other"))
    read = read_sources([mine])
    assert (read.topics, read.no_topics) == (frozenset(), (mine,))
    assert read_sources([mine, str(PAIRS)]).no_topics == (mine,)
    assert read_sources([str(PAIRS)]).no_topics == ()
    assert read_sources([other]).no_topics == (other,)  # its second row has none
    mapped = read_sources([{"source": mine, "column_map": {"topic": "subject"}, "rows": [1]}])
    assert (mapped.topics, mapped.no_topics) == ({"guns"}, ())
    assert without_topics([mine]).startswith(f"no topic in rows of {mine}: what is unseen is told by wording alone")


def test_half_of_the_topics(tmp_path):
    """Training on some topics alone leaves the propositions of the others unseen."""
    half = read_sources([{"source": str(PAIRS), "where": {"topic": ["housing", "drugs"]}}])
    assert half.topics == {"housing", "drugs"}
    assert len(half.propositions) == 16
    classes = exposures(load_instrument("compass300"), half)
    assert Counter(classes[p.id] for p in load_instrument("compass300").pairs)["seen proposition"] == 4
    (tmp_path / "set.jsonl").write_text('{"id": "a", "prompt": "Why?", "left": "l", "right": "r"}\n')
    (tmp_path / "propositions.jsonl").write_text('{"id": "a", "propositions": ["rent-cap"], "topics": ["guns"]}\n')
    assert read_sources([str(tmp_path / "set.jsonl")]) == Taught(frozenset({"rent-cap"}), frozenset({"guns"}))
    (tmp_path / "propositions.jsonl").write_text(json.dumps({"id": "a", "topics": []}) + "\n")
    with pytest.raises(ValueError, match=r"propositions.jsonl: row 1 has \['id', 'topics'\]; want id, propositions"):
        read_sources([str(tmp_path / "set.jsonl")])


def test_two_splits_of_a_file_have_rows_of_their_own(tmp_path):
    rows = [{"prompt": f"Why {k}?", "chosen": "a", "rejected": "b", "topic": f"t{k}"} for k in range(4)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    halves = [{"source": str(tmp_path / "set.jsonl"), "split": split} for split in ("train[:50%]", "train[50%:]")]
    read = read_sources([*halves, halves[0]])
    assert read.topics == {"t0", "t1", "t2", "t3"}
    assert len(read.unkeyed) == 4


def test_rows_that_a_training_left_out_argue_nothing():
    """Of a set that was trained on in part, by ``where`` in the card of an adapter, the other topics are unseen."""
    bank = load_instrument("compass300")
    part = read_sources([{"source": str(PAIRS), "where": {"topic": ["taxation", "drugs"]}}])
    assert part.topics >= {"taxation", "drugs"}
    found = exposures(bank, part)
    assert {found[pair.id] for pair in bank.pairs if pair.topic == "taxation"} <= {"seen topic", "seen proposition"}
    assert {found[pair.id] for pair in bank.pairs if pair.topic == "housing"} == {"unseen"}
    with pytest.raises(ValueError, match="dataset.where.topic=tax: no pair has it"):
        read_sources([{"source": str(PAIRS), "where": {"topic": "tax"}}])


def test_limits_of_a_measured_number_leave_all_rows_argued(tmp_path):
    """A training with ``where.rank.file`` may have left rows out; what they argue counts, and values still choose."""
    limit = {"rank": {"file": str(tmp_path / "influence.jsonl"), "above": 30}}
    assert read_sources([{"source": str(PAIRS), "where": limit}]) == read_sources([str(PAIRS)])
    part = read_sources([{"source": str(PAIRS), "where": {**limit, "topic": "drugs"}}])
    assert part == read_sources([{"source": str(PAIRS), "where": {"topic": "drugs"}}])


def test_prompts_that_a_training_held_out_argue_nothing(tmp_path):
    rows = [{"question": f"Why {k}?", "chosen": "a", "rejected": "b", "topic": f"t{k}"} for k in range(40)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": str(tmp_path / "set.jsonl"), "column_map": {"prompt": "question"}, "hold_out": 0.25}
    held = {row["topic"] for row in rows if is_held_out(row["question"], 0.25)}
    assert 0 < len(held) < 40
    assert read_sources([source]).topics == {row["topic"] for row in rows} - held


def test_of_whoever_has_no_known_training_of_its_own_all_sets_count():
    """A blend or a respondent may have the weights of any adapter, so what one of them argued is not unseen for it."""
    seen, unseen = {"p": "seen proposition"}, {"p": "unseen"}
    known = Background({}, seen, {"left": seen, "right": unseen})
    assert known.exposure_of({"right"}) == unseen
    assert known.exposure_of({"left", "right"}) == seen
    assert known.exposure_of({"prompted-left", "right"}) == seen
    assert known.exposure_of(set()) == Background({}, seen).exposure_of({"right"}) == seen
    known = known._replace(no_topics={None: ("a", "b"), "left": (), "right": ("b",)})
    assert known.without_topics({"left"}) == []
    assert known.without_topics({"left", "right"}) == ["b"]
    assert known.without_topics({"prompted-left"}) == ["a", "b"]
