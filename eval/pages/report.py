# SPDX-License-Identifier: MIT
"""``report.html``: one self-contained page about a run, from ``summary.json`` and the instrument's texts.

No script, no font and no address is loaded; every text of a model, an instrument or a config is escaped.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from eval.pages.compass_plot import caption, panel_svgs
from eval.pages.lean_plot import verdict
from eval.pages.score_table import is_shown
from eval.scores.drift import ends_of
from eval.statements.instruments import Instrument

Summary = Mapping[str, Any]

# Rows of the table of items that moved most, for each model and mode.
MOST_MOVED = 10


def write_report(summary: Summary, instrument: Instrument, path: str | Path) -> None:
    """Write the page.

    Args:
        summary: What ``summary.json`` holds.
        instrument: Gives the texts of the items that it names.
        path: The HTML file to write.
    """
    Path(path).write_text(render_report(summary, instrument), encoding="utf-8")


def render_report(summary: Summary, instrument: Instrument) -> str:
    """Return the page as text."""
    texts = {item.id: item.text for item in instrument.items}
    texts |= {pair.id: f"{pair.left} ↔ {pair.right}" for pair in instrument.pairs}
    first, *others = summary["models"]
    axes, ends = summary["instrument"]["axes"], ends_of(list(summary["models"]))
    return load_page("eval.pages", "report.html.jinja").render(
        s=summary,
        base=first,
        ends=ends,
        headlines=_headlines(summary, ends),
        panels=panel_svgs(summary),
        caption=caption(summary),
        texts=texts,
        shown=[c for c in summary["comparisons"] if is_shown(c, list(summary["models"]))],
        moved=[
            (name, mode, rows) for name in others if name in ends for mode, rows in _most_moved(summary, name).items()
        ],
        between_modes=[flip for flip in summary["flips"] if flip["a"] == flip["b"]],
        between_models=[flip for flip in summary["flips"] if flip["a"] != flip["b"]],
        placebo=[name for name, axis in axes.items() if axis["placebo"]],
        flags=[
            {"model": name, "mode": mode, **flag}
            for name, modes in summary["diagnostics"].items()
            for mode, found in modes.items()
            for flag in found["flags"]
        ],
        without=_changed_without(summary),
        has_prompts_spread=any(
            value["ci95_items_fixed"]
            for modes in summary["models"].values()
            for of in modes.values()
            for value in of.values()
        ),
    )


def load_page(package: str, name: str) -> Template:
    """Return the template of a page in a package, which escapes every text and knows the filters of our figures."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number_text, interval=interval_text, percent=_percent, p=p_text, verdict=verdict)
    environment.filters.update(plain=_plain, plain_interval=_plain_interval)
    return environment.from_string((resources.files(package) / name).read_text(encoding="utf-8"))


def _headlines(summary: Summary, ends: list[str]) -> list[dict[str, Any]]:
    """What a reader is told first: each mode and axis with its differences, or the models for which it is void."""
    first, models = ends[0], summary["models"]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for c in summary["comparisons"]:
        is_part = c["mode"] == "pairs" and c["axis"] != "lean"
        # of many models, only their way from the first
        if c["placebo"] or is_part or not {c["a"], c["b"]} <= set(ends) or (len(ends) > 4 and c["a"] != first):
            continue
        place = found.setdefault((c["mode"], c["axis"]), {"comparisons": [], "void": []})
        place["comparisons"].append(c)
        void = [name for name in (c["a"], c["b"]) if models[name][c["mode"]][c["axis"]]["void"]]
        place["void"] += [name for name in void if name not in place["void"]]
    return [{"mode": mode, "axis": axis, **place} for (mode, axis), place in found.items()]


def _changed_without(summary: Summary) -> list[tuple]:
    """Model, mode, axis and score of what is another score without the contaminated statements."""
    without = (summary["contamination"].get("without") or {}).get("models", {})
    return [
        (name, mode, axis, score)
        for name, modes in without.items()
        for mode, axes in modes.items()
        for axis, score in axes.items()
        if any(score[key] != summary["models"][name][mode][axis][key] for key in ("estimate", "ci95"))
    ]


def _most_moved(summary: Summary, name: str) -> dict[str, list[dict]]:
    """The items of each mode that one model moved most against the first, placebo left out."""
    by_mode: dict[str, list[dict]] = {}
    for row in summary["items"]:
        if row["b"] == name and not row["placebo"]:
            by_mode.setdefault(row["mode"], []).append(row)
    return {
        mode: sorted(rows, key=lambda row: (-abs(row["difference"]), row["item"]))[:MOST_MOVED]
        for mode, rows in by_mode.items()
    }


def number_text(x: float | None, digits: int = 2) -> str:
    """Return a figure with its sign, with a minus as wide as a plus; what rounds to 0 has none."""
    if x is None:
        return "–"
    text = f"{x:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def interval_text(x: list[float | None] | None, digits: int = 2) -> str:
    """Return an interval as text, as :func:`number_text`."""
    if x is None or None in x:
        return "–"
    return f"[{number_text(x[0], digits)}, {number_text(x[1], digits)}]"


def _plain(x: float | None) -> str:
    return "–" if x is None else f"{x:.2f}"


def _plain_interval(x: list[float | None] | None) -> str:
    return "–" if x is None or None in x else f"[{_plain(x[0])}, {_plain(x[1])}]"


def _percent(x: float | None) -> str:
    return "–" if x is None else f"{100 * x:.0f} %"


def p_text(x: float | None) -> str:
    """Return a p or q as text."""
    return "–" if x is None else "< .001" if x < 0.001 else f"{x:.3f}"[1:] if x < 1 else "1"
