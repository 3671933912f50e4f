# SPDX-License-Identifier: MIT
"""Refuse a mistyped config before anything is loaded, and end with one line where the user can mend something.

torchtune merges overrides without a check of names, so ``optimzer.lr=1e-5`` would be added in silence.
"""

import difflib
import errno
import functools
import importlib
import inspect
import logging
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from torchtune import config, utils
from torchtune.config._errors import InstantiationError
from torchtune.config._instantiate import _create_component, _instantiate_node
from torchtune.config._utils import _get_component_from_path
from tqdm import tqdm

from data.recipe.memory import bound_kernel_caches
from data.recipe.values import check_value, is_for_yaml

_DATA = next(folder for folder in Path(__file__).resolve().parents if folder.name == "data")
FOLDERS = [_DATA.with_name(name) for name in ("data", "eval", "finetune")]
TRACEBACK = "POLITUNE_TRACEBACK"  # an environment variable: 1 shows where an error was raised
STOPPED = "stopped by Ctrl-C; what was written stays"
_LEAST_FREE_BYTES = 1_000_000
# A folder that is a file, a file that is there, no permission, a full disk.
_PLACE_ERRORS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT),
}


def plain_errors(recipe_main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """End with one line, and status 1, where a ``raise`` of this project raised, or a file cannot be opened.

    So do a component that cannot be made, and a file or folder that cannot be written, whoever says it. All others keep
    their traceback. Ctrl-C ends with one line too, and status 130.
    """

    @functools.wraps(recipe_main)
    def run(cfg: DictConfig) -> Any:
        try:
            return recipe_main(cfg)
        except Exception as error:
            said = _said(error)
            if said is None or os.environ.get(TRACEBACK) == "1":
                raise
            _close_bars()
            sys.exit(f"error: {said}\n({type(error).__name__}; {TRACEBACK}=1 shows where)")
        except KeyboardInterrupt as stop:
            if os.environ.get(TRACEBACK) == "1":
                raise
            _close_bars()
            print(stop if stop.args else STOPPED, file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return run


def _close_bars() -> None:
    """End the lines of open progress bars, else a message stands behind them."""
    for bar in [*getattr(tqdm, "_instances", ())]:
        bar.close()


def _below_bars(record: logging.LogRecord) -> bool:
    """Let a record begin on a line of its own; an open bar is drawn anew below it."""
    if len(getattr(tqdm, "_instances", ())):
        sys.stderr.write("\n")
    return True


def _said(error: Exception) -> str | None:
    """Return what to tell a user of an error; None if only whoever changes the code can mend it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    (last,) = traceback.extract_tb(error.__traceback__, limit=-1)
    is_in_project = any(Path(last.filename).resolve().is_relative_to(folder) for folder in FOLDERS)
    # a builtin that raises in a line of this project says nothing about what to do
    is_message = isinstance(error, OSError) or (last.line or "").startswith("raise ")
    if (
        isinstance(error, ValueError | OSError | RuntimeError | ImportError | ArithmeticError)
        and is_in_project
        and is_message
    ):
        return str(error)
    if isinstance(error, InstantiationError | OmegaConfBaseException):  # a dotpath, or a ${key}, that is not there
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in _PLACE_ERRORS:
        return f"{error}; choose a place that can be written to, and that has room"
    if isinstance(error, SafetensorError):
        return f"a safetensors file: {error}; make room on the disk, or get the file again"
    made = [frame.f_locals["node"]["_component_"] for frame in frames if frame.f_code is _instantiate_node.__code__]
    is_call = frames[-1].f_code is _create_component.__code__  # the arguments do not fit
    if made and (is_call or isinstance(error, ValueError | ImportError | AssertionError)):
        return f"{made[-1]} cannot be made of the arguments in the config: {error}"
    return None


def entry_point(recipe_main: Callable[[DictConfig], Any]) -> Callable[..., Any]:
    """Let a recipe's main function read its config from the command line, and end with :func:`plain_errors`.

    A config file that is not there or is no YAML, or an override that is none, ends with one line too.
    """
    has_begun = False

    def begin(cfg: DictConfig) -> Any:
        nonlocal has_begun
        has_begun = True
        bound_kernel_caches()
        utils.get_logger().addFilter(_below_bars)
        return plain_errors(recipe_main)(cfg)

    parsed = config.parse(functools.wraps(recipe_main)(begin))

    @functools.wraps(recipe_main)
    def run() -> Any:
        nonlocal has_begun
        has_begun = False
        try:
            return parsed()
        except (OSError, ValueError, TypeError, AssertionError, yaml.YAMLError, OmegaConfBaseException) as error:
            if has_begun or os.environ.get(TRACEBACK) == "1":
                raise
            line = " ".join(str(error).split())
            if isinstance(error, UnicodeDecodeError):
                line = f"the config is not UTF-8 text ({line}); save it as UTF-8"
            elif isinstance(error, TypeError):  # torchtune spreads whatever the file holds
                found = ", ".join(arg for arg in sys.argv if re.match(r"[\w.]+=[\[{]", arg)) or "the config's file"
                line = f"a list stands where a mapping belongs ({found}), or the reverse: key=[{{…}}] or part.key=value"
            elif isinstance(error, FileNotFoundError):
                line += _nearest_config(str(error.filename))
            sys.exit(f"error: the command line or its config cannot be read: {line}\n({type(error).__name__})")

    return run


def _nearest_config(path: str) -> str:
    root = _DATA.parent
    shipped = [str(file.relative_to(root)) for file in root.glob("configs/**/*.yaml")]
    close = difflib.get_close_matches(path, shipped, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def component(node: DictConfig | str) -> Callable[..., Any]:
    """Return the object of a dotpath, or of a node's ``_component_``, to which the node's arguments are bound."""
    if isinstance(node, str):
        return _get_component_from_path(node)
    arguments = plain(node)
    return functools.partial(_get_component_from_path(arguments.pop("_component_")), **arguments)


def plain(node: Any) -> Any:
    """Return a config, or a part of one, as plain values."""
    return OmegaConf.to_container(node, resolve=True)


def check_config(
    cfg: DictConfig,
    required: Collection[str],
    optional: Mapping[str, Any],
    components: Collection[str] = (),
    nullable: Collection[str] = (),
) -> DictConfig:
    """Return a new config with optional keys filled in, or refuse it with a ValueError that lists every problem.

    Args:
        cfg: A config as ``tune run`` reads it from YAML and overrides.
        required: Top-level keys that must be there.
        optional: Top-level keys that may be left out, with the value that they then have.
        components: Those of ``optional`` that name a component.
        nullable: Those of ``required`` that may be left out or null, where another key says all that they would.

    Raises:
        ValueError: If keys are unknown or missing, a value is of another type than the key's default or out of range,
            or a component does not exist or does not take an argument that it is given. Lists all of them.
    """
    known = {*required, *optional}
    cfg = cfg.copy()
    for key in map(str, list(cfg)):
        # torchtune reads key=null, where the YAML has a component, as a component without a path
        if isinstance(cfg._get_node(key), DictConfig) and cfg[key].get("_component_", "") is None:
            if key in required and key not in nullable:
                del cfg[key]
            else:
                cfg[key] = None
        elif optional.get(key) == [] and not OmegaConf.is_missing(cfg, key) and cfg[key] is None:
            cfg[key] = []  # an empty list is what null says
        elif key in components and isinstance(cfg[key], str):
            cfg[key] = {"_component_": cfg[key]}  # torchtune does this only for components that the YAML has
    unknown = {k: _did_you_mean(k, known) for k in map(str, cfg) if k not in known}
    problems = [f"unknown key `{k}`{hint if 'mean' in hint else ''}" for k, hint in unknown.items()]
    if others := [hint for hint in unknown.values() if "mean" not in hint]:
        problems[list(unknown.values()).index(others[-1])] += others[-1]  # what is known stands there once
    problems += [f"missing key `{k}`" for k in sorted(set(required) - set(cfg) - set(nullable))]
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
        if key.endswith("dataset") and isinstance(node, ListConfig) and any(isinstance(part, str) for part in node):
            problems.append(_several_sets(key))
    if problems:
        raise ValueError("the config was refused:\n  - " + "\n  - ".join(problems))
    filled = DictConfig(dict(optional))
    filled.merge_with(cfg)
    filled.update({key: None for key in nullable if key not in cfg})
    return filled


def _did_you_mean(name: str, known: Collection[str]) -> str:
    # lr is short for learning_rate, and bs for batch_size
    short = [k for k in known if len(min(k, name, key=len)) > 1 and (name == _initials(k) or _initials(name) == k)]
    close = short or difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(sorted(known))}" if known else "; it takes none"


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def _why_not(path: str) -> str:
    """Say why a dotpath names nothing."""
    module, _, name = path.rpartition(".")
    if not module:
        return "give a module and a name, such as data.datasets.mirrored_left"
    try:
        there = vars(importlib.import_module(module))
    except Exception as error:
        return " ".join(str(error).split())
    close = difflib.get_close_matches(name, [known for known in there if not known.startswith("_")], n=1)
    return f"{module} has no {name}" + (f"; did you mean {module}.{close[0]}?" if close else "")


def _several_sets(key: str) -> str:
    return (
        f"`{key}` is a list: several sets are a list of mappings in the YAML file, each with a _component_ "
        f"(docs/data/own_data.md); several files of one form are {key}.data_files=[a.csv,b.csv]"
    )


def _component_problems(key: str, node: DictConfig) -> list[str]:
    """Check a component's dotpath and the names of its arguments."""
    path = node["_component_"]
    if (is_set := key.endswith("dataset")) and isinstance(path, ListConfig):
        return [_several_sets(key)]
    if not isinstance(path, str):
        return [f"`{key}._component_` is no text; give {key}._component_=MODULE.NAME and {key}.ARGUMENT=VALUE"]
    if is_set and ("/" in path or Path(path).exists()):
        as_source = f"{key}=data.datasets.preference_pairs {key}.source={path}"
        return [f"`{key}={path}` is no builder; a file or a set of the Hub is {as_source}"]
    try:
        named = component(path)
    except Exception:  # torchtune wraps whatever the import raised
        return [f"`{key}._component_: {path}` cannot be imported: {_why_not(path)}"]
    if not callable(named):
        return [f"`{key}._component_: {path}` is no class or function; give {key}=MODULE.NAME"]
    try:
        signature = inspect.signature(named, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError):  # an annotation that is there for type checkers alone
        signature = inspect.signature(named)
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    names = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL} - set(_of_the_set(named))
    shown = {p.name for p in parameters if p.name in names and is_for_yaml(p.annotation)}
    # an argument of the component that stood there before stays, as torchtune merges them
    unknown = [
        f"`{key}.{name}` is not an argument of {path}{_did_you_mean(name, shown)} (~{key}.{name} takes it out)"
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


def _of_the_set(named: Callable[..., Any]) -> tuple[str, ...]:
    """Return the arguments with which a builder of the shipped set would read another one."""
    bound = named.keywords if isinstance(named, functools.partial) else {}
    # a builder of a set on the Hub binds no columns, and a copy of that set may be read in its place
    is_shipped = {"source", "column_map"} <= bound.keys()
    return ("source", "data_files", "name", "revision", "split", "column_map") if is_shipped else ()


def check_place(cfg: DictConfig) -> None:
    """Refuse a config whose output folder, device or model files are not what this machine has, before work begins.

    Raises:
        ValueError: Lists every problem.
    """
    problems = list(_output_problems(Path(cfg.output_dir)))
    problems += _source_problems(Path(cfg.output_dir), cfg.get("source"))
    if cfg.get("device") and (cfg.get("model") or "model" not in cfg):
        problems += device_problems(cfg.device)
    if cfg.get("checkpointer"):
        problems += model_problems(cfg.checkpointer)
    tokenizer = Path((cfg.get("tokenizer") or {}).get("path") or os.devnull)
    if tokenizer.is_dir() and not any(any(tokenizer.glob(name)) for name in ("tokenizer.*", "vocab.*", "*.model")):
        problems.append(f"`tokenizer.path={tokenizer}`: no tokenizer.json in this folder; name the model's folder")
    if problems:
        raise ValueError("this cannot run here:\n  - " + "\n  - ".join(problems))


def _source_problems(folder: Path, source: Any) -> Iterator[str]:
    """Find files that are read and lie where this run writes."""
    for path in source.values() if isinstance(source, DictConfig) else [source]:
        if path and Path(str(path)).is_file() and Path(str(path)).resolve().is_relative_to(folder.resolve()):
            yield f"`source={path}` lies in output_dir={folder}, where this run writes; choose another output_dir"


def _output_problems(folder: Path) -> Iterator[str]:
    if str(folder).startswith("~"):
        yield f"`output_dir={folder}`: no shell has replaced ~ here; write the whole path, as $HOME/…"
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        yield f"`output_dir={folder}`: {parent} is a file; choose another folder"
    elif not os.access(parent, os.W_OK):
        yield f"`output_dir={folder}`: {parent} cannot be written to; choose another folder"
    elif shutil.disk_usage(parent).free < _LEAST_FREE_BYTES:
        yield f"`output_dir={folder}`: the disk is full; make room, or choose another folder"


def device_problems(device: str) -> Iterator[str]:
    """Yield why a device cannot be used on this machine."""
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


def model_problems(checkpointer: DictConfig) -> Iterator[str]:
    """Yield the files of a model that are missing, or cut short as by an interrupted download."""
    folder, files = checkpointer.get("checkpoint_dir"), checkpointer.get("checkpoint_files")
    if folder is None or files is None:
        return
    if not Path(folder).is_dir():
        yield f"`checkpointer.checkpoint_dir={folder}`: no such folder from {Path.cwd()}; name the model's folder"
        return
    if not Path(folder, "config.json").is_file():
        yield f"`checkpointer.checkpoint_dir={folder}`: no config.json; give a folder in Hugging Face format"
    elif "quantization_config" in Path(folder, "config.json").read_text(encoding="utf-8", errors="replace"):
        yield f"`checkpointer.checkpoint_dir={folder}`: its weights are quantised; give the model as it was published"
    names = plain(files)
    if isinstance(names, dict):
        count = str(names["max_filename"])
        names = [names["filename_format"].format(f"{k + 1:0{len(count)}}", count) for k in range(int(count))]
    for name in names:
        path = Path(folder, name)
        if not path.is_file():
            there = ", ".join(sorted(file.name for file in Path(folder).glob("*.safetensors"))) or "no *.safetensors"
            yield f"`checkpointer.checkpoint_files`: {path} is not there (the folder has {there})"
        elif path.suffix == ".safetensors" and not is_whole(path):
            yield f"{path}: not a whole safetensors file; download it again"


def is_whole(path: Path) -> bool:
    """Return whether a safetensors file is as long as its head says."""
    try:
        with safe_open(path, "np"):
            return True
    except SafetensorError:
        return False
