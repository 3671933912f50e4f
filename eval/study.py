# SPDX-License-Identifier: MIT
"""A study: many trainings that differ in what the study names, one evaluation over all their adapters, one report.

    tune run eval/study.py --config configs/studies/dose_response.yaml dry_run=True
    tune run eval/study.py --config configs/studies/dose_response.yaml

Every training is a process of its own, by a command that the dry run prints. The same command line again goes on
where a stopped study was: a run that is complete is left alone, and one that was begun goes on. Nothing is ever
overwritten: what was made with other settings is refused before anything starts.
"""

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig
from torchtune import config, utils

from data.recipe.config import check_config, plain_errors
from data.recipe.files import write_whole
from eval.pages.study_report import Counts, count_pairs, describe_plan, describe_results
from eval.political_compass import PoliticalCompassRecipe
from eval.study_plan import ModelPlan, Run, plan_study

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "models", "runs"}
OPTIONAL: dict[str, Any] = {"train": None, "eval": None, "seeds": [0], "seed_keys": ["seed"], "dry_run": False}


class StudyRecipe:
    """Train what is not trained yet, ask all of it, write one report.

    Args:
        cfg: A config that passed :func:`data.recipe.config.check_config`.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: See :func:`eval.study_plan.plan_study`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._output_dir = Path(cfg.output_dir)
        self._plans = plan_study(cfg)
        self._counts = {plan.name: self._count(plan, cfg.dry_run) for plan in self._plans}
        for plan in self._plans:
            log.info(describe_plan(plan, self._counts[plan.name]))

    def _count(self, plan: ModelPlan, dry_run: bool) -> Counts:
        try:
            return count_pairs(plan.runs)
        except (OSError, RuntimeError) as error:  # how tokenizers say that their file is missing
            if not dry_run:
                raise
            log.warning(f"{plan.name}: pairs not counted: {error}")
            return {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[TextIO]:
        """Keep others away from the study's folder inside a ``with`` block.

        Raises:
            RuntimeError: If another process works on the study, or one that a killed study left behind.
        """
        self._output_dir.mkdir(parents=True, exist_ok=True)
        with (self._output_dir / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise RuntimeError(
                    f"{self._output_dir}: another study, or a training that a killed one left behind, is still at "
                    f"work (process {lock.read()}); wait for it, or end it, and give the same command again"
                ) from error
            _note(lock, os.getpid())
            yield lock

    def train(self, lock: TextIO) -> int:
        """Train every run that is not complete; return 0, or the status of the training that stopped."""
        runs = [run for plan in self._plans for run in plan.runs]
        for number, run in enumerate(runs, start=1):
            if run.is_complete():
                log.info(f"run {number} of {len(runs)}, {run.name}: complete already")
                continue
            log.info(f"run {number} of {len(runs)}, {run.name}: {shlex.join(run.command)}")
            if status := run_training(run, lock):
                log.error(f"{run.name} stopped with status {status}; the same command goes on with it")
                return status
        return 0

    def evaluate(self) -> None:
        """Ask the base and all adapters of each model, and write the report of the study."""
        summaries = {plan.name: self._ask(plan) for plan in self._plans}
        text = describe_results(self._plans, summaries, self._counts)
        write_whole(self._output_dir / "study.md", text)
        log.info(f"wrote {self._output_dir / 'study.md'}\n{text}")

    def _ask(self, plan: ModelPlan) -> dict[str, Any]:
        recipe = PoliticalCompassRecipe(plan.evaluation)
        recipe.setup(plan.evaluation)
        recipe.evaluate(plan.evaluation)
        return json.loads((Path(plan.evaluation.output_dir) / "summary.json").read_text())


def run_training(run: Run, lock: TextIO) -> int:
    """Run a training and hand it every signal that asks to stop: it saves first. Return its status.

    It inherits the lock, so that it keeps the study's folder for itself even if this process is killed; and it has a
    session of its own, so that Ctrl-C reaches it once.
    """
    command = [sys.executable, "-m", "torchtune._cli.tune", *run.command[1:]]
    child = subprocess.Popen(command, start_new_session=True, pass_fds=(lock.fileno(),))
    _note(lock, child.pid)
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(s, lambda number, _: child.send_signal(number)) for s in signals]
    try:
        return child.wait()
    finally:
        for s, handler in zip(signals, previous):
            signal.signal(s, handler)
        _note(lock, os.getpid())


def _note(lock: TextIO, process: int) -> None:
    """Write into the lock who works."""
    lock.truncate(0)
    lock.write(str(process))
    lock.flush()


@config.parse
@plain_errors
def recipe_main(cfg: DictConfig) -> int:
    """Entry point: see configs/studies/dose_response.yaml for the keys."""
    cfg = check_config(cfg, required=REQUIRED, optional=OPTIONAL)
    recipe = StudyRecipe(cfg)
    if cfg.dry_run:
        return 0
    with recipe.locked() as lock:
        status = recipe.train(lock)
        if status == 0:
            recipe.evaluate()
    return status


if __name__ == "__main__":
    sys.exit(recipe_main())
