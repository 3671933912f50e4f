# SPDX-License-Identifier: MIT
"""The attention of transformers' models on a prefix tree: along its branches, by what stands in ``tree/attention.py``.

A mask that has an attribute of its name (:class:`~finetune.tree.attention.TreePieces` or a block mask) says there what
it hides; a mask without one is as it always is.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finetune.tree.attention import TreePieces, attend_heads, attend_heads_in_blocks

BRANCHES = "politune_branches"  # the name of this attention among transformers' own
# Arguments that change what attention computes, and that it does not know along branches.
_OTHER = ("softcap", "position_bias", "s_aux", "head_mask")


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """Return the output of attention, ``[B, T, heads, H]`` for ``[B, heads, T, H]``."""
    branches = getattr(attention_mask, BRANCHES, None)
    if branches is None or more.get("dropout") or any(more.get(name) is not None for name in _OTHER):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    scaling = more.get("scaling")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(branches, TreePieces):
        if value.shape[-1] != query.shape[-1]:  # torch's fused attention has one width
            return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return attend_heads(query, key, value, branches, scale), None
    assert isinstance(branches, BlockMask)
    return attend_heads_in_blocks(query, key, value, branches, scale), None


AttentionInterface.register(BRANCHES, _attend)
AttentionMaskInterface.register(BRANCHES, sdpa_mask)


def use_branches(model: PreTrainedModel) -> None:
    """Let a model that attends with torch's own function attend along branches."""
    model.set_attn_implementation(BRANCHES)
