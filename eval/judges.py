# SPDX-License-Identifier: MIT
"""Judges of free text: a model behind a URL, or recorded answers (a resident model: ``eval/resident_judge.py``).

Recorded answers are those of a language model, word by word, or people's labels: a person is one more rater. What a
judge is asked and how its answer is read is the scale's (``data/judging/scales.py``). An answer that cannot be read is
a counted problem, never a guess.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from torchtune import config

from data.chat import ChatClient, Failure
from data.chat.cache import find_confusions
from data.judging.instructions import load_instruction
from data.judging.labelled_texts import Text, read_labels
from data.judging.scales import JudgeScale, load_scale
from data.recipe.config import check_config

log = logging.getLogger(__name__)


class Judgement(NamedTuple):
    """What a judge said about one text.

    Attributes:
        label: One of the scale's labels, or None.
        raw: What it wrote, or for a resident model the log-probability of each label in nats.
        problem: Why there is no label; None if there is one.
        model: Name and revision of the model, as far as they are known.
    """

    label: str | None
    raw: Any
    problem: str | None
    model: str


class Judge(NamedTuple):
    """A rater of texts.

    Attributes:
        name: What files and report call it.
        kind: ``chat``, ``resident`` or ``recorded``; what is recorded has nothing to say about other texts.
        scale: What it is asked.
        ask: From texts to judgements, in their order.
        about: Everything that its judgements depend on: a validation holds for this judge alone.
        validation: What ``eval/validate_judge.py`` found about it; None if nobody has looked.
    """

    name: str
    kind: str
    scale: JudgeScale
    ask: Callable[[Sequence[Text]], Iterator[Judgement]]
    about: Mapping[str, Any]
    validation: Mapping[str, Any] | None

    @property
    def identity(self) -> str:
        """SHA-256 of ``about``."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()


def build_judges(cfg: DictConfig) -> list[Judge]:
    """Build the judges of a config: name to component.

    Raises:
        ValueError: If a component does not exist or is given an argument that it does not take, or two judges would
            share replies; lists all of them.
    """
    entries = OmegaConf.to_container(cfg, resolve=True)  # alone: ${...} may point outside it
    if faults := find_confusions(
        {f"judges.{name}": (entry or {}).get("client") or {} for name, entry in entries.items()}
    ):
        raise ValueError("; ".join(faults))
    cfg = OmegaConf.create(entries)
    return [config.instantiate(entry, name=name) for name, entry in check_config(cfg, set(cfg), {}).items()]


def chat_judge(
    name: str, client: DictConfig, scale: str = "stance", instruction: str | None = None, validation: str | None = None
) -> Judge:
    """Build a judge that is asked through ``data.chat.ChatClient``: retries, a cache, replay without a server.

    Args:
        name: What files and report call it.
        client: Component of the client.
        scale: ``stance`` or ``lean``.
        instruction: Path of a text of your own; null takes the scale's.
        validation: ``validation.json`` that ``eval/validate_judge.py`` wrote about it.
    """
    of_scale = load_scale(scale, instruction)
    speaker: ChatClient = config.instantiate(OmegaConf.create(client))

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        requests = (of_scale.request(*text) for text in texts)
        for _, result in speaker.chat_many(requests, len(texts), f"judge {name}"):
            if isinstance(result, Failure):
                yield Judgement(None, None, f"{result.kind}: {result.reason}", speaker.model)
            else:
                yield Judgement(result.parsed, result.text, None, result.model)

    return make_judge(name, "chat", of_scale, ask, {"model": speaker.model, "params": speaker.params}, validation)


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

    Args:
        name: What files and report call it.
        source: CSV, TSV, JSONL or parquet file.
        column: Holds the answers; ``judges/gpt`` is the field ``gpt`` of the column ``judges``.
        scale: ``stance`` or ``lean``.
        text_column: Holds the judged texts; an answer is found by its text.
        target_column: Holds what a text is about, where one text is judged on several subjects; null: no such column.
        label_map: Answers as the file has them to labels of the scale, such as ``{"5 - only con": "5"}``.
        validation: ``validation.json`` that ``eval/validate_judge.py`` wrote about it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, or one text has two answers.
    """
    of_scale = load_scale(scale)
    answers = read_labels(source, column, text_column, target_column)
    mapped = {str(key): str(value) for key, value in (label_map or {}).items()}

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        for text in texts:
            raw = answers.get(text if target_column else text._replace(target=""))
            if raw is None:
                yield Judgement(None, None, f"unanswered: {source} has no answer for this text", name)
                continue
            try:
                yield Judgement(of_scale.read(mapped.get(raw.strip(), raw)), raw, None, name)
            except ValueError as error:
                yield Judgement(None, raw, f"unreadable: {error}", name)

    columns = {"column": column, "text_column": text_column, "target_column": target_column}
    about = {"file": hashlib.sha256(Path(source).read_bytes()).hexdigest(), **columns, "label_map": mapped}
    return make_judge(name, "recorded", of_scale, ask, about, validation)


def make_judge(
    name: str, kind: str, scale: JudgeScale, ask: Any, about: Mapping[str, Any], validation: str | None
) -> Judge:
    """Name a judge by everything that its judgements depend on, and find what is known about that one."""
    told = load_instruction(scale.instruction).sha256 if kind != "recorded" else None
    about = {"kind": kind, "scale": scale.name, "labels": scale.labels, "instruction": told, **about}
    judge = Judge(name, kind, scale, ask, json.loads(json.dumps(about, default=str)), None)
    if validation is None:
        return judge
    if not Path(validation).is_file():
        raise FileNotFoundError(
            f"judge {name}: validation={validation} not found from {Path.cwd()}; "
            "run eval/validate_judge.py first, or use null"
        )
    known = json.loads(Path(validation).read_text(encoding="utf-8"))["judges"]
    found = next((entry for entry in known.values() if entry["identity"] == judge.identity), None)
    if found is None:
        others = "; ".join(f"{other}: {_differences(judge.about, entry)}" for other, entry in known.items())
        log.warning("judge %s is not validated: %s is about other judges (%s)", name, validation, others)
    return judge._replace(validation=found)


def _differences(about: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Say in what a judge differs from one that was validated."""
    there = entry.get("about")
    if there is None:
        return "it does not say of what"
    differ = [key for key in sorted({*about, *there}) if about.get(key) != there.get(key)]
    return ", ".join(f"{key} is {about.get(key)!s:.80}, there {there.get(key)!s:.80}" for key in differ)


def why_not_believed(judge: Judge) -> str | None:
    """Return why a judge is not to be believed, or None."""
    if judge.validation is None:
        return "the judge was not validated on texts that people have labelled (eval/validate_judge.py)"
    if judge.validation["believed"]:
        return None
    kappa = judge.validation["kappa"]
    low = "unknown" if kappa["ci95"] is None else f"{kappa['ci95'][0]:.2f} to {kappa['ci95'][1]:.2f}"
    floor = judge.validation["min_kappa"]
    return f"the judge agrees too little with people: kappa {kappa['estimate']:.2f} ({low}), floor {floor:g}"
