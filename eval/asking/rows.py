# SPDX-License-Identifier: MIT
"""The rows of an earlier run, to be scored anew without its models."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data.recipe.files import read_log
from eval.statements.instruments import Instrument
from finetune.adapters.folders import ADAPTER_FILE, fingerprint

# Without these no model is loaded, and `respondents` alone are asked.
RESIDENT = ("model", "tokenizer", "checkpointer")


def read_rows(path: str, instrument: Instrument) -> list[dict[str, Any]]:
    """Return the rows of a run, to be scored anew.

    Raises:
        FileNotFoundError: If there is no such file, or it has no row.
        ValueError: If they answer another instrument, or another version of it.
    """
    rows = read_log(path)
    if not rows:
        raise FileNotFoundError(f"rows={path}: no rows there; name the results.jsonl of a run")
    asked = {(row["instrument"], row["instrument_version"], row["instrument_sha256"]) for row in rows}
    if others := sorted(asked - {(instrument.name, instrument.version, instrument.sha256)}):
        said = ", ".join(f"{name} {version} ({sha256[:8]})" for name, version, sha256 in others)
        raise ValueError(
            f"rows={path} answer {said}, but instrument is {instrument.name} {instrument.version} "
            f"({instrument.sha256[:8]}); set instrument to the file that was asked"
        )
    return rows


def without_models(cfg: DictConfig) -> tuple[DictConfig, list[str]]:
    """Return a config that loads nothing, with the adapters that gave its rows, and why others cannot be looked up.

    The settings beside the rows name the adapters; the config's own may be those of another run.
    """
    cfg = cfg.copy()
    beside = Path(cfg.rows).with_name("settings.json")
    asked = json.loads(beside.read_text()) if beside.is_file() else {}
    there, unknown = {}, []
    for name, given in (asked.get("adapters") or {}).items():
        if given is None:
            continue
        if not isinstance(given, str):
            unknown.append(f"adapters.{name}: it is a blend")
        elif not Path(given, ADAPTER_FILE).is_file():
            unknown.append(f"adapters.{name}: {given} is not here")
        elif fingerprint(given) != asked["adapters_sha256"].get(name):
            unknown.append(f"adapters.{name}: {given} has other weights than when it was asked")
        else:
            there[name] = given
    if not asked:
        unknown.append(f"{beside} is not here, which names the adapters that were asked")
    cfg.adapters = there
    for key in (*RESIDENT, "respondents", "dial"):
        cfg[key] = None
    return cfg, unknown
