# SPDX-License-Identifier: MIT
"""Layers of torchtune, transformers and peft with less memory traffic: the same names and, but for rounding, values.

Frozen weights need no gradient, so each function here keeps only what its own backward pass must have, and sweeps over
memory as seldom as it can. A LoRA layer computes ``x W^T + s (x A^T) B^T``; torchtune makes three tensors of the
output's size for it, to scale and to add them. Here the second product accumulates into the first one's result.
In a bf16 model an adapter is float32: its products take it rounded to bf16, and its gradients are summed in float32.

Legend: T tokens, D embedding, I inputs, O outputs, R LoRA rank.
"""

import inspect
from functools import cache, partial
from types import MethodType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft.tuners import lora
from torch import Tensor, nn
from torchao.dtypes.nf4tensor import NF4Tensor, linear_nf4
from torchtune.modules import FeedForward, MultiHeadAttention, RMSNorm
from torchtune.modules.peft import LoRALinear
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from finetune.tree.attention import attend, can_attend
from finetune.tree.products import frozen_linear, product


def _embed(module: nn.Embedding, tokens: Tensor) -> Tensor:
    """Return the embeddings, ``[..., D]``, float32 at least on a CPU.

    What layers add to it stays so: the sum of 60 terms in bf16 was the larger part of what bf16 put off.
    """
    hidden = F.embedding(tokens, module.weight, module.padding_idx)
    return hidden if hidden.is_cuda else hidden.to(torch.promote_types(hidden.dtype, torch.float32))


class _Normed(NamedTuple):
    """What a norm's output is computed of: kept anyway, so that the output need not be."""

    x: Tensor  # [..., D]
    scale: Tensor  # [D]
    inverse: Tensor  # [..., 1], of the root of the mean square of x

    def output(self) -> Tensor:
        """Return the norm's output, ``[..., D]``, in the dtype of its scale."""
        return (self.x.to(self.inverse.dtype) * self.inverse).mul_(self.scale).to(self.scale.dtype)


class _RootMeanSquareNorm(torch.autograd.Function):
    """``x / sqrt(mean(x^2) + eps) * scale`` for a frozen scale (Zhang and Sennrich 2019, Eq. 4), in float32."""

    @staticmethod
    def forward(ctx, x, scale, eps):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, inverse)
        ctx.mark_non_differentiable(inverse)
        return _Normed(wide, scale, inverse).output(), inverse

    @staticmethod
    def backward(ctx, grad, _):
        x, scale, inverse = ctx.saved_tensors
        grad_normed = scale.to(inverse.dtype) * grad
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


def _norm(module: Any, x: Tensor, *, weight: str, eps: str) -> Tensor:
    """Return the normalized ``[..., D]`` of a norm that computes as Llama's, by its names of weight and epsilon."""
    if x.is_cuda:  # torch has a kernel there
        return type(module).forward(module, x)
    scale = getattr(module, weight)
    y, inverse = _RootMeanSquareNorm.apply(x, scale, getattr(module, eps))
    if not torch.compiler.is_compiling():
        y.normed = _Normed(x.detach(), scale, inverse)
    return y


def _mlp(module: Any, x: Tensor, *, gate: str, up: str, down: str) -> Tensor:
    """Return the output, ``[..., D]``, of an MLP that computes as Llama's with SiLU, by the names of its layers."""
    return _gated(getattr(module, down), getattr(module, gate)(x), getattr(module, up)(x))


def _sum_of_products(x: Tensor, weight: Tensor, low: Tensor, up: Tensor, scale: float = 1.0) -> Tensor:
    """Return ``x W^T + s low U``, ``[T, O]`` for ``low [T, R]`` and ``up [R, O]``, rounded once.

    Added to a product that was rounded to bf16 already, all that is less than half of its last digit would be lost:
    most of what an adapter does at the start of a training. So the large product is accumulated, in float32, into the
    small one.
    """
    if x.dtype.itemsize < 4:
        return torch.mm(scale * low, up).addmm_(x, weight.T)
    return product(x, weight).addmm_(low, up, alpha=scale)


class _Adapted(NamedTuple):
    """A frozen weight and its LoRA."""

    weight: Tensor  # [O, I]; an NF4 weight is widened where it is used
    lora_a: Tensor  # [R, I]
    lora_b: Tensor  # [O, R]
    scale: float

    def low(self, x: Tensor) -> Tensor:
        """Return what the LoRA makes of its input, ``[T, R]`` for ``x [T, I]``."""
        return product(x, self.lora_a.to(x.dtype))

    def output(self, x: Tensor, low: Tensor) -> Tensor:
        """Return ``x W^T + s low B^T``, ``[T, O]``."""
        return _sum_of_products(x, self.dense(x), low, self.lora_b.to(x.dtype).T, self.scale)

    def dense(self, x: Tensor) -> Tensor:
        """Return the weight as a plain tensor, of the dtype of ``x`` if it is quantized."""
        return self.weight.to(x.dtype) if isinstance(self.weight, NF4Tensor) else self.weight

    def low_back(self, grad: Tensor) -> Tensor:
        """Return the gradient of ``low`` from that of the output."""
        return self.scale * product(grad, self.lora_b.to(grad.dtype).T)

    def weights_back(self, grad: Tensor, d_low: Tensor, x: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of A and B; ``x`` is what the LoRA saw."""
        # the long side of a thin product last: half the time
        d_b = self.scale * (low.T @ grad).T.to(self.lora_b.dtype)
        return (d_low.T @ x).to(self.lora_a.dtype), d_b


class _LoRAProduct(torch.autograd.Function):
    """``x W^T + s (z A^T) B^T`` for a frozen W; z is x, or x after dropout.

    Where x is a norm's output it is computed again in the backward pass instead of kept.
    """

    @staticmethod
    def forward(ctx, x, z, weight, lora_a, lora_b, scale, normed):
        # x, z: [T, I]; z is None where it is x; normed is None where x is not of a norm
        layer = _Adapted(weight, lora_a, lora_b, scale)
        seen = x if z is None else z
        low = layer.low(seen)
        ctx.save_for_backward(None if z is None and normed else seen, low, *layer[:3], *(normed or ()))
        ctx.scale = scale
        return layer.output(x, low)

    @staticmethod
    def backward(ctx, grad):
        seen, low, weight, lora_a, lora_b, *normed = ctx.saved_tensors
        layer = _Adapted(weight, lora_a, lora_b, ctx.scale)
        d_low = layer.low_back(grad)
        if seen is None:
            seen = _Normed(*normed).output().view(len(grad), -1)
        d_a, d_b = layer.weights_back(grad, d_low, seen, low)
        a, d_x, d_z = layer.lora_a.to(grad.dtype), None, None
        has_dropout = ctx.needs_input_grad[1]
        if ctx.needs_input_grad[0] and not has_dropout:
            d_x = _sum_of_products(grad, layer.dense(grad).T, d_low, a)
        elif ctx.needs_input_grad[0]:
            d_x = product(grad, layer.dense(grad).T)
        if has_dropout:
            d_z = d_low @ a
        return d_x, d_z, None, d_a, d_b, None, None


class _GatedLoRAProduct(torch.autograd.Function):
    """:class:`_LoRAProduct` of :class:`_SwiGLU`, which is computed again in the backward pass: the widest of all."""

    @staticmethod
    def forward(ctx, gate, up, weight, lora_a, lora_b, scale):
        # gate, up: [T, I]
        layer = _Adapted(weight, lora_a, lora_b, scale)
        x = F.silu(gate).mul_(up)
        low = layer.low(x)
        ctx.save_for_backward(gate, up, low, *layer[:3])
        ctx.scale = scale
        return layer.output(x, low)

    @staticmethod
    def backward(ctx, grad):
        gate, up, low, *weights = ctx.saved_tensors
        layer = _Adapted(*weights, ctx.scale)
        silu, d_low = F.silu(gate), layer.low_back(grad)
        d_a, d_b = layer.weights_back(grad, d_low, silu * up, low)
        d_x = _sum_of_products(grad, layer.dense(grad).T, d_low, layer.lora_a.to(grad.dtype))
        d_gate = torch.ops.aten.silu_backward(d_x * up, gate)
        return d_gate, silu.mul_(d_x), None, d_a, d_b, None


def _normed(x: Tensor) -> _Normed | None:
    """Return what ``x`` is computed of, if it is the output of :func:`_norm`."""
    return getattr(x, "normed", None)


def _lora(module: LoRALinear, x: Tensor) -> Tensor:
    """Return the layer's output, ``[..., O]`` for ``x [..., I]``."""
    if module.disabled:
        out = linear_nf4(x, module.weight) if isinstance(module.weight, NF4Tensor) else frozen_linear(module, x)
    else:
        flat = x.reshape(-1, x.shape[-1])
        dropped = None if isinstance(module.dropout, nn.Identity) else module.dropout(flat)
        out = _LoRAProduct.apply(flat, dropped, *_tune_layer(module), _normed(x)).view(*x.shape[:-1], -1)
    return out + module.bias if module.use_bias else out


def _tune_layer(module: LoRALinear) -> _Adapted:
    return _Adapted(module.weight, module.lora_a.weight, module.lora_b.weight, module.alpha / module.rank)


def _gated(down: Any, gate: Tensor, up: Tensor) -> Tensor:
    """Return what an MLP's last layer makes of ``silu(gate) * up``, ``[..., D]``."""
    layer = _adapted(down, gate)
    if layer is None and not torch.is_grad_enabled():
        return down(F.silu(gate, inplace=True).mul_(up))  # nobody will read gate again: no new block of memory
    if layer is None:
        return down(_SwiGLU.apply(gate, up))
    out = _GatedLoRAProduct.apply(*(x.reshape(-1, x.shape[-1]) for x in (gate, up)), *layer)
    return out.view(*gate.shape[:-1], -1)


def _adapted(module: Any, x: Tensor) -> _Adapted | None:
    """Return a layer of :func:`_lora` or :func:`_tune_lora` if one LoRA without dropout is on, else None."""
    kind, layer, dropout = getattr(module.forward, "func", None), None, None
    if getattr(module.forward, "__func__", None) is _lora and not module.disabled and not module.use_bias:
        layer, dropout = _tune_layer(module), module.dropout
    elif kind is _tune_lora and module.base_layer.bias is None and len(names := _plain_adapters(module, x) or []) == 1:
        layer, dropout = _peft_layer(module, names[0]), module.lora_dropout[names[0]]
    return layer if isinstance(dropout, nn.Identity) or not module.training else None


def _is_frozen_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.bias is None and not module.weight.requires_grad


def _tune_norm(module: RMSNorm, x: Tensor) -> Tensor:
    return _norm(module, x, weight="scale", eps="eps")


def _tune_mlp(module: FeedForward, x: Tensor) -> Tensor:
    return _mlp(module, x, gate="w1", up="w3", down="w2")


def use_fast_layers(decoder: nn.Module) -> None:
    """Let a Llama-like decoder of which only LoRA is trained compute so; what is of another kind stays as it is.

    Its layers get methods: of a method torch's compiler sees that it is the same function in all of them, where of a
    ``partial`` it sees another object in each, and compiles each of them anew.
    """
    for module in decoder.modules():
        if type(module) is nn.Embedding and not module.weight.requires_grad:
            vars(module)["forward"] = MethodType(_embed, module)
        elif _is_frozen_linear(module):
            module.forward = MethodType(frozen_linear, module)
        elif type(module) is RMSNorm and not module.scale.requires_grad:
            module.forward = MethodType(_tune_norm, module)
        elif type(module) is FeedForward and module.w3 is not None and type(module.activation) is nn.SiLU:
            module.forward = MethodType(_tune_mlp, module)
        elif type(module) is LoRALinear:
            module.forward = MethodType(_lora, module)
        elif isinstance(module, MultiHeadAttention) and can_attend(module):
            module.forward = MethodType(attend, module)


def _plain_adapters(module: lora.Linear, x: Tensor) -> list[str] | None:
    """Return the adapters that are switched on; None if one of them is more than plain LoRA, or narrower than ``x``."""
    names = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
    plain = all(
        name not in module.lora_variant
        and not module.lora_bias[name]
        and module.lora_A[name].weight.dtype.itemsize >= x.dtype.itemsize
        for name in names
    )
    return names if plain and not module.merged else None


def _read_lora(module: lora.Linear, x: Tensor) -> Tensor:
    """Return peft's output, ``[..., O]`` for ``x [..., I]``, where no gradient will be asked for."""
    names = _plain_adapters(module, x)
    if names is None or module.training or torch.is_grad_enabled():
        return type(module).forward(module, x)
    base, flat = module.base_layer, x.flatten(0, -2)
    if not names:
        return base(x)
    layers = [_peft_layer(module, name) for name in names]
    low = torch.cat([layer.scale * layer.low(flat) for layer in layers], 1)
    up = torch.cat([layer.lora_b.to(x.dtype) for layer in layers], 1).T
    out = _sum_of_products(flat, base.weight, low, up).view(*x.shape[:-1], -1)
    return out if base.bias is None else out + base.bias


def accumulate_when_reading(decoder: nn.Module) -> None:
    """Let peft's LoRA layers on plain linear ones compute so while a model is only read; others stay as they are."""
    for module in decoder.modules():
        if type(module) is lora.Linear and type(module.base_layer) is nn.Linear:
            module.forward = partial(_read_lora, module)


def _tune_lora(module: lora.Linear, x: Tensor) -> Tensor:
    """Return peft's output, ``[..., O]`` for ``x [..., I]``, of one adapter or none."""
    names = _plain_adapters(module, x)
    if names == []:
        return module.base_layer(x)
    if names is None or len(names) > 1:
        return type(module).forward(module, x)
    (name,) = names
    flat, dropout = x.reshape(-1, x.shape[-1]), module.lora_dropout[name]
    dropped = dropout(flat) if module.training and not isinstance(dropout, nn.Identity) else None
    out = _LoRAProduct.apply(flat, dropped, *_peft_layer(module, name), _normed(x)).view(*x.shape[:-1], -1)
    return out if module.base_layer.bias is None else out + module.base_layer.bias


def _peft_layer(module: lora.Linear, name: str) -> _Adapted:
    weights = module.base_layer.weight, module.lora_A[name].weight, module.lora_B[name].weight
    return _Adapted(*weights, module.scaling[name])


def widen_adapter(decoder: nn.Module) -> None:
    """Hold what is trained of a decoder in float32 at least: bf16 loses the small updates late in a training."""
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))


@cache
def _source(kind: Any) -> str:
    """Return the text of a layer's computation: transformers' families hold copies of the same layers."""
    text = inspect.getsource(kind.forward)
    return "".join(line.split("#")[0] for line in text.splitlines(True)[1:])


def use_fast_transformers_layers(model: nn.Module) -> None:
    """Let a frozen transformers model, of which only peft's LoRA is trained, compute so where its layers are Llama's.

    In bf16 a norm rounds once and not twice.
    """
    for module in model.modules():
        kind: Any = type(module)
        if _is_frozen_linear(module):
            module.forward = partial(frozen_linear, module)
        elif kind.__name__.endswith("RMSNorm") and _source(kind) == _source(LlamaRMSNorm):
            module.forward = partial(_norm, module, weight="weight", eps="variance_epsilon")
        elif kind.__name__.endswith("MLP") and _source(kind) == _source(LlamaMLP):
            if type(module.act_fn) in (nn.SiLU, SiLUActivation):
                module.forward = partial(_mlp, module, gate="gate_proj", up="up_proj", down="down_proj")
        elif kind is lora.Linear and type(module.base_layer) is nn.Linear:
            module.forward = partial(_tune_lora, module)
