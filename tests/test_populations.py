# SPDX-License-Identifier: MIT
"""What groups of people answered: read from an instrument's file or beside it, and refused where it cannot be meant."""

from copy import deepcopy

import pytest
import yaml

from eval.statements.instruments import load_instrument

BANK = {
    "name": "tiny",
    "version": "1",
    "licence": "MIT",
    "language": "en",
    "source": "this test",
    "axes": {"economic": {"low": "left", "high": "right", "offset": 0, "divisor": 1}},
    "options": ["against", "neither", "for"],
    "items": [
        {"id": "a", "text": "A.", "topic": "t", "weights": {"economic": [-1, 0, 1]}},
        {"id": "b", "text": "B.", "topic": "t", "weights": {"economic": [1, 0, -1]}},
    ],
}
SURVEY = {"wave": "2024", "licence": "CC0 1.0", "source": "a survey"}
SHARES = {"a": [0.2, 0.3, 0.5], "b": [0.33, 0.33, 0.33]}
POPULATIONS = {
    "voters": {**SURVEY, "groups": {"left": {"margins": {"a": -0.5}, "n": 90}, "right": {"margins": {"a": 1}}}},
    "people": {**SURVEY, "groups": {"all": {"shares": SHARES, "n": {"a": 10, "b": 12}}}},
}


def load(folder, populations, bank=BANK):
    path = folder / "bank.yaml"
    path.write_text(yaml.safe_dump({**bank, "populations": populations}))
    return load_instrument(str(path))


def test_shares_and_margins_are_read(tmp_path):
    read = load(tmp_path, POPULATIONS).populations
    assert list(read) == ["people", "voters"]
    assert not read["people"].has_margins
    assert read["people"].groups["all"].answers == SHARES
    assert read["people"].groups["all"].n == {"a": 10, "b": 12}
    assert read["voters"].has_margins
    assert [(g.answers, g.n) for g in read["voters"].groups.values()] == [({"a": -0.5}, 90), ({"a": 1}, None)]
    assert read["voters"][:3] == ("2024", "CC0 1.0", "a survey")


def test_a_file_beside_an_instrument_leaves_the_instrument_as_it_is(tmp_path):
    alone = load(tmp_path, None)
    assert not alone.populations
    (tmp_path / "bank.populations.yaml").write_text(yaml.safe_dump(POPULATIONS))
    beside = load(tmp_path, None)
    assert beside.sha256 == alone.sha256
    assert {*beside.populations} == {*POPULATIONS}
    with pytest.raises(ValueError, match="stand there and in .*put all of them into one"):
        load(tmp_path, POPULATIONS)


FAULTS = [
    (("voters",), [1], "voters: .*a list where a mapping with wave, licence, source, groups is needed"),
    (("voters", "country"), "US", "unknown country; allowed wave, licence, source, groups"),
    (("voters", "wave"), 2024, "voters.wave: 2024"),
    (("voters", "groups"), {}, "voters: no groups"),
    (("voters", "groups", "left"), 3, "voters.groups.left: 3; a int where a mapping with shares, margins, n is needed"),
    (("voters", "groups", "left", "margin"), {}, "unknown margin; allowed shares, margins, n"),
    (("voters", "groups", "left", "margins", "a"), 1.5, "voters.groups.left.margins.a: 1.5; .*less than or equal to 1"),
    (("voters", "groups", "left", "margins", "a"), "high", "voters.groups.left.margins.a: 'high'"),
    (("voters", "groups", "left", "n"), 0, "voters.groups.left.n: 0; .*greater than 0"),
    (("voters", "groups", "left", "shares"), SHARES, "voters.left: give shares, or margins"),
    (("voters", "groups", "left", "margins"), {}, "voters.left: give shares, or margins"),
    (("voters", "groups", "left", "margins"), {"c": 0}, "voters.left: the instrument has no entry c"),
    (("voters", "groups", "left", "margins", "b"), 0, "voters.right: other entries than its first group has"),
    (("voters", "groups", "new"), {"shares": {"a": [0, 0, 1]}}, "voters.new: other .*, or shares beside margins"),
    (("people", "groups", "all", "n", "c"), 4, "people.all: the instrument has no entry c"),
    (("people", "groups", "all", "shares", "a"), [0.5, 0.5], "people.all.a: 2 shares; use one per option, 3"),
    (("people", "groups", "all", "shares", "a"), [20, 30, 50], "people.groups.all.shares.a.0: 20; .*equal to 1"),
    (("people", "groups", "all", "shares", "a"), [0.2, 0.3, 0.4], "people.all.a: shares sum to 0.900"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS, ids=[message for *_, message in FAULTS])
def test_what_cannot_be_meant_is_refused(tmp_path, path, value, message):
    populations = deepcopy(POPULATIONS)
    place = populations
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=rf"bank.yaml: populations: \d fault\(s\)\n(.|\n)*{message}"):
        load(tmp_path, populations)


def test_every_fault_is_listed(tmp_path):
    group = {"shares": {"a": [1, 0], "b": [0.5, 0, 0]}, "n": -1}
    with pytest.raises(ValueError, match=r"1 fault.*\n  people.groups.all.n"):
        load(tmp_path, {"people": {**SURVEY, "groups": {"all": group}}})
    with pytest.raises(ValueError, match=r"2 fault.*\n  people.all.a: 2 shares.*\n  people.all.b: shares sum to 0.500"):
        load(tmp_path, {"people": {**SURVEY, "groups": {"all": {**group, "n": 1}}}})


def test_shares_need_options_that_are_one_scale(tmp_path):
    """Of "do not know" at an end of the options there is no distance to the others; margins do not ask for one."""
    bank = {**BANK, "options": ["against", "for", "do not know"]}
    bank["items"] = [{**item, "weights": {"economic": w}} for item, w in zip(BANK["items"], ([-1, 1, 0], [1, -1, 0]))]
    with pytest.raises(ValueError, match="people: shares need options that are one scale for every item"):
        load(tmp_path, POPULATIONS, bank)
    assert load(tmp_path, {"voters": POPULATIONS["voters"]}, bank).populations
