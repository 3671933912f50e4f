# SPDX-License-Identifier: MIT
"""Published surveys become an instrument that the user keeps: tiny files in the form of the real ones."""

import json
import re
import zipfile

import pytest

from eval.statements.instruments import load_instrument

ISSUES = (
    "topic_id,topic_neutral,topic_pro,topic_con\n"
    "7,tea,tea being good,tea being bad\n"
    "8,rain,rain being good,rain being bad\n"
)
MARGINS = [
    {"topic_id": "8", "topic": "rain", "democrats": 0.5, "republicans": -0.25, "all_voters": 0.1},
    {"topic_id": "7", "topic": "tea", "democrats": -0.5, "republicans": 0.75, "all_voters": 0.1},
]
QUESTIONS = """
questions:
  - {id: mood, label: Mood, text: "Is it {options}?", options: [good, so-so, bad]}
  - {id: age, label: Age, text: "How old?", options: [young, old]}
  - {id: view, label: View, text: "Where do you stand?", options: [left, middle, right]}
"""
FACETS = "labels: {pattern: '^(?P<sex>[^|]+)\\|(?P<age>[^|]+)$'}"
CELLS = {
    ("F|old", 30): {"mood": [0.5, 0.5, 0], "view": [1, 0, 0], "age": [0, 1]},
    ("F|young", 10): {"mood": [0, 0.5, 0.5], "view": [0, 0, 1], "age": [1, 0]},
    ("M|old", 40): {"mood": [0.25, 0.25, 0.5], "view": [0, 1, 0], "age": [0, 1]},
}
OPTIONS = {"mood": ["good", "so-so", "bad"], "view": ["left", "middle", "right"], "age": ["young", "old"]}


def cells(left_out=()):
    lines = ["cell_id,question,option,share,n,source"]
    for (cell, n), questions in CELLS.items():
        for name, shares in questions.items():
            options = zip(OPTIONS[name], shares)
            lines += [f"{cell},{name},{o},{x},{n},survey" for o, x in options if (cell, name, o) not in left_out]
    return "\n".join(lines)


@pytest.fixture
def run(tune, tmp_path, caplog):
    def run(source):
        caplog.clear()
        config = ["--config", "configs/import_populations.yaml"]
        done = tune(
            ["run", "eval/import_populations.py", *config, f"source={source}", f"output_dir={tmp_path / 'out'}"]
        )
        return done, caplog.text

    return run


@pytest.fixture
def margins(tmp_path):
    folder = tmp_path / "margins"
    folder.mkdir()
    (folder / "issues.csv").write_text(ISSUES)
    (folder / "party_margins.json").write_text(json.dumps(MARGINS))
    return folder


@pytest.fixture
def wheel(tmp_path):
    def make(**changed):
        files = {"survey_cells.csv": cells(), "questions.yaml": QUESTIONS, "facets.yaml": FACETS} | changed
        path = tmp_path / "popfidelity-9.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(f"popfidelity/data/ces/{name}", text)
        return path

    return make


def test_margins_of_voters_become_an_instrument_that_points_to_neither_party(run, margins, tmp_path):
    assert run(margins)[0] == 0
    instrument = load_instrument(str(tmp_path / "out" / "issuebench20.yaml"))
    assert [(item.id, item.text, item.weights) for item in instrument.items] == [
        ("8", "rain being good", {"party": [1, 0, -1]}),
        ("7", "tea being good", {"party": [-1, 0, 1]}),
    ]
    assert instrument.axis_range("party") == (-10, 10)
    assert instrument.bank is None
    groups = instrument.populations["iSideWith"].groups
    assert {name: dict(group.answers) for name, group in groups.items()} == {
        "democrats": {"8": 0.5, "7": -0.5},
        "republicans": {"8": -0.25, "7": 0.75},
        "all_voters": {"8": 0.1, "7": 0.1},
    }


def test_issues_with_templates_are_a_bank_too(run, margins, tmp_path):
    (margins / "templates_300.csv").write_text("template_id,template_text\n1,Write about X.\n")
    assert run(margins)[0] == 0
    bank = load_instrument(str(tmp_path / "out" / "issuebench20.yaml")).bank
    assert [(issue.id, issue.wordings["neutral"], issue.target) for issue in bank.issues] == [
        ("8", "rain", "rain being good"),
        ("7", "tea", "tea being good"),
    ]
    assert bank.templates == {"1": "Write about X."}


def test_cells_in_a_wheel_become_groups_that_count_by_their_respondents(run, wheel, tmp_path):
    """Everybody's mood: good (.5 x 30 + 0 x 10 + .25 x 40) / 80 = .3125, and so on; women's: 15 / 40 = .375."""
    done, said = run(wheel())
    assert done == 0
    assert "left out: age (2), since the questions of an instrument have one number of options, 3" in said
    instrument = load_instrument(str(tmp_path / "out" / "ces2024.yaml"))
    assert [(item.id, item.text, item.options) for item in instrument.items] == [
        ("mood", "Is it …?", ("good", "so-so", "bad")),
        ("view", "Where do you stand?", ("left", "middle", "right")),
    ]
    groups = instrument.populations["CES"].groups
    assert list(groups) == ["all", "age: old", "age: young", "sex: F", "sex: M"]
    assert groups["all"].shares == {"mood": [0.3125, 0.375, 0.3125], "view": [0.375, 0.5, 0.125]}
    assert groups["sex: F"].shares["mood"] == [0.375, 0.5, 0.125]
    assert groups["sex: F"].n == {"mood": 40, "view": 40}
    assert groups["age: young"].shares["view"] == [0, 0, 1]


def test_what_a_user_changed_is_not_overwritten(run, margins, tmp_path):
    assert run(margins)[0] == run(margins)[0] == 0
    path = tmp_path / "out" / "issuebench20.yaml"
    path.write_text(path.read_text() + "# mine\n")
    assert "is another one; choose another output_dir" in run(margins)[0]
    assert path.read_text().endswith("# mine\n")


BAD = [
    ({"survey_cells.csv": cells([("M|old", "mood", "bad")])}, r"M\|old, mood has \['good', 'so-so'\]"),
    ({"survey_cells.csv": cells().replace("M|old", "M")}, "M, mood has"),
    ({"survey_cells.csv": cells().replace(",view,", ",vista,")}, "vista has"),
    ({"survey_cells.csv": cells().replace(",share,", ",part,")}, "no column share; it has cell_id"),
]


@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_cells_that_are_not_as_the_questions_say_are_refused(run, wheel, changed, message):
    assert re.search(message, str(run(wheel(**changed))[0]))


def test_a_source_without_a_survey_is_refused(run, margins, tmp_path):
    (margins / "issues.csv").write_text(ISSUES.replace("8,rain", "9,rain"))
    for source, message in ((tmp_path, "survey_cells.csv: not there; source names a folder"), (margins, "no issue 8")):
        assert message in str(run(source)[0])


def test_what_lies_beside_the_new_file_is_read_in_the_trial(run, margins, tmp_path):
    """The trial is in another folder: a file beside the true place would make the instrument unreadable there."""
    beside = tmp_path / "out" / "issuebench20.populations.yaml"
    beside.parent.mkdir()
    beside.write_text("{}")
    done, said = run(margins)
    assert re.search(r"nothing written: \S+/out/issuebench20.yaml: populations stand there and in", str(done))
    assert [file.name for file in beside.parent.iterdir()] == [beside.name]
    beside.unlink()
    (tmp_path / "out" / "issuebench20.propositions.json").write_text('{"7": "tea-good"}')
    assert run(margins)[0] == 0
    loaded = load_instrument(str(tmp_path / "out" / "issuebench20.yaml"))
    assert {item.id: item.proposition for item in loaded.items} == {"7": "tea-good", "8": None}
