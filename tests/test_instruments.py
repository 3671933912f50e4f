# SPDX-License-Identifier: MIT
import copy
import os
from pathlib import Path

import pytest
import yaml

from eval.instruments import load_instrument

GOOD = {
    "name": "tiny",
    "version": "1",
    "licence": "MIT",
    "language": "en",
    "source": "this test",
    "axes": {"economic": {"low": "left", "high": "right", "offset": 3, "divisor": 2}},
    "options": ["against", "for"],
    "items": [
        {"id": "a", "text": "A.", "topic": "t", "weights": {"economic": [-1, 1]}, "twin": "b"},
        {"id": "b", "text": "B.", "topic": "t", "weights": {"economic": [2, -2]}, "twin": "a"},
    ],
    "pairs": [{"id": "p", "topic": "t", "axis": "economic", "left": "L.", "right": "R."}],
}


def write(folder: Path, raw) -> str:
    path = folder / "bank.yaml"
    path.write_text(yaml.safe_dump(raw))
    return str(path)


def test_loads_and_computes_the_range(tmp_path):
    """The sum lies in [-1 - 2, 1 + 2]; (-3 + 3) / 2 = 0 and (3 + 3) / 2 = 3."""
    instrument = load_instrument(write(tmp_path, GOOD))
    assert [item.twin for item in instrument.items] == ["b", "a"]
    assert instrument.pairs[0].axis == "economic"
    assert instrument.axis_range("economic") == (0, 3)
    assert len(instrument.sha256) == 64


@pytest.mark.parametrize("dropped", [("items", "options"), ("pairs",)])
def test_items_alone_and_pairs_alone_are_instruments(tmp_path, dropped):
    load_instrument(write(tmp_path, {k: v for k, v in GOOD.items() if k not in dropped}))


def change(*path_and_value):
    *path, last, value = path_and_value

    def apply(raw):
        for key in path:
            raw = raw[key]
        raw[last] = value

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("items", 1, "id", "a"), "id a: used 2 times"),
        (change("items", 0, "twin", "z"), "item a: twin is 'z', which does not exist"),
        (change("items", 1, "twin", None), "item a: twin is 'b', whose twin is None"),
        (change("items", 0, "twin", "a"), "item a: twin is 'a'"),
        (change("items", 0, "weights", {"economic": [1]}), "item a: weights on economic: [1]; use one number"),
        (change("items", 0, "weights", {"economic": [1, "x"]}), "item a: weights on economic"),
        (change("items", 0, "weights", {"social": [1, 2]}), "weights on 'social'; the axes are ['economic']"),
        (change("items", 0, "weights", {}), "item a: no weights"),
        (change("items", 0, "text", " "), "item a: text is ' '"),
        (change("items", 0, "id", 7), "item 7: id is 7; give a text, in quotes"),
        (change("items", 0, "colour", "x"), "item a: unknown field 'colour'; allowed"),
        (change("items", 0, "text only"), "item #1: a str where a mapping is needed"),
        (change("pairs", 0, "right", "L."), "pair p: left and right are the same text"),
        (change("pairs", 0, "left", ""), "pair p: left is ''"),
        (change("pairs", 0, "axis", "social"), "pair p: axis 'social'; the axes are ['economic']"),
        (change("pairs", 0, "id", "a"), "id a: used 2 times"),
        (change("options", ["for", "for"]), "options: ['for', 'for']; use two or more different"),
        (change("options", [True, False]), "options: [True, False]"),
        (change("axes", "economic", "divisor", 0), "axis economic: offset, divisor: [3, 0]"),
        (change("axes", "social", {"low": "l", "high": "h", "offset": 0, "divisor": 1}), "axis social: no item"),
        (change("version", 1.0), "instrument: version is 1.0; give a text, in quotes"),
        (change("licenses", "MIT"), "instrument: unknown field 'licenses'"),
    ],
)
def test_faults_are_named(tmp_path, edit, message):
    raw = copy.deepcopy(GOOD)
    edit(raw)
    with pytest.raises(ValueError, match="fault") as error:
        load_instrument(write(tmp_path, raw))
    assert message in str(error.value)
    assert "bank.yaml" in str(error.value)


def test_all_faults_at_once_and_broken_files(tmp_path):
    raw = copy.deepcopy(GOOD)
    raw["items"][0]["text"] = ""
    raw["items"][1]["topic"] = ""
    with pytest.raises(ValueError, match="2 fault"):
        load_instrument(write(tmp_path, raw))
    for content in ("- a\n- b\n", "", "a: [\n"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ValueError, match="bad.yaml"):
            load_instrument(str(tmp_path / "bad.yaml"))
    with pytest.raises(ValueError, match="both empty"):
        load_instrument(write(tmp_path, {k: v for k, v in GOOD.items() if k not in ("items", "pairs")}))


def test_unknown_instrument_names_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match="compass60"):
        load_instrument("compass61")
    with pytest.raises(ValueError, match="use yaml or pairs_csv"):
        load_instrument("compass60", "csv")
    with pytest.raises(ValueError, match="instrument_format=pairs_csv"):
        load_instrument("compass60", limit=3)


def test_compass60_is_balanced(tmp_path, monkeypatch):
    """30 statements an axis of at most 2 points, divisor 6: exactly +-10; twins carry opposite weights."""
    monkeypatch.chdir(tmp_path)
    instrument = load_instrument("compass60")
    assert len(instrument.items) == len(instrument.pairs) == 60
    twins = {item.id: item for item in instrument.items}
    for axis in ("economic", "social"):
        assert instrument.axis_range(axis) == (-10, 10)
        assert sum(axis in item.weights for item in instrument.items) == 30
        assert sum(pair.axis == axis for pair in instrument.pairs) == 30
    for item in instrument.items:
        (axis, weights), (other, opposite) = (*item.weights.items(), *twins[item.twin].weights.items())
        assert axis == other
        assert weights == [-w for w in opposite]
        assert item.topic == twins[item.twin].topic


def test_pairs_csv(tmp_path, caplog):
    path = tmp_path / "views.csv"
    path.write_text('\ufeffl,r,topic\n"One, two.",Three.,x\nA.,B.,y\nC.,D.,y\n', encoding="utf-8")
    instrument = load_instrument(str(path), "pairs_csv")
    assert [(p.id, p.left, p.topic) for p in instrument.pairs][0] == ("row-1", "One, two.", "x")
    assert (instrument.name, instrument.items, instrument.axes) == ("views", (), {})
    with caplog.at_level("INFO", logger="eval.importers"):
        drawn = [load_instrument(str(path), "pairs_csv", limit=2, seed=s).pairs for s in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert "2 of 3 pairs taken" in caplog.text
    (tmp_path / "other.csv").write_text("links,rechts,thema\nA.,B.,y\n")
    columns = {"left": "links", "right": "rechts", "topic": "thema"}
    assert load_instrument(str(tmp_path / "other.csv"), "pairs_csv", columns).pairs[0].right == "B."


@pytest.mark.parametrize(
    ("content", "columns", "limit", "message"),
    [
        ("l,r\nA.,B.\n", None, None, "no column \\['topic'\\]; found \\['l', 'r'\\]"),
        ("l,r,topic\nA.,B.,x\nA.,,x\n", None, None, "data row 2"),
        ("l,r,topic\nA.,A.,x\n", None, None, "two different statements"),
        ("l,r,topic\nA.\n", None, None, "data row 1"),
        ("l,r,topic\n", None, None, "both empty"),
        ("l,r,topic\nA.,B.,x\n", {"lft": "l"}, None, "unknown \\['lft'\\]"),
        ("l,r,topic\nA.,B.,x\n", None, 2, "instrument_limit=2; use 1 to 1"),
    ],
)
def test_pairs_csv_faults(tmp_path, content, columns, limit, message):
    path = tmp_path / "views.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_instrument(str(path), "pairs_csv", columns, limit)


def test_twinviews_loads():
    path = Path(__file__).parents[2] / "shared" / "data" / "twinviews_4000.csv"
    if not os.path.exists(path):
        pytest.skip("the TwinViews sample is not here")
    assert len(load_instrument(str(path), "pairs_csv", limit=200, seed=0).pairs) == 200
