# SPDX-License-Identifier: MIT
"""The scores of a run as lines of text, for the console."""

from collections.abc import Mapping
from typing import Any


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
    for c in summary["comparisons"]:
        between = f"{c['b']} - {c['a']}"
        q = "" if c["q"] is None else f"{c['q']:9.4f}"
        must_not = "  placebo: must not move" + (", BUT MOVED" if c.get("moved") else "") if c["placebo"] else ""
        line = f"{between:<22}{c['mode']:<8}{c['axis']:<12} {_number(c['difference'])}  {_interval(c['ci95'])}"
        lines.append(f"{line}  {q}{must_not}")
    for name, modes in summary["diagnostics"].items():
        for mode, found in modes.items():
            lines += [f"{name}, {mode}: {f['name']}: {f['reason']}" for f in found["flags"]]
    return "\n".join(lines)


def _number(x: float | None) -> str:
    return f"{'not id.':>9}" if x is None else f"{x:+9.3f}"


def _interval(interval: list[float] | None) -> str:
    return f"{'':18}" if interval is None else f"{'[{:+.3f}, {:+.3f}]'.format(*interval):<18}"
