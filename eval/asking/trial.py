# SPDX-License-Identifier: MIT
"""Can a model answer with an option at all? A few couples tell, before it is asked hundreds of times.

A small model often answers a statement and its opposite alike, so that its mode ``choice`` is void whatever is asked.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data.recipe.files import write_json
from eval.asking.questions import to_questions
from eval.asking.respond import Questionnaire, answer_questions
from eval.asking.respondents import BASE, Respondent
from eval.asking.results import Row
from eval.statements.instruments import Instrument
from finetune.adapters.resident import AdaptedModel

TRIAL = "trial.json"  # beside results.jsonl


def ask_trial(
    cfg: DictConfig, model: AdaptedModel, questionnaire: Questionnaire, instrument: Instrument
) -> tuple[Instrument, list[Row]]:
    """Ask the base ``choice_trial`` political couples under the first template, in all orders and label sets.

    Returns the part of the instrument that was asked, and its rows; without couples in the instrument there are none.
    """
    couples = {item.id for item in instrument.items if item.twin and not set(item.weights) <= instrument.placebo}
    part = instrument.keep(couples)
    if not couples:
        return part, []
    part = part.sample(min(2 * cfg.choice_trial, len(couples)), cfg.seed)
    asked = {item.id for item in part.items}
    prompts = [prompt for prompt in questionnaire.interview.prompts["choice"] if prompt.row["item"] in asked]
    prompts = [prompt for prompt in prompts if prompt.row["template"] == prompts[0].row["template"]]
    with model.using(None) as decoder:
        questions = to_questions(prompts, questionnaire.tokenizers[None])
        return part, answer_questions(decoder, BASE, questions, cfg.max_tokens_per_forward)


def read_trial(folder: Path) -> dict[str, Any] | None:
    """Return the trial of an earlier process of a run; None where there was none."""
    path = folder / TRIAL
    return json.loads(path.read_text()) if path.is_file() else None


def write_trial(folder: Path, part: Instrument, flags: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep what a trial showed beside the rows, so that the run goes on as it began, and return it."""
    left_out = any(flag["state"] == "void" for flag in flags)
    trial = {"n_couples": len(part.items) // 2, "flags": flags, "left_out": left_out}
    write_json(folder / TRIAL, trial)
    return trial


def without_choice(respondents: list[Respondent]) -> list[Respondent]:
    """Leave ``choice`` out of what the resident model and its adapters are asked."""
    return [
        r if r.server is not None else r._replace(modes=tuple(mode for mode in r.modes if mode != "choice"))
        for r in respondents
    ]


def describe_trial(trial: dict[str, Any]) -> str:
    """Say in a line why the mode was left out."""
    reasons = "; ".join(flag["reason"] for flag in trial["flags"] if flag["state"] == "void")
    return (
        f"mode choice is left out: the base model does not read what it is asked ({reasons}; {trial['n_couples']} "
        "couples on trial). choice_trial=null asks it all the same"
    )
