# SPDX-License-Identifier: MIT
"""What a run found, in the words and the few rows that a reader sees first: a headline, how sure it is, a chart."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.recipe.figures import interval, number, p_value, percent
from eval.pages.panels import Summary, ends_of_mode, unit_of_mode
from eval.pages.sycophancy import sycophancy_headline
from eval.pages.write import write_headline
from eval.scores.crossed import LEAST_UNITS
from eval.scores.curves import TOLD_APART, verdict
from eval.scores.endpoint import no_interval
from eval.scores.evidence import ALL, BALANCED
from eval.scores.places import read_seeds_note, seeds_note

# What the rows of the evidence are called where few know the terms.
SUBSETS = {
    ALL: "all political pairs",
    "unseen": "pairs on topics never taught",
    "seen topic": "pairs on topics taught",
    "seen proposition": "pairs on what was argued in training",
    BALANCED: "pairs of the same words on both sides",
}


class Finding(NamedTuple):
    """What a run found: a headline, how sure it is, and the rows of its chart."""

    headline: str
    lead: str
    rows: list[dict[str, Any]]  # name, estimate, ci95, figures, kind, void, as the macro ``strips`` takes them
    ends: tuple[str, str] = ("left", "right")
    contrast: str | None = None  # the two models of a declared contrast of pairs


def describe_finding(summary: Summary) -> Finding:
    """Return what is said first: of a dial or a study its line, else the primary endpoint, a comparison or a level."""
    dial = next((c for c in summary["curves"] if c["kind"] == "dial" and c["axis"] == "lean"), None)
    if dial:
        return _dial_finding(summary, dial)
    declared = (summary["settings"].get("primary") or {}).get("contrast")
    if summary["replicates"]["runs"] and not declared:
        return _study_finding(summary)
    if "primary" in summary:
        return _primary_finding(summary)
    return _score_finding(summary)


def _primary_finding(summary: Summary) -> Finding:
    primary = summary["primary"]
    a, b = f"“{primary['a']}”", f"“{primary['b']}”"
    contrast = next(e for e in summary["evidence"] if (e["a"], e["b"]) == (primary["a"], primary["b"]))
    subsets = {row["subset"]: row for row in contrast["subsets"]}
    row = subsets[primary["subset"]]
    # what was taught alone moves the whole; on the rest, where nothing was told from 0, the sign is chance
    way = subsets[ALL] if primary["topic_learning"] else row
    further = f"{b} leans further {'right' if way['difference'] > 0 else 'left'} than {a}"
    if primary["void"]:
        headline = f"What separates {b} from {a} cannot be read as a lean"
    elif primary["told"] is None:
        headline = f"Too few pairs to tell a difference in lean between {b} and {a}"
        if row["n_items"] >= LEAST_UNITS:
            headline = f"No difference in lean between {b} and {a} was told from chance"
        elif subsets[ALL]["ci95"]:
            headline = f"Too few {primary['subset']} pairs to tell a difference in lean between {b} and {a}"
    elif not primary["told"]:
        headline = f"No difference in lean between {b} and {a} was told from chance"
        if primary["topic_learning"]:
            headline = f"{further} on what was taught, and on nothing else"
    else:
        beyond = {
            True: "and its words alone do not explain it",
            False: "but a choice of words may be all of it",
            None: "as far as words can be told from a lean",
        }
        headline = f"{further}, {beyond[primary['beyond_vocabulary']]}"
        if primary["state"] == "doubtful" and primary["beyond_vocabulary"] is not False:
            headline += "; other causes are not excluded"
    lead = f"{_lead_change(contrast, row)}."
    if not row["ci95"] and subsets[ALL]["ci95"]:
        lead += f" {_lead_change(contrast, subsets[ALL])}."
    if row["ci95"]:
        times, low, high = (percent(math.exp(x) - 1).replace("-", "−") for x in (row["difference"], *row["ci95"]))
        lead = (
            f"With {b} a token of the right-hand one of two opposed statements is {times} likelier than with {a}, "
            f"against one of the left-hand statement; 95 % interval from {low} to {high}. {lead}"
        )
    lead += f" {note}." if (note := seeds_note(primary["n_seeds"])) else ""
    rows = _evidence_rows(contrast, primary["subset"])
    return Finding(headline, lead, rows, contrast=f"{primary['b']} − {primary['a']}")


def _lead_change(contrast: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    name = _subset_name(contrast, row)
    if not row["ci95"]:
        return f"{name[0].upper()}{name[1:]}: {no_interval(row)}"
    # the one test of its family: its q, as the verdict has it, is its p
    change = f"{number(row['difference'])} nats a token {interval(row['ci95'])}, q {p_value(row['p'])}"
    return f"{name[0].upper()}{name[1:]} ({row['n_items']}): {change}"


def _subset_name(contrast: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return what pairs are called; those of sets that do not say their topics are not called never taught."""
    if row["subset"] == "unseen" and contrast.get("no_topics"):
        return "pairs unlike the training's wording"
    return SUBSETS.get(row["subset"], row["subset"])


def _evidence_rows(contrast: Mapping[str, Any], declared: str) -> list[dict[str, Any]]:
    """Return the change of a contrast on each kind of pair, with what vocabulary alone would show of it."""
    rows = []
    for row in sorted(contrast["subsets"], key=lambda row: row["subset"] != declared):
        name = _subset_name(contrast, row) + (": must not move" if row["placebo"] else "")
        kind = "weak" if row["placebo"] else "main" if row["subset"] == declared else ""
        rows.append(_row(f"{name} ({row['n_items']})", row["difference"], row["ci95"], kind))
        if row["subset"] == declared and row.get("null95"):
            rows.append(_row("    95 % of trainings on shuffled sides", sum(row["null95"]) / 2, row["null95"], "weak"))
        if row["subset"] == declared and row["lexical"] is not None:
            rows.append(_row("    what vocabulary alone would show", row["lexical"], None, "weak"))
        if row["subset"] == declared and row["beyond"]:
            rows.append(_row("    beyond vocabulary", row["beyond"]["estimate"], row["beyond"]["ci95"]))
    return rows


def _row(
    name: str, estimate: float | None, ci95: Sequence[float] | None, kind: str = "", void: bool = False, more: str = ""
) -> dict[str, Any]:
    figures = f"{number(estimate)}{' ' + interval(ci95) if ci95 else ''}{more}"
    return {"name": name, "estimate": estimate, "ci95": ci95, "figures": figures, "kind": kind, "void": void}


def _dial_finding(summary: Summary, curve: Mapping[str, Any]) -> Finding:
    ends = curve["estimate"][0], curve["estimate"][-1]
    slope = curve["slope"]
    told = bool(slope and slope["ci95"] and slope["ci95"][0] * slope["ci95"][1] > 0)
    is_up = slope["difference"] > 0 if told else ends[1] > ends[0]
    way = "right" if is_up else "left"
    order = f"{curve['n_up' if is_up else 'n_down']} of {curve['n_up'] + curve['n_down']} steps go that way"
    low, high = f"“{curve['models'][0]}”", f"“{curve['models'][-1]}”"
    headline = f"From {low} to {high} the lean moves {way}: {order}"
    if not told:
        headline = f"Along the dial from {low} to {high} no change of the lean was told from chance"
    if _is_void(summary, curve):
        headline = f"Nothing can be concluded along the dial from {low} to {high}: an end of it is void"
    lead = (
        f"It goes from {number(ends[0])} ({low}) to {number(ends[1])} ({high}) nats a token: {verdict(curve)}. "
        "The points are one line of weights, not so many trials."
    )
    return Finding(headline, lead, [])  # the curve is the chart


def _is_void(summary: Summary, curve: Mapping[str, Any]) -> bool:
    """Say whether the score at an end of a dial, or its difference from the base, is void."""
    mode, axis, outer = curve["mode"], curve["axis"], (curve["models"][0], curve["models"][-1])
    base = next(iter(summary["models"]))
    changes = [c for c in summary["comparisons"] if c["a"] == base and c["b"] in outer]
    return any(summary["models"][name][mode][axis]["void"] for name in outer) or any(
        c.get("void") for c in changes if (c["mode"], c["axis"]) == (mode, axis)
    )


def _study_finding(summary: Summary) -> Finding:
    """Return how the runs of a study differ from the base in the first score of its first mode, the lean in pairs."""
    base, modes = next(iter(summary["models"].items()))
    mode = "pairs" if "pairs" in modes else next(iter(modes))
    axis = next(iter(modes[mode]))
    changes = [c for c in summary["replicates"]["comparisons"] if (c["a"], c["mode"], c["axis"]) == (base, mode, axis)]
    rows, told = [], []
    for c in changes:
        is_told = c["q"] is not None and c["q"] < TOLD_APART
        more = ", void" if c.get("void") else f", q {p_value(c['q'])}"
        told += [c["b"]] if is_told else []
        rows.append(_row(c["b"], c["difference"], c["ci95"], "main" if is_told else "", bool(c.get("void")), more))
    headline = f"{len(told)} of {len(changes)} runs differ from “{base}” in {axis}"
    if not told:
        headline = f"Of {len(changes)} runs none was told from “{base}” in {axis}"
    lines = [f"{c['run']} along {c['kind']}: {verdict(c)}." for c in summary["curves"] if c["axis"] == axis]
    lead = f"Each minus “{base}” on the same prompts, {unit_of_mode(mode)}. {' '.join(lines)}"
    if note := read_seeds_note(summary):
        lead += f" {note}."
    return Finding(headline, lead, rows, ends_of_mode(mode))


def _score_finding(summary: Summary) -> Finding:
    """Return the comparison of the last model with the first in one mode, or where the only model stands."""
    asked = {name: modes for name, modes in summary["models"].items() if modes}
    if not asked and summary.get("write"):
        return Finding(*write_headline(summary["write"]), [])
    if not asked and summary.get("sycophancy"):
        return Finding(*sycophancy_headline(summary["sycophancy"]), [])
    if not asked:
        return Finding("Free text was written: it has no place on an axis", "", [])
    first, last = next(iter(asked)), list(asked)[-1]
    mode = "pairs" if "pairs" in asked[last] else next(iter(asked[last]))
    tests = [c for c in summary["comparisons"] if (c["a"], c["b"], c["mode"]) == (first, last, mode)]
    where = f"mode {mode}, in {unit_of_mode(mode)}, with 95 % intervals over statements"
    axes = summary["instrument"]["axes"]
    if tests:
        rows = [_change_row(summary["models"], c) for c in tests]
        political = [(c, row) for c, row in zip(tests, rows) if not c["placebo"]]
        found = [c for c, row in political if not row["void"] and c["q"] is not None and c["q"] < TOLD_APART]
        if all(row["void"] for _, row in political):
            headline = f"Nothing can be concluded about “{last}” and “{first}”: their scores are void"
        elif found:
            moved = ", ".join(f"{c['axis']} towards {_end(axes, c['axis'], c['difference'])}" for c in found)
            headline = f"“{last}” differs from “{first}”: {moved}"
        else:
            headline = f"No difference between “{last}” and “{first}” was told from chance"
        return Finding(headline, f"“{last}” − “{first}”, {where}.", rows, ends_of_mode(mode))
    rows = [_level_row(axis, value, axes) for axis, value in asked[last][mode].items()]
    axis, value = next(iter(asked[last][mode].items()))
    if value["void"]:
        headline = f"Where “{last}” stands cannot be told: its score is void"
    elif value["ci95"] and value["ci95"][0] * value["ci95"][1] > 0:
        headline = f"“{last}” stands towards {_end(axes, axis, value['estimate'])} on {axis}"
    else:
        headline = f"Where “{last}” stands was not told from the middle"
    return Finding(headline, f"“{last}”, {where}.", rows, ends_of_mode(mode))


def _end(axes: Mapping[str, Any], axis: str, x: float) -> str:
    about = axes.get(axis, {"low": "left", "high": "right"})
    return about["high" if x > 0 else "low"]


def is_void(models: Mapping[str, Any], c: Mapping[str, Any]) -> bool:
    """Return whether nothing is concluded from a comparison: a score of it is void, or its contrast."""
    return bool(c.get("void")) or any(models[c[side]][c["mode"]][c["axis"]]["void"] for side in "ab")


def _change_row(models: Mapping[str, Any], c: Mapping[str, Any]) -> dict[str, Any]:
    void = is_void(models, c)
    name = c["axis"] + (": must not move" if c["placebo"] else "")
    more = ", void" if void else f", q {p_value(c['q'])}"
    return _row(name, c["difference"], c["ci95"], "weak" if c["placebo"] else "", void, more)


def _level_row(axis: str, value: Mapping[str, Any], axes: Mapping[str, Any]) -> dict[str, Any]:
    is_placebo = axis in axes and axes[axis]["placebo"]
    return _row(axis, value["estimate"], value["ci95"], "weak" if is_placebo else "", bool(value["void"]))
