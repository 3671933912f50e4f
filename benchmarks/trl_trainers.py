# SPDX-License-Identifier: MIT
"""TRL's trainer of an objective on the benchmark's rows, in the environment where TRL is installed.

    TRL_PYTHON -m benchmarks.trl_trainers RUN_FOLDER    reads RUN_FOLDER/settings.json

Everything that decides the loss is as in our config; everything else stays at TRL's defaults, unless
the settings are those of the tuned run.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from benchmarks.step_log import write_event


class _Steps(TrainerCallback):
    """Log when training begins, and each step's loss when it is done."""

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file

    def on_train_begin(self, args, state, control, **_):
        write_event(self._log_file, event="train_start")

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:  # the summary at the end has none
            write_event(self._log_file, step=state.global_step, loss=logs["loss"])


class _Objective(NamedTuple):
    """TRL's trainer of an objective, its config, and what of the latter is ours."""

    trainer: type
    config: type
    settings: tuple[str, ...] = ("beta",)  # those of the benchmark's that the config has too
    fixed: dict[str, Any] = {}


OBJECTIVES = {
    "dpo": _Objective(DPOTrainer, DPOConfig),
    "sft": _Objective(SFTTrainer, SFTConfig, (), {"completion_only_loss": True}),
    "kto": _Objective(KTOTrainer, KTOConfig),
    "orpo": _Objective(ORPOTrainer, ORPOConfig),
}


def _measured(trainer: type, schedule_steps: int, log_file: Path) -> type:
    """Return a trainer that says how long its reference pass took and takes the schedule's length from outside."""

    class Measured(trainer):
        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Dataset:
            started, cpu = time.monotonic(), time.process_time()
            result = super()._precompute_ref_logps(*args, **kwargs)
            seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu
            write_event(log_file, event="reference_pass", seconds=seconds, cpu_seconds=cpu_seconds)
            return result

        def create_scheduler(self, num_training_steps: int, optimizer=None):
            return super().create_scheduler(schedule_steps, optimizer)

    return Measured


def _train_set(objective: str, rows: list[dict]) -> Dataset:
    """Return the rows in the form that a trainer takes; of KTO each answer is a row."""
    if objective == "sft":
        return Dataset.from_list([{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows])
    if objective == "kto":
        sides = [(row, side) for row in rows for side in ("chosen", "rejected")]
        answers = [{"prompt": r["prompt"], "completion": r[side], "label": side == "chosen"} for r, side in sides]
        return Dataset.from_list(answers)
    return Dataset.from_list([{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in rows])


def _token_ids(item: dict[str, Any]) -> list[list[int]]:
    """Return the sequences of a prepared row."""
    if "input_ids" in item:  # of SFT
        return [item["input_ids"]]
    if "completion_ids" in item:  # of KTO
        return [item["prompt_ids"] + item["completion_ids"]]
    if "chosen_ids" in item:  # of DPO
        return [item["prompt_ids"] + item[f"{side}_ids"] for side in ("chosen", "rejected")]
    return [item[f"{side}_input_ids"] for side in ("chosen", "rejected")]


def _check_tokens(dataset: Dataset, rows: list[dict], objective: str) -> None:
    """Refuse to time TRL on other sequences than the other systems have."""
    sides = ("chosen",) if objective == "sft" else ("chosen", "rejected")
    expected = [row["expected_ids"][side] for row in rows for side in sides]
    found = [ids for item in dataset for ids in _token_ids(item)]
    if wrong := [k for k, (a, b) in enumerate(zip(found, expected, strict=True), 1) if a != b]:
        raise ValueError(f"answers {wrong[:5]} of {len(expected)}: TRL's tokens differ from torchtune's")


def main(folder: Path) -> None:
    """Train one epoch and write its steps to ``folder/steps.jsonl``."""
    settings = json.loads((folder / "settings.json").read_text())
    inputs, log_file = Path(settings["inputs"]), folder / "steps.jsonl"
    rows = [json.loads(line) for line in (inputs / "trl.jsonl").read_text().split("\n") if line]
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    objective, name = OBJECTIVES[settings["objective"]], settings["objective"]
    args = objective.config(
        output_dir=str(folder / "output"),
        per_device_train_batch_size=settings["batch_size"] * (2 if name == "kto" else 1),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
        lr_scheduler_type="cosine",
        warmup_steps=settings["warmup_steps"],
        max_grad_norm=0.0,  # no clipping, as in our config
        bf16=settings["dtype"] == "bf16",
        use_cpu=True,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **{key: settings[key] for key in objective.settings},
        **objective.fixed,
        **settings["tuning"],
    )
    trainer = _measured(objective.trainer, settings["schedule_steps"], log_file)(
        model=model,
        args=args,
        train_dataset=_train_set(name, rows),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=settings["lora_rank"],
            lora_alpha=settings["lora_alpha"],
            lora_dropout=0.0,
            target_modules=settings["target_modules"],
        ),
        callbacks=[_Steps(log_file)],
    )
    _check_tokens(trainer.train_dataset, rows, name)
    parameters = dict(trainer.model.named_parameters())
    first = load_file(inputs / "lora_a.safetensors")
    trainable = {name for name, p in parameters.items() if p.requires_grad and ".lora_A." in name}
    named = {name.replace("lora_A.weight", "lora_A.default.weight"): weight for name, weight in first.items()}
    if trainable != named.keys():
        raise ValueError(f"peft adapts {len(trainable)} modules, torchtune {len(named)}; the LoRA shapes differ")
    with torch.no_grad():
        for name, weight in named.items():
            parameters[name].copy_(weight)
    trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
