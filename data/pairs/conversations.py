# SPDX-License-Identifier: MIT
r"""Conversations in preference rows: lists of messages and transcripts become turns before two answers.

Read are lists of ``{role, content}`` (OpenAI, TRL) and ``{from, value}`` (ShareGPT), one such message,
``{messages: […]}`` (OpenAI), ``{role: […], content: […]}``, and transcripts ``"\n\nHuman: … \n\nAssistant: …"``
(HH-RLHF). ``chosen`` and ``rejected`` hold the whole conversation, or the answer alone beside ``prompt``.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    "system": "system",
}
_TRANSCRIPT = re.compile(r"\s*Human:.*\n\nAssistant:", re.DOTALL)
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class Turn(NamedTuple):
    """What one side says, or the system prompt."""

    role: str  # system, user or assistant
    text: str


class Conversation(NamedTuple):
    """The turns that two answers follow, the last one the user's, and the answers."""

    turns: tuple[Turn, ...]
    chosen: str
    rejected: str


def is_conversation(value: Any) -> bool:
    """Return whether a cell holds messages, or the transcript of a conversation."""
    return isinstance(value, list | Mapping) or (isinstance(value, str) and bool(_TRANSCRIPT.match(value)))


def read_conversation(prompt: Any, chosen: Any, rejected: Any) -> Conversation:
    """Join the cells of a row of which at least one :func:`is_conversation`; ``prompt`` may be None.

    A ValueError says why a row has no two answers to one conversation.
    """
    answers = [_turns(value, name, "assistant") for name, value in (("chosen", chosen), ("rejected", rejected))]
    for name, turns in zip(("chosen", "rejected"), answers):
        if turns[-1].role != "assistant":
            raise ValueError(f"{name} ends with a turn of the {turns[-1].role}, want the assistant's answer")
    before, other = (turns[:-1] for turns in answers)
    if before != other:
        n_same = len([*takewhile(lambda both: both[0] == both[1], zip(before, other))])
        raise ValueError(f"chosen and rejected part at turn {n_same + 1}, want all turns the same but the last one")
    turns = before if prompt is None else _after(_turns(prompt, "prompt", "user"), before)
    if not turns:
        raise ValueError("no prompt: no turn stands before the answer; name the prompt's column in column_map")
    roles = [turn.role for turn in turns]
    n_system = roles[0] == "system"
    if roles[n_system:] != [("user", "assistant")[k % 2] for k in range(len(roles) - n_system)] or roles[-1] != "user":
        shown = ", ".join(roles[:8]) + (", ..." if len(roles) > 8 else "")
        raise ValueError(f"turns of {shown} before the answer; want user and assistant in turn, the user last")
    return Conversation(tuple(turns), answers[0][-1].text, answers[1][-1].text)


def turns_text(turns: Sequence[Turn]) -> str:
    """Return turns as one text, for whatever looks at a prompt as text."""
    return "\n\n".join(turn.text for turn in turns)


def messages_as_text(text: str) -> bool:
    """Return whether a text is a printed list of messages, as a table holds it that was made of one."""
    return bool(re.match(r"\s*[\[{]\s*\{?\s*[\"'](role|content|from|value)[\"']\s*:", text))


def _after(prompt: list[Turn], before: list[Turn]) -> list[Turn]:
    """Join a row's prompt and the turns that its answers begin with, which may repeat it."""
    texts, said = ([turn.text.strip() for turn in turns] for turns in (prompt, before))
    if not before or said[-len(texts) :] == texts:
        return before or prompt  # a system prompt may stand before it
    if texts[-len(said) :] == said:
        return prompt
    raise ValueError("prompt is not what chosen begins with; leave one of them out")


def _turns(value: Any, name: str, role: str) -> list[Turn]:
    """Return the turns of a cell; plain text is one of ``role``."""
    if value is None:
        raise ValueError(f"{name} is missing")
    if isinstance(value, str) and not _TRANSCRIPT.match(value):
        return [Turn(role, value)]
    if isinstance(value, str):
        _, *parts = _SPEAKER.split(value.lstrip())
        turns = [Turn(ROLES[speaker.lower()], text.strip()) for speaker, text in zip(parts[::2], parts[1::2])]
        # a prompt may end where the answer is to begin
        return turns[:-1] if name == "prompt" and not turns[-1].text else turns
    if isinstance(value, Mapping):
        roles, texts = value.get("role"), value.get("content")
        if isinstance(roles, list) and isinstance(texts, list):
            value = [{"role": of_turn, "content": text} for of_turn, text in zip(roles, texts)]
        else:
            value = value["messages"] if "messages" in value else [value]
    if not isinstance(value, list):
        raise ValueError(f"{name} is {type(value).__name__}, not text")
    if not value:
        raise ValueError(f"{name} is empty")
    return [_turn(message, f"turn {number} of {name}") for number, message in enumerate(value, start=1)]


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping) or not ({*message} >= {"role", "content"} or {*message} >= {"from", "value"}):
        found = ", ".join(map(str, message)) if isinstance(message, Mapping) else type(message).__name__
        raise ValueError(f"{where} has {found or 'nothing'}, want role and content, or from and value")
    role, content = (message[key] for key in (("role", "content") if "role" in message else ("from", "value")))
    if role not in ROLES:
        raise ValueError(f"{where} is by {role!r}; taken are {', '.join(ROLES)}")
    if isinstance(content, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        found = "no content (null)" if content is None else f"content that is {type(content).__name__}, not text"
        raise ValueError(f"{where} has {found}")
    if message.get("tool_calls"):
        raise ValueError(f"{where} calls tools; take such rows out")
    if not content.strip():
        raise ValueError(f"{where} is empty")
    return Turn(ROLES[role], content)
