# SPDX-License-Identifier: MIT
"""Refuse a mistyped config before anything is loaded.

torchtune merges overrides without a check of names, so ``optimzer.lr=1e-5`` would be added in silence and
the run would go on with the old rate. Every recipe of this project calls :func:`check_config` first.
"""

import difflib
import dis
import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torchtune.config._utils import _get_component_from_path

PROJECT = Path(__file__).resolve().parents[2]
TRACEBACK = "POLITUNE_TRACEBACK"  # an environment variable: 1 shows where an error was raised


def plain_errors(recipe_main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Let an entry point end with one line, and status 1, where a file, a setting or an installation is at fault.

    That is an error of such a kind which code of this project raised: it says what to do. Others keep their traceback.
    """

    @functools.wraps(recipe_main)
    def run(cfg: DictConfig) -> Any:
        try:
            return recipe_main(cfg)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            last = error.__traceback__
            while last.tb_next is not None:
                last = last.tb_next
            code = last.tb_frame.f_code
            path = Path(code.co_filename)
            ours = path.is_relative_to(PROJECT) and "site-packages" not in path.parts
            # what a builtin raises in a line of ours says nothing about what to do, but for a file that is not there
            is_said = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"] or isinstance(error, OSError)
            if not (ours and is_said) or os.environ.get(TRACEBACK) == "1":
                raise
            sys.exit(f"error: {error}\n({type(error).__name__}; {TRACEBACK}=1 shows where)")

    return run


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(sorted(known))}"


def _component_problems(key: str, node: Mapping[str, Any]) -> list[str]:
    """Check a component's dotpath and the names of its arguments."""
    path = node["_component_"]
    try:
        component = _get_component_from_path(path)
    except Exception as error:  # torchtune wraps whatever the import raised
        return [f"`{key}._component_: {path}` cannot be imported: {error}"]
    parameters = inspect.signature(component).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    names = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    return [
        f"`{key}.{name}` is not an argument of {path}{_did_you_mean(name, names)}"
        for name in node
        if name != "_component_" and name not in names
    ]


def check_config(
    cfg: DictConfig, required: Collection[str], optional: Mapping[str, Any], components: Collection[str] = ()
) -> DictConfig:
    """Return the config with optional keys filled in, or refuse it with every problem at once.

    Args:
        cfg: What ``tune run`` read from YAML and overrides.
        required: Top-level keys that must be there.
        optional: Top-level keys that may be left out, with the value that they then have.
        components: Those of ``optional`` that name a component.

    Returns:
        A new config with every key of ``required`` and ``optional``.

    Raises:
        ValueError: If keys are unknown or missing, or a component does not exist or does not take an
            argument that it is given. Lists all of them.
    """
    known = {*required, *optional}
    cfg = cfg.copy()
    for key in list(cfg):
        # torchtune reads key=null, where the YAML has a component, as a component without a path
        if isinstance(cfg._get_node(key), DictConfig) and cfg[key].get("_component_", "") is None:
            if key in required:
                del cfg[key]
            else:
                cfg[key] = None
        elif key in components and isinstance(cfg[key], str):
            cfg[key] = {"_component_": cfg[key]}  # torchtune does this only for components that the YAML has
    problems = [f"unknown key `{k}`{_did_you_mean(k, known)}" for k in cfg if k not in known]
    problems += [f"missing key `{k}`" for k in sorted(set(required) - set(cfg))]
    for key in cfg:
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
    return OmegaConf.merge(OmegaConf.create(dict(optional)), cfg)
