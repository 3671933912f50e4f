# SPDX-License-Identifier: MIT
"""FlexAttention of a tree against torchtune's own layer under the dense mask; on the CPU, where it runs uncompiled."""

import pytest
import torch
from test_tree_attention import layer, random_tree
from torch.nn.attention.flex_attention import flex_attention

from finetune.tree import block_attention
from finetune.tree.attention import attend


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 6}], ids=str)
def test_output_equals_torchtunes(changes, monkeypatch):
    monkeypatch.setattr(block_attention, "_compiled_flex_attention", lambda: flex_attention)
    attn = layer(embed_dim=96, **changes)
    tree = random_tree(1, 10, 2, 40, 90)
    x = torch.randn(1, tree.tokens.numel(), 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain = attn(x, x, mask=tree.attention_bias(x.dtype), input_pos=tree.input_pos)
        ours = attend(attn, x, x, mask=block_attention.mask_of(tree.subtree_end), input_pos=tree.input_pos)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_on_a_cpu_there_is_no_block_mask():
    assert block_attention.block_mask(random_tree(1, 10, 8, 40, 90)) is None
