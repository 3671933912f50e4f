# SPDX-License-Identifier: MIT
"""The picture of a run, drawn from ``summary.json`` alone: the plane of two axes, and panels beside it."""

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from eval.asking.results import model_name
from eval.pages import panels
from eval.pages.finding import describe_finding
from eval.pages.panels import Panel, Summary
from eval.scores.places import read_groups, read_seeds_note
from eval.scores.summary import iterate_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Points that span less of an axis than this are shown again, larger.
CROWDED = 0.4
# From the 95 % interval of each of two independent coordinates to the 95 % region of both: sqrt(chi2_2) / z.
REGION = math.sqrt(5.991465) / 1.959964
STANCE = "Stance under this instrument and these prompts: {}."
# What stands in a page for the ink, the greys and the paper of a picture: they follow its light or dark.
OF_PAGE = {
    "#000000": "currentColor",
    "#333333": "currentColor",
    "#ffffff": "var(--paper)",
    "#777777": "var(--soft)",
    "#555555": "var(--soft)",
    "#999999": "var(--edge)",
    "#eeeeee": "var(--wash)",
}


def require_matplotlib() -> None:
    """Raise ImportError, with the command that helps, where the picture could not be drawn."""
    if find_spec("matplotlib") is None:
        raise ImportError('compass.png needs matplotlib: pip install -e ".[report]"')


def draw_compass(summary: Summary) -> dict[str, bytes]:
    """Draw what a run found into one picture, under its headline; return it as ``png`` and ``svg``.

    Where a contrast of pairs was declared, its plane and its rows; else all panels.
    """
    drawn, more = list_panels(summary)
    finding, words = describe_finding(summary), caption(summary)
    if finding.contrast:
        drawn = [*drawn, partial(panels.draw_finding, title=finding.contrast, rows=finding.rows)]
        words = f"{STANCE.format(panels.instrument_name(summary))} {finding.lead}"
    else:
        drawn = [*drawn, *more]
    n_columns = min(len(drawn), 3 if len(drawn) > 4 else 2)
    n_rows = -(-len(drawn) // n_columns)
    size = (5.4 * n_columns, 5.2 * n_rows + 1.4)
    figure, grid = _pyplot().subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for panel, ax in zip(drawn, grid.flat):
        panel(ax)
    for ax in grid.flat[len(drawn) :]:
        ax.set_axis_off()
    handles = _legend(grid.flat[0], summary)
    tables = (getattr(panel, "func", None) is panels.draw_run_table for panel in drawn)
    if all(tables):  # a table's rows have names, and it has no lines
        handles, words = [], STANCE.format(panels.instrument_name(summary))
    headline = textwrap.fill(f"{model_name(summary['settings'])}: {finding.headline}", width=45 * n_columns)
    n_handles = min(len(handles), 3 * n_columns) or 1
    legend = figure.legend(handles=handles, loc="outside upper center", ncols=n_handles, frameon=False, title=headline)
    legend.get_title().set(fontsize=13, fontweight="bold", multialignment="center")
    figure.supxlabel(textwrap.fill(words, width=88 * n_columns), fontsize=8, ha="left", x=0.01, color="#333333")
    return _save(figure, "png", "svg")


def panel_svgs(summary: Summary, drawn: Sequence[Panel]) -> list[str]:
    """Return each panel as an SVG of its own, in the colors of the page that it stands in, light or dark."""
    svgs = []
    for panel in drawn:
        figure, ax = _pyplot().subplots(figsize=(4.4, 4.6), layout="constrained")
        panel(ax)
        if ax.get_legend() is None:
            handles = _legend(ax, summary)
            n_columns = min(len(handles), 60 // (8 + max(len(handle.get_label()) for handle in handles)))
            figure.legend(handles=handles, loc="outside upper center", ncols=n_columns, frameon=False, fontsize=9)
        # the XML declaration before it has no place inside a page
        svg = "<svg" + _save(figure, "svg")["svg"].decode().partition("<svg")[2]
        for color, of_page in OF_PAGE.items():
            svg = svg.replace(color, of_page)
        svgs.append(svg)
    return svgs


def list_panels(summary: Summary) -> tuple[list[Panel], list[Panel]]:
    """Return the panels of a summary, those that show what it found apart; a mode that was not run has none."""
    drawn: list[Panel] = []
    scored: dict[str, set[str]] = {}
    for score in iterate_scores(summary["models"]):
        scored.setdefault(score.mode, set()).add(score.axis)
    about = summary["instrument"]["axes"]
    planes: list[Panel] = []
    tabled = set()  # modes whose table of runs has every axis
    for mode, of_mode in scored.items():
        axes = [axis for axis in about if axis in of_mode and not about[axis]["placebo"]][:2]
        if len(axes) == 2 and mode == "pairs" and not summary["replicates"]["runs"]:
            planes.append(partial(draw_changes, summary=summary, axes=axes))
        elif len(axes) == 2 and mode != "pairs":
            drawn.append(partial(draw_plane, summary=summary, mode=mode, axes=axes))
            ranges, spans = [about[axis]["range"] for axis in axes], _spans(_points(summary, mode, axes))
            if all(high - low < CROWDED * (r[1] - r[0]) for (low, high), r in zip(spans, ranges)):
                drawn.append(partial(draw_plane, summary=summary, mode=mode, axes=axes, zoomed=True))
        if any(run["mode"] == mode for run in summary["replicates"]["runs"]):
            changes = panels.run_changes(summary, mode)
            if len({run for run, _ in changes}) <= panels.MOST_MARKED:
                drawn.append(partial(panels.draw_replicates, summary=summary, mode=mode))
            else:
                drawn.append(partial(panels.draw_run_table, mode=mode, changes=changes))
                tabled.add(mode)
            continue
        drawn.append(partial(panels.draw_scores, summary=summary, mode=mode))
        if any(c["mode"] == mode and c["ci95"] for c in summary["comparisons"]):
            drawn.append(partial(panels.draw_differences, summary=summary, mode=mode))
    curves = panels.curve_panels(summary)
    modes = [m for m in dict.fromkeys(entry["mode"] for entry in summary.get("transfer", ())) if m not in tabled]
    transfers = [panels.transfer_changes(summary, mode) for mode in modes]
    curves = [partial(panels.draw_run_table, mode=m, changes=changes) for m, changes in zip(modes, transfers)] + curves
    planes = planes if len(summary["models"]) > 1 else []
    if summary["replicates"]["runs"]:
        return curves[:1] or drawn[:1], [*drawn[not curves :], *curves[1:]]
    if curves:
        return curves[:1], [*planes, *drawn, *curves[1:]]
    return (planes, drawn) if planes else (drawn[:1], drawn[1:])


def caption(summary: Summary) -> str:
    """Return in words what the picture shows, and what it cannot show."""
    text = [
        STANCE.format(panels.instrument_name(summary)),
        f"{_lines_drawn(summary)} All models answer the same prompts: judge a change by its paired difference, not by "
        "the overlap of intervals.",
    ]
    if note := read_seeds_note(summary):
        text.append(f"{note[0].upper()}{note[1:]}.")
    if summary["curves"]:
        text.append("Along a curve: intervals of the change from the base; grey: the base's own.")
    if summary["replicates"]["runs"]:
        text.append("Small points: single seeds about their mean; the spread between seeds is in the intervals.")
    scores = [(f"{s.model} on {s.axis} ({s.mode})", s.value) for s in iterate_scores(summary["models"])]
    if unplaced := [name for name, value in scores if value["estimate"] is None]:
        text.append(f"Not identified (no answer): {', '.join(unplaced)}.")
    if void := [name for name, value in scores if value.get("void") and value["estimate"] is not None]:
        text.append(f"Void (hollow marker; see the report): {', '.join(void)}.")
    return " ".join(text)


def _lines_drawn(summary: Summary) -> str:
    """Return what the intervals of the scores and of their changes are; thick ones need many prompts."""
    values = [score.value for score in iterate_scores(summary["models"])] + summary["comparisons"]
    if not any(value["ci95_items_fixed"] for value in values):
        return "Lines and regions: 95 % interval, statements sampled too (twins together)."
    thick = "Thick lines: 95 % interval over templates and orders, these statements fixed."
    return f"{thick} Thin lines and regions: statements sampled too (twins together)."


def draw_changes(ax: "Axes", summary: Summary, axes: list[str]) -> None:
    """Draw the paired change of each model from the first one on two axes of pairs, with its 95 % region."""
    from matplotlib.patches import Ellipse

    base, *others = read_groups(summary).ends()
    styles = panels.style_of_each(summary)
    changes = {(c["b"], c["axis"]): c for c in summary["comparisons"] if (c["a"], c["mode"]) == (base, "pairs")}
    reach = [0.0]
    for name in others:
        x, y = (changes.get((name, axis)) for axis in axes)
        if not x or not y or x["difference"] is None or y["difference"] is None:
            continue
        style, center = styles[name], (x["difference"], y["difference"])
        reach += map(abs, center)
        if x["ci95"] and y["ci95"]:
            width, height = (REGION * (v["ci95"][1] - v["ci95"][0]) for v in (x, y))
            ax.add_patch(Ellipse(center, width, height, fc=style.color, alpha=0.12, zorder=1))
            ax.add_patch(Ellipse(center, width, height, fill=False, ec=style.color, ls=style.line, lw=1.5, zorder=2))
            reach += [abs(center[0]) + width / 2, abs(center[1]) + height / 2]
        arrow = {"arrowstyle": "-|>", "color": style.color, "lw": 2, "shrinkA": 0, "shrinkB": 5}
        ax.annotate("", center, (0, 0), arrowprops=arrow, zorder=3)
        face, edge = panels.marker_colors(style, bool(x.get("void") or y.get("void")))
        ax.plot(*center, style.marker, mfc=face, mec=edge, color=style.color, ms=10, zorder=4)
    ax.plot(0, 0, styles[base].marker, color=styles[base].color, ms=8, zorder=4)
    ax.axhline(0, color="#999999", lw=0.8, zorder=0)
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    half = 1.08 * max(reach) or 1.0
    ax.set(xlim=(-half, half), ylim=(-half, half), title=f"pairs: change from {panels.short(base)}, 95 % regions")
    about = [summary["instrument"]["axes"][axis] for axis in axes]
    x_label, y_label = (f"{a['low']}  ←  {axis}, nats a token  →  {a['high']}" for axis, a in zip(axes, about))
    ax.set(xlabel=x_label, ylabel=y_label)


def draw_plane(ax: "Axes", summary: Summary, mode: str, axes: list[str], zoomed: bool = False) -> None:
    """Draw the models on two axes with the 95 % region of each mean, and what leads from the first to the others."""
    from matplotlib.patches import Ellipse

    groups, styles = read_groups(summary), panels.style_of_each(summary)
    x_axis, y_axis = (summary["instrument"]["axes"][axis] for axis in axes)
    points, ends = _points(summary, mode, axes), groups.ends()
    limits = [x_axis["range"], y_axis["range"]]
    if zoomed:
        spans = _spans(points)
        half = 0.65 * max(high - low for low, high in spans) or 1.0
        limits = [((low + high) / 2 - half, (low + high) / 2 + half) for low, high in spans]
    centers = {name: (x["estimate"], y["estimate"]) for name, (x, y) in points.items()}
    for name, (x, y) in points.items():
        color, marker, line = styles[name]
        if x["ci95"] and y["ci95"] and name in ends:
            width, height = (REGION * (v["ci95"][1] - v["ci95"][0]) for v in (x, y))
            ax.add_patch(Ellipse(centers[name], width, height, fill=False, ec=color, ls=line, lw=1.2, zorder=2))
        face, edge = panels.marker_colors(styles[name], bool(x.get("void") or y.get("void")))
        ax.plot(*centers[name], marker, mfc=face, mec=edge, ms=9 if name in ends else 5, zorder=4)
    arrow = {"arrowstyle": "->", "color": "#777777", "lw": 1.2, "shrinkA": 4, "shrinkB": 4}
    for a, b in (step for chain in groups.paths_from_base() for step in itertools.pairwise(chain)):
        if a in centers and b in centers:
            ax.annotate("", centers[b], centers[a], arrowprops=arrow, zorder=3)
    ax.axhline(sum(y_axis["range"]) / 2, color="#999999", lw=0.8, zorder=0)
    ax.axvline(sum(x_axis["range"]) / 2, color="#999999", lw=0.8, zorder=0)
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.set_xlabel(f"{x_axis['low']}  ←  {axes[0]}  →  {x_axis['high']}")
    ax.set_ylabel(f"{y_axis['low']}  ←  {axes[1]}  →  {y_axis['high']}")
    ax.set_title(f"{mode}: the part where the points lie" if zoomed else f"{mode}: the whole compass")


def _points(summary: Summary, mode: str, axes: list[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the two scores of each model that has a point on both axes."""
    points = {name: [m[mode].get(a) for a in axes] for name, m in summary["models"].items() if mode in m}
    return {name: p for name, p in points.items() if all(v and v["estimate"] is not None for v in p)}


def _spans(points: Mapping[str, list[Mapping[str, Any]]]) -> list[tuple[float, float]]:
    """Return least and greatest value of points and intervals on each axis."""
    values = [[x for p in points.values() for x in (p[k]["estimate"], *(p[k]["ci95"] or []))] for k in range(2)]
    return [(min(v, default=0.0), max(v, default=0.0)) for v in values]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    # a model may be called anything: no name is a formula; SVG text stays text, and ids are the same in every run
    settings = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "politune", "axes.titlesize": 10}
    matplotlib.rcParams.update(settings)
    from matplotlib import pyplot

    return pyplot


def _save(figure: "Figure", *formats: str) -> dict[str, bytes]:
    """Make every panel a square in the place that the layout gave it, and return the picture.

    Not before: the layout would then measure a row's labels in a panel of another size, and rows would overlap.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_box_aspect(1)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.set_dpi(120)
    pictures = {}
    for name in formats:
        buffer = io.BytesIO()
        # by the canvas itself, for savefig draws everything once more, into nothing, before it draws
        if name == "svg":  # no date, so that the same summary gives the same bytes; no address
            FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        else:
            FigureCanvasAgg(figure).print_png(buffer)
        pictures[name] = buffer.getvalue()
    _pyplot().close(figure)
    return pictures


def _legend(ax: "Axes", summary: Summary) -> list[Any]:
    """Return one entry for each style: a model, or the run that its checkpoints share."""
    groups = read_groups(summary).group_of_each()
    labels: dict[Any, str] = {}
    for name, style in panels.style_of_each(summary).items():
        labels.setdefault(style, panels.short(groups[name]))
    return [
        ax.plot([], [], style.marker, color=style.color, markeredgecolor="white", ms=9, label=label)[0]
        for style, label in labels.items()
    ]
