# SPDX-License-Identifier: MIT
"""The last gates of a synthesised set: each row by itself, duplicates, contamination, length balance, and splits."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from data.language import not_english, words
from data.pairs.records import Pair
from data.quality.contamination import shipped_statements
from data.quality.defects import KINDS, contamination_defects, row_defects, toxicity_defects
from data.quality.duplicates import EXACT_ROWS, PairsOf, highest_similarities, near_duplicate_clusters
from data.synthesis.blocks import Document, DocumentsPipeline, PipelineStep
from data.synthesis.stages import REJECTED, reject
from data.text_models import Cap

SPLITS = ("train", "validation", "test")


class Gates(PipelineStep):
    """Rejects what fails; adds ``similarity``, ``flags``, ``n_words`` and ``split``. One task.

    Args:
        instruments: Files with statements, beside the shipped ones, that no row may repeat.
        duplicate: Least similarity (Jaccard of word 3-grams) of prompts that counts as near duplicate.
        related: Least similarity of prompts that must lie in the same split.
        shares: Share of rows for each split.
        held_out_topics: Topics that go to ``test`` as a whole.
        seed: Of the splits.
        language: Texts in another one fail; only ``en`` can be told, for others this gate is off.
        toxicity: Most that any text may score; None scores none.
        alike: Finds near-duplicate prompts of other words.
    """

    type = "🔻 - FILTER"
    name = "gates"

    def __init__(
        self,
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
        self._rows(documents)
        self._duplicates(_kept(documents))
        self._split(_kept(documents))
        _balance_lengths(_kept(documents))
        yield from documents

    def _rows(self, documents: Sequence[Document]) -> None:
        pairs, owners = [], []
        for document in documents:
            answers = document.metadata["answers"]
            pair = Pair(len(pairs) + 1, document.text, answers["left"], answers["right"])
            neutral = answers.get("neutral")
            for one in [pair, *([pair._replace(row=pair.row + 1, rejected=neutral)] if neutral else [])]:
                pairs.append(one)
                owners.append(document)
            document.metadata["n_words"] = {"prompt": len(words(document.text))} | {
                side: len(words(text)) for side, text in answers.items()
            }
            document.metadata["flags"] = []
        copied, similarity = contamination_defects(pairs, shipped_statements(self.instruments))
        by_row: dict[int, list] = defaultdict(list)
        for defect in [*copied, *toxicity_defects(pairs, self.toxicity)]:
            by_row[defect.row].append(defect)
        for pair, document, highest in zip(pairs, owners, similarity):
            before = document.metadata.get("similarity", {}).get("contamination", 0.0)
            document.metadata["similarity"] = {"duplicate": None, "contamination": round(max(before, highest), 4)}
            for defect in row_defects(pair, language=self.language) + by_row[pair.row]:
                if KINDS[defect.kind].group == "note":
                    document.metadata["flags"] = sorted({*document.metadata["flags"], defect.kind})
                    continue
                # chosen is the left answer here, rejected the right one or, in a pair of its own, the neutral one
                other = "right" if pair.rejected == document.metadata["answers"]["right"] else "neutral"
                field = {"chosen": "left answer", "rejected": f"{other} answer"}.get(defect.field, defect.field)
                if defect.kind == "toxicity":
                    document.metadata["toxic"] = sorted({*document.metadata.get("toxic", ()), field})
                reject(document, self.name, defect.kind, f"{field}: {defect.found}")

    def _duplicates(self, documents: Sequence[Document]) -> None:
        prompts = [document.text for document in documents]
        for index, stays in enumerate(near_duplicate_clusters(prompts, self.duplicate, alike=self.alike)):
            if index != stays:
                reject(documents[index], self.name, "near-duplicate prompt", documents[stays].id)
        if len(prompts) > EXACT_ROWS:
            return
        for document, similarity in zip(documents, highest_similarities(prompts)):
            document.metadata["similarity"]["duplicate"] = round(similarity, 4)

    def _split(self, documents: Sequence[Document]) -> None:
        """Whole clusters of related prompts, topic by topic, in an order drawn by hash."""
        clusters: dict[str, dict[int, list[Document]]] = defaultdict(lambda: defaultdict(list))
        prompts = [document.text for document in documents]
        related = near_duplicate_clusters(
            prompts, max(self.related, 0.5) if len(prompts) > EXACT_ROWS else self.related
        )
        for document, cluster in zip(documents, related):
            # a cluster that spans topics belongs to that of its first prompt
            clusters[documents[cluster].metadata["topic"]][cluster].append(document)
        for topic, own in clusters.items():
            n, done = sum(map(len, own.values())), 0
            for cluster in sorted(
                own, key=lambda c: hashlib.sha256(f"{self.seed} {documents[c].id}".encode()).digest()
            ):
                share = (done + len(own[cluster]) / 2) / n
                split = SPLITS[
                    (share > self.shares["train"]) + (share > self.shares["train"] + self.shares["validation"])
                ]
                done += len(own[cluster])
                for document in own[cluster]:
                    held_out = topic in self.held_out_topics or document.metadata["topic"] in self.held_out_topics
                    document.metadata["split"] = "test" if held_out else split


def _kept(documents: Sequence[Document]) -> list[Document]:
    return [document for document in documents if REJECTED not in document.metadata]


def _balance_lengths(documents: Sequence[Document]) -> None:
    """Make either side's answer the longer one equally often on each topic, in training rows and in the others."""
    longer: dict[tuple[str, bool], tuple[list, list]] = defaultdict(lambda: ([], []))
    for document in documents:
        about = document.metadata
        difference = about["n_words"]["left"] - about["n_words"]["right"]
        if difference:
            longer[about["topic"], about["split"] == "train"][difference < 0].append((abs(difference), document))
    for (topic, _), sides in longer.items():
        n_surplus = abs(len(sides[0]) - len(sides[1]))
        side, more = max(zip(("left", "right"), sides), key=lambda item: len(item[1]))
        for difference, document in sorted(more, key=lambda item: (-item[0], item[1].id))[:n_surplus]:
            reject(document, "gates", "length balance", f"{topic}: {side} is longer, by {difference} words, too often")
