# SPDX-License-Identifier: MIT
"""Files in other forms, as instruments."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import REPO

from eval.statements.instruments import load_instrument

spec = importlib.util.spec_from_file_location("eightvalues", REPO / "benchmarks" / "eightvalues_agreement.py")
eightvalues = importlib.util.module_from_spec(spec)
spec.loader.exec_module(eightvalues)


def test_pairs_csv(tmp_path):
    path = tmp_path / "views.csv"
    path.write_text('\ufeffl,r,topic\n"One, two.",Three.,x\nA.,B.,y\nC.,D.,y\n', encoding="utf-8")
    instrument = load_instrument(str(path), "pairs_csv")
    assert [(p.id, p.left, p.topic) for p in instrument.pairs][0] == ("row-1", "One, two.", "x")
    assert (instrument.name, instrument.items, instrument.axes) == ("views", (), {})
    drawn = [instrument.sample(2, seed).pairs for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2
    (tmp_path / "other.csv").write_text("links,rechts,thema\nA.,B.,y\nC.,D.,y\n")
    columns = {"left": "links", "right": "rechts", "topic": "thema"}
    assert load_instrument(str(tmp_path / "other.csv"), "pairs_csv", columns).pairs[0].right == "B."
    path.write_text("l,r,topic,proposition,note\nA.,B.,y,a-or-b,\nC.,D.,y,,contested\n")
    assert [p[5:7] for p in load_instrument(str(path), "pairs_csv").pairs] == [("a-or-b", None), (None, "contested")]


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("l,r\nA.,B.\n", None, "views.csv: no column topic; found l, r; .*: instrument_columns.topic=NAME$"),
        ("l,r,topic\nA.,B.,x\nA.,,x\n", None, "data row 2"),
        ("l,r,topic\nA.,A.,x\n", None, "two different statements"),
        ("l,r,topic\nA.\n", None, "row 1: 1 fields, the header has 3"),
        ("l,r,topic\n", None, "no rows; give a file with at least one row"),
        ("l,r,topic\nA.,B.,x\n", {"lft": "l"}, "unknown \\['lft'\\]"),
    ],
)
def test_pairs_csv_faults(tmp_path, content, columns, message):
    path = tmp_path / "views.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_instrument(str(path), "pairs_csv", columns)


def test_twinviews_loads():
    path = Path(__file__).parents[2] / "shared" / "data" / "twinviews_4000.csv"
    if not os.path.exists(path):
        pytest.skip("the TwinViews sample is not here")
    assert len(load_instrument(str(path), "pairs_csv").sample(200, seed=0).pairs) == 200


def test_statements_as_plain_text(tmp_path):
    """One a line, blank lines left out: agreement alone, from -10 to 10."""
    (tmp_path / "statements.txt").write_text("\ufeffTaxes should rise.\n\n  Taxes should fall.  \n", encoding="utf-8")
    instrument = load_instrument(str(tmp_path / "statements.txt"), "text")
    assert [(i.id, i.text) for i in instrument.items] == [
        ("row-1", "Taxes should rise."), ("row-2", "Taxes should fall."),
    ]  # fmt: skip
    assert instrument.axes["agreement"][:2] == ("disagree", "agree")
    assert instrument.axis_range("agreement") == (-10, 10)
    assert len(instrument.sha256) == 64


def test_csv_and_jsonl_with_named_columns(tmp_path):
    """Direction -1 turns the weights; two points on "economy", one of them doubled: 2 + 4 points, so divisor .6."""
    table = "nr,claim,scale,sign,other,proposition\n"
    table += "a,Taxes should fall.,economy,1,b,taxes\nb,Taxes should rise.,economy,-2,a,taxes\n"
    (tmp_path / "bank.csv").write_text(table + "c,God exists.,faith,1,,\n")
    columns = {"id": "nr", "text": "claim", "axis": "scale", "direction": "sign", "twin": "other"}
    bank = load_instrument(str(tmp_path / "bank.csv"), "csv", columns)
    assert [(i.id, i.weights, i.twin) for i in bank.items] == [
        ("a", {"economy": [-2, -1, 1, 2]}, "b"),
        ("b", {"economy": [4, 2, -2, -4]}, "a"),
        ("c", {"faith": [-2, -1, 1, 2]}, None),
    ]
    assert [item.proposition for item in bank.items] == ["taxes", "taxes", None]
    assert bank.axes["economy"].divisor == pytest.approx(0.6)
    assert bank.axis_range("economy") == pytest.approx((-10, 10))
    rows = [{"id": i.id, "text": i.text, "axis": next(iter(i.weights)), "twin": i.twin} for i in bank.items]
    rows = [row | {"proposition": item.proposition} for row, item in zip(rows, bank.items)]
    for row, direction in zip(rows, (1, -2, 1)):
        row["direction"] = direction
    (tmp_path / "bank.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_instrument(str(tmp_path / "bank.jsonl"), "jsonl").items == bank.items


def test_columns_that_are_not_read_are_said(tmp_path, caplog):
    (tmp_path / "bank.csv").write_text("text,remark,topic\nA.,x,t\nB.,y,t\n")
    load_instrument(str(tmp_path / "bank.csv"), "csv")
    assert "bank.csv: not read: the columns remark" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "csv",
            "text,axis,Direction\nA.,e,-1\nB.,e,1\n",
            "no column 'direction', but one 'Direction'; .*direction='Dir",
        ),
        ("csv", "text,topics\nA.,e\nB.,e\n", "no column 'topic', but one 'topics'; .*columns.topic='topics'"),
        ("pairs_csv", "l,r,topic,Note \nA.,B.,t,x\nC.,D.,t,y\n", "no column 'note', but one 'Note '"),
        ("csv", "claim\nA.\n", r"no column text; found claim;.*: instrument_columns.text=NAME"),
        ("csv", "text,direction\nA.,right\n", "data row 1: direction is 'right'; use 1 where agreeing"),
        ("csv", "text,id\nA.,x\nB.,x\n", "id x: used 2 times"),
        ("csv", "text\nA.\n \n", "item row-2: text is ''"),
        ("jsonl", '{"text": "A."}\n{"txt": "B."}\n', r"row 2: no column text; found txt"),
        ("jsonl", "A.\n", "row 1: no JSON"),
        ("text", "\n\n", "items and pairs are both empty"),
        (
            "8values",
            "questions = [{question: 'A.'}]",
            "question 1 \\(q1\\): effect is None; give a number for each axis",
        ),
        (
            "8values",
            '[{"id": "tax", "question": "A.", "effects": {"econ": "10"}}]',
            "\\(tax\\): effect on econ is '10'",
        ),
        ("8values", '[{"question": "", "effect": {"econ": 10}}]', "item q1: text is ''"),
        ("8values", "function f() {}", "not a JavaScript or JSON list|no list of questions"),
        ("8values", '[{"question": "A.", "effect": {"econ": 0}}]', r"no question has an effect on \['econ'\]"),
    ],
)
def test_import_faults_name_row_and_field(tmp_path, name, content, message):
    (tmp_path / "bank").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_instrument(str(tmp_path / "bank"), name)


EIGHTVALUES = """// a small quiz
questions = [
    {
        "question": "Markets are \\"free\\".",
        "effect": {"econ": -10, "dipl": 0}
    },
    {"question": "Nations matter: always.", "effect": {"econ": 2.5, "dipl": -5}},
    {"question": "Trade, it's said, binds.", "effect": {"econ": -2.5, "dipl": 7}},
];
"""


def test_8values_by_hand(tmp_path):
    """max econ 15, dipl 12. Strong agreement with all: econ -10, so 100 (15 - 10) / 30; dipl 2: 100 (12 + 2) / 24."""
    (tmp_path / "questions.js").write_text(EIGHTVALUES)
    bank = load_instrument(str(tmp_path / "questions.js"), "8values")
    assert bank.items[0].text == 'Markets are "free".'
    assert bank.items[0].weights == {"econ": [10, 5, 0, -5, -10]}
    assert {axis: bank.axis_range(axis) for axis in bank.axes} == {"econ": (0, 100), "dipl": (0, 100)}
    assert (bank.axes["econ"].low, bank.axes["econ"].high) == ("markets", "equality")
    (percents,) = eightvalues.score_here(bank, [[1, 1, 1]])
    assert percents == pytest.approx({"econ": 100 * 5 / 30, "dipl": 100 * 14 / 24}, abs=1e-6)
    descendant = EIGHTVALUES.replace('"effect"', '"effects"').replace("questions =", "export const questions =")
    (tmp_path / "other.js").write_text(descendant)
    assert load_instrument(str(tmp_path / "other.js"), "8values").items == bank.items


@pytest.mark.skipif(shutil.which("node") is None, reason="Node runs the quiz's own arithmetic")
def test_8values_equals_its_javascript(tmp_path):
    (tmp_path / "questions.js").write_text(EIGHTVALUES)
    n_other, greatest, n_all = eightvalues.count_differences(str(tmp_path / "questions.js"), 300)
    assert (n_other, n_all) == (0, 600)
    assert greatest < 1e-6


def test_a_statement_of_a_text_file_ends_at_a_line_feed_alone(tmp_path):
    path = tmp_path / "bank.txt"
    path.write_text("Taxes\u2028should fall.\r\nRents should rise.\n", encoding="utf-8", newline="")
    texts = [item.text for item in load_instrument(str(path), "text").items]
    assert texts == ["Taxes\u2028should fall.", "Rents should rise."]
