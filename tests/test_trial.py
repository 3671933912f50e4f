# SPDX-License-Identifier: MIT
"""Whether a base model can answer with an option, on a random two-layer Llama and on planted answers."""

import json

import pytest
import yaml
from test_political_compass import BANK, adapters, make_config, overrides, run  # noqa: F401

from data.recipe.config import check_config
from eval.asking import trial
from eval.political_compass import OPTIONAL, REQUIRED, PoliticalCompassRecipe

COUPLES = [
    {"id": f"{way}{k}", "text": text.format(what), "topic": "t", "weights": {"social": weights}, "twin": f"{other}{k}"}
    for k, what in enumerate(("games", "music", "cars", "tea", "the sea and all that is in it", "old bridges"))
    for way, other, text, weights in (
        ("a", "b", "The state should forbid {}.", [-2, -1, 1, 2]),
        ("b", "a", "The state should allow {}.", [2, 1, -1, -2]),
    )
]


@pytest.fixture
def asked(overrides, tmp_path):  # noqa: F811
    (tmp_path / "couples.yaml").write_text(
        yaml.safe_dump(BANK | {"items": COUPLES, "axes": {"social": BANK["axes"]["social"]}})
    )
    return overrides | {"instrument": str(tmp_path / "couples.yaml"), "choice_trial": 5}


@pytest.mark.usefixtures("unrendered")
def test_a_model_that_answers_opposites_alike_is_not_asked_by_choice(asked, adapters, tmp_path):  # noqa: F811
    _, summary = run(asked, adapters=adapters)
    found = json.loads((tmp_path / "out" / "trial.json").read_text())
    assert found["left_out"]
    assert found["n_couples"] == 5
    assert {row["mode"] for row in read(tmp_path)} == {"pairs"}
    (line,) = summary["warnings"]
    assert "left out" in line
    assert "5 couples on trial" in line
    assert "choice_trial=null" in line
    assert all({*modes} == {"pairs"} for modes in summary["models"].values())

    (tmp_path / "out" / "trial.json").write_text(json.dumps(found | {"left_out": False}))  # goes on as it began
    assert "choice" in run(asked, adapters=adapters)[1]["models"]["base"]
    (tmp_path / "out" / "trial.json").write_text(json.dumps(found))
    rows = str(tmp_path / "out" / "results.jsonl")
    cfg = make_config(asked, rows=rows, output_dir=str(tmp_path / "anew"))
    cfg = check_config(cfg, REQUIRED, OPTIONAL)
    PoliticalCompassRecipe(cfg).rescore(cfg)
    assert json.loads((tmp_path / "anew" / "summary.json").read_text())["warnings"][-1] == line


def test_a_model_that_reads_is_asked_and_a_mode_alone_needs_no_trial(asked, monkeypatch, tmp_path):
    def reads(decoder, name, questions, n):
        def row(k, question):
            agrees = question.row["item"].startswith("a")
            return {
                **question.row, "model": name, "option_mass": 1.0, "choice": 0,
                "option_logprobs": [-1.0 - 0.1 * k * (j < 2) - (2 if (j < 2) == agrees else 0) for j in range(4)],
            }  # fmt: skip

        return [row(k % 3, question) for k, question in enumerate(questions)]

    monkeypatch.setattr(trial, "answer_questions", reads)
    assert {*run(asked, adapters=None)[1]["models"]["base"]} == {"choice", "pairs"}
    assert not json.loads((tmp_path / "out" / "trial.json").read_text())["left_out"]
    alone = tmp_path / "alone"
    assert {*run(asked | {"modes": ["choice"], "output_dir": str(alone)}, adapters=None)[1]["models"]["base"]} == {
        "choice"
    }
    assert not (alone / "trial.json").exists()


def test_a_bank_without_couples_cannot_try(asked, overrides, tmp_path):  # noqa: F811
    run(asked | {"instrument": overrides["instrument"]}, adapters=None)
    assert json.loads((tmp_path / "out" / "trial.json").read_text()) == {
        "n_couples": 0, "flags": [], "left_out": False,
    }  # fmt: skip


def read(folder):
    return [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
