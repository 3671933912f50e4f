# SPDX-License-Identifier: MIT
"""The finished set: mirrored rows, what was rejected and why, the funnel of each side, manifest and card."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from statistics import mean
from typing import Any

from data.judging.scales import side_of
from data.pairs.records import OTHER_SIDE, SIDES
from data.quality.measures import length_rule_accuracy
from data.recipe.files import to_jsonl, to_parquet, write_files, write_json
from data.synthesis.gates import SPLITS
from data.synthesis.stages import REJECTED, Document, kept, rejected_documents

SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e15: "n>100K"}  # as the Hub names them


def write_dataset(
    documents: Sequence[Document], folder: Path, before: Sequence[Path], facts: Mapping[str, Any], sides: Sequence[str]
) -> Sequence[Document]:
    """Write the data set's folder; return its documents.

    Args:
        documents: Prompts with answers that have come through the gates, or were rejected there.
        folder: Folder of the data set.
        before: Folders of the stages before. The last two wrote the prompts and the answers, so they rejected posts
            that were selected; those of the very last have a prompt.
        facts: Facts for manifest and card: settings, sources, judges, generator.
        sides: ``left`` and ``right``, or one of them with a reason in ``facts``.

    Raises:
        RuntimeError: If more of one side's selected posts become rows than ``max_side_difference`` lets, or no row is
            left.
    """
    finished = kept(documents)
    *unselected_folders, prompts_folder, answers_folder = before
    not_selected = [document for stage in unselected_folders for document in rejected_documents(stage)]
    without_prompt = list(rejected_documents(prompts_folder))
    with_prompt = [document for document in documents if REJECTED in document.metadata]
    with_prompt += rejected_documents(answers_folder)
    everything = [*finished, *not_selected, *without_prompt, *with_prompt]
    counts = funnel(finished, [*without_prompt, *with_prompt], not_selected)
    write_json(folder / "funnel.json", counts)  # also where the next line refuses the set
    _check_sides(counts, facts["settings"]["max_side_difference"], folder / "funnel.json")
    files: dict[str, str | bytes] = {"funnel.json": (folder / "funnel.json").read_bytes()}
    splits = [split for split in SPLITS if any(document.metadata["split"] == split for document in finished)]
    for side in sides:
        for split in splits:
            rows = [_row(document, side, facts) for document in finished if document.metadata["split"] == split]
            files[f"{side}-{split}.jsonl"] = to_jsonl(rows)
            files[f"{side}-{split}.parquet"] = to_parquet(rows)
    text_field = "post" if facts["store_posts"] else None
    rejected = [_rejected_row(document, text_field) for document in [*not_selected, *without_prompt]]
    rejected += [_rejected_row(document, "prompt") for document in with_prompt]
    files["rejected.jsonl"] = to_jsonl(sorted(rejected, key=lambda row: (row["id"], str(row))))
    corpora = Counter((d.metadata["source"]["dataset"], d.metadata["source"]["licence"]) for d in everything)
    measured = measure(finished, everything)
    if facts["settings"]["toxicity"]:  # by the answers' own side: a row's side is that of its post
        toxic = Counter(field for document in documents for field in document.metadata.get("toxic", ()))
        measured["toxic_answers"] = {side: toxic[f"{side} answer"] for side in SIDES}
    facts = {
        **facts,
        "sides": list(sides),
        "splits": splits,
        "rows": len(finished),
        "sources": [
            {"dataset": name, "licence": licence, "posts": n} for (name, licence), n in sorted(corpora.items())
        ],
        "funnel": counts,
        "measured": measured,
        "topics": dict(Counter(document.metadata["topic"] for document in finished)),
    }
    files["README.md"] = dataset_card(facts)
    write_files(folder, files, facts)
    return documents


def _check_sides(counts: Mapping[str, Any], max_side_difference: float | None, path: Path) -> None:
    sides = counts["sides"]
    if not any(side["kept"] for side in sides.values()):
        reasons: Counter[str] = Counter()
        for side in sides.values():
            reasons.update({why: n for why, n in side["rejected"].items() if why.partition(":")[0] == "gates"})
        last = ", ".join(f"{why} ({n})" for why, n in reasons.most_common(5)) or "none, no post came so far"
        raise RuntimeError(
            f"no row is left; {path} has every reason by side. At the last gates: {last}. What was answered is kept: "
            "change duplicate, language, toxicity, max_toxicity, instruments or balance_lengths, or add posts, and "
            "start again with the same output_dir: the gates alone are passed anew, and no call that has its answer "
            "is asked again"
        )
    if max_side_difference is not None and counts["side_difference"] > max_side_difference:
        raise RuntimeError(
            f"{sides['left']['kept_share']:.1%} of the selected posts of the left become rows and "
            f"{sides['right']['kept_share']:.1%} of those of the right; max_side_difference={max_side_difference}. "
            f"{path} has every reason by side: mend what drops one side's rows (the instructions, or a filter), or "
            "raise the margin and say so. What was answered is kept, and no call that has its answer is asked again"
        )


def _row(document: Document, side: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    about, other = document.metadata, OTHER_SIDE[side]
    answers, n_words, generator = about["answers"], about["n_words"], facts["generator"]
    return {
        "id": f"{document.id}-{side}",
        "prompt": document.text,
        "chosen": answers[side],
        "rejected": answers[other],
        **({"neutral": answers["neutral"]} if "neutral" in answers else {}),
        "side": side,
        "axis": about["axis"],
        "topic": about["topic"],
        "mirror_id": f"{document.id}-{other}",
        "source": {**about["source"], "side": about["side"], "agreement": round(about["agreement"], 4)},
        "judges": about["judges"],
        "generator": {
            **about["generator"],
            "params": generator["params"] or {},
            "prompt_sha256": generator["prompt_sha256"],
            "seed": facts["seed"],
        },
        "n_words": {"prompt": n_words["prompt"], "chosen": n_words[side], "rejected": n_words[other]},
        "similarity": about["similarity"],
        "flags": about["flags"],
        "review": {"status": "unreviewed", "reviewer": None, "time": None, "note": None},
        "split": about["split"],
        "version": facts["version"],
    }


def _rejected_row(document: Document, text_field: str | None) -> dict[str, Any]:
    about = document.metadata
    row = {"id": document.id, **about[REJECTED], "side": about.get("side"), "topic": about.get("topic")}
    if text_field:
        row[text_field] = document.text
    if text_field == "prompt":
        row["answers"] = about.get("answers")
    return row | {"source": about["source"], "judges": about.get("judges")}


def funnel(
    finished: Iterable[Document], dropped: Iterable[Document], not_selected: Iterable[Document]
) -> dict[str, Any]:
    """Count the fates of all posts, by the side that the judges gave them; ``unjudged`` has none.

    ``dropped`` are documents that were selected and become no rows. ``kept_share`` is a share of the selected.
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
