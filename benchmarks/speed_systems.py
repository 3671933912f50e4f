# SPDX-License-Identifier: MIT
"""The systems that the speed benchmark compares: how each is started, and what one run of it yields."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.child_process import REPO, run_child, versions_of
from benchmarks.step_log import read_log

TRL_PINS = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "trl": "1.16.0"}
OURS, STOCK = "finetune/dpo_finetune.py", "lora_dpo_single_device"


class System(NamedTuple):
    """One system.

    Attributes:
        trainer: A torchtune recipe, or ``trl``.
        dtype: ``fp32`` or ``bf16``.
        options: What sets it apart: overrides of a recipe, arguments of TRL's config.
        reuses_reference: It trains against reference values that it computed once.
        is_other: It runs from the tree of another revision.
    """

    trainer: str
    dtype: str = "fp32"
    options: Mapping[str, Any] = {}
    reuses_reference: bool = False
    is_other: bool = False


# The packaged model through transformers and peft's LoRA, on the same layers; its first LoRA weights are peft's.
TRANSFORMERS = {
    "model._component_": "finetune.models.causal_lm",
    "model.path": "outputs/models/SmolLM2-135M-Instruct",
    "model.target_modules": "[q_proj,v_proj,gate_proj,up_proj,down_proj]",
    **{f"~model.{name}": None for name in ("lora_attn_modules", "apply_lora_to_mlp", "apply_lora_to_output")},
    "tokenizer": "null",
    "checkpointer": "null",
}
# What each objective changes of our config; TRL's side is in benchmarks/trl_trainers.py.
_NO_SMOOTHING = {"~loss.label_smoothing": None}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "dpo": {},
    "sft": {"loss._component_": "finetune.losses.SFTLoss", "~loss.beta": None, **_NO_SMOOTHING},
    "kto": {"loss._component_": "finetune.losses.KTOLoss", **_NO_SMOOTHING},
    "orpo": {"loss._component_": "finetune.losses.ORPOLoss", "~loss.beta": None, **_NO_SMOOTHING},
}
# Objectives against a reference, whose values can be computed once.
REFERENCE = ("dpo", "kto")
TRL_TUNED = {"precompute_ref_log_probs": True, "gradient_checkpointing": False}
SYSTEMS = {
    "ours": System(OURS, reuses_reference=True),
    "ours_transformers": System(OURS, "fp32", TRANSFORMERS, reuses_reference=True),
    "stock": System(STOCK),
    "stock_checkpointing": System(STOCK, options={"enable_activation_checkpointing": True}),
    "trl_default": System("trl"),
    "trl_tuned": System("trl", "fp32", TRL_TUNED, reuses_reference=True),
    "ours_bf16": System(OURS, "bf16", reuses_reference=True),
    "trl_tuned_bf16": System("trl", "bf16", TRL_TUNED, reuses_reference=True),  # autocast, as TRL trains by default
    "stock_bf16": System(STOCK, "bf16"),
    "against": System(OURS, reuses_reference=True, is_other=True),
    "against_bf16": System(OURS, "bf16", reuses_reference=True, is_other=True),
}


def trl_versions(python: Path, create: bool) -> dict[str, str]:
    """Return the versions in TRL's environment, which is made if it is missing and ``create`` is set.

    Raises:
        FileNotFoundError: If there is no such environment and it may not be made.
        ValueError: If it holds other versions than those that are compared here.
    """
    if not python.exists() and not create:
        raise FileNotFoundError(f"{python} not found; leave --trl-python out to have an environment made")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    pins = [f"{name}=={version}" for name, version in TRL_PINS.items()]
    if create and "trl" not in versions_of(python):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pins], check=True)
    installed = versions_of(python)
    found = {name: installed.get(name, "none") for name in TRL_PINS}
    if found != TRL_PINS:
        raise ValueError(f"{python} has {found}; install there: pip install {' '.join(pins)}")
    return found


def _torchtune_command(system: System, inputs: Path, folder: Path, settings: Mapping[str, Any]) -> list[str]:
    ours = system.trainer == OURS
    log_file = folder / "steps.jsonl"
    seeded = {
        "model._component_": "benchmarks.speed_components.seeded_lora",
        "model.builder": "finetune.models.lora_smollm2_135m",
    }
    overrides = {
        "output_dir": folder / "output",
        "dtype": system.dtype,
        **({} if seeded.keys() & system.options.keys() else seeded),
        "dataset": "data.datasets.preference_pairs",
        "dataset.source": "json",
        "dataset.data_files": inputs / "rows.jsonl",
        "shuffle": False,
        "batch_size": settings["batch_size"],
        "gradient_accumulation_steps": 1,
        "epochs": settings["epochs"] if ours else 1,
        "max_steps_per_epoch": "null",
        "lr_scheduler._component_": "benchmarks.speed_components.stamped_cosine_schedule",
        "lr_scheduler.n_steps": settings["schedule_steps"],
        "lr_scheduler.log_file": log_file,
        "metric_logger": "benchmarks.step_log.StepLog",
        "metric_logger.log_file": log_file,
        "~metric_logger.log_dir": None,
        "log_every_n_steps": 1,
        **({"reference_cache_dir": folder / "reference_cache", **OBJECTIVES[settings["objective"]]} if ours else {}),
        **system.options,
    }
    arguments = [key if value is None else f"{key}={value}" for key, value in overrides.items()]
    tune = Path(sys.executable).with_name("tune")
    return [str(tune), "run", system.trainer, "--config", settings["config"], *arguments]


def _trl_command(system: System, inputs: Path, folder: Path, settings: Mapping[str, Any]) -> list[str]:
    without = () if settings["objective"] in REFERENCE else ("precompute_ref_log_probs",)
    tuning = {key: value for key, value in system.options.items() if key not in without}
    chosen = {**settings["trl"], "inputs": str(inputs), "tuning": tuning, "dtype": system.dtype}
    for key in ("batch_size", "schedule_steps", "objective"):
        chosen[key] = settings[key]
    (folder / "settings.json").write_text(json.dumps(chosen))
    return [settings["trl_python"], "-m", "benchmarks.trl_trainers", str(folder)]


def run_system(
    name: str, inputs: Path, folder: Path, settings: Mapping[str, Any], system: System | None = None
) -> dict[str, Any]:
    """Run one system once, in a process of its own.

    Args:
        name: Key of :data:`SYSTEMS`, or the name of another ``system``.
        inputs: Folder that ``benchmarks.speed_inputs`` wrote.
        folder: Scratch folder; emptied first, removed at the end.
        settings: ``config, objective, batch_size, epochs, schedule_steps, threads``, for TRL ``trl_python``
            and ``trl``, for another revision ``against``, its tree.
        system: One that is not in :data:`SYSTEMS`.

    Returns:
        Seconds of set-up, reference pass and training, of each step, losses, peak memory.

    Raises:
        RuntimeError: If the process failed; shows the end of its output, which is kept.
    """
    system = system or SYSTEMS[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = (_trl_command if system.trainer == "trl" else _torchtune_command)(system, inputs, folder, settings)
    tree = Path(settings["against"]) if system.is_other else REPO
    # before the packages of an installation
    usage = run_child(name, command, folder, settings["threads"], {"PYTHONPATH": str(tree)}, tree)
    times = read_log(folder / "steps.jsonl")
    shutil.rmtree(folder)
    return {
        "setup_s": times.train_start - usage.started - times.cache_s,
        "cache_s": times.cache_s,
        "train_s": times.train_s,
        "cache_cpu_s": times.cache_cpu_s,
        "cpu_s": times.cpu_s,
        "peak_rss_bytes": usage.peak_rss_bytes,
        "peak_device_gib": times.peak_device_gib,
        "step_s": times.step_s,
        "losses": times.losses,
    }
