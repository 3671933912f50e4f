# SPDX-License-Identifier: MIT
"""The playground over real HTTP on a random two-layer Llama, and its page in a real browser."""

import contextlib
import http.client
import json
import math
import re
import shutil
import threading
import time
from contextlib import ExitStack, closing

import pytest
import torch
from chromium import BINARY, Chromium
from conftest import REPO, TINY
from omegaconf import OmegaConf
from review_client import serve_in_background
from safetensors.torch import load_file, save_file
from test_political_compass import BANK, adapters  # noqa: F401

from data.recipe.config import check_config
from eval.asking.generate import write
from eval.asking.questions import prompt_tokens, to_questions
from eval.asking.respond import answer_questions
from eval.asking.written_answers import Decoding
from eval.play.side_by_side import _as_instrument
from eval.play.turns import Part, Turns
from eval.playground import OPTIONAL, REQUIRED, build_server
from eval.statements.prompts import choice_prompts, pair_prompts

EVIL = "<script>document.title='x'</script> & <img src=x onerror=alert(1)> \"' </textarea>"
NAMES = ["base", "left", "right", "both", "dial"]
DRAWN = {"temperature": 1.0, "max_new_tokens": 9, "seed": 5, "position": 0.37}
TWINS = [
    {"id": "a", "text": "Raise the tax.", "topic": "tax", "weights": {"economic": [2, 1, -1, -2]}, "twin": "b"},
    {"id": "b", "text": "Cut the <b>tax</b>.", "topic": "tax", "weights": {"economic": [-2, -1, 1, 2]}, "twin": "a"},
]


@pytest.fixture(scope="module")
def config(tiny_model_dir, adapters, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("playground")
    shutil.copytree(tiny_model_dir, base := folder / "base")
    weights = load_file(base / "model.safetensors")
    # a model whose answers hang on what is said
    louder = {name: tensor if "norm" in name else tensor * 6 for name, tensor in weights.items()}
    save_file(louder, base / "model.safetensors", metadata={"format": "pt"})
    (folder / "bank.yaml").write_text(json.dumps({**BANK, "items": [*BANK["items"], *TWINS]}))  # JSON is YAML
    raw = OmegaConf.load(REPO / "configs" / "playground.yaml")
    raw.model = {"_component_": "torchtune.models.llama3_2.llama3_2", "rope_base": 100_000, "scale_factor": 1, **TINY}
    given = {
        "output_dir": str(folder / "out"),
        "tokenizer": {"path": str(base)},
        "checkpointer": {"checkpoint_dir": str(base)},
        "adapters": {**adapters, "both": {"left": 1, "right": 0.5}},
        "instrument": str(folder / "bank.yaml"),
        "max_tokens_per_forward": 40,
        "n_templates": 2,
        "max_requests": 2,
        "port": 0,
    }
    return check_config(OmegaConf.merge(raw, given), REQUIRED, OPTIONAL)


@pytest.fixture(scope="module")
def server(config):
    with ExitStack() as stack:
        server = build_server(config, stack)
        serve_in_background(server)
        yield server


@pytest.fixture(autouse=True)
def _nobody_waits(server):
    yield
    until(lambda: not server.turns.requests)


def until(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def send(server, path, sent, method="POST", **headers):
    """Send what the page would, and return the reply with its body unread."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    host = f"127.0.0.1:{server.port}"
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    given = {"Host": host, "Origin": f"http://{host}", "Content-Length": str(len(body))} | headers
    connection.putrequest(method, path, skip_host=True)
    for key, value in given.items():
        if value is not None:
            connection.putheader(key, value)
    connection.endheaders(body)
    return connection.getresponse()


def ask(server, path, sent):
    """Return what was asked, the last state of each column, and the id."""
    asked, *events, last = map(json.loads, send(server, path, sent))
    for event in events:
        asked["columns"][event.pop("part")].update(event)
    return asked, {column["name"]: column for column in asked["columns"]}, last["id"]


def plainly(server, weights, prompt, **drawn):
    """Return what ``eval.asking.generate.write`` writes, and its text."""
    asked = server.side_by_side
    ids, stop = prompt_tokens(asked.tokenizer, prompt), asked.tokenizer.stop_tokens
    decoding = Decoding(drawn["temperature"], None, drawn["max_new_tokens"], 0)
    with asked.model.using(weights) as model:
        (tokens,) = write(model, [ids], decoding, [drawn["seed"]], stop)
    return asked.tokenizer.decode(tokens[:-1] if tokens[-1] in stop else tokens)


def test_two_users_at_once_get_what_each_would_get_alone(server):
    prompts, found, times = ["Is tea good? " * 12, "Say what a state is for."], {}, {0: [], 1: []}

    def user(k):
        lines = []
        for line in send(server, "/answer", {"prompt": prompts[k], **DRAWN, "seed": k, "max_new_tokens": 12}):
            times[k].append(time.perf_counter())
            lines.append(json.loads(line))
        found[k] = lines

    users = [threading.Thread(target=user, args=(k,)) for k in (0, 1)]
    for each in users:
        each.start()
    for each in users:
        each.join()
    assert max(times[0][1], times[1][1]) < min(times[0][-1], times[1][-1]), "one after the other"
    for k, (asked, *events, last) in found.items():
        assert [column["name"] for column in asked["columns"]] == NAMES
        assert [column["weights"] for column in asked["columns"]] == [
            {}, {"left": 1}, {"right": 1}, {"left": 1, "right": 0.5}, {"right": 0.37}
        ]  # fmt: skip
        assert asked["n_prompt_tokens"] > (40 if k == 0 else 0), "not read in several steps"
        texts = {}
        for event in events:
            texts.setdefault(event["part"], []).append(event.get("text", ""))
        for part, column in enumerate(asked["columns"]):
            expected = plainly(server, column["weights"], prompts[k], **DRAWN | {"seed": k, "max_new_tokens": 12})
            assert texts[part][-1] == expected
            assert len(list(filter(None, texts[part]))) > 5, "not streamed"
        assert len({of[-1] for of in texts.values()}) == len(NAMES), "adapters that change nothing show nothing"
        assert last.keys() == {"id"}


def test_the_ends_of_the_dial_are_the_adapters_and_its_middle_is_the_base(server):
    for position, name in ((-1, "left"), (0, "base"), (1, "right")):
        _, columns, _ = ask(server, "/answer", {"prompt": "Hi", **DRAWN, "position": position})
        assert columns["dial"]["text"] == columns[name]["text"]
        assert columns["dial"]["finish"] in ("stop", "length")


def test_a_reading_is_what_the_compass_would_find(server, config):
    statement, opposite = "Taxes should fall {now}.", EVIL
    asked, columns, _ = ask(server, "/read", {"statement": statement, "opposite": opposite, "position": -0.5})
    assert {column["n_read"] for column in columns.values()} == {asked["n_prompts"]}, "progress is not to its end"
    one, of = _as_instrument(server.side_by_side.instrument, statement, opposite), server.side_by_side
    prompts = choice_prompts(one, of.templates, 2, 2, ["words"]), pair_prompts(one, of.templates, 4)
    questions = [to_questions(asked_so, of.tokenizer) for asked_so in prompts]
    assert asked["n_prompts"] == sum(map(len, questions)) == 2 * 2 * 2 + 4
    with of.model.using({"left": 0.5}) as model:
        choices, pairs = (answer_questions(model, "m", q, 800) for q in questions)
    found = []
    for row in choices:
        p = [math.exp(x) for x in row["option_logprobs"]]
        mean = sum(x * w for x, w in zip(p, (-1, -1 / 3, 1 / 3, 1))) / sum(p)
        found.append(mean if row["item"] == "statement" else -mean)
    assert columns["dial"]["agreement"]["estimate"] == pytest.approx(sum(found) / len(found), abs=2e-6)
    assert columns["dial"]["agreement"]["ci95"] is None  # two wordings in two orders say nothing about others
    leans = []
    for row in pairs:
        against, favour = (x / n for x, n in zip(row["option_logprobs"], row["n_tokens"]))
        leans.append(favour - against)
    assert columns["dial"]["likelier"]["estimate"] == pytest.approx(sum(leans) / 4, abs=2e-6)
    _, turned, _ = ask(server, "/read", {"statement": opposite, "opposite": statement, "position": -0.5})
    for name, column in columns.items():
        for kind in ("agreement", "likelier"):
            assert turned[name][kind]["estimate"] == pytest.approx(-column[kind]["estimate"], abs=2e-6)
    assert len({column["agreement"]["estimate"] for column in columns.values()}) == len(NAMES)
    _, alone, _ = ask(server, "/read", {"statement": statement, "opposite": "", "position": 0})
    assert "likelier" not in alone["base"]
    assert -1 < alone["base"]["agreement"]["estimate"] < 1


@pytest.mark.parametrize(
    ("path", "sent", "status", "problem"),
    [
        ("/answer", {"prompt": ""}, 400, "prompt is empty"),
        ("/answer", {"prompt": " \n"}, 400, "prompt is empty"),
        ("/answer", {"prompt": None}, 400, "prompt is empty"),
        ("/answer", {"prompt": "\ud800"}, 400, "half a character"),
        ("/answer", {"prompt": "word " * 2000}, 400, r"has 2\d\d\d tokens.* context is 512 .*room for 503: shorten"),
        ("/answer", {"prompt": "x", "max_new_tokens": 600}, 400, "whole number from 1 to 511"),
        ("/answer", {"prompt": "x", "max_new_tokens": 1.5}, 400, "whole number"),
        ("/answer", {"prompt": "x", "seed": ""}, 400, 'seed is ""; give a whole number'),
        ("/answer", {"prompt": "x", "seed": True}, 400, "seed is true"),
        ("/answer", {"prompt": "x", "position": 1.5}, 400, "position is 1.5; give a number from -1 to 1"),
        ("/answer", {"prompt": "x", "temperature": float("nan")}, 400, "temperature is NaN"),
        ("/read", {"statement": ""}, 400, "statement is empty"),
        ("/read", {"statement": "x" * 10_000}, 400, "10,000 characters; the most is 1,000"),
        ("/read", {"statement": "x", "opposite": " "}, 400, "opposite is empty"),
        ("/save", {"id": "never"}, 400, "no longer in memory"),
        ("/save", {}, 400, "no longer in memory"),
        ("/other", {}, 400, "no request of this page"),
        ("/answer", b"[1]", 400, "no request of this page"),
        ("/answer", b"\xff{", 400, "no request of this page"),
    ],
)
def test_what_cannot_be_answered_is_said(server, path, sent, status, problem):
    reply = send(server, path, {**DRAWN, **sent} if isinstance(sent, dict) else sent)
    assert reply.status == status
    found = json.loads(reply.read())["problem"]
    assert re.search(problem, found), found


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "evil.example"}, 421),
        ("GET", {"Host": None}, 400),
        ("POST", {"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ("POST", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": None}, 403),
        ("POST", {"Content-Length": None}, 413),
        ("POST", {"Content-Length": "1048577"}, 413),
        ("PUT", {}, 501),
    ],
)
def test_requests_of_others_are_refused(server, method, headers, status):
    assert send(server, "/" if method == "GET" else "/answer", b"", method, **headers).status == status


def test_html_is_answered_as_text(server):
    asked, columns, _ = ask(server, "/answer", {"prompt": EVIL, **DRAWN})
    assert asked["prompt"] == EVIL
    assert columns["left"]["text"] == plainly(server, {"left": 1}, EVIL, **DRAWN)


def test_the_page_says_what_it_is_and_loads_nothing(server):
    reply = send(server, "/", b"", "GET")
    page = reply.read().decode()
    assert "These adapters lean on purpose" in page
    assert page.count("leans on purpose</p>") == 4
    assert "Cut the &lt;b&gt;tax&lt;/b&gt;." in page
    assert "<b>" not in page
    assert 'src="' not in page
    assert server.address == "127.0.0.1"
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # couples of twins once, the one whose agreement is the high end first
    assert server.side_by_side.statements()[-1] == {
        "about": "tax (economic; agreeing is right)", "statement": "Cut the <b>tax</b>.", "opposite": "Raise the tax."
    }  # fmt: skip
    assert send(server, "/saved.jsonl", b"", "GET").status == 404


def test_a_limit_of_requests_is_said_and_who_has_gone_is_dropped(server):
    slow, n_kept = {"prompt": "Write a lot.", **DRAWN, "max_new_tokens": 450}, len(server._kept)
    waiting = [send(server, "/answer", slow) for _ in range(2)]
    for reply in waiting:
        reply.readline()
    third = send(server, "/answer", slow)
    assert third.status == 503
    assert json.loads(third.read())["problem"].startswith("2 requests are being answered, the most at one time")
    for reply in waiting:
        reply.close()
    until(lambda: not server.turns._waiting)
    assert len(server._kept) == n_kept, "nobody was there, and it was written to the end"
    assert ask(server, "/answer", {"prompt": "x", **DRAWN})[2]


def test_nothing_is_stored_unless_asked(server, config, monkeypatch):
    path, sent = server.path, {"prompt": EVIL, **DRAWN}
    _, columns, name = ask(server, "/answer", sent)
    _, _, other = ask(server, "/read", {"statement": "x", "position": 0})
    assert list(path.parent.glob("*")) == []

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data.recipe.files.os.fsync", full)
    reply = send(server, "/save", {"id": name})
    assert (reply.status, "No space left" in reply.read().decode()) == (507, True)
    monkeypatch.undo()
    assert path.read_bytes() == b"", "half a line would stay"
    for key in (name, other):
        assert json.loads(send(server, "/save", {"id": key}).read())["saved"].endswith(str(path))
    assert "saved already" in json.loads(send(server, "/save", {"id": name}).read())["problem"]
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["prompt"] == EVIL
    assert first["decoding"] == {"temperature": 1.0, "top_k": None, "max_new_tokens": 9, "seed": 5}
    assert {column["name"]: column["text"] for column in first["columns"]} == {k: c["text"] for k, c in columns.items()}
    assert first["columns"][-1]["weights"] == {"right": 0.37}
    settings = first["run"]["settings"]
    assert settings["adapters"]["left"] == config.adapters.left
    assert len(settings["adapters_sha256"]["left"]) == len(settings["base_sha256"]) == 64
    assert (second["kind"], second["statement"]) == ("reading", "x")
    path.unlink()


def test_turns_are_fair_in_time_and_a_fault_ends_its_own_part_alone(caplog, monkeypatch):
    monkeypatch.setattr("eval.play.turns.TURN_S", 0.04)
    done = []

    def steps(name, n, seconds):
        for _ in range(n):
            time.sleep(seconds)
            done.append(name)
            yield {"name": name}

    def broken():
        yield {"name": "broken"}
        raise FloatingPointError("not finite")

    class Resident:
        using = staticmethod(lambda weights: torch.no_grad())

    with Turns(Resident(), 2) as turns:
        with closing(turns.request([Part({}, steps("long", 8, 0.06)), Part({}, broken())])) as request:
            long = iter(request)
            next(long)
            with closing(turns.request([Part({}, steps("short", 40, 0.004))])) as short:
                assert len(list(short)) == 40
            assert 1 <= done.count("long") < 8, "who computes longer at a time has waited as long"
            assert done[: done.index("short")].count("long") <= 3, "who comes later is not kept waiting"
            events = list(long)
        assert [e["problem"] for e in events if "problem" in e] == ["FloatingPointError: not finite"]
        assert done.count("long") == 8
        assert "a part of a request failed" in caplog.text
        with closing(turns.request([Part({}, steps("gone", 1000, 0.004))])) as events:
            next(iter(events))
        n_done = len(done)
        time.sleep(0.15)
        assert len(done) <= n_done + 15, "what nobody waits for is computed"


def test_a_slow_switch_does_not_stop_the_work(monkeypatch):
    monkeypatch.setattr("eval.play.turns.TURN_S", 0.02)

    @contextlib.contextmanager
    def using(weights):
        time.sleep(0.03)  # longer than a turn
        yield

    resident = type("Resident", (), {"using": staticmethod(using)})()
    with Turns(resident, 1) as turns:
        assert [event["n"] for event in turns.request([Part({}, iter([{"n": 0}, {"n": 1}]))])] == [0, 1]


def test_the_page_opens_with_the_checkpoints_of_a_run(config, tmp_path):
    shutil.copytree(config.adapters.left, tmp_path / "run" / "step_5")
    given = {"adapters": None, "dial": None}
    cfg = OmegaConf.merge(config, given, {"adapters": {"mine": str(tmp_path / "run" / "*")}})
    with ExitStack() as stack:
        page = build_server(cfg, stack)
        serve_in_background(page)
        reply = send(page, "/", {}, "GET")
        assert (reply.status, "mine_step_5" in reply.read().decode()) == (200, True)


def test_what_is_wrong_is_found_before_the_weights_load(config, monkeypatch):
    monkeypatch.setattr("eval.playground.load_adapted", lambda *_: pytest.fail("loaded"))
    for change, message in (
        ({"max_requests": 0}, "max_requests=0; use 1 or more"),
        ({"top_k": 0}, "top_k=0; use 1 or more"),
        ({"n_templates": 50}, "n_templates=50; use 1 to"),
        ({"labels": ["numbers"]}, "labels=.'numbers'.; use any of"),
        ({"n_pair_templates": 0}, "n_pair_templates=0; use"),
        ({"max_new_tokens": 512}, "max_new_tokens=512; use 1 to 511, since the context is 512"),
        ({"dial": {"low": "left", "high": "none", "n_points": 9}}, "dial: no adapter"),
        ({"adapters": {"dial": config.adapters.left}}, "adapters.dial: the page calls a column of its own so"),
    ):
        with ExitStack() as stack, pytest.raises(ValueError, match=message):
            build_server(OmegaConf.merge(config, change), stack)


@pytest.mark.skipif(BINARY is None, reason="no Chromium on this machine")
def test_the_page_in_a_real_browser(server, tmp_path):
    texts = "[...document.querySelectorAll('.said')].map(x => x.textContent)"
    fill = "document.querySelector('[name={}]').value = {}"
    with Chromium(tmp_path / "profile") as browser:
        browser.open(server.url)
        browser.run(fill.format("prompt", json.dumps(EVIL)))
        browser.run(fill.format("max_new_tokens", 9))
        browser.run(fill.format("temperature", 1))
        browser.run("document.querySelector('#position').value = -0.25")
        browser.run("document.querySelector('#position').dispatchEvent(new Event('input'))")
        assert browser.run("document.querySelector('#at').textContent") == "−0.25, left × 0.25"
        browser.run("document.querySelector('#ask').requestSubmit()")
        browser.wait("!document.querySelector('#ask-after .save').disabled")
        weights = server.side_by_side.columns(-0.25).values()
        drawn = {"temperature": 1, "max_new_tokens": 9, "seed": 0}
        assert browser.run(texts) == [plainly(server, w, EVIL, **drawn) for w in weights]
        browser.run("document.querySelector('#ask-after .save').click()")
        browser.wait("document.querySelector('#ask-after .state').textContent.startsWith('Saved')")
        assert json.loads(server.path.read_text())["prompt"] == EVIL
        server.path.unlink()
        for prompt, problem in (("", "prompt is empty"), ("word " * 2000, "shorten the prompt")):
            browser.run(fill.format("prompt", json.dumps(prompt)))
            browser.run("document.querySelector('#ask').requestSubmit()")
            browser.wait(f"document.querySelector('#ask-after .state').textContent.includes({problem!r})")
        # a statement of the instrument fills both fields
        browser.run("document.querySelector('#known').value = document.querySelector('#known').options.length - 2")
        browser.run("document.querySelector('#known').dispatchEvent(new Event('change'))")
        assert browser.run("document.querySelector('[name=opposite]').value") == "Raise the tax."
        browser.run("document.querySelector('#read').requestSubmit()")
        browser.wait("!document.querySelector('#read-after .save').disabled")
        assert browser.run("document.querySelectorAll('svg circle').length") == 2 * len(NAMES)
        # whoever presses stop is waited for by nobody
        browser.run(fill.format("prompt", "'Hello'"))
        browser.run(fill.format("max_new_tokens", 450))
        browser.run("document.querySelector('#ask').requestSubmit()")
        browser.wait("document.querySelector('.meta').textContent.includes('tokens')")
        browser.run("document.querySelector('#ask .stop').click()")
        browser.wait("document.querySelector('#ask-after .state').textContent == 'Stopped.'")
        until(lambda: not server.turns.requests)
        for width in (1280, 390):
            browser.size(width, 800)
            assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("document.title") == "Side by side: base, left, right, both, dial"
