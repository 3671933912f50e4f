# SPDX-License-Identifier: MIT
"""Panels of points with their two intervals: scores, paired differences, and scores along a dial, training or study."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from data.recipe.figures import number
from eval.scores.curves import TOLD_APART
from eval.scores.places import read_groups
from eval.scores.shape import tuned_axis
from eval.scores.summary import iterate_scores
from eval.statements.importers import UNVERSIONED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Summary = Mapping[str, Any]
Panel = Callable[["Axes"], None]


class Style(NamedTuple):
    """Color, marker and line of a model or a run."""

    color: str
    marker: str
    line: str


# Okabe and Ito's colors, told apart with any color vision; none stands for a side, and marker and line differ too.
# From the eighth on a color comes again with another marker.
STYLES = (
    Style("#000000", "o", "-"),
    Style("#E69F00", "s", "--"),
    Style("#009E73", "^", "-."),
    Style("#CC79A7", "D", ":"),
    Style("#56B4E9", "v", "--"),
    Style("#D55E00", "P", "-."),
    Style("#0072B2", "X", ":"),
    Style("#000000", "<", "--"),
    Style("#E69F00", "p", "-."),
    Style("#009E73", "*", ":"),
    Style("#CC79A7", "h", "-"),
    Style("#56B4E9", ">", "-."),
    Style("#D55E00", "d", ":"),
    Style("#0072B2", "H", "-"),
)
# Runs of a study that rows of marks can show; more become a table of colors.
MOST_MARKED = 7
# Widths of the two intervals.
WIDTHS = {"ci95": 1.2, "ci95_items_fixed": 3.2}
# Of a name in a picture.
MOST_LETTERS = 22


def ends_of_mode(mode: str) -> tuple[str, str]:
    """Return what the ends of a mode's scores are called, whatever the axis."""
    return ("left", "right") if mode == "pairs" else ("low end", "high end")


def moved(mode: str) -> str:
    """Return what stands below changes in a mode."""
    low, high = ends_of_mode(mode)
    return f"moved to the {low}  ←  →  to the {high}"


def unit_of_mode(mode: str) -> str:
    """Return the unit of a mode's scores."""
    return "nats a token" if mode == "pairs" else "coordinate"


def instrument_name(summary: Summary) -> str:
    """Return an instrument's name, with its version if it has one."""
    name, version = (str(summary["instrument"][key]) for key in ("name", "version"))
    return name if version == UNVERSIONED else f"{name} {version}"


def style_of_each(summary: Summary) -> dict[str, Style]:
    """Return the style of each model; the checkpoints of one run share one, and an adapter and its points on a dial."""
    group_of_each = read_groups(summary).group_of_each()
    groups = list(dict.fromkeys(group_of_each.values()))
    return {name: STYLES[groups.index(group) % len(STYLES)] for name, group in group_of_each.items()}


def short(name: str) -> str:
    """Cut a name to what a picture has room for."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


class Mark(NamedTuple):
    """A score or a difference, with its intervals, in the row of an axis."""

    axis: str
    name: str
    point: Any
    value: Mapping[str, Any]


def draw_scores(ax: "Axes", summary: Summary, mode: str) -> None:
    """Draw one row for each model in each score of a mode: a point, thick items fixed, thin items sampled too."""
    styles, ends = style_of_each(summary), read_groups(summary).ends()
    marks = [
        Mark(s.axis, s.model, s.value["estimate"], s.value) for s in iterate_scores(summary["models"]) if s.mode == mode
    ]
    low, high = ("left statement likelier", "right") if mode == "pairs" else ("low", "high")
    _draw_rows(ax, summary, marks, {name: styles[name] for name in ends})
    ax.set(xlabel=f"{low}  ←  {unit_of_mode(mode)}  →  {high}", title=f"{mode}: scores")


def draw_differences(ax: "Axes", summary: Summary, mode: str) -> None:
    """Draw the paired difference of each model to the first one; with three models also of the last two."""
    first, *others = read_groups(summary).ends()  # the plane and the curves show what lies between
    styles = style_of_each(summary)
    shown = {(first, name): styles[name] for name in others}
    if len(others) == 2:
        last = max(STYLES.index(style) for style in styles.values())
        shown[others[0], others[1]] = STYLES[(last + 1) % len(STYLES)]
    names = {(a, b): f"{short(b)} − {short(a)}" for a, b in shown}
    changes = [c for c in summary["comparisons"] if c["mode"] == mode and (c["a"], c["b"]) in shown]
    marks = [Mark(c["axis"], names[c["a"], c["b"]], c["difference"], c) for c in changes]
    _draw_rows(ax, summary, marks, {names[pair]: style for pair, style in shown.items()})
    ax.set(xlabel=moved(mode), title=f"{mode}: paired differences")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


def draw_finding(ax: "Axes", title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the rows of a finding: each kind of pair, what vocabulary alone would show of it, and what must not move."""
    colors = {"main": "#0072B2", "weak": "#777777"}
    for y, row in enumerate(rows):
        color = colors.get(row["kind"], "#000000")
        if row["ci95"]:
            ax.plot(row["ci95"], [y, y], color=color, lw=2.5, solid_capstyle="butt")
        if row["estimate"] is not None:
            ax.plot([row["estimate"]], [y], "o", color=color, mec="white", ms=9)
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    names = [textwrap.fill(row["name"].strip(), 24) for row in rows]
    ax.set(yticks=range(len(rows)), yticklabels=names, ylim=(len(rows) - 0.5, -0.5))
    ax.set(xlabel="left  ←  nats a token  →  right", title=title)


def draw_replicates(ax: "Axes", summary: Summary, mode: str) -> None:
    """Draw the paired difference of each run of a study to the base, with its seeds as small points about it."""
    changes = run_changes(summary, mode).values()
    models = {run["run"]: run["models"] for run in summary["replicates"]["runs"]}
    styles = style_of_each(summary)
    runs = {c["b"]: styles[models[c["b"]][0]] for c in changes}
    _draw_rows(ax, summary, [Mark(c["axis"], c["b"], c["difference"], c) for c in changes], runs)
    share_style = len(set(runs.values())) < len(runs)
    order = "\nrows of one color: from the least place downwards" if share_style else ""
    ax.set(xlabel=moved(mode), title=f"{mode}: runs minus base, mean over seeds{order}")


def draw_run_table(ax: "Axes", mode: str, changes: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """Draw how far each run of a study moved each axis: a row for each run, a frame where it was tuned on the axis."""
    from matplotlib.patches import Rectangle

    runs, axes = ([*dict.fromkeys(names)] for names in zip(*changes))
    table = [[changes[run, axis]["difference"] or 0.0 for axis in axes] for run in runs]
    largest = max(abs(x) for row in table for x in row) or 1.0
    # purple and orange: no party has them
    ax.imshow(table, cmap="PuOr_r", vmin=-largest, vmax=largest, aspect="auto")
    for (run, axis), c in changes.items():
        x, y = axes.index(axis), runs.index(run)
        text = "void" if c.get("void") else number(c["difference"], 2)
        weight = "bold" if c["q"] is not None and c["q"] < TOLD_APART else "normal"
        color = "white" if abs(table[y][x]) > 0.6 * largest else "black"
        ax.text(x, y, text, ha="center", va="center", color=color, fontsize=8, weight=weight)
        if tuned_axis(run) == axis:
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec="black", lw=1.5, zorder=3))
    ax.set(xticks=range(len(axes)), yticks=range(len(runs)), yticklabels=list(map(short, runs)))
    ax.set_xticklabels(list(map(short, axes)), rotation=30, ha="right")
    framed = "\nframe: what the run is tuned on" if ax.patches else ""
    _, high = ends_of_mode(mode)
    title = f"{mode}: change from the base, {unit_of_mode(mode)}\n+ to the {high}; bold: told from 0{framed}"
    ax.set_title(title)
    ax.legend(handles=[], frameon=False)  # the rows say which run they are


def run_changes(summary: Summary, mode: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return run and axis to the comparison with the base, of the runs of a study."""
    changes = summary["replicates"]["comparisons"]
    return {(c["b"], c["axis"]): c for c in changes if c["mode"] == mode and c["a"] in summary["models"]}


def transfer_changes(summary: Summary, mode: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return those of runs that are tuned on one of these axes each."""
    runs = [run for entry in summary.get("transfer", ()) if entry["mode"] == mode for run in entry["runs"]]
    axes = list(map(tuned_axis, runs))
    return {(run, axis): c for (run, axis), c in run_changes(summary, mode).items() if run in runs and axis in axes}


def _draw_rows(ax: "Axes", summary: Summary, marks: Sequence[Mark], styles: Mapping[str, Style]) -> None:
    """Draw points, intervals and seeds: a row for each axis, and in it a line for each name that has a style."""
    axes, names = list(dict.fromkeys(mark.axis for mark in marks)), list(styles)
    known = [mark for mark in marks if mark.name in styles and mark.point is not None]
    labelled = set()
    for mark in sorted(known, key=lambda mark: (axes.index(mark.axis), names.index(mark.name))):
        style, value = styles[mark.name], mark.value
        y = axes.index(mark.axis) + (names.index(mark.name) - (len(names) - 1) / 2) * 0.7 / len(names)
        for key, width in WIDTHS.items():
            if value[key]:
                ax.plot(value[key], [y, y], color=style.color, lw=width, solid_capstyle="butt")
        label = None if mark.name in labelled else mark.name
        labelled.add(mark.name)
        face, edge = marker_colors(style, bool(value.get("void")))
        ax.plot([mark.point], [y], style.marker, mfc=face, mec=edge, color=style.color, ms=8, label=label)
        seeds = value.get("by_seed", ())
        if len(seeds) > 1:
            ax.plot(seeds, [y] * len(seeds), ".", color="white", mec="black", ms=5, mew=0.6, zorder=5)
    about = summary["instrument"]["axes"]
    ticks = [f"{axis}\n(must not\nmove)" if axis in about and about[axis]["placebo"] else axis for axis in axes]
    ax.axvline(0, color="#999999", lw=0.8, zorder=0)
    ax.set(yticks=range(len(axes)), yticklabels=ticks, ylim=(len(axes) - 0.5, -0.5))


def marker_colors(style: Style, is_void: bool) -> tuple[str, str]:
    """Return face and edge of a marker; that of a void score is hollow."""
    return ("white", style.color) if is_void else (style.color, "white")


def curve_panels(summary: Summary) -> list[Panel]:
    """Return a panel for each dial or kind of run, mode and score, and one for the drift."""
    panels: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for curve in summary["curves"]:
        if curve["mode"] != "pairs" or curve["axis"] == "lean":  # the axes of pairs are parts of their lean
            dial = curve["run"] if curve["kind"] == "dial" else ""
            panels.setdefault((curve["kind"], dial, curve["mode"], curve["axis"]), []).append(curve)
    drawn: list[Panel] = [partial(draw_curves, summary=summary, curves=curves) for curves in panels.values()]
    return drawn + ([partial(draw_drift, summary=summary)] if summary["drift"] else [])


def draw_curves(ax: "Axes", summary: Summary, curves: Sequence[Mapping[str, Any]]) -> None:
    """Draw one score along one dial, or along several runs or lines of a study, with replicates as small points.

    Bars are the intervals of the change from the base; the grey band is the base's own.
    """
    kind, mode, axis = (curves[0][key] for key in ("kind", "mode", "axis"))
    styles = style_of_each(summary)
    base = next(iter(summary["models"].values()))[mode][axis]
    if base["ci95"]:
        ax.axhspan(*base["ci95"], color="#eeeeee", zorder=0)
    ax.axhline(base["estimate"], color="#777777", lw=0.8, zorder=1)
    xs = [float(x) for curve in curves for x in curve["x"]]
    low, high = min(xs), max(xs)
    # side by side, so that the bars of two lines at one place can be told apart
    apart = 0.012 * (high - low)
    for k, curve in enumerate(curves):
        style = styles[curve["models"][-1]]
        mean, model_at = curve["mean"], dict(zip(curve["x"], curve["models"]))
        shifted = [x + (k - (len(curves) - 1) / 2) * apart for x in mean["x"]]
        color, line = ("#555555", "-") if kind == "dial" else (style.color, style.line)
        ax.plot(shifted, mean["estimate"], line, color=color, lw=1.2, zorder=2)
        for i, (x, at) in enumerate(zip(mean["x"], shifted)):
            name = model_at[x]
            score = summary["models"][name][mode][axis] | {"estimate": mean["estimate"][i]}
            _draw_point(ax, at, score | {key: mean[key][i] for key in WIDTHS}, styles[name])
            seeds = [y for position, y in zip(curve["x"], curve["estimate"]) if position == x]
            if len(seeds) > 1:
                ax.plot([at + apart] * len(seeds), seeds, ".", color=style.color, ms=5, zorder=5)
        ax.plot([], [], style.marker + line, color=style.color, label=short(curve["run"]))  # for the legend
    if kind == "dial":
        ticks = {low: f"{low:g}".replace("-", "−"), low / 2: "", 0.0: "0\nbase", high / 2: "", high: f"+{high:g}"}
        first_dial = next(curve["run"] for curve in summary["curves"] if curve["kind"] == "dial")
        others = _beside_curves(summary, mode, axis) if curves[0]["run"] == first_dial else {}
        for k, (name, score) in enumerate(others.items(), start=1):
            x = high + k * 0.3 * (high - low) / 2
            _draw_point(ax, x, score, styles[name])
            ticks[x] = short(name)
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.set_xlabel(f"dial: {short(curves[0]['run'])}")
    else:
        ax.set_xlabel(kind)
        if len(curves) > 1:
            ax.legend(fontsize=8, frameon=False)
    about = summary["instrument"]["axes"].get(axis, {"low": "left", "high": "right"})
    rhos = ", ".join(number(c["rank_correlation"], 2) for c in curves)
    ylabel = f"{about['low']}  ←  {unit_of_mode(mode)}  →  {about['high']}"
    ax.set(ylabel=ylabel, title=f"{mode}: {axis} against the {kind}\nrank correlation {rhos}")


def _draw_point(ax: "Axes", x: float, score: Mapping[str, Any], style: Style) -> None:
    for key, width in WIDTHS.items():
        if score[key] and score[key][0] < score[key][1]:
            ax.plot([x, x], score[key], color=style.color, lw=width, solid_capstyle="butt", zorder=3)
    face, edge = marker_colors(style, bool(score.get("void")))
    ax.plot([x], [score["estimate"]], style.marker, mfc=face, mec=edge, color=style.color, ms=8, ls="", zorder=4)


def _beside_curves(summary: Summary, mode: str, axis: str) -> dict[str, Any]:
    """Return the scores of models that lie on no curve, with the intervals of their change from the base."""
    base = next(iter(summary["models"]))
    on_curves = {name for curve in summary["curves"] for name in curve["models"]}
    others = {}
    for c in summary["comparisons"]:
        if (c["a"], c["mode"], c["axis"]) != (base, mode, axis) or c["b"] in on_curves or c["difference"] is None:
            continue
        score = summary["models"][c["b"]][mode][axis]
        if score["estimate"] is not None:
            start = score["estimate"] - c["difference"]
            others[c["b"]] = score | {key: c[key] and [start + end for end in c[key]] for key in WIDTHS}
    return others


def draw_drift(ax: "Axes", summary: Summary) -> None:
    """Draw the distance from the first model by step, a line for each run and mode, each from 0 at step 0."""
    for k, drift in enumerate(summary["drift"], start=1):
        style = STYLES[k % len(STYLES)]
        label = f"{short(drift['run'])}, {drift['mode']} ({unit_of_mode(drift['mode'])})"
        xs, ys = [0, *drift["steps"]], [0, *drift["magnitude"]]
        ax.plot(xs, ys, style.line, marker=style.marker, color=style.color, label=label)
        if drift["half_step"] is not None:
            ax.axvline(drift["half_step"], color=style.color, lw=0.8, ls=style.line)
    ax.set(xlabel="step", ylabel="distance from the base", title="drift; upright lines: half of it")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False)
