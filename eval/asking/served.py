# SPDX-License-Identifier: MIT
"""A respondent behind an address that speaks OpenAI's chat completions.

Where the folder of its tokenizer is given, ``eval/asking/served_scores.py`` has whole statements scored. Without it
options are compared by the log-probabilities of the first token. The rest is answered in writing. Calls, retries and
the cache are ``data/chat/client.py``'s.
"""

import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.chat import ChatClient, Failure, Reply, Request
from data.chat.engines import Engine
from data.chat.replies import option_logprobs
from eval.asking.questions import Question
from eval.asking.respondents import COMPARED, Interview, Respondent
from eval.asking.results import Row, result_row
from eval.asking.served_scores import (
    SCORED,
    Scorer,
    check_adapters,
    check_repeated,
    find_engine,
    iterate_scores,
    served_questions,
)
from eval.asking.thinking import CLOSED, Thinking, with_thinking
from eval.asking.written_answers import Decoding, Writing, written_row
from eval.statements.prompts import LABELS, ROLES, Prompt, with_system

log = logging.getLogger(__name__)

_NOT_THE_CLIENTS = ("n_top_logprobs", "params", "tokenizer", "scores", "same_as")
# The most that OpenAI gives; a server that gives fewer is told so by `n_top_logprobs`.
N_TOP_LOGPROBS = 20


class Calls(NamedTuple):
    """The calls of one mode; ``decoding`` is None where options are compared by log-probability."""

    mode: str
    prompts: list[Prompt]
    decoding: Decoding | None
    requests: list[Request]


def ask_served(
    interview: Interview, respondent: Respondent, cache_dir: str, is_known: Callable[[list[Row]], bool]
) -> Iterator[list[Row]]:
    """Yield the rows of a served respondent, one by one: first the modes that are scored, then those in writing.

    Replies are kept in ``cache_dir``, in a folder of the respondent's name, unless it names a place of its own.
    ``is_known`` says whether rows are answered already; these are not asked again.

    Raises:
        ValueError: If the server refuses the first call of a mode.
        RuntimeError: If the server refuses the key or the model, or calls were left unanswered after all tries.
    """
    client, name = _client(respondent, cache_dir), respondent.name
    questions = _scored(interview, respondent, is_known)
    engine = find_engine(client, respondent, questions)
    if questions and engine is not None:
        yield from iterate_scores(Scorer(respondent, client, engine, questions))
    n_lost, reason = 0, ""
    for calls in _plan(interview, respondent, is_known, engine):
        # so that a server that cannot answer a mode is not asked a thousand times
        first = _ask_first(client, name, calls)
        if calls.decoding is None and isinstance(first, Reply) and not first.top_logprobs:
            log.warning(
                "respondents.%s: the server gives no log-probabilities, so it is not asked in mode %s; "
                "mode generate asks for options in writing",
                name,
                calls.mode,
            )
            continue
        for k, reply in client.chat_many(calls.requests, len(calls.requests), f"{name}, {calls.mode}"):
            # an answer without text is one that chooses nothing, and asking again would not help
            if isinstance(reply, Failure) and reply.kind == "unanswered" and not reply.is_empty:
                n_lost, reason = n_lost + 1, reply.reason
            elif calls.decoding is None:
                yield [choice_row(name, calls.prompts[k], reply)]
            else:
                row = written_row(name, calls.prompts[k], interview.options, calls.decoding, _writing(reply))
                said = (
                    {"server": None, "reasoning": None}
                    if isinstance(reply, Failure)
                    else {"server": reply.model, "reasoning": reply.reasoning}
                )
                sent = {key: value for key, value in calls.requests[k].params.items() if value is not None}
                yield [row | said | {"sampling": sent}]
    if n_lost:
        raise RuntimeError(
            f"respondents.{name}: {n_lost} calls were not answered, the last: {reason}. "
            "What was answered is kept: start the same command again"
        )


def check_served(
    interview: Interview, respondents: Sequence[Respondent], cache_dir: str, is_known: Callable[[list[Row]], bool]
) -> list[str]:
    """Ask every server its first prompt of each mode, before anybody else has answered anything.

    What has to be mended may be a setting, and answers that are there belong to the settings that they came with. A
    respondent that only replays is left out.

    Returns:
        A line for each server: which engine it is, what it can, and what it may add by itself.

    Raises:
        ValueError: If a server refuses a call, lacks a LoRA that is named, cannot score a statement that it has to
            score, or does not score it alike twice.
        RuntimeError: If it refuses the key or the model, or does not answer.
    """
    lines: dict[str, str] = {}
    scorers: dict[str, list[Scorer]] = defaultdict(list)
    for respondent in respondents:
        if respondent.server is None or respondent.server["base_url"] is None:
            continue
        client, name = _client(respondent, cache_dir), respondent.name
        questions = _scored(interview, respondent, is_known)
        if not questions and not any(_not_scored(interview, respondent, is_known).values()):
            continue
        engine = find_engine(client, respondent, questions)
        own = check_adapters(client, respondent, engine)
        for calls in _plan(interview, respondent, is_known, engine):
            first = _ask_first(client, name, calls)
            if isinstance(first, Reply) and not first.top_logprobs and {*respondent.modes} <= {*COMPARED}:
                raise ValueError(
                    f"respondents.{name}: the server gives no log-probabilities, which all of its modes need "
                    f"({', '.join(respondent.modes)}); add generate, which asks for options in writing"
                )
            if isinstance(first, Failure) and not first.is_empty:
                raise RuntimeError(
                    f"respondents.{name}: no answer to the first call of mode {calls.mode}: {first.reason}. "
                    "Start the server or mend base_url, then start again: nobody has been asked yet"
                )
        lines[name] = f"respondents.{name}: {engine.name if engine else 'an engine that is not known'}"
        if questions and engine is not None:
            lines[name] += ", scores statements (token ids and their texts agree)"
            scorers[str(client.base_url).rstrip("/")].append(Scorer(respondent, client, engine, questions))
        if respondent.thinking and respondent.thinking.is_on and {*SCORED} & {*respondent.modes}:
            lines[name] += "; by log-probability it is asked with its block of thought closed"
        lines[name] += f"; {own}" if own else ""
    for of_address in scorers.values():
        for name, apart in check_repeated(of_address).items():
            lines[name] += f"; asked again, a token's log-probability differs by {apart:.0e} at most"
    return list(lines.values())


def _not_scored(
    interview: Interview, respondent: Respondent, is_known: Callable[[list[Row]], bool]
) -> dict[str, list[Prompt]]:
    """Return the prompts of a respondent's chats that are not answered yet, by mode."""
    by_ids = SCORED if (respondent.server or {}).get("tokenizer") is not None else ()
    found = {}
    for mode in (mode for mode in interview.prompts if mode in respondent.modes and mode not in by_ids):
        thinking = respondent.thinking
        prompts = with_thinking(
            [with_system(prompt, respondent.system_prompt) for prompt in interview.prompts[mode]],
            None if thinking is None else CLOSED if mode in COMPARED else thinking.said,
        )
        found[mode] = [
            prompt
            for prompt in prompts
            if (mode not in COMPARED or prompt.row["labels"] in LABELS)
            and not is_known([{"model": respondent.name, **prompt.row}])
        ]
    return found


def _scored(interview: Interview, respondent: Respondent, is_known: Callable[[list[Row]], bool]) -> list[Question]:
    """Return what a server is asked by log-probability of whole statements, and has not answered yet."""
    prompts = interview.of_modes({*SCORED} & {*respondent.modes})
    rows = [with_system(prompt, respondent.system_prompt).row for prompt in prompts]
    return served_questions(
        respondent, [p for p, row in zip(prompts, rows) if not is_known([{"model": respondent.name, **row}])]
    )


def _client(respondent: Respondent, cache_dir: str) -> ChatClient:
    server = {key: x for key, x in (respondent.server or {}).items() if key not in _NOT_THE_CLIENTS}
    # a folder each: two servers may know different models by one name
    return ChatClient(**(server | {"cache_dir": server.get("cache_dir") or str(Path(cache_dir, respondent.name))}))


def _plan(
    interview: Interview, respondent: Respondent, is_known: Callable[[list[Row]], bool], engine: Engine | None
) -> Iterator[Calls]:
    """Yield the chats that are not answered yet, mode by mode."""
    server = respondent.server or {}
    params = dict(server.get("params") or {})
    # keeps a server from cutting or reshaping the distribution by itself
    plain: dict[str, Any] = {**({"top_p": 1} if engine is None else engine.plain), **params}
    by_logprob = {**plain, "temperature": 0, "max_tokens": 1, "logprobs": True}
    for name in ("temperature", "max_tokens"):
        if name in params and params[name] is None:  # the server takes no such field
            by_logprob[name] = None
    if "max_completion_tokens" in params:
        by_logprob["max_completion_tokens"] = 1
    by_logprob["top_logprobs"] = server.get("n_top_logprobs", N_TOP_LOGPROBS)
    thinking = respondent.thinking
    by_logprob |= _thinking(respondent, thinking and Thinking(False), engine)
    for mode, prompts in _not_scored(interview, respondent, is_known).items():
        decoding = None if mode in COMPARED else _decoding(interview.decodings[mode], params, engine)
        requests = []
        for prompt in prompts:
            sent = by_logprob
            if decoding is not None:
                of_mode: dict[str, Any] = {"temperature": decoding.temperature, "max_tokens": decoding.max_new_tokens}
                if engine is not None:
                    of_mode["top_k"] = decoding.top_k or engine.every_token
                sent = {"seed": decoding.seed_of(prompt.row), **of_mode, **plain}
                sent |= _thinking(respondent, thinking, engine)
                if thinking and thinking.max_tokens is not None and sent.get("max_tokens") is not None:
                    sent["max_tokens"] += thinking.max_tokens
            system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
            said = zip(itertools.cycle(ROLES), (*prompt.before, prompt.text or ""))
            turns = [{"role": role, "content": text} for role, text in said]
            requests.append(Request([*system, *turns], None, sent))
        if requests:
            yield Calls(mode, prompts, decoding, requests)


def _thinking(respondent: Respondent, thinking: Thinking | None, engine: Engine | None) -> dict[str, Any]:
    """Return the parameters that switch a model's thinking, and limit it; none where nothing is said about it.

    Raises:
        ValueError: If the engine cannot limit it.
    """
    if thinking is None:
        return {}
    params = (respondent.server or {}).get("params") or {}
    switch = {"chat_template_kwargs": {**(params.get("chat_template_kwargs") or {}), "enable_thinking": thinking.is_on}}
    if thinking.max_tokens is None:
        return switch
    if engine is None or engine.budget is None:
        raise ValueError(
            f"respondents.{respondent.name}: thinking={thinking.said}, but {engine.name if engine else 'this server'} "
            "takes no limit of a reasoning with a request; use thinking=on, or serve the model with vLLM or llama.cpp"
        )
    return {**switch, engine.budget: thinking.max_tokens}


def _decoding(decoding: Decoding, params: Mapping[str, Any], engine: Engine | None) -> Decoding:
    """Return what is sent; ``top_k`` if the respondent's own params name it, or the engine is known to take it."""
    return decoding._replace(
        temperature=params.get("temperature", decoding.temperature),
        top_k=params.get("top_k", decoding.top_k if engine is not None else None),
        max_new_tokens=params.get("max_tokens", params.get("max_completion_tokens", decoding.max_new_tokens))
        or params.get("max_completion_tokens", decoding.max_new_tokens),
    )


def _ask_first(client: ChatClient, name: str, calls: Calls) -> Reply | Failure:
    first = client.ask(calls.requests[0])
    if isinstance(first, Failure) and first.kind == "refused":
        raise ValueError(
            f"respondents.{name}: the server refuses the first call of mode {calls.mode}: {first.reason}. Mend its "
            "params (fewer n_top_logprobs, say), or leave that mode out of its modes"
        )
    if isinstance(first, Reply) and first.top_logprobs and calls.decoding is None:
        likeliest = max(first.top_logprobs[0], key=first.top_logprobs[0].__getitem__)
        if not likeliest.strip(" ▁") and not any(
            x is not None for x in (option_logprobs(first.top_logprobs, calls.prompts[0].answers) or {}).values()
        ):
            raise ValueError(
                f"respondents.{name}: the first token of an answer is a blank, whatever follows: it does not tell "
                f"labels={calls.prompts[0].row['labels']} apart; use labels=[letters], or leave {calls.mode} out of "
                "its modes"
            )
    return first


def choice_row(name: str, prompt: Prompt, reply: Reply | Failure) -> Row:
    """Return the row of one answer by log-probability.

    An option that the server does not list is null in ``option_logprobs``; it lies below ``option_floor``, the
    least that is listed, and counts as 0. Without any option there is no answer.
    """
    top = None if isinstance(reply, Failure) else reply.top_logprobs
    given = [*(option_logprobs(top, prompt.answers) or {}).values()]
    listed = {k: x for k, x in enumerate(given) if x is not None}
    return result_row(
        name,
        prompt.row,
        option_logprobs=[None if x is None else round(x, 6) for x in given] if listed else None,
        n_tokens=[1] * len(prompt.answers),
        option_mass=round(sum(map(math.exp, listed.values())), 6) if given else None,
        choice=max(listed, key=listed.__getitem__) if listed else None,
        text=None if isinstance(reply, Failure) else reply.text,
        finish=reply.reason if isinstance(reply, Failure) else reply.finish_reason,
        server=None if isinstance(reply, Failure) else reply.model,
        option_floor=round(min(top[0].values()), 6) if top else None,
    )


def _writing(reply: Reply | Failure) -> Writing:
    if isinstance(reply, Failure):
        return Writing(None, reply.reason, 0)
    return Writing(reply.text, reply.finish_reason or "stop", reply.n_tokens[1])
