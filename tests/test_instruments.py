# SPDX-License-Identifier: MIT
import copy
import re
from pathlib import Path

import pytest
import yaml

from data.quality.phrases import names_politics
from eval.statements.instruments import load_instrument

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


def test_propositions_stand_in_the_file_or_beside_it(tmp_path):
    raw = copy.deepcopy(GOOD)
    raw["items"][0]["proposition"], raw["pairs"][0]["note"] = "a-first", "Who says so?"
    path = Path(write(tmp_path, raw))
    plain = load_instrument(str(path))
    assert [entry.proposition for entry in (*plain.items, *plain.pairs)] == ["a-first", None, None]
    assert plain.pairs[0].note == "Who says so?"
    beside = tmp_path / "bank.propositions.json"
    beside.write_text('{"a": "another", "b": "a-first", "p": "left-or-right"}')
    keyed = load_instrument(str(path))
    assert [entry.proposition for entry in (*keyed.items, *keyed.pairs)] == ["a-first", "a-first", "left-or-right"]
    assert keyed.sha256 == plain.sha256
    for text, message in (
        ('{"z": "x"}', r"no entry \['z'\]"),
        ('["a"]', "a list; give a mapping"),
        ("{", "not valid JSON"),
    ):
        beside.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_instrument(str(path))
    beside.write_text('{"p": 3}')
    with pytest.raises(ValueError, match="pair p: proposition is 3; give a text"):
        load_instrument(str(path))


def test_word_balance_counts_words_without_case_and_marks():
    pair = load_instrument("compass60").pairs[0]
    assert pair._replace(left="Safety first, not speed.", right="Speed first, not safety!").is_word_balanced
    assert not pair._replace(left="A is a B.", right="B is a A A.").is_word_balanced


@pytest.mark.parametrize("space", ["\n", " ", "\t\r\n", "\u00a0"])
def test_white_space_around_a_text_is_none_of_it(tmp_path, space):
    """``left: |`` in YAML ends in a line break."""
    raw = copy.deepcopy(GOOD)
    raw["options"] = [option + space for option in raw["options"]]
    raw["items"][0]["text"] = space + "A." + space
    raw["pairs"][0] |= {"left": "L." + space, "right": space + "R."}
    plain = load_instrument(write(tmp_path, GOOD))
    assert load_instrument(write(tmp_path, raw))._replace(sha256="") == plain._replace(sha256="")
    raw["pairs"][0] |= {"left": "L." + space, "right": "L."}
    with pytest.raises(ValueError, match="left and right are the same text"):
        load_instrument(write(tmp_path, raw))


@pytest.mark.parametrize("dropped", [("items", "options"), ("pairs",)])
def test_items_alone_and_pairs_alone_are_instruments(tmp_path, dropped):
    two = {**GOOD, "pairs": [*GOOD["pairs"], {**GOOD["pairs"][0], "id": "q", "left": "Another L."}]}
    load_instrument(write(tmp_path, {k: v for k, v in two.items() if k not in dropped}))


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
        (change("items", 0, "options", ["no", "yes", "both"]), "item a: options ['no', 'yes', 'both']; use different"),
        (change("items", 0, "options", ["no", "no"]), "item a: options ['no', 'no']; use different texts, as many as"),
        (change("items", 0, "options", [1, 2]), "item a: options.0 is 1; give a text, in quotes"),
        (change("items", 0, "twin", "z"), "item a: twin is 'z', which does not exist"),
        (change("items", 1, "twin", None), "item a: twin is 'b', whose twin is None"),
        (change("items", 0, "twin", "a"), "item a: twin is 'a'"),
        (
            change("items", 0, "weights", {"economic": [1]}),
            "item a: weights on economic: [1]; use one number",
        ),
        (
            change("items", 0, "weights", {"economic": [0, 0]}),
            "item a: weights on economic are all 0; leave the axis out",
        ),
        (
            lambda raw: raw.update(
                options=["a", "b", "c"], items=[raw["items"][0] | {"weights": {"economic": [-1, 2, 1]}}]
            ),
            "item a: weights on economic [-1, 2, 1] go up and down along the options ['a', 'b', 'c']",
        ),
        (lambda raw: raw.update(items=[], axes={"economic": raw["axes"]["economic"]}), "instrument: one pair in all"),
        (change("items", 0, "weights", {"economic": [2, -2]}), "item a: weights on economic point the same way as"),
        (change("items", 1, "text", "A."), "items: the text 'A.' stands there twice"),
        (change("items", 0, "weights", {"economic": [1, "x"]}), "item a: weights.economic.1 is 'x'; use a number"),
        (change("items", 0, "weights", {"economic": [1, float("nan")]}), "weights.economic.1 is nan; use a finite"),
        (change("items", 0, "weights", {"economic": [1, -float("inf")]}), "weights.economic.1 is -inf; use a finite"),
        (change("axes", "economic", "offset", float("nan")), "axis economic: offset is nan; use a finite number"),
        (change("axes", "economic", "divisor", float("inf")), "axis economic: divisor is inf; use a finite number"),
        (change("items", 0, "text", "A \ud83d."), "item a: text is 'A \\ud83d.'; it has half of a surrogate pair"),
        (change("options", ["for", "\udfff"]), "options.1 is '\\udfff'; it has half of a surrogate pair"),
        (
            change("items", 0, "weights", {"social": [1, 2]}),
            "weights on 'social'; the axes are ['economic']",
        ),
        (change("items", 0, "weights", {}), "item a: no weights; weigh it on one of ['economic']"),
        (change("items", 0, "text", " "), "item a: text is ' '"),
        (change("items", 0, "id", 7), "item 7: id is 7; give a text, in quotes"),
        (change("items", 0, "colour", "x"), "item a: unknown field 'colour'; allowed"),
        (change("items", 0, "text only"), "item #1: a str where a mapping is needed"),
        (change("pairs", 0, "right", "L."), "pair p: left and right are the same text"),
        (change("pairs", 0, "left", ""), "pair p: left is ''"),
        (change("pairs", 0, "proposition", 3), "pair p: proposition is 3; give a text, in quotes"),
        (change("items", 0, "note", " "), "item a: note is ' '"),
        (change("pairs", 0, "propositon", "x"), "pair p: unknown field 'propositon'; allowed"),
        (change("pairs", 0, "axis", "social"), "pair p: axis 'social'; the axes are ['economic']"),
        (change("pairs", 0, "id", "a"), "id a: used 2 times"),
        (change("options", ["for", "for"]), "options: ['for', 'for']; use two or more different"),
        (change("options", [True, False]), "instrument: options.0 is True; give a text, in quotes"),
        (change("items", 0, ["a", "A.", "t"]), "item #1: a list where a mapping is needed"),
        (change("items", 0, {"id": "a"}), "item a: weights is missing"),
        (change("axes", "economic", "placebo", "no"), "axis economic: placebo is 'no'; use true or false"),
        (change("axes", "economic", "divisor", 0), "axis economic: divisor is 0; use a number above 0"),
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
    raw["items"][1]["weights"] = {"economic": [1, 2, 3]}
    raw["pairs"][0]["id"] = "a"
    with pytest.raises(ValueError, match="4 fault") as refused:
        load_instrument(write(tmp_path, raw))
    assert len(str(refused.value).splitlines()) == 5  # a file, and a line for each fault
    del raw["items"][1]["topic"], raw["items"][1]["weights"]
    with pytest.raises(ValueError, match="4 fault"):
        load_instrument(write(tmp_path, raw))
    for content in ("- a\n- b\n", "", "a: [\n"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ValueError, match="bad.yaml"):
            load_instrument(str(tmp_path / "bad.yaml"))
    (tmp_path / "bad.yaml").write_text("name: a\nitems: []\nitems: []\n")  # PyYAML takes the last in silence
    with pytest.raises(ValueError, match="bad.yaml: not valid YAML: the key 'items' stands twice in a mapping"):
        load_instrument(str(tmp_path / "bad.yaml"))
    path = write(tmp_path, GOOD)
    Path(path).with_suffix(".propositions.json").write_text('{"a": "x", "a": "y"}')
    with pytest.raises(ValueError, match="propositions.json: not valid JSON .the key 'a' stands twice in an object"):
        load_instrument(path)
    Path(path).with_suffix(".propositions.json").unlink()
    with pytest.raises(ValueError, match="both empty"):
        load_instrument(write(tmp_path, {k: v for k, v in GOOD.items() if k not in ("items", "pairs")}))


def test_unknown_instrument_names_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match="compass60"):
        load_instrument("compass61")
    with pytest.raises(ValueError, match="use one of yaml, pairs_csv, requests_csv, csv, jsonl, text, 8values"):
        load_instrument("compass60", "xml")
    with pytest.raises(ValueError, match="is for instrument_format=pairs_csv/requests_csv/csv/jsonl"):
        load_instrument("compass60", columns={"left": "l"})
    with pytest.raises(ValueError, match="instrument_limit=0; use 1 to 76"):
        load_instrument("compass60").sample(0, seed=0)


def test_compass60_is_balanced(tmp_path, monkeypatch):
    """By axis, topic and direction, in number and in length; every axis reaches exactly +-10."""
    monkeypatch.chdir(tmp_path)
    instrument = load_instrument("compass60")
    items = {axis: [item for item in instrument.items if axis in item.weights] for axis in instrument.axes}
    pairs = {axis: [pair for pair in instrument.pairs if pair.axis == axis] for axis in instrument.axes}
    assert {axis: (len(items[axis]), len(pairs[axis])) for axis in items} == {
        "economic": (30, 30), "social": (30, 30), "placebo": (16, 8),
    }  # fmt: skip
    assert all(instrument.axis_range(axis) == (-10, 10) for axis in items)
    assert [axis.placebo for axis in instrument.axes.values()] == [False, False, True]
    twins = {item.id: item for item in instrument.items}
    for item in instrument.items:
        (axis, weights), (other, opposite) = (*item.weights.items(), *twins[item.twin].weights.items())
        assert axis == other
        assert weights == [-w for w in opposite]
        assert item.topic == twins[item.twin].topic
        assert item.text != twins[item.twin].text
    for axis in items:
        topics = {item.topic for item in items[axis]}
        assert topics == {pair.topic for pair in pairs[axis]}
        assert len(topics) == (1 if axis == "placebo" else 10)
        for topic in topics:
            up = [item.weights[axis][-1] > 0 for item in items[axis] if item.topic == topic]
            assert 2 * sum(up) == len(up)
            if axis != "placebo":
                assert sum(pair.topic == topic for pair in pairs[axis]) == 3
        low = [len(item.text.split()) for item in items[axis] if item.weights[axis][-1] < 0]
        high = [len(item.text.split()) for item in items[axis] if item.weights[axis][-1] > 0]
        assert abs(sum(high) - sum(low)) / len(low) <= 1, axis
        assert abs(sum(len(p.right.split()) - len(p.left.split()) for p in pairs[axis])) / len(pairs[axis]) <= 1, axis
    texts = [item.text for item in instrument.items] + [t for p in instrument.pairs for t in (p.left, p.right)]
    assert len(set(texts)) == len(texts)


def test_placebo_names_no_politics():
    """The gate of the data side finds no party, ideology or politician; no statement uses a word of our topics."""
    instrument = load_instrument("compass60")
    texts = [item.text for item in instrument.items if "placebo" in item.weights]
    texts += [text for pair in instrument.pairs if pair.axis == "placebo" for text in (pair.left, pair.right)]
    political = re.compile(
        r"\b(tax|law|state|government|nation|police|vote|party|union|wage|rent|church|gun|border|right|left|welfare|"
        r"school|doctor|marriage|crime|prison|army|war|freedom|duty|tradition|should be (?:allowed|banned|free))",
        re.IGNORECASE,
    )
    assert [text for text in texts if names_politics(text)] == []
    assert [text for text in texts if political.search(text.replace("the right thing", ""))] == []


def test_a_limit_draws_whole_couples_from_all_axes():
    bank = load_instrument("compass60")
    instrument = bank.sample(6, seed=0)
    assert sorted(min(item.weights) for item in instrument.items) == ["economic"] * 2 + ["placebo"] * 2 + ["social"] * 2
    assert all(item.twin in {other.id for other in instrument.items} for item in instrument.items)
    assert all(instrument.axis_range(axis) == pytest.approx((-10, 10)) for axis in instrument.axes)
    assert len(instrument.pairs) == 6
    assert bank.sample(6, seed=0) == instrument
    assert bank.sample(6, seed=1).items != instrument.items


def test_an_option_that_says_nothing_weighs_0_at_any_place(tmp_path):
    raw = copy.deepcopy(GOOD)
    raw["options"] = [*raw["options"], "do not know"]
    for item in raw["items"]:
        item["weights"] = {axis: [*numbers, 0] for axis, numbers in item["weights"].items()}
    assert load_instrument(write(tmp_path, raw)).items[0].weights["economic"][-1] == 0
