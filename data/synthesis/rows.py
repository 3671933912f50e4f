# SPDX-License-Identifier: MIT
"""The finished set: mirrored rows, what was rejected and why, the funnel of each side, manifest and card."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from data.judging.scales import side_of
from data.pairs.records import OTHER_SIDE, SIDES
from data.quality.measures import length_rule_accuracy
from data.recipe.files import to_jsonl, to_parquet, write_files, write_whole
from data.synthesis.blocks import Document, DocumentsPipeline, PipelineStep
from data.synthesis.card import dataset_card
from data.synthesis.gates import SPLITS
from data.synthesis.stages import REJECTED, read_documents

AFTER_SELECTION = ("prompts", "answers", "gates")


class WriteDataset(PipelineStep):
    """Writes the data set's folder; yields its documents on. One task.

    Args:
        folder: Of the data set.
        stages: Folders of the stages before, for what they rejected.
        facts: What manifest and card say of settings, sources and judges.
        sides: ``left`` and ``right``, or one of them with a reason in ``facts``.
        generator: ``params``, ``prompt_sha256`` and ``seed`` of the generator, for the rows.
        max_side_difference: Most by which the shares of selected posts that become rows may differ by side.
        store_posts: Whether a rejected post is kept with its text.

    Raises:
        RuntimeError: If the sides differ by more, or no row is left.
    """

    type = "💽 - WRITER"
    name = "data set"

    def __init__(
        self,
        folder: str,
        stages: Sequence[str],
        facts: Mapping[str, Any],
        sides: Sequence[str],
        generator: Mapping[str, Any],
        max_side_difference: float,
        store_posts: bool,
    ) -> None:
        super().__init__()
        self.folder, self.stages, self.facts, self.sides = folder, list(stages), dict(facts), tuple(sides)
        self.generator, self.max_side_difference, self.store_posts = dict(generator), max_side_difference, store_posts

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Write once all documents have come."""
        documents = list(data)
        kept = [document for document in documents if REJECTED not in document.metadata]
        rejected = [document for document in documents if REJECTED in document.metadata]
        for stage in self.stages:
            rejected += read_documents(sorted((Path(stage) / REJECTED).glob("*.jsonl")))
        found = funnel(kept, rejected)
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=1) + "\n"
        write_whole(Path(self.folder) / "funnel.json", text.encode())  # also where the next line refuses the set
        self._check(found, kept)
        rows = {side: [self._row(document, side) for document in kept] for side in self.sides}
        files: dict[str, str | bytes] = {"funnel.json": text}
        splits = [split for split in SPLITS if any(d.metadata["split"] == split for d in kept)]
        for side in self.sides:
            for split in splits:
                part = [row for row in rows[side] if row["split"] == split]
                files[f"{side}-{split}.jsonl"] = to_jsonl(part)
                files[f"{side}-{split}.parquet"] = to_parquet(part)
        files["rejected.jsonl"] = to_jsonl(sorted(map(self._rejected, rejected), key=lambda row: (row["id"], str(row))))
        facts = {**self.facts, "sides": list(self.sides), "splits": splits, "rows": len(kept)}
        read = (document.metadata["source"] for document in [*kept, *rejected])
        posts = Counter((source["dataset"], source["licence"]) for source in read)
        facts |= {
            "sources": [
                {"dataset": name, "licence": licence, "posts": n} for (name, licence), n in sorted(posts.items())
            ],
            "funnel": found,
            "measured": measure(kept, [*kept, *rejected]) | self._toxic(documents),
            "topics": dict(Counter(d.metadata["topic"] for d in kept)),
        }
        files["README.md"] = dataset_card(facts)
        write_files(Path(self.folder), files, facts)
        yield from documents

    def _check(self, found: Mapping[str, Any], kept: Sequence[Document]) -> None:
        where = f"{Path(self.folder) / 'funnel.json'} has every reason by side"
        if not kept:
            raise RuntimeError(f"no row is left; {where}")
        if found["side_difference"] > self.max_side_difference:
            shares = {side: found["sides"][side]["kept_share"] for side in SIDES}
            raise RuntimeError(
                f"{shares['left']:.1%} of the selected posts of the left become rows and {shares['right']:.1%} of "
                f"those of the right; max_side_difference={self.max_side_difference}. {where}: mend what drops one "
                "side's rows (the instructions, or a filter), or raise the margin and say so"
            )

    def _toxic(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Count the answers over the cap by their own side, if there is a cap: a row's side is that of its post."""
        if not self.facts["settings"]["toxicity"]:
            return {}
        over = Counter(field for document in documents for field in document.metadata.get("toxic", ()))
        return {"toxic_answers": {side: over[f"{side} answer"] for side in SIDES}}

    def _row(self, document: Document, side: str) -> dict[str, Any]:
        about, n_words = document.metadata, document.metadata["n_words"]
        neutral = {"neutral": about["answers"]["neutral"]} if "neutral" in about["answers"] else {}
        return {
            "id": f"{document.id}-{side}",
            "prompt": document.text,
            "chosen": about["answers"][side],
            "rejected": about["answers"][OTHER_SIDE[side]],
            **neutral,
            "side": side,
            "axis": about["axis"],
            "topic": about["topic"],
            "mirror_id": f"{document.id}-{OTHER_SIDE[side]}",
            "source": {**about["source"], "side": about["side"], "agreement": round(about["agreement"], 4)},
            "judges": about["judges"],
            "generator": {**about["generator"], **self.generator},
            "n_words": {"prompt": n_words["prompt"], "chosen": n_words[side], "rejected": n_words[OTHER_SIDE[side]]},
            "similarity": about["similarity"],
            "flags": about["flags"],
            "review": {"status": "unreviewed", "reviewer": None, "time": None, "note": None},
            "split": about["split"],
            "version": self.facts["version"],
        }

    def _rejected(self, document: Document) -> dict[str, Any]:
        about = document.metadata
        row = {"id": document.id, **about[REJECTED], "side": about.get("side"), "topic": about.get("topic")}
        if about[REJECTED]["stage"] in AFTER_SELECTION[1:]:
            row |= {"prompt": document.text, "answers": about.get("answers")}
        elif self.store_posts:
            row |= {"post": document.text}
        return row | {"source": about["source"], "judges": about.get("judges")}


def funnel(kept: Iterable[Document], rejected: Iterable[Document]) -> dict[str, Any]:
    """Count what became of every post, by the side that the judges gave it; ``unjudged`` has none.

    Returns:
        For each side ``posts``, ``selected``, ``kept``, ``kept_share`` (of the selected) and the counts of each
        ``stage: reason``; and ``side_difference``, that of the two kept shares.
    """
    reasons: dict[str, Counter] = defaultdict(Counter)
    n_kept, n_lost = Counter(document.metadata["side"] for document in kept), Counter()
    for document in rejected:
        side, why = document.metadata.get("side") or "unjudged", document.metadata[REJECTED]
        reasons[side][f"{why['stage']}: {why['reason']}"] += 1
        n_lost[side] += why["stage"] in AFTER_SELECTION
    sides = {}
    for side in ("left", "right", "centre", "unjudged"):
        n_selected = n_kept[side] + n_lost[side]
        sides[side] = {
            "posts": n_kept[side] + reasons[side].total(),
            "selected": n_selected,
            "kept": n_kept[side],
            "kept_share": round(n_kept[side] / n_selected, 4) if n_selected else 0.0,
            "rejected": dict(sorted(reasons[side].items())),
        }
    return {
        "sides": sides,
        "side_difference": round(abs(sides["left"]["kept_share"] - sides["right"]["kept_share"]), 4),
    }


def measure(kept: Sequence[Document], read: Sequence[Document]) -> dict[str, Any]:
    """Say what the kept rows measure in length, and how the scores of all judged posts move when names are masked."""
    answers = [document.metadata["answers"] for document in kept]
    moved = [(j["score"], j["masked_score"]) for document in read for j in document.metadata.get("judges", [])]
    left, right = ([a[side] for a in answers] for side in ("left", "right"))
    return {
        "mean_words": {side: round(mean(d.metadata["n_words"][side] for d in kept), 2) for side in ("left", "right")},
        "length_rule_accuracy": round(length_rule_accuracy(left, right), 4),
        "masked_shift": {
            "mean": round(mean(masked - plain for plain, masked in moved), 4),
            "mean_absolute": round(mean(abs(masked - plain) for plain, masked in moved), 4),
            "other_side_share": round(mean(side_of(plain) != side_of(masked) for plain, masked in moved), 4),
        },
        "tokens_of_kept_rows": [sum(d.metadata["n_tokens"][part] for d in kept) for part in (0, 1)],
    }
