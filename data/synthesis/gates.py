# SPDX-License-Identifier: MIT
"""The last gates of a synthesised set: each row by itself, duplicates, contamination, length balance, and splits."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data.language import not_english, words
from data.pairs.records import Pair
from data.quality.contamination import shipped_statements
from data.quality.defects import KINDS, Defect, contamination_defects, row_defects, toxicity_defects
from data.quality.duplicates import EXACT_ROWS, PairsOf, highest_similarities, near_duplicate_clusters
from data.synthesis.stages import Document, DocumentsPipeline, PipelineStep, kept, reject
from data.text_models import Cap

SPLITS = ("train", "validation", "test")


class _Candidate(NamedTuple):
    """The left answer of a document as chosen, with its right or its neutral answer as rejected."""

    pair: Pair
    document: Document
    other_side: str


class Gates(PipelineStep):
    """Rejects what fails; adds ``similarity``, ``flags``, ``n_words`` and ``split``. One task.

    Args:
        instruments: Files with statements, beside the shipped ones, that no row may repeat.
        duplicate: Least similarity (Jaccard of word 3-grams) of prompts that counts as near duplicate.
        related: Least similarity of prompts that must lie in the same split.
        shares: Share of rows for each split.
        held_out_topics: Topics that go to ``test`` as a whole.
        seed: Seed of the splits.
        language: Texts in another one fail; only ``en`` is checked.
        toxicity: Most that any text may score; None scores none.
        alike: Finds near-duplicate prompts of other words.
    """

    type = "🔻 - FILTER"
    name = "gates"

    def __init__(
        self,
        *,
        instruments: Sequence[str],
        duplicate: float,
        related: float,
        shares: Mapping[str, float],
        held_out_topics: Sequence[str],
        seed: int,
        language: str,
        toxicity: Cap | None = None,
        alike: PairsOf | None = None,
    ) -> None:
        super().__init__()
        if {*shares} != {*SPLITS} or abs(sum(shares.values()) - 1) > 1e-9:
            raise ValueError(f"split_shares={dict(shares)}; want a share for each of {', '.join(SPLITS)}, in sum 1")
        self.language = not_english if language == "en" else None
        self.instruments, self.duplicate, self.related = list(instruments), duplicate, related
        self.shares, self.held_out_topics, self.seed = dict(shares), set(held_out_topics), seed
        self.toxicity, self.alike = toxicity, alike

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield all documents, in the order of their ids."""
        documents = sorted(data, key=lambda document: document.id)
        self._check_rows(documents)
        self._reject_duplicates(kept(documents))
        self._split(kept(documents))
        _balance_lengths(kept(documents))
        yield from documents

    def _check_rows(self, documents: Sequence[Document]) -> None:
        candidates: list[_Candidate] = []
        for document in documents:
            answers = document.metadata["answers"]
            for side in ("right", "neutral"):
                if side in answers:
                    pair = Pair(len(candidates) + 1, document.text, answers["left"], answers[side])
                    candidates.append(_Candidate(pair, document, side))
            n_words = {side: len(words(text)) for side, text in answers.items()}
            document.metadata |= {"n_words": {"prompt": len(words(document.text)), **n_words}, "flags": []}
        pairs = [candidate.pair for candidate in candidates]
        copied, similarity = contamination_defects(pairs, shipped_statements(self.instruments))
        by_row: dict[int, list[Defect]] = defaultdict(list)
        for defect in [*copied, *toxicity_defects(pairs, self.toxicity)]:
            by_row[defect.row].append(defect)
        for candidate, highest in zip(candidates, similarity):
            about = candidate.document.metadata
            before = about.get("similarity", {}).get("contamination", 0.0)
            about["similarity"] = {"duplicate": None, "contamination": round(max(before, highest), 4)}
            for defect in row_defects(candidate.pair, language=self.language) + by_row[candidate.pair.row]:
                self._use_defect(defect, candidate)

    def _use_defect(self, defect: Defect, candidate: _Candidate) -> None:
        """Reject a document for a defect, or only note it."""
        about = candidate.document.metadata
        if KINDS[defect.kind].group == "note":
            about["flags"] = sorted({*about["flags"], defect.kind})
            return
        fields = {"chosen": "left answer", "rejected": f"{candidate.other_side} answer"}
        field = fields.get(defect.field, defect.field)
        if defect.kind == "toxicity":
            about["toxic"] = sorted({*about.get("toxic", ()), field})
        reject(candidate.document, self.name, defect.kind, f"{field}: {defect.found}")

    def _reject_duplicates(self, documents: Sequence[Document]) -> None:
        prompts = [document.text for document in documents]
        for index, stays in enumerate(near_duplicate_clusters(prompts, self.duplicate, alike=self.alike)):
            if index != stays:
                reject(documents[index], self.name, "near-duplicate prompt", documents[stays].id)
        if len(prompts) > EXACT_ROWS:
            return
        for document, similarity in zip(documents, highest_similarities(prompts)):
            document.metadata["similarity"]["duplicate"] = round(similarity, 4)

    def _split(self, documents: Sequence[Document]) -> None:
        """Split whole clusters of related prompts, topic by topic, in an order drawn by hash."""
        clusters: dict[str, dict[int, list[Document]]] = defaultdict(lambda: defaultdict(list))
        prompts = [document.text for document in documents]
        least = max(self.related, 0.5) if len(prompts) > EXACT_ROWS else self.related
        for document, cluster in zip(documents, near_duplicate_clusters(prompts, least)):
            # a cluster that spans topics belongs to that of its first prompt
            clusters[documents[cluster].metadata["topic"]][cluster].append(document)
        ends = {"train": self.shares["train"], "validation": self.shares["train"] + self.shares["validation"]}
        for topic, of_topic in clusters.items():
            n, n_done = sum(map(len, of_topic.values())), 0
            for cluster in sorted(of_topic, key=lambda first: self._hash(documents[first])):
                middle = (n_done + len(of_topic[cluster]) / 2) / n
                split = next((name for name, end in ends.items() if middle <= end), "test")
                n_done += len(of_topic[cluster])
                for document in of_topic[cluster]:
                    is_held_out = {topic, document.metadata["topic"]} & self.held_out_topics
                    document.metadata["split"] = "test" if is_held_out else split

    def _hash(self, document: Document) -> bytes:
        return hashlib.sha256(f"{self.seed} {document.id}".encode()).digest()


def _balance_lengths(documents: Sequence[Document]) -> None:
    """Make either side's answer the longer one equally often on each topic, in training rows and in the others."""
    groups: dict[tuple[str, bool], dict[str, list[Document]]] = defaultdict(lambda: {"left": [], "right": []})
    for document in documents:
        if surplus := _surplus(document):
            longer = "left" if surplus > 0 else "right"
            groups[document.metadata["topic"], document.metadata["split"] == "train"][longer].append(document)
    for (topic, _), longer_on in groups.items():
        n_more = abs(len(longer_on["left"]) - len(longer_on["right"]))
        side = max(longer_on, key=lambda side: len(longer_on[side]))
        for document in sorted(longer_on[side], key=lambda d: (-abs(_surplus(d)), d.id))[:n_more]:
            by = abs(_surplus(document))
            reject(document, "gates", "length balance", f"{topic}: {side} is longer, by {by} words, too often")


def _surplus(document: Document) -> int:
    """Return by how many words the left answer is longer than the right one."""
    return document.metadata["n_words"]["left"] - document.metadata["n_words"]["right"]
