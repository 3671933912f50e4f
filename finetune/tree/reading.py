# SPDX-License-Identifier: MIT
"""Log-probabilities of answers where no gradient will be asked for: what an evaluation reads, and nothing else.

The options of a question follow one token, and statements share beginnings. So the head runs once for each token that
predicts, however many answers it predicts for. A gradient needs each answer's own row of logits (``tree/logprobs.py``).

On a CPU layers of torchtune add to one tensor of hidden states, and the last one computes queries and its MLP at tokens
that predict alone: for one-letter options at one of thirty. In a bf16 model scores and weights of attention are float32
as in a training, and only the sum of values is a bf16 product: bf16 scores would put the answers further off.

Legend: T tokens of the tree, S scored tokens, R tokens that predict one or more of them, D embedding, V vocabulary,
K key-value heads, G query heads for each of them, H head dim.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchtune.modules import TransformerSelfAttentionLayer

from finetune.tree.attention import READ_CALL_SCORES, TreePieces, flash, mask_for
from finetune.tree.logprobs import HEAD_CHUNK, HEAD_ROWS, Decoder, Head, TreeDecoder, get_head, logits_of, own_logits
from finetune.tree.prefix_tree import PrefixTree

# Where no more tokens are seen, the weighted sum of bf16 values is a bf16 product: faster than all in float32 at once.
LONGEST_NARROW = 1024


@torch.no_grad()
def read_logprobs(model: Decoder, tree: PrefixTree) -> Tensor:
    """Return what :func:`finetune.tree.logprobs.answer_logprobs` does, without gradients; the model is in eval mode."""
    if isinstance(model, TreeDecoder):
        return model.read_logprobs(tree)
    head = get_head(model.output)
    tree = tree.to(head.weight.device)
    rows, row = tree.predictor.unique(return_inverse=True)
    if not len(rows):
        return torch.zeros(len(tree.answer_ends), device=head.weight.device)
    hidden = model.tok_embeddings(tree.tokens)
    if hidden.is_cuda:
        torch.backends.cuda.enable_cudnn_sdp(False)  # as in answer_logprobs
    mask = mask_for(model, tree, READ_CALL_SCORES)
    if isinstance(mask, TreePieces) and all(type(layer) is TransformerSelfAttentionLayer for layer in model.layers):
        scored = _read_pieces(model.layers, hidden[0], mask, tree.input_pos[0], rows)
    else:
        mask = tree.attention_bias(head.weight.dtype) if mask is None else mask
        for layer in model.layers:
            hidden = layer(hidden, mask=mask, input_pos=tree.input_pos)
        scored = hidden[0, rows]
    return read_sums(model.norm(scored), row, head, tree)


class _Heads(NamedTuple):
    """What attention takes; queries and keys are float32 at least."""

    queries: Tensor  # [K, R, G H], times attention's scale
    keys: Tensor  # [K, T, H]
    values: Tensor  # [K, T, H]


def _read_pieces(layers: Iterable[Any], hidden: Tensor, pieces: TreePieces, input_pos: Tensor, rows: Tensor) -> Tensor:
    """Return what layers of torchtune give at some tokens, ``[R, D]``; ``hidden [T, D]`` is overwritten."""
    *others, last = layers
    for layer in others:
        _add_layer(layer, hidden, _attend(_project(layer, hidden, input_pos, slice(None)), pieces))
    asked, part = hidden[rows], pieces.at(rows)
    _add_layer(last, asked, _attend(_project(last, hidden, input_pos, rows), part))
    return asked


def _project(layer: Any, hidden: Tensor, input_pos: Tensor, rows: Tensor | slice) -> _Heads:
    """Return the queries of some tokens, and the keys and values of all."""
    attn, normed = layer.attn, layer.sa_norm(hidden)
    wide = torch.promote_types(normed.dtype, torch.float32)
    turn = torch.view_as_complex(attn.pos_embeddings.cache.to(wide))[input_pos]

    def heads_first(x: Tensor) -> Tensor:
        return x.view(len(x), attn.num_kv_heads, -1).transpose(0, 1).contiguous()

    def turned(x: Tensor, by: Tensor) -> Tensor:
        x = torch.view_as_complex(x.to(wide).view(len(x), -1, by.shape[1], 2))
        return heads_first(torch.view_as_real(x * by[:, None]))

    queries = turned(attn.q_proj(normed[rows]), turn[rows] * attn.head_dim**-0.5)
    return _Heads(queries, turned(attn.k_proj(normed), turn), heads_first(attn.v_proj(normed)))


def _attend(heads: _Heads, pieces: TreePieces) -> Tensor:
    """Return attention along the branches, ``[R, heads H]``."""
    queries, keys, values = heads
    n_kv_heads, n, width = queries.shape
    head_dim = keys.shape[2]
    out = values.new_empty(n, n_kv_heads, width)
    for piece, columns, bias in zip(pieces.pieces, pieces.columns, pieces.biases(width // head_dim, queries.dtype)):
        own = queries[:, piece.start : piece.end].reshape(n_kv_heads, -1, head_dim)
        seen_keys, seen_values = keys.index_select(1, columns), values.index_select(1, columns)
        if values.dtype is own.dtype or len(columns) > LONGEST_NARROW:
            seen = seen_keys[None], seen_values[None].to(own.dtype)
            part = flash(own[None], *seen, attn_mask=bias[None, None], scale=1.0)[0][0]
        else:
            weights = torch.baddbmm(bias[None], own, seen_keys.transpose(1, 2)).softmax(-1)
            part = torch.bmm(weights.to(values.dtype), seen_values)
        out[piece.start : piece.end] = part.reshape(n_kv_heads, -1, width).transpose(0, 1)
    return out.flatten(1)


def _add_layer(layer: Any, hidden: Tensor, attended: Tensor) -> None:
    """Add to ``hidden [R, D]`` what a layer makes of its attention, ``[R, heads H]``, and then its MLP's output."""
    hidden += layer.sa_scale(layer.attn.output_proj(attended))
    hidden += layer.mlp_scale(layer.mlp(layer.mlp_norm(hidden)))


def read_sums(scored: Tensor, row: Tensor, head: Head, tree: PrefixTree) -> Tensor:
    """Return the summed log-probability of each answer, ``[N]``.

    Args:
        scored: Hidden states that predict, ``[R, D]``.
        row: Which of them predicts each scored token, ``[S]``.
        head: The output projection; its dropout is off.
        tree: What was read.
    """
    weight, wide = head.weight, torch.promote_types(scored.dtype, torch.float32)
    a, b = (None if x is None else x.to(scored.dtype) for x in (head.lora_a, head.lora_b))
    low = None if a is None else head.scale * (scored @ a.T)
    order = row.argsort(stable=True)
    row, target = row[order], tree.target[order]
    ends = [0, *row.bincount(minlength=len(scored)).cumsum(0).tolist()]  # of the targets of each row
    own = less = None
    if wide != scored.dtype:
        own = own_logits(scored[row], weight, None if low is None else low[row], b, target)
        # the likeliest target's: no target is further from it than the row's others are
        less = own.new_full((len(scored),), -torch.inf).scatter_reduce(0, row, own, "amax").to(scored.dtype)[:, None]
    found = torch.empty(len(target), dtype=wide, device=scored.device)
    for lo in range(0, len(scored), HEAD_CHUNK):
        part = slice(lo, lo + HEAD_CHUNK)
        logits = logits_of(
            scored[part], weight, None if low is None else low[part], b, None if less is None else less[part]
        )
        n_rows = len(logits) if logits.is_cuda else HEAD_ROWS
        for start in range(lo, lo + len(logits), n_rows):
            block = logits[start - lo : start - lo + n_rows].to(wide)
            mine = slice(ends[start], ends[start + len(block)])
            at = row[mine] - start, target[mine]
            if own is not None and less is not None:
                block += less[start : start + len(block)]
                block[at] = own[mine]
            if head.bias is not None:
                block += head.bias
            if head.factor != 1:
                block *= head.factor
            if head.cap is not None:
                block.div_(head.cap).tanh_().mul_(head.cap)
            # torch's log_softmax sums less exactly on a CPU; logsumexp sweeps over the logits more often
            block -= block.amax(-1, keepdim=True)
            chosen = block[at]
            found[mine] = chosen - block.exp_().sum(-1).log()[at[0]]
    found = torch.empty_like(found).index_copy_(0, order, found)
    starts = (0, *tree.answer_ends)
    return torch.stack([found[start:end].sum() for start, end in zip(starts, tree.answer_ends)])
