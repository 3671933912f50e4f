# SPDX-License-Identifier: MIT
"""Attention of a prefix tree that leaves out what the tree's mask hides: run by run on CPUs, in blocks on CUDA.

On a CPU a tree is cut into pieces: runs of tokens without a fork. A piece computes scores with what is above it and
with itself, so there are none between two answers, and next to none above the diagonal: for the two answers of a pair
about half of what attention under a dense mask computes. Runs so short that a call costs more share a piece. Rotary
positions, as in torchtune, turn adjacent numbers as one complex number; turning and the change to heads-first layout
are one pass. A piece's attention is torch's fused one, which keeps no scores, in float32 for a bf16 model too: its
backward pass is twice as slow in bf16. On CUDA torch's FlexAttention skips the blocks that the mask leaves empty (Dong
et al. 2024, arXiv:2412.05496).

Legend: T tokens of the tree, D embedding, L tokens of a piece, N tokens it sees, K key-value heads, G query heads for
each of them, H head dim.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torchtune.models.llama3_1 import Llama3ScaledRoPE
from torchtune.modules import MultiHeadAttention, RotaryPositionalEmbeddings

from finetune.tree.prefix_tree import PrefixTree

# torch's fused attention of CPUs; scaled_dot_product_attention would not say which of its ways it takes.
flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
# A longer run is cut, so that little is computed above the diagonal; shorter products are slower.
LONGEST_PIECE = 128
# A call for one more piece takes as long as about so many scores: in a training, and where a model is only read, whose
# branches are many and short. The cut decides how sums are rounded, so each has its own.
CALL_SCORES = 600
READ_CALL_SCORES = 1500
# On CUDA a dense mask is as fast for shorter trees (a layer forward and backward on an H100 in bf16: 0.5 against 0.8 ms
# at 500 tokens, 2.1 against 1.0 at 2,000, 8.7 against 1.0 at 4,400), and a mask of a single block does not compile.
SHORTEST_FOR_BLOCKS = 1024


class Piece(NamedTuple):
    """Tokens ``[start, end)`` and the runs of tokens, itself the last, that at least one of them sees."""

    start: int
    end: int
    seen: tuple[tuple[int, int], ...]


@dataclass
class TreePieces:
    """A whole tree, ready for the attention of every layer, which takes it as ``mask``.

    No tuple: torch's compiler would look into it, and compile what it is handed through anew for every tree.
    """

    pieces: tuple[Piece, ...]  # in the order of the tokens
    visible: tuple[Tensor, ...]  # for each: which token sees which, bool [L, N]
    masks: dict[tuple[int, torch.dtype], list[Tensor]]  # as the first layer made them for all others

    def at(self, rows: Tensor) -> "TreePieces":
        """Return the pieces of attention asked for at some tokens alone, ascending ``[R]``: they count these."""
        bounds = torch.tensor([(piece.start, piece.end) for piece in self.pieces])
        pieces, visible = [], []
        for piece, (start, end), shown in zip(self.pieces, torch.searchsorted(rows, bounds).tolist(), self.visible):
            if start < end:
                pieces.append(Piece(start, end, piece.seen))
                visible.append(shown[rows[start:end] - piece.start])
        return TreePieces(tuple(pieces), tuple(visible), {})

    @cached_property
    def columns(self) -> list[Tensor]:
        """Return for each piece the tokens that at least one of its own sees, ``[N]``."""
        return [torch.cat([torch.arange(start, end) for start, end in piece.seen]) for piece in self.pieces]

    def biases(self, group: int, dtype: torch.dtype) -> list[Tensor]:
        """Return what is added to each piece's scores, ``[L G, N]``: 0 or minus infinity."""
        if (group, dtype) not in self.masks:
            self.masks[group, dtype] = [
                torch.where(visible, 0.0, -torch.inf).to(dtype).repeat_interleave(group, 0) for visible in self.visible
            ]
        return self.masks[group, dtype]


def cut_tree(tree: PrefixTree, call_scores: int = CALL_SCORES) -> TreePieces:
    """Cut a tree into pieces of consecutive tokens: runs without a fork, and short ones together."""
    end, depth = tree.subtree_end.numpy(), tree.input_pos[0].numpy()
    n = len(end)
    # An only child's subtree ends where its parent's does; every other token begins a new run.
    starts = np.flatnonzero(np.concatenate([[True], end[1:] != end[:-1]]))

    def n_scores(start: int, stop: int) -> int:
        return (stop - start) * (int(depth[start]) + stop - start)

    parts: list[tuple[int, int]] = []
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), n]):
        n_cuts = -(-(stop - start) // LONGEST_PIECE)
        edges = [start + (stop - start) * k // n_cuts for k in range(n_cuts + 1)]
        for edge, next_edge in zip(edges, edges[1:]):
            before = parts[-1][0] if parts else edge
            apart = n_scores(edge, next_edge) + (n_scores(*parts[-1]) if parts else 0)
            if parts and next_edge - before <= LONGEST_PIECE and n_scores(before, next_edge) - apart < call_scores:
                parts[-1] = (before, next_edge)
            else:
                parts.append((edge, next_edge))
    pieces, visible = [], []
    for start, stop in parts:
        columns = np.concatenate([np.flatnonzero(end[:start] > start), np.arange(start, stop)])
        breaks = np.flatnonzero(np.diff(columns) > 1)
        firsts, lasts = columns[np.r_[0, breaks + 1]], columns[np.r_[breaks, len(columns) - 1]]
        pieces.append(Piece(start, stop, tuple(zip(firsts.tolist(), (lasts + 1).tolist()))))
        rows = np.arange(start, stop)[:, None]
        visible.append(torch.from_numpy((columns <= rows) & (rows < end[columns])))
    return TreePieces(tuple(pieces), tuple(visible), {})


class _Attention(torch.autograd.Function):
    """Attention along the branches, ``[K, T, G H]``, of queries of this form to keys and values ``[K, T, H]``."""

    @staticmethod
    def forward(ctx, queries, keys, values, tree, scale):
        # all have one dtype; norms are the logarithms of each piece's sums of weights
        n_kv_heads, _, head_dim = keys.shape
        out, norms = torch.empty_like(queries), []
        for piece, bias in zip(tree.pieces, tree.biases(queries.shape[2] // head_dim, queries.dtype)):
            rows, seen = _rows(queries, piece, head_dim)[None], (_seen(keys, piece)[None], _seen(values, piece)[None])
            part, norm = flash(rows, *seen, attn_mask=bias[None, None], scale=scale)
            out[:, piece.start : piece.end] = part.reshape(n_kv_heads, piece.end - piece.start, -1)
            norms.append(norm)
        ctx.tree, ctx.scale = tree, scale
        ctx.save_for_backward(queries, keys, values, out, *norms)
        return out

    @staticmethod
    def backward(ctx, grad):
        queries, keys, values, out, *norms = ctx.saved_tensors
        n_kv_heads, _, head_dim = keys.shape
        grad = grad.contiguous()
        d_queries, d_keys, d_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
        biases = ctx.tree.biases(queries.shape[2] // head_dim, queries.dtype)
        for piece, bias, norm in zip(ctx.tree.pieces, biases, norms):
            d_part, part, rows = (_rows(x, piece, head_dim)[None] for x in (grad, out, queries))
            seen = _seen(keys, piece)[None], _seen(values, piece)[None]
            d_rows, *d_seen = _flash_back(
                d_part, rows, *seen, part, norm, 0.0, False, attn_mask=bias[None, None], scale=ctx.scale
            )
            d_queries[:, piece.start : piece.end] = d_rows[0].reshape(n_kv_heads, piece.end - piece.start, -1)
            _add_seen(d_keys, piece, d_seen[0][0])
            _add_seen(d_values, piece, d_seen[1][0])
        return d_queries, d_keys, d_values, None, None


class _Turned(torch.autograd.Function):
    """``[T, heads H]`` heads first, adjacent numbers multiplied, as complex ones, by ``turn [T, H / 2]``."""

    @staticmethod
    def forward(ctx, x, turn, n_kv_heads):
        ctx.turn, ctx.dtype = turn, x.dtype
        x = torch.view_as_complex(x.to(turn.real.dtype).view(len(x), n_kv_heads, -1, turn.shape[1], 2)).transpose(0, 1)
        turned = torch.mul(x, turn[:, None], out=turn.new_empty(x.shape))  # without out, it would lie as x does
        return torch.view_as_real(turned).view(*x.shape[:2], -1)

    @staticmethod
    def backward(ctx, grad):
        turn = ctx.turn
        grad = torch.view_as_complex(grad.view(*grad.shape[:2], -1, turn.shape[1], 2)).transpose(0, 1)
        turned = torch.mul(grad, turn.conj()[:, None, None], out=turn.new_empty(grad.shape))
        return torch.view_as_real(turned).view(len(grad), -1).to(ctx.dtype), None, None


def _tokens_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def _rows(x: Tensor, piece: Piece, head_dim: int) -> Tensor:
    """Return a piece's rows of all its query heads, ``[K, L G, H]``."""
    return x[:, piece.start : piece.end].reshape(len(x), -1, head_dim)


def _seen(x: Tensor, piece: Piece) -> Tensor:
    """Return the keys or values that a piece sees, ``[K, N, H]``; a view where they lie together."""
    parts = [x[:, start:end] for start, end in piece.seen]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _add_seen(total: Tensor, piece: Piece, part: Tensor) -> None:
    at = 0
    for start, end in piece.seen:
        total[:, start:end] += part[:, at : at + end - start]
        at += end - start


def attend_heads(query: Tensor, key: Tensor, value: Tensor, tree: TreePieces, scale: float) -> Tensor:
    """Compute attention along a tree's branches in transformers' layout, ``[1, T, heads, H]``.

    ``query [1, heads, T, H]``, ``key`` and ``value [1, K, T, H]`` carry their positions already.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    keys, values = (x[0].to(dtype).contiguous() for x in (key, value))
    queries = query[0].to(dtype).unflatten(0, (len(keys), -1)).transpose(1, 2).flatten(2)
    out = _tokens_first(_Attention.apply(queries, keys, values, tree, scale)).to(value.dtype)
    return out.view(1, len(out), query.shape[1], value.shape[3])


def attend_heads_in_blocks(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float) -> Tensor:
    """Compute what :func:`attend_heads` does under a block mask."""
    grouped = query.shape[1] != key.shape[1]
    out = _compiled_flex_attention()(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)
    return out.transpose(1, 2)


def block_mask(tree: PrefixTree) -> BlockMask | None:
    """Return a tree's mask for FlexAttention; None where torch cannot compile it or it would not be faster."""
    end = tree.subtree_end
    if (
        len(end) < SHORTEST_FOR_BLOCKS
        or not end.is_cuda
        or torch.cuda.get_device_capability(end.device) < (8, 0)
        or find_spec("triton") is None
    ):
        return None
    return mask_of(end)


def mask_of(end: Tensor) -> BlockMask:
    """Return the mask of a tree whose ``subtree_end`` is ``end [T]``."""
    n = len(end)
    return create_block_mask(
        lambda _b, _h, row, column: (column <= row) & (row < end[column]), None, None, n, n, end.device
    )


@cache
def _compiled_flex_attention():
    # One kernel for trees of every size: compiling takes some ten seconds, once a process.
    return torch.compile(flex_attention, dynamic=True)


def _attend_in_blocks(module: MultiHeadAttention, x: Tensor, mask: BlockMask, input_pos: Tensor) -> Tensor:
    """Compute a layer for which :func:`can_attend` holds under a block mask, ``[1, T, D]``."""
    q, k, v = (
        project(x).unflatten(2, (-1, module.head_dim)) for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    q, k = (module.pos_embeddings(heads, input_pos=input_pos) for heads in (q, k))
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    return module.output_proj(attend_heads_in_blocks(q, k, v, mask, module.head_dim**-0.5).flatten(2))


def mask_for(decoder: nn.Module, tree: PrefixTree, call_scores: int = CALL_SCORES) -> Any:
    """Return what a decoder's layers take as ``mask`` if all of them run :func:`attend`, else None.

    Raises:
        ValueError: If none of its layers is torchtune's attention, so that nobody would read what is returned.
    """
    n_layers = 0
    for module in decoder.modules():
        if isinstance(module, MultiHeadAttention):
            n_layers += 1
            if getattr(module.forward, "__func__", None) is not attend or not can_attend(module):
                return None
    if not n_layers:
        raise ValueError(
            f"{type(decoder).__name__} has attention of its own, which reads no prefix tree; use "
            "model._component_=finetune.models.causal_lm"
        )
    return cut_tree(tree, call_scores) if tree.tokens.device.type == "cpu" else block_mask(tree)


def can_attend(module: MultiHeadAttention) -> bool:
    """Tell whether :func:`attend` computes what the layer does: rotary positions of adjacent numbers, nothing else."""
    plain = type(module) is MultiHeadAttention and module.q_norm is None and module.k_norm is None
    rotary = type(module.pos_embeddings) in (RotaryPositionalEmbeddings, Llama3ScaledRoPE)
    return plain and rotary and module.attn_dropout == 0 and module.kv_cache is None


@torch.compiler.disable  # it would be compiled anew for every tree
def attend(module: MultiHeadAttention, x: Tensor, y: Tensor | None = None, *, mask=None, input_pos=None) -> Tensor:
    """Compute a layer for which :func:`can_attend` holds, ``[1, T, D]`` for ``x [1, T, D]``.

    It runs along branches if ``mask`` is :class:`TreePieces`, in blocks if it is a block mask, else as torchtune does.
    ``y`` is as in torchtune, ``x`` for a tree; ``input_pos`` are depths ``[1, T]``.
    """
    if isinstance(mask, BlockMask):
        return _attend_in_blocks(module, x, mask, input_pos)
    if not isinstance(mask, TreePieces):
        return MultiHeadAttention.forward(module, x, y, mask=mask, input_pos=input_pos)
    dtype = torch.promote_types(x.dtype, torch.float32)
    turn = torch.view_as_complex(module.pos_embeddings.cache[input_pos[0]].to(dtype))
    q, k, v = module.q_proj(x)[0], module.k_proj(x)[0], module.v_proj(x)[0]
    queries, keys = (_Turned.apply(heads, turn, module.num_kv_heads) for heads in (q, k))
    values = v.to(dtype).view(len(v), module.num_kv_heads, -1).transpose(0, 1).contiguous()
    out = _tokens_first(_Attention.apply(queries, keys, values, mask, module.head_dim**-0.5)).to(v.dtype)
    return module.output_proj(out[None])
