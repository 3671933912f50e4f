# SPDX-License-Identifier: MIT
"""The tables of docs/measure/controls.md are those that the answers in docs/results/ give."""

import json

from benchmarks.controls import NULL, PAGE, RESULTS, filled, null_summary


def test_the_page_shows_what_the_answers_say():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page


def test_the_null_that_ships_is_that_of_the_answers():
    assert json.loads(NULL.read_text(encoding="utf-8")) == null_summary()
    assert sum(file.stat().st_size for file in RESULTS.iterdir()) < 3_000_000
