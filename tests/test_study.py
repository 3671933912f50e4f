# SPDX-License-Identifier: MIT
"""Studies: planned and refused before anything runs, killed and resumed, and scored with seeds as replicates."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPO, TINY, fork, run_tune
from documented import influence_overrides, own_topics
from omegaconf import OmegaConf
from safetensors.torch import load_file
from test_political_compass import BANK as TINY_BANK
from torchtune.config._utils import _merge_yaml_and_cli_args

from data.recipe import files
from data.recipe.config import check_config
from data.recipe.overrides import Changes
from eval.asking.results import KEY, ResultsFile, config_settings
from eval.study import OPTIONAL, REQUIRED, StudyRecipe, plan_study, run_training
from finetune import tokenizers
from finetune.run import settings

LOAD = tokenizers.hf_chat_tokenizer


@cache
def loaded_once(path, **more):
    """Return a tokenizer that is loaded once, and reads a text once: most of the shipped studies train on one set."""
    tokenizer = LOAD(path, **more)
    tokenizer._hf.encode = cache(tokenizer._hf.encode)
    return tokenizer


STUDIES = sorted((REPO / "configs" / "studies").glob("*.yaml"))


@pytest.fixture
def study(tiny_model_dir, tmp_path):
    """The config of a study of two runs, of 1 and 16 steps, on the tiny model."""
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump(TINY_BANK))
    sizes = {**TINY, "rope_base": 100_000, "scale_factor": 1}
    of_model = {"tokenizer": {"path": str(tiny_model_dir)}, "checkpointer": {"checkpoint_dir": str(tiny_model_dir)}}
    train = {"model": {"_component_": "torchtune.models.llama3_2.lora_llama3_2", **sizes}, **of_model}
    asked = {"model": {"_component_": "torchtune.models.llama3_2.llama3_2", **sizes}, **of_model}
    cfg = {
        "output_dir": str(tmp_path / "study"),
        "models": {
            "tiny": {
                "train": {"config": "configs/smollm2_135m_lora_dpo_cpu.yaml", **train},
                "eval": {"config": "configs/political_compass.yaml", **asked},
            }
        },
        "train": {"max_steps_per_epoch": None, "save_every_n_steps": 1, "reference_cache_dir": None},
        "eval": {"modes": ["pairs"], "n_pair_templates": 2, "instrument": str(tmp_path / "bank.yaml")},
        "runs": {
            f"left_pairs-{n}": {"dataset": {"_component_": "data.datasets.mirrored_left", "subset": n}} for n in (4, 64)
        },
        "seeds": [3],
    }  # fmt: skip
    return cfg


def write(cfg, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(cfg, sort_keys=False))
    return path


def plan(cfg, **more):
    return plan_study(check_config(OmegaConf.merge(cfg, more), REQUIRED, OPTIONAL))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_planned_without_weights(tune_run, tmp_path, path, caplog, monkeypatch):
    monkeypatch.setattr(tokenizers, "hf_chat_tokenizer", loaded_once)
    cfg = yaml.safe_load(path.read_text())
    own = []  # the studies whose data no repository has
    if path.stem == "topics":
        own = [f"train.dataset.data_files={own_topics(tmp_path)}", "eval.instrument=compass60"]
    if path.stem == "influence":
        own = influence_overrides(tmp_path)
    if path.stem == "known_groups":
        pairs = tmp_path / "pairs.jsonl"
        pairs.write_text("".join(json.dumps({"prompt": "p", "left": f"l{n}", "right": "r"}) + "\n" for n in range(120)))
        own = [f"runs.conventions-{side}.dataset.data_files={pairs}" for side in ("left", "right")]
    assert tune_run("eval/study.py", "--config", path, f"output_dir={tmp_path / 'none'}", "dry_run=True", *own) == 0
    commands = [line.strip() for line in caplog.text.splitlines() if line.startswith("    tune run finetune/")]
    assert len(commands) == len(cfg["models"]) * len(cfg["runs"]) * len(cfg.get("seeds", [0]))
    assert len(set(commands)) == len(commands)
    assert not (tmp_path / "none").exists()
    shown = [line for line in path.read_text().splitlines() if line.startswith("#   tune run eval/study.py")]
    assert all(f"configs/studies/{path.name}" in line for line in shown)
    assert shown


class Forked:
    """What a study needs of the process of a training, which has the imports of this one."""

    def __init__(self, command: list[str]):
        self._process = fork(run_tune, *command[3:])  # after python -m torchtune._cli.tune
        self._process.start()
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode


@pytest.mark.slow(15)
@pytest.mark.usefixtures("unrendered")
def test_a_killed_study_goes_on_to_the_same_end(study, tune_run, tmp_path, monkeypatch):
    path, folder = write(study, tmp_path), Path(study["output_dir"])
    first, second = plan(study)[0].runs
    run_folder = folder / "tiny" / second.name
    assert second.name == "left_pairs-64_seed-3"

    def wait_for(step):
        deadline = time.monotonic() + 300
        while not (run_folder / f"step_{step}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    assert tune_run(*first.command[2:]) == 0  # by hand, as the dry run prints it
    assert first.is_complete()
    process = fork(run_tune, "run", "eval/study.py", "--config", str(path))
    process.start()  # its training is a process of its own
    try:
        wait_for(1)
        training = int((folder / ".lock").read_text())
        os.kill(training, signal.SIGSTOP)  # so that it is still there below
    finally:
        process.kill()
        process.join()
    try:
        refused = tune_run("eval/study.py", "--config", path)
        assert f"is still at work (process {training}); wait for it" in refused
    finally:
        os.kill(training, signal.SIGKILL)
    held = os.open(run_folder, os.O_RDONLY)
    files.lock(held, wait=True)  # a killed process takes a moment to let go
    os.close(held)

    # then asked to stop in the same run: it saves first
    reached = max(int(found.name[5:]) for found in run_folder.glob("step_*"))
    assert reached < 12

    def stop_later():
        wait_for(reached + 2)
        os.kill(os.getpid(), signal.SIGTERM)

    start = subprocess.Popen

    def fork_trainings(command, **given):  # how a study starts one was seen above
        return Forked(command) if "torchtune._cli.tune" in command else start(command, **given)

    monkeypatch.setattr(subprocess, "Popen", fork_trainings)
    threading.Thread(target=stop_later, daemon=True).start()
    with (tmp_path / "lock").open("a+") as lock:
        assert run_training(second, lock) == 128 + signal.SIGTERM
    assert not second.is_complete()

    assert tune_run("eval/study.py", "--config", path) == 0
    table = (folder / "study.md").read_text()
    assert "| left_pairs-64 (void) | 64 | 3 |" in table  # a random model cannot read the statements
    assert "2 runs, 68 pairs" in table
    summary = json.loads((folder / "tiny" / "compass_2" / "summary.json").read_text())
    assert [c["x"] for c in summary["curves"] if c["kind"] == "pairs"] == [[0, 4, 64]]
    rows = [f"rows={folder / 'tiny' / 'compass_2' / 'results.jsonl'}", f"instrument={tmp_path / 'bank.yaml'}"]
    rows += [
        f"output_dir={tmp_path / 'anew'}",
        "n_pair_templates=2",
        "expected=[left_pairs-64 - base]",
    ]  # runs have names too
    assert tune_run("eval/political_compass.py", "--config", "configs/political_compass.yaml", *rows) == 0
    straight = [word for word in second.command[2:] if not word.startswith(("output_dir=", "resume"))]
    assert tune_run(*straight, f"output_dir={tmp_path / 'straight'}") == 0
    expected = load_file(tmp_path / "straight" / "epoch_0" / "adapter_model.safetensors")
    found = load_file(second.adapter / "adapter_model.safetensors")
    assert all(torch.equal(found[key], expected[key]) for key in expected | found)


def test_a_signal_in_the_moment_in_which_a_training_ends_stops_the_study(study, tmp_path, monkeypatch):
    start = subprocess.Popen
    ignores = f"import signal, os, time; signal.signal(15, signal.SIG_IGN); os.kill({os.getpid()}, 15); time.sleep(0.1)"
    monkeypatch.setattr(subprocess, "Popen", lambda _, **given: start([sys.executable, "-c", ignores], **given))
    with (tmp_path / "lock").open("a+") as lock:
        assert run_training(plan(study)[0].runs[0], lock) == 128 + signal.SIGTERM


def test_what_was_made_with_other_settings_is_refused(study):
    for run in plan(study)[0].runs:
        Path(run.cfg.output_dir).mkdir(parents=True)
        OmegaConf.save(run.cfg, Path(run.cfg.output_dir) / "torchtune_config.yaml")
    (planned,) = plan(study)
    assert not any(run.changed_keys() for run in planned.runs)
    with pytest.raises(FileExistsError, match=r"left_pairs-4_seed-3: optimizer.lr\n(.|\n)*choose another output_dir"):
        plan(study, train={"optimizer": {"lr": 0.5}})
    assert len(plan(study, seeds=[3, 4])[0].runs) == 4  # it may grow
    assert [run.place.dose for run in planned.runs] == [4, 64]


def test_a_study_accepts_the_answers_that_a_single_run_accepts(study):
    server = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    study["eval"]["respondents"] = {"far": server}
    (planned,) = plan(study)
    results = ResultsFile(planned.evaluation.output_dir, config_settings(planned.evaluation) | {"base_sha256": "x"})
    assert plan(study, eval={"n_pair_templates": 3})  # nothing was answered yet
    results.append([dict.fromkeys(KEY)])
    results.close()
    assert plan(study, eval={"n_bootstrap": 7, "respondents": {"far": {"timeout_s": 3}}})
    with pytest.raises(FileExistsError, match="compass_2: n_pair_templates\n"):
        plan(study, eval={"n_pair_templates": 3})
    with pytest.raises(FileExistsError, match="compass_2: respondents\n"):
        plan(study, eval={"respondents": {"far": {"n_top_logprobs": 3}}})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train": {"optimzer": {"lr": 1}}}, "tiny, left_pairs-4_seed-3: (.|\n)*`optimzer`; did you mean `optimizer`"),
        ({"train": {"output_dir": "x"}}, "train: output_dir is set by the study"),
        ({"eval": {"mode": ["pairs"]}}, "for tiny: (.|\n)*`mode`; did you mean `modes`"),
        ({"models": {"tiny": {"train": {"config": "no.yaml"}}}}, "models.tiny.train.config: no.yaml not found"),
        ({"models": {"other": {"train": {}}}}, "models.other.train.config is missing"),
        ({"seeds": [0, 0]}, r"seeds=\[0, 0\]; use different whole numbers"),
        ({"runs": {"a.b": {}}}, r"\['a.b'\]; a name has letters"),
        ({"runs": {"left_pairs-4": None}}, "left_pairs-4 changes nothing; say what, as runs.left_pairs-4.dataset"),
        ({"runs": {"b": {"dataset": {"subset": 4}}}}, "left_pairs-4_seed-3 and b_seed-3 would train the same adapter"),
        ({"seeds": [0, 1], "seed_keys": []}, "left_pairs-4_seed-0 and left_pairs-4_seed-1 would train the same"),
    ],
)
def test_refused_before_anything_runs(study, more, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        plan(study, **more)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"eval": {"instrument": "none.yaml"}}, "none.yaml"),
        ({"eval": {"modes": ["pair"]}}, "pair"),
        ({"eval": {"modes": ["open"]}}, "eval.modes=..open.. without eval.judges: nothing would be scored"),
        ({"train": {"dataset": {"_component_": "data.datasets.preference_pairs", "source": "no.csv"}}}, "no.csv"),
        ({"train": {"device": "cuda"}, "dry_run": False}, "device=cuda"),
    ],
)
def test_what_only_the_end_would_show_is_refused_at_the_start(study, more, message, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if "dataset" in more.get("train", {}):
        study["runs"] = {"a": {"dataset": more["train"].pop("dataset")}}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        StudyRecipe(check_config(OmegaConf.merge(study, {"dry_run": True}, more), REQUIRED, OPTIONAL))
    assert not (tmp_path / "study").exists()


def test_a_run_of_another_base_is_refused(study):
    other = {"left_pairs-64": {"checkpointer": {"checkpoint_dir": "elsewhere"}}}
    with pytest.raises(ValueError, match=r"\['left_pairs-64_seed-3'\] tune another base than left_pairs-4_seed-3"):
        plan(study, runs=other)


@pytest.mark.usefixtures("unrendered")
def test_a_study_of_respondents_alone_trains_nothing(study, tune_run, tmp_path):
    """Its page and its tables say whether those who are told a side take it: a random model does not."""
    told = {f"told-{side}": {"system_prompt": f"You argue from the {side}."} for side in ("left", "right")}
    contrast = "told-right - told-left"
    asked = {"respondents": told, "expected": [contrast], "primary": {"contrast": contrast}, "n_pair_templates": 1}
    del study["models"]["tiny"]["train"]
    cfg = {**study, "runs": {}, "eval": {**study["eval"], **asked}}
    assert tune_run("eval/study.py", "--config", write(cfg, tmp_path)) == 0
    folder = Path(study["output_dir"])
    summary = json.loads((folder / "tiny" / "compass_0" / "summary.json").read_text())
    assert list(summary["models"]) == ["base", *told]
    assert summary["validation"]["validated"] is False
    for page in (folder / "report.html", folder / "tiny" / "compass_0" / "report.html"):
        assert f"Not validated on this model: {contrast}" in page.read_text()
    assert f"- tiny is not validated on this model: {contrast}" in (folder / "study.md").read_text()


def test_a_run_takes_keys_out_as_the_command_line_does(study):
    """Written in a run, for a model, or on the study's command line; the run's command trains what was planned."""
    study["models"]["tiny"]["train"] |= {"~loss.label_smoothing": None, "loss": {"beta": 0.3}}
    study["eval"]["seed"] = 5
    study["models"]["tiny"]["eval"]["~seed"] = None
    study["runs"] = {
        "orpo": {"loss": {"_component_": "finetune.losses.ORPOLoss", "lam": 0.2, "~beta": None}},
        "sft": OmegaConf.from_dotlist(["loss=finetune.losses.SFTLoss", "~loss.beta=null"]),
        "dpo": {"dataset": {"subset": 4}},
    }
    (planned,) = plan(study)
    assert planned.evaluation.seed == 0  # the key's default
    losses = [run.cfg.loss for run in planned.runs]
    assert losses == [
        {"_component_": "finetune.losses.ORPOLoss", "lam": 0.2},
        {"_component_": "finetune.losses.SFTLoss"},
        {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": 0.3},
    ]
    for run in planned.runs:
        assert "~loss.label_smoothing" in run.command
        file = Namespace(**OmegaConf.to_container(OmegaConf.load(run.command[4])))
        given = _merge_yaml_and_cli_args(file, run.command[5:])
        assert check_config(given, settings.REQUIRED, settings.OPTIONAL, settings.COMPONENTS) == run.cfg


def test_a_key_that_a_layer_before_took_out_may_be_taken_out_again():
    file = str(REPO / "configs" / "smollm2_135m_lora_dpo_cpu.yaml")
    changes = Changes(file)
    for name in ("train", "runs.a"):
        changes.add({"~loss.beta": None}, name)
    assert changes.overrides() == ["~loss.beta"]
    for layer in ({"more": 1}, {"~more": None}, {"~more": None}, {"loss": {"beta": 0.3}}, {"~loss.beta": None}):
        changes.add(layer, "runs.b")
    assert changes.overrides() == ["~loss.beta"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train": {"~loss.betta": None}}, "train: ~loss.betta: there is no loss.betta to take out"),
        ({"train": {"~loss": None}}, "train: ~loss: there is no loss to take out .a component is switched off"),
        ({"eval": {"~modes": ["pairs"]}}, r"~modes takes the key out, and has the value \['pairs'\]; write `~modes"),
        ({"train": {"loss": "finetune.losses.SFTLoss"}}, "`loss.beta` is not .*~loss.beta takes it out"),
        ({"train": {"dataset": {"where": {"topic": "a=b"}}}}, "dataset.where.topic=a=b: .* takes no = in a value"),
        ({"runs": {"a": 5}}, "runs.a=5 is no mapping; write `runs.a: {KEY: VALUE}`"),
        ({"models": {"tiny": 5}}, "models.tiny=5 is no mapping; write"),
        ({"models": {"tiny": {"eval": "x"}}}, "models.tiny.eval=x is no mapping; write"),
        ({"seed_keys": ["dataset.sed"]}, "left_pairs-4_seed-3: (.|\n)*`dataset.sed` is not an argument"),
    ],
)  # fmt: skip
def test_changes_that_cannot_be_made_are_refused(study, more, message):
    with pytest.raises(ValueError, match=message):
        plan(study, **more)


def test_each_tokenizer_is_loaded_once(study, monkeypatch, caplog):
    made = []
    load = tokenizers.HFChatTokenizer.__init__
    monkeypatch.setattr(
        tokenizers.HFChatTokenizer, "__init__", lambda self, *a, **k: made.append(a) or load(self, *a, **k)
    )
    study["models"]["again"] = study["models"]["tiny"]
    StudyRecipe(check_config(OmegaConf.create({**study, "dry_run": True}), REQUIRED, OPTIONAL))
    assert len(made) == 1
    assert "again, left_pairs-64_seed-3: new; 64 pairs" in caplog.text


def test_nobody_else_may_work_in_the_folder(study):
    recipe = StudyRecipe(check_config(OmegaConf.create(study), REQUIRED, OPTIONAL))
    with recipe.locked():
        with pytest.raises(RuntimeError, match=rf"still at work \(process {os.getpid()}\)"):
            recipe.locked().__enter__()
    with recipe.locked():
        pass
