# SPDX-License-Identifier: MIT
"""Numbers as text, and texts on a page as texts."""

import pytest

from data.recipe.figures import interval, number, p_value, page_template, percent


@pytest.mark.parametrize(
    ("x", "text"), [(0.0004, "0.000"), (-0.0004, "0.000"), (1.5, "+1.500"), (-2, "−2.000"), (None, "–")]
)
def test_numbers_as_text(x, text):
    assert number(x) == text


def test_other_figures_as_text():
    assert number(-2, 1, signed=False) == "−2.0"
    assert interval([-1, 1], 1) == "[−1.0, +1.0]"
    assert interval([None, 1]) == interval(None) == "–"
    assert (percent(0.256), percent(0.256, 1), percent(None)) == ("26 %", "25.6 %", "–")
    ps = (0.0001, 0.05, 0.9994, 0.9996, 1, None)  # .000 would be the least of all
    assert [p_value(x) for x in ps] == ["< .001", ".050", ".999", "1", "1", "–"]


def test_a_page_shows_texts_as_texts():
    page = page_template("data.people", "review.html.jinja")
    assert page.environment.from_string("{{ x }} {{ y | number(1) }}").render(x="<b>", y=2) == "&lt;b&gt; +2.0"
