# SPDX-License-Identifier: MIT
"""One model for several people: their work is computed in turns, by one thread, the least served first."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from finetune.adapters.resident import AdaptedModel

# A turn is as long as a token or two: switching adapters takes some milliseconds.
TURN_S = 0.1
_log = logging.getLogger(__name__)

Event = dict[str, Any]


class Part(NamedTuple):
    """A part of a request.

    Attributes:
        weights: What is added to the base for it (``AdaptedModel.using``).
        steps: Computes a little whenever it is advanced; between two steps the model is not its own.
    """

    weights: Mapping[str, float]
    steps: Iterator[Event]


class _Work:
    def __init__(self, number: int, part: Part) -> None:
        self.number, self.part, self.used_s = number, part, 0.0


class _Request:
    def __init__(self, parts: Sequence[Part], used_s: float) -> None:
        self.work = [_Work(k, part) for k, part in enumerate(parts)]
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.used_s = used_s


class Turns:
    """Serves requests side by side. Use it in a ``with`` statement.

    Args:
        model: Used by nobody else meanwhile.
        max_requests: More than these are refused.
    """

    def __init__(self, model: AdaptedModel, max_requests: int) -> None:
        self._model, self._max_requests, self.n_requests = model, max_requests, 0
        self._requests: dict[_Request, None] = {}  # in the order in which they came
        self._changed, self._ended = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Turns":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    @contextlib.contextmanager
    def request(self, parts: Sequence[Part]) -> Iterator[Iterator[Event]]:
        """Compute the parts of a request side by side; its events say of which ``part`` they are.

        A part that fails ends with an event that has a ``problem``. What is not computed when the ``with`` block ends
        is dropped.

        Raises:
            RuntimeError: If too many requests are under way.
        """
        with self._changed:
            if self.n_requests >= self._max_requests:
                raise RuntimeError(
                    f"{self.n_requests} requests are being answered, the most at one time (max_requests). Try again "
                    "in a moment."
                )
            self.n_requests += 1
            # who comes later does not wait until those before have had as much as the others
            request = _Request(parts, min((other.used_s for other in self._requests), default=0.0))
            self._requests[request] = None
            self._changed.notify_all()
        try:
            yield iter(request.events.get, None)
        finally:
            with self._changed:
                self.n_requests -= 1
                self._requests.pop(request, None)

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requests or self._ended)
                if self._ended:
                    for request in self._requests:
                        request.events.put(None)
                    return
                # of several who have had as little, who came last: the others have seen something already
                request = min(reversed(self._requests), key=lambda request: request.used_s)
                work = min(request.work, key=lambda work: work.used_s)
            began = time.perf_counter()
            is_over = self._turn(request, work, began + TURN_S)
            with self._changed:
                request.used_s += time.perf_counter() - began
                work.used_s += time.perf_counter() - began
                if is_over:
                    request.work.remove(work)
                if not request.work:
                    self._requests.pop(request, None)
                    request.events.put(None)
            del request, work  # they hold keys and values, and the next wait may be long

    def _turn(self, request: _Request, work: _Work, until: float) -> bool:
        """Advance a part for a while; return whether it is over."""
        try:
            with self._model.using(work.part.weights):
                while True:  # one step at least, however long the switch took
                    event = next(work.part.steps, None)
                    if event is None:
                        return True
                    request.events.put({"part": work.number, **event})
                    if time.perf_counter() >= until:
                        return False
        except Exception as error:  # must not end what others are waiting for
            _log.exception("a part of a request failed")
            request.events.put({"part": work.number, "problem": f"{type(error).__name__}: {error}"})
            return True
