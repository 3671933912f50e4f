# SPDX-License-Identifier: MIT
"""All near duplicates among many texts, exactly and in one machine's memory.

Two sets of which a share ``t`` is common must share an element even among the rarest ones of each: of ``n`` elements
the ``n - ceil(t * n) + 1`` rarest suffice. So only texts that share a rare shingle are compared (the prefix filter of
Bayardo, Ma and Srikant 2007, "Scaling Up All Pairs Similarity Search").

A million posts take 2 to 3 GB, their texts included.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data.language import words


def similar_clusters(texts: Iterable[str], threshold: float, n: int = 3) -> list[int]:
    """Give each text the lowest index among those that a chain of near duplicates joins it to.

    Args:
        texts: Posts, say.
        threshold: Least Jaccard similarity of word n-grams, above 0.
        n: Words in a shingle; a shorter text is one shingle.
    """
    grams, starts = _shingle_hashes(texts, n)
    sizes = np.diff(starts)
    root = _same_sets(grams, starts)
    owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    alone = np.flatnonzero(root == np.arange(len(root)))  # one of each set of equal texts
    rare, rare_owners = _rarest(grams, owners, starts, sizes, threshold, alone)
    for i, j in _couples(rare, rare_owners):
        near = np.minimum(sizes[i], sizes[j]) >= threshold * np.maximum(sizes[i], sizes[j])
        near &= root[i] != root[j]
        i, j = i[near], j[near]
        for a, b in zip(i.tolist(), j.tolist()):
            low, high = sorted((_find(root, a), _find(root, b)))
            if low != high and _jaccard(grams, starts, a, b) >= threshold:
                root[high] = low
    return [_find(root, index) for index in range(len(root))]


def _shingle_hashes(texts: Iterable[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of each text's shingles, sorted, in one array, and where each text begins; 64 bits, so none collide."""
    parts, starts = [], [0]
    for text in texts:
        tokens = [word.lower() for word in words(text)]
        # the hash of a tuple of strings is another one in every process; only its equality is used
        own = {hash(tuple(tokens[k : k + n])) for k in range(max(1, len(tokens) - n + 1))}
        parts.append(np.fromiter(own, dtype=np.int64, count=len(own)))
        parts[-1].sort()
        starts.append(starts[-1] + len(own))
    return np.concatenate(parts) if parts else np.empty(0, np.int64), np.array(starts)


def _same_sets(grams: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For each text the first one with the very same shingles."""
    first: dict[bytes, int] = {}
    bounds = starts.tolist()
    return np.array([first.setdefault(grams[a:b].tobytes(), k) for k, (a, b) in enumerate(zip(bounds, bounds[1:]))])


def _rarest(
    grams: np.ndarray, owners: np.ndarray, starts: np.ndarray, sizes: np.ndarray, threshold: float, alone: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rarest shingles of each text, as many as the threshold needs, sorted by shingle; and their texts."""
    _, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
    # rank by rarity, ties by the shingle itself, so that all texts agree on the order
    rank = np.empty(len(counts), dtype=np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts), dtype=np.int32)
    ranks = rank[inverse]
    del inverse
    order = np.lexsort((ranks, owners))
    place = np.arange(len(grams)) - np.repeat(starts[:-1], sizes)
    needed = sizes - np.ceil(threshold * sizes - 1e-9).astype(int) + 1
    kept = (place < np.repeat(needed, sizes)) & np.isin(owners, alone)
    ranks, owners = ranks[order][kept], owners[order][kept]
    by_shingle = np.lexsort((owners, ranks))
    return ranks[by_shingle], owners[by_shingle]


def _couples(shingles: np.ndarray, owners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of texts that share a shingle: neighbours first, then those two apart, and so on."""
    ahead = np.arange(len(shingles))
    for distance in range(1, len(shingles)):
        ahead = ahead[ahead + distance < len(shingles)]
        ahead = ahead[shingles[ahead] == shingles[ahead + distance]]
        if not len(ahead):
            return
        couples = np.unique(np.stack([owners[ahead], owners[ahead + distance]]), axis=1)
        yield couples[0], couples[1]


def _find(root: np.ndarray, index: int) -> int:
    while root[index] != index:
        root[index] = index = root[root[index]]
    return int(index)


def _jaccard(grams: np.ndarray, starts: Sequence[int], a: int, b: int) -> float:
    first, second = grams[starts[a] : starts[a + 1]], grams[starts[b] : starts[b + 1]]
    n_shared = len(np.intersect1d(first, second, assume_unique=True))
    return n_shared / (len(first) + len(second) - n_shared)
