# SPDX-License-Identifier: MIT
"""A judge is fitted on labels, measured on held-out topics, and used under the same floor as every judge."""

import json
import shutil

import pytest
from omegaconf import OmegaConf
from test_validate_judge import WORDS

from data.judging.judges import Text
from data.judging.scales import STANCE
from data.recipe.files import to_jsonl
from eval.judges import build_judges


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("labelled") / "labelled.jsonl"
    rows = [
        {"text": f"Tea is {word} {word}, {word}, {word} to {k}.", "label": label, "topic": f"t{k}", "about": "tea"}
        for k in range(12) for label, word in WORDS.items()
    ]  # fmt: skip
    path.write_text(to_jsonl(rows))
    return path


@pytest.fixture
def train(labelled, tiny_model_dir, tmp_path, tune_run):
    def run(*more):
        arguments = [f"source={labelled}", f"output_dir={tmp_path / 'judge'}", f"encoder.folder={tiny_model_dir}"]
        arguments += [
            "columns.target=about",
            "columns.topic=topic",
            "n_folds=4",
            "strengths=[1,100]",
            "n_bootstrap=200",
        ]
        return tune_run("eval/train_judge.py", "--config", "configs/train_judge.yaml", *arguments, *more)

    return run


def entry(folder, **more):
    return {"_component_": "eval.judges.trained_judge", "folder": str(folder), **more}


def test_a_judge_is_fitted_measured_and_used(train, tmp_path, tiny_model_dir):
    """The labels are words, which even the vectors of a random encoder tell; the validation is about this judge."""
    assert train() == 0
    folder = tmp_path / "judge"
    written = json.loads((folder / "validation.json").read_text())
    found = written["judges"]["trained"]
    assert found["kappa"]["estimate"] > 0.8
    assert found["believed"]
    assert found["n"] == sum(fold["n_texts"] for fold in written["folds"]) == 72
    assert written["n_topics"] == 12
    card = (folder / "README.md").read_text()
    assert "It is **believed**" in card
    assert "| refusal | declines | 12 |" in card
    (judge,) = build_judges(OmegaConf.create({"mine": entry(folder, validation=str(folder / "validation.json"))}))
    assert judge.scale == STANCE
    assert judge.validation == found
    new = [Text("Milk is dreadful dreadful, dreadful. It is dreadful for 99.", "milk"), Text("", "milk")]
    said = list(judge.ask(new))
    assert said[0].label == "5"
    assert set(said[0].raw) == set(STANCE.classes)
    assert said[1].label in STANCE.classes
    assert list(judge.ask([])) == []
    assert [x.label for x in judge.ask(new)] == [x.label for x in said]
    # the same encoder elsewhere is the same judge, another one is none
    moved = shutil.copytree(tiny_model_dir, tmp_path / "moved")
    encoder = {"_component_": "data.text_models.TextEncoder", "folder": str(moved), "max_tokens": 256}
    (again,) = build_judges(OmegaConf.create({"a": entry(folder, encoder=encoder)}))
    assert again.identity == judge.identity
    with pytest.raises(ValueError, match="is not the one that it was fitted on"):
        build_judges(OmegaConf.create({"a": entry(folder, encoder=encoder | {"max_tokens": 9})}))
    with pytest.raises(FileNotFoundError, match="the encoder's folder .*gone is not there"):
        build_judges(OmegaConf.create({"a": entry(folder, encoder=encoder | {"folder": str(tmp_path / "gone")})}))


def test_a_judge_that_learned_nothing_is_not_believed(train, labelled, tmp_path):
    """Labels that the text does not tell: the figures of held-out topics say so, and the floor holds."""
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    mixed = [row | {"label": list(WORDS)[(5 * k + k // 7) % 6]} for k, row in enumerate(rows)]
    path = tmp_path / "mixed.jsonl"
    path.write_text(to_jsonl(mixed))
    assert train(f"source={path}") == 0
    found = json.loads((tmp_path / "judge" / "validation.json").read_text())["judges"]["trained"]
    assert found["kappa"]["estimate"] < 0.3
    assert not found["believed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scale=lean", "columns.target=null"], "its labels are numbers and people name sides; use scale=coverage"),
        (["columns.target=null", "columns.topic=null", "scale=hedging"], "name the column of topics"),
        (["columns.topic=gone"], "row 1: gone is empty or not there; every text needs a topic"),
        (["n_folds=30"], "12 topics for 30 folds"),
        (["n_folds=1"], "n_folds=1; use 2 or more"),
        (["strengths=[0]"], "strengths=[0]; give numbers above 0"),
    ],
)
def test_what_is_wrong_is_said(train, arguments, message):
    assert message in str(train(*arguments))


def test_a_judge_that_was_not_fitted_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="judge.json not found; fit one with eval/train_judge.py"):
        build_judges(OmegaConf.create({"a": entry(tmp_path)}))
