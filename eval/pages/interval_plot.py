# SPDX-License-Identifier: MIT
"""Panels of points with their two intervals: scores and paired differences."""

from collections.abc import Mapping
from typing import Any

from eval.scores.drift import ends_of, group_of

Summary = Mapping[str, Any]

# Okabe and Ito's colors, told apart with any color vision; none stands for a side, and marker and line differ too.
STYLES = (
    ("#000000", "o", "-"),
    ("#E69F00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#56B4E9", "v", "--"),
    ("#D55E00", "P", "-."),
    ("#0072B2", "X", ":"),
)
# Of a name in a picture.
MOST_LETTERS = 22
UNITS = {"pairs": "nats a token", "choice": "coordinate"}


def draw_scores(ax: Any, summary: Summary, mode: str) -> None:
    """One row for each model in each score of a mode: a point, thick items fixed, thin items sampled too."""
    rows = {}
    for name, modes in summary["models"].items():
        for axis, value in modes.get(mode, {}).items():
            rows.setdefault(axis, {})[name] = value | {"point": value["estimate"]}
    unit = UNITS.get(mode, "coordinate")
    text = f"left statement likelier  ←  {unit}  →  right" if mode == "pairs" else f"low  ←  {unit}  →  high"
    styles = style_of(summary)
    _draw_rows(ax, rows, {name: styles[name] for name in ends_of(list(summary["models"]))}, summary, text)
    ax.set_title(f"{mode}: scores", fontsize=10)


def draw_differences(ax: Any, summary: Summary, mode: str) -> None:
    """The paired difference of each model to the first one; with three models also of the last two."""
    first, *others = ends_of(list(summary["models"]))  # the plane and the curves show what lies between
    styles = style_of(summary)
    shown = {(first, name): styles[name] for name in others}
    if len(others) == 2:
        shown[tuple(others)] = (max(styles.values()) + 1) % len(STYLES)
    rows = {}
    for c in summary["comparisons"]:
        if (c["a"], c["b"]) in shown and c["mode"] == mode:
            rows.setdefault(c["axis"], {})[f"{short(c['b'])} − {short(c['a'])}"] = c | {"point": c["difference"]}
    names = {f"{short(b)} − {short(a)}": style for (a, b), style in shown.items()}
    _draw_rows(ax, rows, names, summary, "moved to the low end  ←  →  to the high end", is_labelled=True)
    ax.set_title(f"{mode}: paired differences", fontsize=10)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


def draw_replicates(ax: Any, summary: Summary, mode: str) -> None:
    """The paired difference of each run of a study to the base, over its seeds, which are small points about it."""
    changes = [c for c in summary["replicates"]["comparisons"] if c["mode"] == mode and c["a"] in summary["models"]]
    runs, styles = list(dict.fromkeys(c["b"] for c in changes)), style_of(summary)
    first = {run["run"]: run["models"][0] for run in summary["replicates"]["runs"]}
    rows = {}
    for c in changes:
        rows.setdefault(c["axis"], {})[c["b"]] = c | {"point": c["difference"]}
    # runs on one line share its style
    same = len({styles[first[run]] for run in runs}) < len(runs)
    _draw_rows(
        ax, rows, {run: styles[first[run]] for run in runs}, summary, "moved to the low end  ←  →  to the high end"
    )
    for row, values in enumerate(rows.values()):
        for k, run in enumerate(run for run in runs if run in values):
            y = row + (k - (len(runs) - 1) / 2) * 0.7 / len(runs)
            seeds = values[run]["by_seed"]
            if len(seeds) > 1:
                ax.plot(seeds, [y] * len(seeds), ".", color="white", mec="black", ms=5, mew=0.6, zorder=5)
    order = "\nrows of one color: from the least place down to the greatest" if same else ""
    ax.set_title(f"{mode}: runs minus base, mean over seeds{order}", fontsize=10)


def style_of(summary: Summary) -> dict[str, int]:
    """Return the style of each model; the checkpoints of one run share one, and an adapter and its points on a dial."""
    group = group_of(list(summary["models"]))
    groups = list(dict.fromkeys(group.values()))
    return {name: groups.index(of) % len(STYLES) for name, of in group.items()}


def short(name: str) -> str:
    """Cut a name to what a picture has room for."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def _draw_rows(
    ax: Any, rows: Mapping[str, Mapping], styles: Mapping[str, int], summary: Summary, xlabel: str, is_labelled=False
) -> None:
    """``rows``: axis to name to value; ``styles``: name to style."""
    labelled = set()
    for row, values in enumerate(rows.values()):
        for k, (name, style) in enumerate(styles.items()):
            value = values.get(name)
            if value is None or value["point"] is None:
                continue
            y = row + (k - (len(styles) - 1) / 2) * 0.7 / len(styles)
            color, marker, _ = STYLES[style]
            for key, width in (("ci95", 1.2), ("ci95_items_fixed", 3.2)):
                if value[key]:
                    ax.plot(value[key], [y, y], color=color, lw=width, solid_capstyle="butt")
            label = name if is_labelled and name not in labelled else None
            labelled.add(name)
            face = "white" if value.get("void") else color
            edge = color if value.get("void") else "white"
            ax.plot([value["point"]], [y], marker, mfc=face, mec=edge, color=color, ms=8, ls="", label=label)
    placebo = {name for name, axis in summary["instrument"]["axes"].items() if axis["placebo"]}
    ticks = [f"{axis}\n(must not\nmove)" if axis in placebo else axis for axis in rows]
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    ax.set(yticks=range(len(rows)), yticklabels=ticks, ylim=(len(rows) - 0.5, -0.5))
    ax.set_xlabel(xlabel)
