# SPDX-License-Identifier: MIT
"""The tables of controls.md are those that the answers in docs/results/ give, and other pages quote them."""

import json
import lzma
import re

import pytest

from benchmarks import controls
from benchmarks.controls import BANK, NULLS, PAGE, REPO, RESULTS, dtype_table, evidence, filled, kept, null_summary
from data.recipe.figures import interval, number
from eval.statements.prompts import load_templates


def test_the_page_shows_what_the_answers_say():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page


def test_other_pages_quote_the_quickstart_as_its_answers_are():
    def figures_of(page):
        return re.sub(r"[\s|>]+", " ", (REPO / page).read_text(encoding="utf-8"))

    for line in dtype_table().splitlines()[2:4]:  # right less left
        assert " ".join(line.strip("| ").split(" | ")[3:]) in figures_of("docs/start/quickstart.md")
    found = {(one["a"], one["b"]): one["subsets"] for one in evidence("quickstart", is_of_shipped=True)}
    said = [f"{row['n_items']} {number(row['difference'])} {interval(row['ci95'])}" for row in found["left", "right"]]
    assert all(figures in figures_of("docs/measure/instruments.md") for figures in said)
    for sides in found.values():
        assert f"{number(sides[0]['difference'])} {interval(sides[0]['ci95'])}" in figures_of("README.md")
    (unseen,) = [row for row in found["left", "right"] if row["subset"] == "unseen"]
    beyond = unseen["beyond"]
    for page in ("README.md", "docs/start/quickstart.md"):
        assert f"{number(unseen['difference'])} {interval(unseen['ci95'])}, " in figures_of(page)
        assert f"{number(beyond['estimate'])} {interval(beyond['ci95'])}" in figures_of(page)


def test_the_nulls_that_ship_are_those_of_the_answers():
    for suffix, path in NULLS.items():
        assert json.loads(path.read_text(encoding="utf-8")) == null_summary(suffix)
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
