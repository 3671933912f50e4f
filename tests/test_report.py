# SPDX-License-Identifier: MIT
"""The page of a run: nothing in it can run or load, and everything that a reader needs is there."""

from html.parser import HTMLParser

import pytest
from test_diagnostics import BANK, ask, leaning, one_hot, place

from eval.asking.results import describe_run
from eval.pages.compass import caption, draw_compass, list_panels
from eval.pages.finding import describe_finding
from eval.pages.report import render_report, score_table
from eval.scores.summary import summarize

HOSTILE = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>&lt;'$x_1^{$ ]]> {{ 7 * 7 }}"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data):
        self.text += data


def make_summary(rows, bank=BANK, matches=(), **more):
    scores = summarize(rows, bank, 50, 0)
    without = {key: scores[key] for key in ("models", "comparisons")} if matches else None
    files = [{"file": "train.jsonl", "sha256": "0" * 64, "n_rows": 3}] if matches else []
    guard = {"training_data": files, "matches": list(matches), "left_out": [], "without": without}
    return {**describe_run(bank, {"seed": 0}), **scores, "contamination": guard, **more}


@pytest.fixture(scope="module")
def hostile():
    items = tuple(item._replace(text=f"{HOSTILE} {item.id}", topic=HOSTILE) for item in BANK.items)
    bank = BANK._replace(name=HOSTILE, source=HOSTILE, licence=HOSTILE, items=items)
    rows = ask(place(1), templates="ab") + ask(leaning(1), model=HOSTILE, templates="ab")
    rows += ask(lambda *_: one_hot(3), mode="generate", templates="a") + ask(leaning(-2), HOSTILE, "generate", "a")
    match = {
        "item": "x0a", "side": "", "statement": HOSTILE, "kind": "exact", "similarity": 1.0,
        "file": HOSTILE, "row": 1, "field": "chosen", "text": HOSTILE,
    }  # fmt: skip
    summary = make_summary(rows, bank, [match], command=HOSTILE, settings={HOSTILE: {"a": HOSTILE}})
    return summary, render_report(summary, bank)


def test_nothing_that_is_shown_can_run(hostile):
    summary, text = hostile
    page = Page(text)
    assert not {"script", "img", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    assert [a for a in page.attributes if a[1].startswith("on")] == []
    assert "alert(1)" in page.text  # shown as what it is
    assert "{{ 7 * 7 }}" in page.text
    assert page.tags.count("svg") == sum(map(len, list_panels(summary)))


def test_nothing_is_loaded(hostile):
    page = Page(hostile[1])
    targets = [v for _, name, v in page.attributes if name in ("href", "src", "xlink:href", "action", "data")]
    assert [v for v in targets if not v.startswith("#")] == []
    assert "@import" not in hostile[1]
    assert "url(http" not in hostile[1]
    policy = [v for tag, name, v in page.attributes if tag == "meta" and name == "content" and "default-src" in v]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_the_pictures_are_whole_and_the_same_each_time():
    summary = make_summary(ask(leaning(1), model=HOSTILE, templates="ab"))
    first, again = draw_compass(summary), draw_compass(summary)
    assert first["png"][:4] == b"\x89PNG"
    assert first["svg"].startswith(b"<?xml")
    assert b"<script" not in first["svg"]
    assert first["svg"] == again["svg"]


def test_what_a_reader_needs_is_there(hostile):
    text = Page(hostile[1]).text
    headline = describe_finding(hostile[0]).headline
    assert HOSTILE in headline
    assert text.index(headline) < text.index("Before you rely on this") < text.index("Where the models stand")
    for part in (
        "Void: base, choice: the place of an option matters: +1.00",
        "so nothing is concluded",
        "acquiescence",
        "95 %, items fixed",
        "95 %, items too",
        "must not move",
        "not told from 0",
        "Statements that moved most",
        "statements change side",
        "Scores without these statements",
        "SHA-256",
        "numpy",
    ):
        assert part in text, part


def test_who_refuses_everything_is_not_placed():
    summary = make_summary(ask(lambda *_: None) + ask(leaning(1), model="right"))
    page = Page(render_report(summary, BANK)).text
    assert "not identified" in page
    assert "[−10.00, +10.00]" in page
    assert "Not identified (no answer): base on x (choice)" in caption(summary)
    assert "not id." in score_table(summary)
    assert "VOID: unanswered" in score_table(summary)


def test_one_model_alone():
    page = Page(render_report(make_summary(ask(leaning(1), templates="a")), BANK)).text
    assert "Where the models stand" in page
    assert "Paired differences" not in page


def test_more_models_than_styles():
    """Nine models: eight panels' worth of rows, none left out."""
    rows = [row for k in range(9) for row in ask(leaning(k / 9), model=f"m-{k}", templates="a", labels=["digits"])]
    summary = make_summary(rows)
    assert all(f"m-{k}" in score_table(summary) for k in range(9))
    assert draw_compass(summary)["png"][:4] == b"\x89PNG"
