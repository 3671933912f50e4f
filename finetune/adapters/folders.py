# SPDX-License-Identifier: MIT
"""Folders of PEFT adapters: how they are read, their fingerprints, and the ``adapters`` of a config.

::

    adapters:
      left: outputs/left/epoch_0            # a PEFT folder
      right: outputs/right/*                # a glob: every checkpoint of a run, as right_step_5, right_step_10, ...
      both: {left: 1, other: 0.5}           # the sum of the updates of adapters named here, each times its weight
    dial: {low: left, high: other, n_points: 9}

The updates of LoRA adapters add up, so a blend is exact; a dial is a row of blends of one or two adapters.
"""

import glob
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from peft import LoraConfig
from safetensors import safe_open
from torchtune import utils

from finetune.adapters.norms import allow_norms
from finetune.adapters.tensors import check_tensors
from finetune.run.checkpoints import PROGRESS_FILE, read_progress

log = utils.get_logger()  # of the recipe, which sets its level

ADAPTER_FILE = "adapter_model.safetensors"
BASE_FILE = "base.json"  # beside an adapter that was trained here: the fingerprint of its base
# Hugging Face's names of the projections -> torchtune's. The reverse of torchtune's own table.
TORCHTUNE_NAMES = {
    "q_proj": "q_proj",
    "k_proj": "k_proj",
    "v_proj": "v_proj",
    "o_proj": "output_proj",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
    "lm_head": "output",
}

# Fields of an adapter's config that say how it was made, not what it computes; the configs of initialisations too.
DESCRIPTIVE = {
    "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config", "layers_pattern", "loftq_config",
    "megatron_core", "peft_version", "qalora_group_size", "runtime_config",
}  # fmt: skip
# Fields that are handed to peft, or refused with more to say than their name.
READ = {
    "alpha_pattern", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout", "modules_to_save",
    "peft_type", "r", "rank_pattern", "revision", "target_modules", "task_type", "trainable_token_indices", "use_dora",
    "use_rslora",
}  # fmt: skip
# Initialisations that leave the base as it is. PiSSA and its like take a part out of the base's weights, in memory.
KEEPS_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
END = 1 << 20
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
# The same weights are another model under another rank, alpha or rotary base.
SETTINGS = ("adapter_config.json", "config.json")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab.*", "merges.txt", "added_tokens.json")

GIVE = "give a PEFT adapter folder, for a run of ours output_dir/epoch_N"

Weights = dict[str, float]


def read_adapter_config(folder: str | Path) -> LoraConfig:
    """Read the ``adapter_config.json`` of a PEFT folder; only LoRA that leaves the base as it is passes."""
    folder = Path(folder)
    if missing := _missing(folder):
        raise FileNotFoundError(f"{missing}; {GIVE}")
    settings = _read_settings(folder)
    if settings.modules_to_save or settings.bias != "none" or settings.trainable_token_indices:
        raise ValueError(
            f"{folder}: modules_to_save={settings.modules_to_save}, bias={settings.bias!r}, trainable_token_indices="
            f"{settings.trainable_token_indices}: it changes more than LoRA adds, which no weight scales; such an "
            "adapter can be merged with peft and scored as a base"
        )
    if isinstance(settings.target_modules, str):
        # "all-linear", a regular expression: tensors say what it matched, and peft blends no text with a list
        settings.target_modules = adapted_modules(folder)
    return settings


def check_llama_targets(folder: str | Path) -> LoraConfig:
    """Read what :func:`read_adapter_config` does, for a torchtune decoder: only a Llama's linear layers pass."""
    folder, settings = Path(folder), read_adapter_config(folder)
    targets, allowed = settings.target_modules, set(TORCHTUNE_NAMES)
    modules = targets if isinstance(targets, set) and targets <= allowed else None
    if modules is None and {name.rpartition(".")[2] for name in targets or ()} <= allowed:
        modules = adapted_modules(folder)  # paths: tensors say what they match
    if not modules or not {name.rpartition(".")[2] for name in modules} <= allowed:
        raise ValueError(
            f"{folder}: target_modules {targets}; allowed: a list of {sorted(allowed)}, or a text that matches "
            "these alone; others are read by model._component_=finetune.models.causal_lm"
        )
    settings.target_modules = modules
    patterns = {**settings.rank_pattern, **settings.alpha_pattern}
    if set(patterns) - allowed or settings.exclude_modules or settings.layers_to_transform:
        raise ValueError(
            f"{folder}: rank_pattern, alpha_pattern, exclude_modules or layers_to_transform names more than whole "
            f"projections ({sorted(allowed)}); such an adapter is read by model._component_=finetune.models.causal_lm"
        )
    return settings


def check_bases(folders: Mapping[str, str | Path], base: str | Path) -> list[str]:
    """Check that adapters were made for a base; return a line for each that names another one.

    The names may differ where the models do not, as folders are moved. Only a fingerprint of ours decides.

    Raises:
        ValueError: If an adapter was trained here on another base.
    """
    base, warnings = Path(base), []
    names = {base.resolve().name}
    for path, key in ((base / "original_repo_id.json", "repo_id"), (base / "config.json", "_name_or_path")):
        if path.is_file() and (name := json.loads(path.read_text(encoding="utf-8")).get(key)):
            names.add(Path(name).name)
    for part in base.resolve().parts:  # the Hub's cache: models--owner--name/snapshots/revision
        names |= {part.rpartition("--")[2]} if part.startswith("models--") else set()
    for name, folder in folders.items():
        own = Path(folder) / BASE_FILE
        if own.is_file() and _said_base(own) != fingerprint(base):
            raise ValueError(
                f"adapters.{name}: {folder} was trained on another base than {base}: {BASE_FILE} has another SHA-256 "
                f"of config and weights. Give that base; or remove {own}, if it has the same weights in other files"
            )
        said = read_adapter_config(folder).base_model_name_or_path
        if not own.is_file() and said and Path(said).name.lower() not in {known.lower() for known in names}:
            warnings.append(f"adapters.{name}: {folder} says that its base is {said}; taken to be {base}")
    return warnings


def _said_base(path: Path) -> str:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no sha256 of the base in it ({error!r}); copy the adapter's folder anew") from error


def _read_settings(folder: Path) -> LoraConfig:
    """Read an ``adapter_config.json`` that asks for nothing which is not read here and leaves the base as it is."""
    path = folder / "adapter_config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        kind = fields.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON object ({error}); give the file that peft wrote") from error
    if kind != "LORA":
        raise ValueError(f"{folder}: a {kind} adapter; only LoRA can be switched on here")
    merged = "such an adapter can be merged with peft and scored as a base"
    if unknown := {name: value for name, value in fields.items() if value and name not in READ | DESCRIPTIVE}:
        raise ValueError(
            f"{folder}: {', '.join(f'{name}={value!r}' for name, value in unknown.items())}: not supported; {merged}. "
            "A field that says nothing of what the adapter computes can be taken out of adapter_config.json"
        )
    for name in ("r", "lora_alpha"):
        if name in fields and (isinstance(fields[name], bool) or not isinstance(fields[name], int | float)):
            raise ValueError(f"{path}: {name}={fields[name]!r}, want a number; give the file that peft wrote")
    init = fields.get("init_lora_weights")
    if init not in KEEPS_BASE:
        raise ValueError(
            f"{folder}: init_lora_weights={init!r} changes the weights of the base, which all models here share. "
            "Convert it to plain LoRA where it was trained, with peft's save_pretrained(..., "
            f"path_initial_model_for_weight_conversion=...) for PiSSA, OLoRA and CorDA; or {merged}"
        )
    # the file has the values, so nothing is left to initialise; a field without a value has peft's own
    given = {name: value for name, value in fields.items() if name in READ and value is not None}
    try:
        return allow_norms(LoraConfig(**{**given, "init_lora_weights": True}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def adapted_modules(folder: Path) -> set[str]:
    """Return the modules that an adapter's tensors are for, under Hugging Face's names."""
    with safe_open(folder / ADAPTER_FILE, "pt") as file:
        names = {name.removeprefix("base_model.model.").partition(".lora_") for name in file.keys()}
    return {module for module, is_lora, _ in names if is_lora}


def adapts_head(folder: str | Path) -> bool:
    """Say whether an adapter changes the output projection."""
    return any(module.rpartition(".")[2] in ("lm_head", "embed_out") for module in adapted_modules(Path(folder)))


def fingerprint(folder: str | Path) -> str:
    """Return a SHA-256 over the weights and settings of a folder: names, sizes, first and last mebibyte of every file.

    Reading 16 GB whole would take a minute; an edit in the middle that keeps the size is missed.
    """
    return _digest(path for path in Path(folder).iterdir() if path.suffix in WEIGHTS or path.name in SETTINGS)


def tokenizer_fingerprint(path: str | Path | None) -> str | None:
    """Return a SHA-256 over a tokenizer's folder or file, as :func:`fingerprint` does; None if it is not there."""
    folder = Path(path) if path else None
    if folder is not None and folder.is_file():
        return _digest([folder])
    if folder is None or not folder.is_dir():
        return None
    return _digest({file for pattern in TOKENIZER for file in folder.glob(pattern) if file.is_file()})


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(END))
            file.seek(max(0, size - END))
            digest.update(file.read(END))
    return digest.hexdigest()


class AdapterSet(NamedTuple):
    """The adapters that are loaded, and the blends that are made of them."""

    folders: dict[str, str]  # name to PEFT folder, each to be loaded once
    blends: dict[str, Weights]  # name to weight of each adapter in it
    names: tuple[str, ...]  # all of both, in the order in which they are to be asked
    # run and step of each checkpoint of a glob, run and weight of each point of a dial
    places: dict[str, dict[str, Any]]


def read_adapters(adapters: Mapping[str, Any] | None, dial: Mapping[str, Any] | None = None) -> AdapterSet:
    """Resolve the ``adapters`` and the ``dial`` of a config and check every file and weight.

    Args:
        adapters: Name to folder, glob, or weights by name; null leaves one of a config's out.
        dial: ``low`` and ``high``: adapters at -1 and at +1, with the base at 0 (``low`` null: -1 is the other one
            with weight -1); ``n_points``: how many, odd, and between two adapters 5 or more. The ends are the
            adapters themselves and 0 is the base, so only the points between are added, as ``left@0.75``: the
            adapter ``left`` with weight 0.75.

    Raises:
        FileNotFoundError: If a folder holds no complete adapter, or a glob matches none.
        ValueError: If a name or a weight cannot be used; says what is allowed.
    """
    folders: dict[str, str] = {}
    blends: dict[str, Weights] = {}
    names: list[str] = []
    places: dict[str, dict[str, Any]] = {}
    check_names("adapters", adapters or {})
    adapters = {name: given for name, given in (adapters or {}).items() if given is not None}  # null: left out
    for name, given in adapters.items():
        if isinstance(given, Mapping):
            blends[name] = dict(given)
            names.append(name)
            continue
        if not isinstance(given, str | Path):
            raise ValueError(f"adapters.{name}={given}; give a folder, a glob, or weights as {{left: 0.5}}")
        resolved = {name: str(given)}
        if set("*?[") & set(str(given)) and not Path(given).is_dir():
            steps = find_checkpoints(str(given))
            resolved = {f"{name}_step_{step}": str(path) for step, path in steps.items()}
            places |= {f"{name}_step_{step}": {"run": name, "step": step} for step in steps}
        if taken := sorted(resolved.keys() & {*names, *(adapters.keys() - {name})}):
            raise ValueError(f"adapters.{name}: {taken} is the name of another adapter too; rename one of them")
        folders |= resolved
        names += resolved
    if dotted := [name for name in folders if "." in name]:
        raise ValueError(f"adapters: {dotted}: a name may have no dot (it becomes part of a weight's name)")
    plain = {name: Path(folder).resolve() for name, folder in folders.items() if name in adapters}  # of no glob
    if twice := [name for name, folder in plain.items() if [*plain.values()].count(folder) > 1]:
        raise ValueError(f"adapters: {', '.join(twice)} are the same folder, {folders[twice[0]]}; name one of them")
    _check_there(folders)
    settings = {name: read_adapter_config(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        check_tensors(name, Path(folder, ADAPTER_FILE), settings[name])
    for name, weights in (_dial_blends(dial, folders) if dial else {}).items():
        if blends.setdefault(name, weights) != weights:
            raise ValueError(f"adapters.{name}: {blends[name]}, but the dial calls {weights} so; choose another name")
        names += [] if name in names else [name]
        ((adapter, weight),) = weights.items()
        places[name] = {"run": adapter, "weight": weight}
    for name, weights in blends.items():
        _check_blend(name, weights, settings)
    return AdapterSet(folders, blends, tuple(names), places)


def _missing(folder: Path) -> str | None:
    """Say which file an adapter's folder lacks."""
    for name in ("adapter_config.json", ADAPTER_FILE):
        if not (folder / name).is_file():
            files = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
            of = f", an adapter of {_named_base(folder)} without its weights" if name == ADAPTER_FILE else ""
            return f"{folder}: {name} not found ({files or 'an empty folder'}){of}"
    return None


def _named_base(folder: Path) -> str:
    try:
        return str(json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError):
        return "an unnamed base"


def _check_there(folders: Mapping[str, str]) -> None:
    """Refuse adapters whose files are not there, all of them at once."""
    lacking = {name: missing for name, folder in folders.items() if (missing := _missing(Path(folder)))}
    if not lacking:
        return
    hints = [GIVE, f"adapters.{next(iter(lacking))}=null takes one out"]
    if any(folders[name].startswith("outputs/quickstart/") for name in lacking):
        hints.insert(0, "`make quickstart` makes those in outputs/quickstart")
    raise FileNotFoundError(f"{'; '.join(f'adapters.{n}: {m}' for n, m in lacking.items())}. {'; '.join(hints)}")


def check_names(key: str, entries: Mapping[str, Any]) -> None:
    """Refuse a name of a config's entries that the command line cut in two at its dot, as in ``left@0.5``."""
    for name, given in entries.items():
        for part in map(str, given if isinstance(given, Mapping) else ()):
            is_number = part.isdigit() and part not in map(str, entries)  # an adapter's name may be one
            if is_number or f"{name}.{part}" in entries:
                raise ValueError(
                    f"{key}.{name}.{part}: on the command line a dot begins a key within {name}. If the name is "
                    f"{name}.{part}, write it in brackets: '{key}[{name}.{part}]=…'"
                )


def find_checkpoints(pattern: str) -> dict[int, Path]:
    """Return the adapters of one run by optimizer step, in order.

    A checkpoint of ours says its step itself (``progress.json``); of other runs (``checkpoint-500``) it is the number
    that ends the folder's name.
    """
    # a folder that a later save replaced goes when that is done; if a run was killed in between, it is still there
    matches = [path for path in sorted(map(Path, glob.glob(pattern))) if ".replaced_" not in path.name]
    folders = [path for path in matches if (path / "adapter_config.json").is_file()]
    if not folders:
        seen = f"{[p.name for p in matches[:5]]}, none with an adapter_config.json" if matches else "nothing"
        raise FileNotFoundError(f"{pattern} matches {seen}; give the checkpoints of a run, for example outputs/run/*")
    if len(runs := {str(path.parent) for path in folders}) > 1:
        raise ValueError(
            f"{pattern} matches checkpoints of {len(runs)} runs ({sorted(runs)[:3]}); name each run by itself"
        )
    checkpoints: dict[int, Path] = {}
    for path in folders:
        number = re.search(r"\d+$", path.name)
        if (path / PROGRESS_FILE).is_file():
            step = read_progress(path)["global_step"]
        elif number is not None:
            step = int(number[0])
        else:
            raise ValueError(f"{path}: neither {PROGRESS_FILE} nor its name gives a step; name it like checkpoint-500")
        if step in checkpoints:  # after the last step of an epoch there are two, alike
            log.info(f"{path} is at step {step} as {checkpoints[step]} is: left out")
        checkpoints.setdefault(step, path)
    return dict(sorted(checkpoints.items()))


def _dial_blends(dial: Mapping[str, Any], folders: Mapping[str, str]) -> dict[str, Weights]:
    """Return the points of a dial that are neither an adapter nor the base, in order."""
    if unknown := set(dial) ^ {"low", "high", "n_points"}:
        raise ValueError(f"dial: {sorted(unknown)} unknown or missing; it has low, high and n_points")
    low, high, n_points = dial["low"], dial["high"], dial["n_points"]
    if wrong := [name for name in (low, high) if name not in folders and not (name is None and high)]:
        raise ValueError(f"dial: no adapter {wrong} with a folder of its own; there are {sorted(folders)}")
    least = 3 if low is None else 5  # of three points two are the adapters and one the base: no dial
    if low == high or not isinstance(n_points, int) or n_points < least or n_points % 2 == 0:
        raise ValueError(f"dial: {dict(dial)}; low and high must differ, n_points be odd and at least {least}")
    half = n_points // 2
    points = [dial_weights(low, high, round(k / half, 4)) for k in range(-half, half + 1)]
    # the ends are the adapters themselves, and 0 is the base
    return {f"{name}@{w:g}": {name: w} for weights in points for name, w in weights.items() if w not in (0, 1)}


def dial_weights(low: str | None, high: str, position: float) -> Weights:
    """Return what is added to the base at a position of a dial, -1 to 1."""
    return {low: -float(position)} if position < 0 and low is not None else {high: float(position)}


def _check_blend(name: str, weights: Mapping[str, Any], settings: Mapping[str, LoraConfig]) -> None:
    if not weights or (unknown := [key for key in weights if key not in settings]):
        what = f"no adapter {unknown}" if weights else "no adapter named"
        raise ValueError(
            f"adapters.{name}: {what}; a blend gives weights to adapters with a folder: {sorted(settings)}"
        )
    wrong = {k: w for k, w in weights.items() if isinstance(w, bool) or not isinstance(w, (int, float))}
    if wrong or not all(map(math.isfinite, weights.values())):
        raise ValueError(f"adapters.{name}: weights {dict(weights)}; use finite numbers of any sign")
    if dora := [key for key in weights if settings[key].use_dora]:
        raise ValueError(
            f"adapters.{name}: {dora} uses DoRA, whose updates do not add up; only plain LoRA can be blended"
        )
