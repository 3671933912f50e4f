# SPDX-License-Identifier: MIT
"""Measure what else a tuning changed: refusals, toxicity, surprise at neutral text, tasks of lm-evaluation-harness.

    tune run eval/side_effects.py --config configs/side_effects.yaml

Writes ``results.jsonl`` (a row an answer, a line of text or a task, as they come), ``side_effects.json`` and
``report.html`` into ``output_dir``. The same command again goes on where a killed run stopped.
``finetune/export.py`` takes ``side_effects.json`` among its ``summaries`` and writes the figures into the card.
"""

import gc
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torchtune import config, utils

from data.recipe.beside import write_page
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.figures import page_template
from data.recipe.files import write_json
from data.recipe.memory import keep_freed_blocks
from eval.asking.respond import ask_resident, check_adapter_bases, load_adapted, prepare_questions
from eval.asking.respondents import BASE, Interview, read_respondents
from eval.asking.results import (
    ResultsFile,
    check_results,
    day_of,
    describe_command,
    model_name,
    read_weights,
    recorded_dtype,
    row_key,
)
from eval.asking.written_answers import Decoding
from eval.effects.doses import dose_lines, dose_texts
from eval.effects.measures import Entries, change_charts, change_lines, describe_answers, measure_all
from eval.effects.prompts import OPEN, TASK, load_adversarial, load_neutral
from eval.scores.places import read_places
from eval.scores.summary import PAIRS
from eval.statements.instruments import Instrument, load_instrument
from eval.statements.prompts import load_templates, pair_prompts
from finetune.adapters.folders import AdapterSet, read_adapters
from finetune.models import BROUGHT, base_folder, complete_model
from finetune.run.precision import settle_dtype

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "model", "tokenizer", "checkpointer", "adapters", "device", "dtype"}
OPTIONAL: dict[str, Any] = {
    "adversarial": "en",
    "max_new_tokens": 64,
    "prompts_per_batch": 15,
    "toxicity": None,
    "toxicity_threshold": 0.5,
    "neutral_text": "en",
    "lean_instrument": None,
    "respondents": None,
    "max_surprise": 0.05,
    "max_tokens_per_forward": 800,
    "tasks": None,
    "task_include_path": None,
    "task_limit": None,
    "task_n_shots": None,
    "task_chat_template": False,
    "task_batch_size": 8,
}
# What rows do not depend on: toxicity is scored anew, and each task is a row that names its own settings.
BESIDE_ROWS = ("toxicity", "toxicity_threshold", "max_surprise", *(key for key in OPTIONAL if key.startswith("task")))

# lm-evaluation-harness's settings, and what they are called in a config
_SETTINGS = {"limit": "task_limit", "num_fewshot": "task_n_shots", "apply_chat_template": "task_chat_template"}


class SideEffectsRecipe:
    """Ask, score, write. What can be refused without the model's weights is refused before they load."""

    def __init__(self, cfg: DictConfig) -> None:
        complete_model(cfg)
        check_place(cfg)
        self._cfg, self._output_dir = cfg, Path(cfg.output_dir)
        self._device = utils.get_device(device=cfg.device)
        self._check(cfg)
        self._adapters = read_adapters(cfg.adapters)
        self._warnings = check_adapter_bases(cfg, self._adapters)
        if BASE in self._adapters.names:
            raise ValueError(f"adapters.{BASE}: this name is the base model's; choose another one")
        _check_doses(self._adapters)
        if cfg.tasks and self._adapters.blends:
            raise ValueError(
                f"adapters: {list(self._adapters.blends)} are blends, which lm-evaluation-harness cannot load: write "
                "them with finetune/export.py and name the folders, leave them out, or use tasks=null"
            )
        self._toxicity = config.instantiate(cfg.toxicity) if cfg.toxicity is not None else None
        loaders = {"adversarial": load_adversarial, "neutral_text": load_neutral}
        self._files = {key: load(cfg[key]) for key, load in loaders.items() if cfg[key] is not None}
        self._prompts = {file.prompts[0].row["mode"]: file.prompts for file in self._files.values()}
        self._bank: Instrument | None = None
        about = self._read_instrument() if cfg.lean_instrument is not None else {}
        # what is asked in the chat: a system prompt precedes neutral text as plain text
        self._respondents = read_respondents(cfg.respondents, True, self._adapters.names, tuple(self._prompts), ())
        if served := [respondent.name for respondent in self._respondents if respondent.server]:
            raise ValueError(f"respondents: {served} are behind an address; give an adapter, a system_prompt, or both")
        for name, entry in (cfg.respondents or {}).items():
            if kept_out := [key for key in ("modes", "thinking") if entry.get(key) is not None]:
                raise ValueError(
                    f"respondents.{name}: {kept_out} cannot be given here: all are asked the same; give an adapter, "
                    "a system_prompt, or both"
                )
        self._names = [respondent.name for respondent in self._respondents]
        self._dtype = settle_dtype(cfg, self._device, base_folder(cfg), recorded_dtype(self._output_dir))
        self._settings = read_weights(cfg, self._adapters.folders) | {"blends": self._adapters.blends}
        self._settings |= {f"{key}_sha256": file.about["sha256"] for key, file in self._files.items()}
        self._settings |= about
        self._row_settings = {key: value for key, value in self._settings.items() if key not in BESIDE_ROWS}
        check_results(self._output_dir, self._row_settings)

    @staticmethod
    def _check(cfg: DictConfig) -> None:
        if not cfg.adapters and not cfg.respondents:
            raise ValueError(
                "adapters and respondents are null: nothing was tuned or told, so nothing else changed; name an adapter"
            )
        if not (cfg.adversarial or cfg.neutral_text or cfg.tasks):
            raise ValueError("adversarial, neutral_text and tasks are all null: give one of them")
        if cfg.toxicity is not None and not cfg.adversarial:
            raise ValueError("toxicity is that of the answers to `adversarial`, which is null; give both or neither")
        if not 0 < cfg.toxicity_threshold <= 1:
            raise ValueError(f"toxicity_threshold={cfg.toxicity_threshold}; use a score above 0, at most 1")
        counts = ["max_new_tokens", "prompts_per_batch", "max_tokens_per_forward"]
        if wrong := [f"{key}={cfg[key]}" for key in counts if not isinstance(cfg[key], int) or cfg[key] < 1]:
            raise ValueError(f"{', '.join(wrong)}; use 1 or more")
        if cfg.tasks:
            if isinstance(cfg.tasks, str):
                raise ValueError(f"tasks={cfg.tasks}; give a list: tasks=[{cfg.tasks}]")
            if find_spec("lm_eval") is None:
                raise ImportError('tasks need lm-eval: pip install -c constraints.txt -e ".[lm-eval]", or tasks=null')

    def _read_instrument(self) -> dict[str, Any]:
        """Ask the pairs of an instrument too, but for its placebo; return its hash."""
        bank = load_instrument(self._cfg.lean_instrument)
        lean = bank.keep({pair.id for pair in bank.political_pairs})
        self._bank = lean
        if not lean.pairs:
            raise ValueError(f"lean_instrument={self._cfg.lean_instrument} has no pairs; take one that has, or null")
        self._prompts[PAIRS] = pair_prompts(lean, load_templates(bank.language), 1)
        return {"lean_instrument_sha256": bank.sha256}

    def setup(self) -> None:
        """Prepare the questions, then load the base with its adapters if anything is still to be asked."""
        # greedy: the likeliest answer, the same at every run
        interview = Interview(self._prompts, (), {OPEN: Decoding(0.0, None, self._cfg.max_new_tokens, 0)})
        self._questionnaire = prepare_questions(self._cfg, interview, self._respondents) if self._prompts else None
        self._results = ResultsFile(self._output_dir, self._row_settings)
        wanted = [{"model": name, **p.row} for name in self._names for group in self._prompts.values() for p in group]
        n_known = sum(self._results.has([row]) for row in wanted)
        log.info(f"{len(wanted)} requests and lines for {len(self._names)} models; {n_known} are there already")
        self._model = None
        if n_known < len(wanted):
            self._model = load_adapted(self._cfg, self._adapters, self._device, self._dtype)

    def evaluate(self) -> None:
        """Ask everybody, run the tasks, measure, write all files."""
        if self._model is not None and self._questionnaire is not None:
            for respondent in self._respondents:
                for rows in ask_resident(self._cfg, self._model, self._questionnaire, respondent, self._results.has):
                    self._results.append(rows)
        self._model = None  # the tasks load a model of their own
        if self._cfg.tasks:
            folders = {BASE: None, **self._adapters.folders}
            dtype = str(self._dtype).removeprefix("torch.")
            for rows in run_tasks(self._cfg, folders, dtype, self._results.has):
                self._results.append(rows)
        self._results.close()
        tasks = set(map(row_key, task_rows(self._cfg, self._names)))  # of an earlier run there may be more
        rows = [row for row in self._results.rows if row["mode"] != TASK or row_key(row) in tasks]
        if self._toxicity is not None:
            log.info("scoring how toxic the answers are")
        entries = measure_all(rows, self._toxicity, self._cfg.toxicity_threshold, self._bank)
        doses = dose_lines(entries, self._cfg.max_surprise)
        summary = {
            **describe_command(self._settings, *(["lm_eval"] if tasks else [])),
            "models": self._names,
            **({"warnings": self._warnings} if self._warnings else {}),
            **{key: file.about for key, file in self._files.items()},
            "answers": describe_answers(rows),
            "side_effects": entries,
            **({"doses": doses} if doses else {}),
        }
        write_json(self._output_dir / "side_effects.json", summary)
        measures: dict[str, Entries] = {}
        for entry in entries:
            measures.setdefault(entry["measure"], []).append(entry)
        page = page_template("eval.effects", "side_effects.html.jinja")
        html = page.render(
            s=summary,
            model=model_name(self._settings),
            date=day_of(self._output_dir / "results.jsonl"),
            charts=change_charts(entries),
            doses=doses,
            measures=measures,
            requests=self._side_by_side(rows),
        )
        write_page(self._output_dir / "report.html", html)
        more = f"\n{dose_texts(doses, self._cfg.max_surprise)}" if doses else ""
        log.info(f"wrote {len(rows)} rows to {self._output_dir}\n{change_lines(entries)}{more}")

    def _side_by_side(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return each request with what every model answered."""
        answers = {(row["item"], row["model"]): row for row in rows if row["mode"] == OPEN}
        return [
            {**prompt.row, "text": prompt.text, "answers": [answers[prompt.row["item"], name] for name in self._names]}
            for prompt in self._prompts.get(OPEN, ())
        ]


def _check_doses(adapters: AdapterSet) -> None:
    """Refuse a blend whose name says another dose than it has, such as ``left@0.5: {left: 2}``."""
    whole = {name: {name: 1.0} for name in adapters.folders} | dict(adapters.blends)
    for name, weights in adapters.blends.items():
        place = read_places([name]).get(name)
        if place is None or place.weight is None or place.run not in whole:
            continue
        meant = {adapter: place.weight * weight for adapter, weight in whole[place.run].items()}
        if any(not math.isclose(meant.get(a, 0), weights.get(a, 0)) for a in {*meant, *weights}):
            raise ValueError(
                f"adapters.{name}: {dict(weights)}, but its name says {meant}; write {name}={meant}, or use a name "
                "without @"
            )


def run_tasks(
    cfg: DictConfig, models: Mapping[str, str | None], dtype: str, is_known: Callable[[list[dict[str, Any]]], bool]
) -> Iterator[list[dict[str, Any]]]:
    """Yield a row a task, as soon as it is done: ``results`` has every score of it (of a group, of its parts too).

    A score has ``documents``, the value of every document, where it is their mean. ``models`` are names and PEFT
    folders (None is the base); ``is_known`` says of rows whether they are there already.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    paths = OmegaConf.to_object(cfg.task_include_path) if OmegaConf.is_list(cfg.task_include_path) else None
    manager = TaskManager(include_path=paths or cfg.task_include_path)
    if unknown := [name for name in cfg.tasks if not manager.match_tasks([name])]:
        raise ValueError(
            f"tasks: {unknown} not found; `lm_eval ls tasks` prints all names, task_include_path adds a folder of yours"
        )
    settings = {theirs: cfg[ours] for theirs, ours in _SETTINGS.items()}
    for name, folder in models.items():
        missing = [row for row in task_rows(cfg, [name]) if not is_known([row])]
        if not missing:
            continue
        log.info(f"{name}: lm-evaluation-harness loads its own model, for {len(missing)} tasks")
        model = HFLM(str(base_folder(cfg)), peft=folder, dtype=dtype, device=cfg.device, batch_size=cfg.task_batch_size)
        for row in missing:
            results = simple_evaluate(model=model, tasks=[row["item"]], task_manager=manager, **settings)
            yield [row | {"version": results["versions"].get(row["item"]), "results": _scores(results)}]
        del model  # before the next one is loaded
        gc.collect()


def task_rows(cfg: DictConfig, models: Iterable[str]) -> list[dict[str, Any]]:
    """Return what ``results.jsonl`` says of every task and model before it is done; other settings make other rows."""
    keys = sorted({*_SETTINGS.values(), "task_include_path"})
    settings = ", ".join(f"{key}={cfg[key]}" for key in keys)
    known = {"mode": TASK, "template": settings, "order": None, "labels": None, "sample": 0}
    return [{"model": model, "item": task, **known} for model in models for task in cfg.tasks or ()]


def _scores(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return task to metric to score, from what the harness gives."""
    scores: dict[str, dict[str, Any]] = {}
    for task, figures in results["results"].items():
        samples = results.get("samples", {}).get(task, [])
        scores[task] = {}
        for name, value in figures.items():
            metric, _, chosen = name.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            rows = sorted((s for s in samples if s.get("filter", chosen) == chosen), key=lambda s: s["doc_id"])
            documents = [s.get(metric) for s in rows]
            # a perplexity, or an F1, is no mean of its documents
            is_mean = all(isinstance(x, (int, float)) for x in documents) and documents
            if not is_mean or not math.isclose(np.mean(documents), value, rel_tol=1e-6, abs_tol=1e-9):
                documents = []
            scores[task][name.removesuffix(",none")] = {
                "value": _finite(value),
                "stderr": _finite(figures.get(f"{metric}_stderr,{chosen}")),
                "n": figures.get("sample_len") or len(rows) or None,  # of a group the harness says none
                "documents": [float(x) for x in documents] or None,
            }
    return scores


def _finite(x: Any) -> float | None:
    return x if isinstance(x, (int, float)) and math.isfinite(x) else None


@entry_point
def recipe_main(cfg: DictConfig) -> None:
    """Entry point: see configs/side_effects.yaml for the keys."""
    recipe = SideEffectsRecipe(check_config(cfg, REQUIRED, OPTIONAL, {"toxicity"}, BROUGHT))
    keep_freed_blocks()
    recipe.setup()
    recipe.evaluate()


if __name__ == "__main__":
    sys.exit(recipe_main())
