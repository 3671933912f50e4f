# SPDX-License-Identifier: MIT
import errno
import html
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from chromium import BINARY, Chromium
from conftest import REPO
from markupsafe import escape
from omegaconf import OmegaConf

from data import review
from data.judges import check_judge
from data.records import read_pairs
from data.review_answers import answers_path
from data.review_items import Review, read_items
from data.sources import load_rows
from eval.judge_scales import load_scale
from eval.labelled_texts import read_labelled

EVIL = "<script>document.title='x'</script> & <img src=x onerror=alert(1)> \"'"
LEANS = {"tax the rich": "left", "cut taxes": "right", "tea is hot": "neither", "free buses": "left", "own it": "right"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def serve(tmp_path):
    """Return a function that serves rows as the recipe does, and one call for each request to it."""
    servers = []

    def start(rows=None, **changed):
        source = tmp_path / "rows.jsonl"
        if rows is not None:
            write(source, rows)
        settings = {"source": str(source), "output_dir": str(tmp_path / "out"), "port": 0, "n_bootstrap": 100}
        cfg = OmegaConf.create(review.OPTIONAL | settings | changed)
        server = review.build_server(cfg, review.load_review(cfg))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Client(server.server_port, server)

    def stop(client):
        servers.remove(client.server)
        client.server.shutdown()
        client.server.server_close()
        for answers in client.server.answers.values():
            answers.close()

    start.stop = stop
    yield start
    for server in list(servers):
        stop(SimpleNamespace(server=server))


class Client:
    """What a browser would send."""

    def __init__(self, port, server=None):
        self.port, self.server = port, server

    def ask(self, method, path, form=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        host = f"127.0.0.1:{self.port}"
        sent = {"Host": host} | ({"Origin": f"http://{host}"} if method == "POST" else {}) | headers
        sent = {k: v for k, v in sent.items() if v is not None}
        body = urlencode(form).encode() if form is not None else None
        connection.putrequest(method, path, skip_host=True)
        for key, value in (({"Content-Length": str(len(body))} if body is not None else {}) | sent).items():
            connection.putheader(key, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        return SimpleNamespace(status=reply.status, headers=reply.headers, text=reply.read().decode())

    def page(self, reviewer):
        return Page(self.ask("GET", f"/{reviewer}").text)

    def press(self, reviewer, key, page=None):
        """Press a key on the page that is shown, or on one that has been open for long."""
        page = page or self.page(reviewer)
        name, value = page.buttons[key]
        reply = self.ask("POST", f"/{reviewer}", {"item": page.item, name: value})
        assert reply.status == 303, reply.text
        return reply.headers["Location"]

    def answer_all(self, reviewer, keys):
        """Answer each text with the keys (by value) that a function gives for it."""
        while (page := self.page(reviewer)).item:
            for value in keys(page):
                found = next(k for k, (_, v) in page.buttons.items() if v.split("=")[-1] == value)
                self.press(reviewer, found, page)


class Page:
    def __init__(self, text):
        self.text = text
        self.item = next(iter(re.findall(r'name="item" value="(\w+)"', text)), "")
        self.texts = [html.unescape(x) for x in re.findall(r'<p class="said" dir="auto">(.*?)</p>', text, re.DOTALL)]
        self.buttons = {
            key: (name, value)
            for name, value, key in re.findall(r'<button name="(\w+)" value="([^"]*)" data-key="(\w)"', text)
        }


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def labels(page):
    return [LEANS[page.texts[0]], "accept"]


def test_two_reviewers_give_kappa_and_a_gold_file(serve, tmp_path):
    extra = {"one rejects": "left", "both reject": "left", "one skips": "right"}
    client = serve([{"text": text, "side": "SECRET"} for text in {**LEANS, **extra}])

    def a(page):
        text = page.texts[0]
        return {"both reject": ["reject"], "one rejects": ["left", "reject"], "one skips": ["skip"]}.get(
            text
        ) or labels(page)

    def b(page):
        text = page.texts[0]
        special = {"both reject": ["reject"], "own it": ["left", "accept"]}
        return special.get(text) or ([extra[text], "accept"] if text in extra else labels(page))

    client.answer_all("a", a)
    assert not (tmp_path / "out" / "gold.jsonl").exists()
    client.answer_all("b", b)
    gold = lines(tmp_path / "out" / "gold.jsonl")
    # "neither" is what judges call the centre
    assert [(row["text"], row["label"]) for row in gold] == [
        ("tax the rich", "left"), ("cut taxes", "right"), ("tea is hot", "centre"), ("free buses", "left")
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["outcomes"] == {
        "agreed": 4, "answers differ": 1, "accept or reject differs": 1, "rejected": 1, "skipped": 1
    }  # fmt: skip
    apart = {row["text"]: row for row in lines(tmp_path / "out" / "apart.jsonl")}
    assert apart["own it"]["answers"] == {
        "a": {"side": "right", "accept": "accept"}, "b": {"side": "left", "accept": "accept"}
    }  # fmt: skip
    side = found["agreement"]["a, b"]["side"]
    # both gave a side to 6 texts and agree on 5. a: 3 left, 2 right, 1 neither; b: 4, 1, 1. Chance 15/36:
    assert side["n"] == 6
    assert side["kappa"]["estimate"] == pytest.approx((5 / 6 - 15 / 36) / (1 - 15 / 36), abs=1e-6)
    assert found["agreement"]["a, b"]["accept"]["n"] == 7
    assert found["reviewers"]["a"] == {
        "done": 8, "skip": 1, "left": 3, "right": 2, "neither": 1, "accept": 5, "reject": 2, "not in the source": 0
    }  # fmt: skip
    # both readers of labelled texts take the file as it is
    read = read_labelled(str(tmp_path / "out" / "gold.jsonl"), load_scale("lean"), "text", "label", None, [], None)
    assert read.truth == ["left", "right", "centre", "left"]
    client_of_judge = SimpleNamespace(
        model="m",
        chat_many=lambda requests, **_: (
            (k, SimpleNamespace(parsed={"lean": x})) for k, x in enumerate([0, 20, 10, 3])
        ),
    )
    rows, _ = load_rows("json", str(tmp_path / "out" / "gold.jsonl"))
    assert check_judge(client_of_judge, SimpleNamespace(request=str), rows, 0.9)["kappa"] == 1


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


def test_order_is_drawn_for_each_reviewer_and_stays():
    items = {str(k): SimpleNamespace(id=str(k)) for k in range(40)}
    made = Review("label", items, {}, ["a", "b"])
    assert made.order("a") != made.order("b")
    assert made.order("a") == Review("label", items, {}, ["a", "b"]).order("a")
    assert made.order("a") != Review("label", items, {}, ["a", "b"], seed=1).order("a")
    fewer = {k: v for k, v in items.items() if int(k) < 30}
    assert Review("label", fewer, {}, ["a"]).order("a") == [k for k in made.order("a") if k in fewer]


@pytest.mark.parametrize("seed", range(3))
def test_sides_change_places_from_reviewer_to_reviewer(seed):
    item = SimpleNamespace(id="x")
    made = Review("label", {"x": item}, {}, ["a", "b"], seed=seed)
    first = {name: [b.value for b in made.buttons(item, name) if b.question == "side"] for name in "ab"}
    assert first["a"][:2] == first["b"][1::-1]
    assert {*first["a"][:2]} == {"left", "right"}


PAIRS = [{"prompt": f"p{k}?", "chosen": f"yes {k}", "rejected": f"no {k}"} for k in range(12)]


def test_preferences_become_rows_for_dpo(serve, tmp_path):
    client = serve(PAIRS, mode="prefer", reviewers=["a"])
    shown = {}

    def keys(page):
        prompt, *answers = page.texts
        shown[prompt] = answers
        if prompt == "p0?":
            return ["tie"]
        if prompt == "p1?":
            return ["skip"]
        wanted = "no" if prompt == "p2?" else "yes"
        key = "ab"[[x.split()[0] for x in answers].index(wanted)]
        return [page.buttons[key][1].split("=")[-1]]

    client.answer_all("a", keys)
    # blinded: either answer may be A
    assert {answers[0].split()[0] for answers in shown.values()} == {"yes", "no"}
    rows, origin = load_rows("json", str(tmp_path / "out" / "preferences.jsonl"))
    pairs = read_pairs(rows, origin)
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs] == [
        ("p2?", "no 2", "yes 2"), *((f"p{k}?", f"yes {k}", f"no {k}") for k in range(3, 12))
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["outcomes"] == {"agreed": 10, "skipped": 1, "tie": 1}
    assert found["reviewers"]["a"]["chosen"] == 9
    as_a = sum(shown[p.prompt][0] == p.chosen for p in pairs)
    assert found["reviewers"]["a"]["shown as A"] == as_a
    # the same answers, had the source had its columns exchanged
    flipped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS]
    source = write(tmp_path / "flipped.jsonl", flipped)
    cfg = OmegaConf.create(
        review.OPTIONAL
        | {"source": str(source), "output_dir": str(tmp_path / "out"), "mode": "prefer", "reviewers": ["a"]}
    )
    review.settle(cfg, review.load_review(cfg))
    again, _ = load_rows("json", str(tmp_path / "out" / "preferences.jsonl"))
    assert again == rows


def test_the_last_answer_can_be_undone(serve, tmp_path):
    client = serve([{"text": text} for text in LEANS])
    first = client.page("a")
    assert "u" not in first.buttons
    client.press("a", "1")
    after = client.page("a")
    assert after.item == first.item
    assert "1" in after.buttons
    client.press("a", "u")
    assert client.page("a").item == first.item
    assert answers_path(tmp_path / "out", "a").read_text().count("\n") == 2
    assert client.press("a", "u", after) == "/a?note=moved"  # an old tab takes nothing back
    client.answer_all("a", labels)
    client.answer_all("b", labels)
    out = tmp_path / "out"
    assert len(lines(out / "gold.jsonl")) == 5
    client.press("a", "u")
    assert len(lines(out / "gold.jsonl")) == 4
    assert [row["reason"] for row in lines(out / "apart.jsonl")] == ["unanswered"]


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
        ("GET", "/a", None, {"Host": None}, 421),
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
        ("POST", "/a", None, {"Content-Length": "-1"}, 413),
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
    serve.stop(client)
    one = serve(reviewer="b")
    assert one.ask("GET", "/").headers["Location"] == "/b"
    assert one.ask("GET", "/a").status == 404
    assert "known: b" in one.ask("GET", "/a").text


def test_reviewers_on_two_machines_are_put_together(serve, tmp_path):
    rows = [{"text": text} for text in LEANS]
    for name in "ab":
        client = serve(rows, reviewer=name, output_dir=str(tmp_path / name))
        client.answer_all(name, labels)
        serve.stop(client)
    answers_path(tmp_path / "b", "b").rename(answers_path(tmp_path / "a", "b"))
    cfg = OmegaConf.create(
        review.OPTIONAL | {"source": str(tmp_path / "rows.jsonl"), "output_dir": str(tmp_path / "a")}
    )
    found = review.settle(cfg, review.load_review(cfg))
    assert found["outcomes"] == {"agreed": 5}
    assert found["agreement"]["a, b"]["side"]["kappa"]["estimate"] == 1


def test_a_used_port_and_open_answers_are_named(serve):
    client = serve([{"text": "x"}], reviewer="a")
    with pytest.raises(RuntimeError, match="another run has it open"):
        serve(reviewer="a")
    with pytest.raises(OSError, match=f"port={client.port} is in use.*port=0"):
        serve(reviewer="b", port=client.port)
    serve(reviewer="b")  # the one that failed has let go of the file


def test_an_answer_that_cannot_be_written_does_not_count(serve, tmp_path, monkeypatch):
    client = serve([{"text": text} for text in LEANS])
    client.press("a", "1")
    page, path = client.page("a"), answers_path(tmp_path / "out", "a")
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data.review_answers.os.fsync", full)
    reply = client.ask("POST", "/a", {"item": page.item, "answer": "accept=accept"})
    assert reply.status == 507
    assert "No space left" in reply.text
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert client.page("a").item == page.item
    client.press("a", "a")
    assert len(lines(path)) == 2


def test_a_kill_loses_no_answer_and_the_same_command_goes_on(serve, tmp_path):
    rows = write(tmp_path / "rows.jsonl", [{"text": text} for text in LEANS])
    tune = Path(sys.executable).parent / "tune"
    command = [tune, "run", "data/review.py", "--config", "configs/review.yaml", f"source={rows}", "port=0"]
    process = subprocess.Popen(
        [*command, f"output_dir={tmp_path / 'out'}"],
        cwd=REPO,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        seen = []
        for line in process.stdout:
            seen.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                break
        else:
            raise AssertionError("".join(seen))
        client = Client(int(found[1]))
        for key in "1a2a3":
            client.press("a", key)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    path = answers_path(tmp_path / "out", "a")
    assert len(lines(path)) == 5
    with path.open("a") as file:
        file.write('{"item": "a line that was not written wh')
    client = serve()
    page = client.page("a")
    assert "2 of 5 done" in page.text
    assert 'aria-pressed="true"' in page.text  # the third text has its side
    client.press("a", "a")
    assert len(lines(path)) == 6


def test_answers_to_other_texts_or_questions_are_named(serve, caplog, tmp_path):
    client = serve([{"text": "x"}, {"text": "y"}], reviewers=["a"])
    client.answer_all("a", lambda page: ["left", "accept"])
    serve.stop(client)
    with pytest.raises(ValueError, match="accept'.*Set mode and accept as they were"):
        serve(reviewers=["a"], accept=False)
    serve([{"text": "x"}, {"text": "z"}], reviewers=["a"]).press("a", "r")
    assert "a has answered 1 texts that" in caplog.text
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["reviewers"]["a"]["not in the source"] == 1
    assert found["outcomes"] == {"agreed": 1, "rejected": 1}


@pytest.mark.parametrize("line", ["no json", "[1]", '{"item": "x"}', '{"undo": true}', '{"item": 1, "a": "\\ud8"}'])
def test_a_damaged_file_of_answers_is_named(serve, tmp_path, line):
    path = answers_path(tmp_path / "out", "a")
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl line 1: no answer"):
        serve([{"text": "x"}])


def test_rows_that_cannot_be_shown_are_counted(tmp_path):
    rows = [{"text": "x"}, {"text": " "}, {"text": "x"}, {"text": 5}, {"other": 1}, {"text": "\ud800"}, {"text": "y"}]
    items, left_out = read_items(str(write(tmp_path / "rows.jsonl", rows)), "label")
    assert [item.texts for item in items.values()] == [("x",), ("y",)]
    assert left_out == {
        "text is empty": [2, 5],
        "text is int, not text": [4],
        "duplicate": [3],
        "no Unicode text (half a surrogate pair)": [6],
    }
    pairs = [*PAIRS[:1], {"prompt": "p0?", "chosen": "no 0", "rejected": "yes 0"}, {**PAIRS[1], "rejected": "yes 1"}]
    items, left_out = read_items(str(write(tmp_path / "pairs.jsonl", pairs)), "prefer")
    assert len(items) == 1
    assert left_out == {"duplicate": [2], "chosen equals rejected": [3]}


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("a,b\nx,y\n", {}, "no column text; found a, b. Name it with column_map.text=NAME"),
        ("a,b\nx,y\n", {"mode": "prefer"}, "no column prompt, chosen, rejected; found a, b"),
        ("text\nx\n", {"mode": "rank"}, "mode=rank; use one of label, prefer"),
        ("text\nx\n", {"column_map": {"txt": "text"}}, "column_map names txt"),
        ("text\n", {}, "no rows"),
        ("text,n\n,1\n , 2\n", {}, r"no row can be shown: text is empty \(2\)"),
        ("text\nx,y\n", {}, "row 1: 2 fields, the header has 1"),
        ("text\nx\n", {"reviewer": "carol"}, "reviewer=carol is unknown; use one of a, b"),
        ("text\nx\n", {"reviewers": ["../a"]}, "give different names"),
        ("text\nx\n", {"reviewers": ["a", "A"]}, "give different names"),
        ("text\nx\n", {"reviewers": []}, "give different names"),
        ("text\nx\n", {"source": None}, "source is null; give source=FILE"),
    ],
)
def test_a_wrong_source_or_setting_is_named(tmp_path, text, settings, message):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        review.load_review(OmegaConf.create(review.OPTIONAL | {"source": str(path), "output_dir": "x"} | settings))


def test_on_request_what_is_there_is_written(serve, tune_run, tmp_path):
    client = serve([{"text": text} for text in LEANS], reviewer="a")
    client.press("a", "1")
    settings = [f"source={tmp_path / 'rows.jsonl'}", f"output_dir={tmp_path / 'out'}", "serve=False"]
    assert tune_run("data/review.py", "--config", "configs/review.yaml", *settings) == 0
    assert (tmp_path / "out" / "gold.jsonl").read_text() == ""
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["outcomes"] == {"unanswered": 5}
    assert found["agreement"] == {"a, b": {"side": None, "accept": None}}


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
