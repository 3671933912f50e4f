# SPDX-License-Identifier: MIT
"""The plane of two axes: where the models stand, with the region of each, and what leads from one to the next."""

import math
from collections.abc import Mapping
from typing import Any

from eval.pages.interval_plot import STYLES, style_of
from eval.scores.drift import ends_of, paths_from_base

Summary = Mapping[str, Any]

# Points that span less of an axis than this are shown again, larger.
CROWDED = 0.4
# From the 95 % interval of each of two independent coordinates to the 95 % region of both: sqrt(chi2_2) / z.
REGION = math.sqrt(5.991465) / 1.959964


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
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.set_xlabel(f"{about[0]['low']}  ←  {axes[0]}  →  {about[0]['high']}")
    ax.set_ylabel(f"{about[1]['low']}  ←  {axes[1]}  →  {about[1]['high']}")
    ax.set_title(f"{mode}: the part where the points lie" if zoomed else f"{mode}: the whole compass", fontsize=10)


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


def is_crowded(summary: Summary, mode: str, axes: list[str]) -> bool:
    """Return whether the points of a mode lie in so small a part that they are shown again, larger."""
    ranges = [summary["instrument"]["axes"][axis]["range"] for axis in axes]
    ends = _ends(summary, mode, axes)
    return all(high - low < CROWDED * (r[1] - r[0]) for (low, high), r in zip(ends, ranges))
