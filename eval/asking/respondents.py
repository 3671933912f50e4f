# SPDX-License-Identifier: MIT
"""Who is asked what: the interview of a config, the resident base and its adapters, and the key ``respondents``.

::

    respondents:
      told-left: {system_prompt: You argue from the political left.}   # the resident base with a system prompt
      tuned-and-told: {adapter: left, system_prompt: Answer candidly.}  # one of its adapters with one
      thoughtful: {adapter: left, thinking: {max_tokens: 512}}  # it thinks before it answers
      large: {model: gpt-4o-mini, base_url: https://api.openai.com/v1, modes: [choice, generate]}
      scored: {model: left, base_url: http://127.0.0.1:8000/v1, tokenizer: path/to/model, same_as: left}

A respondent with ``model`` is a server that speaks OpenAI's chat completions (``data/chat/client.py``). With the folder
of its tokenizer, vLLM, llama.cpp and SGLang score whole statements too, so they are asked in every mode.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from data.chat.cache import find_confusions
from data.chat.engines import ENGINES
from eval.asking.thinking import Thinking, read_thinking
from eval.asking.written_answers import Decoding
from eval.statements import prompts
from eval.statements.dialogues import DIALOGUE, IDENTITY, dialogue_prompts, frames, identity_prompts, load_dialogues
from eval.statements.instruments import Instrument
from eval.statements.prompts import LABELS, Prompt, Templates
from eval.statements.requests import WRITE, write_prompts
from finetune.adapters.folders import check_names

MODES = ("choice", "pairs", "generate", "open", WRITE, DIALOGUE, IDENTITY)
# Modes whose options can be told apart by the first token of an answer.
COMPARED = ("choice", DIALOGUE, IDENTITY)
WRITTEN = ("generate", "open", WRITE)
BASE = "base"
_RESIDENT = ("adapter", "system_prompt", "modes", "thinking")
_CLIENT = ("base_url", "cache_dir", "api_key_env", "max_concurrency", "timeout_s", "max_retries", "retry_wait_s")
_SCORED = ("tokenizer", "scores", "same_as")
_SERVED = ("model", "system_prompt", "modes", "thinking", "params", "n_top_logprobs", "stop_after", *_SCORED, *_CLIENT)
_DIAL_POINT = r"[^@]+@[-+]?\d+(\.\d+)?"  # left@0.5, as eval/scores/places.py reads it


class Interview(NamedTuple):
    """The prompts of each mode in the order in which they are asked, and how its text is drawn."""

    prompts: dict[str, list[Prompt]]
    options: tuple[str, ...]  # wordings, in the instrument's order
    decodings: dict[str, Decoding]
    about: Mapping[str, str] = {}  # for the settings of the run: the hash of the scripts, where some are asked

    def of_modes(self, modes: Collection[str]) -> list[Prompt]:
        """Return the prompts of these modes."""
        return [prompt for mode, prompts in self.prompts.items() if mode in modes for prompt in prompts]


class Respondent(NamedTuple):
    """One who is asked."""

    name: str
    modes: tuple[str, ...]
    adapter: str | None = None  # the adapter or blend that is switched on; None for the base and for a server
    system_prompt: str | None = None  # put before every prompt; None leaves the model or server its own
    server: Mapping[str, Any] | None = None  # what a config says about a server; None for the resident model
    thinking: Thinking | None = None  # None leaves it to the chat template


def plan_interview(cfg: DictConfig, instrument: Instrument, templates: Templates) -> Interview:
    """Make the prompts of a config's modes.

    Raises:
        ValueError: If a mode has nothing to ask, or a setting is out of range.
    """
    if not cfg.modes or not {*cfg.modes} <= {*MODES}:
        raise ValueError(f"modes={list(cfg.modes)}; use any of {list(MODES)}")
    needs = {"choice": "items", "pairs": "pairs", "generate": "items", WRITE: "bank"}
    needs |= dict.fromkeys((DIALOGUE, IDENTITY), "pairs")
    for mode, kind in needs.items():
        if mode in cfg.modes and not getattr(instrument, kind):
            known = [m for m in MODES if m not in needs or getattr(instrument, needs[m])]
            others = [m for m in cfg.modes if m in known] or [m for m in known if m != "open"]
            raise ValueError(f"modes={list(cfg.modes)}, but {cfg.instrument} has no {kind}; use modes={others}")
    counts = ["n_samples", "max_new_tokens", "open_max_new_tokens", "prompts_per_batch", "max_tokens_per_forward"]
    for key in counts if cfg.top_k is None else [*counts, "top_k"]:
        if not isinstance(cfg[key], int) or cfg[key] < 1:
            raise ValueError(f"{key}={cfg[key]}; use 1 or more{', or null' if key == 'top_k' else ''}")
    is_number = isinstance(cfg.temperature, int | float)
    if not is_number or cfg.temperature < 0 or (cfg.temperature == 0 and cfg.n_samples > 1):
        raise ValueError(
            f"temperature={cfg.temperature}, n_samples={cfg.n_samples}; use a temperature of 0 or more, and above "
            "0 for more than one sample: at 0 all are the same"
        )
    bank, labels = (instrument, templates), list(cfg.labels)
    if not labels and {*cfg.modes} - {"pairs", "open", WRITE}:
        raise ValueError(f"labels=[], so modes={list(cfg.modes)} ask nothing; use any of {list(prompts.LABEL_SETS)}")
    by_mode = {}
    if "choice" in cfg.modes:
        by_mode["choice"] = prompts.choice_prompts(*bank, cfg.n_templates, cfg.n_orders, labels)
    if "pairs" in cfg.modes:
        by_mode["pairs"] = prompts.pair_prompts(*bank, cfg.n_pair_templates)
    if "generate" in cfg.modes:
        by_mode["generate"] = prompts.generate_prompts(
            *bank, cfg.n_generate_templates, cfg.n_generate_orders, labels, cfg.n_samples
        )
    if "open" in cfg.modes:
        by_mode["open"] = prompts.open_prompts(*bank, cfg.n_open_templates, cfg.n_samples)
    if WRITE in cfg.modes:
        factors: Any = OmegaConf.to_container(cfg.factors) if cfg.factors else {}
        for name, text in factors.items():
            if not re.fullmatch(r"\w+", str(name)) or not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"factors.{name}={text!r}; name it with letters, digits and _, and give the text that it adds to a "
                    "request, in quotes"
                )
        by_mode[WRITE] = write_prompts(
            instrument, cfg.n_write_templates, cfg.n_samples, factors, cfg.factor_cells, cfg.seed
        )
    about = {}
    if {DIALOGUE, IDENTITY} & {*cfg.modes}:
        dialogues = load_dialogues(cfg.scripts or instrument.language)
        about = {"scripts_sha256": dialogues.sha256}
        of = list(frames(instrument, dialogues, cfg.n_scripts, labels, templates.label))
        asked = {DIALOGUE: dialogue_prompts(instrument, of), IDENTITY: identity_prompts(instrument, of, dialogues.cues)}
        by_mode |= {mode: prompts_of for mode, prompts_of in asked.items() if mode in cfg.modes}
    lengths = {"generate": cfg.max_new_tokens, "open": cfg.open_max_new_tokens, WRITE: cfg.open_max_new_tokens}
    decodings = {mode: Decoding(cfg.temperature, cfg.top_k, n, cfg.seed) for mode, n in lengths.items()}
    return Interview(by_mode, instrument.options, decodings, about)


def position_notes(cfg: DictConfig, instrument: Instrument) -> list[str]:
    """Return what the orders of a config's modes leave of a preference for a place, where that is not warned of."""
    orders = prompts.option_orders(len(instrument.options))
    keys = {"n_orders": "choice", "n_generate_orders": "generate"}
    taken = {key: prompts.position_bias(orders[: cfg[key]]) for key, mode in keys.items() if mode in cfg.modes}
    return [f"{key}={cfg[key]}: {prompts.POSITION_BIAS[bias]}" for key, bias in taken.items() if bias == "mirrored"]


def read_respondents(
    entries: Mapping[str, Any] | None,
    has_resident: bool,
    adapters: Sequence[str],
    modes: Sequence[str],
    labels: Collection[str],
) -> list[Respondent]:
    """Return all who are asked, the base first; without a resident model there is no base.

    Raises:
        ValueError: If an entry of the key ``respondents`` cannot be asked; lists every fault.
    """
    check_names("respondents", entries or {})
    respondents = [Respondent(BASE, tuple(modes))] if has_resident else []
    respondents += [Respondent(name, tuple(modes), adapter=name) for name in adapters]
    faults = []
    if adapters and not has_resident:
        faults.append(f"model=null has no adapters; drop {list(adapters)}, or name the model that they belong to")
    for name, given in (entries or {}).items():
        where, entry = f"respondents.{name}", given or {}
        if not isinstance(entry, Mapping):
            faults.append(f"{where}: {entry!r}; give a mapping, as {where}.system_prompt=… or {where}.model=…")
            continue
        is_served = "model" in entry
        known = _SERVED if is_served else _RESIDENT
        if name in {BASE, *(other.name for other in respondents)}:
            faults.append(f"{where}: this name is taken; choose another one")
        if "@" in name and not (re.fullmatch(_DIAL_POINT, name) and (entry.get("params") or {}).get("lora")):
            faults.append(f"{where}: a name with @ is a dial's (left@0.5); choose another one")
        if is_served and not re.fullmatch(r"\w[\w.+@ -]*", name):
            faults.append(f"{where}: replies are kept in a folder of this name; use letters, digits and any of . _ + -")
        if not entry or set(entry) - set(known):
            extra = sorted(set(entry) - set(known))
            faults.append(f"{where}: {extra or 'nothing'}; use {known} (with model: a server, without: the resident)")
            continue
        is_scored = not is_served or entry.get("tokenizer") is not None
        its_modes = list(entry.get("modes") or [mode for mode in modes if mode != "pairs" or is_scored])
        if not its_modes:
            faults.append(f"{where}: no mode to ask it in: modes={list(modes)} and no tokenizer; give one of both")
        if wrong := [mode for mode in its_modes if mode not in modes]:
            faults.append(f"{where}: modes {wrong} are not among the run's {list(modes)}")
        adapter, server, thinking = entry.get("adapter"), None, None
        try:
            thinking = read_thinking(entry.get("thinking"))
        except ValueError as error:
            faults.append(f"{where}: {error}")
        if is_served:
            faults += [f"{where}: {fault}" for fault in _server_faults(entry, its_modes, labels)]
            server = {key: value for key, value in entry.items() if key not in _RESIDENT}
            same_as = entry.get("same_as")
            if same_as is not None and not (has_resident and same_as in (BASE, *adapters)):
                there = [BASE, *adapters] if has_resident else "none, since model=null"
                faults.append(f"{where}: same_as={same_as}, but the resident models are {there}; drop it, or name one")
        elif not has_resident:
            faults.append(f"{where}: there is no resident model (model=null); give it a model and a base_url")
        if adapter is not None and adapter not in adapters:
            faults.append(f"{where}: adapter {adapter!r}; the adapters are {list(adapters)}, null is the base")
        respondents.append(Respondent(name, tuple(its_modes), adapter, entry.get("system_prompt"), server, thinking))
    faults += find_confusions({f"respondents.{r.name}": r.server for r in respondents if r.server})
    if not respondents and not faults:
        faults.append("nobody is asked: model=null and no respondents; name one of either")
    if faults:
        raise ValueError("the respondents were refused:\n  - " + "\n  - ".join(faults))
    return respondents


def _server_faults(entry: Mapping[str, Any], modes: Sequence[str], labels: Collection[str]) -> list[str]:
    faults = []
    tokenizer, scores, lora = entry.get("tokenizer"), entry.get("scores"), (entry.get("params") or {}).get("lora")
    if tokenizer is not None and not Path(tokenizer).is_dir():
        faults.append(f"tokenizer={tokenizer}: no such folder; give that of the served model's tokenizer")
    if scores is not None and scores not in ENGINES:
        faults.append(f"scores={scores}; use one of {list(ENGINES)}, or null to find out")
    if scores is not None and tokenizer is None and "base_url" in entry and {*modes} & {*COMPARED, "pairs"}:
        faults.append("scores without tokenizer; give the folder of the served model's tokenizer, for its token ids")
    if "pairs" in modes and tokenizer is None:
        faults.append(
            "a chat gives no log-probability of a whole statement; give the folder of the served model's tokenizer "
            "(tokenizer=PATH; for vLLM, llama.cpp and SGLang), or leave pairs out of its modes"
        )
    if {*modes} & {*COMPARED} and tokenizer is None and not set(labels) & set(LABELS):
        faults.append(
            f"labels={list(labels)}: a server's first token tells {sorted(LABELS)} apart, words it does not; "
            f"add one of these, give tokenizer=PATH, or leave {'/'.join(COMPARED)} out of its modes"
        )
    if lora is not None and not _is_scales(lora):
        faults.append(f"params.lora={lora}; write it as [{{id: 0, scale: 0.5}}], ids as in the server's /lora-adapters")
    if (entry.get("params") or {}).get("seed") is not None:
        faults.append(
            "params.seed would give every answer the same one; drop it: each answer's comes from the run's seed "
            "(null sends none)"
        )
    if "base_url" not in entry:
        faults.append("no base_url; give the address that ends in /v1, or null to take replies from cache_dir alone")
    return faults


def _is_scales(lora: Any) -> bool:
    return isinstance(lora, Sequence) and all(
        isinstance(one, Mapping) and {*one} == {"id", "scale"} and isinstance(one["scale"], int | float) for one in lora
    )
