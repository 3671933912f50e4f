# SPDX-License-Identifier: MIT
"""Which values a key of a config, or an argument of a component, may have: its type, its range, its form."""

import inspect
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

# Types of keys of recipes that have no default, or null for it, or that cannot be null.
TYPES: dict[str, Any] = {
    **dict.fromkeys(("output_dir", "device", "base", "licence", "instrument", "run", "split"), str),
    "dtype": Literal["fp32", "bf16", "auto", "fp16", "fp64"],
    **dict.fromkeys(("batch_size", "epochs", "gradient_accumulation_steps", "log_every_n_steps"), int),
    **dict.fromkeys(("shuffle", "resume_from_checkpoint"), bool),
    "enable_activation_checkpointing": bool | float,
    **dict.fromkeys(("seed", "max_steps_per_epoch", "save_every_n_steps", "validate_every_n_steps"), int | None),
    **dict.fromkeys(("instrument_limit", "task_limit", "task_n_shots", "layer", "choice_trial"), int | None),
    **dict.fromkeys(("clip_grad_norm", "validation_share", "style_limit"), float | None),
    **dict.fromkeys(("templates", "scripts", "reference_cache_dir", "push_to_hub", "shuffled"), str | None),
    **dict.fromkeys(("influence", "lean_instrument", "adversarial", "neutral_text", "topic_column"), str | None),
    "top_k": int | None,
    "max_side_difference": float | None,
    **dict.fromkeys(("sources", "topics", "models", "runs", "blend"), Mapping),
    **dict.fromkeys(("factors", "readings"), Mapping | None),
    **dict.fromkeys(("n_write_templates", "factor_cells", "n_scripts"), int | None),
    **dict.fromkeys(("judge", "generator", "client", "executor", "split_shares", "gates"), Mapping),
    **dict.fromkeys(("duplicate", "duplicate_threshold", "related", "min_relevance", "min_distance"), float),
    **dict.fromkeys(("min_kappa", "min_cosine", "max_toxicity"), float),
    **dict.fromkeys(("post_words", "n_words", "held_out_topics", "reviewers", "length_ratio", "balance_within"), list),
    **dict.fromkeys(("max_unanswered", "keep_last_n_checkpoints", "max_tokens_per_forward", "port"), int),
    "columns": Mapping,
    "split": str,
    **dict.fromkeys(("side", "revision", "labelled", "language"), str | None),
    **dict.fromkeys(("n_pairs", "max_words", "n_folds"), int),
    "hold_out": float,
    **dict.fromkeys(
        ("where", "judges", "instrument_columns", "second_judge", "toxicity", "embeddings"), Mapping | None
    ),
    "strengths": list,
    "cue_words": list | None,
    **dict.fromkeys(("adapters", "respondents", "column_map", "label_map", "dial", "primary"), Mapping | None),
    "expected": list | None,
    **dict.fromkeys(("source", "rows", "name"), str | Mapping | None),
    "framed_prompts": Literal["drop", "keep"],
    "tasks": str | list | None,
    "formats": str | list,
}
# The least and the most of keys and arguments of these names.
_ANY = float("inf")
RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    **dict.fromkeys(("max_seq_len", "subset"), (1, _ANY)),
    **dict.fromkeys(("lora_rank", "n_bootstrap", "choice_trial", "quota", "limit", "task_limit"), (1, _ANY)),
    **dict.fromkeys(("save_every_n_steps", "validate_every_n_steps", "keep_last_n_checkpoints"), (1, _ANY)),
    **dict.fromkeys(("max_tokens", "max_tokens_per_forward", "max_concurrency", "prompts_per_batch"), (1, _ANY)),
    **dict.fromkeys(("max_new_tokens", "open_max_new_tokens", "n_samples", "epochs", "batch_size", "tasks"), (1, _ANY)),
    **dict.fromkeys(("gradient_accumulation_steps", "max_steps_per_epoch", "log_every_n_steps"), (1, _ANY)),
    **dict.fromkeys(
        ("lr", "weight_decay", "num_warmup_steps", "seed", "max_unanswered", "temperature", "n_items", "n_pairs"),
        (0, _ANY),
    ),
    "enable_activation_checkpointing": (0, 1),
    **dict.fromkeys(("lora_dropout", "max_toxicity", "toxicity_threshold", "max_side_difference"), (0, 1)),
    "label_smoothing": (0, 0.5),  # from one half on it would prefer the rejected answer
    **dict.fromkeys(("min_distance", "min_relevance"), (0, 10)),
    "min_kappa": (-1, 1),
    "style_limit": (0.5, 1),  # one half is chance
}
# Numbers of these names are above zero, and at most this.
ABOVE_ZERO: dict[str, float] = {
    **dict.fromkeys(("lora_alpha", "clip_grad_norm", "beta", "tau", "timeout_s", "max_surprise"), _ANY),
    **dict.fromkeys(("duplicate", "duplicate_threshold", "related", "min_cosine"), 1),
}
# Two numbers, the second not below the first.
LIMITS = ("post_words", "n_words", "length_ratio")
# Lists of these names hold nothing twice.
DISTINCT = ("modes", "labels", "sides", "formats", "raters", "held_out_topics")
# These are no parameters of a call that a config may set.
TAKEN = ("model", "messages", "stream", "n")
# What texts of these names look like, and how to write one. What stands in place of a key's name is never shown.
FORMS: dict[str, tuple[str, str]] = {
    "base_url": (r"https?://[^/\s]+(?!.*/completions/?$).*", "write the address up to /v1: http://127.0.0.1:8000/v1"),
    "output_dir": (r"\S.*", "name a folder"),
    "push_to_hub": (r"[\w.-]+/[\w.-]+", "write OWNER/NAME"),
    "api_key_env": (r"[A-Za-z_]\w*", "give the name of an environment variable that holds the key, never the key"),
}


def check_value(key: str, value: Any, wanted: Any = Parameter.empty, default: Any = None) -> list[str]:
    """Say what is wrong with the value of a key or argument: its type, or its range.

    The type is that of the annotation, or else of the default; an argument whose default says its type may be null too.
    """
    name = key.rpartition(".")[2]
    if wanted is Parameter.empty and "." not in key:
        wanted = TYPES.get(key, Parameter.empty)
    if wanted is Parameter.empty:
        of_default = type(default) | None if "." in key else type(default)
        wanted = Any if default in (None, Parameter.empty) else of_default
    if not _is(value, wanted):
        hint = f"; write {key}=[{value}]" if isinstance(value, str) and _is([value], wanted) else ""
        if isinstance(value, Sequence) and len(value) == 1 and _is(value[0], wanted):
            hint = f"; write {key}={value[0]}"
        if isinstance(value, bool) and _is("", wanted):
            hint = _quoted(key, value)
        shown = "null" if value is None else value
        return [f"`{key}={shown}` is {_name(type(value))}, want {_name(wanted)}{hint}"]
    if isinstance(value, Mapping):
        if name.endswith("columns") or name == "column_map":
            for part in map(str, value):
                at = f"{key}.{part}"
                if isinstance(value[part], bool):
                    return [f"`{at}={value[part]}` is no name of a column{_quoted(at, value[part])}"]
                if value[part] is None and name == "column_map":
                    return [f"`{at}=null` is no name of a column; leave {part} out where its column has its name"]
        parts = (check_value(f"{key}.{part}", value[part], Any) for part in map(str, value))
        columns = [*value.values()] if name == "column_map" else []
        if twice := [column for column in columns if columns.count(column) > 1]:
            return [f"`{key}={value}` names {twice[0]} twice; each column is one thing"]
        taken = [part for part in TAKEN if part in value] if name == "params" else []
        return [f"`{key}.{part}` is set by what asks the server; take it out" for part in taken] + [
            problem for of_part in parts for problem in of_part
        ]
    return [
        f"`{key}={value}`{problem}" if name != "api_key_env" else f"`{key}`{problem}"
        for problem in _faults(name, value)
    ]


def _quoted(key: str, value: bool) -> str:
    words = "on, yes and true" if value else "off, no and false"
    return f"; YAML reads {words} so. If it is a word, put it in quotes: {key}='\"{'on' if value else 'off'}\"'"


def _faults(name: str, value: Any) -> Iterator[str]:
    """Yield what is wrong with a value of the right type, by its name."""
    if isinstance(value, str) and name in FORMS:
        form, hint = FORMS[name]
        if not re.fullmatch(form, value):
            yield f" cannot be used; {hint}"
    elif isinstance(value, Sequence) and name in LIMITS:
        if len(value) != 2 or not all(_is(number, float) for number in value) or not value[0] <= value[1]:
            yield "; use two numbers, the least and the most"
    elif isinstance(value, Sequence) and name in DISTINCT and not isinstance(value, str):
        if twice := sorted({str(part) for part in value if list(value).count(part) > 1}):
            yield f" names {', '.join(twice)} twice"
    elif isinstance(value, float) and math.isnan(value):
        yield " is no number"
    elif isinstance(value, int | float) and name in ABOVE_ZERO:
        if not 0 < value <= ABOVE_ZERO[name]:
            yield f" is out of range; use a number above 0{_up_to(ABOVE_ZERO[name])}"
    elif isinstance(value, int | float) and name in RANGES:
        least, most = RANGES[name]
        if not least <= value <= most:
            yield f" is out of range; use {least:g}{_up_to(most) or ' or more'}"


def _up_to(most: float) -> str:
    return f" to {most:g}" if most < _ANY else ""


def is_for_yaml(wanted: Any) -> bool:
    """Return whether YAML can give a value of a type: no function and no class."""
    parts = get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    return any(part is not type(None) and get_origin(part) not in (Callable, type) for part in parts)


def _is(value: Any, wanted: Any) -> bool:
    """Return whether a value may be of a type; what is not understood may be."""
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if origin in (Union, types.UnionType):
        return any(_is(value, part) for part in arguments)
    if origin is Literal:
        return value in arguments
    if wanted in (None, type(None)):
        return value is None
    if wanted is bool:
        return isinstance(value, bool) or value in (0, 1)
    if wanted in (int, float):
        return isinstance(value, int if wanted is int else int | float) and not isinstance(value, bool)
    if wanted in (str, Path):
        return isinstance(value, str | Path)
    if not inspect.isclass(origin):
        return True
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if issubclass(origin, Sequence) or origin is set:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and (origin is tuple or all(_is(part, arg) for part in value for arg in arguments[:1]))
    return origin.__name__ != "Tensor"  # no YAML holds one


def _name(wanted: Any) -> str:
    """Return a type's name for people."""
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text", type(None): "null"}
    origin, arguments = get_origin(wanted) or wanted, get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_name, arguments)))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if wanted is None or wanted in names:
        return names[wanted or type(None)]
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a mapping"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        of = [_name(part) for part in arguments[:1] if get_origin(part) is Literal]
        return f"a list, each {of[0]}" if of else "a list"
    return getattr(wanted, "__name__", str(wanted))
