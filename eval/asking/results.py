# SPDX-License-Identifier: MIT
"""The files of a run: ``results.jsonl``, written as answers come, and ``settings.json``, which they belong to.

A row is one answer. Beside the rows, ``settings.json`` has the config, the hashes of everything that the answers depend
on, and ``places``: at which step of a training, weight of a dial, or seed and dose of a study a model stands.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data.recipe.files import AppendLog, changed_settings, write_json
from eval.statements.instruments import Instrument
from eval.statements.prompts import Templates
from finetune.adapters.folders import fingerprint, tokenizer_fingerprint
from finetune.models import base_folder

Row = dict[str, Any]
PACKAGES = ("politune", "torch", "torchtune", "transformers", "peft", "numpy")
KEY = ("model", "mode", "item", "template", "order", "labels", "sample")
# Settings that change no row: a run with others is scored anew from the answers that are there.
SCORING = (
    "n_bootstrap",
    "training_data",
    "judges",
    "readings",
    "places",
    "primary",
    "expected",
    "shuffled",
    "dry_run",
    "rows",
)
# Of a respondent behind an address: how it is called, which changes no answer either.
CALLING = ("api_key_env", "max_concurrency", "timeout_s", "max_retries", "retry_wait_s", "stop_after")


def changed_results(folder: str | Path, settings: Mapping[str, Any]) -> list[str]:
    """Name the settings in which the rows of a folder were made otherwise; none where there are no rows."""
    path = Path(folder) / "results.jsonl"
    if not path.exists() or not path.stat().st_size:
        return []
    settings_path = path.with_name("settings.json")
    before = json.loads(settings_path.read_text()) if settings_path.exists() else {}
    return changed_settings(_without_calling(before), _without_calling(settings), ignored=SCORING)


def recorded_dtype(folder: str | Path) -> str | None:
    """Return the dtype in which the rows of a folder were made; None where there are no rows."""
    path = Path(folder) / "settings.json"
    has_rows = path.exists() and path.with_name("results.jsonl").exists()
    return json.loads(path.read_text()).get("dtype") if has_rows else None


def check_results(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder whose rows were made with other settings; nothing is written."""
    if changed := changed_results(folder, settings):
        raise FileExistsError(
            f"{Path(folder) / 'results.jsonl'} holds results of other settings ({', '.join(changed)} differ); "
            "choose another output_dir, or delete that file"
        )


class ResultsFile:
    """``results.jsonl`` of one run; a killed run goes on behind its last whole row.

    Args:
        folder: ``output_dir``; made if it is not there.
        settings: Written beside the rows, which depend on them.

    Raises:
        FileExistsError: If the folder holds rows of other settings.
        RuntimeError: If another process has the file open.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        check_results(folder, settings)
        self._log = AppendLog(Path(folder) / "results.jsonl")
        write_json(Path(folder) / "settings.json", settings)
        self._known = {row_key(row) for row in self._log.rows}

    @property
    def rows(self) -> list[Row]:
        """All rows, those of an earlier process first."""
        return self._log.rows

    def has(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Return whether all of these rows are there, answered or not."""
        return all(row_key(row) in self._known for row in rows)

    def append(self, rows: Iterable[Row]) -> None:
        """Write the rows that are not there yet."""
        new = [row for row in rows if row_key(row) not in self._known]
        self._log.append(new)
        self._known |= {row_key(row) for row in new}

    def close(self) -> None:
        """Close the file; the rows stay readable."""
        self._log.close()


def day_of(path: Path) -> str | None:
    """Return the day of the last answer of a ``results.jsonl``, in words; None where there is none."""
    return f"{date.fromtimestamp(path.stat().st_mtime):%-d %B %Y}" if path.is_file() else None


def model_name(settings: Mapping[str, Any]) -> str:
    """Return the name of a run's base by its folder; that of the respondents where there is no resident model."""
    model, checkpointer = settings.get("model") or {}, settings.get("checkpointer") or {}
    folder = model.get("path") or checkpointer.get("checkpoint_dir")
    return Path(folder).name if folder else ", ".join(settings.get("respondents") or ()) or "a model"


def row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a row from all others of a run."""
    return tuple(tuple(row[k]) if isinstance(row[k], list) else row[k] for k in KEY)


def result_row(
    model: str,
    question: Mapping[str, Any],
    *,
    n_tokens: Sequence[int],
    option_logprobs: Sequence[float | None] | None = None,
    option_mass: float | None = None,
    choice: int | None = None,
    refused: bool | None = None,
    text: str | None = None,
    **more: Any,
) -> Row:
    """Return a row of ``results.jsonl``; every row has these columns, and answers in writing have more.

    ``question`` is the prompt's row. ``n_tokens`` counts each answer that was compared, or the one that was written.
    ``option_mass`` is the probability of all options together; ``choice`` is the likeliest, or the one that a text
    chooses.
    """
    return {
        "model": model,
        **question,
        "option_logprobs": None if option_logprobs is None else list(option_logprobs),
        "n_tokens": list(n_tokens),
        "option_mass": option_mass,
        "choice": choice,
        "stance": None,
        "refused": refused,
        "text": text,
        "judge": None,
        **more,
    }


def _without_calling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a run's settings how its servers are called."""
    entries = (settings.get("respondents") or {}).items()
    respondents = {name: {k: x for k, x in entry.items() if k not in CALLING} for name, entry in entries}
    return {**settings, "respondents": respondents}


def config_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return a config as ``settings.json`` has it: without the folders that are written."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    settings.pop("output_dir")
    (settings["checkpointer"] or {}).pop("output_dir", None)  # null: servers alone are asked
    return settings


def read_weights(cfg: DictConfig, adapters: Mapping[str, str]) -> dict[str, Any]:
    """Return the config without its output folder, and the hashes of base, adapters and tokenizer."""
    base = base_folder(cfg) if cfg.model is not None else None
    return config_settings(cfg) | {
        "adapters_sha256": {name: fingerprint(folder) for name, folder in adapters.items()},
        "base_sha256": fingerprint(base) if base and base.is_dir() else None,
        "tokenizer_sha256": tokenizer_fingerprint(cfg.tokenizer.get("path")) if cfg.tokenizer is not None else None,
    }


def read_settings(
    cfg: DictConfig, instrument: Instrument, templates: Templates, adapters: Mapping[str, str]
) -> dict[str, Any]:
    """Return :func:`read_weights`, and the hashes of templates, instrument and the tokenizers of scored servers."""
    entries = (cfg.get("respondents") or {}).items()
    folders = {name: entry["tokenizer"] for name, entry in entries if entry and entry.get("tokenizer")}
    served = {name: tokenizer_fingerprint(folder) for name, folder in folders.items()}
    return (
        read_weights(cfg, adapters)
        | ({"respondents_tokenizer_sha256": served} if served else {})
        | {
            "templates_version": templates.version,
            "templates_sha256": templates.sha256,
            "instrument_sha256": instrument.sha256,
        }
    )


def describe_run(instrument: Instrument, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first part of ``summary.json``: instrument, command, versions and settings."""
    axes = {name: {**axis._asdict(), "range": instrument.axis_range(name)} for name, axis in instrument.axes.items()}
    fields = ("name", "version", "licence", "source", "sha256")
    about = {field: getattr(instrument, field) for field in fields}
    return {"instrument": about | {"axes": axes}, **describe_command(settings)}


def describe_command(settings: Mapping[str, Any], *packages: str) -> dict[str, Any]:
    """Return command, versions (of these packages too) and settings."""
    recipe = sys.argv[0]
    path = recipe if "/" in recipe else f"{recipe.replace('.', '/')}.py"  # torchtune makes a module's name of it
    return {
        "command": shlex.join(["tune", "run", path, *sys.argv[1:]]),
        "versions": {name: _version(name) for name in (*PACKAGES, *packages)}
        | {"python": sys.version.split()[0], "commit": commit()},
        "settings": dict(settings),
    }


@cache
def commit() -> str:
    """Return the git commit of the code that runs, and whether tracked files were changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return found.stdout.strip() + (" and changes since" if changed.stdout.strip() else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
