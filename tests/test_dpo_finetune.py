# SPDX-License-Identifier: MIT
"""The recipe through the real command line: equal to torchtune's path, exact on resume, no stock defect."""

import json
import logging
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPO, TINY, read_steps, tiny_overrides
from families import CHATML
from peft import AutoPeftModelForCausalLM
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torchtune import config
from torchtune._cli.tune import main
from torchtune.data import padded_collate_dpo
from torchtune.models.llama3_2 import lora_llama3_2
from torchtune.modules.peft import LoRALinear, disable_adapter, get_adapter_params, set_trainable_params
from torchtune.rlhf import get_batch_log_probs
from torchtune.rlhf.loss import DPOLoss
from torchtune.training import FullModelHFCheckpointer
from torchtune.training.metric_logging import DiskLogger
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from data.datasets import preference_pairs
from finetune.adapters.folders import check_bases, fingerprint
from finetune.models import SMOLLM2_135M, lora_smollm2_135m
from finetune.run import pair_losses
from finetune.run.batches import PairBatches, tokenize_pairs
from finetune.run.checkpoints import DECIDING, RunCheckpoints, StopRequest
from finetune.run.pair_losses import PairLosses
from finetune.tokenizers import hf_chat_tokenizer

RECIPE = "finetune/dpo_finetune.py"
CONFIG = ["--config", "configs/smollm2_135m_lora_dpo_cpu.yaml"]
EVERY_STEP = ["save_every_n_steps=1", "keep_last_n_checkpoints=9"]
TOPICS = ["tea", "coffee", "food", "milk", "water"]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    rows = [
        {"prompt": f"Is {t} good?", "chosen": f"Yes, {t} is very good indeed.", "rejected": f"No, avoid {t}."}
        for t in TOPICS
    ]
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def train(tiny_model_dir, pairs_file):
    """Train the tiny model on five pairs, two a step: three steps an epoch, the last one of a single pair."""

    def run(output_dir: Path, *overrides: str) -> int:
        arguments = [*CONFIG, *tiny_overrides(tiny_model_dir, output_dir), *own_data(pairs_file), *overrides]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("POLITUNE_TRACEBACK", "1")  # errors as they are raised
            patch.chdir(REPO)
            patch.setattr(sys, "argv", ["tune", "run", RECIPE, *arguments])
            with pytest.raises(SystemExit) as stop:
                main()
        return stop.value.code or 0

    return run


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """A whole run with a checkpoint at every step; not to be changed."""
    output_dir = tmp_path_factory.mktemp("trained") / "run"
    assert train(output_dir, *EVERY_STEP) == 0
    return output_dir


def own_data(path: Path) -> list[str]:
    return [
        "dataset=data.datasets.preference_pairs", "dataset.source=json", f"dataset.data_files={path}",
        "batch_size=1", "gradient_accumulation_steps=2", "lr_scheduler.num_warmup_steps=1", "epochs=2",
    ]  # fmt: skip


def adapter(output_dir: Path, name: str = "epoch_1") -> dict[str, torch.Tensor]:
    return load_file(output_dir / name / "adapter_model.safetensors")


def assert_same_adapter(a: Path, b: Path) -> None:
    first, second = adapter(a), adapter(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def losses(output_dir: Path) -> list[float]:
    return [values["loss"] for _, values in sorted(read_steps(output_dir).items())]


def first_layers(folder: Path, model_dir: Path, tiny_model_dir: Path, n: int) -> Path:
    """Write a model's first layers and the tokens that the tiny model has; the template here adds no system prompt."""
    shutil.copytree(model_dir, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(tiny_model_dir / "tokenizer.json", folder)
    weights = load_file(model_dir / "model.safetensors")
    kept = {name: w for name, w in weights.items() if ".layers." not in name or int(name.split(".")[2]) < n}
    kept["model.embed_tokens.weight"] = kept["model.embed_tokens.weight"][: TINY["vocab_size"]].clone()
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {"num_hidden_layers": n, "vocab_size": TINY["vocab_size"]}
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | sizes))
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.mark.slow(5)
def test_losses_equal_torchtunes_own_path(tune_run, packaged_model_dir, tiny_model_dir, tmp_path, monkeypatch):
    """16 steps of the packaged model's first layers against padded_collate_dpo + get_batch_log_probs + DPOLoss."""
    monkeypatch.setitem(SMOLLM2_135M, "num_layers", 3)
    monkeypatch.setitem(SMOLLM2_135M, "vocab_size", TINY["vocab_size"])
    cut = first_layers(tmp_path / "cut", packaged_model_dir, tiny_model_dir, 3)
    lines = (REPO / "data" / "mirrored" / "pairs.jsonl").read_text().splitlines()[::10]
    rows = [json.loads(line) for line in lines]
    data = tmp_path / "pairs.jsonl"
    short = [{k: " ".join(r[k].split()[-6:]) for k in ("prompt", "left", "right")} for r in rows]  # real, in less time
    data.write_text("\n".join(map(json.dumps, short)))
    columns = {"chosen": "left", "rejected": "right"}
    output = tmp_path / "run"
    tune_run(
        RECIPE, *CONFIG, f"output_dir={output}", *own_data(data), "epochs=1", "gradient_accumulation_steps=1",
        "seed=3", "optimizer.lr=1e-3",
        *[f"dataset.column_map.{k}={v}" for k, v in columns.items()], f"tokenizer.path={cut}",
        f"checkpointer.checkpoint_dir={cut}", "reference_cache_dir=null", "shuffle=True",
    )  # fmt: skip

    tokenizer = hf_chat_tokenizer(str(cut))
    dataset = preference_pairs(tokenizer, source="json", data_files=str(data), column_map=columns)
    order = [row for step in range(16) for row in PairBatches(tokenize_pairs(dataset), 1, 3, True, None).rows(0, step)]
    model = lora_smollm2_135m(["q_proj", "v_proj"], True, False, lora_rank=16, lora_alpha=32)
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, LoRALinear):
            module.initialize_parameters()
    checkpointer = FullModelHFCheckpointer(str(cut), ["model.safetensors"], "LLAMA3", str(tmp_path / "x"))
    model.load_state_dict(checkpointer.load_checkpoint()["model"], strict=False)
    set_trainable_params(model, get_adapter_params(model))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.05)
    schedule = config.instantiate(
        config_node("torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup"),
        optimizer, num_warmup_steps=1, num_training_steps=16,
    )  # fmt: skip
    expected = []
    for row in order:
        ids, labels = padded_collate_dpo([dataset[row]], padding_idx=tokenizer.pad_id)
        policy = get_batch_log_probs(model(ids), labels)
        with torch.no_grad(), disable_adapter(model):
            reference = get_batch_log_probs(model(ids), labels)
        loss = DPOLoss(beta=0.1)(policy[:1], policy[1:], reference[:1], reference[1:])[0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        expected.append(loss.item())
    found = losses(output)
    assert len(found) == len(expected) == 16
    assert max(abs(a - b) for a, b in zip(found, expected)) < 1e-4
    assert max(found) - min(found) > 0.1  # the weights moved, so the equality says something


def config_node(path):
    from omegaconf import OmegaConf

    return OmegaConf.create({"_component_": path})


def test_adapter_folder_is_complete_and_peft_gives_our_logits(train, tiny_model_dir, tmp_path):
    train(tmp_path / "run", "optimizer.lr=1e-2")
    folder = tmp_path / "run" / "epoch_1"
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["task_type"] == "CAUSAL_LM"
    assert settings["base_model_name_or_path"] == "tests/tiny-llama"
    assert settings["lora_dropout"] == 0.0
    card = (folder / "README.md").read_text()
    assert "tuned on purpose to lean politically" in card
    assert "library_name: peft" in card
    assert {"tokenizer.json", "recipe_state.pt", "progress.json"} <= {p.name for p in folder.iterdir()}

    ours = lora_llama3_2(
        ["q_proj", "v_proj"], True, False, **TINY, rope_base=100_000, scale_factor=1, lora_rank=16, lora_alpha=32,
    )  # fmt: skip
    checkpointer = FullModelHFCheckpointer(str(tiny_model_dir), ["model.safetensors"], "LLAMA3", str(tmp_path / "x"))
    ours.load_state_dict(checkpointer.load_checkpoint()["model"], strict=False)
    ours.load_state_dict(torch.load(folder / "adapter_model.pt", weights_only=True), strict=False)
    # AutoPeft finds the base by the name in the config: here a folder
    settings["base_model_name_or_path"] = str(tiny_model_dir)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    theirs = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 17, 300, 4, 99]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)
        with theirs.disable_adapter():
            assert (theirs(ids).logits - ours(ids)).abs().max() > 1e-3


def test_transformers_loads_the_folder_of_a_run_as_an_adapter(trained, tiny_model_dir, tmp_path, monkeypatch):
    """The base, and then the adapter, which transformers 5.23 leaves to a newer peft than 0.18.1: not run here."""
    asked = []
    monkeypatch.setattr(PreTrainedModel, "load_adapter", lambda self, path, **_: asked.append(Path(path)))
    folder = shutil.copytree(trained / "epoch_1", tmp_path / "epoch_1")
    assert not (folder / "config.json").exists()
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tiny_model_dir)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base = load_file(tiny_model_dir / "model.safetensors")
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in base.items())
    assert asked == [folder]
    assert AutoTokenizer.from_pretrained(folder)("a b").input_ids
    assert check_bases({"left": folder}, tiny_model_dir) == []
    assert json.loads((folder / "base.json").read_text()) == {"sha256": fingerprint(tiny_model_dir)}


def test_a_scheduler_that_takes_no_number_of_steps(train, tmp_path, monkeypatch):
    """It is not told one; and as nothing depends on the length of the run, the run may be made longer."""
    settings = [setting for setting in own_data(Path("PAIRS")) if "warmup" not in setting]
    monkeypatch.setitem(globals(), "own_data", lambda path: [s.replace("PAIRS", str(path)) for s in settings])
    constant = [
        "~lr_scheduler.num_warmup_steps", "lr_scheduler._component_=torch.optim.lr_scheduler.ConstantLR",
        "lr_scheduler.factor=0.5", "lr_scheduler.total_iters=2", "optimizer.lr=1e-3",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="ReduceLROnPlateau is not supported"):
        train(tmp_path / "run", constant[0], "lr_scheduler._component_=torch.optim.lr_scheduler.ReduceLROnPlateau")
    longer, at_once = tmp_path / "longer", tmp_path / "at_once"
    for output_dir, epochs in ((longer, 1), (at_once, 2)):
        assert train(output_dir, *constant, f"epochs={epochs}") == 0
    rates = [values["lr"] for _, values in sorted(read_steps(at_once).items())]
    assert rates == pytest.approx([5e-4] * 2 + [1e-3] * 4)
    assert train(longer, *constant, "epochs=2", "resume_from_checkpoint=True") == 0
    assert_same_adapter(longer, at_once)


def test_why_a_planned_run_cannot_be_made_longer(train, trained):
    message = r"(?s)epochs: checkpoint 2, config 3\nlr_scheduler plans .* again with epochs=3 in another"
    with pytest.raises(ValueError, match=message):
        train(trained, "resume_from_checkpoint=True", "epochs=3")


def test_a_model_that_differs_from_its_checkpoint_is_refused_before_any_weight(train, tmp_path, monkeypatch):
    monkeypatch.setattr(FullModelHFCheckpointer, "load_checkpoint", None)
    with pytest.raises(ValueError, match="rope_theta: config.json 100000, the model 10000"):
        train(tmp_path / "run", "model.rope_base=10000")


def test_accumulation_and_cut_change_nothing(train, tmp_path):
    train(tmp_path / "accumulated", "max_tokens_per_forward=1")
    train(tmp_path / "whole", "batch_size=2", "gradient_accumulation_steps=1", "max_tokens_per_forward=1")
    assert_same_adapter(tmp_path / "accumulated", tmp_path / "whole")
    train(tmp_path / "one_forward", "max_tokens_per_forward=4096")
    torch.testing.assert_close(losses(tmp_path / "one_forward"), losses(tmp_path / "whole"), atol=1e-5, rtol=0)


def test_a_smaller_last_step_counts_its_pairs_fully_and_leaks_nothing(train, tmp_path):
    train(tmp_path / "run", "optimizer.lr=0.0", "optimizer.weight_decay=0.0")
    # with a frozen policy every pair's loss is log 2, so any wrong divisor or left-over gradient would show
    assert losses(tmp_path / "run") == pytest.approx([0.6931472] * 6, abs=1e-6)
    train(tmp_path / "clipped", "clip_grad_norm=1000.0", "optimizer.lr=0.0")
    norms = [v["grad_norm"] for v in read_steps(tmp_path / "clipped").values()]
    # the same five pairs in both epochs, each step's gradient a mean: epochs in another order, same total
    assert all(norm > 0 for norm in norms)


def test_metrics_are_means_over_the_step(train, tmp_path):
    train(tmp_path / "pairwise", "optimizer.lr=0.0", "gradient_accumulation_steps=1", "epochs=1", "shuffle=False")
    train(tmp_path / "step", "optimizer.lr=0.0", "gradient_accumulation_steps=5", "epochs=1", "shuffle=False")
    single, (whole,) = read_steps(tmp_path / "pairwise"), read_steps(tmp_path / "step").values()
    assert len(single) == 5
    # not the accuracies: a policy that is its own reference ties every pair, and rounding would decide
    for name in ("log_probs/chosen", "log_probs/rejected", "loss"):
        assert whole[name] == pytest.approx(sum(v[name] for v in single.values()) / 5, abs=1e-4)
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins", "lr", "tokens_per_second_per_gpu"} <= whole.keys()


def test_seed_decides_the_order_and_nothing_is_dropped(tiny_model_dir, pairs_file):
    dataset = preference_pairs(hf_chat_tokenizer(str(tiny_model_dir)), source="json", data_files=str(pairs_file))

    def order(seed, epoch):
        batches = PairBatches(tokenize_pairs(dataset), 2, seed, True, None)
        assert batches.steps_per_epoch == 3
        return [row for step in range(3) for row in batches.rows(epoch, step)]

    assert sorted(order(1, 0)) == sorted(order(1, 1)) == [0, 1, 2, 3, 4]
    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(3)}) > 6
    assert PairBatches(tokenize_pairs(dataset), 2, 1, False, None).rows(0, 2) == [4]
    assert "leaves 3 pairs unused" in PairBatches(tokenize_pairs(dataset), 2, 1, False, 1).describe()


def test_validation_holds_prompts_out_and_changes_no_training(train, pairs_file, tmp_path):
    held_out = ["validation_share=0.2", "model.lora_dropout=0.1", "gradient_accumulation_steps=1"]
    assert train(tmp_path / "a", *held_out, "validate_every_n_steps=2") == 0
    assert train(tmp_path / "b", *held_out) == 0
    steps = read_steps(tmp_path / "a")
    validated = {step for step, values in steps.items() if "validation/loss" in values}
    assert validated == {2, 4, 6, 8}  # four of five prompts are left; the epoch's end is step 4 and 8
    assert steps[8]["validation/loss"] != steps[2]["validation/loss"]
    assert {"validation/rewards/accuracies", "validation/rewards/margins"} <= steps[8].keys()
    assert_same_adapter(tmp_path / "a", tmp_path / "b")


def test_validation_set_with_prompts_of_the_training_set_is_said(train, pairs_file, tmp_path, caplog):
    columns = ["validation_dataset.column_map.chosen=rejected", "validation_dataset.column_map.rejected=chosen"]
    dataset = ["validation_dataset._component_=data.datasets.preference_pairs", "validation_dataset.source=json"]
    assert train(tmp_path / "a", *dataset, f"validation_dataset.data_files={pairs_file}", *columns, "epochs=1") == 0
    assert "5 of them have a prompt that is trained on" in caplog.text
    last = read_steps(tmp_path / "a")[3]
    assert last["validation/rewards/margins"] < 0  # the other side


@pytest.mark.parametrize(
    "loss",
    [
        ["loss=finetune.losses.IPOLoss", "~loss.beta", "~loss.label_smoothing"],
        ["loss=finetune.losses.RobustDPOLoss", "~loss.label_smoothing"],
        ["loss=finetune.losses.SimPOLoss", "~loss.label_smoothing", "loss.beta=2", "loss.gamma=1"],
        ["loss=torchtune.rlhf.loss.RSOLoss", "~loss.beta", "~loss.label_smoothing"],
        ["loss.label_smoothing=0.1"],
        ["loss=finetune.losses.ORPOLoss", "~loss.beta", "~loss.label_smoothing", "loss.lam=1"],
        ["loss=finetune.losses.KTOLoss", "~loss.label_smoothing", "loss.undesirable_weight=1.1"],
        ["loss=finetune.losses.SFTLoss", "~loss.beta", "~loss.label_smoothing"],
        ["loss=finetune.losses.LengthNormalizedDPOLoss", "loss.beta=5"],
    ],
    ids=["ipo", "robust", "simpo", "hinge", "conservative", "orpo", "kto", "sft", "means"],
)
def test_every_loss_trains(train, pairs_file, tmp_path, loss):
    held_out = ["validation_dataset._component_=data.datasets.preference_pairs", "validation_dataset.source=json"]
    held_out.append(f"validation_dataset.data_files={pairs_file}")
    arguments = [*loss, "optimizer.lr=1e-2", f"reference_cache_dir={tmp_path / 'cache'}", *held_out]
    assert train(tmp_path / "a", *arguments) == 0
    found = read_steps(tmp_path / "a")
    last = max(found)
    measure = "log_probs/chosen" if "SFT" in loss[0] else "rewards/margins"
    assert found[last][measure] > found[1][measure]
    assert math.isfinite(found[last]["validation/loss"])
    is_free = any(name in loss[0] for name in ("SimPO", "ORPO", "SFT"))
    assert any((tmp_path / "cache").glob("*.bin")) != is_free


def test_kto_of_pairs_is_kto_of_their_answers(train, pairs_file, tmp_path):
    """The same loss and gradient whether two answers to a prompt stand in one row or in two."""
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    single = tmp_path / "single.jsonl"
    labels = (("chosen", True), ("rejected", False))
    answers = [{"prompt": r["prompt"], "completion": r[k], "label": label} for r in rows for k, label in labels]
    single.write_text("\n".join(map(json.dumps, answers)))
    kto = ["loss=finetune.losses.KTOLoss", "~loss.label_smoothing", "loss.beta=1", "optimizer.lr=1e-2", "epochs=1"]
    one_step = [*kto, "shuffle=False", "max_steps_per_epoch=2"]
    assert train(tmp_path / "pairs", *one_step, "gradient_accumulation_steps=2") == 0
    data = ["dataset=data.datasets.unpaired_answers", "dataset.source=json", f"dataset.data_files={single}"]
    assert train(tmp_path / "single", *one_step, *data, "gradient_accumulation_steps=4") == 0
    first, second = (read_steps(tmp_path / name) for name in ("pairs", "single"))
    assert first[1]["loss"] == pytest.approx(0.5)  # policy and reference are the same at the start
    assert first[1]["kl"] == pytest.approx(0, abs=1e-4)
    for name in ("loss", "rewards/chosen", "log_probs/rejected", "grad_norm"):
        assert second[1][name] == pytest.approx(first[1][name], abs=1e-5)
    assert first[2]["kl"] >= 0


def test_sft_is_torchtunes_recipe(tune_run, tiny_model_dir, pairs_file, tmp_path, monkeypatch):
    """The same losses over 16 steps as torchtune's own supervised recipe, tokens weighed alike in a step."""

    def fill(linear):  # the recipes draw the first weights at other times
        linear.weight.data.copy_(torch.arange(linear.weight.numel()).sin().view_as(linear.weight) / 8)

    monkeypatch.setattr("torchtune.modules.peft.lora._lora_a_init_params", fill)
    own = [
        "dataset=data.datasets.chosen_answers", "dataset.source=json", f"dataset.data_files={pairs_file}",
        "shuffle=False", "seed=3", "batch_size=1", "gradient_accumulation_steps=1", "epochs=4", "optimizer.lr=1e-2",
        "max_steps_per_epoch=4", "lr_scheduler.num_warmup_steps=1",
    ]  # fmt: skip
    ours = [*tiny_overrides(tiny_model_dir, tmp_path / "ours"), "loss=finetune.losses.SFTLoss", "~loss.beta"]
    assert tune_run(RECIPE, *CONFIG, *ours, "~loss.label_smoothing", *own) == 0
    theirs = [
        *tiny_overrides(tiny_model_dir, tmp_path / "theirs"),
        "loss=torchtune.modules.loss.CEWithChunkedOutputLoss",
    ]
    assert tune_run("lora_finetune_single_device", *CONFIG, *theirs, "~loss.beta", "~loss.label_smoothing", *own) == 0
    found, expected = losses(tmp_path / "ours"), losses(tmp_path / "theirs")
    assert len(found) == len(expected) == 16
    assert max(abs(a - b) for a, b in zip(found, expected)) < 1e-4
    assert max(found) - min(found) > 0.1


def test_simpo_trains_on_mean_log_probabilities(train, tiny_model_dir, pairs_file, tmp_path):
    """At the start the loss is that of the base: -log sigmoid(beta (mean chosen - mean rejected) - gamma)."""
    assert train(tmp_path / "a", "loss=finetune.losses.SimPOLoss", "~loss.label_smoothing", "loss.gamma=0.5",
                 "loss.beta=2", "gradient_accumulation_steps=5", "epochs=1") == 0  # fmt: skip
    found = read_steps(tmp_path / "a")[1]
    dataset = preference_pairs(hf_chat_tokenizer(str(tiny_model_dir)), source="json", data_files=str(pairs_file))
    lengths = [
        [sum(label != -100 for label in item[f"{side}_labels"]) for side in ("chosen", "rejected")]
        for item in (dataset[k] for k in range(5))
    ]
    assert len(set(map(tuple, lengths))) == 1  # the five topics are one token each, so means of sums will do
    means = [found[f"log_probs/{side}"] / n for side, n in zip(("chosen", "rejected"), lengths[0])]
    assert found["rewards/chosen"] == pytest.approx(2 * means[0], rel=1e-5)
    assert found["rewards/rejected"] == pytest.approx(2 * means[1], rel=1e-5)
    assert found["loss"] == pytest.approx(-math.log(1 / (1 + math.exp(0.5 - 2 * (means[0] - means[1])))), rel=1e-2)


def start_from(run: Path, checkpoint: str, output_dir: Path) -> Path:
    """Make the folder of a run that was stopped after a checkpoint of another one."""
    output_dir.mkdir()
    os.symlink(run / checkpoint, output_dir / checkpoint)
    return output_dir


@pytest.mark.parametrize(("dropout", "dtype"), [(0.0, "fp32"), (0.3, "fp32"), (0.0, "bf16")])
def test_resume_is_exact_at_any_step(train, tmp_path, dropout, dtype):
    settings = [f"model.lora_dropout={dropout}", f"dtype={dtype}", *EVERY_STEP]
    train(tmp_path / "whole", *settings)
    for last in ("step_1", "step_2", "epoch_0", "step_4", "step_5"):
        part = start_from(tmp_path / "whole", last, tmp_path / f"until_{last}")
        train(part, *settings, "resume_from_checkpoint=True")
        assert_same_adapter(tmp_path / "whole", part)
        whole, resumed = read_steps(tmp_path / "whole"), read_steps(part)
        for step, values in resumed.items():  # the learning rate goes on as well
            assert (values["loss"], values["lr"]) == (whole[step]["loss"], whole[step]["lr"])
    assert min(read_steps(tmp_path / "until_step_5")) == 6


@pytest.mark.parametrize(
    "more",
    [["validation_share=0.2"], ["loss=finetune.losses.KTOLoss", "~loss.label_smoothing"]],
    ids=["dpo", "kto"],
)
def test_a_reference_computed_in_large_forwards_leaves_resume_exact(train, tmp_path, more, monkeypatch):
    """As on CUDA: before the first step, so that no step cuts its pairs otherwise than another run did."""
    budgets, values_of = [], PairLosses.reference_values

    def counted(losses, pairs, max_tokens=1):
        budgets.append(max_tokens)
        return values_of(losses, pairs, max_tokens)

    monkeypatch.setattr(PairLosses, "reference_values", counted)
    monkeypatch.setattr(pair_losses, "WAITING", ("cpu",))
    settings = [*more, "max_tokens_per_forward=90", "max_steps_per_epoch=1"]
    train(tmp_path / "whole", *settings)
    assert budgets[0] == 90
    part = start_from(tmp_path / "whole", "epoch_0", tmp_path / "part")
    train(part, *settings, "resume_from_checkpoint=True")
    assert_same_adapter(tmp_path / "whole", tmp_path / "part")
    monkeypatch.undo()
    train(tmp_path / "alone", *settings)
    first, second = (read_steps(tmp_path / name) for name in ("whole", "alone"))
    assert first.keys() == second.keys()
    assert all(first[k]["loss"] == pytest.approx(second[k]["loss"], abs=1e-5) for k in first)


def test_a_drawn_seed_is_kept_on_resume(train, tmp_path):
    train(tmp_path / "run", "seed=null", *EVERY_STEP, "epochs=1")
    part = start_from(tmp_path / "run", "step_2", tmp_path / "part")
    train(part, "seed=null", *EVERY_STEP, "epochs=1", "resume_from_checkpoint=True")
    first, second = adapter(tmp_path / "run", "epoch_0"), adapter(part, "epoch_0")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_resume_of_a_complete_run_does_nothing(train, trained):
    before = {p: p.stat().st_mtime_ns for p in (trained / "epoch_1").iterdir()}
    assert train(trained, *EVERY_STEP, "resume_from_checkpoint=True") == 0
    assert before == {p: p.stat().st_mtime_ns for p in (trained / "epoch_1").iterdir()}


def test_a_folder_that_holds_a_run_is_not_overwritten(train, trained):
    with pytest.raises(FileExistsError, match="already holds a run .epoch_1.; go on with"):
        train(trained)


def test_checkpoint_of_another_run_is_refused_with_the_differences(train, trained):
    with pytest.raises(ValueError, match=r"(?s)made by another run.*lora_rank.*another output_dir"):
        train(trained, "resume_from_checkpoint=True", "model.lora_rank=4")
    with pytest.raises(ValueError, match="seed: checkpoint 7, config 8"):
        train(trained, "resume_from_checkpoint=True", "seed=8")


@pytest.mark.parametrize("as_text", [False, True])
def test_a_checkpoint_is_known_by_its_settings_not_by_their_order_or_form(trained, tmp_path, as_text):
    """Checkpoints of before December 2026 hold their settings as text."""
    shutil.copytree(trained / "step_1", tmp_path / "step_1")
    state = torch.load(tmp_path / "step_1" / "recipe_state.pt", weights_only=True)
    expected = state["expected"]
    state["expected"] = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in expected.items()
    }
    if as_text:
        state["expected"] |= {key: str(state["expected"][key]) for key in DECIDING}
    assert str(state["expected"]["model"]) != str(expected["model"])
    torch.save(state, tmp_path / "step_1" / "recipe_state.pt")
    checkpoints = RunCheckpoints(tmp_path, 2)
    assert checkpoints.load(tmp_path / "step_1", expected)["global_step"] == 1
    other = {**expected, "model": {**expected["model"], "lora_rank": 4}}
    with pytest.raises(ValueError, match=r"(?s)made by another run.*- model: checkpoint .*'lora_rank': 16.*config "):
        checkpoints.load(tmp_path / "step_1", other)


def test_damaged_checkpoint_is_named(train, trained, tmp_path):
    shutil.copytree(trained / "epoch_1", tmp_path / "epoch_1")
    state = tmp_path / "epoch_1" / "recipe_state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ValueError, match="epoch_1 cannot be loaded"):
        train(tmp_path, "resume_from_checkpoint=True")


def test_a_second_run_in_the_folder_is_refused_while_the_first_lives(train, tmp_path):
    first = RunCheckpoints(tmp_path / "run", 2)
    (first.staging / "epoch_0").mkdir(parents=True)  # it is saving
    for settings in ([], ["resume_from_checkpoint=True"]):
        with pytest.raises(RuntimeError, match=r"run: another training is running in it; wait for its end, or use"):
            train(tmp_path / "run", *settings)
    assert [path.name for path in (tmp_path / "run").rglob("*")] == [".saving", "epoch_0"]
    first.release()
    train(tmp_path / "run")
    assert {"epoch_0", "epoch_1"} < {path.name for path in (tmp_path / "run").iterdir()}


def test_old_step_checkpoints_go_and_epochs_stay(train, tmp_path):
    train(tmp_path / "run", "save_every_n_steps=1", "keep_last_n_checkpoints=1")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "epoch_0", "epoch_1", "step_5", "logs", "torchtune_config.yaml",
    }  # fmt: skip


def test_the_merged_model_is_written_if_asked_and_changes_no_training(train, trained, tmp_path):
    train(tmp_path / "merged", "save_adapter_weights_only=False")
    assert (tmp_path / "merged" / "epoch_0" / "model-00001-of-00001.safetensors").exists()
    assert_same_adapter(tmp_path / "merged", trained)


def test_in_bf16_what_is_trained_is_float32(train, trained, tmp_path):
    assert train(tmp_path / "run", "dtype=bf16", "save_adapter_weights_only=False", "optimizer.lr=1e-5") == 0
    state = torch.load(tmp_path / "run" / "epoch_1" / "recipe_state.pt", weights_only=True)
    moments = [tensor for entry in state["optimizer"]["state"].values() for tensor in entry.values()]
    found = adapter(tmp_path / "run")
    assert {tensor.dtype for tensor in [*moments, *found.values()]} == {torch.float32}
    # steps of 1e-5 move weights of .1, which bf16 holds to 5e-4
    first = adapter(tmp_path / "run", "epoch_0")
    moved = [(found[name] != first[name]).float().mean() for name in found]
    assert min(moved) > 0.5
    merged = load_file(tmp_path / "run" / "epoch_1" / "model-00001-of-00001.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert losses(tmp_path / "run")[0] == pytest.approx(math.log(2), abs=1e-6)


def test_dtype_auto_takes_what_a_trial_shows_once(train, tmp_path, monkeypatch, caplog):
    gains = iter([1.31, 1.29])
    monkeypatch.setattr("finetune.run.precision.measure_gain", lambda *_: next(gains))
    caplog.set_level(logging.INFO)
    assert train(tmp_path / "fast", "dtype=auto", *EVERY_STEP) == 0
    assert "dtype=auto takes bf16: layers of this model's size are 1.31 x as fast" in caplog.text
    assert "dtype: bf16" in (tmp_path / "fast" / "torchtune_config.yaml").read_text()
    part = start_from(tmp_path / "fast", "step_2", tmp_path / "part")
    assert train(part, "dtype=auto", *EVERY_STEP, "resume_from_checkpoint=True") == 0  # without a second trial
    assert "dtype=auto takes bf16, as this run did" in caplog.text.replace(": as", ", as")
    assert_same_adapter(tmp_path / "fast", part)
    assert train(tmp_path / "slow", "dtype=auto", "epochs=1") == 0
    assert "dtype=auto takes fp32: layers of this model's size are 1.29 x as fast" in caplog.text
    assert next(gains, None) is None


def test_not_finite_loss_stops_and_names_step_and_rows(train, tmp_path):
    settings = ["optimizer.lr=.inf", "lr_scheduler=null"]
    with pytest.raises(RuntimeError, match=r"(?s)loss is nan at step 2.*rows \[.*pairs.jsonl.*Newest complete"):
        train(tmp_path / "run", *settings)
    with pytest.raises(RuntimeError, match="not finite after step 1: not saved"):
        train(tmp_path / "other", *settings, "save_every_n_steps=1")
    assert not (tmp_path / "other" / "step_1").exists()


def test_not_finite_gradient_stops_before_it_reaches_the_weights(train, tmp_path, monkeypatch):
    backward = torch.Tensor.backward

    def poisoned(self, *args, **kwargs):
        backward(self * float("inf"), *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", poisoned)
    with pytest.raises(RuntimeError, match=r"(?s)grad_norm is (nan|inf) at step 1 .*rows \[.*pairs.jsonl"):
        train(tmp_path / "run")


def test_a_later_signal_of_one_process_is_not_lost_nor_taken_twice():
    with StopRequest(lambda: None) as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt, match="stopped at once; newest complete checkpoint: none; the same comm"):
            signal.raise_signal(signal.SIGTERM)


class StoppingLog(DiskLogger):
    """A logger that a signal reaches when a step has been logged, as one from outside may."""

    def __init__(self, log_dir: str, signal_at: int, name: str = "SIGTERM", times: int = 1) -> None:
        super().__init__(log_dir=log_dir)
        self._signal_at, self._signal, self._times = signal_at, signal.Signals[name], times

    def log_dict(self, payload, step):
        super().log_dict(payload, step)
        for _ in range(self._times if step == self._signal_at else 0):
            os.kill(os.getpid(), self._signal)


def test_sigterm_saves_and_the_run_goes_on_exactly(train, trained, tmp_path, caplog):
    logger = ["metric_logger=test_dpo_finetune.StoppingLog", "metric_logger.signal_at=1"]
    assert train(tmp_path / "run", *logger) == 128 + signal.SIGTERM
    assert "SIGTERM received: saving after this step" in caplog.text
    assert "stopped by SIGTERM after step 2" in caplog.text
    assert "resume_from_checkpoint=True" in caplog.text
    assert f"saved {tmp_path / 'run' / 'step_2'}" in [r.getMessage() for r in caplog.records if r.levelname == "INFO"]
    assert not (tmp_path / "run" / "epoch_1").exists()
    train(tmp_path / "run", "resume_from_checkpoint=True")
    assert_same_adapter(tmp_path / "run", trained)


def test_a_second_ctrl_c_ends_at_once_and_says_what_is_saved(train, tmp_path):
    logger = ["metric_logger=test_dpo_finetune.StoppingLog", "metric_logger.name=SIGINT", "metric_logger.times=2"]
    said = r"stopped at once; newest complete checkpoint: \S*/run/step_1; the same command with resume_from_ch"
    with pytest.raises(KeyboardInterrupt, match=said):
        train(tmp_path / "run", *logger, "metric_logger.signal_at=2", *EVERY_STEP)


# the same full disk, as Python, torch and safetensors say it
@pytest.mark.parametrize("kind", [OSError, RuntimeError, SafetensorError])
def test_full_disk_is_said_and_loses_nothing(trained, kind):
    def full(*_args, **_kwargs):
        raise kind("No space left on device")

    with pytest.raises(OSError, match=r"(?s)could not be written.*No space left.*epoch_1"):
        RunCheckpoints(trained, 2).save("step_9", full, {}, {"global_step": 9, "epoch": 1, "step": 0})
    assert (trained / "epoch_1").is_dir()
    assert not (trained / "step_9").exists()
    assert not (trained / ".saving").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimzer.lr=1e-5", "unknown key `optimzer`; did you mean `optimizer`"),
        ("optimizer.lrr=1e-5", "`optimizer.lrr` is not an argument of torch.optim.AdamW"),
        ("dataset.max_len=5", "`dataset.max_len` is not an argument of data.datasets.preference_pairs"),
        ("loss=torchtune.rlhf.loss.NoLoss", "cannot be imported"),
        ("~seed", "missing key `seed`"),
        ("loss=null", "missing key `loss`"),
        ("dtype=fp16", "use fp32 or bf16"),
        ("batch_size=0", "`batch_size=0` is out of range; use 1 or more"),
        ("log_every_n_steps=null", "`log_every_n_steps=null` is null, want a whole number"),
        ("max_steps_per_epoch=0", "`max_steps_per_epoch=0` is out of range; use 1 or more"),
        ("max_tokens_per_forward=0", "is out of range; use 1 or more"),
        ("keep_last_n_checkpoints=null", "`keep_last_n_checkpoints=null` is null, want a whole number"),
        ("enable_activation_offloading=True", "needs device=cuda"),
        ("model.use_dora=True", "use LoRA"),
        ("checkpointer.model_type=QWEN2", "QWEN2; supported"),
        ("checkpointer=torchtune.training.FullModelMetaCheckpointer", "writes no PEFT adapter"),
        ("~model.lora_rank", "give model.lora_rank"),
    ],
)
def test_wrong_settings_are_refused(train, tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", override)


def test_refusal_comes_before_any_weight(tune_run, tmp_path):
    said = tune_run(RECIPE, *CONFIG, "checkpointer.checkpoint_dir=/nowhere", "optimzer.lr=1e-5")
    assert "did you mean `optimizer`" in said


def test_warm_up_longer_than_the_run_is_said(train, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "run", "lr_scheduler.num_warmup_steps=100")
    assert "num_warmup_steps=100 but the run has only 6 steps" in caplog.text
