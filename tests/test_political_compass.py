# SPDX-License-Identifier: MIT
"""The recipe, on a random two-layer Llama with the packaged model's tokenizer."""

import copy
import json
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from conftest import REPO, TINY
from engine_server import EngineServer
from fault_server import FaultServer
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from data.recipe.config import check_config
from eval.asking import respond, results
from eval.asking.results import read_settings
from eval.pages import compass
from eval.political_compass import OPTIONAL, REQUIRED, PoliticalCompassRecipe
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates
from finetune.adapters.resident import AdaptedModel
from finetune.tokenizers import hf_chat_tokenizer

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


@pytest.fixture(scope="module")
def adapted(tiny_model_dir, adapters, tmp_path_factory):
    """The tiny model with both adapters, for a server."""
    cfg = OmegaConf.create(tiny_settings(tiny_model_dir, tmp_path_factory.mktemp("adapted")))
    return AdaptedModel(
        respond.load_base(make_config(cfg), torch.device("cpu"), torch.float32), adapters, tiny_model_dir
    )


def tiny_settings(tiny_model_dir, folder):
    (folder / "bank.yaml").write_text(yaml.safe_dump(BANK))
    model = {"_component_": "torchtune.models.llama3_2.llama3_2", "rope_base": 100_000, "scale_factor": 1}
    return {
        "output_dir": str(folder / "out"),
        "model": {**model, **TINY},
        "tokenizer": {"path": str(tiny_model_dir)},
        "checkpointer": {"checkpoint_dir": str(tiny_model_dir)},
        "instrument": str(folder / "bank.yaml"),
        "modes": ["choice", "pairs"],
        "n_pair_templates": 4,
        "n_bootstrap": 200,
        "n_templates": 1,
        "n_orders": 4,
    }


@pytest.fixture
def overrides(tiny_model_dir, tmp_path):
    return tiny_settings(tiny_model_dir, tmp_path)


class WholeRun(NamedTuple):
    folder: Path
    rows: list
    summary: dict
    n_forwards: int


@pytest.fixture(scope="module")
def whole_run(tiny_model_dir, adapters, tmp_path_factory):
    """Base and both adapters, nothing stopped."""
    settings, n_forwards = tiny_settings(tiny_model_dir, tmp_path_factory.mktemp("whole")), []
    with pytest.MonkeyPatch.context() as patch:
        ask = respond.read_logprobs
        patch.setattr(respond, "read_logprobs", lambda *a: n_forwards.append(1) or ask(*a))
        rows, summary = run(settings, draw=True, adapters=adapters, max_tokens_per_forward=200)
    return WholeRun(Path(settings["output_dir"]), rows, summary, len(n_forwards))


def make_config(overrides, **more):
    raw = OmegaConf.load(CONFIG)
    for key in {"model", "adapters"} & {*overrides, *more}:
        raw[key] = None  # replaced, where a merge would keep keys
    return OmegaConf.merge(raw, overrides, more)


def run(overrides, draw=False, **more):
    cfg = check_config(make_config(overrides, **more), REQUIRED, OPTIONAL)
    recipe = PoliticalCompassRecipe(cfg)
    if not draw:  # what takes longest
        recipe._draw = lambda *_: None
    recipe.setup(cfg)
    recipe.evaluate(cfg)
    folder = recipe._output_dir
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return rows, json.loads((folder / "summary.json").read_text())


def test_writes_the_contract(whole_run):
    folder, rows, summary, _ = whole_run
    assert len(rows) == 3 * (4 * 1 * 4 * 1 + 3 * 4)
    assert {(r["instrument"], r["instrument_version"]) for r in rows} == {("tiny", "2")}
    assert list(summary["models"]) == ["base", "left", "right"]
    for model in summary["models"].values():
        assert list(model) == ["choice", "pairs"]
        assert list(model["choice"]) == ["economic", "social"]
        assert list(model["pairs"]) == ["lean"]  # all on one axis
        for scores in model.values():
            for score in scores.values():
                assert {"estimate", "ci95", "bounds", "n_items", "n_answered"} <= set(score)
                assert score["bounds"] == [score["estimate"]] * 2
                assert score["ci95_items_fixed"] is None  # too few prompts to speak of others
                assert "ci95_items_fixed" in score["no_interval"]
    pairs = {(c["a"], c["b"]) for c in summary["comparisons"]}
    assert pairs == {("base", "left"), ("base", "right"), ("left", "right")}
    assert {"a", "b", "mode", "axis", "difference", "ci95", "p", "q"} <= set(summary["comparisons"][0])
    lean = {name: model["pairs"]["lean"]["estimate"] for name, model in summary["models"].items()}
    for c in summary["comparisons"]:
        if c["axis"] == "lean":
            assert c["difference"] == pytest.approx(lean[c["b"]] - lean[c["a"]], abs=2e-6)
    assert summary["instrument"]["axes"]["economic"]["range"] == [-10, 10]
    assert summary["settings"]["n_orders"] == 4
    assert all(row["instrument_sha256"] == summary["instrument"]["sha256"] for row in rows)
    files = ["compass.png", "compass.svg", "report.html", "results.jsonl", "settings.json", "summary.json"]
    assert sorted(os.listdir(folder)) == files
    assert (folder / "compass.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (folder / "compass.svg").read_text()
    assert "economic statement 0." in (folder / "report.html").read_text()


def test_one_run_equals_separate_runs(whole_run, overrides, adapters, tmp_path):
    overrides["max_tokens_per_forward"] = 200
    apart, _ = run(overrides, adapters={"left": adapters["left"]})
    rows, _ = run(overrides, adapters={"right": adapters["right"]}, output_dir=str(tmp_path / "right"))
    apart += [row for row in rows if row["model"] != "base"]
    assert whole_run.rows == apart
    assert len({row["option_logprobs"][0] for row in apart if row["item"] == "p0"}) == 3 * 4


def test_in_bf16_the_answers_are_those_of_fp32_but_for_rounding(whole_run, overrides, adapters, tmp_path, monkeypatch):
    gains = iter([2.0])
    monkeypatch.setattr("finetune.run.precision.measure_gain", lambda *_: next(gains))
    settings = {"adapters": adapters, "dtype": "auto", "max_tokens_per_forward": 200, "output_dir": str(tmp_path / "b")}
    rows, _ = run(overrides, **settings)
    assert json.loads((tmp_path / "b" / "settings.json").read_text())["dtype"] == "bf16"
    exact = {results.row_key(row): row for row in whole_run.rows}
    assert len(rows) == len(exact)
    differences = []
    for row in rows:
        wanted = exact[results.row_key(row)]
        for a, b, n in zip(row["option_logprobs"], wanted["option_logprobs"], row["n_tokens"], strict=True):
            differences.append(abs(a - b) / n)
    assert max(differences) < 0.1  # nats a token
    assert 0 < sum(differences) / len(differences) < 0.01
    assert run(overrides, **settings)[0] == rows  # goes on without a second trial


def test_same_settings_overwrite_others_are_refused(overrides, tmp_path):
    first, _ = run(overrides, adapters=None, modes=["pairs"])
    again, _ = run(overrides, adapters=None, modes=["pairs"])
    assert first == again
    with pytest.raises(FileExistsError, match=r"other settings \(n_pair_templates differ\); choose another"):
        run(overrides, adapters=None, modes=["pairs"], n_pair_templates=2)
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump({**BANK, "version": "3"}))
    with pytest.raises(FileExistsError, match="instrument_sha256"):
        run(overrides, adapters=None, modes=["pairs"])
    (tmp_path / "out" / "settings.json").unlink()
    with pytest.raises(FileExistsError, match="other settings"):
        run(overrides, adapters=None, modes=["pairs"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"templtes": "en"}, "unknown key `templtes`; did you mean `templates`"),
        ({"modes": ["choice", "chat"]}, r"modes=\['choice', 'chat'\]; use any of"),
        ({"modes": []}, r"modes=\[\]; use any of"),
        ({"temperature": 0, "n_samples": 2}, "at 0 all are the same"),
        ({"choice_trial": "many"}, "`choice_trial=many` is text, want a whole number or null"),
        ({"shuffled": 5}, "`shuffled=5` is a whole number, want text or null"),
        ({"expected": "right - left"}, r"is text, want a list or null; write expected=\[right - left\]"),
        ({"max_new_tokens": 0}, "max_new_tokens=0` is out of range; use 1 or more"),
        ({"n_samples": None}, "`n_samples=null` is null, want a whole number"),
        ({"top_k": 0}, "top_k=0; use 1 or more, or null"),
        ({"temperature": None}, "`temperature=null` is null, want a number"),
        ({"n_templates": None}, "`n_templates=null` is null, want a whole number"),
        ({"n_orders": None}, "`n_orders=null` is null, want a whole number"),
        ({"n_generate_orders": 9, "modes": ["generate"]}, "n_generate_orders=9; use 1 to 8"),
        ({"respondents": {"b": {"adapter": "x"}}}, "adapter 'x'; the adapters are"),
        ({"model": None}, "tokenizer, checkpointer given; give all of"),
        ({"adapters": {"base": "x"}}, "adapters.base: this name is the base model's"),
        ({"adapters": {"left": "nowhere"}}, "nowhere: adapter_config.json not found"),
        ({"instrument": "compass61"}, "give a path or one of"),
        ({"templates": "xx"}, "templates=xx: no such file"),
    ],
)
def test_refused_before_the_model_loads(overrides, more, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(overrides, **{"adapters": None, "checkpointer": {"checkpoint_dir": "no-such-folder"}, **more})
    assert not (tmp_path / "out").exists()


def test_pairs_csv_alone(overrides, tmp_path, caplog):
    (tmp_path / "views.csv").write_text("l,r,topic\nA b.,C d.,x\nE f.,G h.,x\nI.,J.,x\n")
    csv = {"instrument": str(tmp_path / "views.csv"), "instrument_format": "pairs_csv", "instrument_limit": 2}
    with pytest.raises(ValueError, match=r"has no items; use modes=\['pairs'\]"):
        run(overrides, adapters=None, **csv)
    rows, summary = run(overrides, adapters=None, modes=["pairs"], **csv)
    assert len(rows) == 2 * 4
    assert list(summary["models"]["base"]["pairs"]) == ["lean"]
    assert summary["comparisons"] == []
    assert "views.csv: 0 of 0 items and 2 of 3 pairs taken (seed 0)" in caplog.text


def test_a_tokenizer_without_a_template_is_refused(overrides, packaged_model_dir):
    tokenizer = {"_component_": "eval.asking.questions.Question", "row": {}, "answers": []}
    with pytest.raises(ValueError, match="use finetune.tokenizers.hf_chat_tokenizer with path="):
        run({**overrides, "tokenizer": None}, adapters=None, **{"tokenizer": tokenizer})


def test_the_picture_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setattr(compass, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e"):
        compass.require_matplotlib()


def test_a_killed_run_goes_on_bit_for_bit(whole_run, overrides, adapters, tmp_path, monkeypatch):
    """Stopped in the second model, in the middle of a line: nothing is asked twice, and the file is the same."""
    undisturbed = (whole_run.folder / "results.jsonl").read_bytes()
    n_forwards = []
    ask = respond.read_logprobs
    monkeypatch.setattr(respond, "read_logprobs", lambda *a: n_forwards.append(1) or ask(*a))
    other = {**overrides, "output_dir": str(tmp_path / "killed")}
    append = results.ResultsFile.append

    def die_later(self, rows):
        append(self, rows)
        if len(self.rows) > 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results.ResultsFile, "append", die_later)
        with pytest.raises(KeyboardInterrupt):
            run(other, adapters=adapters, max_tokens_per_forward=200)
    path = tmp_path / "killed" / "results.jsonl"
    assert undisturbed.startswith(path.read_bytes())
    with path.open("ab") as file:
        file.write(b'{"model": "le')
    _, summary = run(other, adapters=adapters, max_tokens_per_forward=200)
    assert path.read_bytes() == undisturbed
    assert summary["models"] == whole_run.summary["models"]
    assert len(n_forwards) == whole_run.n_forwards
    run(other, adapters=adapters, max_tokens_per_forward=200, n_bootstrap=50)  # scored anew, nothing asked
    assert len(n_forwards) == whole_run.n_forwards


def test_another_adapter_under_the_same_name_is_refused(overrides, adapters, tmp_path):
    folder = shutil.copytree(adapters["left"], tmp_path / "adapter")
    run(overrides, adapters={"a": str(folder)}, modes=["pairs"])
    shutil.copy(Path(adapters["right"]) / "adapter_model.safetensors", folder)
    with pytest.raises(FileExistsError, match="adapters_sha256 differ"):
        run(overrides, adapters={"a": str(folder)}, modes=["pairs"])


def test_a_server_that_refuses_is_mended_and_the_same_folder_goes_on(overrides, tmp_path):
    """It is asked before the base answers, so that nothing is there yet that belongs to the wrong settings."""
    server = {"model": "m", "retry_wait_s": 0.01, "modes": ["generate"]}
    settings = {"adapters": None, "modes": ["pairs", "generate"], "max_new_tokens": 1}
    with FaultServer(lambda body: "1", fault_rate=1.0, faults=("400",)) as refusing:
        far = {"far": {**server, "base_url": refusing.url}}
        with pytest.raises(ValueError, match="far: the server refuses the first call of mode generate"):
            run(overrides, respondents=far, **settings)
    with FaultServer(lambda body: "1") as answering:
        far = {"far": {**server, "base_url": answering.url, "params": {"top_p": 1}}}
        rows, _ = run(overrides, respondents=far, **settings)
    assert {row["model"] for row in rows} == {"base", "far"}


def test_a_server_that_scores_gives_the_resident_models_rows(overrides, adapters, adapted, caplog, monkeypatch):
    """Every mode and statistic goes on from there, and the difference is printed."""
    monkeypatch.setattr("eval.political_compass.log.propagate", True, raising=False)
    tokenizer, folder = hf_chat_tokenizer(overrides["tokenizer"]["path"]), overrides["tokenizer"]["path"]
    with EngineServer("llama.cpp", adapted, tokenizer) as server:
        scored = {"model": "any", "base_url": server.url, "tokenizer": folder}
        lora = [{"id": 0, "scale": 0.5}, {"id": 1, "scale": 0.25}]
        far = {
            "far": {**scored, "same_as": "left", "params": {"lora": [{"id": 0, "scale": 1.0}]}},
            "far@0.5": {**scored, "params": {"lora": [{"id": 0, "scale": 0.5}]}},
            "far-mix": {**scored, "same_as": "mix", "params": {"lora": lora}},
        }
        more = {"adapters": {**adapters, "mix": {"left": 0.5, "right": 0.25}}, "respondents": far, "n_orders": 2}
        with caplog.at_level("INFO", logger="eval.political_compass"):
            rows, summary = run(overrides, n_pair_templates=1, **more)
    for name in far:
        assert f"respondents.{name}: llama.cpp, scores statements (token ids and their texts agree)" in caplog.text
    assert "respondents.far against the resident left, first 8 prompts, a token's difference" in caplog.text
    by_key = {results.row_key(row): row["option_logprobs"] for row in rows}
    assert len(by_key) == len(rows) == 7 * (4 * 2 + 3)
    for name, same in (("far", "left"), ("far-mix", "mix")):
        for key in (key for key in by_key if key[0] == name):
            assert by_key[key] == pytest.approx(by_key[(same, *key[1:])], abs=1e-4)
        for mode in ("choice", "pairs"):
            for axis, score in summary["models"][name][mode].items():
                assert score["estimate"] == pytest.approx(summary["models"][same][mode][axis]["estimate"], abs=1e-4)
    assert summary["settings"]["places"]["far@0.5"]["weight"] == 0.5
    assert list(summary["settings"]["respondents_tokenizer_sha256"]) == list(far)


def test_another_alpha_or_chat_template_is_another_run(overrides, adapters, tmp_path):
    """Neither changes a weight, either changes answers."""
    folder, words = tmp_path / "adapter", tmp_path / "words"
    shutil.copytree(adapters["left"], folder)
    shutil.copytree(overrides["tokenizer"]["path"], words)
    cfg = make_config(overrides, adapters=None, tokenizer={"path": str(words)})
    instrument, templates = load_instrument(cfg.instrument), load_templates("en")

    def settings():
        return read_settings(cfg, instrument, templates, {"left": str(folder)})

    before = settings()
    with (words / "chat_template.jinja").open("a") as file:
        file.write(" ")
    assert {key for key, x in settings().items() if x != before[key]} == {"tokenizer_sha256"}
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 16}))
    changed = {key for key, x in settings().items() if x != before[key]}
    assert changed == {"tokenizer_sha256", "adapters_sha256"}


@pytest.mark.usefixtures("unrendered")
def test_contaminated_items_are_flagged_and_left_out(overrides, tmp_path):
    """One statement is in the training data: it and its twin go, and only the other axis is left."""
    bank = copy.deepcopy(BANK)
    texts = ["Bread should be free for every child in town.", "Bread should be paid for by every family in town."]
    for item, text, other in zip(bank["items"], texts, (1, 0)):
        item |= {"text": text, "twin": bank["items"][other]["id"]}
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump(bank))
    row = {"prompt": "What of bread?", "chosen": f"Well. {texts[0]} So be it.", "rejected": "No view."}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    _, summary = run(overrides, draw=True, adapters=None, training_data=str(tmp_path / "train.jsonl"))
    found = summary["contamination"]
    assert [(m["item"], m["kind"], m["row"], m["field"]) for m in found["matches"]] == [
        ("economic-0", "exact", 1, "chosen")
    ]
    assert found["left_out"] == ["economic-0", "economic-1"]
    assert list(found["without"]["models"]["base"]["choice"]) == ["social"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Scores without these statements" in page
    assert f">{texts[0]} " in page
    with pytest.raises(FileNotFoundError, match="training_data: nowhere.jsonl: not found"):
        run(overrides, adapters=None, training_data=["nowhere.jsonl"])


@pytest.mark.usefixtures("unrendered")
def test_statements_are_looked_up_in_what_an_adapters_card_names(overrides, adapters, tmp_path, caplog):
    """Its own columns; a set that is gone and an adapter without a record are named, and end nothing."""
    bank = copy.deepcopy(BANK)
    text = "Bread should be free for every child in town."
    bank["items"][0]["text"] = text
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump(bank))
    (tmp_path / "mine.csv").write_text(f"question,yes,no\nWhat of bread?,{text},No view.\n")
    columns = {"prompt": "question", "chosen": "yes", "rejected": "no"}
    mine = {
        "_component_": "data.datasets.preference_pairs",
        "source": str(tmp_path / "mine.csv"),
        "column_map": columns,
    }
    gone = {"_component_": "data.datasets.preference_pairs", "source": str(tmp_path / "gone.csv")}
    folder = shutil.copytree(adapters["left"], tmp_path / "mine")
    (folder / "README.md").write_text(f"```yaml\n{yaml.safe_dump({'dataset': [mine, gone]})}```\n")
    (tmp_path / "other.jsonl").write_text('{"prompt": "Hm?"}\n')
    given = {"mine": str(folder), "right": adapters["right"]}
    _, summary = run(overrides, draw=True, adapters=given, training_data=str(tmp_path / "other.jsonl"))
    found = summary["contamination"]
    assert [(m["item"], m["kind"], m["field"]) for m in found["matches"]] == [("economic-0", "exact", "chosen")]
    assert [file["file"] for file in found["training_data"]] == [str(tmp_path / n) for n in ("other.jsonl", "mine.csv")]
    of_mine, of_right = found["unchecked"]
    assert of_mine.startswith(f"adapters.mine: {tmp_path}/gone.csv: not found")
    assert of_right == "adapters.right: its card has no config of a training"
    assert "not looked up in what an adapter was trained on: adapters.right" in caplog.text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Not looked up in what an adapter was trained on: adapters.mine" in page
    _, summary = run(overrides, adapters=given, training_data=None)
    assert "unchecked" not in summary["contamination"]


def test_what_is_not_known_of_a_training_is_not_called_unseen(overrides, tmp_path, caplog):
    """Without any set nothing is known to be unseen; of one without topics it is told by wording, and that is said."""
    mine = tmp_path / "mine.csv"
    mine.write_text("question,chosen,rejected,subject\nWhat of bread?,Yes.,No.,t\n")

    def classes(training_data):
        cfg = check_config(make_config(overrides, adapters=None, training_data=training_data), REQUIRED, OPTIONAL)
        recipe = PoliticalCompassRecipe(cfg)
        return recipe._background.exposure, recipe._warnings

    assert classes([]) == (None, [])
    source = {"source": str(mine), "column_map": {"prompt": "question"}}
    exposure, (warning,) = classes([source])
    assert set(exposure.values()) == {"unseen"}
    assert warning.startswith(
        f"no topic in rows of {mine}: what is unseen is told by wording alone; dataset.column_map"
    )
    assert warning in caplog.text
    exposure, warnings = classes([source | {"column_map": {"prompt": "question", "topic": "subject"}}])
    assert (set(exposure.values()), warnings) == ({"seen topic"}, [])


@pytest.mark.usefixtures("unrendered")
def test_through_the_command_line(overrides, adapters, tune_run, tmp_path):
    flat = [f"{k}.{n}={v}" for k in ("tokenizer", "checkpointer") for n, v in overrides[k].items()]
    flat += [f"model.{k}={v}" for k, v in overrides["model"].items()]
    flat += [
        f"{k}={overrides[k]}"
        for k in ("output_dir", "instrument", "modes", "n_bootstrap", "n_templates", "n_orders", "n_pair_templates")
    ]
    flat += [f"adapters.{name}={folder}" for name, folder in adapters.items()]
    assert tune_run("eval/political_compass.py", "--config", "configs/political_compass.yaml", *flat) == 0
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 3 * (16 + 12)


@pytest.mark.usefixtures("unrendered")
def test_scores_rows_anew_without_a_model(whole_run, tmp_path):
    """The same scores from the rows alone; the folder that they came from stays as it was."""
    rows = whole_run.folder / "results.jsonl"
    before = {file.name: file.read_bytes() for file in whole_run.folder.iterdir() if file.is_file()}
    bank = str(whole_run.folder.parent / "bank.yaml")
    overrides = {"instrument": bank, "n_bootstrap": 200, "rows": str(rows), "output_dir": str(tmp_path / "anew")}
    overrides["expected"] = ["right - left"]
    cfg = check_config(OmegaConf.merge(OmegaConf.load(CONFIG), overrides), REQUIRED, OPTIONAL)
    PoliticalCompassRecipe(cfg).rescore(cfg)
    summary = json.loads((tmp_path / "anew" / "summary.json").read_text())
    for key in ("models", "comparisons", "diagnostics", "primary"):
        assert summary[key] == whole_run.summary[key], key
    # how it is scored is said of this run, what was asked of that one
    assert (summary["settings"]["expected"], whole_run.summary["settings"]["expected"]) == (["right - left"], None)
    assert summary["settings"]["rows"] == str(rows)
    assert summary["settings"]["adapters"] == whole_run.summary["settings"]["adapters"]
    assert {"report.html", "compass.png", "summary.json"} <= {file.name for file in (tmp_path / "anew").iterdir()}
    assert not (tmp_path / "anew" / "results.jsonl").exists()
    assert {file.name: file.read_bytes() for file in whole_run.folder.iterdir() if file.is_file()} == before
    # what an adapter was trained on is not taken from a folder that has been trained anew since
    settings = json.loads((whole_run.folder / "settings.json").read_text())
    settings["adapters_sha256"]["left"] = "0" * 64
    (tmp_path / "moved").mkdir()
    shutil.copy(rows, tmp_path / "moved")
    (tmp_path / "moved" / "settings.json").write_text(json.dumps(settings))
    for moved, reason in (
        ("moved/results.jsonl", "adapters.left: .* has other weights than when it was asked"),
        ("moved/alone.jsonl", "settings.json is not here, which names the adapters"),
    ):
        if "alone" in moved:
            (tmp_path / "moved" / "results.jsonl").rename(tmp_path / moved)
            (tmp_path / "moved" / "settings.json").unlink()
        cfg = OmegaConf.merge(cfg, {"rows": str(tmp_path / moved), "output_dir": str(tmp_path / "again")})
        PoliticalCompassRecipe(cfg).rescore(cfg)
        unchecked = json.loads((tmp_path / "again" / "summary.json").read_text())["contamination"]["unchecked"]
        assert any(re.search(reason, line) for line in unchecked), unchecked
    assert summary["versions"]["commit"] == results.commit()
    cfg.instrument = "compass60"
    with pytest.raises(ValueError, match=r"answer tiny 2 .*but instrument is compass60"):
        PoliticalCompassRecipe(cfg)
    cfg.rows = str(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match="no rows there"):
        PoliticalCompassRecipe(cfg)
