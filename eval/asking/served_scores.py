# SPDX-License-Identifier: MIT
"""Statements scored by a server: the modes ``choice`` and ``pairs`` as a resident model is asked them.

Token ids come from the folder of the served model's tokenizer, and the server says back which ids it scored and what
they mean there. Before anything counts, a server is asked one statement twice, with all others of its address in
between: prompts that an engine keeps in memory must not answer for another adapter.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from data.chat import ChatClient, Failure
from data.chat.engines import ENGINES, Engine, TokenReply, TokenRequest
from data.recipe.figures import MISSING
from eval.asking.questions import Question, to_questions
from eval.asking.respond import answer_row
from eval.asking.respondents import COMPARED, Respondent
from eval.asking.results import Row, row_key
from eval.asking.thinking import CLOSED, with_thinking
from eval.statements.prompts import Prompt
from finetune.tokenizers import HFChatTokenizer, hf_chat_tokenizer

log = logging.getLogger(__name__)

SCORED = (*COMPARED, "pairs")
# The most by which a token's log-probability may differ between two equal calls, in nats.
REPEATABLE = 1e-3
N_COMPARED = 8


class Scorer(NamedTuple):
    """A server that scores statements."""

    respondent: Respondent
    client: ChatClient
    engine: Engine
    questions: list[Question]

    def requests(self, question: Question) -> list[TokenRequest]:
        """Return the calls of one question, one an answer."""
        params = (self.respondent.server or {}).get("params") or {}
        calls = []
        for answer in question.answers:
            n_prompt = list(answer.labels).count(CROSS_ENTROPY_IGNORE_IDX)
            calls.append(self.engine.score(self.client.model, list(answer.tokens), n_prompt, params))
        return calls


def served_questions(respondent: Respondent, prompts: Sequence[Prompt]) -> list[Question]:
    """Return what a server is asked by log-probability, as token ids; the block of thought is closed.

    Raises:
        FileNotFoundError: If the folder of its tokenizer is not there.
        ValueError: If it cannot render a prompt.
    """
    server = respondent.server or {}
    if server.get("tokenizer") is None or not prompts:
        return []
    thinks = respondent.thinking is not None
    tokenizer = _tokenizer(server["tokenizer"], False if thinks else None)
    return to_questions(with_thinking(prompts, CLOSED if thinks else None), tokenizer, respondent.system_prompt)


@cache
def _tokenizer(folder: str, thinking: bool | None) -> HFChatTokenizer:
    return hf_chat_tokenizer(folder, thinking=thinking)


def find_engine(client: ChatClient, respondent: Respondent, questions: Sequence[Question]) -> Engine | None:
    """Return the engine behind an address; None if it is not known, and no statement has to be scored.

    It is the one that ``scores`` names, or the one that the server says it is. Else vLLM's form, llama.cpp's and
    SGLang's are tried with the longest statement.

    Raises:
        ValueError: If none gives log-probabilities, the server's tokenizer is another one, or as check_adapters says.
    """
    name, server = respondent.name, respondent.server or {}
    known = server.get("scores") or _owner(client)
    if not questions:
        return ENGINES.get(known or "")
    if known:  # it refuses a model that it lacks as it would refuse the call
        check_adapters(client, respondent, ENGINES[known])
    longest = max(questions, key=lambda question: max(len(answer.tokens) for answer in question.answers))
    reasons = []
    for engine in [ENGINES[known]] if known else ENGINES.values():
        request = max(Scorer(respondent, client, engine, []).requests(longest), key=lambda r: len(r.tokens))
        reply = client.score(request, is_trial=True)
        if isinstance(reply, TokenReply):
            _check_text(name, server["tokenizer"], request.answer, reply.text)
            return engine
        if reply.kind == "unanswered" and client.base_url is not None and not reply.reason.startswith("nonsense"):
            raise RuntimeError(f"respondents.{name}: no answer to a first statement: {reply.reason}")
        reasons.append(f"{engine.name}: {reply.reason}")
    raise ValueError(
        f"respondents.{name}: the server gives no log-probabilities of statements ({'; '.join(reasons)}); ask it in "
        "writing (modes=[generate,open]), or serve the model with vLLM, llama.cpp or SGLang"
    )


def _owner(client: ChatClient) -> str | None:
    """Return the name of the engine that a server says it is, if it is one of ours."""
    listed = client.look_up("/v1/models")
    entries = listed.get("data") if isinstance(listed, Mapping) else None
    owners = {entry.get("owned_by") for entry in entries or () if isinstance(entry, Mapping)}
    return next((engine.name for engine in ENGINES.values() if engine.owner in owners), None)


def _check_text(name: str, folder: str, ids: list[int], theirs: str) -> None:
    """Refuse a tokenizer that reads the scored ids otherwise than the server's; what has no plain letters is let be."""
    ours = _tokenizer(folder, None).decode(ids)
    if ours.isascii() and theirs.isascii() and "".join(ours.split()) != "".join(theirs.split()):
        raise ValueError(
            f"respondents.{name}: the token ids of {ours!r} mean {theirs!r} there, so tokenizer={folder} is not the "
            "served model's; give the folder that is served"
        )


def check_adapters(client: ChatClient, respondent: Respondent, engine: Engine | None) -> str | None:
    """Refuse a model or a LoRA that the server does not have, and return what it adds by itself, if it does.

    Raises:
        ValueError: If vLLM or SGLang has no such model, or llama.cpp no such LoRA id: it would answer as the base.
    """
    name, params = respondent.name, (respondent.server or {}).get("params") or {}
    if not {*params} & {"lora"} and (engine is None or engine.name != "llama.cpp"):
        listed = client.look_up("/v1/models") if engine is not None else None
        entries = listed.get("data") if isinstance(listed, Mapping) else None
        models = [entry.get("id") for entry in entries or ()]
        # SGLang names an adapter behind its base: base:left
        if engine is not None and models and not {client.model, client.model.partition(":")[0]} & {*models}:
            raise ValueError(f"respondents.{name}: no model {client.model!r} at {client.base_url}; it has {models}")
        return None
    loaded = client.look_up("/lora-adapters") or []
    there = {entry["id"]: entry.get("path", "") for entry in loaded}
    if unknown := [one["id"] for one in params.get("lora") or () if one["id"] not in there]:
        raise ValueError(
            f"respondents.{name}: params.lora names {unknown}, which the server does not have, and would leave out "
            f"without a word; its /lora-adapters are {there or 'none'}"
        )
    own = {entry["id"]: entry.get("scale") for entry in loaded if entry.get("scale")}
    if own and "lora" not in params:
        return f"the server adds LoRA {own} by itself; name the scales in params.lora"
    return None


def check_repeated(scorers: Sequence[Scorer]) -> dict[str, float]:
    """Ask every server its longest statement again, after itself and after those of all others at its address.

    Returns:
        The largest difference of a token's log-probability, by respondent.

    Raises:
        ValueError: If it is over ``REPEATABLE``: an earlier prompt, or another adapter's, leaves a trace.
        RuntimeError: If a call has no answer.
    """
    calls = []
    for scorer in scorers:
        longest = max(scorer.questions, key=lambda question: len(question.answers[0].tokens))
        calls.append((scorer, scorer.requests(longest)[0]))

    def ask(call: tuple[Scorer, TokenRequest]) -> list[float]:
        scorer, request = call
        reply = scorer.client.score(request, is_fresh=True)
        if isinstance(reply, Failure):
            raise RuntimeError(f"respondents.{scorer.respondent.name}: no answer to a statement: {reply.reason}")
        return reply.logprobs

    first = [[ask(call) for _ in range(2)][1] for call in calls]
    again = [ask(call) for call in calls]
    apart = {}
    for (scorer, _), before, after in zip(calls, first, again):
        name = scorer.respondent.name
        apart[name] = max(abs(x - y) for x, y in zip(before, after))
        if apart[name] > REPEATABLE:
            raise ValueError(
                f"respondents.{name}: the same statement, asked again after those of "
                f"{[s.respondent.name for s in scorers if s is not scorer] or 'itself'}, differs by up to "
                f"{apart[name]:.1e} a token (at most {REPEATABLE}): a prompt leaves a trace; start the server without "
                "a cache of prompts (vLLM --no-enable-prefix-caching, llama.cpp --cache-ram 0)"
            )
    return apart


def iterate_scores(scorer: Scorer) -> Iterator[list[Row]]:
    """Yield the row of each question, as a resident model's, with the engine and the server's name of the model.

    Raises:
        RuntimeError: If a statement is refused, or calls were left unanswered after all tries.
    """
    name, n_lost, reason = scorer.respondent.name, 0, ""
    requests = [scorer.requests(question) for question in scorer.questions]
    replies = scorer.client.score_many(
        (request for of in requests for request in of), sum(map(len, requests)), f"{name}, {scorer.engine.name}"
    )
    for question, of in zip(scorer.questions, requests):
        got = [reply for _, (_, reply) in zip(of, replies)]
        scored = [reply for reply in got if isinstance(reply, TokenReply)]
        for failure in (reply for reply in got if isinstance(reply, Failure)):
            if failure.kind != "unanswered":
                raise RuntimeError(
                    f"respondents.{name}: {scorer.engine.name} scores no answer of mode {question.row['mode']}, item "
                    f"{question.row['item']}: {failure.reason}. What was answered is kept"
                )
            n_lost, reason = n_lost + 1, failure.reason
        if len(scored) == len(of):
            row = answer_row(name, question, [sum(reply.logprobs) for reply in scored])
            yield [row | {"server": scored[0].model, "engine": scorer.engine.name}]
    if n_lost:
        raise RuntimeError(
            f"respondents.{name}: {n_lost} statements were not scored, the last: {reason}. "
            "What was answered is kept: start the same command again"
        )


def compare_with_resident(rows: Iterable[Row], name: str, resident: str) -> str:
    """Say how far a server is from the resident model that it shall equal, on the first prompts of each scored mode."""
    by_model: dict[str, dict[Any, Row]] = {name: {}, resident: {}}
    for row in rows:
        if row["model"] in by_model and row["mode"] in SCORED and row["option_logprobs"]:
            by_model[row["model"]][row_key(row)[1:]] = row
    parts = []
    for mode in SCORED:
        keys = [key for key in by_model[resident] if key[0] == mode and key in by_model[name]][:N_COMPARED]
        pairs = [
            abs(x - y) / n
            for key in keys
            for x, y, n in zip(
                by_model[name][key]["option_logprobs"],
                by_model[resident][key]["option_logprobs"],
                by_model[resident][key]["n_tokens"],
            )
            if x is not None
        ]
        if pairs:
            parts.append(f"{mode} {max(pairs):.1e} at most, {sum(pairs) / len(pairs):.1e} on average")
    said = "; ".join(parts) or MISSING
    return (
        f"respondents.{name} against the resident {resident}, first {N_COMPARED} prompts, a token's difference of an "
        f"answer's log-probability: {said}"
    )
