# SPDX-License-Identifier: MIT
"""One server that speaks OpenAI's chat completions: a call, tried again while that can help."""

import inspect
import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

_MAX_WAIT_S = 60.0


class Endpoint:
    """Posts calls and returns the body of each answer as the server sent it.

    Args:
        base_url: Address that ends in ``/v1``.
        api_key_env: Environment variable that holds the key; servers of one's own need none.
        timeout_s: Longest wait for one answer.
        max_retries: How often a call is tried again after 408, 409, 429, 5xx, a timeout, a lost connection or nonsense.
        retry_wait_s: First wait before that, doubled each time, at random between half and all of it. If the server
            names a time (``Retry-After``), that counts.

    Attributes:
        n_retries: Tries after a first one, over all calls.

    Raises:
        ImportError: If ``openai`` is not installed.
    """

    def __init__(
        self, base_url: str, api_key_env: str, timeout_s: float, max_retries: int, retry_wait_s: float
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                'calls need the package openai: pip install -c constraints.txt -e ".[synthesis]"'
            ) from error
        self._openai = openai
        self._where, self._key_env = base_url, api_key_env
        self._max_retries, self._retry_wait_s = max_retries, retry_wait_s
        self._lock = threading.Lock()
        self.n_retries = 0
        # Its own retries are off: they would not see nonsense, and could not be counted.
        client = openai.OpenAI(
            base_url=base_url, api_key=os.environ.get(api_key_env) or "none", timeout=timeout_s, max_retries=0
        )
        self._create = client.chat.completions.with_raw_response.create
        self._known = set(inspect.signature(client.chat.completions.create).parameters)

    def post(self, model: str, messages: Sequence[Mapping[str, str]], params: Mapping[str, Any]) -> str:
        """Ask until there is an answer.

        Args:
            model: Name that the server knows it by.
            messages: The conversation.
            params: Any parameter of the server; those that OpenAI does not have (``top_k``, ``guided_json``) too.

        Returns:
            The answer's JSON text; it has at least one choice with text or log-probabilities.

        Raises:
            ConnectionError: If there is none after all tries.
            ValueError: If the server refuses this one call (400, 413, 422): too long, say, or its content.
            RuntimeError: If the server refuses the key, the model or the address: no call would be answered.
        """
        openai = self._openai
        own = {name: value for name, value in params.items() if name in self._known}
        extra = {name: value for name, value in params.items() if name not in self._known}
        for n in range(self._max_retries + 1):
            wait_s = self._retry_wait_s * 2**n * random.uniform(0.5, 1.0)
            try:
                raw = self._create(model=model, messages=list(messages), **own, extra_body=extra or None)
                text = raw.content.decode()  # strictly: raw.text would put a replacement character
                reason = _nonsense(text)
                if reason is None:
                    return text
            except openai.APITimeoutError:
                reason = "timeout"
            except openai.APIConnectionError as error:
                reason = f"connection lost ({type(error.__cause__).__name__}: {error.__cause__})"
            except UnicodeDecodeError:
                reason = "nonsense: not UTF-8 text"
            except openai.APIStatusError as error:
                reason = f"HTTP {error.status_code}: {error.message[:200]}"
                if error.status_code in (401, 403, 404):
                    raise RuntimeError(
                        f"{self._where} refuses model {model!r}: {reason}. Check base_url, model and the key in the "
                        f"environment variable {self._key_env}, then start the same command again"
                    ) from error
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    raise ValueError(reason) from error
                wait_s = _retry_after(error.response.headers.get("retry-after"), wait_s)
            if n < self._max_retries:
                with self._lock:
                    self.n_retries += 1
                time.sleep(min(wait_s, _MAX_WAIT_S))
        raise ConnectionError(f"{reason} (tried {self._max_retries + 1} times)")


def _nonsense(text: str) -> str | None:
    """Say why the body of an answer is none."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        content = choice["message"].get("content") or choice["message"].get("refusal")
        if not (isinstance(content, str) and content.strip()) and not choice.get("logprobs"):
            return f"nonsense: an answer without text (finish_reason {choice.get('finish_reason')})"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return f"nonsense: {text[:80]!r}"
    return None


def _retry_after(value: str | None, otherwise: float) -> float:
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):  # absent, or a date
        return otherwise
