# SPDX-License-Identifier: MIT
"""The picture of a run: ``compass.png``, drawn from ``summary.json`` alone."""

import textwrap
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Summary = Mapping[str, Any]

# Okabe and Ito's colors, told apart with any color vision; none stands for a side, and markers differ too.
STYLES = (
    ("#000000", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#D55E00", "P"),
    ("#0072B2", "X"),
)
# Points that span less of an axis than this are shown again, larger.
CROWDED = 0.4


def require_matplotlib() -> None:
    """Raise ImportError, with the command that helps, where the picture could not be drawn."""
    if find_spec("matplotlib") is None:
        raise ImportError('compass.png needs matplotlib: pip install -e ".[report]"')


def draw_compass(summary: Summary, path: str | Path) -> None:
    """Draw the models of a run on the instrument's first two axes, and their lean on the pairs.

    Panels: the whole compass; if the points are crowded, the part where they lie, with intervals; the lean
    of each model on the pairs; and the paired differences. A mode that was not run has no panel.

    Args:
        summary: What ``summary.json`` holds.
        path: The PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(summary["instrument"]["axes"])
    modes = {mode for model in summary["models"].values() for mode in model}
    panels = []
    if "choice" in modes and len(axes) >= 2:
        panels.append(lambda ax: _draw_plane(ax, summary, axes[:2], zoomed=False))
        if _is_crowded(summary, axes[:2]):
            panels.append(lambda ax: _draw_plane(ax, summary, axes[:2], zoomed=True))
    elif "choice" in modes:
        panels.append(lambda ax: _draw_intervals(ax, summary, "choice", "coordinate"))
    if "pairs" in modes:
        panels.append(lambda ax: _draw_intervals(ax, summary, "pairs", "nats a token"))
        if summary["comparisons"]:
            panels.append(lambda ax: _draw_differences(ax, summary, "pairs", "nats a token"))
    n_columns = min(len(panels), 2 if len(panels) == 4 else 3)
    n_rows = -(-len(panels) // n_columns)
    size = (5.4 * n_columns, 5.2 * n_rows + 1)
    figure, grid = pyplot.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for panel, ax in zip(panels, grid.flat):
        panel(ax)
    models = {name: None for name in summary["models"]}
    handles = [_marker(ax, i, [], [], label=name) for i, name in enumerate(models)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    caption = textwrap.fill(_caption(summary, modes), width=88 * n_columns)
    figure.supxlabel(caption, fontsize=8, ha="left", x=0.01, color="#333333")
    figure.savefig(path, dpi=120, format="png")
    pyplot.close(figure)


def _points(summary: Summary, axes: list[str]) -> dict[str, list[dict]]:
    """The models that have a point on both axes."""
    points = {name: [model["choice"][a] for a in axes] for name, model in summary["models"].items()}
    return {name: p for name, p in points.items() if None not in (p[0]["estimate"], p[1]["estimate"])}


def _ends(summary: Summary, axes: list[str]) -> list[tuple[float, float]]:
    """Least and greatest value of points and intervals on each axis."""
    values = [
        [x for p in _points(summary, axes).values() for x in (p[k]["estimate"], *(p[k]["ci95"] or []))]
        for k in range(2)
    ]
    return [(min(v, default=0.0), max(v, default=0.0)) for v in values]


def _is_crowded(summary: Summary, axes: list[str]) -> bool:
    ranges = [summary["instrument"]["axes"][axis]["range"] for axis in axes]
    ends = _ends(summary, axes)
    return all(high - low < CROWDED * (r[1] - r[0]) for (low, high), r in zip(ends, ranges))


def _draw_plane(ax: Any, summary: Summary, axes: list[str], zoomed: bool) -> None:
    about = [summary["instrument"]["axes"][axis] for axis in axes]
    limits = [a["range"] for a in about]
    if zoomed:
        ends = _ends(summary, axes)
        half = 0.6 * max(high - low for low, high in ends) or 1.0
        limits = [((low + high) / 2 - half, (low + high) / 2 + half) for low, high in ends]
    points = _points(summary, axes)
    origin = next(iter(points.values()), None) if next(iter(summary["models"])) in points else None
    for i, name in enumerate(summary["models"]):
        if name not in points:
            continue
        x, y = points[name]
        if zoomed:
            for k, p in enumerate((x, y)):
                if p["ci95"]:
                    ends = (p["ci95"], [y["estimate"]] * 2) if k == 0 else ([x["estimate"]] * 2, p["ci95"])
                    ax.plot(*ends, color=STYLES[i % len(STYLES)][0], lw=1.2, alpha=0.7, zorder=2)
        if origin is not None and i > 0:
            start, end = (origin[0]["estimate"], origin[1]["estimate"]), (x["estimate"], y["estimate"])
            arrow = {"arrowstyle": "->", "color": "#777777", "lw": 1.2, "shrinkA": 4, "shrinkB": 4}
            ax.annotate("", end, start, arrowprops=arrow, zorder=3)
        _marker(ax, i, [x["estimate"]], [y["estimate"]], zorder=4)
    ax.axhline(0, color="#999999", lw=0.8, zorder=0)
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    ax.set(xlim=limits[0], ylim=limits[1], box_aspect=1)
    ax.set_xlabel(f"{about[0]['low']}  ←  {axes[0]}  →  {about[0]['high']}")
    ax.set_ylabel(f"{about[1]['low']}  ←  {axes[1]}  →  {about[1]['high']}")
    ax.set_title("choice: the part where the points lie" if zoomed else "choice: the whole compass", fontsize=10)


def _draw_intervals(ax: Any, summary: Summary, mode: str, unit: str) -> None:
    """One row for each model in each score of a mode: a point with its interval."""
    names = list(summary["models"])
    scores = list(summary["models"][names[0]][mode])
    for row, score in enumerate(scores):
        for i, name in enumerate(names):
            value = summary["models"][name][mode][score]
            if value["estimate"] is None:
                continue
            y = row + (i - (len(names) - 1) / 2) * 0.7 / len(names)
            if value["ci95"]:
                ax.plot(value["ci95"], [y, y], color=STYLES[i % len(STYLES)][0], lw=1.6)
            _marker(ax, i, [value["estimate"]], [y])
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    ax.set(yticks=range(len(scores)), yticklabels=scores, ylim=(len(scores) - 0.5, -0.5), box_aspect=1)
    ax.set_xlabel(f"left statement likelier  ←  {unit}  →  right" if mode == "pairs" else f"{unit}, low ← → high")
    ax.set_title(f"{mode}: mean and 95 % interval", fontsize=10)


def _draw_differences(ax: Any, summary: Summary, mode: str, unit: str) -> None:
    """Each model minus the first one, with paired intervals; with three models also the last two."""
    names = list(summary["models"])
    shown = [(names[0], name) for name in names[1:]] + ([(names[1], names[2])] if len(names) == 3 else [])
    scores = list(summary["models"][names[0]][mode])
    for c in summary["comparisons"]:
        if (c["a"], c["b"]) not in shown or c["mode"] != mode or c["ci95"] is None:
            continue
        k = shown.index((c["a"], c["b"]))
        y = scores.index(c["axis"]) + (k - (len(shown) - 1) / 2) * 0.7 / len(shown)
        is_first = c["axis"] == scores[0]
        style = names.index(c["b"]) if c["a"] == names[0] else len(names)
        ax.plot(c["ci95"], [y, y], color=STYLES[style % len(STYLES)][0], lw=1.6)
        label = f"{c['b']} minus {c['a']}" if is_first else None
        _marker(ax, style, [c["difference"]], [y], label=label)
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    ax.set(yticks=range(len(scores)), yticklabels=scores, ylim=(len(scores) - 0.5, -0.5), box_aspect=1)
    ax.set_xlabel(f"moved left  ←  {unit}  →  moved right")
    ax.set_title(f"{mode}: paired differences and 95 % intervals", fontsize=10)
    if ax.get_legend_handles_labels()[0]:  # none without an interval, as with a single pair
        ax.legend(fontsize=8, frameon=False)


def _marker(ax: Any, i: int, x: list[float], y: list[float], **kwargs: Any) -> Any:
    color, marker = STYLES[i % len(STYLES)]
    return ax.plot(x, y, marker, color=color, markeredgecolor="white", markersize=9, **kwargs)[0]


def _caption(summary: Summary, modes: set[str]) -> str:
    instrument = summary["instrument"]
    text = [f"Stance under this instrument and these prompts: {instrument['name']} {instrument['version']}."]
    first = next(iter(summary["models"].values()))
    if "choice" in modes:
        counts = ", ".join(f"{v['n_items']} {axis}" for axis, v in first["choice"].items())
        text.append(f"choice: {counts} statements, expected coordinates averaged over prompts.")
    if "pairs" in modes:
        text.append(
            f"pairs: {first['pairs']['lean']['n_items']} pairs of opposed statements, log-likelihood of the "
            "right one minus the left one."
        )
    text.append(
        "Lines: 95 % bootstrap intervals of the mean over statements (twins together) or pairs. All models "
        "answer the same prompts: judge a change by its paired difference, not by the overlap of intervals."
    )
    unplaced = [
        f"{name} on {axis}"
        for name, model in summary["models"].items()
        for axis, value in model.get("choice", {}).items()
        if value["estimate"] is None
    ]
    if unplaced:
        text.append(f"Not identified (no answer): {', '.join(unplaced)}.")
    return " ".join(text)
