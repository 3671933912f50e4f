# SPDX-License-Identifier: MIT
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from data.pairs.tokens import Continuation
from finetune.tree.prefix_tree import build_tree, count_tokens, cut_by_tokens

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=6)


def continuation(tokens, n_prompt=1):
    return Continuation(tokens, [CROSS_ENTROPY_IGNORE_IDX] * n_prompt + list(tokens[n_prompt:]))


@given(sequences)
def test_every_sequence_is_a_path_of_the_tree(token_lists):
    tree = build_tree([continuation(t) for t in token_lists])
    mask, tokens, depth = tree.mask()[0], tree.tokens[0], tree.input_pos[0]
    # the last token of a sequence predicts nothing that is scored, so it is not run
    prefixes = {tuple(t[:n]) for t in token_lists for n in range(1, max(len(t), 2))}
    # what a token sees, itself included, in order of depth, is exactly one prefix; each prefix occurs once
    seen = [tuple(tokens[mask[i]][depth[mask[i]].argsort()].tolist()) for i in range(len(tokens))]
    assert sorted(seen) == sorted(prefixes)
    assert depth.tolist() == [len(path) - 1 for path in seen]
    # scored tokens: predicted by the prefix before them, in the order of the answers
    start = 0
    for sequence, end in zip(token_lists, tree.answer_ends):
        assert tree.target[start:end].tolist() == sequence[1:]
        assert [seen[i] for i in tree.predictor[start:end]] == [tuple(sequence[:n]) for n in range(1, len(sequence))]
        start = end
    assert count_tokens(token_lists) == len(prefixes)


def test_shared_prompt_is_held_once():
    tree = build_tree([continuation([5, 6, 7, 8], 2), continuation([5, 6, 9], 2)])
    assert tree.tokens.tolist() == [[5, 6, 7]]
    assert tree.input_pos.tolist() == [[0, 1, 2]]
    assert tree.predictor.tolist() == [1, 2, 1]
    assert tree.target.tolist() == [7, 8, 9]
    assert tree.answer_ends == (2, 3)


@given(st.lists(sequences, min_size=1, max_size=6), st.integers(1, 30))
def test_cuts_keep_order_and_budget(groups, budget):
    groups = [[continuation(t) for t in group] for group in groups]
    forwards = cut_by_tokens(groups, budget)
    assert [k for forward in forwards for k in forward] == list(range(len(groups)))
    for forward in forwards:
        size = count_tokens(c.tokens for k in forward for c in groups[k])
        assert size <= budget or len(forward) == 1


def test_errors_say_what_is_allowed():
    with pytest.raises(ValueError, match="no continuations"):
        build_tree([])
    with pytest.raises(ValueError, match="2 tokens and 1 labels"):
        build_tree([Continuation([1, 2], [1])])
    with pytest.raises(ValueError, match="max_tokens_per_forward=0"):
        cut_by_tokens([[continuation([1, 2])]], 0)


def test_mask_is_causal_without_branches():
    tree = build_tree([continuation([3, 1, 2, 0, 5])])
    assert torch.equal(tree.mask()[0], torch.ones(4, 4).tril().bool())
