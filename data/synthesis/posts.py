# SPDX-License-Identifier: MIT
"""Posts on their way in: read, cleared of personal data and of near duplicates, chosen by the judges' scores.

A source is any builder that yields ``text, dataset, licence, date, names``, such as those of :mod:`data.corpora`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from data.judging.scales import CENTRE, side_of
from data.language import words
from data.pairs.records import SIDES
from data.quality.duplicates import PairsOf, near_duplicate_clusters
from data.quality.personal import mask_personal
from data.synthesis.stages import Document, DocumentsPipeline, PipelineStep, kept, reject
from data.text_models import Cap

NO_POSTS = "the sources have no posts; check `sources`"

Source = Callable[[], Iterable[Mapping[str, Any]]]


class PostReader(PipelineStep):
    """Read the posts of all sources, every n-th of them by one of n tasks, with personal data masked.

    Adds ``source`` (dataset, licence, SHA-256 of the post as it was, date). Rejects posts outside ``n_words``.
    """

    type = "📖 - READER"
    name = "posts"

    def __init__(self, sources: Sequence[Source], n_words: tuple[int, int]) -> None:
        super().__init__()
        self.sources, self.n_words = list(sources), n_words

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield this task's posts.

        Raises:
            ValueError: If there is no post at all.
        """
        number = -1
        for number, post in enumerate(post for source in self.sources for post in source()):
            if number % world_size == rank:
                yield self._document(post)
        if number < 0:
            raise ValueError(NO_POSTS)

    def _document(self, post: Mapping[str, Any]) -> Document:
        sha256 = hashlib.sha256(post["text"].encode()).hexdigest()
        source = {"dataset": post["dataset"], "licence": post["licence"], "post_sha256": sha256, "date": post["date"]}
        text = mask_personal(post["text"], post["names"]).strip()
        document = Document(text=text, id=sha256[:16], metadata={"source": source})
        n, (least, most) = len(words(text)), self.n_words
        return document if least <= n <= most else reject(document, self.name, "post length", f"{n} words")


def distinct_posts(documents: Iterable[Document], threshold: float, alike: PairsOf | None = None) -> list[Document]:
    """Reject all but one of posts that are the same or nearly; the one with the lowest hash stays."""
    documents = sorted(documents, key=lambda document: (document.id, document.text))
    clusters = near_duplicate_clusters([document.text for document in documents], threshold, alike=alike)
    for index, (document, stays) in enumerate(zip(documents, clusters)):
        if stays != index:
            reject(document, "posts", "near duplicate", documents[stays].id)
    return documents


def select_posts(
    documents: Iterable[Document],
    topics: Mapping[str, str],
    *,
    min_relevance: float,
    min_distance: float,
    quota: int | None,
    toxicity: Cap | None = None,
) -> list[Document]:
    """Choose posts by the judges' scores; adds ``lean``, ``agreement``, ``topic``, ``axis`` and ``side``.

    Args:
        documents: All judged posts.
        topics: Topic to axis.
        min_relevance: Least mean relevance, 0 to 10.
        min_distance: Least distance of the mean lean from the centre, 0 to 10.
        quota: Most posts of a topic and side. On each topic both sides get the same number.
        toxicity: Most that a post may score, whatever its side; None scores none.
    """
    documents = sorted(documents, key=lambda document: document.id)
    for document in documents:
        judges = document.metadata["judges"]
        plain, masked, relevance = (mean(j[key] for j in judges) for key in ("score", "masked_score", "relevance"))
        topic, side = judges[0]["topic"], side_of(plain)
        document.metadata |= {"lean": plain, "side": side, "topic": topic, "axis": topics[topic]}
        sides = [side_of(judge[key]) for judge in judges for key in ("score", "masked_score")]
        document.metadata["agreement"] = sides.count(side) / len(sides)
        if relevance < min_relevance:
            reject(document, "selection", "relevance", f"{relevance:g} of 10")
        elif abs(plain - CENTRE) < min_distance:
            reject(document, "selection", "lean", f"{plain:g} on 0 to 20")
        elif side_of(masked) != side:
            reject(document, "selection", "side hangs on names", f"{plain:g}, with names masked {masked:g}")
    if toxicity:  # not before: only posts that would be taken are scored, and their side is known
        clear = kept(documents)
        for document, reason in zip(clear, toxicity.reasons([document.text for document in clear])):
            if reason:
                reject(document, "selection", "toxicity", reason)
    _fill_quota(kept(documents), quota)
    return documents


def _fill_quota(documents: Iterable[Document], quota: int | None) -> None:
    strata: dict[str, dict[str, list[Document]]] = defaultdict(lambda: defaultdict(list))
    for document in documents:
        strata[document.metadata["topic"]][document.metadata["side"]].append(document)
    for topic, by_side in strata.items():
        n_left, n_right = len(by_side["left"]), len(by_side["right"])
        most = min(n_left, n_right, quota or n_left)
        for side in SIDES:
            clearest = sorted(by_side[side], key=lambda d: (-abs(d.metadata["lean"] - CENTRE), d.id))
            for document in clearest[most:]:
                reject(document, "selection", "quota", f"{topic}: {n_left} left, {n_right} right, keep {most}")
