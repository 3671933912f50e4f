# SPDX-License-Identifier: MIT
"""A page of this machine: streams, threads, and its end. The pages of the recipes test what is refused."""

import http.client
import itertools
import os
import signal
import sys
import threading
import time
from http import HTTPStatus

import pytest
from review_client import serve_in_background

from data.recipe.pages import LocalServer, Reply

WAIT_S = 20


class Page(LocalServer):
    """Counts without end at ``/count``, waits at ``/wait``, and says what it took."""

    def __init__(self):
        super().__init__(0, "data.people", "review.html.jinja")
        self.go_on, self.closed = threading.Event(), threading.Event()

    def show(self, path, query):
        if path == "/count":
            return Reply(HTTPStatus.OK, self._count(), "text/plain", close=self.closed.set)
        if path == "/wait":
            assert self.go_on.wait(WAIT_S)
        return Reply(HTTPStatus.OK, path)

    def take(self, path, sent):
        return Reply(HTTPStatus.OK, sent.decode())

    def problem(self, status, problem):
        return Reply(status, problem)

    def _count(self):
        for n in itertools.count():
            yield f"{n}\n"
            time.sleep(0.01)


@pytest.fixture
def page():
    with Page() as page:
        serve_in_background(page)
        yield page


def ask(page, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=WAIT_S)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def test_a_request_that_waits_keeps_nobody_else_waiting(page):
    slow = threading.Thread(target=ask, args=(page, "/wait"))
    slow.start()
    assert ask(page, "/other").read() == b"/other"
    assert slow.is_alive()
    page.go_on.set()
    slow.join()


def test_a_stream_comes_piece_by_piece_and_ends_when_its_reader_has_gone(page):
    reply = ask(page, "/count")
    assert [reply.readline() for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
    assert not page.closed.is_set()
    reply.close()
    assert page.closed.wait(WAIT_S)


def test_what_says_no_length_is_not_read(page):
    origin = {"Origin": f"http://127.0.0.1:{page.port}"}
    assert ask(page, "/", "POST", **origin, **{"Content-Length": "0", "Transfer-Encoding": "chunked"}).status == 413
    assert ask(page, "/", "POST", **origin, **{"Content-Length": "10001"}).status == 413
    assert ask(page, "/", "POST", **origin, **{"Content-Length": "0"}).status == 200


def test_ctrl_c_ends_a_page_and_its_streams():
    pieces = []

    def interrupt():
        reply = ask(page, "/count")  # waits until it is served
        pieces.append(reply.readline())
        os.kill(os.getpid(), signal.SIGINT)
        pieces.extend(reply)

    with Page() as page:
        reader = threading.Thread(target=interrupt)
        reader.start()
        page.serve_forever()
        reader.join()
    assert pieces[0] == b"0\n"  # and the rest came to an end
    assert page.closed.is_set()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r'pip install -c constraints.txt -e "\.\[pages\]"'):
        Page()
