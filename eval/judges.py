# SPDX-License-Identifier: MIT
"""Judges of free text: a model behind a URL, or recorded answers (a resident model: ``eval/resident_judge.py``).

Recorded answers are those of a language model, word by word, or people's labels: a person is one more rater.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import config

from data.chat.cache import find_confusions
from data.judging.judges import Judge, Judgement, Text, ask_client, make_judge, read_labels
from data.judging.scales import load_scale
from data.recipe.config import check_config


def build_judges(cfg: DictConfig) -> list[Judge]:
    """Build the judges of a config: name to component; a ValueError lists all that is wrong with them."""
    entries: Any = OmegaConf.to_container(cfg, resolve=True)  # alone: ${...} may point outside it
    clients = {f"judges.{name}": (entry or {}).get("client") or {} for name, entry in entries.items()}
    if faults := find_confusions(clients):
        raise ValueError("; ".join(faults))
    cfg = check_config(OmegaConf.create(entries), set(entries), {})
    return [config.instantiate(entry, name=name) for name, entry in cfg.items()]


def chat_judge(
    name: str, client: DictConfig, scale: str = "stance", instruction: str | None = None, validation: str | None = None
) -> Judge:
    """Build a judge that is asked through ``data.chat.ChatClient``: retries, a cache, replay without a server.

    Args:
        name: Its name in files and in the report.
        client: Component of the client.
        scale: ``stance`` or ``lean``.
        instruction: Path of a text of your own; null takes the scale's.
        validation: ``validation.json`` that ``eval/validate_judge.py`` wrote about it.
    """
    judge_scale = load_scale(scale, instruction)
    chat_client = config.instantiate(OmegaConf.create(client))

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        requests = (judge_scale.request(*text) for text in texts)
        return ask_client(chat_client, requests, len(texts), f"judge {name}")

    about = {"model": chat_client.model, "params": chat_client.params}
    return make_judge(name, "chat", judge_scale, ask, about, validation)


def recorded_judge(
    name: str,
    source: str,
    column: str,
    scale: str = "stance",
    text_column: str = "text",
    target_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
    validation: str | None = None,
) -> Judge:
    """Build a rater whose answers lie in a file: a model's, word by word, or a person's labels.

    A missing column, and a text with two answers, are ValueErrors.

    Args:
        name: Its name in files and in the report.
        source: CSV, TSV, JSONL or parquet file.
        column: Holds the answers; ``judges/gpt`` is the field ``gpt`` of the column ``judges``.
        scale: ``stance`` or ``lean``.
        text_column: Holds the judged texts; an answer is found by its text.
        target_column: Holds what a text is about, where one text is judged on several subjects; null: no such column.
        label_map: Answers as the file has them to labels of the scale, such as ``{"5 - only con": "5"}``.
        validation: ``validation.json`` that ``eval/validate_judge.py`` wrote about it.
    """
    judge_scale = load_scale(scale)
    answers = read_labels(source, column, text_column, target_column)
    mapped = {str(key): str(value) for key, value in (label_map or {}).items()}

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        for text in texts:
            raw = answers.get(text if target_column else text._replace(target=""))
            if raw is None:
                yield Judgement(None, None, f"unanswered: {source} has no answer for this text", name)
                continue
            try:
                yield Judgement(judge_scale.read(mapped.get(raw.strip(), raw)), raw, None, name)
            except ValueError as error:
                yield Judgement(None, raw, f"unreadable: {error}", name)

    columns = {"column": column, "text_column": text_column, "target_column": target_column}
    about = {"file": hashlib.sha256(Path(source).read_bytes()).hexdigest(), **columns, "label_map": mapped}
    return make_judge(name, "recorded", judge_scale, ask, about, validation)
