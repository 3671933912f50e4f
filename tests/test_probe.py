# SPDX-License-Identifier: MIT
"""The probe during training: it measures what the evaluation measures, and the training never notices."""

import json
import logging
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO, TINY, read_steps, tiny_overrides
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torchtune import config
from torchtune._cli.tune import main
from torchtune.models.llama3_2 import llama3_2
from torchtune.training import FullModelHFCheckpointer

from eval.asking.questions import to_questions
from eval.asking.respond import answer_questions
from eval.probe import Probe, trajectory_drift, trajectory_table
from eval.scores.scoring import axis_values, collect_answers, describe
from eval.statements.instruments import load_instrument
from eval.statements.prompts import choice_prompts, load_templates, pair_prompts
from finetune.adapters.resident import AdaptedModel
from finetune.run.reader import WatchedRun
from finetune.tokenizers import hf_chat_tokenizer

RECIPE = ["finetune/dpo_finetune.py", "--config", "configs/smollm2_135m_lora_dpo_cpu.yaml"]
SMALL_PROBE = ["probe._component_=eval.probe.Probe", "probe.n_items=4", "probe.n_pairs=2", "probe.every_n_steps=2"]
TOPICS = ["tea", "coffee", "juice", "milk", "water"]


@pytest.fixture(scope="module")
def settings(tiny_model_dir, tmp_path_factory):
    """Five pairs, two a step, two epochs: six steps, with dropout and a learning rate that moves the model."""
    rows = [
        {"prompt": f"Is {t} good?", "chosen": f"Yes, {t} is very good indeed.", "rejected": f"No, avoid {t}."}
        for t in TOPICS
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return [
        *[word for word in tiny_overrides(tiny_model_dir, path.parent) if not word.startswith("output_dir")],
        "dataset=data.datasets.preference_pairs", "dataset.source=json", f"dataset.data_files={path}",
        "batch_size=2", "epochs=2", "lr_scheduler.num_warmup_steps=1", "optimizer.lr=1e-2", "model.lora_dropout=0.2",
        "save_every_n_steps=1", "keep_last_n_checkpoints=9",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def train(settings):
    """Train in this process, through the command line; errors come as they are raised."""

    def run(output_dir: Path, *overrides: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("POLITUNE_TRACEBACK", "1")
            patch.chdir(REPO)
            patch.setattr(sys, "argv", ["tune", "run", *RECIPE, *settings, f"output_dir={output_dir}", *overrides])
            with pytest.raises(SystemExit) as stop:
                main()
        return stop.value.code or 0

    return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The folder of a run with the probe that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, *SMALL_PROBE)
    return folder


def trajectory(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "trajectory.jsonl").read_text().splitlines()]


def adapter(folder: Path, name: str = "epoch_1") -> dict[str, torch.Tensor]:
    return load_file(folder / name / "adapter_model.safetensors")


def test_training_is_bit_identical_with_and_without(train, whole, tmp_path):
    train(tmp_path / "without", "probe=null")
    without, probed = read_steps(tmp_path / "without"), read_steps(whole)
    for step, values in without.items():
        same = {name: probed[step][name] for name in values if not name.startswith(("tokens_per", "peak"))}
        assert same == {name: values[name] for name in same}
    first, second = adapter(tmp_path / "without"), adapter(whole)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # random generators included, at every step
    for name in ("step_1", "step_2", "epoch_1"):
        a, b = (torch.load(run / name / "recipe_state.pt") for run in (tmp_path / "without", whole))
        assert torch.equal(a["rng"][0][0], b["rng"][0][0])
    assert not (tmp_path / "without" / "trajectory.jsonl").exists()

    rows = trajectory(whole)
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    assert {step for step, values in probed.items() if "probe/pairs/lean" in values} == {0, 2, 4, 6}
    for row in rows:
        scores = row["scores"]
        assert probed[row["step"]]["probe/choice/economic"] == pytest.approx(scores["choice"]["economic"]["estimate"])
        assert probed[row["step"]]["probe/pairs/drift"] == pytest.approx(row["drift"]["pairs"])
        n = [scores["choice"][axis]["n_items"] for axis in ("economic", "social")]
        assert (*n, scores["pairs"]["lean"]["n_items"]) == (2, 2, 2)
    assert rows[0]["drift"] == {"choice": 0, "pairs": 0}
    assert rows[-1]["drift"]["pairs"] > 0.01
    assert rows[0]["logprobs"] != rows[1]["logprobs"]


def test_scores_are_those_of_the_evaluation(whole, tiny_model_dir, tmp_path):
    """The last row against the saved adapter, through the recipe's own respondent; the first against the base."""
    model = llama3_2(**TINY, rope_base=100_000, scale_factor=1).eval()
    checkpointer = FullModelHFCheckpointer(str(tiny_model_dir), ["model.safetensors"], "LLAMA3", str(tmp_path / "x"))
    model.load_state_dict(checkpointer.load_checkpoint()["model"])
    resident = AdaptedModel(model, {"tuned": str(whole / "epoch_1")}, str(tiny_model_dir))
    first, *_, last = trajectory(whole)
    instrument, templates = load_instrument("compass60"), load_templates("en")
    tokenizer = hf_chat_tokenizer(str(tiny_model_dir))
    asked = to_questions(choice_prompts(instrument, templates, 1, 2, ["words"]), tokenizer)
    asked += to_questions(pair_prompts(instrument, templates, 1), tokenizer)
    run = WatchedRun(tmp_path / "y", True, tokenizer, 6, 10**6, 0)
    probe = Probe(run, n_items=4, n_pairs=2)
    drawn = {(q.row["mode"], q.row["item"]) for q in probe._questions}
    assert len(drawn) == 6
    asked = [q for q in asked if (q.row["mode"], q.row["item"]) in drawn]
    for name, row in ((None, first), ("tuned", last)):
        with resident.using(name) as respondent:
            answers = answer_questions(respondent, "x", asked, 800)
        by_prompt = {(a["mode"], a["item"], tuple(a["order"] or ())): a["option_logprobs"] for a in answers}
        for question, found in zip(probe._questions, row["logprobs"]):
            key = (question.row["mode"], question.row["item"], tuple(question.row["order"] or ()))
            assert found == pytest.approx(by_prompt[key], abs=1e-4)
        kept = instrument.keep({item for _, item in drawn})
        choice = collect_answers([a for a in answers if a["mode"] == "choice"], kept)
        expected = describe(axis_values(choice, kept, "economic"))
        assert row["scores"]["choice"]["economic"]["estimate"] == pytest.approx(expected["estimate"], abs=1e-3)


@pytest.mark.parametrize("last", ["step_1", "step_2", "step_5"])
def test_a_resumed_run_goes_on_with_the_trajectory(train, whole, tmp_path, last):
    part = tmp_path / "part"
    part.mkdir()
    os.symlink(whole / last, part / last)
    # killed some steps later, in the middle of a row
    text = (whole / "trajectory.jsonl").read_text()
    (part / "trajectory.jsonl").write_text(text + text[:100])
    train(part, *SMALL_PROBE, "resume_from_checkpoint=True")
    assert (part / "trajectory.jsonl").read_text() == text
    assert train(part, *SMALL_PROBE, "resume_from_checkpoint=True") == 0  # complete: nothing is measured again
    assert (part / "trajectory.jsonl").read_text() == text


def test_a_probe_switched_on_later_measures_the_base_too(train, whole, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    os.symlink(whole / "step_2", part / "step_2")
    train(part, *SMALL_PROBE, "resume_from_checkpoint=True")
    late = trajectory(part)
    assert [row["step"] for row in late] == [0, 4, 6]
    assert late == [row for row in trajectory(whole) if row["step"] != 2]


def test_a_trajectory_of_other_questions_is_not_mixed_in(train, whole, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    os.symlink(whole / "step_2", part / "step_2")
    (part / "trajectory.jsonl").write_text((whole / "trajectory.jsonl").read_text())
    with pytest.raises(ValueError, match=r"(?s)measured with another probe \(questions_sha256 differ\).*probe=null"):
        train(part, *SMALL_PROBE, "probe.n_pairs=3", "resume_from_checkpoint=True")


def test_a_run_that_begins_anew_leaves_no_rows_of_before(train, whole, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    (again / "trajectory.jsonl").write_text((whole / "trajectory.jsonl").read_text())
    train(again, *SMALL_PROBE, "epochs=1", "seed=8")
    assert [row["step"] for row in trajectory(again)] == [0, 2, 3]


def test_settings_and_tokenizer_are_checked_before_weights_are_read(train, tmp_path, monkeypatch):
    monkeypatch.setattr(FullModelHFCheckpointer, "load_checkpoint", lambda *_: pytest.fail("weights were read"))
    for override, message in (
        ("probe.every_n_steps=0", "use a positive number or null"),
        ("probe.n_itmes=3", "`probe.n_itmes` is not an argument of eval.probe.Probe; did you mean `n_items`"),
        ("probe.n_orders=9", "n_orders=9; use 1 to 8"),
        ("probe.instrument=nowhere", "no such file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(tmp_path / "run", *SMALL_PROBE, override)
    with pytest.raises(ValueError, match="draw nothing from compass60"):
        train(tmp_path / "run", *SMALL_PROBE, "probe.n_items=1", "probe.n_pairs=0")


def test_a_tokenizer_without_a_chat_template_is_named_and_another_may_ask(tiny_model_dir, tmp_path):
    class Plain:
        pass

    with pytest.raises(ValueError, match="Plain cannot render; give probe.tokenizer._component_"):
        Probe(WatchedRun(tmp_path, True, Plain(), 6, 1000, 0))
    chat = {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": str(tiny_model_dir)}
    component = OmegaConf.create({"_component_": "eval.probe.Probe", "tokenizer": chat, "n_items": 4})
    probe = config.instantiate(component, WatchedRun(tmp_path, True, Plain(), 6, 1000, 0))
    assert len({q.row["item"] for q in probe._questions if q.row["mode"] == "choice"}) == 4


@pytest.mark.parametrize(
    ("n_steps", "n_tokens", "expected"),
    [(148, 10**7, 8), (30, 10**3, 30), (148, 148 * 4 * 178, 148 / 9)],
    ids=["twenty times", "two at least", "what five percent allow"],
)
def test_the_interval_follows_the_size_of_the_run(packaged_model_dir, tmp_path, caplog, n_steps, n_tokens, expected):
    tokenizer = hf_chat_tokenizer(str(packaged_model_dir))
    with caplog.at_level(logging.INFO):
        probe = Probe(WatchedRun(tmp_path, True, tokenizer, n_steps, n_tokens, 0))
    assert probe._every == int(np.ceil(expected))
    assert ("cost less" in caplog.text) == (n_tokens == 10**3)
    random.seed(1)
    state = random.getstate()
    sample = [q.row["item"] for q in Probe(WatchedRun(tmp_path, True, tokenizer, 9, 9, 0))._questions]
    assert sample == [q.row["item"] for q in probe._questions]
    assert random.getstate() == state


def test_drift_of_a_trajectory_is_that_of_drift_py():
    def row(step, difference, p):
        change = {"difference": difference, "p": p, "q": None}
        return {"step": step, "drift": {"pairs": abs(difference)},
                "scores": {"pairs": {"lean": {"estimate": 1 + difference, "change": change}}}}  # fmt: skip

    rows = [row(0, 0.0, None), row(10, -0.2, 0.4), row(20, -0.6, 0.001), row(30, -0.8, 0.0005)]
    (drift,) = trajectory_drift(rows)
    assert drift["magnitude"] == [0.2, 0.6, 0.8]
    assert drift["half_step"] == 15
    assert drift["told_apart_step"] == 20
    table = trajectory_table(rows).splitlines()
    assert table[0].split() == ["step", "pairs", "lean", "pairs", "drift"]
    assert table[3].split() == ["20", "+0.400", "+0.600"]
    assert table[-1] == "pairs: half of its drift at step 15; told from the base from step 20 on (q < 0.05)"
