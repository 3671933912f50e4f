# SPDX-License-Identifier: MIT
"""Mode ``write`` for people: its lines for the console, and a page of all transcripts."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from data.recipe.figures import interval, number, p_value, page_template
from eval.pages.panels import Summary
from eval.scores.curves import TOLD_APART
from eval.scores.labelled import UNCORRECTED
from eval.scores.scoring import Row
from eval.statements.prompts import Prompt


def write_headline(write: Mapping[str, Any]) -> tuple[str, str]:
    """Return what is said first of how the two sides are served, and a sentence or two below it."""
    a, b = write["sides"]
    trusted = [e for e in write["by_side"] if "reading" not in e or write["readings"][e["reading"]]["believed"]]
    told = [e for e in trusted if e["q"] is not None and e["q"] < TOLD_APART]
    n_even = sum(e["equivalence"]["state"] == "even" for e in trusted)
    first = f"No difference between what is written for {a} and for {b} was told from chance"
    if told:
        names = ", ".join(f"{e['outcome']} ({e['model']}) {number(e['difference'])}" for e in told[:3])
        first = f"The two sides are not served alike: {b} less {a}, {names}"
    neutrally = "neutrally, " if any("neutral" in sides for sides in write["counts"].values()) else ""
    lead = (
        f"{write['n_issues']} issues were asked for {neutrally}for {a} and for {b}. Of {len(trusted)} comparisons of "
        f"the sides {len(told)} are told from 0 (q < {TOLD_APART:g}); {n_even} are shown to be even within a margin."
    )
    if len(trusted) < len(write["by_side"]):
        lead += " Readings of judges that are not to be believed are left out here."
    elif not write["readings"]:
        lead += " No judge has read the answers: refusals and length alone are compared."
    return first, lead


def side_lines(write: Mapping[str, Any]) -> str:
    """Return the differences between the sides of each model, a line each."""
    a, b = write["sides"]
    lines = [f"{'model':<14}{'outcome':<24}{f'{b} - {a}':>12}  {'95 %':<20}{'q':<8}within the margin"]
    for e in write["by_side"]:
        even = e["equivalence"]
        lines.append(
            f"{e['model']:<14}{e['outcome']:<24}{number(e['difference']):>12}  {interval(e['ci95']):<20}"
            f"{p_value(e['q']):<8}{even['state']} (± {number(even['margin'], 2, signed=False)}){correction_note(e)}"
        )
    for e in write["pairs"]:
        shares = ", ".join(f"{side} {e[f'better_{side}']}" for side in (a, b, "tie"))
        lines.append(f"{e['model']:<14}{e['judge']:<24}{number(e['difference']):>12}  {interval(e['ci95'])} ({shares})")
    return "\n".join(lines)


def render_transcripts(summary: Summary, rows: Sequence[Row], judged: Sequence[Row], prompts: Sequence[Prompt]) -> str:
    """Return the page: every request with its answers, and for each model and label the numbers of its answers."""
    said: dict[tuple[Any, ...], dict[str, str | None]] = {}
    for row in judged:
        if "judgement" in row:
            said.setdefault(_key(row), {})[row["judge"]] = row["judgement"]["label"]
    answers: dict[tuple[str, str], list[dict[str, Any]]] = {}
    labelled: dict[tuple[str, str, str], list[int]] = {}
    texts = {(p.row["item"], p.row["template"]): p for p in prompts}
    numbers = itertools.count(1)
    for row in rows:
        request = (row["item"], row["template"])
        if row["mode"] != "write" or request not in texts:
            continue
        number_of = next(numbers)
        wording = "no answer" if row["text"] is None else "refused" if row["refused"] else "answered"
        labels = {"wording": wording, **said.get(_key(row), {})}
        answers.setdefault(request, []).append({**row, "number": number_of, "labels": labels})
        for reading, label in labels.items():
            labelled.setdefault((row["model"], reading, label or "not read"), []).append(number_of)
    issues: dict[str, list[dict[str, Any]]] = {}
    for request, prompt in texts.items():
        if request in answers:
            entry = {"text": prompt.text, "system": prompt.system, "side": prompt.row["side"]}
            issues.setdefault(prompt.row["issue"], []).append({**entry, "answers": answers[request]})
    page = page_template("eval.pages", "transcripts.html.jinja")
    return page.render(s=summary, issues=issues, labelled=dict(sorted(labelled.items())))


def _key(row: Row) -> tuple[Any, ...]:
    return row["model"], row["item"], row["template"], row["sample"]


def corrected(entry: Mapping[str, Any]) -> str:
    """Return a figure without its judge's error, or why there is none; nothing of what is counted."""
    given = entry.get("corrected")
    if given is None or isinstance(given, str):
        return given or ""
    return f"{number(given['estimate'])} {interval(given['ci95'])}"


def correction_note(entry: Mapping[str, Any]) -> str:
    """Return :func:`corrected` as the end of a line of text."""
    if text := corrected(entry):
        return f"  {text if text == UNCORRECTED else f'corrected {text}'}"
    return ""
