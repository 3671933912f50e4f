# SPDX-License-Identifier: MIT
"""The one client for language models behind a URL: OpenAI, vLLM, llama.cpp, Ollama, ``transformers serve``.

A reply is on the disk before it is used, so a killed run repeats no call that was answered. A call that fails is a
counted :class:`~data.chat.replies.Failure`, never an empty reply. Replies are found by their request's content (model,
messages, parameters), so a second run, also without a server, gives the same.
"""

import os
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from data.chat.cache import ReplyCache, request_key
from data.chat.replies import Failure, Messages, Reply, Request, read_reply

REPAIR = "That answer cannot be used: {problem}. Answer again in exactly the form asked for, and write nothing else."
_LONGEST_WAIT_S = 60.0
_RETRY_COUNT = "x-stainless-retry-count"  # openai's client says with each call how many tries went before it


@dataclass(eq=False)
class ChatClient:
    """Asks a model, each question once.

    Args:
        model: Name that the server knows it by.
        base_url: Address that ends in ``/v1``. None asks no server: replies come from ``cache_dir`` alone (replay).
        cache_dir: Folder of the replies.
        params: Parameters of every call, such as ``temperature``, ``max_tokens``, ``seed``; those that OpenAI does not
            have (``top_k``, ``guided_json``) too.
        api_key_env: Environment variable that holds the key; servers of one's own need none.
        max_concurrency: Calls under way at once.
        timeout_s: Longest wait for one answer.
        max_retries: How often openai's client tries a call again after 408, 409, 429, 5xx, a timeout, a lost connection
            or nonsense (a body without an answer).
        retry_wait_s: First wait before that, doubled each time up to a minute, at random between half and all of it.
            If the server names a time (``Retry-After``), that counts; over two minutes openai's client does not wait.
        stop_after: So many unanswered calls in a row end the run: the server is gone.

    Attributes:
        counts: ``calls`` (answered by the server), ``cached``, ``repairs``, ``retries``, ``failures``, and the calls'
            ``prompt_tokens`` and ``answer_tokens``.

    Raises:
        ImportError: If ``openai`` is not installed and ``base_url`` is given.
    """

    model: str
    base_url: str | None
    cache_dir: str
    params: Mapping[str, Any] | None = None
    api_key_env: str = "OPENAI_API_KEY"
    max_concurrency: int = 8
    timeout_s: float = 120.0
    max_retries: int = 6
    retry_wait_s: float = 1.0
    stop_after: int = 20

    def __post_init__(self) -> None:
        self.params = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in (self.params or {}).items()
        }
        self.counts: Counter[str] = Counter()  # no field: datatrove writes fields down, and asdict breaks a Counter
        self._cache = ReplyCache(self.cache_dir)
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Lock] = {}
        self._n_unanswered_in_a_row = 0
        self._create: Any = self._connect() if self.base_url else None

    def __reduce__(self) -> tuple:
        """Worker processes get the settings and connect by themselves."""
        return partial(ChatClient, **{f.name: getattr(self, f.name) for f in fields(self)}), ()

    def chat_many(
        self, requests: Iterable[Request], total: int | None = None, title: str | None = None
    ) -> Iterator[tuple[int, Reply | Failure]]:
        """Ask many questions, ``max_concurrency`` at once; yield number and result in the order of the questions.

        Args:
            requests: Read as they are needed, so they may be endless.
            total: Their number, for the time left.
            title: Text of the progress bar; None shows none.

        Raises:
            RuntimeError: If the server refuses the key or the model, or ``stop_after`` calls failed in a row.
        """
        window: deque[tuple[int, Future[Reply | Failure]]] = deque()
        pool = ThreadPoolExecutor(self.max_concurrency)
        with tqdm(total=total, desc=title, disable=title is None, unit="call") as bar:

            def oldest() -> tuple[int, Reply | Failure]:
                index, future = window.popleft()
                result = future.result()
                n_tokens = self.counts["prompt_tokens"] + self.counts["answer_tokens"]
                counts = {key: self.counts[key] for key in ("cached", "retries", "failures")}
                bar.set_postfix({"tokens": n_tokens, **counts}, refresh=False)
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
        messages, parse, params = list(request.messages), request.parse, {**(self.params or {}), **request.params}
        is_repair = False
        while True:
            reply = self._answer(messages, params)
            if isinstance(reply, Failure):
                return self._failed(reply)
            try:
                return reply._replace(parsed=parse(reply.text) if parse else reply.text, repaired=is_repair)
            except ValueError as problem:
                if is_repair:
                    return self._failed(Failure("unreadable", f"{problem}; it wrote {reply.text[:200]!r}", reply.key))
                repair = REPAIR.format(problem=problem)
            messages += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": repair}]
            self._count(repairs=1)
            is_repair = True

    def _answer(self, messages: Messages, params: Mapping[str, Any]) -> Reply | Failure:
        """Take the reply from the disk or the server; two equal questions at once are one call."""
        key = request_key(self.model, messages, params)
        with self._lock:
            turn = self._under_way.setdefault(key, threading.Lock())
        try:
            with turn:
                text = self._cache.get(key)
                if text is not None:
                    self._count(cached=1)
                    return read_reply(text.encode(), key)
                if self._create is None:
                    return Failure("unanswered", "not among the recorded replies, and base_url is null", key)
                answer = self._post(messages, params, key)
                if isinstance(answer, Failure):
                    return answer
                reply = read_reply(self._cache.put(key, answer).encode(), key)
        finally:
            with self._lock:
                self._under_way.pop(key, None)
        self._n_unanswered_in_a_row = 0
        if isinstance(reply, Reply):
            self._count(calls=1, prompt_tokens=reply.n_tokens[0], answer_tokens=reply.n_tokens[1])
        return reply

    def _failed(self, failure: Failure) -> Failure:
        self._count(failures=1)
        if failure.kind == "unanswered" and self._create:
            with self._lock:
                self._n_unanswered_in_a_row += 1
            if self._n_unanswered_in_a_row >= self.stop_after:
                raise RuntimeError(
                    f"{self.base_url}: {self._n_unanswered_in_a_row} calls in a row were not answered, the last: "
                    f"{failure.reason}. What was answered is kept: mend the server, then start the same command again"
                )
        return failure

    def _connect(self) -> Any:
        """Return the function of openai's client that asks the server, and tries a call again while that can help."""
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                'calls need the package openai: pip install -c constraints.txt -e ".[synthesis]"'
            ) from error
        http_client = openai.DefaultHttpxClient()
        http_client.send = partial(self._send, http_client.send)
        client = openai.OpenAI(
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_env) or "none",
            timeout=self.timeout_s,
            max_retries=self.max_retries,
            http_client=http_client,
        )
        return client.chat.completions.with_raw_response.create

    def _send(self, send: Callable[..., Any], request: Any, **options: Any) -> Any:
        """Send one try of a call; make a 502 of what is no answer, as a gateway would, and name the wait after it.

        openai's client reads both like a server's. By itself it would take nonsense for an answer, and wait half a
        second after a lost connection whatever ``retry_wait_s`` says.
        """
        import httpx2

        n_retries = int(request.headers[_RETRY_COUNT])
        if n_retries:
            self._count(retries=1)
        try:
            response = send(request, **options)
            result = read_reply(response.content, key="") if response.is_success else None
        except httpx2.TimeoutException:
            result = Failure("unanswered", "timeout", key="")
        except (httpx2.RequestError, OSError) as error:
            result = Failure("unanswered", f"connection lost ({type(error).__name__}: {error})", key="")
        if isinstance(result, Failure):
            response = httpx2.Response(502, request=request, extensions={"failure": result})
        named_waits = {response.headers.get("retry-after-ms", "0"), response.headers.get("retry-after", "0")}
        if response.is_error and named_waits == {"0"}:
            wait_s = self.retry_wait_s * 2**n_retries * random.uniform(0.5, 1.0)
            response.headers["retry-after-ms"] = str(1000 * max(0.001, min(wait_s, _LONGEST_WAIT_S)))
        return response

    def _post(self, messages: Messages, params: Mapping[str, Any], key: str) -> str | Failure:
        """Return the body of an answer as the server sent it, or why there is none."""
        import openai

        try:
            raw = self._create(model=self.model, messages=list(messages), extra_body=dict(params))
            return raw.content.decode()
        except openai.APIStatusError as error:
            status, failure = error.status_code, error.response.extensions.get("failure")
            failure = failure or Failure("unanswered", f"HTTP {status}: {error.message[:200]}", key)
            if status in (401, 403, 404):
                raise RuntimeError(
                    f"{self.base_url} refuses model {self.model!r}: {failure.reason}. Check base_url, model and the "
                    f"key in the environment variable {self.api_key_env}, then start the same command again"
                ) from error
            if status < 500 and status not in (408, 409, 429):
                return failure._replace(kind="refused")
            n_tries = int(error.request.headers[_RETRY_COUNT]) + 1
            return failure._replace(reason=f"{failure.reason} (tried {n_tries} times)", key=key)

    def _count(self, **counts: int) -> None:
        with self._lock:
            self.counts.update(counts)
