# SPDX-License-Identifier: MIT
"""Readings of written answers: a judge each for stance, coverage, hedging, and for the better of two mirrored answers.

::

    readings:
      stance: {_component_: eval.judges.trained_judge, folder: outputs/judge, validation: outputs/judge/validation.json}
      pair: {_component_: eval.judges.chat_judge, client: {…}, instructions: [pair, mine.txt]}

``instructions`` are wordings of one judge: each reads every answer, and what they make of it is compared as a factor.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data.judging.judges import Judge, Text
from data.judging.mirrored import MirroredAnswers, judge_pairs
from data.judging.scales import PAIR
from data.recipe.config import component
from eval.scores.scoring import Row
from eval.statements.banks import Bank, Issue
from eval.statements.prompts import Prompt
from eval.statements.requests import WRITE

READINGS = ("stance", "coverage", "hedging", "pair")


def read_readings(cfg: DictConfig | None) -> dict[str, dict[str, Any]]:
    """Return the judges of the key ``readings`` in the form of the key ``judges``: name to component.

    A reading's name is that of its scale; with ``instructions``, those after the first are ``SCALE: NAME``.

    Raises:
        ValueError: Lists every reading that is unknown, or has no component, or no instructions to choose from.
    """
    entries: Any = OmegaConf.to_container(cfg, resolve=True) if cfg else {}
    judges: dict[str, dict[str, Any]] = {}
    faults = []
    for scale, entry in entries.items():
        where = f"readings.{scale}"
        if scale not in READINGS:
            faults.append(f"{where}: use {', '.join(READINGS)}")
            continue
        if not isinstance(entry, Mapping) or "_component_" not in entry:
            faults.append(f"{where}: no judge; give _component_, as eval.judges.chat_judge, and its arguments")
            continue
        arguments = dict(entry)
        if arguments.setdefault("scale", scale) != scale:
            faults.append(f"{where}.scale={arguments['scale']}: a reading is on the scale of its name; leave it out")
        instructions = arguments.pop("instructions", None)
        if "scale" not in signature(component(str(entry["_component_"]))).parameters:
            del arguments["scale"]  # a trained judge has it from its folder
        if instructions is None:
            judges[scale] = arguments
        elif not isinstance(instructions, list) or len(instructions) < 2 or "instruction" in arguments:
            faults.append(f"{where}.instructions={instructions}: give two or more, and no instruction beside them")
        elif len({Path(str(name)).stem for name in instructions}) < len(instructions):
            faults.append(f"{where}.instructions={instructions}: give files of different names, which tell them apart")
        else:
            for k, name in enumerate(map(str, instructions)):
                judges[f"{scale}: {Path(name).stem}" if k else scale] = {**arguments, "instruction": name}
    if faults:
        raise ValueError("readings were refused:\n  - " + "\n  - ".join(faults))
    return judges


def check_readings(judges: Sequence[Judge]) -> None:
    """Refuse a judge whose own scale, as that of a trained one, is not the reading's."""
    for judge in judges:
        if judge.scale.name != judge.name.partition(":")[0]:
            raise ValueError(f"readings.{judge.name}: this judge reads {judge.scale.name}; name it so")


def read_answers(
    rows: Sequence[Row], judges: Sequence[Judge], bank: Bank, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Return a row for each written answer and judge, and for each two mirrored answers and judge of pairs.

    A row has ``judge``, ``scale``, ``target`` and ``judgement``; of two answers it has ``better`` (a side, ``tie`` or
    None) and ``follows_order`` instead of the last.
    """
    written = [row for row in rows if row["mode"] == WRITE and row["text"]]
    issues = {issue.id: issue for issue in bank.issues}
    written = [row for row in written if row["issue"] in issues]
    asked = {(prompt.row["item"], prompt.row["template"]) for prompt in prompts}
    if lost := sorted({row["template"] for row in written if (row["item"], row["template"]) not in asked}):
        raise ValueError(
            f"rows: requests in {', '.join(lost[:5])} are not asked by this config; give n_write_templates, factors, "
            "factor_cells and seed as that run had them"
        )
    judged: list[dict[str, Any]] = []
    for judge in judges:
        scale = judge.scale.name
        if scale == PAIR.name:
            judged += _read_pairs(written, judge, bank, issues, prompts)
            continue
        targets = [issues[row["issue"]].target if scale == "stance" else "" for row in written]
        texts = [Text(row["text"], target) for row, target in zip(written, targets)]
        judged += [
            {**row, "judge": judge.name, "scale": scale, "target": text.target, "judgement": given._asdict()}
            for row, text, given in zip(written, texts, judge.ask(texts), strict=True)
        ]
    return judged


def _read_pairs(
    written: Sequence[Row], judge: Judge, bank: Bank, issues: Mapping[str, Issue], prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Judge every two answers of one model to requests that differ in the side alone."""
    asked = {(p.row["item"], p.row["template"]): p.text or "" for p in prompts}
    answers: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in written:
        answers.setdefault((row["model"], row["issue"], row["template"], row["sample"]), {})[row["side"]] = row
    both = [(of[bank.sides[0]], of[bank.sides[1]]) for of in answers.values() if {*bank.sides} <= {*of}]

    def request(row: Row) -> str:
        return asked[row["item"], row["template"]]

    pairs = [MirroredAnswers(request(a), a["text"], request(b), b["text"]) for a, b in both]
    side = {"a": bank.sides[0], "b": bank.sides[1], "tie": "tie", None: None}
    keys = ("model", "mode", "issue", "topic", "template", "levels", "sample")
    return [
        {
            **{key: a[key] for key in keys},
            "judge": judge.name,
            "scale": PAIR.name,
            "better": side[preference.better],
            "follows_order": preference.follows_order,
            "said": list(preference.labels),
        }
        for (a, _), preference in zip(both, judge_pairs(judge, pairs), strict=True)
    ]
