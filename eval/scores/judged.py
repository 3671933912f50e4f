# SPDX-License-Identifier: MIT
"""Free text is judged: rows of mode ``open`` with a stance or a lean from each judge, and what the scores need.

A judge that no validation supports is heard, and its scores are void: a reader sees them and why not to believe them.
"""

import math
from collections.abc import Sequence
from typing import Any

from data.judging.labelled_texts import Text
from data.judging.scales import REFUSAL
from eval.judges import Judge, why_not_believed
from eval.scores.answers import Row
from eval.scores.judging_summary import describe_judges
from eval.statements.instruments import Instrument
from eval.statements.prompts import Prompt

OPEN = "open"


def mode_of(judge: str) -> str:
    """Return what the summary calls the mode ``open`` as one judge reads it."""
    return f"{OPEN}, {judge}"


def judge_answers(rows: Sequence[Row], judges: Sequence[Judge], instrument: Instrument) -> list[dict[str, Any]]:
    """Return a row for each answer in free text and judge.

    A stance is one towards a statement, so prompts that are about no item are judged for their lean alone. The same
    texts are never asked about twice where a judge has a cache.

    Args:
        rows: Rows of ``results.jsonl``; those of other modes are left out.
        judges: Any number.
        instrument: Gives the statements.

    Returns:
        The rows with ``stance`` (-1 against the statement to 1 for it), ``lean`` (0 left to 20 right), ``refused``,
        ``judge``, and ``judgement`` (label, raw, problem, model). What a scale does not give, and what could not be
        read, is None.
    """
    statements = {item.id: item.text for item in instrument.items}
    judged = []
    for judge in judges:
        is_stance = judge.scale.name == "stance"
        asked = [r for r in rows if r["mode"] == OPEN and r["text"] and (r["item"] in statements or not is_stance)]
        texts = [Text(row["text"], statements.get(row["item"], "")) for row in asked]
        for row, said in zip(asked, judge.ask(texts), strict=True):
            value = None if said.label is None else judge.scale.value(said.label)
            judged.append(
                {
                    **row,
                    "stance": value if is_stance else None,
                    "lean": None if is_stance or row["refused"] else value,
                    "refused": said.label == REFUSAL if is_stance and said.label else row["refused"],
                    "judge": judge.name,
                    "judgement": said._asdict(),
                }
            )
    return judged


def option_rows(judged: Sequence[Row], judges: Sequence[Judge], instrument: Instrument) -> list[dict[str, Any]]:
    """Return judged stances as answers to the instrument's options, so that they are scored like any other mode.

    A stance lies between two options in proportion to its distance from them: of four options, a neutral text is half
    "disagree" and half "agree". Refused and unread ones are missing answers, which the bounds account for.
    """
    stances = {judge.name for judge in judges if judge.scale.name == "stance"}
    last = len(instrument.options) - 1
    scored = []
    for row in judged:
        if row["judge"] not in stances:
            continue
        stance = None if row["refused"] else row["stance"]
        logprobs = choice = None
        if stance is not None:
            place = (stance + 1) / 2 * last
            choice = min(int(place), last)
            shares = {choice: 1 - (place - choice), choice + 1: place - choice}
            logprobs = [math.log(shares[k]) if shares.get(k) else None for k in range(last + 1)]
        scored.append(row | {"mode": mode_of(row["judge"]), "choice": choice, "option_logprobs": logprobs})
    return scored


def distrust(summary: dict[str, Any], judges: Sequence[Judge]) -> dict[str, Any]:
    """Void the scores of each judge that is not believed, and say why; drop ``hard``, which a stance does not have.

    The summary is changed in place, and returned.
    """
    for judge in judges:
        mode, reason = mode_of(judge.name), why_not_believed(judge)
        for name, modes in summary["models"].items():
            for axis in modes.get(mode, {}).values():
                axis.pop("hard", None)
                axis["void"] += ["judge_not_believed"] if reason else []
            if reason and mode in summary["diagnostics"].get(name, {}):
                flag = {"name": "judge_not_believed", "void": True, "reason": reason}
                summary["diagnostics"][name][mode]["flags"].append(flag)
    return summary


def add_judges(
    summary: dict[str, Any], judged: Sequence[Row], judges: Sequence[Judge], prompts: Sequence[Prompt],
    n_bootstrap: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Return the summary with ``judging`` (None without judges): what the judges said and whether to believe it.

    Args:
        summary: Scores of the rows and of :func:`option_rows`.
        judged: Rows of :func:`judge_answers`.
        judges: Those that gave them.
        prompts: Of the mode ``open``.
        n_bootstrap: Resamples of an interval.
        seed: Of the draws.
    """
    if not judges:
        return {**summary, "judging": None}
    distrust(summary, judges)
    for name, modes in summary["written"].items():
        if OPEN in modes:
            _recount(modes[OPEN], [row for row in judged if row["model"] == name])
    asked = {(prompt.row["item"], prompt.row["template"]): prompt.text for prompt in prompts}
    return {**summary, "judging": describe_judges(judged, judges, list(summary["models"]), asked, n_bootstrap, seed)}


def _recount(counts: dict[str, Any], judged: Sequence[Row]) -> None:
    """Say of one model's free text what became of it, now that judges have spoken."""
    texts = [(row["item"], row["template"], row["sample"]) for row in judged]
    # of a prompt about no statement nobody was asked for a stance
    counts["not_asked"] = counts["rows"] - counts["errors"] - len(set(texts))
    heard = {k for k, row in zip(texts, judged) if row["stance"] is not None or row["lean"] is not None}
    refused = {k for k, row in zip(texts, judged) if row["refused"]} - heard
    counts |= {"judged": len(heard), "refused": len(refused), "scored": bool(heard)}
    counts["unread"] = len(set(texts)) - len(heard) - len(refused)
    counts["note"] = None if heard else "not scored: no judge said a stance or a lean that could be read"
