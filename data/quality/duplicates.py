# SPDX-License-Identifier: MIT
"""Near duplicates: texts that have half of their word 3-grams, or more, in common. The search is exact.

Two sets that share a part ``t`` of their elements share one even among the rarest of each: of ``n`` elements the
``n - ceil(t * n) + 1`` rarest suffice. So only texts with a rare shingle in common are compared (the prefix filter of
Bayardo, Ma and Srikant 2007, "Scaling Up All Pairs Similarity Search"). A million posts take 2 to 3 GB, their texts
included.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from data.language import lower_words

if TYPE_CHECKING:  # scipy takes half a second, and a refused config needs none of it
    from scipy.sparse import csr_array

EXACT_ROWS = 20_000  # for more texts the similarities of all pairs are too many
_BLOCK = 100_000  # pairs that are compared at once
_ROWS = 1_000  # texts that are compared at once with all others

PairsOf = Callable[[Sequence[str]], Iterable[tuple[int, int]]]  # from texts to the indices of those that are alike


def shingles(text: str, n: int) -> frozenset[tuple[str, ...]]:
    """Return the word n-grams in lower case; a shorter text is one shingle."""
    tokens = lower_words(text)
    return frozenset(tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1)))


def near_duplicate_clusters(texts: Sequence[str], threshold: float = 0.5, alike: PairsOf | None = None) -> list[int]:
    """Give each text the lowest index among those that a chain of near duplicates joins it to.

    These have at least the threshold as Jaccard similarity of their word 3-grams, or are found by ``alike``.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}; use a number up to 1 and above 0")
    if not texts:
        return []
    rows = _shingle_rows(texts)
    sizes = np.diff(rows.indptr)
    first: dict[bytes, int] = {}
    bounds = pairwise(rows.indptr.tolist())
    cluster = np.array([first.setdefault(rows.indices[a:b].tobytes(), k) for k, (a, b) in enumerate(bounds)])
    is_distinct = cluster == np.arange(len(texts))
    place = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], sizes)
    n_rarest = sizes - np.ceil(threshold * sizes - 1e-9).astype(int) + 1
    is_rare = (place < np.repeat(n_rarest, sizes)) & np.repeat(is_distinct, sizes)
    owners = np.repeat(np.arange(len(texts)), sizes)[is_rare]
    for i, j in _couples(rows.indices[is_rare], owners):
        near = np.minimum(sizes[i], sizes[j]) >= threshold * np.maximum(sizes[i], sizes[j])
        near &= cluster[i] != cluster[j]
        i, j = i[near], j[near]
        n_shared = rows[i].multiply(rows[j]).sum(axis=1)
        similar = n_shared / (sizes[i] + sizes[j] - n_shared) >= threshold
        if similar.any():
            cluster = _joined(cluster, i[similar], j[similar])
    if alike and (pairs := list(alike(texts))):
        cluster = _joined(cluster, *np.array(pairs).T)
    return cluster.tolist()


def highest_similarities(texts: Sequence[str]) -> list[float]:
    """Give each of at most ``EXACT_ROWS`` texts its highest similarity with another one; less than .01 counts as 0."""
    from scipy.sparse import coo_array

    if not texts:
        return []
    highest, rows = np.zeros(len(texts)), _shingle_rows(texts)
    sizes = np.diff(rows.indptr)
    for start in range(0, len(texts), _ROWS):
        shared = coo_array(rows[start : start + _ROWS] @ rows.T)
        i, j = shared.row + start, shared.col
        similarity = np.where(i == j, 0, shared.data / (sizes[i] + sizes[j] - shared.data))
        np.maximum.at(highest, i, similarity)
    return np.where(highest < 0.01, 0.0, highest).tolist()


def _shingle_rows(texts: Sequence[str]) -> "csr_array":
    """Return a row for each text and a column for each shingle, the rarest first."""
    from scipy.sparse import csr_array

    # a hash of strings differs from process to process; only its equality is used, and with 64 bits none collide
    hashes = [np.fromiter(map(hash, shingles(text, 3)), dtype=np.int64) for text in texts]
    starts = np.cumsum([0, *map(len, hashes)])
    _, column, counts = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts), dtype=np.int32)
    rows = csr_array((np.ones(len(column), dtype=np.int32), rank[column], starts), shape=(len(texts), len(counts)))
    rows.sort_indices()
    return rows


def _couples(shingle: np.ndarray, owners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of texts that share a shingle: neighbours first, then those two apart, and so on."""
    order = np.lexsort((owners, shingle))
    shingle, owners = shingle[order], owners[order]
    ahead = np.arange(len(shingle))
    for distance in range(1, len(shingle)):
        ahead = ahead[ahead + distance < len(shingle)]
        ahead = ahead[shingle[ahead] == shingle[ahead + distance]]
        if not len(ahead):
            return
        couples = np.unique(np.stack([owners[ahead], owners[ahead + distance]]), axis=1)
        for start in range(0, couples.shape[1], _BLOCK):
            i, j = couples[:, start : start + _BLOCK]
            yield i, j


def _joined(cluster: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the clusters, by their lowest index, after each ``i`` is joined to its ``j``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(cluster)
    ends = np.concatenate([np.arange(n), i]), np.concatenate([cluster, j])
    _, label = connected_components(coo_array((np.ones(len(ends[0])), ends), shape=(n, n)), directed=False)
    return np.unique(label, return_index=True)[1][label]
