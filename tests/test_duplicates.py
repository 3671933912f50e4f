# SPDX-License-Identifier: MIT
"""The exact search for near duplicates, against a comparison of all pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.seeded_defects import seeded_rows
from data.quality import duplicates


def compared(texts, threshold):
    """Compare each text with each other one; return clusters and highest similarities."""
    grams = [duplicates.shingles(text, 3) for text in texts]
    clusters, highest = list(range(len(texts))), [0.0] * len(texts)
    for j, own in enumerate(grams):
        for i, other in enumerate(grams[:j]):
            similarity = len(own & other) / len(own | other)
            highest[i], highest[j] = max(highest[i], similarity), max(highest[j], similarity)
            if similarity >= threshold:
                low, high = sorted((clusters[i], clusters[j]))
                clusters = [low if cluster == high else cluster for cluster in clusters]
    return clusters, highest


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8).map(" ".join), max_size=14),
    st.sampled_from([0.1, 0.3, 0.5, 0.75, 1.0]),
)
def test_the_prefix_filter_misses_nothing(texts, threshold):
    clusters, highest = compared(texts, threshold)
    assert duplicates.near_duplicate_clusters(texts, threshold) == clusters
    assert duplicates.highest_similarities(texts) == highest


def test_near_duplicates_in_batches(monkeypatch):
    texts = [text for row in seeded_rows(80, share=0.3).rows for text in row.values()]
    clusters, highest = compared(texts, 0.5)
    assert len(set(clusters)) < len(clusters)
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    monkeypatch.setattr(duplicates, "_ROWS", 50)
    assert duplicates.near_duplicate_clusters(texts) == clusters
    assert duplicates.highest_similarities(texts) == [x if x >= 0.01 else 0 for x in highest]


def test_near_duplicates_by_hand():
    # 3-grams: {abc, bcd, cde} and {abc, bcd, cdx} share 2 of 4
    texts = ["a b c d e", "A b, c d x!", "x y z"]
    assert duplicates.near_duplicate_clusters(texts) == [0, 0, 2]
    assert duplicates.near_duplicate_clusters(texts, threshold=0.51) == [0, 1, 2]
    assert duplicates.highest_similarities(texts) == [0.5, 0.5, 0]
    assert duplicates.near_duplicate_clusters(["yes please", "Yes, please."], threshold=1) == [0, 0]
    # further pairs join whole clusters, under their lowest index
    pairs = lambda texts: [(1, 3), (3, 4), (0, 2)]  # noqa: E731
    assert duplicates.near_duplicate_clusters([f"a{n}" for n in range(6)], alike=pairs) == [0, 1, 0, 1, 1, 5]


@pytest.mark.parametrize("threshold", [0, 1.1])
def test_thresholds_that_cannot_work_are_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold={threshold}; use a number up to 1"):
        duplicates.near_duplicate_clusters(["a", "b"], threshold)
