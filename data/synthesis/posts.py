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
from data.quality.phrases import mask_personal
from data.synthesis.stages import Document, DocumentsPipeline, PipelineStep, kept, reject
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
            raise ValueError("the sources have no posts; check `sources`")

    def _document(self, post: Mapping[str, Any]) -> Document:
        sha256 = hashlib.sha256(post["text"].encode()).hexdigest()
        source = {"dataset": post["dataset"], "licence": post["licence"], "post_sha256": sha256, "date": post["date"]}
        text = mask_personal(post["text"], post["names"]).strip()
        document = Document(text=text, id=sha256[:16], metadata={"source": source})
        n, (least, most) = len(words(text)), self.n_words
        return document if least <= n <= most else reject(document, self.name, "post length", f"{n} words")


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
        if self.toxicity:  # not before: only posts that would be taken are scored, and their side is known
            clear = kept(documents)
            for document, reason in zip(clear, self.toxicity.reasons([document.text for document in clear])):
                if reason:
                    reject(document, self.name, "toxicity", reason)
        strata: dict[str, dict[str, list[Document]]] = defaultdict(lambda: defaultdict(list))
        for document in kept(documents):
            strata[document.metadata["topic"]][document.metadata["side"]].append(document)
        for topic, by_side in strata.items():
            n_left, n_right = len(by_side["left"]), len(by_side["right"])
            most = min(n_left, n_right, self.quota or n_left)
            for side in SIDES:
                clearest = sorted(by_side[side], key=lambda d: (-abs(d.metadata["lean"] - CENTRE), d.id))
                for document in clearest[most:]:
                    reject(document, self.name, "quota", f"{topic}: {n_left} left, {n_right} right, keep {most}")
        yield from documents

    def _scored(self, document: Document) -> Document:
        judges = document.metadata["judges"]
        plain, masked, relevance = (mean(j[key] for j in judges) for key in ("score", "masked_score", "relevance"))
        topic, side = judges[0]["topic"], side_of(plain)
        sides = [side_of(judge[key]) for judge in judges for key in ("score", "masked_score")]
        agreement = sides.count(side) / len(sides)
        document.metadata |= {
            "lean": plain, "side": side, "topic": topic, "axis": self.topics[topic], "agreement": agreement
        }  # fmt: skip
        if relevance < self.min_relevance:
            return reject(document, self.name, "relevance", f"{relevance:g} of 10")
        if abs(plain - CENTRE) < self.min_distance:
            return reject(document, self.name, "lean", f"{plain:g} on 0 to 20")
        if side_of(masked) != side:
            return reject(document, self.name, "side hangs on names", f"{plain:g}, with names masked {masked:g}")
        return document
