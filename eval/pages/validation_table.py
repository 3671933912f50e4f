# SPDX-License-Identifier: MIT
"""What a validation of judges found, as text."""

from collections.abc import Mapping
from typing import Any

Found = Mapping[str, Any]


def validation_table(found: Found) -> str:
    """Return a table of judges and people against the labels, what each class fares, and the panel's agreement."""
    lines = [f"{'':28}{'kappa':>20}{'macro-F1':>20}{'accuracy':>20}{'unparsed':>10}  verdict"]
    for name, judge in found["judges"].items():
        verdict = "believed" if judge["believed"] else f"not believed (floor {judge['min_kappa']:g})"
        lines.append(f"{_line(name, judge)}  {verdict}")
        if "coarse" in judge:
            lines.append(_line("  coarse classes", judge["coarse"]))
    lines += [f"{_line(name, rater)}  a person" for name, rater in found["raters"].items()]
    for name, judge in found["judges"].items():
        lines += [
            "",
            f"{name}: F1 of each class ({', '.join(f'{k}: {n}' for k, n in judge['problems'].items()) or 'all read'})",
        ]
        for label, of in judge["classes"].items():
            lines.append(f"  {label:10}{of['n']:5} texts, said {of['said']:4} times, F1 {_number(of['f1'])}")
        swap = judge["cue_swap"]
        if swap and swap["measured"]:
            lines.append(
                f"  party words exchanged in {swap['n_judged_twice']} texts: {swap['changed_class']:.1%} change class, "
                f"mean shift {_number(swap['mean_shift'])}"
                + (f", {swap['towards_cues']:+.2f} towards the words" if swap["towards_cues"] is not None else "")
            )
        elif swap:
            lines.append(f"  party words exchanged: not measured ({swap.get('reason', 'no text has any')})")
    if found["panel"]:
        lines += ["", "panel: Cohen's kappa of every two, Krippendorff's alpha of all"]
        lines += [
            f"  {p['a']} and {p['b']}: {_number(p['estimate'])} {_interval(p['ci95'])}, {p['n']} texts"
            for p in found["panel"]["kappa"]
        ]
        for key, what in (("alpha", "classes"), ("alpha_values", "values")):
            a = found["panel"][key]
            lines.append(f"  alpha of the {what} ({a['level']}): {_number(a['estimate'])} {_interval(a['ci95'])}")
    return "\n".join(lines)


def _line(name: str, figures: Found) -> str:
    cells = [
        f"{_number(figures[m]['estimate'])} {_interval(figures[m]['ci95'])}" for m in ("kappa", "macro_f1", "accuracy")
    ]
    return f"{name[:27]:28}" + "".join(f"{cell:>20}" for cell in cells) + f"{figures['unparsed']:>10}"


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3f}"


def _interval(x: list[float] | None) -> str:
    return "" if x is None else f"[{x[0]:.2f}, {x[1]:.2f}]"
