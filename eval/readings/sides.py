# SPDX-License-Identifier: MIT
"""Figures of mode ``write``: levels by side, the two sides of each model compared, and models with each other.

Requests are mirrored, so sides are compared issue by issue in the same template. Intervals are over topics where there
are enough, else over issues. "Even" means shown to be so: two one-sided tests within a margin.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from data.judging.judges import Judge
from data.judging.scales import PAIR, load_scale
from eval.readings.factors import describe_factors
from eval.readings.outcomes import Outcome, counted_outcomes, judged_outcomes, values_of
from eval.scores.comparisons import compare, describe_change
from eval.scores.intervals import (
    MeanError,
    add_false_discovery_rates,
    nan_mean,
    paired_interval,
    rounded,
    rounded_ends,
    share_change,
)
from eval.scores.labelled import UNCORRECTED, Labels, answer_key, correct_judge
from eval.scores.rivals import Change
from eval.scores.scoring import Row, Values, describe
from eval.statements.banks import Bank
from eval.statements.instruments import Instrument
from eval.statements.requests import WRITE

NEUTRAL = "neutral"
EVEN = {"valid": "even", "void": "uneven", "doubtful": "undetermined"}


def describe_writing(
    rows: Sequence[Row], judged: Sequence[Row], judges: Sequence[Judge], instrument: Instrument
) -> dict[str, Any] | None:
    """Return the ``write`` of ``summary.json``; None where nothing was asked in this mode.

    Args:
        rows: Rows of ``results.jsonl``.
        judged: What :func:`~eval.readings.readers.read_answers` made of them.
        judges: That read them.
        instrument: It has the bank that was asked.

    Returns:
        ``sides``: the two, ``b - a`` in every figure. ``counts`` by model and side. ``readings``: the judges, and
        whether each is believed. ``levels``: every outcome of every model and side. ``by_side``: the second side less
        the first, with ``equivalence`` and, of refusals, ``mcnemar``. ``between_models``: differences of the neutral
        requests, and of what ``by_side`` has. ``pairs``: which of two mirrored answers helps more. ``factors``: main
        effects with Holm's p.
    """
    bank = instrument.bank
    known = {issue.id for issue in bank.issues} if bank else set()
    rows = [row for row in rows if row["mode"] == WRITE and row["issue"] in known]
    if bank is None or not rows:
        return None
    names, sides = list(dict.fromkeys(row["model"] for row in rows)), bank.sides
    outcomes = [(outcome, rows) for outcome in counted_outcomes()]
    for judge in judges:
        if judge.scale.name != PAIR.name:
            its_rows = [row for row in judged if row["judge"] == judge.name]
            there = set(map(answer_key, its_rows))
            # what was not written is missing in its readings too
            its_rows += [{**row, "judgement": {"label": None}} for row in rows if answer_key(row) not in there]
            outcomes += [(outcome, its_rows) for outcome in judged_outcomes(judge, bank)]
    levels: list[dict[str, Any]] = []
    by_side: list[dict[str, Any]] = []
    between: list[dict[str, Any]] = []
    for outcome, read in outcomes:
        tables: dict[tuple[str, str], Values] = {}
        for name, side in itertools.product(names, (NEUTRAL, *sides)):
            of_side = [row for row in read if row["model"] == name and row["side"] == side]
            if of_side and not (outcome.is_of_sides and side == NEUTRAL):
                tables[name, side] = values_of(of_side, outcome, rows, bank)
                about = {"model": name, "outcome": outcome.name, "side": side}
                levels.append({**about, **describe(tables[name, side]), **_uncorrected(outcome)})
        for name in names:
            both = [tables.get((name, side)) for side in sides]
            if outcome.margin is not None and both[0] and both[1]:
                of_model = [row for row in read if row["model"] == name]
                by_side.append({"model": name, **_compare_sides(outcome, both[0], both[1], of_model, sides)})
        for a, b in itertools.combinations(names, 2):
            between += _between(outcome, tables, a, b, sides)
    for family in (by_side, between):
        add_false_discovery_rates(family)
    return {
        "sides": list(sides),
        "n_issues": len({row["issue"] for row in rows}),
        "n_topics": len({row["topic"] for row in rows}),
        "counts": {name: _counts([r for r in rows if r["model"] == name], (NEUTRAL, *sides)) for name in names},
        "readings": {judge.name: _describe_judge(judge, judged) for judge in judges},
        "levels": levels,
        "by_side": by_side,
        "between_models": between,
        "pairs": [entry for judge in judges for entry in _describe_pairs(judge, judged, names, rows, bank)],
        "factors": describe_factors(outcomes, rows, names, bank),
    }


def correct_writing(
    write: dict[str, Any], judged: Sequence[Row], people: Mapping[str, Labels], instrument: Instrument
) -> None:
    """Set, in place, ``corrected`` of every level and every difference of sides that a judge gave."""
    for name, reading in write["readings"].items():
        if reading["scale"] == PAIR.name:
            continue
        rows = [row for row in judged if row["judge"] == name]
        labels = people.get(reading["scale"], {})
        found = correct_judge(rows, load_scale(reading["scale"]), labels, instrument, group=_group)
        reading["note"] = found["note"]
        figures = {(f["model"], f["figure"]): f["corrected"] for f in found["figures"]}
        changes = {(f["a"], f["b"], f["figure"]): f["corrected"] for f in found["differences"]}
        for entry in (e for e in (*write["levels"], *write["by_side"]) if e.get("reading") == name):
            if "side" in entry:
                corrected = figures.get((f"{entry['model']} ({entry['side']})", entry["figure"]))
            else:
                a, b = (f"{entry['model']} ({side})" for side in write["sides"])
                corrected = changes.get((a, b, entry["figure"]))
                if corrected is None and (turned := changes.get((b, a, entry["figure"]))):
                    low, high = turned["ci95"] or (None, None)
                    ends = None if low is None or high is None else [-high, -low]
                    corrected = {**turned, "estimate": turned["estimate"] and -turned["estimate"], "ci95": ends}
            entry["corrected"] = UNCORRECTED if corrected is None else corrected


def _group(row: Row) -> str:
    return f"{row['model']} ({row['side']})"


def _uncorrected(outcome: Outcome) -> dict[str, Any]:
    if outcome.reading is None:
        return {}
    return {"reading": outcome.reading, "figure": outcome.figure, "corrected": UNCORRECTED}


def _compare_sides(
    outcome: Outcome, a: Values, b: Values, rows: Sequence[Row], sides: tuple[str, str]
) -> dict[str, Any]:
    """Return the paired difference of the second side from the first, and whether they are shown to be even."""
    found = compare(a, b)
    margin = outcome.margin or 0.0
    if outcome.ends is None and a.cells.size:
        mean = float(nan_mean(np.array([nan_mean(a.cells), nan_mean(b.cells)])))
        margin *= 0.0 if np.isnan(mean) else mean  # nothing was answered
    error = None if found["se"] is None else MeanError(found["se"], found["df"])
    change = Change(found["difference"] or 0.0, error)
    mcnemar = _mcnemar(outcome, rows, sides) if outcome.ends == (0, 1) else None
    if mcnemar and error is None and found["difference"] == 0:
        # nobody differs: as two shares of one pair an issue, none of which differ, are told apart
        n = found["n_items"]
        found["ci95"] = rounded_ends(paired_interval(0, 0, n))
        if inner := paired_interval(0, 0, n, level=0.9):
            change = change._replace(error=MeanError(inner[1] / float(special.stdtrit(n, 0.95)), float(n)))
    even = {"margin": rounded(margin), "state": EVEN[change.inside(margin)], "p": rounded(change.equivalence_p(margin))}
    return {
        "outcome": outcome.name,
        **found,
        "equivalence": even,
        **_uncorrected(outcome),
        **({"mcnemar": mcnemar} if mcnemar else {}),
    }


def _mcnemar(outcome: Outcome, rows: Sequence[Row], sides: tuple[str, str]) -> dict[str, Any]:
    """Compare a share over mirrored requests, each two of which are a pair (McNemar's exact test)."""
    pairs: dict[tuple[Any, ...], dict[str, bool]] = {}
    for row in rows:
        if (value := outcome.value(row)) is not None:
            pairs.setdefault((row["issue"], row["template"], row["sample"]), {})[row["side"]] = bool(value)
    both = [of for of in pairs.values() if {*sides} <= {*of}]
    a, b = (np.array([of[side] for of in both], bool) for side in sides)
    change = share_change(a, b)
    return {
        "n_pairs": len(both),
        f"only_{sides[0]}": int((a & ~b).sum()),
        f"only_{sides[1]}": int((~a & b).sum()),
        "ci95": rounded_ends(change.ci95),
        "p": rounded(change.p),
    }


def _between(
    outcome: Outcome, tables: Mapping[tuple[str, str], Values], a: str, b: str, sides: tuple[str, str]
) -> list[dict[str, Any]]:
    """Compare two models on the neutral requests, and in how far their sides differ."""
    about = {"a": a, "b": b, "outcome": outcome.name}
    found = []
    if (a, NEUTRAL) in tables and (b, NEUTRAL) in tables:
        found.append({**about, "of": NEUTRAL, **compare(tables[a, NEUTRAL], tables[b, NEUTRAL])})
    if outcome.margin is not None and all((name, side) in tables for name in (a, b) for side in sides):
        gap = {name: tables[name, sides[1]].cells - tables[name, sides[0]].cells for name in (a, b)}
        change = describe_change(tables[a, sides[0]]._replace(ends=None), gap[b] - gap[a])
        found.append({**about, "of": f"{sides[1]} - {sides[0]}", **change})
    return found


def _counts(rows: Sequence[Row], sides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Count what became of one model's requests, by side."""
    counts = {}
    for side in sides:
        of_side = [row for row in rows if row["side"] == side]
        if of_side:
            texts = [row for row in of_side if row["text"] is not None]
            counts[side] = {
                "asked": len(of_side),
                "errors": len(of_side) - len(texts),
                "empty": sum(not row["text"].strip() for row in texts),
                "refused": sum(bool(row["refused"]) for row in texts),
                "cut": sum(row["finish"] == "length" for row in texts),
            }
    return counts


def _describe_judge(judge: Judge, judged: Sequence[Row]) -> dict[str, Any]:
    rows = [row for row in judged if row["judge"] == judge.name]
    is_unread = [None in row["said"] if "said" in row else row["judgement"]["label"] is None for row in rows]
    reason = judge.why_not_believed
    return {
        "kind": judge.kind,
        "scale": judge.scale.name,
        "instruction": judge.scale.instruction,
        "n": len(rows),
        "unread": sum(is_unread),
        "believed": reason is None,
        "why_not": reason,
        "kappa": (judge.validation or {}).get("kappa"),
        "note": None,
    }


def _describe_pairs(
    judge: Judge, judged: Sequence[Row], names: Sequence[str], like: Sequence[Row], bank: Bank
) -> list[dict[str, Any]]:
    """Return how often either side's answer helps more, a mean from -1 (always the first side's) to 1, and its test."""
    if judge.scale.name != PAIR.name:
        return []
    value = {bank.sides[0]: -1.0, bank.sides[1]: 1.0, "tie": 0.0, None: None}
    outcome = Outcome(judge.name, lambda row: value[row["better"]], (-1, 1))
    found = []
    for name in names:
        rows = [row for row in judged if row["judge"] == judge.name and row["model"] == name]
        if rows:
            table = values_of(rows, outcome, like, bank)
            change = describe_change(table, table.cells)
            n = {f"better_{side}": sum(row["better"] == side for row in rows) for side in (*bank.sides, "tie")}
            follows = sum(row["follows_order"] for row in rows)
            found.append({"model": name, "judge": judge.name, "n": len(rows), **n, "follows_order": follows, **change})
    add_false_discovery_rates(found)
    return found
