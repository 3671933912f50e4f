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

from data.pairs.records import ABOUT, read_answers
from data.pairs.rows import SHIPPED_SET, load_rows
from data.pairs.tokens import Continuation
from data.quality.contamination import SOURCE_KEYS
from data.recipe.config import component
from finetune.run.batches import PairBatches, PairSet


class Recorded(NamedTuple):
    """The preference sets of one adapter, each as a reader takes it, and why some or all of them are not known."""

    sources: list[dict[str, Any]]
    unknown: list[str]


def recorded_data(folder: str | Path) -> Recorded:
    """Return the sets that an adapter of ours, or each adapter of a blend, was trained on, with ``where`` if parts."""
    sources: list[dict[str, Any]] = []
    unknown: list[str] = []
    configs = _configs(folder)
    for config in configs:
        for part in config.parts:
            found = list(_sources(part))
            sources += [source for source in found if source not in sources]
            if not found:
                named = part.get("_component_") if isinstance(part, dict) else part
                unknown.append(f"{named} is no builder of data.datasets")
    return Recorded(sources, unknown if configs else ["its card has no config of a training"])


def set_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names the set of a source, without which of its rows were trained on."""
    return {key: value for key, value in source.items() if key not in ("where", "hold_out", "rows")}


class _Config(NamedTuple):
    """A config in an adapter's card, and what the card says above it."""

    settings: dict[str, Any]
    above: str

    @property
    def parts(self) -> list[Any]:
        """The data sets that it names, of which the training took one after the other."""
        node = self.settings["dataset"]
        return node if isinstance(node, list) else [node]

    def taken(self, n_pairs: int) -> set[int] | None:
        """Return which of the pairs its optimizer steps took; None if the card does not tell them."""
        said = re.findall(r"\((\d+) pairs from .*\n- optimizer steps: (\d+)$", self.above, re.MULTILINE)
        if not said or int(said[-1][0]) != n_pairs:
            return None  # pairs that were too long, or held out, have another place in the order
        if said[-1][1] == "0":  # a steering vector, which is made of all pairs
            return {*range(n_pairs)}
        if not {"seed", "batch_size", "shuffle"} <= {*self.settings} or self.settings["seed"] is None:
            return None
        given, nothing = self.settings, Continuation([], [])
        per_step = given["batch_size"] * given.get("gradient_accumulation_steps", 1)
        pairs = PairSet([(nothing, nothing)] * n_pairs, [], "")
        batches = PairBatches(pairs, per_step, given["seed"], given["shuffle"], given.get("max_steps_per_epoch"))
        places = (divmod(step, batches.steps_per_epoch) for step in range(int(said[-1][1])))
        return {index for place in places for index in batches.rows(*place)}


def _configs(folder: str | Path) -> list[_Config]:
    """Return every config in an adapter's card that has a ``dataset``."""
    card = Path(folder) / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    configs, end = [], 0
    for block in re.finditer(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        above, end = text[end : block.start()], block.end()
        try:
            configs.append(_Config(yaml.safe_load(block[1]), above))
        except yaml.YAMLError:
            continue
    return [config for config in configs if isinstance(config.settings, dict) and config.settings.get("dataset")]


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
    for spec in (given, given.get("left"), given.get("right")):
        if isinstance(spec, Mapping) and isinstance(spec.get("source"), str):
            source = {key: spec[key] for key in (*SOURCE_KEYS, "where") if spec.get(key) is not None}
            if given.get("read") is read_answers:
                columns = spec.get("column_map") or {}
                source["column_map"] = {
                    "prompt": columns.get("prompt", "prompt"), "chosen": columns.get("completion", "completion"),
                    **{name: columns[name] for name in ABOUT if name in columns},
                }  # fmt: skip
            if spec["source"] == SHIPPED_SET:  # the columns of both answers are known
                source.pop("column_map", None)
                shipped = Path(str(files("data").joinpath("mirrored", "pairs.jsonl")))
                is_here = Path(SHIPPED_SET).resolve() == shipped.resolve()
                source["source"] = SHIPPED_SET if is_here else str(shipped)
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


class Training(NamedTuple):
    """What the trainings of an adapter read.

    ``answers`` are those of all pairs that were drawn, also where no step took them. ``sources`` are the sets of
    :func:`recorded_data`, each with the numbers of the ``rows`` that were taken, from 1; ``note`` says where these are
    more than the trainings took.
    """

    answers: Answers
    sources: list[dict[str, Any]]
    note: str | None


def recorded_training(folder: str | Path) -> Training | None:
    """Return what an adapter of ours was trained on, by its card: the pairs are drawn again as its run drew them.

    ``where``, ``hold_out`` and ``subset`` are applied. Rows that no optimizer step took are left out of ``sources``
    (``max_steps_per_epoch``, a checkpoint), their answers are not; a steering vector takes all. Of pairs that a
    training left out since they were too long, or as ``validation_share``, the answers are there, and the rows that its
    steps took cannot be told from the others. None where a builder is not of ``data.datasets``, or the card says
    nothing.

    Raises:
        OSError, ValueError: If a set cannot be read from here.
    """
    answers: dict[str, list[str]] = {"chosen": [], "rejected": []}
    sources: list[dict[str, Any]] = []
    notes: list[str] = []
    for config in (configs := _configs(folder)):
        drawn: list[tuple[list[dict[str, Any]], list[int]]] = []
        for part in config.parts:
            if not isinstance(part, dict) or not (found := list(_sources(part))):
                return None
            given = {k: v for k, v in part.items() if k[0] != "_" and k not in ("max_seq_len", "prompt_template")}
            texts = _Texts()
            built = component(part["_component_"])(texts, **given)
            for item in (built[k] for k in range(len(built))):
                for side, (ids, _) in built.fields.items():
                    # 0 is a row without this answer
                    if (place := item[ids][-1]) and (side == "chosen" or _reads_rejected(config.settings)):
                        answers[side].append(texts.answers[place])
            drawn.append((found, built.rows))
        n_pairs = sum(len(rows) for _, rows in drawn)
        taken = config.taken(n_pairs)
        if taken is None:
            notes.append(f"which of {n_pairs} pairs its steps took is not known; all of them count as argued")
        sources += _with_rows(drawn, taken)
    return Training(Answers(**answers), sources, "; ".join(notes) or None) if configs else None


def _with_rows(
    drawn: Sequence[tuple[list[dict[str, Any]], list[int]]], taken: set[int] | None
) -> Iterator[dict[str, Any]]:
    """Yield each set with the numbers of its rows, of those pairs alone that are taken if they are known."""
    n_before = 0
    for sources, rows in drawn:
        kept = [row for place, row in enumerate(rows, start=n_before) if taken is None or place in taken]
        n_before += len(rows)
        first = 1  # of a builder of two files, the rows of the second are numbered on
        for source in sources:
            spec = set_of(source)
            reader = {key: value for key, value in spec.items() if key != "column_map"}
            end = first + len(load_rows(**reader)[0]) if len(sources) > 1 else max(rows) + 1
            yield {**spec, "rows": sorted({row - first + 1 for row in kept if first <= row < end})}
            first = end
