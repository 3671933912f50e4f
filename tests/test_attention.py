# SPDX-License-Identifier: MIT
"""Attention along branches, and in blocks, against torchtune's own layer under the tree's dense mask."""

import copy
from functools import partial

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torchtune.models.gemma2 import gemma2
from torchtune.models.llama3 import llama3
from torchtune.models.llama3_1 import llama3_1
from torchtune.models.qwen2 import qwen2

from data.pairs.tokens import Continuation
from finetune.tree import attention
from finetune.tree.attention import LONGEST_PIECE, TreePieces, attend, can_attend, cut_tree, mask_for
from finetune.tree.layers import use_fast_layers
from finetune.tree.prefix_tree import build_tree

SIZES = {"vocab_size": 50, "num_layers": 1, "num_heads": 6, "num_kv_heads": 2, "embed_dim": 48, "max_seq_len": 512}


def layer(builder=llama3, dtype=torch.float32, **changes):
    torch.manual_seed(0)
    return builder(**{**SIZES, "intermediate_dim": 16, **changes}).layers[0].attn.to(dtype)


def random_tree(seed, *shape):
    """Sequences that share a preamble, and pairs of them a prompt: (preamble, prompts, prompt, answer) lengths."""
    preamble, n_prompts, prompt, answer = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        return torch.randint(50, (n,), generator=generator).tolist()

    start = draw(preamble)
    sequences = []
    for _ in range(n_prompts):
        asked = start + draw(prompt)
        sequences += [asked + draw(answer), asked + draw(answer // 2 + 1)]
    return build_tree([Continuation(s, s) for s in sequences])


TREES = {
    "a pair": (0, 1, 40, 90),
    "answers longer than a piece": (3, 1, 40, 3 * LONGEST_PIECE),
    "a prompt longer than a piece": (0, 1, 2 * LONGEST_PIECE + 1, 30),
    "pairs with a preamble": (30, 3, 40, 90),
    "many short answers": (20, 12, 4, 3),
}


@pytest.mark.parametrize("shape", TREES.values(), ids=TREES)
def test_pieces_see_exactly_what_the_mask_says(shape):
    tree = random_tree(1, *shape)
    n = tree.tokens.numel()
    seen = torch.zeros(n, n, dtype=torch.bool)
    cut = cut_tree(tree)
    pieces = cut.pieces
    for (start, end, runs), own in zip(pieces, cut.visible):
        columns = torch.cat([torch.arange(a, b) for a, b in runs])
        seen[start:end, columns] = own
        assert own.any(0).all()  # what nobody sees is left out
    assert torch.equal(seen, tree.mask()[0])
    assert [p.start for p in pieces] == [0, *(p.end for p in pieces[:-1])]
    assert max(p.end - p.start for p in pieces) <= LONGEST_PIECE


@pytest.mark.parametrize("shape", TREES.values(), ids=TREES)
@pytest.mark.parametrize("builder", [llama3, llama3_1])
@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 6}, {"num_kv_heads": 1}], ids=str)
def test_output_and_gradients_equal_torchtunes(shape, builder, changes):
    attn = layer(builder, **changes)
    tree = random_tree(2, *shape)
    found = []
    for mask, compute in ((tree.attention_bias(torch.float32), attn), (cut_tree(tree), partial(attend, attn))):
        torch.manual_seed(3)
        x = torch.randn(1, tree.tokens.numel(), 48, requires_grad=True)
        out = compute(x, x, mask=mask, input_pos=tree.input_pos)
        attn.zero_grad()
        out.sin().sum().backward()
        found.append((out, x.grad, *(p.grad.clone() for p in attn.parameters())))
    for a, b in zip(*found):
        assert (a - b).norm() <= 1e-5 * a.norm()


def test_in_bf16_it_is_closer_to_float32_than_torchtunes():
    exact = layer()
    tree = random_tree(4, 0, 1, 40, 90)
    x = torch.randn(1, tree.tokens.numel(), 48, generator=torch.Generator().manual_seed(5)).bfloat16()
    rounded = copy.deepcopy(exact).bfloat16()
    exact.load_state_dict({k: v.float() for k, v in rounded.state_dict().items()})
    truth = exact(x.float(), x.float(), mask=tree.mask(), input_pos=tree.input_pos)
    plain = rounded(x, x, mask=tree.attention_bias(x.dtype), input_pos=tree.input_pos)
    ours = attend(rounded, x, x, mask=cut_tree(tree), input_pos=tree.input_pos)
    assert ours.dtype is torch.bfloat16
    assert (ours - truth).norm() <= (plain - truth).norm()


def test_gradient_is_that_of_finite_differences():
    attn = layer(dtype=torch.float64, embed_dim=12, num_heads=6)
    tree = random_tree(6, 0, 1, 30, 30)
    x = torch.randn(1, tree.tokens.numel(), 12, dtype=torch.float64, requires_grad=True)
    along = partial(attend, attn, mask=cut_tree(tree), input_pos=tree.input_pos)
    assert torch.autograd.gradcheck(lambda x: along(x, x), x, fast_mode=True)


def test_short_runs_share_a_piece_and_long_ones_do_not():
    assert len(cut_tree(random_tree(7, 20, 12, 4, 3)).pieces) <= 3
    assert len(cut_tree(random_tree(7, 0, 1, 40, 90)).pieces) == 3


def test_a_decoder_gets_a_mask_by_branches_only_if_all_its_layers_can_use_it():
    decoder = llama3(**{**SIZES, "intermediate_dim": 16, "num_layers": 2}).requires_grad_(False)
    tree = random_tree(7, 0, 1, 40, 90)
    assert mask_for(decoder, tree) is None
    use_fast_layers(decoder)
    assert isinstance(mask_for(decoder, tree), TreePieces)
    decoder.layers[1].compile()
    assert isinstance(mask_for(decoder, tree), TreePieces)


def test_one_token_alone():
    tree = build_tree([Continuation([7], [7])])
    assert cut_tree(tree).pieces == ((0, 1, ((0, 1),)),)


def test_layers_of_another_kind_are_recognized():
    assert can_attend(layer())
    assert not can_attend(layer(qwen2))  # turns halves, not neighbors
    assert not can_attend(layer(attn_dropout=0.1))


# FlexAttention runs uncompiled on a CPU
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 6}], ids=str)
def test_output_in_blocks_equals_torchtunes(changes, monkeypatch):
    monkeypatch.setattr(attention, "_compiled_flex_attention", lambda: flex_attention)
    attn = layer(embed_dim=96, **changes)
    tree = random_tree(1, 10, 2, 40, 90)
    x = torch.randn(1, tree.tokens.numel(), 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        plain = attn(x, x, mask=tree.attention_bias(x.dtype), input_pos=tree.input_pos)
        ours = attend(attn, x, x, mask=attention.mask_of(tree.subtree_end), input_pos=tree.input_pos)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_on_a_cpu_there_is_no_block_mask():
    assert attention.block_mask(random_tree(1, 10, 8, 40, 90)) is None


def test_heads_that_are_turned_already_are_attended_to_in_blocks_as_along_branches(monkeypatch):
    # not compiled here: that takes ten seconds
    monkeypatch.setattr(attention, "_compiled_flex_attention", lambda: flex_attention)
    prompt, answers = list(range(40)), (list(range(100, 140)), list(range(200, 230)))
    tree = build_tree([Continuation(prompt + a, [-100] * 40 + a) for a in answers])
    generator = torch.Generator().manual_seed(0)
    n = tree.tokens.shape[1]
    query, key, value = (torch.randn(1, heads, n, 16, generator=generator) for heads in (4, 2, 2))
    dense = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=tree.mask()[None], scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    in_blocks = attention.attend_heads_in_blocks(query, key, value, attention.mask_of(tree.subtree_end), 0.3)
    torch.testing.assert_close(in_blocks, dense, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention.attend_heads(query, key, value, cut_tree(tree), 0.3), dense, atol=1e-5, rtol=0)


def test_a_decoder_with_attention_of_its_own_is_refused():
    torch.manual_seed(0)
    decoder = gemma2(vocab_size=40, num_layers=1, num_heads=2, head_dim=8, num_kv_heads=1, embed_dim=16,
                     intermediate_dim=16, max_seq_len=64)  # fmt: skip
    tree = build_tree([Continuation([1, 2, 3], [-100, 2, 3]), Continuation([1, 4, 5], [-100, 4, 5])])
    with pytest.raises(ValueError, match="reads no prefix tree; use model._component_=finetune.models.causal_lm"):
        mask_for(decoder, tree)
