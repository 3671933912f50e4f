# SPDX-License-Identifier: MIT
"""Log-probabilities of answers, with the vocabulary head applied to scored tokens only.

Preference losses depend on the model only through one sum of log-probabilities an answer. So the gradient of every sum
with respect to the hidden states is taken in the forward pass, chunk by chunk, and merely scaled in the backward pass:
two matrix products in all, and no ``[S, V]`` tensor outlives its chunk. The log-softmax is taken in float32 also for a
bf16 model (in float64 for a float64 one).

Legend: T tokens of the tree, S scored tokens, N answers, D embedding, V vocabulary, R LoRA rank.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torchtune.modules import TransformerDecoder
from torchtune.modules.peft import LoRALinear

from finetune.tree.attention import mask_for
from finetune.tree.prefix_tree import PrefixTree
from finetune.tree.products import product

# Rows of the vocabulary head alive at once: 256 x 128k float32 logits are 131 MB.
HEAD_CHUNK = 256
# On a CPU so many of them are in float32 at once: they stay in its cache while they are swept over.
HEAD_ROWS = 16


class Head(NamedTuple):
    """Output projection; if adapted, its LoRA; and what is done to its logits, in the order of the fields."""

    weight: Tensor  # [V, D]
    lora_a: Tensor | None = None  # [R, D]
    lora_b: Tensor | None = None  # [V, R]
    scale: float = 0.0
    dropout: nn.Module | None = None
    bias: Tensor | None = None  # [V]
    factor: float = 1.0
    cap: float | None = None  # logits become cap * tanh(logits / cap), as in Gemma 2


class TreeDecoder(nn.Module, ABC):
    """A decoder that knows by itself how the answers of a tree are scored; torchtune's decoders do not."""

    @abstractmethod
    def without_adapters(self) -> AbstractContextManager[None]:
        """Be the base inside a ``with`` block."""

    @property
    @abstractmethod
    def max_seq_len(self) -> int:
        """Return the most tokens that it reads."""

    @abstractmethod
    def answer_logprobs(self, tree: PrefixTree) -> Tensor:
        """Return what the function :func:`answer_logprobs` does."""

    @abstractmethod
    def read_logprobs(self, tree: PrefixTree) -> Tensor:
        """Return what :func:`finetune.tree.reading.read_logprobs` does."""


Decoder: TypeAlias = TransformerDecoder | TreeDecoder


def get_head(output: Any) -> Head:
    """Return the projection of a plain, tied or adapted (torchtune's or peft's LoRA) output module."""
    if isinstance(output, LoRALinear) and not output.disabled:
        scale = output.alpha / output.rank
        return Head(output.weight, output.lora_a.weight, output.lora_b.weight, scale, output.dropout)
    if isinstance(output, LoraLayer):
        weight, bias = output.get_base_layer().weight, output.get_base_layer().bias
        names = [] if output.disable_adapters else [n for n in output.active_adapters if n in output.lora_A]
        if not names:
            return Head(weight, bias=bias)
        if any(name in output.lora_variant or output.lora_bias[name] for name in names):
            raise ValueError(
                f"adapters {names} put more than plain LoRA on the head (DoRA, a bias): not supported there"
            )
        # Several add up: one LoRA of all ranks, each part with its own scale.
        scales = [output.scaling[name] for name in names]
        a = torch.cat([output.lora_A[name].weight * (scale / scales[0]) for name, scale in zip(names, scales)])
        b = torch.cat([output.lora_B[name].weight for name in names], 1)
        return Head(weight, a, b, scales[0], output.lora_dropout[names[0]], bias)
    if isinstance(output, (nn.Linear, LoRALinear)):
        return Head(output.weight, bias=output.bias)
    tied = getattr(output, "tied_module", None)  # torchtune's TiedLinear is no nn.Module
    if tied is None:
        raise ValueError(
            f"unknown output projection {type(output).__name__}; a Linear, LoRALinear or TiedLinear is needed"
        )
    return Head(tied.weight)


class _AnswerSums(torch.autograd.Function):
    """Sum the log-probabilities of each answer's targets; keep only the gradients of the sums."""

    @staticmethod
    def forward(ctx, hidden, adapted, weight, lora_a, lora_b, head, target, answer_ends):
        # hidden: [S, D]; adapted: [S, D], what the head's LoRA sees (hidden after its dropout), or None;
        # target: [S]. Rows are sorted by answer. head has what is not a tensor with a gradient.
        scale = head.scale
        needs_hidden, needs_lora = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = torch.empty(len(target), dtype=dtype, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_adapted = torch.empty_like(hidden) if ctx.needs_input_grad[1] else None
        n_answers = len(answer_ends)
        a, b = (None if x is None else x.to(hidden.dtype) for x in (lora_a, lora_b))
        grad_a = lora_a.new_zeros(n_answers, *lora_a.shape) if needs_lora else None
        grad_b = lora_b.new_zeros(n_answers, *lora_b.shape) if needs_lora else None
        for lo in range(0, len(target), HEAD_CHUNK):
            hi = min(lo + HEAD_CHUNK, len(target))
            h, t = hidden[lo:hi], target[lo:hi, None]
            low = None if a is None else scale * (adapted[lo:hi] @ a.T)
            near = None
            if dtype != h.dtype:
                own = own_logits(h, weight, low, b, target[lo:hi])[:, None]
                near = _Near(own, own.to(h.dtype))
            logits = logits_of(h, weight, low, b, None if near is None else near.rounded)
            norms, is_kept = logprobs.new_empty(hi - lo, 1), needs_hidden or needs_lora
            n_rows = hi - lo if h.is_cuda else HEAD_ROWS
            for rows in (slice(k, k + n_rows) for k in range(0, hi - lo, n_rows)):
                # torch's log_softmax sums less exactly on a CPU; logsumexp sweeps over the logits more often
                block, target_ids = logits[rows].to(dtype), t[rows]
                if near is not None:
                    block.scatter_(1, target_ids, near.own[rows] - near.rounded[rows])
                    block = block.add_(near.rounded[rows]) if head.cap is not None else block
                if head.bias is not None:
                    block += head.bias
                if head.factor != 1:
                    block *= head.factor
                slope = None
                if head.cap is not None:
                    block = torch.tanh(block / head.cap)
                    slope = 1 - block.square() if is_kept else None
                    block *= head.cap
                block -= block.amax(-1, keepdim=True)
                chosen = block.gather(1, target_ids)
                norms[rows] = block.exp_().sum(-1, keepdim=True)
                logprobs[lo:hi][rows] = (chosen - norms[rows].log())[:, 0]
                if is_kept:
                    # d sum / d logits = onehot(target) - softmax; this times -norm is built in place of the logits
                    block.scatter_add_(1, target_ids, -norms[rows])
                    if slope is not None:
                        block *= slope
                    if near is not None or slope is not None:  # else it lies there already
                        logits[rows] = block
            if not is_kept:
                continue
            d_logits, factor = logits, norms.reciprocal_().mul_(-head.factor).to(hidden.dtype)
            if needs_hidden:
                grad_hidden[lo:hi] = product(d_logits, weight.T).mul_(factor)
            if a is not None:
                d_low = (d_logits @ b).mul_(scale * factor)
                if grad_adapted is not None:
                    grad_adapted[lo:hi] = d_low @ a
            if needs_lora:
                # The answers' sums are weighted by the loss later, so their gradients stay apart.
                for n, (start, end) in enumerate(zip((0, *answer_ends), answer_ends)):
                    part = slice(max(start - lo, 0), max(min(end, hi) - lo, 0))
                    if part.start >= part.stop:
                        continue
                    grad_a[n] += d_low[part].T @ adapted[lo:hi][part]
                    grad_b[n] += d_logits[part].T @ (factor * low)[part]
        ctx.lengths = [end - start for start, end in zip((0, *answer_ends), answer_ends)]
        ctx.save_for_backward(grad_hidden, grad_adapted, grad_a, grad_b)
        return torch.stack([part.sum() for part in logprobs.split(ctx.lengths)])

    @staticmethod
    def backward(ctx, grad_sums):
        grad_hidden, grad_adapted, grad_a, grad_b = ctx.saved_tensors
        per_row = grad_sums.repeat_interleave(torch.tensor(ctx.lengths, device=grad_sums.device))[:, None]
        d_hidden, d_adapted = (
            None if grad is None else grad * per_row.to(grad.dtype) for grad in (grad_hidden, grad_adapted)
        )
        d_a = d_b = None
        if grad_a is not None:
            d_a = torch.einsum("n,nrd->rd", grad_sums.to(grad_a.dtype), grad_a)
            d_b = torch.einsum("n,nvr->vr", grad_sums.to(grad_b.dtype), grad_b)
        return d_hidden, d_adapted, None, d_a, d_b, None, None, None


class _Near(NamedTuple):
    """The target's own logit of each row, ``[S, 1]``: in float32, and as it was subtracted from the row's logits."""

    own: Tensor
    rounded: Tensor


def own_logits(h: Tensor, weight: Tensor, low: Tensor | None, b: Tensor | None, target: Tensor) -> Tensor:
    """Return the logit of a target for each hidden state, ``[S]`` for ``h [S, D]``, in float32 at least."""
    wide = torch.promote_types(h.dtype, torch.float32)
    own = torch.linalg.vecdot(h.to(wide), weight[target].to(wide))
    if low is not None and b is not None:
        own += torch.linalg.vecdot(low.to(wide), b[target].to(wide))
    return own


def logits_of(h: Tensor, weight: Tensor, low: Tensor | None, b: Tensor | None, less: Tensor | None) -> Tensor:
    """Return the logits of all tokens, ``[S, V]``, minus ``less [S, 1]`` if they are narrow.

    ``low [S, R]`` and ``b [V, R]`` are a LoRA's. Rounded to bf16, a logit of 20 is off by .03. So a target's own logit
    is taken in float32 and subtracted before the product is rounded: bf16 then is finest where the probability is.
    """
    logits = product(h, weight) if less is None else torch.addmm(-less, h, weight.T)
    if low is not None and b is not None:
        logits.add_(low @ b.T) if less is None else logits.addmm_(low, b.T)
    return logits


def answer_logprobs(model: Decoder, tree: PrefixTree, mask: Any = None) -> Tensor:
    """Return the summed log-probability of each answer of a tree, nats, float32 ``[N]`` (float64 for a float64 model).

    Equal to torchtune's ``get_batch_log_probs`` on padded sequences, at a fraction of the work. Adapters count as they
    are switched. A frozen head is treated as a constant; a LoRA on it gets its gradient. ``mask`` is what torchtune's
    layers take as theirs; None is what is fastest for these layers.

    Source: Rafailov et al. 2023, Eq. 7 needs only these sums; the order of products is ours.
    """
    if isinstance(model, TreeDecoder):
        return model.answer_logprobs(tree)
    head = get_head(model.output)
    tree = tree.to(head.weight.device)
    hidden = model.tok_embeddings(tree.tokens)
    if hidden.is_cuda:
        # cuDNN plans its attention anew for every number of tokens (130 ms to 3 s on an H100), and trees differ in size
        torch.backends.cuda.enable_cudnn_sdp(False)
    if mask is None and (mask := mask_for(model, tree)) is None:
        mask = tree.attention_bias(head.weight.dtype)
    for layer in model.layers:
        hidden = layer(hidden, mask=mask, input_pos=tree.input_pos)
    return answer_sums(model.norm(F.embedding(tree.predictor, hidden[0])), head, tree)


def answer_sums(scored: Tensor, head: Head, tree: PrefixTree) -> Tensor:
    """Return the summed log-probability of each answer, ``[N]``, from the hidden states that predict, ``[S, D]``."""
    if head.weight.requires_grad:
        raise ValueError("the output head is trainable; answer_logprobs supports a frozen head (LoRA) only")
    adapted = head.dropout(scored) if head.dropout is not None else None
    lora_a, lora_b = head.lora_a, head.lora_b
    if lora_a is not None and lora_b is not None and not torch.is_grad_enabled():
        # a Function cannot see that nobody will ask for their gradients
        lora_a, lora_b = lora_a.detach(), lora_b.detach()
    return _AnswerSums.apply(scored, adapted, head.weight, lora_a, lora_b, head, tree.target, tree.answer_ends)
