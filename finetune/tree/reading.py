# SPDX-License-Identifier: MIT
"""Log-probabilities of answers where no gradient will be asked for: what an evaluation reads, and nothing else.

The options of a question follow one token, and statements share beginnings. So the head runs once for each token that
predicts, however many answers it predicts for. On a CPU the last layer of torchtune's models computes queries and its
MLP at these tokens alone: for one-letter options at one of thirty. A gradient needs each answer's own row of logits
(``tree/logprobs.py``).

Legend: T tokens of the tree, S scored tokens, R tokens that predict one or more of them, D embedding, V vocabulary.
"""

import torch
from torch import Tensor
from torchtune.modules import TransformerSelfAttentionLayer

from finetune.tree.attention import READ_CALL_SCORES, TreePieces, mask_for
from finetune.tree.logprobs import HEAD_CHUNK, HEAD_ROWS, Decoder, Head, TreeDecoder, get_head, logits_of, own_logits
from finetune.tree.prefix_tree import PrefixTree


@torch.no_grad()
def read_logprobs(model: Decoder, tree: PrefixTree) -> Tensor:
    """Return what :func:`finetune.tree.logprobs.answer_logprobs` does, without gradients; the model is in eval mode."""
    if isinstance(model, TreeDecoder):
        return model.read_logprobs(tree)
    head = get_head(model.output)
    tree = tree.to(head.weight.device)
    rows, row = tree.predictor.unique(return_inverse=True)
    hidden = model.tok_embeddings(tree.tokens)
    if hidden.is_cuda:
        torch.backends.cuda.enable_cudnn_sdp(False)  # as in answer_logprobs
    if (mask := mask_for(model, tree, READ_CALL_SCORES)) is None:
        mask = tree.attention_bias(head.weight.dtype)
    last = model.layers[-1]
    for layer in model.layers[:-1]:
        hidden = layer(hidden, mask=mask, input_pos=tree.input_pos)
    if len(rows) and isinstance(mask, TreePieces) and type(last) is TransformerSelfAttentionLayer:
        hidden = _layer_at(last, hidden, mask.at(rows), tree.input_pos, rows)
    else:
        hidden = last(hidden, mask=mask, input_pos=tree.input_pos)[:, rows]
    return read_sums(model.norm(hidden[0]), row, head, tree)


def _layer_at(
    layer: TransformerSelfAttentionLayer, hidden: Tensor, mask: TreePieces, input_pos: Tensor, rows: Tensor
) -> Tensor:
    """Return what a layer of torchtune gives at some tokens, ``[1, R, D]`` for ``hidden [1, T, D]``."""
    normed = layer.sa_norm(hidden)
    attended = layer.sa_scale(layer.attn(normed, normed, mask=mask, input_pos=input_pos)) + hidden[:, rows]
    return attended + layer.mlp_scale(layer.mlp(layer.mlp_norm(attended)))


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
