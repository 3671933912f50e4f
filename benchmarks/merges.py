# SPDX-License-Identifier: MIT
"""Merge two adapters by TIES and by DARE, beside what a blend of ``adapters`` does: the sum of their updates.

    python -m benchmarks.merges outputs/quickstart/left/epoch_0 outputs/quickstart/right/epoch_0 outputs/merges

Writes ``ties`` and ``dare``, PEFT folders for the key ``adapters`` of ``configs/political_compass.yaml``. peft's own
functions merge whole updates, half of each kept; both are means, so that two copies of one adapter merge into it. A
merged update has no low rank: its best approximation of RANK is written, and the share of its square that this keeps is
printed.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from peft.utils.merge_utils import dare_linear, ties
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.adapters.folders import ADAPTER_FILE, read_adapter_config

RANK, DENSITY, SEED = 128, 0.5, 0
METHODS: dict[str, Callable[..., Tensor]] = {"ties": ties, "dare": dare_linear}


def read_updates(folder: Path) -> dict[str, Tensor]:
    """Return module to the update ``[out, in]`` that a plain LoRA adapter adds to its weight."""
    settings, state = read_adapter_config(folder), load_file(folder / ADAPTER_FILE)
    if settings.rank_pattern or settings.alpha_pattern or settings.use_dora or settings.use_rslora:
        raise ValueError(f"{folder}: only LoRA of one rank and alpha is merged here")
    scale = settings.lora_alpha / settings.r
    modules = [name.removesuffix(".lora_A.weight") for name in state if name.endswith(".lora_A.weight")]
    return {m: scale * state[f"{m}.lora_B.weight"].float() @ state[f"{m}.lora_A.weight"].float() for m in modules}


def merge(updates: list[dict[str, Tensor]], method: str) -> tuple[dict[str, Tensor], float]:
    """Return the tensors of the merged adapter, and the share of its square that RANK keeps."""
    torch.manual_seed(SEED)
    # peft's ties takes a mean of what the weights leave: 1 / n would be taken twice (findings/peft_ties_weights.sh)
    weights = torch.full((len(updates),), 1.0 if method == "ties" else 1 / len(updates))
    state, kept, total = {}, 0.0, 0.0
    for module in updates[0]:
        update = METHODS[method]([of_one[module] for of_one in updates], weights, DENSITY)
        u, s, v = torch.linalg.svd(update, full_matrices=False)
        kept, total = kept + float((s[:RANK] ** 2).sum()), total + float((s**2).sum())
        state[f"{module}.lora_B.weight"] = (u[:, :RANK] * s[:RANK]).contiguous()
        state[f"{module}.lora_A.weight"] = v[:RANK].contiguous()
    return state, kept / total


def main(*arguments: str) -> None:
    """Write a folder for each method."""
    *folders, target = map(Path, arguments)
    updates = [read_updates(folder) for folder in folders]
    if any(of_one.keys() != updates[0].keys() for of_one in updates):
        raise ValueError(f"{', '.join(map(str, folders))}: the adapters are of different modules")
    settings = json.loads((folders[0] / "adapter_config.json").read_text())
    for method in METHODS:
        state, kept = merge(updates, method)
        (target / method).mkdir(parents=True, exist_ok=True)
        save_file(state, target / method / ADAPTER_FILE)
        rank = {"r": RANK, "lora_alpha": RANK}
        (target / method / "adapter_config.json").write_text(json.dumps({**settings, **rank}, indent=2))
        print(f"{target / method}: rank {RANK} keeps {kept:.3f} of the square of the merged update")


if __name__ == "__main__":
    main(*sys.argv[1:])
