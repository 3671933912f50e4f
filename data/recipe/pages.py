# SPDX-License-Identifier: MIT
"""A page for the people at this machine: plain HTTP on the loopback address, nothing loaded from anywhere.

A request is refused unless it names this machine (``Host``, against DNS rebinding), and what is sent unless it comes
from the page itself (``Origin``, against other sites that post to it). Scripts and styles carry a nonce.
"""

import errno
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import SplitResult, urlsplit

from jinja2 import Environment, StrictUndefined

ADDRESS = "127.0.0.1"


class LocalServer(ThreadingHTTPServer):
    """Serves one template to this machine.

    Args:
        port: Of the loopback address; 0 takes any that is free.
        handler: Answers the requests.
        package: Where the template lies.
        template: Its path there.

    Raises:
        OSError: If the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, port: int, handler: "type[LocalHandler]", package: str, template: str) -> None:
        # whatever a text holds is shown as text, never as markup
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        self.template = environment.from_string(files(package).joinpath(template).read_text("utf-8"))
        try:
            super().__init__((ADDRESS, port), handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                error.strerror = f"port={port} is in use; end what uses it, or give port=0 for any free one"
            raise

    @property
    def url(self) -> str:
        """Where one begins."""
        return f"http://{ADDRESS}:{self.server_port}/"


class LocalHandler(BaseHTTPRequestHandler):
    """What every request to such a page is checked for, and every reply carries."""

    server: LocalServer
    timeout = 30  # seconds; a client that says nothing does not hold a thread for ever
    sys_version = ""
    max_bytes = 10_000

    def show(self, path: SplitResult) -> None:
        """Answer a request for a page."""
        raise NotImplementedError

    def take(self, path: SplitResult, sent: bytes) -> None:
        """Answer what the page has sent."""
        raise NotImplementedError

    def problem(self, status: HTTPStatus, problem: str) -> None:
        """Say what is wrong with a request."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Show a page to this machine."""
        if self._is_local():
            self.show(urlsplit(self.path))
        else:
            self.problem(HTTPStatus.MISDIRECTED_REQUEST, f"Open {self.server.url} on the machine that serves it.")

    def do_POST(self) -> None:
        """Take what the page itself has sent."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > self.max_bytes:
            problem = f"This has more than {self.max_bytes} bytes, or says no length."
            return self.problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)
        # read first: a connection closed on unread bytes would lose the reply
        sent = self.rfile.read(int(length))
        if not self._is_local() or self.headers.get("Origin") != f"http://{self.headers['Host']}":
            return self.problem(HTTPStatus.FORBIDDEN, "This was not sent by this page and does not count.")
        return self.take(urlsplit(self.path), sent)

    def _is_local(self) -> bool:
        # any port: a tunnel may have another one here
        try:
            return urlsplit(f"//{self.headers['Host']}").hostname in (ADDRESS, "localhost")
        except ValueError:
            return False

    def send_page(self, status: HTTPStatus, **shown: Any) -> None:
        """Send the server's template."""
        nonce = secrets.token_urlsafe(16)
        body = self.server.template.render(shown, nonce=nonce).encode()
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        self.send_body(status, body, "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    def send_body(
        self, status: HTTPStatus, body: bytes | None, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        """Send a reply.

        Args:
            status: Of the reply.
            body: None: what is written until the connection closes.
            kind: Its content type.
            headers: Further ones.
        """
        self.send_response(status)
        length = {} if body is None else {"Content-Length": str(len(body))}
        always = {
            "Content-Type": kind,
            "Cache-Control": "no-store",  # going back must not show what was
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",  # with no-referrer the browser would send Origin: null
        }
        for name, value in (always | length | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if body is not None:
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing of single requests."""
