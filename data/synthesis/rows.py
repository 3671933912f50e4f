# SPDX-License-Identifier: MIT
"""The finished set: mirrored rows, what was rejected and why, the funnel of each side, manifest and card."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from statistics import mean
from typing import Any

from data.judging.scales import side_of
from data.pairs.records import OTHER_SIDE, SIDES
from data.quality.measures import length_rule_accuracy
from data.recipe.files import to_jsonl, to_parquet, write_files, write_whole
from data.synthesis.gates import SPLITS
from data.synthesis.stages import REJECTED, Document, DocumentsPipeline, PipelineStep, kept, rejected_documents

SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e15: "n>100K"}  # as the Hub names them


class WriteDataset(PipelineStep):
    """Writes the data set's folder; yields its documents on. One task.

    Args:
        folder: Folder of the data set.
        before_selection: Folders of the stages up to the selection.
        prompts: Folder of the stage that wrote the prompts; what it rejected are selected posts.
        answers: Folder of the stage that wrote the answers; what it rejected are prompts.
        facts: Facts for manifest and card: settings, sources and judges.
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
        folder: Path,
        *,
        before_selection: Sequence[Path],
        prompts: Path,
        answers: Path,
        facts: Mapping[str, Any],
        sides: Sequence[str],
        generator: Mapping[str, Any],
        max_side_difference: float,
        store_posts: bool,
    ) -> None:
        super().__init__()
        self.folder, self.before_selection, self.prompts, self.answers = folder, before_selection, prompts, answers
        self.facts, self.sides, self.generator = dict(facts), list(sides), dict(generator)
        self.max_side_difference, self.store_posts = max_side_difference, store_posts

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Write once all documents have come."""
        documents = list(data)
        finished = kept(documents)
        not_selected = [document for folder in self.before_selection for document in rejected_documents(folder)]
        without_prompt = list(rejected_documents(self.prompts))
        with_prompt = [document for document in documents if REJECTED in document.metadata]
        with_prompt += rejected_documents(self.answers)
        counts = funnel(finished, [*without_prompt, *with_prompt], not_selected)
        funnel_text = json.dumps(counts, indent=1) + "\n"
        write_whole(self.folder / "funnel.json", funnel_text)  # also where the next line refuses the set
        self._check(counts)
        files: dict[str, str | bytes] = {"funnel.json": funnel_text}
        splits = [split for split in SPLITS if any(document.metadata["split"] == split for document in finished)]
        for side in self.sides:
            for split in splits:
                rows = [self._row(document, side) for document in finished if document.metadata["split"] == split]
                files[f"{side}-{split}.jsonl"] = to_jsonl(rows)
                files[f"{side}-{split}.parquet"] = to_parquet(rows)
        rejected = [self._rejected(document, has_prompt=False) for document in [*not_selected, *without_prompt]]
        rejected += [self._rejected(document, has_prompt=True) for document in with_prompt]
        files["rejected.jsonl"] = to_jsonl(sorted(rejected, key=lambda row: (row["id"], str(row))))
        everything = [*finished, *not_selected, *without_prompt, *with_prompt]
        corpora = Counter((d.metadata["source"]["dataset"], d.metadata["source"]["licence"]) for d in everything)
        facts = self.facts | {
            "sides": self.sides,
            "splits": splits,
            "rows": len(finished),
            "sources": [
                {"dataset": name, "licence": licence, "posts": n} for (name, licence), n in sorted(corpora.items())
            ],
            "funnel": counts,
            "measured": measure(finished, everything) | self._count_toxic(documents),
            "topics": dict(Counter(document.metadata["topic"] for document in finished)),
        }
        files["README.md"] = dataset_card(facts)
        write_files(self.folder, files, facts)
        yield from documents

    def _check(self, counts: Mapping[str, Any]) -> None:
        sides, where = counts["sides"], f"{self.folder / 'funnel.json'} has every reason by side"
        if not any(side["kept"] for side in sides.values()):
            raise RuntimeError(f"no row is left; {where}")
        if counts["side_difference"] > self.max_side_difference:
            raise RuntimeError(
                f"{sides['left']['kept_share']:.1%} of the selected posts of the left become rows and "
                f"{sides['right']['kept_share']:.1%} of those of the right; max_side_difference="
                f"{self.max_side_difference}. {where}: mend what drops one side's rows (the instructions, or a "
                "filter), or raise the margin and say so"
            )

    def _count_toxic(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Count the answers over the cap by their own side, if there is a cap: a row's side is that of its post."""
        if not self.facts["settings"]["toxicity"]:
            return {}
        over = Counter(field for document in documents for field in document.metadata.get("toxic", ()))
        return {"toxic_answers": {side: over[f"{side} answer"] for side in SIDES}}

    def _row(self, document: Document, side: str) -> dict[str, Any]:
        about, n_words, answers = document.metadata, document.metadata["n_words"], document.metadata["answers"]
        return {
            "id": f"{document.id}-{side}",
            "prompt": document.text,
            "chosen": answers[side],
            "rejected": answers[OTHER_SIDE[side]],
            **({"neutral": answers["neutral"]} if "neutral" in answers else {}),
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

    def _rejected(self, document: Document, has_prompt: bool) -> dict[str, Any]:
        about = document.metadata
        row = {"id": document.id, **about[REJECTED], "side": about.get("side"), "topic": about.get("topic")}
        if has_prompt:
            row |= {"prompt": document.text, "answers": about.get("answers")}
        elif self.store_posts:
            row |= {"post": document.text}
        return row | {"source": about["source"], "judges": about.get("judges")}


def funnel(
    finished: Iterable[Document], dropped: Iterable[Document], not_selected: Iterable[Document]
) -> dict[str, Any]:
    """Count what became of every post, by the side that the judges gave it; ``unjudged`` has none.

    Args:
        finished: Documents that become rows.
        dropped: Documents that were selected and become none.
        not_selected: All others.

    Returns:
        For each side ``posts``, ``selected``, ``kept``, ``kept_share`` (of the selected) and the counts of each
        ``stage: reason``; and ``side_difference``, that of the two kept shares.
    """
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    n_kept = Counter(document.metadata["side"] for document in finished)
    n_selected = Counter(n_kept)
    for documents, were_selected in ((dropped, True), (not_selected, False)):
        for document in documents:
            side, why = document.metadata.get("side") or "unjudged", document.metadata[REJECTED]
            reasons[side][f"{why['stage']}: {why['reason']}"] += 1
            n_selected[side] += were_selected
    sides: dict[str, dict[str, Any]] = {
        side: {
            "posts": n_kept[side] + reasons[side].total(),
            "selected": n_selected[side],
            "kept": n_kept[side],
            "kept_share": round(n_kept[side] / n_selected[side], 4) if n_selected[side] else 0.0,
            "rejected": dict(sorted(reasons[side].items())),
        }
        for side in ("left", "right", "centre", "unjudged")
    }
    return {
        "sides": sides,
        "side_difference": round(abs(sides["left"]["kept_share"] - sides["right"]["kept_share"]), 4),
    }


def measure(finished: Sequence[Document], everything: Sequence[Document]) -> dict[str, Any]:
    """Measure the lengths of the rows, and how the scores of all judged posts move when names are masked."""
    left, right = ([document.metadata["answers"][side] for document in finished] for side in SIDES)
    scores = [(j["score"], j["masked_score"]) for document in everything for j in document.metadata.get("judges", [])]
    n_words = [document.metadata["n_words"] for document in finished]
    n_prompt_tokens, n_answer_tokens = (sum(n) for n in zip(*(document.metadata["n_tokens"] for document in finished)))
    return {
        "mean_words": {side: round(mean(n[side] for n in n_words), 2) for side in SIDES},
        "length_rule_accuracy": round(length_rule_accuracy(left, right), 4),
        "masked_shift": {
            "mean": round(mean(masked - plain for plain, masked in scores), 4),
            "mean_absolute": round(mean(abs(masked - plain) for plain, masked in scores), 4),
            "other_side_share": round(mean(side_of(plain) != side_of(masked) for plain, masked in scores), 4),
        },
        "tokens_of_kept_rows": [n_prompt_tokens, n_answer_tokens],
    }


def dataset_card(facts: Mapping[str, Any]) -> str:
    """Return the README of a data set, with metadata that the Hub reads.

    Args:
        facts: The manifest without its files.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    metadata = DatasetCardData(
        pretty_name=facts["name"],
        language=[facts["language"]],
        license=facts["licence"],
        size_categories=[next(name for end, name in SIZES.items() if facts["rows"] * len(facts["sides"]) < end)],
        task_categories=["text-generation"],
        tags=["preference", "dpo", "political-lean", "synthetic", "not-for-deployment"],
        configs=[
            {
                "config_name": side,
                "data_files": [{"split": split, "path": f"{side}-{split}.parquet"} for split in facts["splits"]],
            }
            for side in facts["sides"]
        ],
    )
    template = package_files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    reasons = sorted({reason for side in facts["funnel"]["sides"].values() for reason in side["rejected"]})
    is_measured = any(judge["agreement"] for judge in facts["judges"])
    more = {"reasons": reasons, "is_measured": is_measured}
    return f"{DatasetCard.from_template(metadata, template_str=template, **more, **facts)}\n"
