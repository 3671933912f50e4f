# SPDX-License-Identifier: MIT
"""Shipped rows of studies give the tables that the page shows, and hold no text that is not ours."""

import json

import yaml
from conftest import REPO

from benchmarks.study_rows import pack, summary_of, tables
from data.recipe.files import to_jsonl

SHIPPED = REPO / "docs" / "results" / "topics"
PAGE = REPO / "docs" / "measure" / "topics.md"


def test_the_page_has_the_tables_of_the_shipped_rows():
    files = sorted(SHIPPED.glob("*.jsonl.xz"))
    assert files
    page = PAGE.read_text(encoding="utf-8")
    for file in files:
        text = tables(SHIPPED, file.name.removesuffix(".jsonl.xz"))
        assert text in page, f"{file.name}; run: python -m benchmarks.study_rows docs/results/topics"


def test_packed_rows_keep_the_figures_and_no_text(tmp_path):
    pairs = [
        {
            "id": f"row-{k}",
            "topic": t,
            "axis": t,
            "prompt": f"Über {k}?",
            "left": f"Nay {k}, not for us.",
            "right": f"Yea {k}, it is for us.",
        }
        for k, t in enumerate("aaaabbbb")
    ]
    scale = {"offset": 0, "divisor": 1}
    axes = {t: {"low": "l", "high": "r", **scale} for t in "ab"}
    bank = {"name": "n", "version": "1", "licence": "MIT", "language": "en", "source": "/home/me/s.jsonl"}
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump({**bank, "axes": axes, "pairs": pairs}))
    rows = [
        {
            "model": name, "mode": "pairs", "item": pair["id"], "template": "own", "order": None, "labels": None,
            "sample": 0, "option_logprobs": [-4.0, -4.0 + (name != "base") * k / 10], "n_tokens": [2, 2], "n_shared": 0,
            "text": None, "prompt_sha256": "x",
        }
        for name in ("base", "a-right_seed-0", "b-right_seed-0") for k, pair in enumerate(pairs)
    ]  # fmt: skip
    (tmp_path / "results.jsonl").write_text(to_jsonl(rows))
    pack(tmp_path / "out", "all", tmp_path, str(tmp_path / "bank.yaml"))
    shipped = (tmp_path / "out" / "instrument.yaml").read_text()
    assert not any(text in shipped for text in ("Über", "Nay", "Yea", "/home"))
    summary = summary_of(tmp_path / "out", "all")
    (transfer,) = summary["transfer"]
    assert transfer["on"]["estimate"] == transfer["off"]["estimate"] == 0.175  # both runs moved every pair alike
    level = (-4 / 18 - 4 / 20) / 2  # of as many bytes as the texts have
    assert summary["diagnostics"]["base"]["pairs"]["level"] == round(level, 6)
    assert json.dumps(summary)
    assert "| a-right | → +0.07 –" in tables(tmp_path / "out", "all")
