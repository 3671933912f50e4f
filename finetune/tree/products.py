# SPDX-License-Identifier: MIT
"""Matrix products with a weight, by whichever of torch's libraries is the faster one.

For float32 on a CPU torch calls MKL, which uses a part of what a processor of another maker can do. oneDNN, which torch
brings too, generates its code for the processor at hand: on an AMD EPYC these products are 8 to 25 % faster in it.

Legend: T tokens, I inputs, O outputs.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchtune.modules.peft import LoRALinear

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# Fewer multiplications are MKL's: oneDNN takes longer to write the code for their shape than MKL to do them
MIN_WORK = 2**20


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x W^T``, ``[T, O]`` for ``x [T, I]`` and ``weight [O, I]``; a transposed view of a weight is as fast.

    It has no gradient.
    """
    is_float = x.dtype is torch.float32 and weight.dtype is torch.float32
    can = is_float and x.device.type == "cpu" and x.numel() and _HAS_ONEDNN and torch.backends.mkldnn.enabled
    if not can or x.numel() * weight.shape[0] < MIN_WORK:
        return x @ weight.T
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


class _FrozenProduct(torch.autograd.Function):
    """``x W^T`` for a frozen W."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(weight)
        return product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        return product(grad, weight.T), None


def frozen_linear(module: nn.Linear | LoRALinear, x: Tensor) -> Tensor:
    """Return the output, ``[..., O]`` for ``x [..., I]``, of a layer that is not trained and has no bias."""
    flat = x.reshape(-1, x.shape[-1])
    return _FrozenProduct.apply(flat, module.weight).view(*x.shape[:-1], module.weight.shape[0])
