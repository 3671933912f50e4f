# SPDX-License-Identifier: MIT
"""One model for several people: their work is computed in turns, by one thread, the least served first."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from finetune.adapters.resident import AdaptedModel

# A turn is as long as a token or two: switching adapters takes some milliseconds.
TURN_S = 0.1
_log = logging.getLogger(__name__)

Event = dict[str, Any]


class Part(NamedTuple):
    """A part of a request."""

    weights: Mapping[str, float]  # added to the base for it (AdaptedModel.using)
    steps: Iterator[Event]  # computes a little when it is advanced; between two steps the model is not its own


class Request:
    """A request under way; each of its events says of which ``part`` it is, and a ``problem`` ends one."""

    def __init__(self, parts: Sequence[Part], used_s: float, close: Callable[["Request"], None]) -> None:
        self.parts, self.used_s, self._close = parts, used_s, close
        self.seconds = dict.fromkeys(range(len(parts)), 0.0)  # that the parts which are not over have had
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events.get, None)

    def close(self) -> None:
        """Drop what is not computed, and make place for another request."""
        self._close(self)


class Turns:
    """Serves at most ``max_requests`` side by side, with a model that nobody else uses, until its ``with`` ends."""

    def __init__(self, model: AdaptedModel, max_requests: int) -> None:
        self._model, self._max_requests = model, max_requests
        self.requests: set[Request] = set()  # under way
        self._waiting: dict[Request, None] = {}  # for the model, in the order in which they came
        self._changed, self._ended = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def request(self, parts: Sequence[Part]) -> Request:
        """Compute parts side by side until the request is closed; RuntimeError if too many are under way."""
        with self._changed:
            if (n := len(self.requests)) >= self._max_requests:
                limit = "requests are being answered, the most at one time (max_requests)"
                raise RuntimeError(f"{n} {limit}. Try again in a moment.")
            # who comes later does not wait until those before have had as much as the others
            used_s = min((other.used_s for other in self._waiting), default=0.0)
            request = Request(parts, used_s, self._close)
            self.requests.add(request)
            self._waiting[request] = None
            self._changed.notify_all()
        return request

    def _close(self, request: Request) -> None:
        with self._changed:
            self.requests.discard(request)
            self._waiting.pop(request, None)

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    for request in self._waiting:
                        request.events.put(None)
                    return
                # of several who have had as little, who came last: the others have seen something already
                request = min(reversed(self._waiting), key=lambda request: request.used_s)
                part = min(request.seconds, key=lambda part: request.seconds[part])
            began = time.perf_counter()
            is_over = self._turn(request, part, began + TURN_S)
            seconds = time.perf_counter() - began
            with self._changed:
                request.used_s += seconds
                request.seconds[part] += seconds
                if is_over:
                    del request.seconds[part]
                if not request.seconds:
                    self._waiting.pop(request, None)
                    request.events.put(None)
            del request  # it holds keys and values, and the next wait may be long

    def _turn(self, request: Request, part: int, until: float) -> bool:
        """Advance a part for a while; return whether it is over."""
        try:
            weights, steps = request.parts[part]
            with self._model.using(weights):
                while True:  # one step at least, however long the switch took
                    event = next(steps, None)
                    if event is None:
                        return True
                    request.events.put({"part": part, **event})
                    if time.perf_counter() >= until:
                        return False
        except Exception as error:  # must not end what others are waiting for
            _log.exception("a part of a request failed")
            request.events.put({"part": part, "problem": f"{type(error).__name__}: {error}"})
            return True
