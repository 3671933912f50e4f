# SPDX-License-Identifier: MIT
"""What the ``adapters`` of a config may be: a folder, the checkpoints of a run, a blend of others, a dial.

::

    adapters:
      left: outputs/left/epoch_0            # a PEFT folder
      right: outputs/right/*                # a glob: every checkpoint of a run, as right_step_5, right_step_10, ...
      both: {left: 1, other: 0.5}           # the sum of the updates of adapters named here, each times its weight
    dial: {low: left, high: other, n_points: 9}

The updates of LoRA adapters add up, so a blend is exact; a dial is a row of blends of one or two adapters.
"""

import glob
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torchtune import utils

from finetune.adapters.resident import read_adapter_config
from finetune.run.checkpoints import PROGRESS_FILE, read_progress

log = utils.get_logger("INFO")

Weights = dict[str, float]


class AdapterSet(NamedTuple):
    """What is loaded, and what is made of it.

    Attributes:
        folders: Name to PEFT folder, each to be loaded once.
        blends: Name to weight of each adapter in it.
        names: All of both, in the order in which they are to be asked.
        places: ``run`` and ``step`` of each checkpoint of a glob, ``run`` and ``weight`` of each point of a dial.
    """

    folders: dict[str, str]
    blends: dict[str, Weights]
    names: tuple[str, ...]
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
    adapters = {name: given for name, given in (adapters or {}).items() if given is not None}  # null: left out
    for name, given in adapters.items():
        if isinstance(given, Mapping):
            blends[name] = dict(given)
            names.append(name)
            continue
        is_glob = set("*?[") & set(str(given)) and not Path(given).is_dir()
        found = {name: given}
        if is_glob:
            steps = find_checkpoints(str(given))
            found = {f"{name}_step_{step}": path for step, path in steps.items()}
            places |= {f"{name}_step_{step}": {"run": name, "step": step} for step in steps}
        if taken := sorted(found.keys() & {*names, *(adapters.keys() - {name})}):
            raise ValueError(f"adapters.{name}: {taken} is the name of another adapter too; rename one of them")
        folders |= {key: str(folder) for key, folder in found.items()}
        names += found
    if dotted := [name for name in folders if "." in name]:
        raise ValueError(f"adapters: {dotted}: a name may have no dot (it becomes part of a weight's name)")
    settings = {name: read_adapter_config(folder) for name, folder in folders.items()}
    for name, weights in (_dial_blends(dial, folders) if dial else {}).items():
        if blends.setdefault(name, weights) != weights:
            raise ValueError(f"adapters.{name}: {blends[name]}, but the dial calls {weights} so; choose another name")
        names += [] if name in names else [name]
        ((adapter, weight),) = weights.items()
        places[name] = {"run": adapter, "weight": weight}
    for name, weights in blends.items():
        _check_blend(name, weights, settings)
    return AdapterSet(folders, blends, tuple(names), places)


def find_checkpoints(pattern: str) -> dict[int, Path]:
    """Return the adapters of one run by optimizer step, in order.

    A checkpoint of ours says its step itself (``progress.json``); of other runs (``checkpoint-500``) it is the number
    that ends the folder's name.

    Raises:
        FileNotFoundError: If nothing that matches is an adapter.
        ValueError: If the pattern matches several runs, or a folder that gives no step.
    """
    # what a later save replaced goes when that is done; if a run was killed in between, it is still there
    matches = [path for path in sorted(map(Path, glob.glob(pattern))) if ".replaced_" not in path.name]
    folders = [path for path in matches if (path / "adapter_config.json").is_file()]
    if not folders:
        seen = f"{[p.name for p in matches[:5]]}, none with an adapter_config.json" if matches else "nothing"
        raise FileNotFoundError(f"{pattern} matches {seen}; give the checkpoints of a run, for example outputs/run/*")
    if len(runs := {str(path.parent) for path in folders}) > 1:
        raise ValueError(
            f"{pattern} matches checkpoints of {len(runs)} runs ({sorted(runs)[:3]}); name each run by itself"
        )
    found: dict[int, Path] = {}
    for path in folders:
        number = re.search(r"\d+$", path.name)
        if not (path / PROGRESS_FILE).is_file() and number is None:
            raise ValueError(f"{path}: neither {PROGRESS_FILE} nor its name gives a step; name it like checkpoint-500")
        step = read_progress(path)["global_step"] if (path / PROGRESS_FILE).is_file() else int(number[0])
        if step in found:  # after the last step of an epoch there are two, alike
            log.info(f"{path} is at step {step} as {found[step]} is: left out")
        found.setdefault(step, path)
    return dict(sorted(found.items()))


def _dial_blends(dial: Mapping[str, Any], folders: Mapping[str, str]) -> dict[str, Weights]:
    """The points of a dial that are neither an adapter nor the base, in order."""
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


def _check_blend(name: str, weights: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
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
