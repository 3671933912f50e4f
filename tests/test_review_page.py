# SPDX-License-Identifier: MIT
"""The page of data/review.py: what it shows, what it takes, and a real browser at its keys."""

import os
import re
import threading

import pytest
from chromium import BINARY, Chromium
from markupsafe import escape
from review_client import EVIL, LEANS, Page, labels, lines

from data.people.results import answers_path


def test_a_reviewer_sees_neither_side_nor_source_nor_other_answers(serve):
    client = serve([{"text": text, "side": "SECRET", "source": "HIDDEN"} for text in LEANS])
    before = Page(client.ask("GET", "/b").text)
    client.answer_all("a", labels)
    after = client.ask("GET", "/b").text
    assert Page(after).item == before.item
    strip = re.compile(r'nonce="[^"]*"')
    assert strip.sub("", after) == strip.sub("", before.text)
    assert "SECRET" not in after
    assert "HIDDEN" not in after


def test_two_tabs_cannot_answer_twice(serve, tmp_path):
    client = serve([{"text": text} for text in LEANS], accept=False)
    page, notes = client.page("a"), []
    tabs = [threading.Thread(target=lambda k=k: notes.append(client.press("a", k, page))) for k in "123" * 4]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert sorted(notes) == ["/a", *["/a?note=again"] * 11]
    assert len(lines(answers_path(tmp_path / "out", "a"))) == 1
    assert "answered before" in client.ask("GET", "/a?note=again").text


@pytest.mark.parametrize(
    ("method", "path", "form", "headers", "status"),
    [
        ("GET", "/a", None, {"Host": "evil.example:8765"}, 421),
        ("GET", "/a", None, {"Host": None}, 400),
        ("GET", "/a", None, {"Host": "[bad"}, 421),
        ("POST", "/a", {}, {"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ("POST", "/a", {}, {"Origin": "http://evil.example"}, 403),
        ("POST", "/a", {}, {"Origin": "http://127.0.0.1:1"}, 403),
        ("POST", "/a", {}, {"Origin": "null"}, 403),
        ("POST", "/a", {}, {"Origin": None}, 403),
        ("GET", "/carol", None, {}, 404),
        ("POST", "/carol", {}, {}, 404),
        ("GET", "/../../etc/passwd", None, {}, 404),
        ("POST", "/a", {"item": "0" * 16}, {}, 400),
        ("POST", "/a", {"answer": "side=far left"}, {}, 400),
        ("POST", "/a", {"answer": "prefer=tie"}, {}, 400),
        ("POST", "/a", {"answer": None}, {}, 400),
        ("POST", "/a", None, {"Content-Length": "1000000000"}, 413),
        ("POST", "/a", None, {"Content-Length": "-1"}, 400),
        ("POST", "/a", None, {}, 413),
        ("PUT", "/a", None, {}, 501),
    ],
)
def test_requests_that_are_refused(serve, tmp_path, method, path, form, headers, status):
    client = serve([{"text": text} for text in LEANS])
    if form is not None:
        form = {"item": client.page("a").item, "answer": "side=left"} | form
    reply = client.ask(method, path, form, **headers)
    assert reply.status == status, reply.text
    assert not answers_path(tmp_path / "out", "a").read_text()
    assert not client.page("a").texts == []


def test_texts_are_shown_as_text_and_nothing_is_loaded(serve):
    long = "ten thousand " * 770
    texts = [EVIL, long, "line\r\none\n\n two", "\u202eright to left שלום", "\x00\x1b[31m", "a" * 10_000]
    client, seen = serve([{"text": text} for text in texts], accept=False), []
    while (page := client.page("a")).item:
        seen += page.texts
        assert not re.search(r'(src|href)=(?!"data:,")', page.text.replace(str(escape(EVIL)), ""))
        assert "http" not in page.text.replace("http-equiv", "")
        client.press("a", "3")
    assert sorted(seen) == sorted(texts)
    policy = client.ask("GET", "/a").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_asks_who_reviews_unless_the_config_says(serve):
    client = serve([{"text": "x"}])
    assert re.findall(r'href="(/\w+)"', client.ask("GET", "/").text) == ["/a", "/b"]
    client.stop()
    one = serve(reviewer="b")
    assert one.ask("GET", "/").headers["Location"] == "/b"
    assert one.ask("GET", "/a").status == 404
    assert "known: b" in one.ask("GET", "/a").text


def test_a_used_port_and_open_answers_are_named(serve):
    client = serve([{"text": "x"}], reviewer="a")
    with pytest.raises(RuntimeError, match="another run has it open"):
        serve(reviewer="a")
    with pytest.raises(OSError, match=f"port={client.port} is in use.*port=0"):
        serve(reviewer="b", port=client.port)
    serve(reviewer="b")  # the one that failed has let go of the file


@pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine")
def test_a_review_by_keyboard_in_a_real_browser(serve, tmp_path):
    client = serve([{"text": text} for text in (EVIL, "word " * 2000, "x" * 10_000)], reviewers=["a"])
    url = f"http://127.0.0.1:{client.port}/a"
    path = answers_path(tmp_path / "out", "a")
    with Chromium(tmp_path / "profile") as browser:
        for width in (1280, 390):
            browser.size(width, 800)
            browser.open(url)
            assert browser.run("document.documentElement.scrollWidth") <= width
            # however long the text, the buttons are in sight
            assert browser.run(
                "[...document.querySelectorAll('button')].every(b => b.getBoundingClientRect().bottom <= 800)"
            )
            assert browser.run(
                "[...document.querySelectorAll('button')].every(b => b.getBoundingClientRect().right <= innerWidth)"
            )
        browser.press("Tab")
        assert browser.run("document.activeElement.tagName") == "BUTTON"
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        shown = []
        for k, key in enumerate("2rs"):
            shown.append(browser.run("document.querySelector('.said').textContent"))
            if k == 0:
                browser.press("1")
                browser.wait("document.querySelector('[aria-pressed=true]')")
                browser.press("u")
                browser.wait("document.querySelector('[role=status]')")
                browser.press("1")
                browser.wait("document.querySelector('[aria-pressed=true]')")
                browser.press("2")  # the side is given: this key does nothing now
                browser.press("a", held=True)  # nor does one that is held down
                browser.press("a")
            else:
                browser.press(key)
            browser.wait(f"document.querySelector('progress').value == {k + 1}")
        assert sorted(shown) == sorted([EVIL, "word " * 2000, "x" * 10_000])
        assert "All done" in browser.run("document.body.innerText")
        assert browser.run("document.title") == "3 of 3 done · a"
    answers = lines(path)
    assert [row.get("question", "undo") for row in answers] == ["side", "undo", "side", "accept", "accept", "skip"]
    assert [row.get("answer") for row in answers][3:] == ["accept", "reject", "skip"]
    assert os.path.exists(tmp_path / "out" / "gold.jsonl")
