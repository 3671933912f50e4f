# SPDX-License-Identifier: MIT
"""The report of a study: its finding as a page, and in Markdown the scores of its runs and their differences."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.recipe.figures import MISSING, interval, number, p_value, page_template
from eval.pages.compass import list_panels, panel_svgs
from eval.pages.finding import describe_finding
from eval.pages.panels import Summary, unit_of_mode
from eval.scores.curves import verdict


class Cost(NamedTuple):
    """How many pairs and tokens a run trains on, every epoch counted."""

    n_pairs: int
    n_tokens: int


class AskedModel(NamedTuple):
    """One model of a study, with the costs of its runs and the ``summary.json`` of its evaluation."""

    name: str
    folder: Path  # of the evaluation
    costs: Mapping[str, Cost]
    summary: Summary


def total_cost(costs: Iterable[Cost]) -> str:
    """Return the sum of costs as a part of a sentence; nothing where none was counted."""
    costs = list(costs)
    n_pairs, n_tokens = sum(cost.n_pairs for cost in costs), sum(cost.n_tokens for cost in costs)
    return f", {n_pairs:,} pairs and {n_tokens:,} tokens in all" if costs else ""


def render_study(title: str, models: Sequence[AskedModel], date: str | None) -> str:
    """Return the page of a study: of each model what was found, in words and pictures, and where its report lies."""
    shown = [
        {
            "name": model.name,
            "finding": describe_finding(model.summary),
            "validation": model.summary.get("validation"),
            "panels": panel_svgs(model.summary, list_panels(model.summary)[0]),
            "instrument": f"{model.summary['instrument']['name']} {model.summary['instrument']['version']}",
            "cost": _cost_of(model),
            "page": _page_of(model).as_posix(),
        }
        for model in models
    ]
    return page_template("eval.pages", "study.html.jinja").render(title=title, models=shown, date=date)


def _page_of(model: AskedModel) -> Path:
    return model.folder.relative_to(model.folder.parent.parent) / "report.html"


def _cost_of(model: AskedModel) -> str:
    return f"{len(model.costs)} runs{total_cost(model.costs.values())}"


def describe_results(title: str, models: Sequence[AskedModel]) -> str:
    """Return the report of a study in Markdown."""
    lines = [f"# {title}", ""]
    for model in models:
        summary, about = model.summary, model.summary["instrument"]
        page = _page_of(model)
        lines += [
            f"## {model.name}",
            "",
            f"{_cost_of(model)}. Stance under {about['name']} "
            f"{about['version']} and these prompts. Everything: [report.html]({page}).",
            "",
        ]
        base = next(iter(summary["models"]))
        for mode in summary["models"][base]:
            lines += [*_score_table(summary, mode, model.costs), "", *_difference_table(summary, mode), ""]
        lines += [*_shape_table(summary), "", *transfer_lines(summary)]
        lines += [
            f"- {c['run']} along {c['kind']}, {c['mode']} {c['axis']}: {verdict(c)}."
            + _void(summary, c["models"], c["mode"], c["axis"])
            for c in summary["curves"]
            if c["mode"] != "pairs" or c["axis"] == "lean"
        ]
        if "validation" in summary:
            lines.append(f"- {model.name} is {summary['validation']['said']}.")
        lines.append("")
    lines.append(
        "Differences are paired by prompt, with 95 % intervals over statements, prompts and seeds. A seed is a "
        "replicate, not more statements; range: least and greatest seed. q: false discovery rate over all differences "
        "of one model's runs, placebos apart. Void: see the flags in report.html; nothing is concluded."
    )
    return "\n".join(lines) + "\n"


def _score_table(summary: Summary, mode: str, costs: Mapping[str, Cost]) -> list[str]:
    """Return the scores of the runs of one mode on its first axis, ``lean`` in pairs."""
    base, base_scores = next((name, scores[mode]) for name, scores in summary["models"].items())
    axis, base_score = next(iter(base_scores.items()))
    lines = [
        f"| {mode}, {unit_of_mode(mode)} | pairs | seeds | {axis}: mean | range |",
        "|---|---|---|---|---|",
        f"| {base} | 0 | | {number(base_score['estimate'])} {interval(base_score['ci95'])} | |",
    ]
    for run in summary["replicates"]["runs"]:
        if (run["mode"], run["axis"]) == (mode, axis):
            cells = [
                run["run"] + _void(summary, run["models"], mode, axis),
                "–".join(f"{n:,}" for n in sorted({costs[name].n_pairs for name in run["models"]})),
                ", ".join(map(str, run["seeds"])),
                number(run["mean"]),
                interval(run["range"]) if run["seeds"][1:] else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _difference_table(summary: Summary, mode: str) -> list[str]:
    """Return the differences of one mode, a line for two runs and a column for each axis."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for c in summary["replicates"]["comparisons"]:
        if c["mode"] == mode:
            rows.setdefault(f"{c['b']} − {c['a']}", {})[c["axis"]] = c
    n_items = {axis: c["n_items"] for axis, c in next(iter(rows.values()), {}).items()}
    lines = [
        "| difference | " + " | ".join(f"{axis} (n = {n})" for axis, n in n_items.items()) + " |",
        "|---|" + "---|" * len(n_items),
    ]
    for name, by_axis in rows.items():
        cells = [
            f"{number(c['difference'])} {interval(c['ci95'])} q {p_value(c['q'])}"
            + _void(summary, [c["a"], c["b"]], mode, axis)
            for axis, c in by_axis.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def transfer_lines(summary: Summary) -> list[str]:
    """Return how far other axes follow the one that is tuned on, a line for each side and mode."""
    lines = []
    for t in summary.get("transfer", ()):
        own, others, ratio = (t[key] or {"estimate": None, "ci95": None} for key in ("on", "off", "ratio"))
        (n_on, of_on), (n_off, of_off) = t["signs"]["on"], t["signs"]["off"]
        lines.append(
            f"- {t['side']}, {t['mode']}: the axis that is tuned on {number(own['estimate'])} {interval(own['ci95'])}, "
            f"the others {number(others['estimate'])} {interval(others['ci95'])}, others over own "
            f"{number(ratio['estimate'], 2)} {interval(ratio['ci95'], 2)}; moved to this side: {n_on} of {of_on} own "
            f"axes, {n_off} of {of_off} others. Intervals over pairs, for these adapters."
        )
    return lines


def _shape_table(summary: Summary) -> list[str]:
    """Return the shape of each model's lean."""
    lines = [
        "| shape of the lean | topics differ by (SD) | on the model's own side | Sarle's coefficient; .556 uniform |",
        "|---|---|---|---|",
    ]
    for s in summary["shape"]:
        keys = {"topics": "sd", "own_side": "share", "bimodality": "estimate"}
        cells = [
            f"{number(s[part][key], 3, False)} {interval(s[part]['ci95'], 3, False)}" if s[part] else MISSING
            for part, key in keys.items()
        ]
        lines.append(f"| {s['model']}, {s['mode']}, {s['axis']} | {' | '.join(cells)} |")
    return lines


def _void(summary: Summary, names: Sequence[str], mode: str, axis: str) -> str:
    """Return a mark where the score of any of these models, or of any seed of these runs, is void."""
    seeds = {run["run"]: run["models"] for run in summary["replicates"]["runs"]}
    models = [model for name in names for model in seeds.get(name, [name])]
    return " (void)" if any(summary["models"][name][mode][axis]["void"] for name in models) else ""
