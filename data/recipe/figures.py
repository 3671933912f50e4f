# SPDX-License-Identifier: MIT
"""How figures are printed, and how pages are filled: the one printer of numbers and the one Jinja environment."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

MISSING = "–"


def number(x: float | None, digits: int = 3, signed: bool = True) -> str:
    """Return a figure as text, None as a dash; a minus is as wide as a plus, and a 0 has no sign."""
    if x is None:
        return MISSING
    text = f"{x:+.{digits}f}" if signed else f"{x:.{digits}f}"
    return (text if text.strip("+-0.") else text.lstrip("+-")).replace("-", "−")


def interval(ends: Sequence[float | None] | None, digits: int = 3, signed: bool = True) -> str:
    """Return an interval as text; None, or an end that is None, gives a dash."""
    if ends is None or None in ends:
        return MISSING
    return f"[{', '.join(number(end, digits, signed) for end in ends)}]"


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share as a percentage."""
    return MISSING if share is None else f"{100 * share:.{digits}f} %"


def p_value(x: float | None) -> str:
    """Return a p or q as text, without the zero before the point."""
    return MISSING if x is None else "< .001" if x < 0.001 else f"{x:.3f}"[1:] if x < 0.9995 else "1"


def page_template(package: str, name: str, **filters: Callable[..., Any]) -> Template:
    """Return a template that lies beside the code of a package, or, what all pages share, beside this module.

    The printers of this module are among its filters.
    """

    def read(name: str) -> str | None:
        places = (files(place).joinpath(name) for place in (package, "data.recipe"))
        return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), None)

    environment = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number, interval=interval, percent=percent, p=p_value, **filters)
    return environment.get_template(name)
