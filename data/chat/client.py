# SPDX-License-Identifier: MIT
"""The one client for language models behind a URL: OpenAI, vLLM, llama.cpp, Ollama, ``transformers serve``.

A reply is on the disk before it is used, so a killed run repeats no call that was answered. A call that fails is a
counted :class:`~data.chat.replies.Failure`, never an empty reply. Replies are found by their request's content (model,
messages, parameters), so a second run, also without a server, gives the same.
"""

import email.utils
import os
import random
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from tqdm import tqdm

from data.chat.cache import ReplyCache, call_key, request_key
from data.chat.engines import TokenReply, TokenRequest
from data.chat.replies import NONSENSE, Failure, Reply, Request, read_object, read_reply

REPAIR = "That answer cannot be used: {problem}. Answer again in exactly the form asked for, and write nothing else."
_LONGEST_WAIT_S = 60.0
_LONGEST_NAMED_WAIT_S = 120.0  # as openai's client has it
_FIRST_ANSWER_S = 10.0  # a server that has answered nothing for so long is not tried again
_FIRST_SENSE_S = 2.0  # nor is one that takes no connection, or sends nothing but nonsense, as a page in HTML
_GONE_S = 60.0  # one that answered before and takes no connection for so long has ended
_NOT_REACHED = "no connection to"
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient balance")
_RETRY_COUNT = "x-stainless-retry-count"  # openai's client says with each call how many tries went before it
_CHAT = "/chat/completions"


@cache  # reading the certificates takes 20 ms, and a run makes many clients
def _trusted() -> ssl.SSLContext:
    import httpx2

    return httpx2.create_ssl_context()


@dataclass(eq=False)
class ChatClient:
    """Asks a model, each question once.

    Args:
        model: Name that the server knows it by.
        base_url: Address that ends in ``/v1``. None asks no server: replies come from ``cache_dir`` alone (replay).
        cache_dir: Folder of the replies.
        params: Parameters of every call, such as ``temperature``, ``max_tokens``, ``seed``; those that OpenAI does not
            have (``top_k``, ``guided_json``) too. One that is null is not sent, whatever else asks for it.
        api_key_env: Environment variable that holds the key; servers of one's own need none.
        max_concurrency: Calls under way at once.
        timeout_s: Longest wait for one answer.
        max_retries: How often openai's client tries a call again after 408, 409, 429, 5xx, a timeout, a lost connection
            or nonsense (a body without an answer).
        retry_wait_s: First wait before that, doubled each time up to a minute, at random between half and all of it.
            If the server names a time (``Retry-After``), that counts; over two minutes the run ends, to go on later.
        stop_after: So many unanswered calls in a row end the run: the server is gone.

    Attributes:
        counts: ``calls`` (answered by the server), ``cached``, ``repairs``, ``retries``, ``failures``, and the calls'
            ``prompt_tokens`` and ``answer_tokens``.

    Raises:
        ImportError: If ``openai`` is not installed and ``base_url`` is given.
        ValueError: If ``base_url`` is no address.
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
        self._has_answered, self._first_call_at, self._gone_since = False, 0.0, 0.0
        address = urlsplit(self.base_url or "http://none")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url={self.base_url}: no address; write it as http://127.0.0.1:8000/v1")
        self._root = (self.base_url or "").rstrip("/").removesuffix("/v1")
        self._server: Any = self._connect() if self.base_url else None

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
            RuntimeError: If the server refuses the key or the model, has no quota left, names a wait of more than two
                minutes, or left ``stop_after`` calls in a row unanswered.
        """
        return self._many(self.ask, requests, total, title)

    def score_many(
        self, requests: Iterable[TokenRequest], total: int | None = None, title: str | None = None
    ) -> Iterator[tuple[int, TokenReply | Failure]]:
        """Have many statements scored, as :meth:`chat_many` asks."""
        return self._many(self.score, requests, total, title)

    def _many(
        self, ask: Callable[[Any], Any], requests: Iterable[Any], total: int | None, title: str | None
    ) -> Iterator[tuple[int, Any]]:
        window: deque[tuple[int, Future[Any]]] = deque()
        pool = ThreadPoolExecutor(self.max_concurrency)
        with tqdm(total=total, desc=title, disable=title is None, unit="call") as bar:

            def oldest() -> tuple[int, Any]:
                index, future = window.popleft()
                result = future.result()
                n_tokens = self.counts["prompt_tokens"] + self.counts["answer_tokens"]
                counts = {key: self.counts[key] for key in ("cached", "retries", "failures")}
                bar.set_postfix({"tokens": n_tokens, **counts}, refresh=False)
                bar.update()
                return index, result

            try:
                for index, request in enumerate(requests):
                    window.append((index, pool.submit(ask, request)))
                    if len(window) >= 4 * self.max_concurrency:
                        yield oldest()
                while window:
                    yield oldest()
            finally:
                pool.shutdown(cancel_futures=True)

    def ask(self, request: Request) -> Reply | Failure:
        """Ask one question and, if its answer cannot be read, once more; a failure is a value here."""
        messages, parse, own = list(request.messages), request.parse, self.params or {}
        left_out = {name for given in (own, request.params) for name, value in given.items() if value is None}
        params = {name: value for name, value in {**own, **request.params}.items() if name not in left_out}
        is_repair = False
        while True:
            key = request_key(self.model, messages, params)
            body = {"model": self.model, "messages": list(messages), **params}
            reply = self._answer(key, read_reply, partial(self._call, _CHAT, body, False))
            if isinstance(reply, Failure):
                return self._failed(reply)
            if not reply.text and not reply.top_logprobs:  # asking again would be paid for again
                reason = f"a reasoning without an answer (finish_reason {reply.finish_reason}); allow more tokens"
                return self._failed(Failure("unreadable", reason, reply.key, is_empty=True))
            try:
                return reply._replace(parsed=parse(reply.text) if parse else reply.text)
            except ValueError as problem:
                if is_repair:
                    return self._failed(Failure("unreadable", f"{problem}; it wrote {reply.text[:200]!r}", reply.key))
                repair = REPAIR.format(problem=problem)
            messages += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": repair}]
            self._count(repairs=1)
            is_repair = True

    def score(self, request: TokenRequest, is_fresh: bool = False, is_trial: bool = False) -> TokenReply | Failure:
        """Have a statement scored; ``is_fresh`` asks the server whatever is on the disk, and keeps nothing.

        In a trial of an engine's form a server that does not know it (404) gives a failure, as one that misreads it.
        """

        def read(body: bytes, key: str) -> TokenReply | Failure:
            try:
                answer = read_object(body, key)
                return answer if isinstance(answer, Failure) else request.engine.read(answer, request)
            except ValueError as problem:
                return Failure("unreadable", str(problem), key)
            except (KeyError, IndexError, TypeError, AttributeError):
                return Failure("unreadable", f"no answer of {request.engine.name}: {body[:80]!r}", key)

        path, body = request.engine.path, request.body
        post = partial(self._call, self._root + path, body, is_trial)
        key = call_key(self.model, path, body)
        if is_fresh:
            answer = post(key)
            reply = answer if isinstance(answer, Failure) else read(answer.encode(), key)
        else:
            reply = self._answer(key, read, post)
        return self._failed(reply) if isinstance(reply, Failure) and not is_trial else reply

    def look_up(self, path: str) -> Any:
        """Return the JSON that a server gives at a path after its address, or gave there before; None if it gives none.

        So a run that goes on without its server sends the same requests, and finds their replies.
        """
        key = call_key(self.model, path, None)
        if self._server is not None:
            answer = self._call(self._root + path, None, True, key)
            found = answer if isinstance(answer, Failure) else read_object(answer.encode(), key)
            if not isinstance(found, Failure):
                self._cache.put(key, str(answer))
                return found
        kept = self._cache.get(key)
        return None if kept is None else read_object(kept.encode(), key)

    def _answer(self, key: str, read: Callable[[bytes, str], Any], post: Callable[[str], str | Failure]) -> Any:
        """Take the reply from the disk or the server; two equal questions at once are one call."""
        with self._lock:
            turn = self._under_way.setdefault(key, threading.Lock())
        try:
            with turn:
                text = self._cache.get(key)
                if text is not None:
                    self._count(cached=1)
                    return read(text.encode(), key)
                if self._server is None:
                    return Failure("unanswered", "not among the recorded replies, and base_url is null", key)
                answer = post(key)
                if isinstance(answer, Failure):
                    return answer
                reply = read(self._cache.put(key, answer).encode(), key)
        finally:
            with self._lock:
                self._under_way.pop(key, None)
        self._n_unanswered_in_a_row = 0
        if isinstance(reply, Reply):
            self._count(calls=1, prompt_tokens=reply.n_tokens[0], answer_tokens=reply.n_tokens[1])
        elif isinstance(reply, TokenReply):
            self._count(calls=1, answer_tokens=len(reply.logprobs))
        return reply

    def _failed(self, failure: Failure) -> Failure:
        self._count(failures=1)
        if failure.kind == "unanswered" and self._server:
            with self._lock:
                self._n_unanswered_in_a_row += 1
            if self._n_unanswered_in_a_row >= self.stop_after:
                raise RuntimeError(
                    f"{self.base_url}: {self._n_unanswered_in_a_row} calls in a row were not answered, the last: "
                    f"{failure.reason}. What was answered is kept: mend the server, then start the same command again"
                )
        return failure

    def _connect(self) -> Any:
        """Return openai's client, which tries a call again while that can help."""
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                'calls need the package openai: pip install -c constraints.txt -e ".[synthesis]"'
            ) from error
        http_client = openai.DefaultHttpxClient(verify=_trusted())
        http_client.send = partial(self._send, http_client.send)
        return openai.OpenAI(
            base_url=self.base_url,
            api_key=os.environ.get(self.api_key_env) or "none",
            timeout=self.timeout_s,
            max_retries=self.max_retries,
            http_client=http_client,
        )

    def _send(self, send: Callable[..., Any], request: Any, **options: Any) -> Any:
        """Send one try of a call; make a 502 of what is no answer, as a gateway would, and name the wait after it.

        openai's client reads both like a server's. By itself it would take nonsense for an answer, and wait half a
        second after a lost connection whatever ``retry_wait_s`` says.
        """
        import httpx2

        n_retries = int(request.headers[_RETRY_COUNT])
        self._first_call_at = self._first_call_at or time.monotonic()
        if n_retries:
            self._count(retries=1)
        try:
            response = send(request, **options)
            read = read_reply if request.url.path.endswith(_CHAT) else read_object
            result = read(response.content, key="") if response.is_success else None
        except httpx2.TimeoutException:
            result = Failure("unanswered", "timeout", key="")
        except httpx2.ConnectError as error:
            result = Failure("unanswered", f"{_NOT_REACHED} {self.base_url} ({error!r})", key="")
        except (httpx2.RequestError, OSError) as error:
            result = Failure("unanswered", f"connection lost to {self.base_url} ({error!r})", key="")
        self._has_answered = self._has_answered or not isinstance(result, Failure | None)
        is_gone = isinstance(result, Failure) and result.reason.startswith(_NOT_REACHED)
        self._gone_since = (self._gone_since or time.monotonic()) if is_gone else 0.0
        if isinstance(result, Failure):
            response = httpx2.Response(502, request=request, extensions={"failure": result})
        if not response.is_error:
            return response
        wait_s = 0.0
        if _named_wait_s(response.headers) <= 0:
            wait_s = min(self.retry_wait_s * 2**n_retries * random.uniform(0.5, 1.0), _LONGEST_WAIT_S)
            response.headers["retry-after-ms"] = str(1000 * max(0.001, wait_s))
        if self._is_out_of_money(response) or self._is_dead(response, wait_s):
            response.headers["x-should-retry"] = "false"
        return response

    def _is_dead(self, response: Any, wait_s: float) -> bool:
        """Return whether a server will have given nothing but errors of its own for some seconds at the next try."""
        if self._has_answered:
            return self._gone_since > 0 and time.monotonic() - self._gone_since + wait_s > _GONE_S
        waited_s = time.monotonic() - self._first_call_at + wait_s
        failure = response.extensions.get("failure")
        is_none = failure is not None and failure.reason.startswith((NONSENSE, _NOT_REACHED)) and not failure.is_empty
        longest_s = min(_FIRST_SENSE_S, _FIRST_ANSWER_S) if is_none else _FIRST_ANSWER_S
        return response.status_code >= 500 and waited_s > longest_s

    @staticmethod
    def _is_out_of_money(response: Any) -> bool:
        if response.status_code not in (402, 429):
            return False
        text = response.read().decode(errors="replace").lower()
        return response.status_code == 402 or any(code in text for code in _NO_MONEY)

    def _call(self, path: str, body: Mapping[str, Any] | None, is_trial: bool, key: str) -> str | Failure:
        """Return the body of an answer as the server sent it, or why there is none; without ``body`` it is looked up.

        ``path`` follows ``base_url``, unless it is an address of its own.
        """
        import httpx2
        import openai

        try:
            if body is None:
                return self._server.with_options(max_retries=0).get(path, cast_to=httpx2.Response).content.decode()
            return self._server.post(path, cast_to=httpx2.Response, body=dict(body)).content.decode()
        except openai.APIStatusError as error:
            status, failure = error.status_code, error.response.extensions.get("failure")
            failure = failure or Failure("unanswered", f"HTTP {status}: {error.message[:200]}", key)
            if status in (401, 403, 404) and not is_trial:
                raise RuntimeError(
                    f"{self.base_url} refuses model {self.model!r}: {failure.reason}. Check base_url, model and the "
                    f"key in the environment variable {self.api_key_env}, then start the same command again"
                ) from error
            if self._is_out_of_money(error.response):
                raise RuntimeError(
                    f"{self.base_url}: the quota of the key is used up ({failure.reason}). What was answered is kept: "
                    "pay for more, then start the same command again"
                ) from error
            if (wait_s := _named_wait_s(error.response.headers)) > _LONGEST_NAMED_WAIT_S:
                raise RuntimeError(
                    f"{self.base_url} wants no call for {wait_s:.0f} s ({failure.reason}); at most "
                    f"{_LONGEST_NAMED_WAIT_S:.0f} s are waited. What was answered is kept: start the same command later"
                ) from error
            if status < 500 and status not in (408, 409, 429):
                return failure._replace(kind="refused")
            n_tries = int(error.request.headers[_RETRY_COUNT]) + 1
            return failure._replace(reason=f"{failure.reason} (tried {n_tries} times)", key=key)

    def _count(self, **counts: int) -> None:
        with self._lock:
            self.counts.update(counts)


def _named_wait_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait, by number or by date; 0 if it names none."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            return float(value) * unit
        except ValueError:
            if date := email.utils.parsedate_tz(value):
                return email.utils.mktime_tz(date) - time.time()
    return 0.0
