# SPDX-License-Identifier: MIT
"""The plug-ins for other harnesses share our prompts, and our coordinates of whatever was answered."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from eval.scores.scoring import axis_values, collect_answers, describe
from eval.statements.instruments import load_instrument
from eval.statements.prompts import Prompt, choice_prompts, generate_prompts, load_templates

_load = cache(load_instrument)


def harness_prompts(
    mode: str, instrument: str, n_templates: int, n_orders: int, labels: Sequence[str], n_samples: int = 1
) -> list[Prompt]:
    """Return the prompts of ``choice`` or ``generate``, whose rows name the instrument's file too."""
    loaded = _load(instrument)
    size = (loaded, load_templates(loaded.language), n_templates, n_orders, list(labels))
    prompts = choice_prompts(*size) if mode == "choice" else generate_prompts(*size, n_samples)
    return [prompt._replace(row=prompt.row | {"file": instrument}) for prompt in prompts]


def logprob_row(asked: Mapping[str, Any], logprobs: Sequence[float | None] | None) -> dict[str, Any]:
    """Return a row of ``results.jsonl``, as far as scoring reads it; an option without one counts as 0."""
    listed = {k: x for k, x in enumerate(logprobs or ()) if x is not None}
    return {
        **asked,
        "option_logprobs": list(logprobs or ()) if listed else None,
        "option_mass": sum(map(math.exp, listed.values())) if listed else None,
        "choice": max(listed, key=listed.__getitem__) if listed else None,
    }


def harness_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the coordinate on every axis that was asked, and what share was answered.

    Where options have log-probabilities, ``option_mass`` is the mean probability of all options together. A coordinate
    is nan where nothing was answered; ``tune run eval/political_compass.py`` gives intervals and bounds beside it.
    """
    instrument = _load(rows[0]["file"])
    answers = collect_answers(rows, instrument)
    scores = {"answered": sum(row["choice"] is not None for row in rows) / len(rows)}
    masses = [row["option_mass"] for row in rows if row["option_mass"] is not None]
    if masses:
        scores["option_mass"] = sum(masses) / len(masses)
    for axis in instrument.axes:
        if any(axis in item.weights for item in answers.items):
            estimate = describe(axis_values(answers, instrument, axis))["estimate"]
            scores[axis] = math.nan if estimate is None else estimate
    return scores
