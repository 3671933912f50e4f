# SPDX-License-Identifier: MIT
"""The data that an adapter was trained on, by the record that its run left in the adapter's card."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torchtune.data import Message

from data import datasets
from data.pairs.records import read_answers
from data.quality.contamination import SOURCE_KEYS
from data.recipe.config import component


class Recorded(NamedTuple):
    """The preference sets of one adapter, each as a reader takes it, and why some or all of them are not known."""

    sources: list[dict[str, Any]]
    unknown: list[str]


def recorded_data(folder: str | Path) -> Recorded:
    """Return the sets that an adapter of ours, or each adapter of a blend, was trained on, with ``where`` if parts."""
    sources: list[dict[str, Any]] = []
    unknown: list[str] = []
    configs = _configs(folder)
    for node in (config["dataset"] for config in configs):
        for part in node if isinstance(node, list) else [node]:
            found = list(_sources(part))
            sources += [source for source in found if source not in sources]
            if not found:
                named = part.get("_component_") if isinstance(part, dict) else part
                unknown.append(f"{named} is no builder of data.datasets")
    return Recorded(sources, unknown if configs else ["its card has no config of a training"])


def _configs(folder: str | Path) -> list[dict[str, Any]]:
    """Return every config in an adapter's card that has a ``dataset``."""
    card = Path(folder) / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    configs = []
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        try:
            configs.append(yaml.safe_load(block))
        except yaml.YAMLError:
            continue
    return [config for config in configs if isinstance(config, dict) and config.get("dataset")]


def _reads_rejected(config: Mapping[str, Any]) -> bool:
    """Say whether a training's loss reads rejected answers; one that is not to be had here is taken to."""
    try:
        return not getattr(component(config["loss"]["_component_"]), "chosen_only", False)
    except Exception:  # whatever an import of somebody's module raises, or no loss
        return True


def _sources(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the sets that a ``dataset`` of a config reads, if its builder is one of ours."""
    try:
        builder = functools.partial(component(node["_component_"]), **{k: v for k, v in node.items() if k[0] != "_"})
    except Exception:  # whatever an import of somebody's module raises, or a node that is none
        return
    given: Mapping[str, Any] = builder.keywords
    part = {"where": given["where"]} if given.get("where") else {}
    if builder.func is datasets._shipped_pairs:
        shipped = files("data").joinpath("mirrored", "pairs.jsonl")
        yield {"source": datasets.SHIPPED_SET if Path(datasets.SHIPPED_SET).is_file() else str(shipped), **part}
    for spec in (given, given.get("left"), given.get("right")):
        if isinstance(spec, Mapping) and isinstance(spec.get("source"), str):
            source = {key: spec[key] for key in (*SOURCE_KEYS, "where") if spec.get(key) is not None}
            if given.get("read") is read_answers:
                columns = spec.get("column_map") or {}
                source["column_map"] = {
                    "prompt": columns.get("prompt", "prompt"), "chosen": columns.get("completion", "completion"),
                }  # fmt: skip
            yield source


class Answers(NamedTuple):
    """The answers that a training preferred and dispreferred; a supervised one has none of the latter."""

    chosen: list[str]
    rejected: list[str]


class _Texts:
    """Stands in for a tokenizer, and notes the texts that it is given: what a training reads, without its model."""

    max_seq_len = None

    def __init__(self) -> None:
        self.answers = [""]

    def tokenize_messages(self, messages: Sequence[Message], add_end_tokens: bool = True) -> tuple[list[int], list]:
        """Note the last message, and return its place after a 0 for all others."""
        self.answers.append(messages[-1].text_content)
        return [0, len(self.answers) - 1], [True, False]


def recorded_answers(folder: str | Path) -> Answers | None:
    """Return the answers that an adapter of ours was trained on, by its card, every ``where`` and ``subset`` applied.

    None where a builder is not of ``data.datasets``, or the card says nothing. Of pairs that a training left out since
    they were too long, the answers are there.

    Raises:
        OSError, ValueError: If a set cannot be read from here.
    """
    answers: dict[str, list[str]] = {"chosen": [], "rejected": []}
    for config in (configs := _configs(folder)):
        node = config["dataset"]
        for part in node if isinstance(node, list) else [node]:
            if not isinstance(part, dict) or not list(_sources(part)):
                return None
            given = {k: v for k, v in part.items() if k[0] != "_" and k not in ("max_seq_len", "prompt_template")}
            texts = _Texts()
            built = component(part["_component_"])(texts, **given)
            for item in (built[k] for k in range(len(built))):
                for side, (ids, _) in built.fields.items():
                    # 0 is a row without this answer
                    if (place := item[ids][-1]) and (side == "chosen" or _reads_rejected(config)):
                        answers[side].append(texts.answers[place])
    return Answers(**answers) if configs else None
