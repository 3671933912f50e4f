# SPDX-License-Identifier: MIT
"""Questions and answers, and how an answer is read: what does not fit is an error, never a guess."""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

Messages = Sequence[Mapping[str, str]]
# A rule is a range of integers, the texts to choose from, or `str` for any text that is not empty.
Rule = range | Collection[str] | type[str]

# What stands before the end of a thinking block is no part of the answer; some templates open the block in the prompt.
_THINKING = re.compile(r".*(?:</(?:think|thinking|thought|reasoning)>|\[/THINK\]|◁/think▷)", re.DOTALL | re.IGNORECASE)
NONSENSE = "nonsense"  # how the reason begins where a body holds no answer
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_FENCE = re.compile(r"\s*```(?:[a-z]+(?=\s))?\s*(.*?)\s*```(.*)", re.DOTALL)
_BOXED = re.compile(r"\$*\\boxed\{(?:\\text\{)?([^{}]*)\}?\}\$*")
_PLAIN_MARKS = str.maketrans(
    dict.fromkeys("‘’‚‛ʼ′´", "'")
    | dict.fromkeys("“”„‟«»‹›「」『』″", '"')
    | dict.fromkeys("‐‑−", "-")
    | {mark: f"{plain} " for mark, plain in zip("。｡！？；：，", "..!?;:,")}
)


class Request(NamedTuple):
    """A question, the reader of its answer (it raises ValueError if it cannot), and parameters of the call."""

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
        key: SHA-256 of the request.
        reasoning: What the model thought before its answer, where the server gives it apart.
    """

    text: str
    parsed: Any
    finish_reason: str | None
    model: str
    n_tokens: tuple[int, int]
    top_logprobs: list[dict[str, float]] | None
    key: str
    reasoning: str | None = None


class Failure(NamedTuple):
    """A call without a usable answer.

    Attributes:
        kind: ``unanswered``, and asking later may help; ``refused`` by the server or ``unreadable``, and it would not.
        reason: What went wrong, for people.
        key: SHA-256 of the request.
        is_empty: Whether the server did answer, but without text.
    """

    kind: str
    reason: str
    key: str
    is_empty: bool = False


def plain_text(text: str) -> str:
    """Return a text in one form of Unicode: what looks alike is alike afterwards.

    NFKC, but for numbers that are no plain digits: ``²``, ``½`` and ``③`` stay. Quotes, hyphens and the full stops of
    Chinese and Japanese become plain ones. Characters without a width go. Every line has single blanks.
    """
    kept = text.translate(_PLAIN_MARKS)
    kept = "".join(c if unicodedata.category(c) in ("No", "Nl") else unicodedata.normalize("NFKC", c) for c in kept)
    kept = "".join(c for c in kept if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
    lines = unicodedata.normalize("NFC", kept).splitlines()
    return "\n".join(" ".join(line.split()) for line in lines)


def written_answer(text: str) -> str:
    r"""Return the answer that a model wrote, without its closed thinking block, a fence around it and ``\boxed{}``."""
    answer = _THINKING.sub("", text, count=1)
    if fence := _FENCE.fullmatch(answer):
        answer = f"{fence[1]}\n{fence[2]}"
    return _BOXED.sub(r"\1", answer).strip()


def object_parser(rules: Mapping[str, Rule]) -> Callable[[str], dict[str, Any]]:
    """Return a reader of a JSON object that has exactly the fields asked for.

    It may stand in a Markdown fence or after a thinking block, and words may follow it, but no other object. The
    reader raises ValueError if the text is no JSON object, or a field is missing, unknown or outside its rule. The
    message lists all of that.
    """

    def parse(text: str) -> dict[str, Any]:
        written = written_answer(text)
        try:
            answer, end = json.JSONDecoder().raw_decode(written)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a JSON object ({error.msg} at character {error.pos})") from error
        if re.search(r"[{}\[\]]", written[end:]):
            raise ValueError(f"not a JSON object (more than one, from character {end})")
        if not isinstance(answer, dict):
            raise ValueError(f"a {type(answer).__name__}, not a JSON object")
        problems = [f"unknown field {name!r}" for name in answer if name not in rules]
        for name, rule in rules.items():
            if name not in answer:
                problems.append(f"no field {name!r}")
            elif not _fits(answer[name], rule):
                problems.append(f"{name} is {json.dumps(answer[name])[:60]}, want {_expected(rule)}")
        if problems:
            raise ValueError("; ".join(problems))
        return answer

    return parse


def object_format(rules: Mapping[str, Rule], name: str = "answer") -> dict[str, Any]:
    """Return the ``response_format`` that has a server write such an object (OpenAI, vLLM, llama.cpp, Ollama)."""
    properties: dict[str, dict[str, Any]] = {}
    for field, rule in rules.items():
        if isinstance(rule, range):
            properties[field] = {"type": "integer", "minimum": rule[0], "maximum": rule[-1]}
        else:
            properties[field] = {"type": "string"} | ({} if isinstance(rule, type) else {"enum": list(rule)})
    schema = {"type": "object", "properties": properties, "required": list(rules), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def option_logprobs(
    top_logprobs: Sequence[Mapping[str, float]] | None, options: Sequence[str]
) -> dict[str, float | None] | None:
    """Return the log-probability of each option as the first token of an answer; None if the server gave none.

    An option is a label of one token, such as ``A``; a space before it is the same label. An option that is not among
    the likeliest tokens lies below the least of them, and gets None.
    """
    if not top_logprobs:
        return None
    sums: dict[str, float | None] = {}
    for option in options:
        parts = [value for token, value in top_logprobs[0].items() if token.strip() == option]
        most = max(parts, default=0.0)  # taken out, since exp(-9999), which servers give for "never", is 0
        sums[option] = most + math.log(sum(math.exp(x - most) for x in parts)) if parts else None
    return sums


def read_reply(body: bytes, key: str) -> Reply | Failure:
    """Read what a server sent, in UTF-8; a body that is no answer is a failure.

    This is the one verdict: a new body passes it before it is kept, and a kept one is read by it.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Failure("unanswered", f"{NONSENSE}: not UTF-8 text", key)
    try:
        completion = json.loads(text)
        choice, usage = completion["choices"][0], completion.get("usage") or {}
        message, logprobs = choice["message"], choice.get("logprobs")
        answer = message.get("content") or message.get("refusal")
        if isinstance(answer, list):  # parts, of which those of a reasoning are no answer
            answer = "".join(part.get("text") or "" for part in answer if part.get("type", "text").endswith("text"))
            thoughts = [part for part in message["content"] if not part.get("type", "text").endswith("text")]
            message = {"reasoning": json.dumps(thoughts, ensure_ascii=False), **message}
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        # half of a surrogate pair, of a character that was cut, cannot be written down
        answer, reasoning = (_HALF_PAIR.sub("\ufffd", x) if isinstance(x, str) else x for x in (answer, reasoning))
        if not (isinstance(answer, str) and answer.strip()) and not logprobs and not reasoning:
            reason = f"{NONSENSE}: an answer without text (finish_reason {choice.get('finish_reason')})"
            return Failure("unanswered", reason, key, is_empty=True)
        tokens = (logprobs or {}).get("content") or []
        return Reply(
            text=answer or "",
            parsed=answer or "",
            finish_reason=choice.get("finish_reason"),
            model="@".join(filter(None, (completion.get("model"), completion.get("system_fingerprint")))),
            n_tokens=(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0),
            top_logprobs=[_likeliest(token) for token in tokens] or None,
            key=key,
            reasoning=reasoning if isinstance(reasoning, str) else None,
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Failure("unanswered", f"{NONSENSE}: {text[:80]!r}", key)


def read_object(body: bytes, key: str) -> Any:
    """Return the JSON, an object or a list, that a server sent; a body that is none is a failure."""
    try:
        answer = json.loads(body.decode())
    except ValueError:
        return Failure("unanswered", f"{NONSENSE}: {body[:80]!r}", key)
    return answer if isinstance(answer, dict | list) else Failure("unanswered", f"{NONSENSE}: {body[:80]!r}", key)


def _likeliest(token: Mapping[str, Any]) -> dict[str, float]:
    return {t["token"]: t["logprob"] for t in [token, *(token.get("top_logprobs") or [])]}


def _fits(value: Any, rule: Rule) -> bool:
    if isinstance(rule, range):
        return isinstance(value, int) and not isinstance(value, bool) and value in rule
    return isinstance(value, str) and (bool(value.strip()) if isinstance(rule, type) else value in rule)


def _expected(rule: Rule) -> str:
    if isinstance(rule, range):
        return f"an integer from {rule[0]} to {rule[-1]}"
    return "text" if isinstance(rule, type) else f"one of {', '.join(rule)}"
