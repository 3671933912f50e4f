# SPDX-License-Identifier: MIT
"""A client of the page of data/review.py, for its tests; ``serve`` is a fixture of all."""

import html
import http.client
import json
import re
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from omegaconf import OmegaConf

from data import review

EVIL = "<script>document.title='x'</script> & <img src=x onerror=alert(1)> \"'"


LEANS = {"tax the rich": "left", "cut taxes": "right", "tea is hot": "neither", "free buses": "left", "own it": "right"}


PAIRS = [{"prompt": f"p{k}?", "chosen": f"yes {k}", "rejected": f"no {k}"} for k in range(12)]


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def serve_in_background(server):
    """Serve a page in a thread, until it is closed; perhaps that is before the thread begins."""

    def run():
        with suppress(OSError):
            server.serve_forever()

    threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def serve(tmp_path):
    """Return a function that serves rows as the recipe does, and one call for each request to it."""
    with ExitStack() as servers:

        def start(rows=None, **changed):
            source = tmp_path / "rows.jsonl"
            if rows is not None:
                write(source, rows)
            settings = {"source": str(source), "output_dir": str(tmp_path / "out"), "port": 0, "n_bootstrap": 100}
            cfg = OmegaConf.create(review.OPTIONAL | settings | changed)
            with ExitStack() as stack:
                server = review.build_server(cfg, review.load_review(cfg), stack)
                stop = servers.enter_context(stack.pop_all()).close
            serve_in_background(server)
            return Client(server.port, stop)

        yield start


class Client:
    """Sends requests as a browser would."""

    def __init__(self, port, stop=None):
        self.port, self.stop = port, stop

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
