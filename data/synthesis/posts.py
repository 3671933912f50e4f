# SPDX-License-Identifier: MIT
"""Posts on their way in: read, cleared of personal data, told apart, and chosen by what judges said of them.

A source is any builder that yields ``text, dataset, licence, date, names``, such as those of :mod:`data.corpora`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from data.judging.scales import CENTRE, side_of
from data.language import words
from data.quality.duplicates import PairsOf, near_duplicate_clusters
from data.quality.phrases import mask_personal
from data.synthesis.blocks import Document, DocumentsPipeline, PipelineStep
from data.synthesis.stages import REJECTED, reject
from data.text_models import Cap

Source = Callable[[], Iterable[Mapping[str, Any]]]


class PostReader(PipelineStep):
    """Read the posts of all sources, every n-th of them by one of n tasks, with personal data masked.

    Adds ``source`` (dataset, licence, SHA-256 of the post as it was, date). Rejects posts outside ``n_words``.
    """

    type = "📖 - READER"
    name = "posts"

    def __init__(self, sources: Sequence[Source], n_words: tuple[int, int]) -> None:
        super().__init__()
        self.sources, self.n_words = list(sources), tuple(n_words)

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield this task's posts.

        Raises:
            ValueError: If there is no post at all.
        """
        number = -1
        for source in self.sources:
            for post in source():
                number += 1
                if number % world_size == rank:
                    yield self._document(post)
        if number < 0:
            raise ValueError("the sources have no posts; check `sources`")

    def _document(self, post: Mapping[str, Any]) -> Document:
        sha256 = hashlib.sha256(post["text"].encode()).hexdigest()
        source = {"dataset": post["dataset"], "licence": post["licence"], "post_sha256": sha256, "date": post["date"]}
        text = mask_personal(post["text"], post["names"]).strip()
        document = Document(text=text, id=sha256[:16], metadata={"source": source})
        n, (least, most) = len(words(text)), self.n_words
        return document if least <= n <= most else reject(document, "posts", "post length", f"{n} words")


class Distinct(PipelineStep):
    """Reject all but one of posts that are the same or nearly; the one with the lowest hash stays. One task."""

    type = "🫂 - DEDUP"
    name = "near duplicates"

    def __init__(self, threshold: float, alike: PairsOf | None = None) -> None:
        super().__init__()
        self.threshold, self.alike = threshold, alike

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield all documents, in the order of their ids."""
        documents = sorted(data, key=lambda document: (document.id, document.text))
        first = near_duplicate_clusters([document.text for document in documents], self.threshold, alike=self.alike)
        for index, (document, stays) in enumerate(zip(documents, first)):
            yield document if stays == index else reject(document, "posts", "near duplicate", documents[stays].id)


class Selection(PipelineStep):
    """Choose posts by the judges' scores; adds ``lean``, ``agreement``, ``topic``, ``axis`` and ``side``. One task.

    Args:
        topics: Topic to axis.
        min_relevance: Least mean relevance, 0 to 10.
        min_distance: Least distance of the mean lean from the centre, 0 to 10.
        quota: Most posts of a topic and side. On each topic both sides get the same number.
        toxicity: Most that a post may score, whatever its side; None scores none.
    """

    type = "🔻 - FILTER"
    name = "selection"

    def __init__(
        self,
        topics: Mapping[str, str],
        min_relevance: float,
        min_distance: float,
        quota: int | None,
        toxicity: Cap | None = None,
    ) -> None:
        super().__init__()
        self.topics, self.quota, self.toxicity = dict(topics), quota, toxicity
        self.min_relevance, self.min_distance = min_relevance, min_distance

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield all documents, in the order of their ids."""
        documents = [self._scored(document) for document in sorted(data, key=lambda document: document.id)]
        if self.toxicity:  # not before: only what would be taken is scored, and its side is known
            clear = [document for document in documents if REJECTED not in document.metadata]
            for document, reason in zip(clear, self.toxicity.reasons([document.text for document in clear])):
                if reason:
                    reject(document, "selection", "toxicity", reason)
        strata: dict[tuple[str, str], list[Document]] = defaultdict(list)
        for document in documents:
            if REJECTED not in document.metadata:
                strata[document.metadata["topic"], document.metadata["side"]].append(document)
        for topic in sorted({topic for topic, _ in strata}):
            sizes = [len(strata[topic, side]) for side in ("left", "right")]
            most = min(*sizes, self.quota or max(sizes))
            for side in ("left", "right"):
                ranked = sorted(strata[topic, side], key=lambda d: (-abs(d.metadata["lean"] - CENTRE), d.id))
                for document in ranked[most:]:
                    reject(document, "selection", "quota", f"{topic}: {sizes[0]} left, {sizes[1]} right, keep {most}")
        yield from documents

    def _scored(self, document: Document) -> Document:
        judges = document.metadata["judges"]
        plain, masked = (mean(judge[key] for judge in judges) for key in ("score", "masked_score"))
        relevance = mean(judge["relevance"] for judge in judges)
        topic = judges[0]["topic"]
        side = side_of(plain)
        sides = [side_of(judge[key]) for judge in judges for key in ("score", "masked_score")]
        document.metadata |= {"lean": plain, "side": side, "topic": topic, "axis": self.topics[topic]}
        document.metadata["agreement"] = sides.count(side) / len(sides)
        if relevance < self.min_relevance:
            return reject(document, "selection", "relevance", f"{relevance:g} of 10")
        if abs(plain - CENTRE) < self.min_distance:
            return reject(document, "selection", "lean", f"{plain:g} on 0 to 20")
        if side_of(masked) != side:
            return reject(document, "selection", "side hangs on names", f"{plain:g}, with names masked {masked:g}")
        return document
