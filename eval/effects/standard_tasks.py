# SPDX-License-Identifier: MIT
"""Tasks of lm-evaluation-harness on the base and on adapters, through the harness's own Hugging Face model."""

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from eval.scores.intervals import MeanError, mean_error, t_interval
from eval.scores.paired_changes import Entries, entry, tested
from eval.scores.scoring import rounded

Row = Mapping[str, Any]
TASK = "task"
# lm-evaluation-harness's settings, and what they are called in a config
_SETTINGS = {"limit": "task_limit", "num_fewshot": "task_n_shots", "apply_chat_template": "task_chat_template"}


def require_lm_eval() -> None:
    """Refuse early what would fail late.

    Raises:
        ImportError: If the extra is not installed.
    """
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'tasks need lm-eval: pip install -c constraints.txt -e ".[lm-eval]", or tasks=null'
        ) from error


def run_tasks(
    cfg: DictConfig, models: Mapping[str, str | None], dtype: str, is_known: Callable[[list[Row]], bool]
) -> Iterator[list[dict[str, Any]]]:
    """Yield a row a task, as soon as it is done: ``results`` has every score of it (of a group, of its parts too).

    A score is ``value``, ``stderr`` (None where the harness gives none), ``n`` and ``documents``: the value of every
    document, in the order of the documents, where the score is their mean.

    Args:
        cfg: ``tasks``, ``task_*``, and ``checkpointer.checkpoint_dir``: the base's Hugging Face folder.
        models: Name to PEFT folder; None is the base.
        dtype: As torch names it.
        is_known: Says of rows whether they are there already.

    Raises:
        ValueError: If there is no task of a name.
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
    for name, folder in models.items():
        asked = [row for row in task_rows(cfg, [name]) if not is_known([row])]
        if not asked:
            continue
        model = HFLM(
            cfg.checkpointer.checkpoint_dir, peft=folder, dtype=dtype, device=cfg.device, batch_size=cfg.task_batch_size
        )
        for row in asked:
            settings = {theirs: cfg[ours] for theirs, ours in _SETTINGS.items()}
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


def task_changes(rows: Sequence[Row]) -> Entries:
    """Return the scores of all models as the harness gives them, with the change from the first model.

    Paired by document where each has a value of its own; else from the two standard errors, which is too wide, since
    both models had the same documents.

    Raises:
        ValueError: If a task changed between the models.
    """
    for item in {row["item"] for row in rows}:
        if len(versions := {str(row["version"]) for row in rows if row["item"] == item}) > 1:
            raise ValueError(
                f"{item}: rows of versions {sorted(versions)} cannot be compared; delete its rows in results.jsonl, "
                "or use another output_dir"
            )
    found = []
    for item, task, metric in dict.fromkeys((row["item"], *name) for row in rows for name in _metrics(row)):
        of = {row["model"]: row["results"][task][metric] for row in rows if row["item"] == item}
        first = next(iter(of.values()))
        for name, score in of.items():
            value = score["value"]
            ci95 = None if value is None else t_interval(value, _as_error(score["stderr"]))
            made = entry(name, f"{task}: {metric}", TASK, "score", score["n"], value, ci95)
            if score is not first and None not in (value, first["value"]):
                change = value - first["value"]
                made |= {"difference": rounded(change), **tested(change, _error_between(first, score))}
            found.append(made)
    return found


def _scores(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for task, of in results["results"].items():
        samples = results.get("samples", {}).get(task, [])
        found[task] = {}
        for name, value in of.items():
            metric, _, chosen = name.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            rows = sorted((s for s in samples if s.get("filter", chosen) == chosen), key=lambda s: s["doc_id"])
            documents = [s.get(metric) for s in rows]
            # a perplexity, or an F1, is no mean of its documents
            is_mean = all(isinstance(x, (int, float)) for x in documents) and documents
            if not is_mean or not math.isclose(np.mean(documents), value, rel_tol=1e-6, abs_tol=1e-9):
                documents = []
            found[task][name.removesuffix(",none")] = {
                "value": value if math.isfinite(value) else None,
                "stderr": _number(of.get(f"{metric}_stderr,{chosen}")),
                "n": of.get("sample_len") or len(rows) or None,  # of a group the harness says none
                "documents": [float(x) for x in documents] or None,
            }
    return found


def _number(x: Any) -> float | None:
    return x if isinstance(x, (int, float)) and math.isfinite(x) else None


def _metrics(row: Row) -> list[tuple[str, str]]:
    return [(task, metric) for task, metrics in row["results"].items() for metric in metrics]


def _as_error(stderr: float | None) -> MeanError | None:
    return None if stderr is None else MeanError(stderr, 1e4)


def _error_between(a: Row, b: Row) -> MeanError | None:
    if a["documents"] and len(a["documents"]) == len(b["documents"] or ()) > 1:
        return mean_error(np.subtract(b["documents"], a["documents"]), units_first=True)
    return _as_error(None if None in (a["stderr"], b["stderr"]) else math.hypot(a["stderr"], b["stderr"]))
