# SPDX-License-Identifier: MIT
"""The one client for language models behind a URL: OpenAI, vLLM, llama.cpp, Ollama, ``transformers serve``.

A reply is on the disk before it is used, so a killed run repeats no call that was answered. A call that fails is a
counted :class:`~data.chat.replies.Failure`, never an empty reply. Replies are found by their request's content (model,
messages, parameters), so a second run, also without a server, gives the same.
"""

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from data.chat.cache import ReplyCache, request_key
from data.chat.endpoint import Endpoint
from data.chat.replies import Failure, Messages, Reply, Request, read_reply

__all__ = ["ChatClient", "Failure", "Reply", "Request"]

REPAIR = "That answer cannot be used: {problem}. Answer again in exactly the form asked for, and write nothing else."


class ChatClient:
    """Asks a model, each question once.

    Args:
        model: Name that the server knows it by.
        base_url: Address that ends in ``/v1``. None asks no server: replies come from ``cache_dir`` alone (replay).
        cache_dir: Folder of the replies.
        params: Parameters of every call, such as ``temperature``, ``max_tokens``, ``seed``.
        api_key_env: Environment variable that holds the key; servers of one's own need none.
        max_concurrency: Calls under way at once.
        timeout_s, max_retries, retry_wait_s: As in :class:`~data.chat.endpoint.Endpoint`.
        stop_after: So many unanswered calls in a row end the run: the server is gone.

    Attributes:
        counts: ``calls`` (answered by the server), ``cached``, ``repairs``, ``failures``, and the calls'
            ``prompt_tokens`` and ``answer_tokens``.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        cache_dir: str,
        params: Mapping[str, Any] | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        max_concurrency: int = 8,
        timeout_s: float = 120.0,
        max_retries: int = 6,
        retry_wait_s: float = 1.0,
        stop_after: int = 20,
    ) -> None:
        params = OmegaConf.to_container(params) if OmegaConf.is_config(params) else dict(params or {})
        self._settings = {name: value for name, value in locals().items() if name != "self"}
        self.model, self.base_url, self.params = model, base_url, params
        self.max_concurrency = max_concurrency
        self._stop_after = stop_after
        self._endpoint = Endpoint(base_url, api_key_env, timeout_s, max_retries, retry_wait_s) if base_url else None
        self._cache = ReplyCache(cache_dir)
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Lock] = {}
        self._in_a_row = 0
        self.counts: Counter[str] = Counter()

    def __reduce__(self) -> tuple:
        """Worker processes get the settings and connect by themselves."""
        return partial(ChatClient, **self._settings), ()

    def chat(self, messages: Messages, parse: Callable[[str], Any] | None = None, **params: Any) -> Reply:
        """Ask one question.

        Raises:
            RuntimeError: If there is no usable answer, with the reason.
        """
        result = self.ask(Request(messages, parse, params))
        if isinstance(result, Failure):
            raise RuntimeError(f"{self.model} at {self.base_url}: {result.kind}: {result.reason}")
        return result

    def chat_many(
        self, requests: Iterable[Request], total: int | None = None, title: str | None = None
    ) -> Iterator[tuple[int, Reply | Failure]]:
        """Ask many questions, ``max_concurrency`` at once; yield number and result in the order of the questions.

        Args:
            requests: Read as they are needed, so they may be endless.
            total: Their number, for the time left.
            title: What the progress bar says; None shows none.

        Raises:
            RuntimeError: If the server refuses the key or the model, or ``stop_after`` calls failed in a row.
        """
        window: deque = deque()
        pool = ThreadPoolExecutor(self.max_concurrency)
        with tqdm(total=total, desc=title, disable=title is None, unit="call") as bar:

            def oldest() -> tuple[int, Reply | Failure]:
                index, future = window.popleft()
                result = future.result()
                bar.set_postfix(self._progress(), refresh=False)
                bar.update()
                return index, result

            try:
                for index, request in enumerate(requests):
                    window.append((index, pool.submit(self.ask, request)))
                    if len(window) >= 4 * self.max_concurrency:
                        yield oldest()
                while window:
                    yield oldest()
            finally:
                pool.shutdown(cancel_futures=True)

    def ask(self, request: Request) -> Reply | Failure:
        """Ask one question and, if its answer cannot be read, once more; a failure is a value here."""
        messages, parse, params = list(request.messages), request.parse, {**self.params, **request.params}
        for repaired in (False, True):
            key = request_key(self.model, messages, params)
            try:
                body = self._body(key, messages, params)
            except ConnectionError as error:
                return self._failed("unanswered", str(error), key)
            except ValueError as error:
                return self._failed("refused", str(error), key)
            reply = read_reply(body, key)
            try:
                return reply._replace(parsed=parse(reply.text) if parse else reply.text, repaired=repaired)
            except ValueError as error:
                problem = str(error)
            self._count(repairs=not repaired)
            messages += [
                {"role": "assistant", "content": reply.text},
                {"role": "user", "content": REPAIR.format(problem=problem)},
            ]
        return self._failed("unreadable", f"{problem}; it wrote {reply.text[:200]!r}", key)

    def _body(self, key: str, messages: Messages, params: Mapping[str, Any]) -> dict[str, Any]:
        """Take the reply from the disk or the server; two equal questions at once are one call."""
        with self._lock:
            turn = self._under_way.setdefault(key, threading.Lock())
        try:
            with turn:
                text = self._cache.get(key)
                if text is not None:
                    self._count(cached=1)
                    return json.loads(text)
                if self._endpoint is None:
                    raise ConnectionError("not among the recorded replies, and base_url is null")
                text = self._cache.put(key, self._endpoint.post(self.model, messages, params))
        finally:
            with self._lock:
                self._under_way.pop(key, None)
        body = json.loads(text)
        usage = body.get("usage") or {}
        self._in_a_row = 0
        self._count(
            calls=1,
            prompt_tokens=usage.get("prompt_tokens") or 0,
            answer_tokens=usage.get("completion_tokens") or 0,
        )
        return body

    def _failed(self, kind: str, reason: str, key: str) -> Failure:
        self._count(failures=1)
        if kind == "unanswered" and self._endpoint:
            with self._lock:
                self._in_a_row += 1
            if self._in_a_row >= self._stop_after:
                raise RuntimeError(
                    f"{self.base_url}: {self._in_a_row} calls in a row were not answered, the last: {reason}. "
                    "What was answered is kept: mend the server, then start the same command again"
                )
        return Failure(kind, reason, key)

    def _count(self, **counts: int) -> None:
        with self._lock:
            self.counts.update(counts)

    def _progress(self) -> dict[str, int]:
        tokens = self.counts["prompt_tokens"] + self.counts["answer_tokens"]
        retries = self._endpoint.n_retries if self._endpoint else 0
        return {
            "tokens": tokens,
            "cached": self.counts["cached"],
            "retries": retries,
            "failed": self.counts["failures"],
        }
