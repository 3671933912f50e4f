# SPDX-License-Identifier: MIT
"""A page for the people at this machine: HTTP on the loopback address, nothing loaded from anywhere.

A request is refused unless it names this machine (``Host``, against DNS rebinding), and what is sent unless it comes
from the page itself (``Origin``, against other sites that post to it). Scripts and styles carry a nonce.
"""

import errno
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from data.recipe.figures import page_template

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

ADDRESS = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",  # going back must not show what was
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer the browser would send Origin: null
}


class Reply(NamedTuple):
    """The reply to a request."""

    status: HTTPStatus
    body: str | Iterable[str]  # a text, or pieces that are sent as they come
    kind: str = "text/html"
    headers: Mapping[str, str] = {}
    close: Callable[[], None] | None = None  # called when the reply is sent, or its reader has gone


def listen(port: int) -> socket.socket:
    """Open a port of this machine, 0 for any free one; an OSError says why it cannot be had."""
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        problem = "is in use; end what uses it, or give port=0 for any free one"
        if error.errno != errno.EADDRINUSE:
            problem = f"cannot be had: {error.strerror}"
        raise OSError(error.errno, f"port={port} {problem}") from error


class LocalServer(ABC):
    """Serves a page to this machine; a subclass says what it shows and takes, in threads. Port 0 takes any free one."""

    max_bytes = 10_000

    def __init__(self, port: int, package: str, template: str) -> None:
        try:
            import uvicorn
        except ImportError as error:
            raise ImportError('a page needs the extra pages: pip install -c constraints.txt -e ".[pages]"') from error
        self.template = page_template(package, template)
        settings = uvicorn.Config(
            self._application(), loop="asyncio", http="h11", ws="none", lifespan="off",
            log_config=None, access_log=False, proxy_headers=False, server_header=False,
        )  # fmt: skip
        self._server = uvicorn.Server(settings)
        self._socket = listen(port)  # open before it is served: whoever comes in between waits
        self.address, self.port = self._socket.getsockname()
        self.url = f"http://{self.address}:{self.port}/"

    def serve_forever(self) -> None:
        """Serve until Ctrl-C or the end of the ``with`` block; a stream then ends with its next piece."""
        with suppress(KeyboardInterrupt):
            self._server.run([self._socket.dup()])  # which it closes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._socket.close()

    @abstractmethod
    def show(self, path: str, query: Mapping[str, str]) -> Reply:
        """Answer a request for a page."""

    @abstractmethod
    def take(self, path: str, sent: bytes) -> Reply:
        """Answer what the page has sent."""

    @abstractmethod
    def problem(self, status: HTTPStatus, problem: str) -> Reply:
        """Say what is wrong with a request."""

    def page(self, status: HTTPStatus, **shown: Any) -> Reply:
        """Fill the template."""
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        return Reply(status, self.template.render(shown, nonce=nonce), headers={"Content-Security-Policy": policy})

    def _application(self) -> "ASGIApp":
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import Response, StreamingResponse

        async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
            request = Request(scope, receive)
            length = request.headers.get("Content-Length", "")
            is_short = length.isdecimal() and int(length) <= self.max_bytes
            try:
                # read before it may be refused: a connection closed on unread bytes would lose the reply
                sent = await request.body() if is_short and "Transfer-Encoding" not in request.headers else None
            except ClientDisconnect:
                return
            reply = await run_in_threadpool(self._reply, request, sent)
            headers = {**HEADERS, **reply.headers}
            if isinstance(reply.body, str):
                response = Response(reply.body, reply.status, headers, reply.kind)
            else:
                response = StreamingResponse(self._until_end(reply.body), reply.status, headers, reply.kind)
            try:
                await response(scope, receive, send)
            finally:
                if reply.close:
                    reply.close()

        return application

    def _reply(self, request: "Request", sent: bytes | None) -> Reply:
        host, path = request.headers.get("Host", ""), request.scope["path"]
        try:
            # any port: a tunnel may have another one here
            is_local = urlsplit(f"//{host}").hostname in (ADDRESS, "localhost")
        except ValueError:
            is_local = False
        if request.method == "GET":
            if is_local:
                return self.show(path, request.query_params)
            return self.problem(HTTPStatus.MISDIRECTED_REQUEST, f"Open {self.url} on the machine that serves it.")
        if request.method != "POST":
            return self.problem(HTTPStatus.NOT_IMPLEMENTED, "This page is only read and answered.")
        if sent is None:
            problem = f"This has more than {self.max_bytes} bytes, or says no length."
            return self.problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)
        if not is_local or request.headers.get("Origin") != f"http://{host}":
            return self.problem(HTTPStatus.FORBIDDEN, "This was not sent by this page and does not count.")
        return self.take(path, sent)

    def _until_end(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            yield piece
            if self._server.should_exit:
                return
