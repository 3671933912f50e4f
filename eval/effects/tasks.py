# SPDX-License-Identifier: MIT
"""Tasks of lm-evaluation-harness on the base and on adapters, through the harness's own Hugging Face model."""

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

TASK = "task"
# lm-evaluation-harness's settings, and what they are called in a config
_SETTINGS = {"limit": "task_limit", "num_fewshot": "task_n_shots", "apply_chat_template": "task_chat_template"}


def require_lm_eval() -> None:
    """Raise ImportError, with the command that helps, where the extra is not installed."""
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'tasks need lm-eval: pip install -c constraints.txt -e ".[lm-eval]", or tasks=null'
        ) from error


def run_tasks(
    cfg: DictConfig,
    models: Mapping[str, str | None],
    dtype: str,
    is_known: Callable[[list[dict[str, Any]]], bool],
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
        model = HFLM(
            cfg.checkpointer.checkpoint_dir, peft=folder, dtype=dtype, device=cfg.device, batch_size=cfg.task_batch_size
        )
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
