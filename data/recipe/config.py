# SPDX-License-Identifier: MIT
"""Refuse a mistyped config before anything is loaded, and end with one line where the user can mend something.

torchtune merges overrides without a check of names, so ``optimzer.lr=1e-5`` would be added in silence.
"""

import difflib
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torchtune.config._utils import _get_component_from_path

_DATA = next(folder for folder in Path(__file__).resolve().parents if folder.name == "data")
FOLDERS = [_DATA.with_name(name) for name in ("data", "eval", "finetune")]
TRACEBACK = "POLITUNE_TRACEBACK"  # an environment variable: 1 shows where an error was raised


def plain_errors(recipe_main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """End with one line, and status 1, where a ``raise`` of this project raised, or a file cannot be opened.

    All others keep their traceback.
    """

    @functools.wraps(recipe_main)
    def run(cfg: DictConfig) -> Any:
        try:
            return recipe_main(cfg)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            (last,) = traceback.extract_tb(error.__traceback__, limit=-1)
            is_in_project = any(Path(last.filename).resolve().is_relative_to(folder) for folder in FOLDERS)
            # a builtin that raises in a line of this project says nothing about what to do
            is_message = isinstance(error, OSError) or (last.line or "").startswith("raise ")
            if not (is_in_project and is_message) or os.environ.get(TRACEBACK) == "1":
                raise
            sys.exit(f"error: {error}\n({type(error).__name__}; {TRACEBACK}=1 shows where)")

    return run


def component(node: DictConfig | str) -> Callable[..., Any]:
    """Return the object of a dotpath, or of a node's ``_component_``, to which the node's arguments are bound."""
    if isinstance(node, str):
        return _get_component_from_path(node)
    arguments: Any = OmegaConf.to_container(node, resolve=True)
    return functools.partial(_get_component_from_path(arguments.pop("_component_")), **arguments)


def check_config(
    cfg: DictConfig, required: Collection[str], optional: Mapping[str, Any], components: Collection[str] = ()
) -> DictConfig:
    """Return a new config with optional keys filled in, or refuse it with a ValueError that lists every problem.

    Args:
        cfg: A config as ``tune run`` reads it from YAML and overrides.
        required: Top-level keys that must be there.
        optional: Top-level keys that may be left out, with the value that they then have.
        components: Those of ``optional`` that name a component.
    """
    known = {*required, *optional}
    cfg = cfg.copy()
    for key in map(str, list(cfg)):
        # torchtune reads key=null, where the YAML has a component, as a component without a path
        if isinstance(cfg._get_node(key), DictConfig) and cfg[key].get("_component_", "") is None:
            if key in required:
                del cfg[key]
            else:
                cfg[key] = None
        elif key in components and isinstance(cfg[key], str):
            cfg[key] = {"_component_": cfg[key]}  # torchtune does this only for components that the YAML has
    problems = [f"unknown key `{k}`{_did_you_mean(k, known)}" for k in map(str, cfg) if k not in known]
    problems += [f"missing key `{k}`" for k in sorted(set(required) - set(cfg))]
    for key in map(str, cfg):
        if OmegaConf.is_missing(cfg, key):
            problems.append(f"`{key}` has no value (???); give it on the command line: {key}=…")
            continue
        node = cfg[key]
        if key in components and isinstance(node, DictConfig) and "_component_" not in node:
            problems.append(f"`{key}` names no component; give {key}._component_=… too")
        for part in node if isinstance(node, ListConfig) else [node]:
            if isinstance(part, DictConfig) and "_component_" in part:
                problems += _component_problems(key, part)
    if problems:
        raise ValueError("the config was refused:\n  - " + "\n  - ".join(problems))
    filled = DictConfig(dict(optional))
    filled.merge_with(cfg)
    return filled


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(sorted(known))}"


def _component_problems(key: str, node: DictConfig) -> list[str]:
    """Check a component's dotpath and the names of its arguments."""
    path = node["_component_"]
    try:
        named = component(path)
    except Exception as error:  # torchtune wraps whatever the import raised
        return [f"`{key}._component_: {path}` cannot be imported: {error}"]
    parameters = inspect.signature(named).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    names = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    return [
        f"`{key}.{name}` is not an argument of {path}{_did_you_mean(name, names)}"
        for name in map(str, node)
        if name not in {*names, "_component_"}
    ]
