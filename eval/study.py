# SPDX-License-Identifier: MIT
"""A study: many trainings that differ in what the study names, one evaluation over all their adapters, one report.

    tune run eval/study.py --config configs/studies/dose_response.yaml dry_run=True
    tune run eval/study.py --config configs/studies/dose_response.yaml

Every training is a process of its own, by a command that the dry run prints. The same command line again goes on
where a stopped study was: a run that is complete is left alone, and one that was begun goes on. Nothing is ever
overwritten: what was made with other settings is refused before anything starts.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from omegaconf import DictConfig, OmegaConf
from torchtune import config, utils

from data.recipe.beside import write_page
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.files import lock, write_whole
from data.recipe.overrides import Changes, as_overrides
from eval import political_compass
from eval.asking.respondents import plan_interview
from eval.asking.results import changed_results, config_settings, day_of
from eval.pages.study import AskedModel, Cost, describe_results, render_study, total_cost
from eval.scores.places import Place, study_place
from eval.statements.instruments import load_instrument
from eval.statements.prompts import load_templates
from finetune.models import BROUGHT, brings_weights, complete_model
from finetune.run import settings as dpo_settings
from finetune.run.batches import PairBatches, PairSet, load_pairs, split_by_prompt
from finetune.run.checkpoints import PROGRESS_FILE

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "models", "runs"}
OPTIONAL: dict[str, Any] = {"train": None, "eval": None, "seeds": [0], "seed_keys": ["seed"], "dry_run": False}
TRAINER = "finetune/dpo_finetune.py"
SET_BY_STUDY = ("output_dir", "resume_from_checkpoint")
BASE_KEYS = ("checkpoint_dir", "checkpoint_files", "model_type")  # of a checkpointer: which model it loads
_RUN_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$")


class Run(NamedTuple):
    """One training."""

    name: str  # that of the run in the study, and its seed: left_pairs-40_seed-0
    place: Place
    cfg: DictConfig
    command: list[str]  # trains it, and goes on with it

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
        before = DictConfig(OmegaConf.merge(dpo_settings.OPTIONAL, OmegaConf.load(path)))
        before.output_dir = self.cfg.output_dir  # however it was written; others are made from it
        changed = set(as_overrides(before)) ^ set(as_overrides(self.cfg))
        return sorted({text.split("=")[0] for text in changed} - {*SET_BY_STUDY})


class ModelPlan(NamedTuple):
    """All runs of one model, and how it is asked with all their adapters."""

    name: str
    runs: list[Run]
    evaluation: DictConfig

    def changed_keys(self) -> list[str]:
        """Return the keys in which an evaluation that lies in the folder already was asked something else."""
        here = config_settings(self.evaluation)
        # hashes of what is not trained yet are compared by the evaluation itself
        return [key for key in changed_results(self.evaluation.output_dir, here) if key in here]


class StudyRecipe:
    """Train what is not trained yet, ask all of it, write one report.

    Args:
        cfg: A config that passed :func:`data.recipe.config.check_config`.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: See :func:`plan_study`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._output_dir = Path(cfg.output_dir)
        self._plans = plan_study(cfg)
        for plan in self._plans:
            check_questions(plan)
        if not cfg.dry_run:
            check_place(cfg)
            for run in [run for plan in self._plans for run in plan.runs]:
                check_place(run.cfg)
        tokenizers: dict[str, Any] = {}  # each is loaded once: that takes longer than to count a run's pairs
        self._costs = {plan.name: self._count(plan, tokenizers, cfg.dry_run) for plan in self._plans}
        for plan in self._plans:
            log.info(describe_plan(plan, self._costs[plan.name]))

    def _count(self, plan: ModelPlan, tokenizers: dict[str, Any], dry_run: bool) -> dict[str, Cost]:
        try:
            for run in plan.runs:
                if (key := OmegaConf.to_yaml(run.cfg.tokenizer, resolve=True)) not in tokenizers:
                    tokenizers[key] = config.instantiate(run.cfg.tokenizer)
        except (OSError, RuntimeError) as error:  # how tokenizers say that their file is missing
            return _not_counted(plan, dry_run, error)
        try:
            return count_pairs(plan.runs, tokenizers)
        except ConnectionError as error:  # the Hub
            return _not_counted(plan, dry_run, error)

    @contextlib.contextmanager
    def locked(self) -> Iterator[TextIO]:
        """Keep others away from the study's folder inside a ``with`` block.

        Raises:
            RuntimeError: If another process works on the study, or one that a killed study left behind.
        """
        self._output_dir.mkdir(parents=True, exist_ok=True)
        with (self._output_dir / ".lock").open("a+") as file:
            try:
                lock(file)
            except BlockingIOError as error:
                file.seek(0)
                raise RuntimeError(
                    f"{self._output_dir}: another study, or a training that a killed one left behind, is still at "
                    f"work (process {file.read()}); wait for it, or end it, and give the same command again"
                ) from error
            _note(file, os.getpid())
            yield file

    def train(self, lock_file: TextIO) -> int:
        """Train every run that is not complete; return 0, or the status of the training that stopped."""
        runs = [run for plan in self._plans for run in plan.runs]
        for number, run in enumerate(runs, start=1):
            if run.is_complete():
                log.info(f"run {number} of {len(runs)}, {run.name}: complete already")
                continue
            log.info(f"run {number} of {len(runs)}, {run.name}: {shlex.join(run.command)}")
            if status := run_training(run, lock_file):
                log.error(f"{run.name} stopped with status {status}; the same command goes on with it")
                return status
        return 0

    def evaluate(self) -> None:
        """Ask the base and all adapters of each model, and write the report of the study."""
        models = []
        for plan in self._plans:
            cfg, folder = plan.evaluation, Path(plan.evaluation.output_dir)
            recipe = political_compass.PoliticalCompassRecipe(cfg, {run.name: run.place for run in plan.runs})
            recipe.setup(cfg)
            recipe.evaluate(cfg)
            summary = json.loads((folder / "summary.json").read_text())
            models.append(AskedModel(plan.name, folder, self._costs[plan.name], summary))
        text = describe_results(self._output_dir.name, models)
        write_whole(self._output_dir / "study.md", text)
        day = day_of(models[-1].folder / "results.jsonl")
        write_page(self._output_dir / "report.html", render_study(self._output_dir.name, models, day))
        log.info(f"wrote {self._output_dir / 'study.md'}\n{text}")


def _not_counted(plan: ModelPlan, dry_run: bool, error: Exception) -> dict[str, Cost]:
    if not dry_run:
        raise error
    log.warning(f"{plan.name}: pairs not counted: {error}")
    return {}


def run_training(run: Run, lock_file: TextIO) -> int:
    """Run a training and hand it every signal that asks to stop: it saves first. Return its status.

    One that ended in the moment of the signal has status 0; the signal is for the study all the same.

    It inherits the lock, so that it keeps the study's folder for itself even if this process is killed; and it has a
    session of its own, so that Ctrl-C reaches it once.
    """
    command = [sys.executable, "-m", "torchtune._cli.tune", *run.command[1:]]
    child = subprocess.Popen(command, start_new_session=True, pass_fds=(lock_file.fileno(),))
    _note(lock_file, child.pid)
    signals = (signal.SIGTERM, signal.SIGINT)
    asked: list[int] = []

    def hand_on(number: int, _: object) -> None:
        asked.append(number)
        child.send_signal(number)

    previous = [signal.signal(s, hand_on) for s in signals]
    try:
        return child.wait() or (128 + asked[0] if asked else 0)
    finally:
        for s, handler in zip(signals, previous):
            signal.signal(s, handler)
        _note(lock_file, os.getpid())


def _note(lock_file: TextIO, process: int) -> None:
    """Write into the lock who works."""
    lock_file.truncate(0)
    lock_file.write(str(process))
    lock_file.flush()


def plan_study(cfg: DictConfig) -> list[ModelPlan]:
    """Merge and check the configs of all runs and evaluations.

    Args:
        cfg: A study: see ``configs/studies/identical_prompts.yaml``.

    Raises:
        FileExistsError: If a folder holds a run or results of other settings.
        FileNotFoundError: If a config is not there.
        ValueError: If a name, a seed or a key cannot be used; names the run.
    """
    cfg.runs = cfg.runs or {}
    if not cfg.models or not cfg.seeds or not (cfg.runs or (cfg.eval or {}).get("respondents")):
        raise ValueError("a study needs at least one of models, runs (or eval.respondents) and seeds each")
    if wrong := [name for name in [*cfg.models, *cfg.runs] if not _RUN_NAME.match(str(name)) or "_seed-" in name]:
        raise ValueError(f"models, runs: {wrong}; a name has letters, digits, - and _, and the study adds _seed-N")
    if len(set(cfg.seeds)) < len(cfg.seeds) or any(not isinstance(seed, int) or seed < 0 for seed in cfg.seeds):
        raise ValueError(f"seeds={list(cfg.seeds)}; use different whole numbers from 0")
    if empty := [name for name in cfg.runs if not cfg.runs[name]]:
        raise ValueError(f"runs: {', '.join(empty)} changes nothing; say what, as runs.{empty[0]}.dataset.subset=50")
    plans = [_plan_model(cfg, name) for name in cfg.models]
    for plan in plans:
        _check_different(plan)
    changed = {run.cfg.output_dir: keys for plan in plans for run in plan.runs if (keys := run.changed_keys())}
    changed |= {plan.evaluation.output_dir: keys for plan in plans if (keys := plan.changed_keys())}
    if changed:
        folders = "\n  - ".join(f"{folder}: {', '.join(keys)}" for folder, keys in changed.items())
        raise FileExistsError(
            f"these folders were made with other settings:\n  - {folders}\n"
            "Set the study back to them, choose another output_dir, or move these folders away"
        )
    return plans


def _plan_model(cfg: DictConfig, model: str) -> ModelPlan:
    runs = []
    for run, seed in [(run, seed) for run in cfg.runs for seed in cfg.seeds]:
        path, changes = _changes(cfg, model, "train", run)
        for key in cfg.seed_keys:
            changes.add(OmegaConf.from_dotlist([f"{key}={seed}"]), "seed_keys")
        name = f"{run}_seed-{seed}"
        changes.add(dict(zip(SET_BY_STUDY, (f"{cfg.output_dir}/{model}/{name}", True))), "the study")
        merged = changes.config()
        try:
            whole = complete_model(
                check_config(merged, dpo_settings.REQUIRED, dpo_settings.OPTIONAL, dpo_settings.COMPONENTS, BROUGHT)
            )
            dpo_settings.check_settings(whole)
        except ValueError as error:
            raise ValueError(f"{path} with what the study changes for {model}, {name}: {error}") from error
        command = ["tune", "run", TRAINER, "--config", path, *changes.overrides()]
        runs.append(Run(name, study_place(run, seed), whole, command))
    path, changes = _changes(cfg, model, "eval")
    evaluation = changes.config()
    evaluation.adapters = {run.name: str(run.adapter) for run in runs}
    evaluation.output_dir = f"{cfg.output_dir}/{model}/compass_{len(runs)}"  # a study that grows is scored anew
    if runs and evaluation.get("model"):  # the base that was tuned, and no other
        trained = _base(runs[0].cfg)
        if other := [run.name for run in runs if _base(run.cfg) != trained]:
            raise ValueError(f"{model}: {other} tune another base than {runs[0].name}; make it one more of models")
        if brings_weights(runs[0].cfg.model):
            evaluation.model = trained
            evaluation.tokenizer = evaluation.checkpointer = None
        elif evaluation.get("checkpointer"):
            evaluation.checkpointer.update(trained)
    try:
        evaluation = complete_model(check_config(evaluation, political_compass.REQUIRED, political_compass.OPTIONAL))
    except ValueError as error:
        raise ValueError(f"{path} with what the study changes for {model}: {error}") from error
    return ModelPlan(model, runs, evaluation)


def _check_different(plan: ModelPlan) -> None:
    """Refuse two runs that train the same thing: they would count as two."""
    first: dict[tuple[str, ...], str] = {}
    for run in plan.runs:
        key = tuple(sorted(text.replace(run.cfg.output_dir, "") for text in as_overrides(run.cfg)))
        if (other := first.setdefault(key, run.name)) != run.name:
            raise ValueError(
                f"{plan.name}: {other} and {run.name} would train the same adapter; let runs, or seed_keys, change it"
            )


def check_questions(plan: ModelPlan) -> None:
    """Refuse an evaluation whose instrument, templates or modes cannot be used, before anything is trained.

    Raises:
        FileNotFoundError, ValueError: See :func:`eval.statements.instruments.load_instrument` and
            :func:`eval.asking.respondents.plan_interview`.
    """
    cfg = plan.evaluation
    if {*cfg.modes} == {"open"} and not cfg.get("judges"):
        raise ValueError(f"eval.modes={list(cfg.modes)} without eval.judges: nothing would be scored; add another mode")
    bank = load_instrument(cfg.instrument, cfg.instrument_format, cfg.instrument_columns)
    bank = bank if cfg.instrument_limit is None else bank.sample(cfg.instrument_limit, cfg.seed)
    plan_interview(cfg, bank, load_templates(cfg.templates or bank.language))


def _base(cfg: DictConfig) -> dict[str, Any]:
    """Return what says which base a training tunes."""
    if brings_weights(cfg.model):
        return {key: cfg.model[key] for key in ("_component_", "path")}
    return {key: cfg.checkpointer[key] for key in BASE_KEYS}


def _changes(cfg: DictConfig, model: str, part: str, run: str | None = None) -> tuple[str, Changes]:
    """Return the config file of a model's training or evaluation, and what the study changes of it."""
    of_model = _mapping(_mapping(cfg.models[model], f"models.{model}").get(part), f"models.{model}.{part}")
    path = of_model.get("config")
    if path is None:
        raise ValueError(f"models.{model}.{part}.config is missing; name the config file that is to be changed")
    if not Path(path).is_file():
        raise FileNotFoundError(f"models.{model}.{part}.config: {path} not found from {Path.cwd()}")
    changes = Changes(path)
    of_run = {f"runs.{run}": cfg.runs[run]} if run else {}
    for name, layer in {part: cfg[part], f"models.{model}.{part}": of_model, **of_run}.items():
        changes.add(_mapping(layer, name), name)
    if taken := [key for key in (*SET_BY_STUDY, "adapters") if key in changes.values]:
        raise ValueError(f"{part}: {', '.join(taken)} is set by the study; take it out")
    del changes.values["config"]
    return path, changes


def _mapping(node: Any, name: str) -> Any:
    """Return a part of a study, an empty one if it is null."""
    if not isinstance(node, DictConfig | None):
        raise ValueError(f"{name}={node} is no mapping; write `{name}: {{KEY: VALUE}}`, or {name}.KEY=VALUE")
    return node or {}


def count_pairs(runs: Sequence[Run], tokenizers: Mapping[str, Any]) -> dict[str, Cost]:
    """Return how many pairs and tokens each run trains on, every epoch counted."""
    sets: dict[str, PairSet] = {}
    costs = {}
    for run in runs:
        cfg = run.cfg
        of_tokenizer = OmegaConf.to_yaml(cfg.tokenizer, resolve=True)
        key = OmegaConf.to_yaml(cfg.dataset, resolve=True) + of_tokenizer
        if key not in sets:
            sets[key] = load_pairs(cfg.dataset, tokenizers[of_tokenizer])
        pairs = sets[key] if cfg.validation_share is None else split_by_prompt(sets[key], cfg.validation_share)[0]
        per_step = cfg.batch_size * cfg.gradient_accumulation_steps
        batches = PairBatches(pairs, per_step, cfg.seed, cfg.shuffle, cfg.max_steps_per_epoch)
        n_pairs = min(len(pairs.pairs), per_step * batches.steps_per_epoch)
        costs[run.name] = Cost(cfg.epochs * n_pairs, cfg.epochs * batches.count_tokens())
    return costs


def describe_plan(plan: ModelPlan, costs: Mapping[str, Cost]) -> str:
    """Return a line for each run with its command below it, and what all of them cost; without costs, none."""
    lines = []
    for run in plan.runs:
        state = "complete" if run.is_complete() else "begun" if Path(run.cfg.output_dir).exists() else "new"
        cost = "{:,} pairs, {:,} tokens".format(*costs[run.name]) if costs else "pairs not counted"
        lines += [f"{plan.name}, {run.name}: {state}; {cost}", f"    {shlex.join(run.command)}"]
    n_asked = 1 + len(plan.runs) + len(plan.evaluation.respondents or {})
    evaluation = f"{n_asked} models asked in {plan.evaluation.output_dir}"
    return "\n".join([*lines, f"{plan.name}: {len(plan.runs)} runs{total_cost(costs.values())}; {evaluation}"])


@entry_point
def recipe_main(cfg: DictConfig) -> int:
    """Entry point: see configs/studies/dose_response.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    recipe = StudyRecipe(cfg)
    if cfg.dry_run:
        return 0
    with recipe.locked() as lock_file:
        status = recipe.train(lock_file)
        if status == 0:
            recipe.evaluate()
    return status


if __name__ == "__main__":
    sys.exit(recipe_main())
