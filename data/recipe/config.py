# SPDX-License-Identifier: MIT
"""Refuse a mistyped config before anything is loaded, and end with one line where the user can mend something.

torchtune merges overrides without a check of names, so ``optimzer.lr=1e-5`` would be added in silence.
"""

import difflib
import functools
import inspect
import json
import os
import shutil
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torchtune import config
from torchtune.config._utils import _get_component_from_path

_DATA = next(folder for folder in Path(__file__).resolve().parents if folder.name == "data")
FOLDERS = [_DATA.with_name(name) for name in ("data", "eval", "finetune")]
TRACEBACK = "POLITUNE_TRACEBACK"  # an environment variable: 1 shows where an error was raised
# Types of keys of recipes that have no default, or null for it.
TYPES: dict[str, Any] = {
    **dict.fromkeys(("output_dir", "device", "dtype"), str),
    **dict.fromkeys(("batch_size", "epochs", "gradient_accumulation_steps"), int),
    **dict.fromkeys(("shuffle", "resume_from_checkpoint"), bool),
    **dict.fromkeys(("seed", "max_steps_per_epoch", "save_every_n_steps", "validate_every_n_steps"), int | None),
    **dict.fromkeys(("instrument_limit", "task_limit", "task_n_shots"), int | None),
    **dict.fromkeys(("clip_grad_norm", "validation_share"), float | None),
    **dict.fromkeys(("templates", "reference_cache_dir", "push_to_hub"), str | None),
    "adapters": Mapping | None,
    "tasks": str | list | None,
    "formats": str | list,
}
# The least and the most of keys and arguments of these names.
RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    **dict.fromkeys(("lora_rank", "n_bootstrap"), (1, float("inf"))),
    **dict.fromkeys(("lr", "weight_decay", "num_warmup_steps", "seed"), (0, float("inf"))),
    "lora_dropout": (0, 1),
}
_LEAST_FREE_BYTES = 1_000_000


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


def entry_point(recipe_main: Callable[[DictConfig], Any]) -> Callable[..., Any]:
    """Let a recipe's main function read its config from the command line, and end with :func:`plain_errors`.

    A config file that is not there or is no YAML, or an override that is none, ends with one line too.
    """
    has_begun = False

    def begin(cfg: DictConfig) -> Any:
        nonlocal has_begun
        has_begun = True
        return plain_errors(recipe_main)(cfg)

    parsed = config.parse(functools.wraps(recipe_main)(begin))

    @functools.wraps(recipe_main)
    def run() -> Any:
        nonlocal has_begun
        has_begun = False
        try:
            return parsed()
        except (OSError, ValueError, AssertionError, yaml.YAMLError, OmegaConfBaseException) as error:
            if has_begun or os.environ.get(TRACEBACK) == "1":
                raise
            line = " ".join(str(error).split())
            sys.exit(f"error: the command line or its config cannot be read: {line}\n({type(error).__name__})")

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

    Raises:
        ValueError: If keys are unknown or missing, a value is of another type than the key's default or out of range,
            or a component does not exist or does not take an argument that it is given. Lists all of them.
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
        if key in known and not (isinstance(node, DictConfig) and "_component_" in node):
            problems += check_value(key, node, default=optional.get(key))
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
    try:
        signature = inspect.signature(named, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError):  # an annotation that is there for type checkers alone
        signature = inspect.signature(named)
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    names = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    unknown = [
        f"`{key}.{name}` is not an argument of {path}{_did_you_mean(name, names)}"
        for name in map(str, node)
        if name not in {*names, "_component_"}
    ]
    wrong = [
        problem
        for p in parameters
        if p.name in node and not OmegaConf.is_missing(node, p.name)
        for problem in check_value(f"{key}.{p.name}", node[p.name], p.annotation, p.default)
    ]
    return unknown + wrong


def check_value(key: str, value: Any, wanted: Any = Parameter.empty, default: Any = None) -> list[str]:
    """Say what is wrong with the value of a key or argument: its type, or its range.

    The type is that of the annotation, or else of the default, beside which null is always taken.
    """
    name = key.rpartition(".")[2]
    if wanted is Parameter.empty and "." not in key:
        wanted = TYPES.get(key, Parameter.empty)
    if wanted is Parameter.empty:
        wanted = Any if default in (None, Parameter.empty) else type(default) | None
    if not _is(value, wanted):
        hint = f"; write {key}=[{value}]" if isinstance(value, str) and _is([value], wanted) else ""
        shown = "null" if value is None else value
        return [f"`{key}={shown}` is {_name(type(value))}, want {_name(wanted)}{hint}"]
    least, most = RANGES.get(name, (-float("inf"), float("inf")))
    if isinstance(value, int | float) and not least <= value <= most:
        return [
            f"`{key}={value}` is out of range; use {least:g} {f'to {most:g}' if most < float('inf') else 'or more'}"
        ]
    return []


def _is(value: Any, wanted: Any) -> bool:
    """Return whether a value may be of a type; what is not understood may be."""
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if origin in (Union, types.UnionType):
        return any(_is(value, part) for part in arguments)
    if origin is Literal:
        return value in arguments
    if wanted in (None, type(None)):
        return value is None
    if wanted is bool:
        return isinstance(value, bool) or value in (0, 1)
    if wanted in (int, float):
        return isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
    if wanted in (str, Path):
        return isinstance(value, str | Path)
    if not inspect.isclass(origin):
        return True
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if issubclass(origin, Sequence) or origin is set:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and (origin is tuple or all(_is(part, arg) for part in value for arg in arguments[:1]))
    return origin.__name__ != "Tensor"  # no YAML holds one


def _name(wanted: Any) -> str:
    """Return a type's name for people."""
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text", type(None): "null"}
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_name, arguments)))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if wanted is None or wanted in names:
        return names[wanted or type(None)]
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a mapping"
    return (
        "a list"
        if inspect.isclass(origin) and issubclass(origin, Sequence)
        else getattr(wanted, "__name__", str(wanted))
    )


def check_place(cfg: DictConfig) -> None:
    """Refuse a config whose output folder, device or model files are not what this machine has, before work begins.

    Raises:
        ValueError: Lists every problem.
    """
    problems = list(_output_problems(Path(cfg.output_dir)))
    if cfg.get("device") and (cfg.get("model") or "model" not in cfg):
        problems += _device_problems(cfg.device)
    if cfg.get("checkpointer"):
        problems += _model_problems(cfg.checkpointer)
    tokenizer = Path((cfg.get("tokenizer") or {}).get("path") or os.devnull)
    if tokenizer.is_dir() and not any(any(tokenizer.glob(name)) for name in ("tokenizer.*", "vocab.*", "*.model")):
        problems.append(f"`tokenizer.path={tokenizer}`: no tokenizer.json in this folder; name the model's folder")
    if problems:
        raise ValueError("this cannot run here:\n  - " + "\n  - ".join(problems))


def _output_problems(folder: Path) -> Iterator[str]:
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        yield f"`output_dir={folder}`: {parent} is a file; choose another folder"
    elif not os.access(parent, os.W_OK):
        yield f"`output_dir={folder}`: {parent} cannot be written to; choose another folder"
    elif shutil.disk_usage(parent).free < _LEAST_FREE_BYTES:
        yield f"`output_dir={folder}`: the disk is full; make room, or choose another folder"


def _device_problems(device: str) -> Iterator[str]:
    import torch

    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        yield f"`device={device}` is no device; use cpu or cuda"
        return
    if kind == "cuda" and not torch.cuda.is_available():
        yield (
            f"`device={device}`: torch finds no CUDA device here; use device=cpu dtype=fp32, or install a driver and a "
            "torch with CUDA"
        )
    elif kind == "cuda" and (index or 0) >= torch.cuda.device_count():
        yield f"`device={device}`: there are {torch.cuda.device_count()} CUDA devices, counted from 0"


def _model_problems(checkpointer: DictConfig) -> Iterator[str]:
    """Find the files of a model that are missing, or cut short as by an interrupted download."""
    folder, files = checkpointer.get("checkpoint_dir"), checkpointer.get("checkpoint_files")
    if folder is None or files is None:
        return
    if not Path(folder).is_dir():
        yield f"`checkpointer.checkpoint_dir={folder}`: no such folder from {Path.cwd()}; name the model's folder"
        return
    if not Path(folder, "config.json").is_file():
        yield f"`checkpointer.checkpoint_dir={folder}`: no config.json; give a folder in Hugging Face format"
    names: Any = OmegaConf.to_container(files, resolve=True)
    if isinstance(names, dict):
        count = str(names["max_filename"])
        names = [names["filename_format"].format(f"{k + 1:0{len(count)}}", count) for k in range(int(count))]
    for name in names:
        path = Path(folder, name)
        if not path.is_file():
            there = ", ".join(sorted(file.name for file in Path(folder).glob("*.safetensors"))) or "no *.safetensors"
            yield f"`checkpointer.checkpoint_files`: {path} is not there (the folder has {there})"
        elif path.suffix == ".safetensors" and not _is_whole(path):
            yield f"{path}: not a whole safetensors file; download it again"


def _is_whole(path: Path) -> bool:
    """Return whether a safetensors file is as long as its head says."""
    with path.open("rb") as file:
        n_head = int.from_bytes(file.read(8), "little")
        n_bytes = path.stat().st_size
        try:
            head = json.loads(file.read(n_head)) if n_head < n_bytes else None
            return head is not None and n_bytes == 8 + n_head + max(
                (entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"), default=0
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
