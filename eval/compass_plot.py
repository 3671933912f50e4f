# SPDX-License-Identifier: MIT
"""The picture of a run, drawn from ``summary.json`` alone: the compass and panels beside it."""

import io
import math
import textwrap
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from eval.drift import ends_of, group_of, paths_from_base
from eval.interval_plot import STYLES, draw_differences, draw_scores, short, style_of
from eval.lean_plot import curve_panels

Summary = Mapping[str, Any]
Panel = Callable[[Any], None]

# Points that span less of an axis than this are shown again, larger.
CROWDED = 0.4
# From the 95 % interval of each of two independent coordinates to the 95 % region of both: sqrt(chi2_2) / z.
REGION = math.sqrt(5.991465) / 1.959964


def require_matplotlib() -> None:
    """Raise ImportError, with the command that helps, where the picture could not be drawn."""
    if find_spec("matplotlib") is None:
        raise ImportError('compass.png needs matplotlib: pip install -e ".[report]"')


def draw_compass(summary: Summary) -> dict[str, bytes]:
    """Draw all panels of a ``summary.json`` into one picture; return it as ``png`` and ``svg``."""
    pyplot = _pyplot()
    panels = list_panels(summary)
    n_columns = min(len(panels), 3 if len(panels) > 4 else 2)
    n_rows = -(-len(panels) // n_columns)
    size = (5.4 * n_columns, 5.2 * n_rows + 1)
    figure, grid = pyplot.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for panel, ax in zip(panels, grid.flat):
        panel(ax)
    for ax in grid.flat[len(panels) :]:
        ax.set_axis_off()
    handles = _legend(grid.flat[0], summary)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 3 * n_columns), frameon=False)
    text = textwrap.fill(caption(summary), width=88 * n_columns)
    figure.supxlabel(text, fontsize=8, ha="left", x=0.01, color="#333333")
    return _save(figure, "png", "svg")


def panel_svgs(summary: Summary) -> list[str]:
    """Return each panel as an SVG of its own, for a page that puts them beside or below each other."""
    pyplot = _pyplot()
    drawn = []
    for panel in list_panels(summary):
        figure, ax = pyplot.subplots(figsize=(4.4, 4.6), layout="constrained")
        panel(ax)
        if ax.get_legend() is None:
            handles = _legend(ax, summary)
            figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
        # the XML declaration before it has no place inside a page
        drawn.append("<svg" + _save(figure, "svg")["svg"].decode().partition("<svg")[2])
    return drawn


def list_panels(summary: Summary) -> list[Panel]:
    """Return what draws each panel; a mode that was not run has none."""
    panels: list[Panel] = []
    modes = dict.fromkeys(mode for model in summary["models"].values() for mode in model)
    for mode in modes:
        axes = [a for a, axis in summary["instrument"]["axes"].items() if not axis["placebo"]]
        axes = [a for a in axes if any(a in model.get(mode, {}) for model in summary["models"].values())]
        if mode != "pairs" and len(axes) >= 2:
            panels.append(lambda ax, mode=mode, axes=axes: draw_plane(ax, summary, mode, axes[:2], zoomed=False))
            if _is_crowded(summary, mode, axes[:2]):
                panels.append(lambda ax, mode=mode, axes=axes: draw_plane(ax, summary, mode, axes[:2], zoomed=True))
        panels.append(lambda ax, mode=mode: draw_scores(ax, summary, mode))
        if any(c["mode"] == mode and c["ci95"] for c in summary["comparisons"]):
            panels.append(lambda ax, mode=mode: draw_differences(ax, summary, mode))
    return panels + curve_panels(summary)


def draw_plane(ax: Any, summary: Summary, mode: str, axes: list[str], zoomed: bool) -> None:
    """Draw the models on two axes with the 95 % region of each mean, and what leads from the first to the others."""
    from matplotlib.patches import Ellipse

    about = [summary["instrument"]["axes"][axis] for axis in axes]
    limits = [a["range"] for a in about]
    if zoomed:
        ends = _ends(summary, mode, axes)
        half = 0.65 * max(high - low for low, high in ends) or 1.0
        limits = [((low + high) / 2 - half, (low + high) / 2 + half) for low, high in ends]
    points = _points(summary, mode, axes)
    styles, ends = style_of(summary), ends_of(list(summary["models"]))
    for name, (x, y) in points.items():
        color, marker, line = STYLES[styles[name]]
        center = (x["estimate"], y["estimate"])
        if x["ci95"] and y["ci95"] and name in ends:
            width, height = (REGION * (v["ci95"][1] - v["ci95"][0]) for v in (x, y))
            ax.add_patch(Ellipse(center, width, height, fill=False, ec=color, ls=line, lw=1.2, zorder=2))
        hollow = x.get("void") or y.get("void")
        faces = {"mfc": "white", "mec": color} if hollow else {"mfc": color, "mec": "white"}
        ax.plot(*center, marker, **faces, ms=9 if name in ends else 5, zorder=4)
    for start, end in _moves(summary, points):
        arrow = {"arrowstyle": "->", "color": "#777777", "lw": 1.2, "shrinkA": 4, "shrinkB": 4}
        ax.annotate("", end, start, arrowprops=arrow, zorder=3)
    ax.axhline(sum(about[1]["range"]) / 2, color="#999999", lw=0.8, zorder=0)
    ax.axvline(sum(about[0]["range"]) / 2, color="#999999", lw=0.8, zorder=0)
    ax.set(xlim=limits[0], ylim=limits[1], box_aspect=1)
    ax.set_xlabel(f"{about[0]['low']}  ←  {axes[0]}  →  {about[0]['high']}")
    ax.set_ylabel(f"{about[1]['low']}  ←  {axes[1]}  →  {about[1]['high']}")
    ax.set_title(f"{mode}: the part where the points lie" if zoomed else f"{mode}: the whole compass", fontsize=10)


def caption(summary: Summary) -> str:
    """Say in words what the picture shows, and what it cannot show."""
    instrument = summary["instrument"]
    text = [
        f"Stance under this instrument and these prompts: {instrument['name']} {instrument['version']}.",
        "Thick lines: 95 % interval over templates and orders, these statements fixed. Thin lines and regions: "
        "statements sampled too (twins together). All models answer the same prompts: judge a change by its paired "
        "difference, not by the overlap of intervals.",
    ]
    if summary["curves"]:
        text.append("Along a dial or training: intervals of the change from the base; grey: the base's own.")
    values = [
        (f"{name} on {axis} ({mode})", value)
        for name, modes in summary["models"].items()
        for mode, axes in modes.items()
        for axis, value in axes.items()
    ]
    if unplaced := [where for where, value in values if value["estimate"] is None]:
        text.append(f"Not identified (no answer): {', '.join(unplaced)}.")
    if void := [where for where, value in values if value.get("void") and value["estimate"] is not None]:
        text.append(f"Void (hollow marker; see the report): {', '.join(void)}.")
    return " ".join(text)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    # a model may be called anything: no name is a formula; SVG text stays text, and ids are the same in every run
    matplotlib.rcParams.update({"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "politune"})
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, *formats: str) -> dict[str, bytes]:
    saved = {}
    for name in formats:
        buffer = io.BytesIO()
        # no date, so that the same summary gives the same bytes; no address
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, dpi=120, format=name, metadata=nothing if name == "svg" else None)
        saved[name] = buffer.getvalue()
    _pyplot().close(figure)
    return saved


def _legend(ax: Any, summary: Summary) -> list[Any]:
    """One entry for each style: a model, or the run that its checkpoints share."""
    styles, group = style_of(summary), group_of(list(summary["models"]))
    labels: dict[int, str] = {}
    for name, style in styles.items():
        labels.setdefault(style, short(group[name]))
    return [
        ax.plot([], [], STYLES[k][1], color=STYLES[k][0], markeredgecolor="white", ms=9, label=label)[0]
        for k, label in labels.items()
    ]


def _points(summary: Summary, mode: str, axes: list[str]) -> dict[str, list[dict]]:
    """The models that have a point on both axes."""
    points = {name: [m[mode].get(a) for a in axes] for name, m in summary["models"].items() if mode in m}
    return {name: p for name, p in points.items() if all(v and v["estimate"] is not None for v in p)}


def _moves(summary: Summary, points: Mapping[str, list[dict]]) -> list[tuple]:
    """Start and end of each arrow: from the first model, and along the checkpoints of a run or the points of a dial."""
    chains = paths_from_base(list(summary["models"]))
    at = {name: (x["estimate"], y["estimate"]) for name, (x, y) in points.items()}
    return [(at[a], at[b]) for chain in chains for a, b in zip(chain, chain[1:]) if a in at and b in at]


def _ends(summary: Summary, mode: str, axes: list[str]) -> list[tuple[float, float]]:
    """Least and greatest value of points and intervals on each axis."""
    points = _points(summary, mode, axes).values()
    values = [[x for p in points for x in (p[k]["estimate"], *(p[k]["ci95"] or []))] for k in range(2)]
    return [(min(v, default=0.0), max(v, default=0.0)) for v in values]


def _is_crowded(summary: Summary, mode: str, axes: list[str]) -> bool:
    ranges = [summary["instrument"]["axes"][axis]["range"] for axis in axes]
    ends = _ends(summary, mode, axes)
    return all(high - low < CROWDED * (r[1] - r[0]) for (low, high), r in zip(ends, ranges))
