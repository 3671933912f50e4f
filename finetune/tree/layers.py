# SPDX-License-Identifier: MIT
"""torchtune's layers with less memory traffic: same parameters, same names, same values but for rounding.

Frozen weights need no gradient, so each function here keeps only what its own backward pass must have, and sweeps over
memory as seldom as it can.

Legend: T tokens, D embedding, I width of the MLP.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchtune.modules import FeedForward, MultiHeadAttention, RMSNorm

from finetune.tree.attention import attend, can_attend
from finetune.tree.lora_linear import accumulate_lora_products


class _RootMeanSquareNorm(torch.autograd.Function):
    """``x / sqrt(mean(x^2) + eps) * scale`` for a frozen scale (Zhang and Sennrich 2019, Eq. 4), in float32."""

    @staticmethod
    def forward(ctx, x, scale, eps):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # [..., 1]
        ctx.save_for_backward(x, scale, inverse)
        return (wide * inverse).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        x, scale, inverse = ctx.saved_tensors
        grad_normed = grad * scale.to(inverse.dtype)
        wide = x.to(inverse.dtype)
        along = torch.linalg.vecdot(grad_normed, wide)[..., None]
        along.mul_(inverse.pow(3)).div_(x.shape[-1])
        return grad_normed.mul_(inverse).addcmul_(wide, along, value=-1).to(x.dtype), None, None


class _SwiGLU(torch.autograd.Function):
    """``silu(gate) * up`` (Shazeer 2020, Eq. 6); silu is taken again in the backward pass instead of kept."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        gate, up = ctx.saved_tensors
        d_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return d_gate, F.silu(gate).mul_(grad)


def _norm(module: RMSNorm, x: Tensor) -> Tensor:
    """Return the normalized ``[..., D]``."""
    if x.is_cuda:  # torch has a kernel there
        return RMSNorm.forward(module, x)
    return _RootMeanSquareNorm.apply(x, module.scale, module.eps)


def _feed_forward(module: FeedForward, x: Tensor) -> Tensor:
    """Return the MLP's output, ``[..., D]``."""
    return module.w2(_SwiGLU.apply(module.w1(x), module.w3(x)))


def use_fast_layers(decoder: nn.Module) -> None:
    """Let a Llama-like decoder of which only LoRA is trained compute so; what is of another kind stays as it is."""
    accumulate_lora_products(decoder)
    for module in decoder.modules():
        if type(module) is RMSNorm and not module.scale.requires_grad:
            module.forward = partial(_norm, module)
        elif type(module) is FeedForward and module.w3 is not None and type(module.activation) is nn.SiLU:
            module.forward = partial(_feed_forward, module)
        elif isinstance(module, MultiHeadAttention) and can_attend(module):
            module.forward = partial(attend, module)
