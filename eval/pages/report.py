# SPDX-License-Identifier: MIT
"""A run in words: ``report.html``, one self-contained page, and the scores as lines of text for the console.

No script, no font and no address is loaded; every text of a model, an instrument or a config is escaped.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from data.recipe.figures import interval, number, p_value, page_template
from eval.asking.results import model_name
from eval.pages.compass import caption, list_panels, panel_svgs
from eval.pages.finding import describe_finding, is_void
from eval.pages.panels import Summary, instrument_name
from eval.pages.statements import describe_statements, statement_texts
from eval.pages.sycophancy import list_examples, sycophancy_lines
from eval.pages.write import corrected, correction_note
from eval.scores.curves import TOLD_APART, verdict
from eval.scores.places import read_groups, read_seeds_note, seeds_note
from eval.scores.rivals import OTHER_LEANS
from eval.scores.shape import LEAST_HUMPS
from eval.scores.summary import Score, iterate_scores
from eval.statements.instruments import Instrument
from eval.statements.prompts import Prompt

# Rows of the table of items that moved most, for each model and mode.
MOST_MOVED = 10


def render_report(
    summary: Summary,
    instrument: Instrument,
    rows: Sequence[Mapping[str, Any]] = (),
    prompts: Iterable[Prompt] = (),
    date: str | None = None,
) -> str:
    """Return the page.

    Args:
        summary: What ``summary.json`` holds.
        instrument: Gives the texts of the items that it names.
        rows: The answers, each shown with its statement.
        prompts: Give the texts of the prompts of these rows.
        date: The day of the answers.
    """
    ends, prompts = read_groups(summary).ends(), list(prompts)
    main, more = list_panels(summary)
    statements = describe_statements(rows, instrument, prompts, ends)
    return page_template(
        "eval.pages",
        "report.html.jinja",
        verdict=verdict,
        said=partial(_said, summary),
        corrected=corrected,
        seeds_note=seeds_note,
    ).render(
        other_leans=OTHER_LEANS,
        seeds_note=read_seeds_note(summary),
        s=summary,
        finding=describe_finding(summary),
        model=model_name(summary["settings"]),
        date=date,
        base=next(iter(summary["models"])),
        ends=ends,
        panels=panel_svgs(summary, main),
        more_panels=panel_svgs(summary, more),
        caption=caption(summary),
        least_humps=LEAST_HUMPS,
        instrument_name=instrument_name(summary),
        texts=statement_texts(instrument),
        statements=statements,
        examples=list_examples(rows, prompts, ends),
        asked_models=ends,
        opened={one.id for of_topic in statements.values() for one in of_topic},
        shown=_shown_comparisons(summary),
        moved=[moved for name in ends[1:] for moved in _most_moved(summary, name)],
        between_modes=[flip for flip in summary["flips"] if flip["a"] == flip["b"]],
        between_models=[flip for flip in summary["flips"] if flip["a"] != flip["b"]],
        placebo=[name for name, axis in summary["instrument"]["axes"].items() if axis["placebo"]],
        flags=_flags(summary),
        doubts=_doubts(summary),
        without=_changed_without(summary),
        reasons=_missing_intervals(summary),
    )


def _said(summary: Summary, c: Mapping[str, Any]) -> str:
    """Return what is concluded from a comparison."""
    if is_void(summary["models"], c):
        return "void, nothing is concluded"
    return "told from 0" if c["q"] is not None and c["q"] < TOLD_APART else "not told from 0"


def score_table(summary: Summary) -> str:
    """Return scores, comparisons and flags, a line each.

    "items too" is the interval with the statements sampled as well, "items fixed" that over templates and orders
    with these statements.
    """
    lines = [sycophancy_lines(summary["sycophancy"])] if "sycophancy" in summary else []
    if not any(summary["models"].values()):  # no mode with a score
        return "\n".join(lines)
    head = f"{'mode':<10}{'axis':<12}"
    lines.append(f"{'model':<14}{head}{'estimate':>9}  {'95 %, items too':<20}{'95 %, items fixed':<20}answered")
    for name, mode, axis, v in iterate_scores(summary["models"]):
        estimate = "not id." if v["estimate"] is None else number(v["estimate"])
        intervals = f"{interval(v['ci95']):<20}{interval(v['ci95_items_fixed']):<20}"
        void = f"  VOID: {', '.join(v['void'])}" if v["void"] else ""
        void = void or (f"  doubtful: {', '.join(v['doubtful'])}" if v.get("doubtful") else "")
        answered = f"{v['n_answered']}/{v['n_items']}{correction_note(v)}"
        lines.append(f"{name:<14}{mode:<10}{axis:<12}{estimate:>9}  {intervals}{answered:>8}{void}")
    lines.append(f"{'difference':<22}{head}{'b - a':>9}  {'95 %, items too':<20}q")
    shown = _shown_comparisons(summary)
    for c in shown:
        must_not = "  placebo: must not move" + (", BUT MOVED" if c.get("moved") else "") if c["placebo"] else ""
        lines.append(f"{_difference(c)}{p_value(c['q'])}{must_not}")
    if more := len(summary["comparisons"]) - len(shown):
        lines.append(f"{more} more between checkpoints of a run or points of a dial: summary.json")
    for run in summary["replicates"]["runs"]:
        seeds = ", ".join(map(str, run["seeds"]))
        figures = f"{number(run['mean']):>9}  {interval(run['range']):<20}"
        lines.append(f"{run['run']:<22}{run['mode']:<10}{run['axis']:<12}{figures}mean and range of seeds {seeds}")
    for c in summary["replicates"]["comparisons"]:
        placebo = ", placebo" if c["placebo"] else ""
        lines.append(f"{_difference(c)}q {p_value(c['q'])}, {len(c['seeds'])} seeds{placebo}")
    lines += _evidence_lines(summary)
    lines += [f"{f['model']}, {f['mode']}: {f['name']}: {f['reason']}" for f in _flags(summary)]
    return "\n".join(lines)


def _evidence_lines(summary: Summary) -> list[str]:
    """Return each contrast of pairs with what vocabulary alone would show of it, a line each."""
    lines = [f"verdict: {summary['primary']['verdict']}"] if "primary" in summary else []
    lines += [summary["validation"]["said"]] if "validation" in summary else []
    for contrast in summary.get("evidence", []):
        row = contrast["subsets"][0]
        if beyond := row["beyond"]:
            words = f"vocabulary alone {number(row['lexical'])}; beyond it {number(beyond['estimate'])}"
            lines.append(f"{contrast['b']} - {contrast['a']}, pairs: {words} {interval(beyond['ci95'])}")
    return lines


def _difference(c: Mapping[str, Any]) -> str:
    between = f"{c['b']} - {c['a']}"
    return f"{between:<22}{c['mode']:<10}{c['axis']:<12}{number(c['difference']):>9}  {interval(c['ci95']):<20}"


def _shown_comparisons(summary: Summary) -> list[Mapping[str, Any]]:
    """Return the comparisons with the first model, and those between two that are no step of the way to another."""
    groups = read_groups(summary)
    ends = set(groups.ends())
    return [c for c in summary["comparisons"] if c["a"] == groups.base or {c["a"], c["b"]} <= ends]


def _flags(summary: Summary) -> list[dict[str, Any]]:
    return [
        {"model": name, "mode": mode, **flag}
        for name, modes in summary["diagnostics"].items()
        for mode, figures in modes.items()
        for flag in figures["flags"]
    ]


def _doubts(summary: Summary) -> list[Mapping[str, Any]]:
    """Return what the same pairs show beside the declared contrast that is against it, or not excluded."""
    declared = (summary["primary"]["a"], summary["primary"]["b"]) if "primary" in summary else None
    flags = [flag for e in summary.get("evidence", []) if (e["a"], e["b"]) == declared for flag in e["flags"]]
    return [flag for flag in flags if flag["state"] != "valid"]


def _missing_intervals(summary: Summary) -> list[dict[str, Any]]:
    """Return why scores have no interval, each reason once with the modes and axes that it is given for."""
    found: dict[tuple[str, str], list[str]] = {}
    kinds = {"ci95": "items too", "ci95_items_fixed": "items fixed"}
    for score in iterate_scores(summary["models"]):
        for key, reason in score.value["no_interval"].items():
            found.setdefault((kinds[key], reason), []).append(f"{score.mode}, {score.axis}")
    return [{"kind": kind, "reason": r, "scores": [*dict.fromkeys(scores)]} for (kind, r), scores in found.items()]


def _changed_without(summary: Summary) -> list[Score]:
    """Return the scores that are others without the contaminated statements."""
    without = (summary["contamination"].get("without") or {}).get("models", {})
    before = {(model, mode, axis): value for model, mode, axis, value in iterate_scores(summary["models"])}
    keys = ("estimate", "ci95")
    return [s for s in iterate_scores(without) if any(s.value[key] != before[s[:3]][key] for key in keys)]


def _most_moved(summary: Summary, name: str) -> list[dict[str, Any]]:
    """Return the items of each mode that one model moved most against the first, placebo left out."""
    by_mode: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(summary["items"], key=lambda row: (-abs(row["difference"]), row["item"])):
        if row["b"] == name and not row["placebo"]:
            by_mode.setdefault(row["mode"], []).append(row)
    modes = [mode for mode in summary["models"][name] if mode in by_mode]
    return [{"model": name, "mode": mode, "rows": by_mode[mode][:MOST_MOVED]} for mode in modes]
