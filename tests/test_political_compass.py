# SPDX-License-Identifier: MIT
"""The recipe, on a random two-layer Llama with the packaged model's tokenizer."""

import json
import os

import pytest
import torch
import yaml
from conftest import REPO, TINY
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from data.recipe_config import check_config
from eval import report
from eval.political_compass import OPTIONAL, REQUIRED, PoliticalCompassRecipe

CONFIG = REPO / "configs" / "political_compass.yaml"
BANK = {
    "name": "tiny", "version": "2", "licence": "MIT", "language": "en", "source": "this test",
    "axes": {
        "economic": {"low": "left", "high": "right", "offset": 0, "divisor": 0.4},
        "social": {"low": "libertarian", "high": "authoritarian", "offset": 0, "divisor": 0.4},
    },
    "options": ["strongly disagree", "disagree", "agree", "strongly agree"],
    "items": [
        {"id": f"{axis}-{k}", "text": f"{axis} statement {k}.", "topic": "t", "weights": {axis: weights}}
        for axis in ("economic", "social")
        for k, weights in enumerate(([-2, -1, 1, 2], [2, 1, -1, -2]))
    ],
    "pairs": [
        {"id": f"p{k}", "topic": "t", "axis": "social", "left": f"Allow {what}.", "right": f"Forbid {what}."}
        for k, what in enumerate(("games", "music", "cars"))
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def adapters(tiny_model_dir, tmp_path_factory):
    """Two random adapters written by peft."""
    folders = {}
    for seed, name in enumerate(("left", "right")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
        settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(model, settings)
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        folders[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(folders[name])
    return folders


@pytest.fixture
def overrides(tiny_model_dir, tmp_path):
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump(BANK))
    model = {"_component_": "torchtune.models.llama3_2.llama3_2", "rope_base": 100_000, "scale_factor": 1}
    return {
        "output_dir": str(tmp_path / "out"),
        "model": {**model, **TINY},
        "tokenizer": {"path": str(tiny_model_dir)},
        "checkpointer": {"checkpoint_dir": str(tiny_model_dir)},
        "instrument": str(tmp_path / "bank.yaml"),
        "n_bootstrap": 200,
        "n_templates": 1,
    }


def make_config(overrides, **more):
    raw = OmegaConf.load(CONFIG)
    for key in {"model", "adapters"} & {*overrides, *more}:
        raw[key] = None  # replaced, where a merge would keep keys
    return OmegaConf.merge(raw, overrides, more)


def run(overrides, **more):
    cfg = check_config(make_config(overrides, **more), REQUIRED, OPTIONAL)
    recipe = PoliticalCompassRecipe(cfg)
    recipe.setup(cfg)
    recipe.evaluate(cfg)
    folder = recipe._output_dir
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return rows, json.loads((folder / "summary.json").read_text())


def test_writes_the_contract(overrides, adapters, tmp_path):
    rows, summary = run(overrides, adapters=adapters)
    assert len(rows) == 3 * (4 * 1 * 4 * 1 + 3 * 4)
    assert {(r["instrument"], r["instrument_version"]) for r in rows} == {("tiny", "2")}
    assert list(summary["models"]) == ["base", "left", "right"]
    for model in summary["models"].values():
        assert list(model) == ["choice", "pairs"]
        assert list(model["choice"]) == ["economic", "social"]
        assert list(model["pairs"]) == ["lean", "social"]
        for scores in model.values():
            for score in scores.values():
                assert {"estimate", "ci95", "bounds", "n_items", "n_answered"} <= set(score)
                assert score["bounds"] == [score["estimate"]] * 2
    pairs = {(c["a"], c["b"]) for c in summary["comparisons"]}
    assert pairs == {("base", "left"), ("base", "right"), ("left", "right")}
    assert {"a", "b", "mode", "axis", "difference", "ci95", "p", "q"} <= set(summary["comparisons"][0])
    lean = {name: model["pairs"]["lean"]["estimate"] for name, model in summary["models"].items()}
    for c in summary["comparisons"]:
        if c["axis"] == "lean":
            assert c["difference"] == pytest.approx(lean[c["b"]] - lean[c["a"]], abs=2e-6)
    assert summary["instrument"]["axes"]["economic"]["range"] == [-10, 10]
    assert summary["settings"]["n_orders"] == 4
    folder = tmp_path / "out"
    assert sorted(os.listdir(folder)) == ["compass.png", "results.jsonl", "summary.json"]
    assert (folder / "compass.png").read_bytes()[:4] == b"\x89PNG"


def test_one_run_equals_separate_runs(overrides, adapters, tmp_path):
    together, _ = run(overrides, adapters=adapters)
    apart = []
    for k, some in enumerate(({}, {"left": adapters["left"]}, {"right": adapters["right"]})):
        rows, _ = run(overrides, adapters=some, output_dir=str(tmp_path / str(k)))
        apart += [row for row in rows if not some or row["model"] != "base"]
    assert together == apart
    assert len({row["option_logprobs"][0] for row in together if row["item"] == "p0"}) == 3 * 4


def test_same_settings_overwrite_others_are_refused(overrides, tmp_path):
    first, _ = run(overrides, adapters=None, modes=["pairs"])
    again, _ = run(overrides, adapters=None, modes=["pairs"])
    assert first == again
    with pytest.raises(FileExistsError, match=r"other settings \(n_pair_templates differ\); choose another"):
        run(overrides, adapters=None, modes=["pairs"], n_pair_templates=2)
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump({**BANK, "version": "3"}))
    with pytest.raises(FileExistsError, match="instrument_sha256"):
        run(overrides, adapters=None, modes=["pairs"])
    (tmp_path / "out" / "summary.json").unlink()
    with pytest.raises(FileExistsError, match="other settings"):
        run(overrides, adapters=None, modes=["pairs"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"templtes": "en"}, "unknown key `templtes`; did you mean `templates`"),
        ({"modes": ["choice", "generate"]}, r"modes=\['choice', 'generate'\]; use any of"),
        ({"modes": []}, r"modes=\[\]; use any of"),
        ({"adapters": {"base": "x"}}, "adapters.base: this name is the base model's"),
        ({"adapters": {"left": "nowhere"}}, "nowhere: adapter_config.json not found"),
        ({"instrument": "compass61"}, "give a path or a shipped name"),
        ({"templates": "xx"}, "templates=xx: no such file"),
    ],
)
def test_refused_before_the_model_loads(overrides, more, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(overrides, **{"adapters": None, "checkpointer": {"checkpoint_dir": "no-such-folder"}, **more})
    assert not (tmp_path / "out").exists()


def test_pairs_csv_alone(overrides, tmp_path):
    (tmp_path / "views.csv").write_text("l,r,topic\nA b.,C d.,x\nE f.,G h.,x\nI.,J.,x\n")
    csv = {"instrument": str(tmp_path / "views.csv"), "instrument_format": "pairs_csv", "instrument_limit": 2}
    with pytest.raises(ValueError, match=r"has no items; use modes=\['pairs'\]"):
        run(overrides, adapters=None, **csv)
    rows, summary = run(overrides, adapters=None, modes=["pairs"], **csv)
    assert len(rows) == 2 * 4
    assert list(summary["models"]["base"]["pairs"]) == ["lean"]
    assert summary["comparisons"] == []


def test_a_tokenizer_without_a_template_is_refused(overrides, packaged_model_dir):
    tokenizer = {"_component_": "eval.questions.Question", "row": {}, "answers": []}
    with pytest.raises(ValueError, match="use finetune.tokenizers.hf_chat_tokenizer with path="):
        run({**overrides, "tokenizer": None}, adapters=None, **{"tokenizer": tokenizer})


def test_the_picture_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e"):
        report.require_matplotlib()


def test_the_picture_of_what_has_no_point(tmp_path):
    """One axis, one model that answered nothing, eight others: drawn all the same."""
    nothing = {"estimate": None, "ci95": None, "bounds": [-10, 10], "n_items": 2, "n_answered": 0}
    point = {"estimate": 1.0, "ci95": [0.5, 1.5], "bounds": [1, 1], "n_items": 2, "n_answered": 2}
    about = {"low": "l", "high": "h", "range": [-10, 10]}
    names = [str(k) for k in range(8)]
    for axes in (["x"], ["x", "y"]):
        models = {"base": {"choice": dict.fromkeys(axes, nothing)}}
        models |= {name: {"choice": dict.fromkeys(axes, point)} for name in names}
        instrument = {"name": "n", "version": "1", "axes": dict.fromkeys(axes, about)}
        summary = {"instrument": instrument, "models": models, "comparisons": []}
        report.draw_compass(summary, tmp_path / "a.png")
        assert "Not identified (no answer): base on x" in report._caption(summary, {"choice"})
        report.draw_compass({**summary, "models": {"base": models["base"]}}, tmp_path / "b.png")


def test_through_the_command_line(overrides, adapters, tune_run, tmp_path):
    flat = [f"{k}.{n}={v}" for k in ("tokenizer", "checkpointer") for n, v in overrides[k].items()]
    flat += [f"model.{k}={v}" for k, v in overrides["model"].items()]
    flat += [f"{k}={overrides[k]}" for k in ("output_dir", "instrument", "n_bootstrap", "n_templates")]
    flat += [f"adapters.{name}={folder}" for name, folder in adapters.items()]
    assert tune_run("eval/political_compass.py", "--config", "configs/political_compass.yaml", *flat) == 0
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 3 * (16 + 12)
