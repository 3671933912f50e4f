# SPDX-License-Identifier: MIT
"""The tables of docs/measure/controls.md are those that the answers in docs/results/ give."""

import json
import lzma

import pytest

from benchmarks import controls
from benchmarks.controls import BANK, NULL, PAGE, RESULTS, filled, kept, null_summary
from eval.statements.prompts import load_templates


def test_the_page_shows_what_the_answers_say():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page


def test_the_null_that_ships_is_that_of_the_answers():
    assert json.loads(NULL.read_text(encoding="utf-8")) == null_summary()
    assert sum(file.stat().st_size for file in RESULTS.iterdir()) < 3_000_000


@pytest.mark.parametrize("other", ["instrument", "templates"])
def test_answers_to_another_version_are_refused(tmp_path, monkeypatch, other):
    monkeypatch.setattr(controls, "RESULTS", tmp_path)
    about = {"instrument_sha256": BANK.sha256, "templates_sha256": load_templates(BANK.language).sha256}
    for changed in (about, about | {f"{other}_sha256": "0"}):
        (tmp_path / "mine.jsonl.xz").write_bytes(lzma.compress(json.dumps(changed).encode()))
        if changed == about:
            assert kept("mine") == (about, [])
    with pytest.raises(ValueError, match=f"mine: it was asked with other {other} than today's; ask again, and --keep"):
        kept("mine")
