# SPDX-License-Identifier: MIT
"""A respondent behind an address that speaks OpenAI's chat completions.

Options are compared by the log-probabilities that it gives for its first token; the rest is answered in writing.
Calls, retries and the cache are ``data/chat/client.py``'s.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.chat import ChatClient, Failure, Reply, Request
from data.chat.replies import option_logprobs
from eval.asking.interview import Interview
from eval.asking.respondents import Respondent
from eval.asking.written_answers import Decoding, written_row
from eval.statements.prompts import LABELS, Prompt, with_system

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
# The most that OpenAI gives; a server that gives fewer is told so by `n_top_logprobs`.
N_TOP_LOGPROBS = 20


def ask_served(
    interview: Interview, respondent: Respondent, cache_dir: str, is_known: Callable[[Rows], bool]
) -> Iterator[Rows]:
    """Yield the rows of a served respondent, one by one in the order of the prompts.

    Args:
        interview: What is asked.
        respondent: With ``server``.
        cache_dir: Where replies are kept, in a folder of the respondent's name, unless it names a place of its own.
        is_known: Says whether rows are answered already; these are not asked again.

    Raises:
        ValueError: If the server refuses the first call of a mode.
        RuntimeError: If the server refuses the key or the model, or calls were left unanswered after all tries.
    """
    client = _client(respondent, cache_dir)
    n_lost, reason = 0, ""
    for mode, prompts, decoding, requests in _plan(interview, respondent, is_known):
        if not _can_answer(client, respondent.name, mode, requests[0]):
            continue
        for k, reply in client.chat_many(requests, len(requests), f"{respondent.name}, {mode}"):
            # an answer without text is one that chooses nothing, and asking again would not help
            if isinstance(reply, Failure) and reply.kind == "unanswered" and not reply.is_empty:
                n_lost, reason = n_lost + 1, reply.reason
            elif decoding is None:
                yield [_choice_row(respondent.name, prompts[k], reply)]
            else:
                text, finish, n = _written(reply)
                row = written_row(respondent.name, prompts[k], interview.options, text, decoding, finish, n)
                yield [row | {"server": None if isinstance(reply, Failure) else reply.model}]
    if n_lost:
        raise RuntimeError(
            f"respondents.{respondent.name}: {n_lost} calls were not answered, the last: {reason}. "
            "What was answered is kept: start the same command again"
        )


def check_served(
    interview: Interview, respondents: Sequence[Respondent], cache_dir: str, is_known: Callable[[Rows], bool]
) -> None:
    """Ask every server its first prompt of each mode, before anybody else has answered anything.

    What has to be mended may be a setting, and answers that are there belong to the settings that they came with.

    Args:
        interview: What is asked.
        respondents: All of the run; those without ``server`` are left out, and those that only replay.
        cache_dir: As in :func:`ask_served`, which finds these replies there.
        is_known: As in :func:`ask_served`.

    Raises:
        ValueError: If a server refuses a call.
        RuntimeError: If it refuses the key or the model, or does not answer.
    """
    for respondent in respondents:
        if respondent.server is None or respondent.server["base_url"] is None:
            continue
        client = _client(respondent, cache_dir)
        for mode, _, _, requests in _plan(interview, respondent, is_known):
            first = _ask_first(client, respondent.name, mode, requests[0])
            if isinstance(first, Failure) and not first.is_empty:
                raise RuntimeError(
                    f"respondents.{respondent.name}: no answer to the first call of mode {mode}: {first.reason}. "
                    "Start the server or mend base_url, then start again: nobody has been asked yet"
                )


def _client(respondent: Respondent, cache_dir: str) -> ChatClient:
    server = {key: x for key, x in respondent.server.items() if key not in ("n_top_logprobs", "params")}
    # a folder each: two servers may know different models by one name
    return ChatClient(**(server | {"cache_dir": server.get("cache_dir") or str(Path(cache_dir, respondent.name))}))


def _plan(
    interview: Interview, respondent: Respondent, is_known: Callable[[Rows], bool]
) -> Iterator[tuple[str, list[Prompt], Decoding | None, list[Request]]]:
    """Yield mode, prompts not answered yet, decoding and requests, for each mode that has any."""
    n_top, params = respondent.server.get("n_top_logprobs", N_TOP_LOGPROBS), dict(respondent.server.get("params") or {})
    for mode in (m for m in interview.prompts if m in respondent.modes):
        prompts = [with_system(prompt, respondent.system_prompt) for prompt in interview.prompts[mode]]
        if mode == "choice":
            prompts = [prompt for prompt in prompts if prompt.row["labels"] in LABELS]
        prompts = [p for p in prompts if not is_known([{"model": respondent.name, **p.row}])]
        decoding = None if mode == "choice" else _decoding(interview.decodings[mode], params)
        if prompts:
            requests = [_request(p, respondent.system_prompt, decoding, params, n_top) for p in prompts]
            yield mode, prompts, decoding, requests


def _ask_first(client: ChatClient, name: str, mode: str, request: Request) -> Reply | Failure:
    first = client.ask(request)
    if isinstance(first, Failure) and first.kind == "refused":
        raise ValueError(
            f"respondents.{name}: the server refuses the first call of mode {mode}: {first.reason}. Mend its params "
            "(fewer n_top_logprobs, say), or leave that mode out of its modes"
        )
    return first


def _can_answer(client: ChatClient, name: str, mode: str, request: Request) -> bool:
    """Ask the first prompt of a mode, so that a server that cannot answer it is not asked a thousand times."""
    first = _ask_first(client, name, mode, request)
    if mode == "choice" and isinstance(first, Reply) and not first.top_logprobs:
        log.warning(
            "respondents.%s: the server gives no log-probabilities, so it is not asked in mode choice; "
            "mode generate asks for the same options in writing",
            name,
        )
        return False
    return True


def _decoding(decoding: Decoding, params: Mapping[str, Any]) -> Decoding:
    """What is sent; ``top_k`` only if the respondent's own params name it, since not every server takes it."""
    return decoding._replace(
        temperature=params.get("temperature", decoding.temperature),
        top_k=params.get("top_k"),
        max_new_tokens=params.get("max_tokens", decoding.max_new_tokens),
    )


def _request(
    prompt: Prompt, system_prompt: str | None, decoding: Decoding | None, params: Mapping[str, Any], n_top: int
) -> Request:
    messages = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    messages.append({"role": "user", "content": prompt.text})
    if decoding is None:
        asked = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": n_top}
        return Request(messages, None, {**params, **asked})
    asked = {"temperature": decoding.temperature, "max_tokens": decoding.max_new_tokens}
    return Request(messages, None, {"seed": decoding.seed_of(prompt.row), **asked, **params})


def _choice_row(name: str, prompt: Prompt, reply: Reply | Failure) -> dict[str, Any]:
    """Return the row of one answer by log-probability.

    An option that the server does not list is null in ``option_logprobs``; it lies below ``option_floor``, the
    least that is listed, and counts as 0. Without any option there is no answer.
    """
    failed = isinstance(reply, Failure)
    found = None if failed else option_logprobs(reply.top_logprobs, prompt.answers)
    logprobs: Sequence[float | None] = list(found.values()) if found else [None] * len(prompt.answers)
    listed = {k: x for k, x in enumerate(logprobs) if x is not None}
    floor = min(reply.top_logprobs[0].values()) if found else None
    return {
        "model": name,
        **prompt.row,
        "option_logprobs": [None if x is None else round(x, 6) for x in logprobs] if listed else None,
        "n_tokens": [1] * len(logprobs),
        "option_mass": round(sum(map(math.exp, listed.values())), 6) if found else None,
        "choice": max(listed, key=listed.__getitem__) if listed else None,
        "stance": None,
        "refused": None,
        "text": None if failed else reply.text,
        "judge": None,
        "finish": reply.reason if failed else reply.finish_reason,
        "server": None if failed else reply.model,
        "option_floor": None if floor is None else round(floor, 6),
    }


def _written(reply: Reply | Failure) -> tuple[str | None, str, int]:
    """Return text, why it ends and its length."""
    if isinstance(reply, Failure):
        return None, reply.reason, 0
    return reply.text, reply.finish_reason or "stop", reply.n_tokens[1]
