# SPDX-License-Identifier: MIT
"""The picture of a run, drawn from ``summary.json`` alone: the compass and panels beside it."""

import io
import textwrap
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from eval.pages.interval_plot import STYLES, draw_differences, draw_replicates, draw_scores, short, style_of
from eval.pages.lean_plot import curve_panels
from eval.pages.plane_plot import draw_plane, is_crowded
from eval.scores.drift import group_of

Summary = Mapping[str, Any]
Panel = Callable[[Any], None]


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
    return _save(_squared(figure), "png", "svg")


def panel_svgs(summary: Summary) -> list[str]:
    """Return each panel as an SVG of its own, for a page that puts them beside or below each other."""
    pyplot = _pyplot()
    drawn = []
    for panel in list_panels(summary):
        figure, ax = pyplot.subplots(figsize=(4.4, 4.6), layout="constrained")
        panel(ax)
        if ax.get_legend() is None:
            handles = _legend(ax, summary)
            n_columns = min(len(handles), 60 // (8 + max(len(handle.get_label()) for handle in handles)))
            figure.legend(handles=handles, loc="outside upper center", ncols=n_columns, frameon=False, fontsize=8)
        # the XML declaration before it has no place inside a page
        drawn.append("<svg" + _save(_squared(figure), "svg")["svg"].decode().partition("<svg")[2])
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
            if is_crowded(summary, mode, axes[:2]):
                panels.append(lambda ax, mode=mode, axes=axes: draw_plane(ax, summary, mode, axes[:2], zoomed=True))
        if any(run["mode"] == mode for run in summary["replicates"]["runs"]):
            panels.append(lambda ax, mode=mode: draw_replicates(ax, summary, mode))
            continue
        panels.append(lambda ax, mode=mode: draw_scores(ax, summary, mode))
        if any(c["mode"] == mode and c["ci95"] for c in summary["comparisons"]):
            panels.append(lambda ax, mode=mode: draw_differences(ax, summary, mode))
    return panels + curve_panels(summary)


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
        text.append("Along a curve: intervals of the change from the base; grey: the base's own.")
    if summary["replicates"]["runs"]:
        text.append("Small points: single seeds about their mean; the spread between seeds is in the intervals.")
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


def _squared(figure: Any) -> Any:
    """Make every panel a square in the place that the layout gave it.

    Not before: the layout would then measure a row's labels in a panel of another size, and rows would overlap.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_box_aspect(1)
    return figure


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
