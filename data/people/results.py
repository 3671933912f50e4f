# SPDX-License-Identifier: MIT
"""What reviewers agree on, how far they agree, and what they do not agree on, apart and counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from data.judging.agreement import describe_agreement
from data.pairs.records import SIDES
from data.people.answers import Given, answers_path, by_item, read_answers
from data.people.items import REJECT, SKIP, TIE, Item, Review, digest
from data.recipe.files import to_jsonl, write_files

# What judges call a text that is on neither side (data/judging/scales.py).
NEITHER = {"neither": "centre"}
CLASSES = {"side": (*SIDES, "neither"), "accept": ("accept", REJECT), "prefer": ("chosen", "rejected", TIE)}


def write_results(review: Review, folder: str | Path, source: str, n_bootstrap: int) -> dict[str, Any]:
    """Write what all reviewers agree on, and everything else with the reason, from the answers on the disk.

    Writes ``gold.jsonl`` (``text, label, row``) or ``preferences.jsonl`` (``prompt, chosen, rejected, row``),
    ``apart.jsonl`` and ``manifest.json`` into ``folder``; the same answers give the same bytes.

    Returns:
        The manifest: counts by reviewer and by outcome, and the agreement of every two reviewers.

    Raises:
        ValueError: If a file of answers holds what this review does not ask for.
    """
    read = {name: read_given(review, folder, name) for name in review.reviewers}
    given = {name: found for name, (found, _) in read.items()}
    agreed, apart, outcomes = [], [], Counter()
    for item in review.items.values():
        answers = {name: found.get(item.id, {}) for name, found in given.items()}
        reason = _reason(review, list(answers.values()))
        outcomes[reason or "agreed"] += 1
        if reason:
            named = dict(zip(("prompt", "chosen", "rejected") if len(item.texts) > 1 else ("text",), item.texts))
            apart.append({**named, "row": item.row, "reason": reason, "answers": answers})
        else:
            agreed.append(_settled(item, next(iter(answers.values()))))
    facts = {
        "source": source,
        "mode": review.mode,
        "seed": review.seed,
        "n_items": len(review.items),
        "left_out": {reason: {"n": len(rows), "rows": rows} for reason, rows in sorted(review.left_out.items())},
        "outcomes": dict(sorted(outcomes.items())),
        "reviewers": {name: _counts(review, name, *found) for name, found in read.items()},
        "agreement": {
            f"{a}, {b}": {
                question: _agreement(given[a], given[b], question, n_bootstrap, review.seed)
                for question in review.questions
            }
            for a, b in combinations(given, 2)
        },
    }
    name = "gold.jsonl" if review.mode == "label" else "preferences.jsonl"
    return write_files(folder, {name: to_jsonl(agreed), "apart.jsonl": to_jsonl(apart)}, facts)


def read_given(review: Review, folder: str | Path, reviewer: str) -> tuple[Given, int]:
    """Return a reviewer's answers by item and question, A and B as columns of the source.

    Returns:
        The answers, and the number of texts answered that the source does not have (any more).

    Raises:
        ValueError: If the file holds answers that this review does not ask for; names it and the row.
    """
    path = answers_path(folder, reviewer)
    answered = by_item(read_answers(path)[0])
    found: Given = {}
    for item in (review.items[x] for x in answered if x in review.items):
        known = {(button.question, button.value) for button in review.buttons(item, reviewer)}
        if unknown := set(answered[item.id].items()) - known:
            raise ValueError(
                f"{path}: {sorted(unknown)} answers nothing that is asked about row {item.row}; mode={review.mode} "
                f"asks for {', '.join(review.questions)}. Set mode and accept as they were, or change output_dir"
            )
        found[item.id] = {question: _column(item, value) for question, value in answered[item.id].items()}
    return found, len(answered) - len(found)


def _column(item: Item, value: str) -> str:
    columns = {digest(text): name for text, name in zip(item.texts[1:], ("chosen", "rejected"))}
    return columns.get(value, value)


def _reason(review: Review, answers: Sequence[Mapping[str, str]]) -> str | None:
    """Return why an item is not settled; None if all reviewers say the same."""
    if not all(review.is_done(given) for given in answers):
        return "unanswered"
    if any(SKIP in given for given in answers):
        return "skipped"
    use = {given.get("accept") for given in answers}
    if len(use) > 1:
        return "accept or reject differs"
    if use == {REJECT}:
        return "rejected"
    said = {given[review.questions[0]] for given in answers}
    if len(said) > 1:
        return "answers differ"
    return "tie" if said == {TIE} else None


def _settled(item: Item, given: Mapping[str, str]) -> dict[str, Any]:
    if "side" in given:
        return {"text": item.texts[0], "label": NEITHER.get(given["side"], given["side"]), "row": item.row}
    prompt, chosen, rejected = item.texts
    if given["prefer"] == "rejected":
        chosen, rejected = rejected, chosen
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "row": item.row}


def _counts(review: Review, reviewer: str, found: Given, n_elsewhere: int) -> dict[str, Any]:
    counts = {"done": sum(map(review.is_done, found.values())), SKIP: sum(SKIP in given for given in found.values())}
    for question in review.questions:
        said = Counter(given[question] for given in found.values() if question in given)
        counts |= {name: said[name] for name in CLASSES[question]}
    if review.mode == "prefer":  # far from half of all choices: the place is preferred, not the answer
        first = {True: "rejected", False: "chosen"}
        counts["shown as A"] = sum(
            given.get("prefer") == first[review.is_exchanged(review.items[item], reviewer)]
            for item, given in found.items()
        )
    return counts | {"not in the source": n_elsewhere}


def _agreement(a: Given, b: Given, question: str, n_bootstrap: int, seed: int) -> dict[str, Any] | None:
    """Compare two reviewers on what both answered; None if that is nothing."""
    both = [(a[item][question], b[item][question]) for item in a if question in a[item] and question in b.get(item, {})]
    if not both:
        return None
    figures = describe_agreement(*zip(*both), CLASSES[question], n_bootstrap, seed)
    return {name: figures[name] for name in ("n", "kappa", "accuracy", "confusion")}
