# SPDX-License-Identifier: MIT
"""How much of an adapter's update a merged model keeps when its weights are rounded to a quantised type.

A base that was dequantised lies on the grid of its type. A LoRA moves its weights by far less than a step of that grid,
so rounding the sum to the same grid gives the base back, and the tuning is gone without a word. On another grid the
rounding errors of base and update are independent, and the update survives.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor

# Of each layer so many rows are rounded, evenly spaced: blocks of a type lie within a row.
MOST_ROWS = 32
# A base lies on a grid if rounding to it changes the weights by no more than this share of their size.
ON_GRID = 1e-4
# Below this share an update does not survive.
KEPT = 0.5
# The 16 values of NF4, of a normal distribution's quantiles (Dettmers et al. 2023, QLoRA, appendix E).
_NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
_NF4_BLOCK = 64


class Kept(NamedTuple):
    """What rounding to a type does.

    Attributes:
        type: Name of the type, as ``gguf_type`` and ``llama-quantize`` have it, or ``NF4``.
        is_base_on_grid: Whether the base was dequantised from this type.
        share: Of the update, that a merged and rounded model has over the rounded base: 1 is all of it, 0 nothing.
    """

    type: str
    is_base_on_grid: bool
    share: float


def measure_rounding(model: PeftModel, adapter: str = "default") -> list[Kept]:
    """Return what each type keeps of an adapter that is loaded on its base.

    The share is the regression of the rounded update on the update, over a sample of rows of all adapted layers,
    ``sum(d * (Q(W + d) - Q(W))) / sum(d * d)``. DoRA, whose update is no sum, gives no figures.
    """
    samples = list(_samples(model, adapter))
    found = []
    for name, rounding in roundings().items():
        base_error = base_size = kept = whole = 0.0
        for weight, update in samples:
            if weight.shape[1] % 64:
                continue
            rounded = rounding(weight)
            base_error += float((rounded - weight).square().sum())
            base_size += float(weight.square().sum())
            kept += float((update * (rounding(weight + update) - rounded)).sum())
            whole += float(update.square().sum())
        if whole:
            found.append(Kept(name, base_error <= ON_GRID**2 * base_size, kept / whole))
    return found


def _samples(model: PeftModel, adapter: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows of the weight and of the update of every adapted linear layer, in float32."""
    for layer in model.modules():
        if not isinstance(layer, Linear) or adapter not in layer.lora_A or adapter in layer.lora_variant:
            continue
        weight = layer.get_base_layer().weight
        rows = torch.linspace(0, len(weight) - 1, min(MOST_ROWS, len(weight))).long()
        update = layer.get_delta_weight(adapter)
        yield weight[rows].detach().float(), update[rows].detach().float()


def roundings() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return each type's rounding of ``[rows, columns]`` weights to its grid; without gguf that of NF4 alone."""
    if find_spec("gguf") is None:
        return {"NF4": _round_nf4}
    from gguf import GGMLQuantizationType, quants

    def of_gguf(type_: GGMLQuantizationType) -> Callable[[Tensor], Tensor]:
        def rounding(weights: Tensor) -> Tensor:
            array = np.ascontiguousarray(weights.numpy())
            return torch.from_numpy(quants.dequantize(quants.quantize(array, type_), type_))

        return rounding

    names = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
    return {name: of_gguf(GGMLQuantizationType[name]) for name in names} | {"NF4": _round_nf4}


def _round_nf4(weights: Tensor) -> Tensor:
    """Round to NF4 with exact scales: bitsandbytes and torchao also round these, which moves the grid a little."""
    blocks = weights.reshape(-1, _NF4_BLOCK)
    scales = blocks.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    nearest = (blocks / scales)[..., None].sub(_NF4).abs().argmin(-1)
    return (_NF4[nearest] * scales).reshape(weights.shape)
