# SPDX-License-Identifier: MIT
"""The tensors of an adapter, checked against its config: finite, in pairs, of the rank that it says."""

import logging
from pathlib import Path

from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open

log = logging.getLogger(__name__)


def check_tensors(name: str, path: Path, settings: LoraConfig) -> None:
    """Refuse tensors that are cut short or not finite, have no partner, or another rank than their adapter's config.

    Args:
        name: The adapter's name in ``adapters``.
        path: Its safetensors file.
        settings: Its config.

    Raises:
        ValueError: Names the file, the tensor and what to do.
    """
    try:
        with safe_open(path, "pt") as file:
            shapes = {tensor: file.get_slice(tensor).get_shape() for tensor in file.keys()}
            # a training that went wrong leaves NaN or infinity
            bad = [tensor for tensor in shapes if not file.get_tensor(tensor).isfinite().all()]
            seconds = [tensor for tensor in shapes if ".lora_B." in tensor or ".lora_embedding_B" in tensor]
            is_nothing = bool(seconds) and not any(file.get_tensor(tensor).any() for tensor in seconds)
    except SafetensorError as error:
        raise ValueError(f"adapters.{name}: {path} cannot be read ({error}); copy it anew") from error
    if bad:
        raise ValueError(
            f"adapters.{name}: {len(bad)} tensors in {path.parent} hold NaN or infinity, the first {bad[0]}; take an "
            "earlier checkpoint, or train it again with a lower optimizer.lr"
        )
    if is_nothing:
        log.warning("adapters.%s: every update in %s is zero, as before a training: it is the base", name, path)
    ours = [tensor for tensor in shapes if ".lora_" in tensor]
    if not ours:
        raise ValueError(f"adapters.{name}: {path} has no LoRA tensor; give a whole adapter")
    for tensor in ours:
        if (partner := _partner(tensor)) and partner not in shapes:
            raise ValueError(f"adapters.{name}: {path} has {tensor} without {partner}; give a whole adapter")
        module, _, part = tensor.partition(".lora_")
        ranks = settings.rank_pattern
        rank = ranks.get(get_pattern_key(ranks.keys(), module), settings.r)
        found = {"A.weight": shapes[tensor][:1], "B.weight": shapes[tensor][1:2]}.get(part)
        if found is not None and found != [rank]:
            raise ValueError(
                f"adapters.{name}: {path}: {tensor} has rank {found[0]}, but adapter_config.json says r={rank}; give "
                "the config that was written with these tensors"
            )


def lora_names(path: Path) -> set[str]:
    """Return the names of an adapter's LoRA tensors."""
    with safe_open(path, "pt") as file:
        return {name for name in file.keys() if ".lora_" in name}


def _partner(name: str) -> str | None:
    """Return the name of the other matrix of a LoRA update."""
    for one, other in ((".lora_A.", ".lora_B."), (".lora_B.", ".lora_A.")):
        if one in name and name.endswith(".weight"):  # a bias of lora_bias has none
            return name.replace(one, other)
    return None
