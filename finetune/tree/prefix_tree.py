# SPDX-License-Identifier: MIT
"""Many continuations of shared prefixes as one row of tokens.

The sequences are merged on their exact common prefixes, by token id, and laid out depth first, so that every shared
token is computed once and nothing is padded. A token's position is its depth in the tree; it attends to its ancestors
only. The subtree of token ``j`` is the range ``[j, subtree_end[j])``, so the whole mask is ``j <= i < subtree_end[j]``.

Legend: T tokens of the tree, S scored tokens, N continuations.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from data.pairs.tokens import Continuation, TokenIds


class PrefixTree(NamedTuple):
    """Continuations merged into one row, ready for one forward; every tensor is int64."""

    tokens: Tensor  # [1, T], token ids, depth first
    input_pos: Tensor  # [1, T], depth of each token
    subtree_end: Tensor  # [T], one past the last descendant of each token
    predictor: Tensor  # [S], for each scored token the index of the hidden state that predicts it
    target: Tensor  # [S], token id of each scored token
    answer_ends: tuple[int, ...]  # N, scored tokens are sorted by continuation: the end of each one's run

    def mask(self) -> Tensor:
        """Return the attention mask, bool ``[1, T, T]``; True where row ``i`` may look at column ``j``."""
        index = torch.arange(self.subtree_end.numel(), device=self.subtree_end.device)
        row, column = index[:, None], index[None, :]
        return ((column <= row) & (row < self.subtree_end[None, :]))[None]

    def attention_bias(self, dtype: torch.dtype) -> Tensor:
        """Return the mask as what attention adds to its scores, ``[1, T, T]``: 0 or minus infinity.

        torch would make it from the bool mask in every layer, and each layer would keep its own for the backward pass.
        """
        return torch.where(self.mask(), 0.0, -torch.inf).to(dtype)

    def padded(self, multiple: int) -> "PrefixTree":
        """Return the tree with tokens at its end, up to a multiple of tokens: none of its own sees or scores them."""
        n = self.tokens.shape[1]
        zeros = self.tokens.new_zeros(1, -n % multiple)
        return self._replace(
            tokens=torch.cat([self.tokens, zeros], 1),
            input_pos=torch.cat([self.input_pos, zeros], 1),
            # a run without a fork, which sees itself: a softmax over nothing is not a number
            subtree_end=torch.cat([self.subtree_end, zeros[0] + n + zeros.shape[1]]),
        )

    def to(self, device: torch.device) -> "PrefixTree":
        """Return the tree with its tensors on ``device``."""
        tokens, input_pos, subtree_end, predictor, target = (x.to(device) for x in self[:5])
        return PrefixTree(tokens, input_pos, subtree_end, predictor, target, self.answer_ends)


def _common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Return the length of the longest common prefix of two id arrays."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def _inputs(ids: TokenIds) -> TokenIds:
    """Return what the model must see: all but the last token, whose hidden state predicts nothing that is scored."""
    return ids[: max(len(ids) - 1, 1)]


def build_tree(continuations: Sequence[Continuation]) -> PrefixTree:
    """Merge N continuations on their common prefixes; the order of their scores is kept, the layout is sorted.

    Raises:
        ValueError: If there is no continuation, or tokens and labels of one differ in length.
    """
    if not continuations:
        raise ValueError("build_tree: no continuations; give at least one")
    sequences = [np.asarray(c.tokens, dtype=np.int64) for c in continuations]
    labels = [np.asarray(c.labels, dtype=np.int64) for c in continuations]
    for k, (ids, label) in enumerate(zip(sequences, labels)):
        if len(ids) != len(label) or len(ids) == 0:
            raise ValueError(
                f"build_tree: continuation {k} has {len(ids)} tokens and {len(label)} labels; "
                "both must have the same length, at least 1"
            )

    inputs = [np.asarray(_inputs(ids)) for ids in sequences]
    # Sequences that share a prefix lie next to each other in lexicographic order, so the overlap with the previous one
    # alone decides what is new.
    order = sorted(range(len(inputs)), key=lambda k: tuple(inputs[k]))
    tokens, depth, subtree_end = np.empty((3, sum(map(len, inputs))), dtype=np.int64)
    paths: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(inputs)
    n = 0
    path = previous = np.empty(0, dtype=np.int64)  # of the previous sequence: tree index of each token, and its tokens
    for k in order:
        ids = inputs[k]
        shared = _common_prefix(previous, ids)
        subtree_end[path[shared:]] = n
        new = np.arange(n, n + len(ids) - shared)
        tokens[new] = ids[shared:]
        depth[new] = np.arange(shared, len(ids))
        path = np.concatenate([path[:shared], new])
        paths[k], previous, n = path, ids, n + len(new)
    subtree_end[path] = n

    scored = [np.flatnonzero(label[1:] != CROSS_ENTROPY_IGNORE_IDX) + 1 for label in labels]
    return PrefixTree(
        tokens=torch.from_numpy(tokens[:n])[None],
        input_pos=torch.from_numpy(depth[:n])[None],
        subtree_end=torch.from_numpy(subtree_end[:n]),
        predictor=torch.from_numpy(np.concatenate([path[index - 1] for path, index in zip(paths, scored)])),
        target=torch.from_numpy(np.concatenate([ids[index] for ids, index in zip(sequences, scored)])),
        answer_ends=tuple(np.cumsum([len(index) for index in scored]).tolist()),
    )


def count_tokens(sequences: Iterable[TokenIds]) -> int:
    """Return how many tokens the merged tree of ``sequences`` has (their last tokens are not run)."""
    total, previous = 0, np.empty(0, dtype=np.int64)
    for ids in sorted(tuple(_inputs(sequence)) for sequence in sequences):
        current = np.asarray(ids, dtype=np.int64)
        total += len(current) - _common_prefix(previous, current)
        previous = current
    return total


def cut_by_tokens(groups: Sequence[Sequence[Continuation]], max_tokens: int) -> list[list[int]]:
    """Cut consecutive groups into forwards of at most ``max_tokens`` tree tokens.

    A group (the two answers of a pair, the options of a question) is never split; one that is larger than the budget
    by itself gets a forward of its own.

    Args:
        groups: Groups of continuations, in the order in which they are to run.
        max_tokens: Budget of merged tokens a forward, > 0.

    Returns:
        For each forward the indices of its groups.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens_per_forward={max_tokens}; use a positive number of tokens")
    forwards: list[list[int]] = []
    current: list[int] = []
    size = 0
    for k, group in enumerate(groups):
        sequences = [c.tokens for c in group]
        cost = alone = count_tokens(sequences)
        if current:
            # The tokens that the group shares with its neighbor are counted once. Further sharing only makes the
            # forward smaller than this estimate.
            before = [c.tokens for c in groups[current[-1]]]
            cost = count_tokens([*before, *sequences]) - count_tokens(before)
        if current and size + cost > max_tokens:
            forwards.append(current)
            current, size, cost = [], 0, alone
        current.append(k)
        size += cost
    if current:
        forwards.append(current)
    return forwards
