# SPDX-License-Identifier: MIT
"""The audit's report as one HTML file that needs nothing else."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined


def render_report(report: dict[str, Any]) -> str:
    """Return the page; every text of a row is escaped."""
    template = files("data.quality").joinpath("audit.html.jinja").read_text(encoding="utf-8")
    # whatever a row holds is shown as text, never as markup
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["short"] = lambda text: text if len(text) <= 600 else f"{text[:600]} …"
    return environment.from_string(template).render(report=report)
