# SPDX-License-Identifier: MIT
"""Judges of free text: behind a URL, recorded, or trained on labels (a resident model: ``eval/resident_judge.py``).

Recorded answers are those of a language model, word by word, or people's labels: a person is one more rater.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.numpy import load as load_weights
from torchtune import config

from data.chat.cache import find_confusions
from data.judging.judges import Judge, Judgement, Text, ask_client, make_judge, read_labels
from data.judging.scales import load_scale
from data.judging.trained import Embed, Head, Setting, embed_texts
from data.recipe.config import check_config
from finetune.adapters.folders import fingerprint, tokenizer_fingerprint


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


def trained_judge(name: str, folder: str, encoder: DictConfig | None = None, validation: str | None = None) -> Judge:
    """Build the judge that ``eval/train_judge.py`` has fitted: a linear head on a frozen sentence encoder, no API.

    It loads when it is first asked. Its raw answer is the log-probability of each label in nats.

    Args:
        name: Its name in files and in the report.
        folder: ``output_dir`` of ``eval/train_judge.py``.
        encoder: Component of the encoder, if its files lie elsewhere now; another encoder is refused.
        validation: ``validation.json`` in ``folder``, or one that ``eval/validate_judge.py`` wrote about it.
    """
    path = Path(folder) / "judge.json"
    if not path.is_file():
        raise FileNotFoundError(f"judge {name}: {path} not found; fit one with eval/train_judge.py")
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    head_file = (Path(folder) / "head.safetensors").read_bytes()
    judge_scale, setting = load_scale(known["scale"]), Setting(**known["setting"])
    if tuple(known["classes"]) != judge_scale.classes:
        raise ValueError(
            f"judge {name}: its classes {known['classes']} are no longer those of {known['scale']}; fit anew"
        )
    component: Any = known["encoder"] if encoder is None else OmegaConf.to_container(OmegaConf.create(encoder))
    if encoder_identity(component) != known["encoder_identity"]:
        raise ValueError(
            f"judge {name}: the encoder {component} is not the one that it was fitted on; name the folder of that one"
        )

    @cache
    def load() -> tuple[Embed, Head]:
        weights = load_weights(head_file)
        return config.instantiate(OmegaConf.create(component)), Head(weights["weights"], weights["bias"])

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        if not texts:
            return
        embed, head = load()
        for row in head.log_probabilities(embed_texts(embed, texts).form(setting.form)):
            logprobs = dict(zip(judge_scale.classes, map(float, row)))
            yield Judgement(max(logprobs, key=logprobs.__getitem__), logprobs, None, folder)

    about = {
        "head": hashlib.sha256(head_file).hexdigest(),
        "encoder": known["encoder_identity"],
        "setting": known["setting"],
    }
    return make_judge(name, "trained", judge_scale, ask, about, validation)


def encoder_identity(component: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells an encoder from another: its arguments, and hashes of model and tokenizer for its folder."""
    arguments = dict(component)
    folder = arguments.pop("folder", None)
    for argument in ("device", "batch_size"):  # change no vector but for rounding
        arguments.pop(argument, None)
    if folder is None:
        return arguments
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"the encoder's folder {folder} is not there; name it with encoder.folder=PATH")
    return {**arguments, "model": fingerprint(folder), "tokenizer": tokenizer_fingerprint(folder)}
