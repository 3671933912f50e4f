# SPDX-License-Identifier: MIT
"""torchtune's and peft's LoRA layers with the update added inside the matrix products.

``x W^T + s (x A^T) B^T`` as torchtune computes it makes three tensors of the output's size, to scale them and to add
them. Here the second product accumulates into the first one's result, and so it does in the backward pass. Same
parameters, same names, same values but for rounding.

Legend: T tokens, I inputs, O outputs, R LoRA rank.
"""

from functools import partial

import torch
import torch.nn.functional as F
from peft.tuners import lora
from torch import Tensor, nn
from torchao.dtypes.nf4tensor import NF4Tensor
from torchtune.modules.peft import LoRALinear


class _LoRAProduct(torch.autograd.Function):
    """``x W^T + s (z A^T) B^T`` for a frozen W; z is x, or x after dropout."""

    @staticmethod
    def forward(ctx, x, z, weight, lora_a, lora_b, scale):
        # x, z: [T, I]; weight: [O, I]; lora_a: [R, I]; lora_b: [O, R]. z is None where it is x.
        low = (x if z is None else z) @ lora_a.T
        ctx.save_for_backward(x, z, weight, lora_a, lora_b, low)
        ctx.scale = scale
        return (x @ weight.T).addmm_(low, lora_b.T, alpha=scale)

    @staticmethod
    def backward(ctx, grad):
        x, z, weight, lora_a, lora_b, low = ctx.saved_tensors
        d_low = ctx.scale * (grad @ lora_b)  # [T, R]
        d_b = ctx.scale * (grad.T @ low) if ctx.needs_input_grad[4] else None
        d_a = d_low.T @ (x if z is None else z) if ctx.needs_input_grad[3] else None
        d_x = d_z = None
        if ctx.needs_input_grad[0]:
            d_x = grad @ weight
            if z is None:
                d_x.addmm_(d_low, lora_a)
        if z is not None and ctx.needs_input_grad[1]:
            d_z = d_low @ lora_a
        return d_x, d_z, None, d_a, d_b, None


def _forward(module: LoRALinear, x: Tensor) -> Tensor:
    """Return the layer's output, ``[..., O]`` for ``x [..., I]``."""
    if module.disabled:
        return F.linear(x, module.weight)
    flat = x.reshape(-1, x.shape[-1])
    dropped = None if isinstance(module.dropout, nn.Identity) else module.dropout(flat)
    scale = module.alpha / module.rank
    out = _LoRAProduct.apply(flat, dropped, module.weight, module.lora_a.weight, module.lora_b.weight, scale)
    return out.view(*x.shape[:-1], -1)


def accumulate_lora_products(decoder: nn.Module) -> None:
    """Let every LoRA layer on a plain frozen weight without bias compute so; quantized ones stay as they are."""
    for module in decoder.modules():
        if type(module) is LoRALinear and not isinstance(module.weight, NF4Tensor) and not module.use_bias:
            module.forward = partial(_forward, module)


def _read(module: lora.Linear, x: Tensor) -> Tensor:
    """Return what peft's layer gives, ``[..., O]`` for ``x [..., I]``, where no gradient will be asked for."""
    names = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
    plain = not (module.training or module.merged or torch.is_grad_enabled())
    if not plain or any(name in module.lora_variant or module.lora_A[name].weight.dtype != x.dtype for name in names):
        return type(module).forward(module, x)
    out = module.base_layer(x)
    for name in names:
        low = x.flatten(0, -2) @ module.lora_A[name].weight.T
        out.view(len(low), -1).addmm_(low, module.lora_B[name].weight.T, alpha=module.scaling[name])
    return out


def accumulate_when_reading(decoder: nn.Module) -> None:
    """Let peft's LoRA layers on plain linear ones compute so while a model is only read; others stay as they are."""
    for module in decoder.modules():
        if type(module) is lora.Linear and type(module.base_layer) is nn.Linear:
            if not any(module.lora_bias.values()):
                module.forward = partial(_read, module)
