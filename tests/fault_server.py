# SPDX-License-Identifier: MIT
"""A server of chat completions that answers by a rule and goes wrong on purpose: a test double for any real one.

Its answers depend on the request alone, its faults on ``seed`` and on how often it was asked. By itself:

    python tests/fault_server.py --port 8999 --fault-rate 0.2 --log calls.jsonl
"""

import argparse
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = ("429", "500", "timeout", "cut", "html", "no choices", "empty", "not utf-8")


class ManyAtOnce(ThreadingHTTPServer):
    """Takes more connections at a time than five, for what is turned away comes again after a second."""

    request_queue_size = 128
    daemon_threads = True


class FaultServer:
    """Listens on the loopback while the context is open; ``url`` is its base_url."""

    def __init__(
        self,
        respond: Callable[[dict], str | dict],
        fault_rate: float = 0.0,
        faults: tuple[str, ...] = FAULTS,
        seed: int = 0,
        port: int = 0,
        log: str | Path | None = None,
        delay_s: float = 0.0,
        stall_s: float = 1.0,
        retry_after: str = "0",
    ):
        self.respond, self.fault_rate, self.faults = respond, fault_rate, faults
        self.delay_s, self.stall_s, self.retry_after = delay_s, stall_s, retry_after
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.calls: list[dict] = []  # request bodies in order
        self.keys: set[str] = set()  # what came as Authorization
        self.outcomes: Counter[str] = Counter()
        self.log = open(log, "a", encoding="utf-8") if log else None
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ManyAtOnce(("127.0.0.1", port), handler)
        self.http.handle_error = lambda *_: None  # clients that are killed hang up
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self):
        # looks every 10 ms whether to stop, for the end of the context waits for that
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        if self.log:
            self.log.close()

    def outcome_of(self, body: dict) -> str:
        with self.lock:
            self.calls.append(body)
            fault = self.random.random() < self.fault_rate
            outcome = self.random.choice(self.faults) if fault else "answered"
            self.outcomes[outcome] += 1
            if self.log:
                self.log.write(json.dumps({"sha256": request_sha256(body), "outcome": outcome}) + "\n")
                self.log.flush()
        return outcome


def request_sha256(body: dict) -> str:
    """The client's key of a call, computed here from what arrived."""
    params = {k: v for k, v in body.items() if k not in ("model", "messages")}
    content = {"model": body["model"], "messages": body["messages"], "params": params}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body waits 40 ms for the client to acknowledge the headers

    def log_message(self, *_):
        pass

    def do_POST(self):
        owner = self.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with owner.lock:
            owner.keys.add(self.headers["Authorization"])
        outcome = owner.outcome_of(body)
        time.sleep(owner.delay_s)
        try:
            self._answer(body, outcome)
        except (BrokenPipeError, ConnectionResetError):  # the client gave up, or was killed
            pass

    def _answer(self, body: dict, outcome: str) -> None:
        if outcome == "timeout":
            time.sleep(self.owner.stall_s)
            self.close_connection = True
            return
        if outcome in ("429", "500"):
            self._send(int(outcome), b'{"error": {"message": "try later"}}', {"Retry-After": self.owner.retry_after})
            return
        if outcome == "quota":
            self._send(429, b'{"error": {"message": "no money", "code": "insufficient_quota"}}')
            return
        if outcome.isdigit():
            self._send(int(outcome), b'{"error": {"message": "no"}}')
            return
        bodies = {
            "html": b"<html>502</html>",
            "no choices": b'{"choices": []}',
            "empty": json.dumps(completion(body, "")).encode(),
            "not utf-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
        }
        if outcome in bodies:
            self._send(200, bodies[outcome])
            return
        answer = self.owner.respond(body)
        content = json.dumps(answer if isinstance(answer, dict) else completion(body, answer)).encode()
        if outcome == "cut":  # promises more than it sends
            self._send(200, content[: len(content) // 2], length=len(content))
            self.close_connection = True
            return
        self._send(200, content)

    def _send(self, status: int, content: bytes, headers: dict | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def completion(body: dict, text: str, **choice) -> dict:
    """The JSON of an answer, as OpenAI documents it."""
    n_prompt = sum(len(m["content"].split()) for m in body["messages"])
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | choice,
        ],
        "usage": {"prompt_tokens": n_prompt, "completion_tokens": len(text.split()), "total_tokens": 0},
    }


def echo(body: dict) -> str:
    """Answer with the last message."""
    return body["messages"][-1]["content"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8999)
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--log")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rules", action="store_true", help="answer as synthesis_rules.py does, not with an echo")
    options = parser.parse_args()
    rule = echo
    if options.rules:
        from synthesis_rules import respond as rule
    settings = {"port": options.port, "log": options.log, "delay_s": options.delay_s, "seed": options.seed}
    with FaultServer(rule, options.fault_rate, **settings) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        threading.Event().wait()
