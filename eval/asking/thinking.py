# SPDX-License-Identifier: MIT
"""A model that thinks before it answers: how far it may, and what its rows say of it.

::

    thinking: off                 # its block of thought is closed, so that it answers at once
    thinking: on                  # reasoning and answer share the answer's length
    thinking: {max_tokens: 512}   # a longer reasoning is cut and closed; the answer's length is its own
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eval.statements.prompts import Prompt


class Thinking(NamedTuple):
    """How a respondent thinks."""

    is_on: bool
    max_tokens: int | None = None  # of its reasoning

    @property
    def said(self) -> str | dict[str, int]:
        """What the rows of its answers in writing say."""
        return {"max_tokens": self.max_tokens} if self.max_tokens is not None else "on" if self.is_on else "off"


CLOSED = "closed"  # what the rows of answers by log-probability say


def read_thinking(given: Any) -> Thinking | None:
    """Return a value of ``thinking`` (YAML reads on and off as booleans); None for none.

    Raises:
        ValueError: If it is not one.
    """
    if isinstance(given, Mapping):
        n = given.get("max_tokens")
        if {*given} == {"max_tokens"} and isinstance(n, int) and not isinstance(n, bool) and n > 0:
            return Thinking(True, n)
    elif given is None:
        return None
    elif given in (True, False, "on", "off"):
        return Thinking(given in (True, "on"))
    raise ValueError(f"thinking={given}; use off, on or {{max_tokens: 512}}")


def with_thinking(prompts: Sequence[Prompt], said: str | dict[str, int] | None) -> list[Prompt]:
    """Return the prompts of one who is said to think so in their rows; None says nothing."""
    return [prompt if said is None else prompt._replace(row=prompt.row | {"thinking": said}) for prompt in prompts]


def find_pairs(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the respondents of a run that differ in thinking alone: the one that does not, the one that does."""
    entries = settings.get("respondents") or {}
    apart = ("thinking", "modes", "cache_dir")
    who = {name: {k: x for k, x in (entry or {}).items() if k not in apart} for name, entry in entries.items()}
    thinking = {name: read_thinking((entry or {}).get("thinking")) for name, entry in entries.items()}
    return [
        (off, on)
        for off, how in thinking.items()
        for on, other in thinking.items()
        if how and other and not how.is_on and other.is_on and who[off] == who[on]
    ]
