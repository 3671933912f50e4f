# SPDX-License-Identifier: MIT
"""What ``politune_choice.yaml`` calls; needs nothing of lm-evaluation-harness itself."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from datasets import Dataset

from eval.scores.harness_scores import harness_prompts, harness_scores, logprob_row

METRICS = ("economic", "social", "placebo", "option_mass")


def documents(instrument: str, n_templates: int, n_orders: int, labels: Sequence[str], **_: Any) -> dict[str, Dataset]:
    """Return a document a prompt: ``text``, ``answers`` (in the instrument's order) and the ``row`` as JSON.

    Args:
        instrument: Name or path.
        n_templates: As in ``configs/political_compass.yaml``, and so the others.
        n_orders: Of the options.
        labels: Label sets.
        _: What else lm-evaluation-harness puts into the metadata.
    """
    prompts = harness_prompts("choice", instrument, n_templates, n_orders, labels)
    columns = {
        "text": [prompt.text for prompt in prompts],
        "answers": [list(prompt.answers) for prompt in prompts],
        "row": [json.dumps(prompt.row) for prompt in prompts],
    }
    return {"test": Dataset.from_dict(columns)}


def read_logprobs(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """Return the answered row under the name of every metric: each is computed from all rows."""
    return dict.fromkeys(METRICS, logprob_row(json.loads(doc["row"]), [logprob for logprob, _ in results]))


def _score(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return harness_scores(rows).get(name, float("nan"))  # with --limit an axis may have no item


economic, social, placebo, option_mass = (partial(_score, name=name) for name in METRICS)
