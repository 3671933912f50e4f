# SPDX-License-Identifier: MIT
"""What a run was made with: settings, hashes, versions and the command, for its files and its report."""

import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eval.statements.instruments import Instrument
from eval.statements.wordings import Templates
from finetune.adapters.fingerprint import fingerprint, tokenizer_fingerprint

PACKAGES = ("politune", "torch", "torchtune", "transformers", "peft", "numpy")


def read_settings(
    cfg: DictConfig, instrument: Instrument, templates: Templates, adapters: Mapping[str, str]
) -> dict[str, Any]:
    """Return the config without its output folder, and the hashes of everything that the answers depend on."""
    return read_weights(cfg, adapters) | {
        "templates_version": templates.version,
        "templates_sha256": templates.sha256,
        "instrument_sha256": instrument.sha256,
    }


def read_weights(cfg: DictConfig, adapters: Mapping[str, str]) -> dict[str, Any]:
    """Return the config without its output folder, and the hashes of base, adapters and tokenizer."""
    settings = OmegaConf.to_container(cfg, resolve=True)
    settings.pop("output_dir")
    folder = None
    if cfg.checkpointer is not None:  # else servers alone are asked
        settings["checkpointer"].pop("output_dir", None)
        folder = Path(cfg.checkpointer.checkpoint_dir)
    return settings | {
        "adapters_sha256": {name: fingerprint(folder) for name, folder in adapters.items()},
        "base_sha256": fingerprint(folder) if folder and folder.is_dir() else None,
        "tokenizer_sha256": tokenizer_fingerprint(cfg.tokenizer.get("path")) if cfg.tokenizer is not None else None,
    }


def describe_run(instrument: Instrument, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first part of ``summary.json``: instrument, command, versions and settings."""
    axes = {name: {**axis._asdict(), "range": instrument.axis_range(name)} for name, axis in instrument.axes.items()}
    return {
        "instrument": {
            "name": instrument.name,
            "version": instrument.version,
            "licence": instrument.licence,
            "source": instrument.source,
            "sha256": instrument.sha256,
            "axes": axes,
        },
        **describe_command(settings),
    }


def describe_command(settings: Mapping[str, Any], *packages: str) -> dict[str, Any]:
    """Return command, versions (of these packages too) and settings."""
    return {
        "command": shlex.join(["tune", "run", _as_typed(sys.argv[0]), *sys.argv[1:]]),
        "versions": {name: _version(name) for name in (*PACKAGES, *packages)} | {"python": sys.version.split()[0]},
        "settings": dict(settings),
    }


def _as_typed(recipe: str) -> str:
    """Return the path of a recipe, of which torchtune makes a module's name."""
    return recipe if "/" in recipe else f"{recipe.replace('.', '/')}.py"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
