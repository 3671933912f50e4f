# SPDX-License-Identifier: MIT
"""Near duplicates: texts of which half of the word 3-grams, or more, are the same.

All comparisons are exact, by :mod:`data.quality.prefix_filter`, as long as one machine holds the texts (a million posts
take a minute or two and 2 to 3 GB). For more there are datatrove's MinHash blocks, which work from disk and on many
machines: they find candidates, which are then compared exactly, so a pair may be missed (about one in 200 at a
similarity of .5) but none is wrongly joined.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from data.language import words
from data.quality.measures import clusters, jaccard, shingles
from data.quality.prefix_filter import similar_clusters

EXACT_ROWS = 20_000  # up to so many, all similar pairs can be listed with their similarity
# A pair of similarity s is a candidate with probability 1 - (1 - s^3)^40: .995 at .5, .27 at .2, .04 at .1.
N_BUCKETS, HASHES_PER_BUCKET = 40, 3

PairsOf = Callable[[Sequence[str]], Iterable[tuple[int, int]]]  # from texts to the indices of those that are alike


def near_duplicate_clusters(
    texts: Sequence[str], threshold: float = 0.5, minhash: bool = False, alike: PairsOf | None = None
) -> list[int]:
    """Give each text the lowest index among its near duplicates, its own if it has none.

    Args:
        texts: Prompts or posts.
        threshold: Least Jaccard similarity of word 3-grams, above 0. MinHash is laid out for .5 and above.
        minhash: Find the candidates with datatrove's MinHash.
        alike: Finds further near duplicates, such as :class:`data.text_models.Alike`: texts of other words that mean
            the same.

    Raises:
        ImportError: If MinHash is asked for and datatrove is not installed.
        ValueError: If the threshold is not above 0, or under .5 with MinHash.
    """
    if not 0 < threshold <= 1 or (minhash and threshold < 0.5):
        raise ValueError(f"threshold={threshold}; use a number up to 1 and above 0 (with MinHash from .5)")
    if not minhash:
        found = similar_clusters(texts, threshold)
        return clusters([*enumerate(found), *alike(texts)], len(texts)) if alike else found
    first: dict[str, int] = {}
    same = [(first.setdefault(" ".join(words(text)).lower(), index), index) for index, text in enumerate(texts)]
    distinct = sorted(first.values())
    near = ((distinct[i], distinct[j]) for i, j in _candidates([texts[index] for index in distinct]))
    similar = ((i, j) for i, j in near if jaccard(shingles(texts[i], 3), shingles(texts[j], 3)) >= threshold)
    return clusters([*same, *similar, *(alike(texts) if alike else ())], len(texts))


def minhash_blocks() -> tuple:
    """Return datatrove's MinHash config and word splitter for the blocks of a pipeline.

    The splitter is that of all our gates; datatrove's own for English needs spaCy.

    Raises:
        ImportError: If datatrove is not installed.
    """
    try:
        from datatrove.pipeline.dedup.minhash import MinhashConfig
        from datatrove.utils.hashing import HashConfig
        from datatrove.utils.word_tokenizers import WordTokenizer
    except ImportError as error:
        raise ImportError('MinHash needs datatrove: pip install -c constraints.txt -e ".[synthesis]"') from error

    class Words(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return words(text)

        def sent_tokenize(self, text: str) -> list[str]:
            raise NotImplementedError("only words are needed here")

        span_tokenize = sent_tokenize

    config = MinhashConfig(
        n_grams=3,
        num_buckets=N_BUCKETS,
        hashes_per_bucket=HASHES_PER_BUCKET,
        hash_config=HashConfig(precision=64, hash_fc="sha1"),  # datatrove 0.10.1 cannot use our xxhash 4
    )
    return config, Words()


def _candidates(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield each pair that shares a bucket, once."""
    config, splitter = minhash_blocks()
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupSignature
    from datatrove.utils.binaryio import read_tuples_from_file
    from loguru import logger

    logger.disable("datatrove")  # two lines a bucket
    with tempfile.TemporaryDirectory(prefix="minhash-") as folder:
        signatures, found = (str(Path(folder) / name) for name in ("signatures", "found"))
        documents = (Document(text=text, id=str(index)) for index, text in enumerate(texts))
        MinhashDedupSignature(signatures, config=config, language=splitter).run(documents)
        step = MinhashDedupBuckets(signatures, found, config=config)
        for rank in range(N_BUCKETS):
            step.run(rank=rank, world_size=N_BUCKETS)
        seen = set()
        for path in sorted(Path(found).glob("*.dups")):
            with path.open("rb") as file:
                for _, i, _, j in read_tuples_from_file(file, "4I"):
                    if (i, j) not in seen:
                        seen.add((i, j))
                        yield min(i, j), max(i, j)
