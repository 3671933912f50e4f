# SPDX-License-Identifier: MIT
"""The last gates of a synthesised set: each row by itself, duplicates, contamination, length balance, and splits."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from data.language import mostly_not_english, words
from data.pairs.records import Pair
from data.quality.contamination import shipped_statements
from data.quality.defects import KINDS, Checks, Defect, defects_by_row
from data.quality.duplicates import EXACT_ROWS, PairsOf, highest_similarities, near_duplicate_clusters
from data.synthesis.stages import Document, kept, reject
from data.text_models import Cap

SPLITS = ("train", "validation", "test")


class _Candidate(NamedTuple):
    """The left answer of a document as chosen, with its right or its neutral answer as rejected."""

    pair: Pair
    document: Document
    other_side: str


class GateSettings(NamedTuple):
    """Settings of the gates.

    Attributes:
        instruments: Files with statements, beside the shipped ones, that no row may repeat.
        duplicate: Least similarity (Jaccard of word 3-grams) of prompts that counts as near duplicate.
        related: Least similarity of prompts that must lie in the same split.
        split_shares: Share of rows for each split.
        held_out_topics: Topics that go to ``test`` as a whole.
        seed: Seed of the splits.
        language: Texts in another one fail; only ``en`` is checked.
        balance_lengths: Whether rows are dropped until neither side's answer is the longer one more often, by topic.
    """

    instruments: Sequence[str]
    duplicate: float
    related: float
    split_shares: Mapping[str, float]
    held_out_topics: Sequence[str]
    seed: int
    language: str
    balance_lengths: bool = True


def check_rows(
    documents: Iterable[Document], settings: GateSettings, toxicity: Cap | None = None, alike: PairsOf | None = None
) -> list[Document]:
    """Reject what fails, and split the rest; adds ``similarity``, ``flags``, ``n_words`` and ``split``.

    The text of a document is its prompt here. ``alike`` finds near-duplicate prompts of other words.
    """
    documents = sorted(documents, key=lambda document: document.id)
    _reject_defects(documents, settings, toxicity)
    _reject_duplicates(kept(documents), settings.duplicate, alike)
    _split(kept(documents), settings)
    if settings.balance_lengths:
        _balance_lengths(kept(documents))
    return documents


def _reject_defects(documents: Iterable[Document], settings: GateSettings, toxicity: Cap | None) -> None:
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
    language = mostly_not_english if settings.language == "en" else None
    checks = Checks(shipped_statements(settings.instruments), language=language, toxicity=toxicity, by_words=True)
    for candidate, defects, highest in zip(candidates, *defects_by_row(pairs, checks)):
        about = candidate.document.metadata
        before = about.get("similarity", {}).get("contamination", 0.0)
        about["similarity"] = {"duplicate": None, "contamination": round(max(before, highest), 4)}
        for defect in defects:
            _use_defect(defect, candidate)


def _use_defect(defect: Defect, candidate: _Candidate) -> None:
    """Reject a document for a defect, or only note it."""
    about = candidate.document.metadata
    if KINDS[defect.kind].group == "note":
        about["flags"] = sorted({*about["flags"], defect.kind})
        return
    fields = {"chosen": "left answer", "rejected": f"{candidate.other_side} answer"}
    field = fields.get(defect.field, defect.field)
    if defect.kind == "toxicity":
        about["toxic"] = sorted({*about.get("toxic", ()), field})
    reject(candidate.document, "gates", defect.kind, f"{field}: {defect.found}")


def _reject_duplicates(documents: Sequence[Document], threshold: float, alike: PairsOf | None) -> None:
    prompts = [document.text for document in documents]
    for index, stays in enumerate(near_duplicate_clusters(prompts, threshold, alike=alike)):
        if index != stays:
            reject(documents[index], "gates", "near-duplicate prompt", documents[stays].id)
    if len(prompts) <= EXACT_ROWS:
        for document, similarity in zip(documents, highest_similarities(prompts)):
            document.metadata["similarity"]["duplicate"] = round(similarity, 4)


def _split(documents: Sequence[Document], settings: GateSettings) -> None:
    """Split whole clusters of related prompts, topic by topic, in an order drawn by hash."""
    clusters: dict[str, dict[int, list[Document]]] = defaultdict(lambda: defaultdict(list))
    prompts = [document.text for document in documents]
    least = max(settings.related, 0.5) if len(prompts) > EXACT_ROWS else settings.related
    for document, cluster in zip(documents, near_duplicate_clusters(prompts, least)):
        # a cluster that spans topics belongs to that of its first prompt
        clusters[documents[cluster].metadata["topic"]][cluster].append(document)
    shares = settings.split_shares
    ends = {"train": shares["train"], "validation": shares["train"] + shares["validation"]}

    def drawn(cluster: int) -> bytes:
        return hashlib.sha256(f"{settings.seed} {documents[cluster].id}".encode()).digest()

    for topic, of_topic in clusters.items():
        n, n_done = sum(map(len, of_topic.values())), 0
        for cluster in sorted(of_topic, key=drawn):
            middle = (n_done + len(of_topic[cluster]) / 2) / n
            split = next((name for name, end in ends.items() if middle <= end), "test")
            n_done += len(of_topic[cluster])
            for document in of_topic[cluster]:
                is_held_out = {topic, document.metadata["topic"]} & {*settings.held_out_topics}
                document.metadata["split"] = "test" if is_held_out else split


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
