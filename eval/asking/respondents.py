# SPDX-License-Identifier: MIT
"""Who is asked: the resident base, its adapters, and what the key ``respondents`` of a config adds to them.

::

    respondents:
      told-left: {system_prompt: You argue from the political left.}   # the resident base with a system prompt
      tuned-and-told: {adapter: left, system_prompt: Answer candidly.}  # one of its adapters with one
      large: {model: gpt-4o-mini, base_url: https://api.openai.com/v1, modes: [choice, generate]}

A respondent with ``model`` is a server that speaks OpenAI's chat completions (``data/chat/client.py``).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from data.chat.cache import find_confusions
from eval.statements.prompts import LABELS

MODES = ("choice", "pairs", "generate", "open")
BASE = "base"
_RESIDENT = ("adapter", "system_prompt", "modes")
_CLIENT = ("base_url", "cache_dir", "api_key_env", "max_concurrency", "timeout_s", "max_retries", "retry_wait_s")
_SERVED = ("model", "system_prompt", "modes", "params", "n_top_logprobs", "stop_after", *_CLIENT)


class Respondent(NamedTuple):
    """One who is asked.

    Attributes:
        name: What the rows call it.
        modes: In which it is asked.
        adapter: The adapter or blend that is switched on; None for the base, or where ``server`` is set.
        system_prompt: Put before every prompt; None leaves the model or server its own.
        server: What a config says about a server; None for the resident model.
    """

    name: str
    modes: tuple[str, ...]
    adapter: str | None = None
    system_prompt: str | None = None
    server: Mapping[str, Any] | None = None


def read_respondents(
    entries: Mapping[str, Any] | None,
    has_resident: bool,
    adapters: Sequence[str],
    modes: Sequence[str],
    labels: Collection[str],
) -> list[Respondent]:
    """Return all who are asked, the base first.

    Args:
        entries: The key ``respondents`` of a config.
        has_resident: Whether a model is loaded; without one there is no base.
        adapters: Names of its adapters and blends.
        modes: Those of the run.
        labels: Label sets of the run.

    Raises:
        ValueError: If an entry cannot be asked; lists every fault.
    """
    found = [Respondent(BASE, tuple(modes))] if has_resident else []
    found += [Respondent(name, tuple(modes), adapter=name) for name in adapters]
    faults = []
    if adapters and not has_resident:
        faults.append(f"model=null has no adapters; drop {list(adapters)}, or name the model that they belong to")
    for name, entry in (entries or {}).items():
        where, known = f"respondents.{name}", _SERVED if "model" in (entry or {}) else _RESIDENT
        if name in {other.name for other in found} or name == BASE:
            faults.append(f"{where}: this name is taken; choose another one")
        if "@" in name:
            faults.append(f"{where}: a name with @ is a dial's (left@0.5); choose another one")
        if "model" in (entry or {}) and not re.fullmatch(r"\w[\w.+@ -]*", name):
            faults.append(f"{where}: replies are kept in a folder of this name; use letters, digits and any of . _ + -")
        if not entry or set(entry) - set(known):
            extra = sorted(set(entry or {}) - set(known))
            faults.append(f"{where}: {extra or 'nothing'}; use {known} (with model: a server, without: the resident)")
            continue
        own = list(entry.get("modes") or [m for m in modes if m != "pairs" or "model" not in entry])
        if wrong := [m for m in own if m not in modes]:
            faults.append(f"{where}: modes {wrong} are not among the run's {list(modes)}")
        if "model" in entry:
            faults += [f"{where}: {fault}" for fault in _server_faults(entry, own, labels)]
            server = {key: value for key, value in entry.items() if key not in _RESIDENT}
            found.append(Respondent(name, tuple(own), system_prompt=entry.get("system_prompt"), server=server))
            continue
        adapter = entry.get("adapter")
        if not has_resident:
            faults.append(f"{where}: there is no resident model (model=null); give it a model and a base_url")
        if adapter is not None and adapter not in adapters:
            faults.append(f"{where}: adapter {adapter!r}; the adapters are {list(adapters)}, null is the base")
        found.append(Respondent(name, tuple(own), adapter, entry.get("system_prompt")))
    faults += find_confusions({f"respondents.{r.name}": r.server for r in found if r.server})
    if not found and not faults:
        faults.append("nobody is asked: model=null and no respondents; name one of either")
    if faults:
        raise ValueError("the respondents were refused:\n  - " + "\n  - ".join(faults))
    return found


def _server_faults(entry: Mapping[str, Any], modes: Sequence[str], labels: Collection[str]) -> list[str]:
    faults = []
    if "pairs" in modes:
        faults.append("a server gives no log-probability of a whole statement; leave pairs out of its modes")
    if "choice" in modes and not set(labels) & set(LABELS):
        faults.append(
            f"labels={list(labels)}: a server's first token tells {sorted(LABELS)} apart, words it does not; "
            "add one of these, or leave choice out of its modes"
        )
    if "seed" in (entry.get("params") or {}):
        faults.append(
            "params.seed would give every answer the same one; drop it: each answer's comes from the run's seed"
        )
    if "base_url" not in entry:
        faults.append("no base_url; give the address that ends in /v1, or null to take replies from cache_dir alone")
    return faults
