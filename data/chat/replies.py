# SPDX-License-Identifier: MIT
"""Questions and answers, and how an answer is read: what does not fit is an error, never a guess."""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

Messages = Sequence[Mapping[str, str]]
# A rule is a range of integers, the texts to choose from, or `str` for any text that is not empty.
Rule = range | Collection[str] | type[str]

_SCORE = re.compile(r"(?:(?:score|rating|answer)\s*[:=]\s*)?([0-9]+)(?:\s*/\s*([0-9]+))?\.?", re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


class Request(NamedTuple):
    """What to ask, how to read the answer (``parse`` raises ValueError if it cannot), parameters of the call."""

    messages: Messages
    parse: Callable[[str], Any] | None = None
    params: Mapping[str, Any] = {}


class Reply(NamedTuple):
    """An answer.

    Attributes:
        text: What the model wrote.
        parsed: What ``parse`` made of it; the text itself without one.
        finish_reason: ``stop``, or ``length`` for an answer that was cut.
        model: The model's name and revision as the server says them.
        n_tokens: Tokens of the prompt and of the answer as the server counts them; 0 if it does not.
        top_logprobs: For each token of the answer the likeliest tokens and their log-probabilities in nats; None
            if the server gives none.
        repaired: Whether the first answer could not be read and this is the second.
        key: SHA-256 of the request.
    """

    text: str
    parsed: Any
    finish_reason: str | None
    model: str
    n_tokens: tuple[int, int]
    top_logprobs: list[dict[str, float]] | None
    repaired: bool
    key: str


class Failure(NamedTuple):
    """A call without a usable answer.

    Attributes:
        kind: ``unanswered``, and asking later may help; ``refused`` by the server or ``unreadable``, and it would not.
        reason: What went wrong, for people.
        key: SHA-256 of the request.
    """

    kind: str
    reason: str
    key: str


def parse_score(text: str, scale: range) -> int:
    """Read one integer of a scale.

    ``12``, ``12.``, ``Score: 12`` and ``12/20`` on a scale that ends at 20 are 12. ``12/10``, ``1-5``, ``12 or
    13`` and ``12.5`` are errors.

    Raises:
        ValueError: If the text is anything but one integer of the scale.
    """
    match = _SCORE.fullmatch(text.strip().strip("*").strip())
    if not match or (match[2] and int(match[2]) != scale[-1]) or int(match[1]) not in scale:
        raise ValueError(f"{text.strip()[:60]!r} is not one integer from {scale[0]} to {scale[-1]}")
    return int(match[1])


def score_parser(scale: range) -> Callable[[str], int]:
    """Return :func:`parse_score` for one scale."""
    return lambda text: parse_score(text, scale)


def parse_object(text: str, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Read a JSON object that has exactly the fields asked for; a fence of Markdown around it is allowed.

    Args:
        text: What the model wrote.
        rules: Field to what it may hold: a ``range``, a collection of texts, or ``str``.

    Raises:
        ValueError: If it is not JSON, not an object, or a field is missing, extra or outside its rule; lists all.
    """
    fence = _FENCE.fullmatch(text.strip())
    try:
        found = json.loads(fence[1] if fence else text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a JSON object ({error.msg} at character {error.pos})") from error
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, not a JSON object")
    problems = [f"unknown field {name!r}" for name in found if name not in rules]
    for name, rule in rules.items():
        if name not in found:
            problems.append(f"no field {name!r}")
        elif not _fits(found[name], rule):
            problems.append(f"{name} is {json.dumps(found[name])[:60]}, want {_wanted(rule)}")
    if problems:
        raise ValueError("; ".join(problems))
    return found


def object_parser(rules: Mapping[str, Rule]) -> Callable[[str], dict[str, Any]]:
    """Return :func:`parse_object` for one set of rules."""
    return lambda text: parse_object(text, rules)


def object_format(rules: Mapping[str, Rule], name: str = "answer") -> dict[str, Any]:
    """Return the ``response_format`` that has a server write such an object (OpenAI, vLLM, llama.cpp, Ollama)."""
    properties = {}
    for field, rule in rules.items():
        if isinstance(rule, range):
            properties[field] = {"type": "integer", "minimum": rule[0], "maximum": rule[-1]}
        else:
            properties[field] = {"type": "string"} | ({} if rule is str else {"enum": list(rule)})
    schema = {"type": "object", "properties": properties, "required": list(rules), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def option_logprobs(
    top_logprobs: Sequence[Mapping[str, float]] | None, options: Sequence[str]
) -> dict[str, float | None] | None:
    """Return the log-probability of each option as the first token of an answer.

    Args:
        top_logprobs: For each token of the answer the likeliest tokens with their log-probabilities, in nats.
        options: Labels of one token each, such as ``A``; a space before one is the same label.

    Returns:
        Option to log-probability; None for one that is not among the likeliest (it lies below the least of them).
        None instead of a dict if the server gave no log-probabilities.
    """
    if not top_logprobs:
        return None
    found = {}
    for option in options:
        parts = [value for token, value in top_logprobs[0].items() if token.strip() == option]
        most = max(parts, default=0.0)  # taken out, since exp(-9999), which servers give for "never", is 0
        found[option] = most + math.log(sum(math.exp(x - most) for x in parts)) if parts else None
    return found


def read_reply(body: Mapping[str, Any], key: str) -> Reply:
    """Take a server's reply apart; its body has passed :class:`~data.chat.endpoint.Endpoint`."""
    choice, usage = body["choices"][0], body.get("usage") or {}
    text = choice["message"].get("content") or choice["message"].get("refusal") or ""
    revision = body.get("system_fingerprint")
    logprobs = (choice.get("logprobs") or {}).get("content")
    return Reply(
        text=text,
        parsed=text,
        finish_reason=choice.get("finish_reason"),
        model="@".join(filter(None, (body.get("model"), revision))),
        n_tokens=(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0),
        top_logprobs=[_likeliest(token) for token in logprobs] if logprobs else None,
        repaired=False,
        key=key,
    )


def _likeliest(token: Mapping[str, Any]) -> dict[str, float]:
    return {t["token"]: t["logprob"] for t in [token, *(token.get("top_logprobs") or [])]}


def _fits(value: Any, rule: Rule) -> bool:
    if isinstance(rule, range):
        return isinstance(value, int) and not isinstance(value, bool) and value in rule
    return isinstance(value, str) and (bool(value.strip()) if rule is str else value in rule)


def _wanted(rule: Rule) -> str:
    if isinstance(rule, range):
        return f"an integer from {rule[0]} to {rule[-1]}"
    return "text" if rule is str else f"one of {', '.join(rule)}"
