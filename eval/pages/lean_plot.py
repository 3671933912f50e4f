# SPDX-License-Identifier: MIT
"""Panels of a score along a dial, along training or along a study, and of the distance from the base."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.pages.interval_plot import STYLES, UNITS, short, style_of
from eval.scores.curves import MONOTONE

Summary = Mapping[str, Any]
Curve = Mapping[str, Any]


def curve_panels(summary: Summary) -> list[Callable[[Any], None]]:
    """Return what draws each panel: one for each dial or kind of run, mode and score, and one for the drift."""
    found: dict[tuple, list[Curve]] = {}
    for curve in summary["curves"]:
        if curve["mode"] != "pairs" or curve["axis"] == "lean":  # the axes of pairs are parts of their lean
            dial = curve["run"] if curve["kind"] == "dial" else ""
            found.setdefault((curve["kind"], dial, curve["mode"], curve["axis"]), []).append(curve)
    panels = [lambda ax, curves=curves: draw_curves(ax, summary, curves) for curves in found.values()]
    return panels + ([lambda ax: draw_drift(ax, summary)] if summary["drift"] else [])


def draw_curves(ax: Any, summary: Summary, curves: Sequence[Curve]) -> None:
    """One score along one dial, or along several runs or lines of a study.

    Bars are the intervals of the change from the base; the grey band is the base's own. Replicates are small points
    about their mean.
    """
    kind, mode, axis = (curves[0][key] for key in ("kind", "mode", "axis"))
    styles = style_of(summary)
    of_base = next(iter(summary["models"].values()))[mode][axis]
    if of_base["ci95"]:
        ax.axhspan(*of_base["ci95"], color="#eeeeee", zorder=0)
    ax.axhline(of_base["estimate"], color="#777777", lw=0.8, zorder=1)
    low, high = (float(end(x for curve in curves for x in curve["x"])) for end in (min, max))
    for number, curve in enumerate(curves):
        style = STYLES[styles[curve["models"][-1]]]
        color, line = ("#555555", "-") if kind == "dial" else (style[0], style[2])
        mean, model_at = curve["mean"], dict(zip(curve["x"], curve["models"]))
        # side by side, so that the bars of two lines at one place can be told apart
        places = [x + (number - (len(curves) - 1) / 2) * 0.012 * (high - low) for x in mean["x"]]
        ax.plot(places, mean["estimate"], line, color=color, lw=1.2, zorder=2)
        for k, (x, place) in enumerate(zip(mean["x"], places)):
            bars = {key: mean[key][k] for key in ("ci95", "ci95_items_fixed")}
            name = model_at[x]
            _draw_point(ax, place, mean["estimate"][k], bars, styles[name], summary["models"][name][mode][axis])
            seeds = [y for at, y in zip(curve["x"], curve["estimate"]) if at == x]
            if len(seeds) > 1:
                ax.plot([place + 0.012 * (high - low)] * len(seeds), seeds, ".", color=style[0], ms=5, zorder=5)
        ax.plot([], [], style[1] + line, color=style[0], label=short(curve["run"]))  # for the legend
    if kind == "dial":
        ticks = {low: f"{low:g}".replace("-", "−"), low / 2: "", 0.0: "0\nbase", high / 2: "", high: f"+{high:g}"}
        others = _others(summary, mode, axis) if curves[0]["run"] == _first_dial(summary) else {}
        for k, (name, value) in enumerate(others.items(), start=1):
            x = high + k * 0.3 * (high - low) / 2
            _draw_point(ax, x, value["estimate"], value["bars"], styles[name], value)
            ticks[x] = short(name)
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.set_xlabel(f"dial: {short(curves[0]['run'])}")
    else:
        ax.set_xlabel(kind)
        if len(curves) > 1:
            ax.legend(fontsize=8, frameon=False)
    about = summary["instrument"]["axes"].get(axis, {"low": "left", "high": "right"})
    ax.set_ylabel(f"{about['low']}  ←  {UNITS.get(mode, 'coordinate')}  →  {about['high']}")
    rhos = ["–" if c["rank_correlation"] is None else f"{c['rank_correlation']:+.2f}" for c in curves]
    ax.set_title(f"{mode}: {axis} against the {kind}\nrank correlation {', '.join(rhos)}", fontsize=10)


def verdict(curve: Curve) -> str:
    """Say in words whether the score is monotone along a curve."""
    rho, n = curve["rank_correlation"], curve["n_up"] + curve["n_down"]
    if rho is None:
        return "constant"
    what = "monotone" if abs(rho) >= MONOTONE else "not monotone"
    return f"{what}, rank correlation {rho:+.2f}, {max(curve['n_up'], curve['n_down'])} of {n} steps one way"


def draw_drift(ax: Any, summary: Summary) -> None:
    """Distance from the first model by step, a line for each run and mode, each from 0 at step 0."""
    for k, drift in enumerate(summary["drift"]):
        color, marker, line = STYLES[(k + 1) % len(STYLES)]
        steps, values = [0, *drift["steps"]], [0, *drift["magnitude"]]
        text = f"{short(drift['run'])}, {drift['mode']} ({UNITS.get(drift['mode'], 'coordinate')})"
        ax.plot(steps, values, line, marker=marker, color=color, label=text)
        if drift["half_step"] is not None:
            ax.axvline(drift["half_step"], color=color, lw=0.8, ls=line)
    ax.set(xlabel="step", ylabel="distance from the base")
    ax.set_ylim(bottom=0)
    ax.set_title("drift; upright lines: half of it", fontsize=10)
    ax.legend(fontsize=8, frameon=False)


def _draw_point(ax: Any, x: float, y: float, bars: Mapping[str, Any], style: int, score: Mapping[str, Any]) -> None:
    color, marker, _ = STYLES[style]
    for key, width in (("ci95", 1.2), ("ci95_items_fixed", 3.2)):
        if bars[key] and bars[key][0] < bars[key][1]:
            ax.plot([x, x], bars[key], color=color, lw=width, solid_capstyle="butt", zorder=3)
    face, edge = ("white", color) if score.get("void") else (color, "white")
    ax.plot([x], [y], marker, mfc=face, mec=edge, color=color, ms=8, ls="", zorder=4)


def _first_dial(summary: Summary) -> str | None:
    return next((curve["run"] for curve in summary["curves"] if curve["kind"] == "dial"), None)


def _others(summary: Summary, mode: str, axis: str) -> dict[str, Any]:
    """The models that lie on no curve, with the intervals of their change from the base put around the estimate."""
    base, *names = summary["models"]
    on_curves = {name for curve in summary["curves"] for name in curve["models"]}
    changes = {c["b"]: c for c in summary["comparisons"] if (c["a"], c["mode"], c["axis"]) == (base, mode, axis)}
    others = {}
    for name in [name for name in names if name not in on_curves and name in changes]:
        score, change = summary["models"][name][mode][axis], changes[name]
        if score["estimate"] is not None and change["difference"] is not None:
            start = score["estimate"] - change["difference"]
            bars = {k: change[k] and [start + end for end in change[k]] for k in ("ci95", "ci95_items_fixed")}
            others[name] = score | {"bars": bars}
    return others
