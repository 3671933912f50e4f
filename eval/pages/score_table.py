# SPDX-License-Identifier: MIT
"""The scores of a run as lines of text, for the console."""

from collections.abc import Mapping
from typing import Any

from eval.scores.drift import ends_of


def score_table(summary: Mapping[str, Any]) -> str:
    """Return scores, comparisons and flags, a line each.

    "items too" is the interval with the statements sampled as well, "items fixed" that over templates and orders
    with these statements.
    """
    lines = [
        f"{'model':<14}{'mode':<8}{'axis':<12}{'estimate':>9}  {'95 %, items too':<20}95 %, items fixed   answered"
    ]
    for name, modes in summary["models"].items():
        for mode, axes in modes.items():
            for axis, v in axes.items():
                n = f"{v['n_answered']}/{v['n_items']}"
                intervals = f"{_interval(v['ci95'])}  {_interval(v['ci95_items_fixed'])}"
                void = f"  VOID: {', '.join(v['void'])}" if v["void"] else ""
                lines.append(f"{name:<14}{mode:<8}{axis:<12}{_number(v['estimate'])}  {intervals}  {n:>8}{void}")
    lines.append(f"{'difference':<22}{'mode':<8}{'axis':<12}{'':>1}{'b - a':>9}  {'95 %, items too':<20}      q")
    shown = [c for c in summary["comparisons"] if is_shown(c, list(summary["models"]))]
    for c in shown:
        between = f"{c['b']} - {c['a']}"
        q = "" if c["q"] is None else f"{c['q']:9.4f}"
        must_not = "  placebo: must not move" + (", BUT MOVED" if c.get("moved") else "") if c["placebo"] else ""
        line = f"{between:<22}{c['mode']:<8}{c['axis']:<12} {_number(c['difference'])}  {_interval(c['ci95'])}"
        lines.append(f"{line}  {q}{must_not}")
    if more := len(summary["comparisons"]) - len(shown):
        lines.append(f"{more} more between checkpoints of a run or points of a dial: summary.json")
    for run in summary["replicates"]["runs"]:
        of = f"{run['run']:<22}{run['mode']:<8}{run['axis']:<12} {_number(run['mean'])}  {_interval(run['range'])}"
        lines.append(f"{of}  mean and range of seeds {', '.join(map(str, run['seeds']))}")
    for c in summary["replicates"]["comparisons"]:
        line = f"{c['b']} - {c['a']}: {c['mode']}, {c['axis']} {_number(c['difference'])}  {_interval(c['ci95'])}"
        lines.append(f"{line}  q {c['q']}, {len(c['seeds'])} seeds" + (", placebo" if c["placebo"] else ""))
    for name, modes in summary["diagnostics"].items():
        for mode, found in modes.items():
            lines += [f"{name}, {mode}: {f['name']}: {f['reason']}" for f in found["flags"]]
    return "\n".join(lines)


def is_shown(comparison: Mapping[str, Any], models: list[str]) -> bool:
    """Return whether a comparison is with the first model, or between two that are no step of the way to another."""
    return comparison["a"] == models[0] or {comparison["a"], comparison["b"]} <= set(ends_of(models))


def _number(x: float | None) -> str:
    return f"{'not id.':>9}" if x is None else f"{x:+9.3f}"


def _interval(interval: list[float] | None) -> str:
    return f"{'':18}" if interval is None else f"{'[{:+.3f}, {:+.3f}]'.format(*interval):<18}"
