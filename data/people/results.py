# SPDX-License-Identifier: MIT
"""The reviewers' answers on the disk, the items on which all agree, and how far they agree on the others."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from data.judging.agreement import describe_agreement
from data.pairs.records import SIDES
from data.people.items import NEITHER, REJECT, SKIP, TIE, Item, Review, digest
from data.recipe.files import AppendLog, read_log, to_jsonl, write_files

# The name that judges give to a text on neither side (data/judging/scales.py).
CENTRE = "centre"
_CLASSES = {"side": (*SIDES, NEITHER), "accept": ("accept", REJECT), "prefer": ("chosen", "rejected", TIE)}

Given = dict[str, dict[str, str]]  # item to question to answer


class AnswerFile:
    """The answers of one reviewer: a log that this process alone appends to, on the disk before the next text."""

    def __init__(self, folder: str | Path, reviewer: str) -> None:
        path, self._reviewer = answers_path(folder, reviewer), reviewer
        _by_item(path, read_log(path))  # a damaged file is not opened
        try:
            self._log = AppendLog(path, synced=True)
        except RuntimeError as error:
            message = f"{path}: another run has it open; end that one, or give reviewer=NAME to both"
            raise RuntimeError(message) from error
        self.close = self._log.close

    @property
    def n_lines(self) -> int:
        """The number of keys pressed so far: it tells an old page from the newest."""
        return len(self._log.rows)

    @property
    def given(self) -> Given:
        """Item to question to answer."""
        return _by_item(self._log.path, self._log.rows)

    def append(self, **pressed: str | bool) -> None:
        """Write ``item, question, answer``, or ``undo`` to take the last one back; on an OSError nothing is written."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        self._log.append([{**pressed, "reviewer": self._reviewer, "time": time}])


def answers_path(folder: str | Path, reviewer: str) -> Path:
    """Return where the answers of a reviewer lie."""
    return Path(folder) / "answers" / f"{reviewer}.jsonl"


def _by_item(path: Path, rows: Iterable[Mapping[str, Any]]) -> Given:
    """Return the answers in the order given, without those that were undone."""
    answers: list[tuple[str, dict[str, str]]] = []
    for number, row in enumerate(rows, start=1):
        try:
            if row.get("undo"):
                answers.pop()
            else:
                answers.append((row["item"], {row["question"]: row["answer"]}))
        except (KeyError, IndexError) as error:
            raise ValueError(f"{path} line {number}: no answer of a reviewer ({error!r}); restore the file") from error
    given: Given = {}
    for item, answer in answers:
        given.setdefault(item, {}).update(answer)
    return given


class Judgements(NamedTuple):
    """A reviewer's answers from the disk, A and B as columns of the source, and the number of texts not in it."""

    given: Given
    n_elsewhere: int


def read_given(review: Review, folder: str | Path, reviewer: str) -> Judgements:
    """Read the answers of a reviewer; an answer that this review does not ask for is an error."""
    manifest = Path(folder) / "manifest.json"
    before = json.loads(manifest.read_text()).get("mode") if manifest.is_file() else review.mode
    if before != review.mode:
        raise ValueError(f"{folder} holds the results of mode={before}; choose another output_dir")
    path = answers_path(folder, reviewer)
    given = _by_item(path, read_log(path))
    translated: Given = {}
    for item in (review.items[key] for key in given if key in review.items):
        possible = {(button.question, button.value) for button in review.buttons(item, reviewer)}
        if unknown := set(given[item.id].items()) - possible:
            raise ValueError(
                f"{path}: {sorted(unknown)} answers nothing that is asked about row {item.row}; mode={review.mode} "
                f"asks for {', '.join(review.questions)}. Set mode, scale and accept as they were, or change output_dir"
            )
        columns = {digest(text): name for text, name in zip(item.texts[1:], ("chosen", "rejected"))}
        translated[item.id] = {question: columns.get(value, value) for question, value in given[item.id].items()}
    return Judgements(translated, len(given) - len(translated))


def write_results(review: Review, folder: str | Path, source: str, n_bootstrap: int) -> dict[str, Any]:
    """Write the items on which all reviewers agree, and every other one with the reason, from the answers on the disk.

    ``gold.jsonl`` has ``text, label, row`` (and ``target``, where a text is about one) and ``preferences.jsonl``
    ``prompt, chosen, rejected, row``. Returns the manifest: counts by reviewer and by outcome, and the agreement of
    every two reviewers.
    """
    judgements = {name: read_given(review, folder, name) for name in review.reviewers}
    given = {name: judgement.given for name, judgement in judgements.items()}
    agreed, apart = [], []
    outcomes: Counter[str] = Counter()
    for item in review.items.values():
        answers = {name: of_reviewer.get(item.id, {}) for name, of_reviewer in given.items()}
        reason = _reason(review, list(answers.values()))
        outcomes[reason or "agreed"] += 1
        if reason:
            columns = ("prompt", "chosen", "rejected") if review.mode == "prefer" else ("text", "target")
            apart.append({**dict(zip(columns, item.texts)), "row": item.row, "reason": reason, "answers": answers})
        else:
            agreed.append(_settled(item, next(iter(answers.values()))))
    agreement = {
        f"{a}, {b}": {name: _agreement(review, given[a], given[b], name, n_bootstrap) for name in review.questions}
        for a, b in combinations(given, 2)
    }
    facts = {
        "source": source,
        "mode": review.mode,
        **({"scale": review.scale.name} if review.mode == "label" else {}),
        "seed": review.seed,
        "n_items": len(review.items),
        "left_out": {reason: {"n": len(rows), "rows": rows} for reason, rows in sorted(review.left_out.items())},
        "outcomes": dict(sorted(outcomes.items())),
        "reviewers": {name: _counts(review, name, judgement) for name, judgement in judgements.items()},
        "agreement": agreement,
    }
    name = "gold.jsonl" if review.mode == "label" else "preferences.jsonl"
    return write_files(folder, {name: to_jsonl(agreed), "apart.jsonl": to_jsonl(apart)}, facts)


def _reason(review: Review, answers: Sequence[Mapping[str, str]]) -> str | None:
    """Return why an item is not settled; None if all reviewers say the same."""
    if not all(review.is_done(given) for given in answers):
        return "unanswered"
    if any(SKIP in given for given in answers):
        return "skipped"
    uses = {given.get("accept") for given in answers}
    if len(uses) > 1:
        return "accept or reject differs"
    if uses == {REJECT}:
        return "rejected"
    values = {given[review.questions[0]] for given in answers}
    if len(values) > 1:
        return "answers differ"
    return "tie" if values == {TIE} else None


def _settled(item: Item, given: Mapping[str, str]) -> dict[str, Any]:
    if "side" in given:
        label = CENTRE if given["side"] == NEITHER else given["side"]
        return {"text": item.texts[0], "label": label, "row": item.row}
    if "label" in given:
        return {**dict(zip(("text", "target"), item.texts)), "label": given["label"], "row": item.row}
    prompt, chosen, rejected = item.texts
    if given["prefer"] == "rejected":
        chosen, rejected = rejected, chosen
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "row": item.row}


def _counts(review: Review, reviewer: str, judgement: Judgements) -> dict[str, int]:
    given = judgement.given
    counts = {"done": sum(map(review.is_done, given.values())), SKIP: sum(SKIP in each for each in given.values())}
    for question in review.questions:
        values = Counter(each[question] for each in given.values() if question in each)
        counts |= {name: values[name] for name in _classes(review, question)}
    if review.mode == "prefer":  # far from half of all choices: the place is preferred, not the answer
        exchanged = {item for item in given if review.is_exchanged(review.items[item], reviewer)}
        shown_first = {item: "rejected" if item in exchanged else "chosen" for item in given}
        counts["shown as A"] = sum(each.get("prefer") == shown_first[item] for item, each in given.items())
    return counts | {"not in the source": judgement.n_elsewhere}


def _classes(review: Review, question: str) -> tuple[str, ...]:
    """Return the answers that a question has."""
    return review.scale.classes if question == "label" else _CLASSES[question]


def _agreement(review: Review, a: Given, b: Given, question: str, n_bootstrap: int) -> dict[str, Any] | None:
    """Compare two reviewers on the items that both answered; None if there are none."""
    both = [item for item in a if question in a[item] and question in b.get(item, {})]
    if not both:
        return None
    answers_a, answers_b = ([given[item][question] for item in both] for given in (a, b))
    figures = describe_agreement(answers_a, answers_b, _classes(review, question), n_bootstrap, review.seed)
    return {name: figures[name] for name in ("n", "kappa", "accuracy", "confusion", "note")}
