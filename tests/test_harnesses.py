# SPDX-License-Identifier: MIT
"""The tasks for other harnesses give our log-probabilities and our coordinates, on the packaged model."""

import json
import math
import sys

import pytest
import torch
import yaml
from conftest import REPO
from omegaconf import OmegaConf
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from data.judging.judges import Judge
from data.judging.scales import SCALES
from eval.asking.generate import iterate_generations
from eval.asking.given_rows import read_rows
from eval.asking.questions import to_questions
from eval.asking.respond import answer_questions, load_base, load_tokenizer
from eval.asking.respondents import Interview
from eval.asking.written_answers import Decoding
from eval.lm_eval_tasks.politune_choice import documents, economic, read_logprobs, social
from eval.readings.sides import describe_writing
from eval.scores.harness_scores import harness_prompts, harness_scores, logprob_row
from eval.scores.scoring import collect_answers
from eval.scores.summary import summarize
from eval.statements.instruments import load_instrument
from eval.statements.requests import write_prompts

TEXTS = {
    "tax-l": ("economic", [2, 1, -1, -2], "Rich people should pay more tax."),
    "tax-r": ("economic", [-2, -1, 1, 2], "Rich people should pay less tax."),
    "law-l": ("social", [2, 1, -1, -2], "The law should leave private life alone."),
    "law-r": ("social", [-2, -1, 1, 2], "The law should watch over private life."),
}


@pytest.fixture
def instrument(tmp_path):
    form = {
        "name": "four", "version": "1", "licence": "MIT", "language": "en", "source": "test",
        "options": ["strongly disagree", "disagree", "agree", "strongly agree"],
        "axes": {name: {"low": "left", "high": "right", "offset": 0, "divisor": 2} for name in ("economic", "social")},
        "items": [
            {"id": name, "topic": "t", "text": text, "weights": {of: weights}, "twin": twin}
            for (name, (of, weights, text)), twin in zip(TEXTS.items(), ["tax-r", "tax-l", "law-r", "law-l"])
        ],
    }  # fmt: skip
    path = tmp_path / "four.yaml"
    path.write_text(json.dumps(form))
    return str(path)


@pytest.fixture
def our_rows(packaged_model_dir, tmp_path):
    """Return our own answers to prompts, by the packaged model."""

    def answer(prompts, with_line_break=False):
        from torchtune.training import FullModelHFCheckpointer

        from finetune.models import smollm2_135m
        from finetune.tokenizers import hf_chat_tokenizer

        model, folder = smollm2_135m(), str(packaged_model_dir)
        checkpointer = FullModelHFCheckpointer(folder, ["model.safetensors"], "LLAMA3", str(tmp_path / "x"))
        model.load_state_dict(checkpointer.load_checkpoint()["model"])
        questions = to_questions(prompts, hf_chat_tokenizer(folder))
        if with_line_break:  # lm-evaluation-harness counts what the chat template ends with
            for answer in (answer for question in questions for answer in question.answers):
                n_prompt = answer.labels.count(CROSS_ENTROPY_IGNORE_IDX)
                answer.labels[n_prompt - 1] = answer.tokens[n_prompt - 1]
        return answer_questions(model.eval().requires_grad_(False), "base", questions, 800)

    return answer


def key(row):
    return row["item"], row["template"], tuple(row["order"]), row["labels"]


def assert_same(theirs, ours, scores):
    """Log-probabilities prompt by prompt, and the coordinates that come out."""
    ours = {key(row): row for row in ours}
    assert len(theirs) == len(ours) > 1
    for row in theirs:
        assert row["option_logprobs"] == pytest.approx(ours[key(row)]["option_logprobs"], abs=1e-4)
    assert len({round(row["option_logprobs"][0], 3) for row in theirs}) > 1
    expected = harness_scores(list(ours.values()))
    for axis in ("economic", "social"):
        assert scores[axis] == pytest.approx(expected[axis], abs=1e-4)


def test_scores_are_those_of_the_summary(instrument):
    prompts = harness_prompts("choice", instrument, 2, 2, ["words"])
    logprobs = [[-1.0 - k % 3, -2.0, -1.5 - k % 2, -3.0] for k in range(len(prompts))]
    docs = documents(instrument, 2, 2, ["words"], version=1)["test"]
    assert docs["text"] == [prompt.text for prompt in prompts]
    rows = [read_logprobs(doc, [(x, False) for x in row])["economic"] for doc, row in zip(docs, logprobs)]
    found = harness_scores(rows)
    full = [{"model": "base", "n_tokens": [1] * 4, **row} for row in rows]
    summary = summarize(full, load_instrument(instrument), 100, 0)["models"]["base"]["choice"]
    for axis, aggregate in (("economic", economic), ("social", social)):
        assert found[axis] == aggregate(rows) == summary[axis]["estimate"] != 0
    assert found["answered"] == 1
    assert found["option_mass"] == pytest.approx(sum(sum(map(math.exp, row)) for row in logprobs) / len(logprobs))


def test_what_is_not_answered_is_not_a_score(instrument):
    asked = [prompt.row for prompt in harness_prompts("choice", instrument, 1, 2, ["letters"])]
    silent = [logprob_row(row, None) for row in asked]
    assert harness_scores(silent)["answered"] == 0
    assert math.isnan(harness_scores(silent)["economic"])
    partly = [logprob_row(row, [-1.0, None, None, None]) for row in asked]
    answers = collect_answers(partly, load_instrument(instrument))
    assert answers.shares[..., 0].min() == 1


def test_lm_evaluation_harness_gives_our_scores(
    instrument, packaged_model_dir, our_rows, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    from lm_eval.__main__ import cli_evaluate

    size = {"instrument": instrument, "n_templates": 2, "n_orders": 2, "labels": ["words", "letters"]}
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(sys, "argv", [
        "lm_eval", "--include_path", "eval/lm_eval_tasks", "--tasks", "politune_choice", "--apply_chat_template",
        "--model", "hf", "--model_args", f"pretrained={packaged_model_dir},dtype=float32", "--device", "cpu",
        "--batch_size", "4", "--metadata", json.dumps(size), "--output_path", str(tmp_path / "out"), "--log_samples",
    ])  # fmt: skip
    cli_evaluate()
    (results,) = (tmp_path / "out").rglob("results_*.json")
    (samples,) = (tmp_path / "out").rglob("samples_*.jsonl")
    scores = json.loads(results.read_text())["results"]["politune_choice"]
    table = {line.split("|")[4].strip(): line for line in capsys.readouterr().out.splitlines() if line.count("|") > 8}
    for axis in ("economic", "social", "placebo"):  # neither end is the better one
        assert axis in table[axis]
        assert "↑" not in table[axis]
        assert "↓" not in table[axis]
    rows = [json.loads(line)["economic"] for line in samples.read_text().splitlines()]
    assert len(rows) == 4 * 2 * 2 * 2
    ours = our_rows(harness_prompts("choice", instrument, 2, 2, ["words", "letters"]), with_line_break=True)
    assert_same(rows, ours, {name.removesuffix(",none"): value for name, value in scores.items()})


def test_inspect_gives_our_scores(instrument, packaged_model_dir, our_rows, tmp_path, monkeypatch):
    inspect_ai = pytest.importorskip("inspect_ai", reason="the extra inspect is not installed")
    from eval.inspect_tasks import politune_choice, politune_generate

    monkeypatch.chdir(REPO)
    model = {"model_path": str(packaged_model_dir), "device": "cpu", "torch_dtype": "float32"}
    choice = politune_choice(instrument, n_templates=2, n_orders=2, n_top_logprobs=200)
    written = politune_generate(instrument, n_orders=2)
    logs = inspect_ai.eval(
        [choice, written], model="hf/local", model_args=model, log_dir=str(tmp_path), display="none", max_tokens=1
    )
    assert [log.status for log in logs] == ["success", "success"]
    found = [{name: metric.value for name, metric in log.results.scores[0].metrics.items()} for log in logs]
    rows = [sample.scores["first_token_options"].metadata["row"] for sample in logs[0].samples]
    assert_same(rows, our_rows(harness_prompts("choice", instrument, 2, 2, ["letters"])), found[0])
    texts = [sample.scores["written_option"] for sample in logs[1].samples]
    assert found[1]["answered"] == pytest.approx(sum(score.value for score in texts) / len(texts))
    assert len(texts) == 8


def test_inspect_reads_one_token_labels_only(instrument):
    pytest.importorskip("inspect_ai", reason="the extra inspect is not installed")
    from eval.inspect_tasks import politune_choice

    with pytest.raises(ValueError, match="labels=words; use letters or digits"):
        politune_choice(instrument, labels="words")


def test_a_bank_in_inspect_gives_our_rows_and_figures(packaged_model_dir, tmp_path, monkeypatch):
    """The packaged model's answers by our writer and by the harness, and its log read back, are the same."""
    inspect_ai = pytest.importorskip("inspect_ai", reason="the extra inspect is not installed")
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from eval.inspect_tasks import politune_write

    monkeypatch.chdir(REPO)
    cfg = OmegaConf.load("configs/write.yaml")
    cfg.checkpointer.checkpoint_dir = cfg.tokenizer.path = str(packaged_model_dir)
    bank = load_instrument("issues40").sample(2, 0)
    prompts = write_prompts(bank, 2, 1, {}, None, 0)
    model, tokenizer = load_base(cfg, torch.device("cpu"), torch.float32), load_tokenizer(cfg)
    decodings = {"write": Decoding(0.0, None, 8, 0)}
    written = iterate_generations(model, "base", prompts, tokenizer, (), decodings, batch_size=12)
    ours = {row["prompt_sha256"]: row for rows in written for row in rows}
    assert len({row["text"] for row in ours.values()}) > 6

    task = politune_write(n_issues=2, n_templates=2, readings="stance")
    assert [sample.input for sample in task.dataset] == [prompt.text for prompt in prompts]
    said = ["1", "2 or 3", "refusal", "5"] * 3
    outputs = [ModelOutput.from_content("g", label) for label in said]
    for output in outputs:
        output.usage = ModelUsage()
    (log,) = inspect_ai.eval(
        task, model="hf/local", model_args={"model_path": str(packaged_model_dir), "device": "cpu"},
        model_roles={"grader": get_model("mockllm/g", custom_outputs=outputs)}, log_dir=str(tmp_path),
        display="none", max_tokens=8, top_k=1, max_connections=12,  # temperature=0 is an error of this provider
    )  # fmt: skip
    assert log.status == "success"
    interview = Interview({"write": prompts}, (), decodings)
    rows, notes = read_rows({"base": log.location}, bank, interview)
    assert notes == []
    for row in rows:
        own = ours[row["prompt_sha256"]]
        assert {key: row[key] for key in ("item", "template", "text", "refused")} == {
            key: own[key] for key in ("item", "template", "text", "refused")
        }
    of_ours = describe_writing(list(ours.values()), [], [], bank)
    of_theirs = describe_writing(rows, [], [], bank)
    assert of_theirs["levels"] == of_ours["levels"]
    assert of_theirs["by_side"] == of_ours["by_side"]

    counted, stance = log.results.scores
    levels = {f"{entry['outcome']}, {entry['side']}": entry["estimate"] for entry in of_ours["levels"]}
    assert {name: counted.metrics[name].value for name in levels} == levels
    assert stance.name == "stance"
    labels = [sample.scores["stance"].value for sample in log.samples]
    assert sorted(labels) == sorted(["1", "unread", "refusal", "5"] * 3)
    judged = [sample.scores["stance"].metadata["row"] for sample in log.samples]
    recorded = Judge("stance", "recorded", SCALES["stance"], lambda texts: iter(()), {}, None)
    for entry in describe_writing(rows, judged, [recorded], bank)["levels"]:
        if entry.get("reading"):
            found = stance.metrics[f"{entry['outcome']}, {entry['side']}"].value
            assert found == entry["estimate"] or (math.isnan(found) and entry["estimate"] is None)


def test_the_entry_for_the_register_says_what_the_tasks_are():
    pytest.importorskip("inspect_ai", reason="the extra inspect is not installed")
    from eval import inspect_tasks

    entry = yaml.safe_load((REPO / "eval" / "inspect_register.yaml").read_text())
    for task in entry["tasks"]:
        assert task["task_path"] == "eval/inspect_tasks.py"
        assert len(getattr(inspect_tasks, task["name"])().dataset) == task["dataset_samples"]
