# SPDX-License-Identifier: MIT
"""What a study trains and asks: the whole config of every run, checked before the first one starts."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from data.recipe.config import check_config
from eval import political_compass
from eval.asking.results import SCORING
from finetune.run import settings as dpo_settings
from finetune.run.checkpoints import PROGRESS_FILE

TRAINER = "finetune/dpo_finetune.py"
# What the study itself sets.
OWN = ("output_dir", "resume_from_checkpoint")
BASE_KEYS = ("checkpoint_dir", "checkpoint_files", "model_type")  # of a checkpointer: which model it loads
_RUN_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$")


class Run(NamedTuple):
    """One training.

    Attributes:
        name: That of the run in the study, and its seed: ``left_pairs-40_seed-0``.
        cfg: Its whole config.
        command: What trains it, and goes on with it.
    """

    name: str
    cfg: DictConfig
    command: list[str]

    @property
    def adapter(self) -> Path:
        """The folder that a whole run ends with."""
        return Path(self.cfg.output_dir) / f"epoch_{self.cfg.epochs - 1}"

    def is_complete(self) -> bool:
        """Return whether the run has been trained to its end."""
        return (self.adapter / PROGRESS_FILE).is_file()

    def changed_keys(self) -> list[str]:
        """Return the keys in which a run that lies in the folder already was given something else."""
        path = Path(self.cfg.output_dir) / "torchtune_config.yaml"
        if not path.is_file():
            return []
        there = OmegaConf.merge(OmegaConf.create(dpo_settings.OPTIONAL), OmegaConf.load(path))
        there.output_dir = self.cfg.output_dir  # however it was written; others are made from it
        changed = set(as_overrides(there)) ^ set(as_overrides(self.cfg))
        return sorted({text.split("=")[0] for text in changed} - {*OWN})


class ModelPlan(NamedTuple):
    """All runs of one model, and how it is asked with all their adapters."""

    name: str
    runs: list[Run]
    evaluation: DictConfig


def plan_study(cfg: DictConfig) -> list[ModelPlan]:
    """Merge and check the configs of all runs and evaluations.

    Args:
        cfg: A study: see ``configs/studies/identical_prompts.yaml``.

    Raises:
        FileExistsError: If a folder holds a run or results of other settings.
        FileNotFoundError: If a config is not there.
        ValueError: If a name, a seed or a key cannot be used; names the run.
    """
    if not cfg.models or not cfg.runs or not cfg.seeds:
        raise ValueError("a study needs at least one of models, runs and seeds each")
    if wrong := [name for name in [*cfg.models, *cfg.runs] if not _RUN_NAME.match(str(name)) or "_seed-" in name]:
        raise ValueError(f"models, runs: {wrong}; a name has letters, digits, - and _, and the study adds _seed-N")
    if len(set(cfg.seeds)) < len(cfg.seeds) or any(not isinstance(seed, int) or seed < 0 for seed in cfg.seeds):
        raise ValueError(f"seeds={list(cfg.seeds)}; use different whole numbers from 0")
    plans = [_plan_model(cfg, name) for name in cfg.models]
    changed = {run.cfg.output_dir: keys for plan in plans for run in plan.runs if (keys := run.changed_keys())}
    changed |= {plan.evaluation.output_dir: keys for plan in plans if (keys := _changed_questions(plan.evaluation))}
    if changed:
        found = "\n  - ".join(f"{folder}: {', '.join(keys)}" for folder, keys in changed.items())
        raise FileExistsError(
            f"these folders were made with other settings:\n  - {found}\n"
            "Set the study back to them, choose another output_dir, or move these folders away"
        )
    return plans


def _plan_model(cfg: DictConfig, model: str) -> ModelPlan:
    runs = []
    for name, seed in [(name, seed) for name in cfg.runs for seed in cfg.seeds]:
        path, changes = _changes(cfg, model, "train", cfg.runs[name])
        for key in cfg.seed_keys:
            OmegaConf.update(changes, key, seed, force_add=True)
        name = f"{name}_seed-{seed}"
        changes = OmegaConf.merge(changes, {OWN[0]: f"{cfg.output_dir}/{model}/{name}", OWN[1]: True})
        merged = OmegaConf.merge(OmegaConf.load(path), changes)
        try:
            whole = check_config(merged, dpo_settings.REQUIRED, dpo_settings.OPTIONAL, dpo_settings.COMPONENTS)
            dpo_settings.check_settings(whole)
        except ValueError as error:
            raise ValueError(f"{path} with what the study changes for {model}, {name}: {error}") from error
        runs.append(Run(name, whole, ["tune", "run", TRAINER, "--config", path, *as_overrides(changes)]))
    path, changes = _changes(cfg, model, "eval", None)
    asked = OmegaConf.merge(OmegaConf.load(path), changes)
    asked.adapters = {run.name: str(run.adapter) for run in runs}
    asked.output_dir = f"{cfg.output_dir}/{model}/compass_{len(runs)}"  # a study that grows is scored anew
    if asked.get("checkpointer"):  # the base that was tuned, and no other
        trained = runs[0].cfg.checkpointer
        if other := [run.name for run in runs if any(run.cfg.checkpointer[key] != trained[key] for key in BASE_KEYS)]:
            raise ValueError(f"{model}: {other} tune another base than {runs[0].name}; make it one more of models")
        asked.checkpointer.update({key: trained[key] for key in BASE_KEYS})
    try:
        asked = check_config(asked, political_compass.REQUIRED, political_compass.OPTIONAL)
    except ValueError as error:
        raise ValueError(f"{path} with what the study changes for {model}: {error}") from error
    return ModelPlan(model, runs, asked)


def _changes(cfg: DictConfig, model: str, part: str, more: DictConfig | None) -> tuple[str, DictConfig]:
    """The config file of a model's training or evaluation, and what the study changes of it."""
    of_model = (cfg.models[model] or {}).get(part) or {}
    path = of_model.get("config")
    if path is None:
        raise ValueError(f"models.{model}.{part}.config is missing; name the config file that is to be changed")
    if not Path(path).is_file():
        raise FileNotFoundError(f"models.{model}.{part}.config: {path} not found from {Path.cwd()}")
    changes = OmegaConf.merge(cfg[part] or {}, of_model, more or {})
    del changes["config"]
    if taken := [key for key in (*OWN, "adapters") if key in changes]:
        raise ValueError(f"{part}: {', '.join(taken)} is set by the study; take it out")
    return path, changes


def as_overrides(changes: Mapping[str, Any] | DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield ``key=value`` of every leaf, as a command line takes it."""
    if isinstance(changes, DictConfig):
        changes = OmegaConf.to_container(changes, resolve=True)
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from as_overrides(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            yield f"{prefix}{key}={text}"


def _changed_questions(cfg: DictConfig) -> list[str]:
    """Keys in which an evaluation that lies in the folder already was asked something else."""
    path = Path(cfg.output_dir) / "settings.json"
    if not path.is_file():
        return []
    there = json.loads(path.read_text())
    here = OmegaConf.to_container(cfg, resolve=True)
    free = {"output_dir", "checkpointer", *SCORING}
    return [key for key in here if key not in free and there.get(key) != here[key]]
