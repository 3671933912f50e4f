# SPDX-License-Identifier: MIT
"""What judges said about a run's free text: counts, agreement, leans, and answers side by side."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.judging.panel import describe_panel
from eval.judges import Judge, why_not_believed
from eval.scores.answers import Row
from eval.scores.comparisons import compare
from eval.scores.resampling import false_discovery_rates
from eval.scores.scoring import Values, describe, item_means, rounded

# Judged examples that the report shows.
N_EXAMPLES = 6


def describe_judges(
    judged: Sequence[Row], judges: Sequence[Judge], names: Sequence[str], prompts: Mapping[tuple[str, str], str],
    n_bootstrap: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Return what the judges said, how far they agree, and examples side by side.

    Args:
        judged: Rows of :func:`judge_answers`.
        judges: Those that gave them.
        names: Models, the base first.
        prompts: Item and template to what was asked.
        n_bootstrap: Resamples of an interval.
        seed: Of the draws.

    Returns:
        ``judges`` (name to scale, counts, ``believed``, ``why_not``, ``kappa`` with people, and for the lean its mean
        by model and paired differences), ``panels`` (scale to agreement) and ``examples``.
    """
    found: dict[str, Any] = {"judges": {}, "panels": {}, "examples": _examples(judged, names, prompts)}
    for judge in judges:
        rows = [row for row in judged if row["judge"] == judge.name]
        unread = sum(row["judgement"]["label"] is None for row in rows)
        refused = sum(bool(row["refused"]) for row in rows)
        known = judge.validation or {}
        reason = why_not_believed(judge)
        found["judges"][judge.name] = {
            **{"kind": judge.kind, "scale": judge.scale.name, "n": len(rows), "unread": unread, "refused": refused},
            "believed": reason is None,
            "why_not": reason,
            **{key: known.get(key) for key in ("kappa", "macro_f1", "cue_swap")},
            **(_leans(rows, names) if judge.scale.name == "lean" else {}),
        }
    for scale in {judge.scale.name: judge.scale for judge in judges}.values():
        labels = {j.name: {_key(r): r["judgement"]["label"] for r in judged if r["judge"] == j.name} for j in judges
                  if j.scale.name == scale.name}  # fmt: skip
        keys = list(dict.fromkeys(key for of in labels.values() for key in of))
        panel = describe_panel({n: [of.get(k) for k in keys] for n, of in labels.items()}, scale, n_bootstrap, seed)
        if panel:
            found["panels"][scale.name] = panel
    return found


def _key(row: Row) -> tuple:
    return row["model"], row["item"], row["template"], row["sample"]


def _leans(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """Mean lean of each model, prompts as units, and every other model against the first, prompt by prompt."""
    values = {name: _lean_values([row for row in rows if row["model"] == name], rows) for name in names}
    base, *others = [name for name in names if any(row["model"] == name for row in rows)] or [None]
    compared = [{"a": base, "b": name, **compare(values[base], values[name])} for name in others]
    for test, q in zip(compared, false_discovery_rates([test["p"] for test in compared])):
        test["q"] = None if q is None else rounded(q)
    return {"leans": {name: describe(of) for name, of in values.items()}, "lean_differences": compared}


def _lean_values(rows: Sequence[Row], of_all: Sequence[Row]) -> Values:
    """Arrange leans by prompt, the same prompts for every model: items x templates, samples averaged."""
    items, templates = (sorted({row[key] for row in of_all}) for key in ("item", "template"))
    cells = np.full((len(items), len(templates), 1), np.nan)
    drawn = defaultdict(list)
    for row in rows:
        if row["lean"] is not None:
            drawn[items.index(row["item"]), templates.index(row["template"]), 0].append(row["lean"])
    for place, leans in drawn.items():
        cells[place] = np.mean(leans)
    means = item_means(cells)
    low, high = (np.where(np.isnan(means), end, means) for end in (0.0, 20.0))
    return Values(tuple(items), cells, None, low, high, np.array(items), 1.0, 0.0, (0.0, 20.0))


def _examples(judged: Sequence[Row], names: Sequence[str], prompts: Mapping[tuple[str, str], str]) -> list[dict]:
    """The prompts whose answers the judges set furthest apart, each model's first answer beside the others'."""
    by_prompt: dict[tuple, dict[str, dict]] = defaultdict(dict)
    values: dict[str, dict[tuple, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in judged:
        if row["sample"] != 0 or row["model"] not in names:
            continue
        key = row["item"], row["template"]
        answer = by_prompt[key].setdefault(row["model"], {"model": row["model"], "text": row["text"], "said": {}})
        answer["said"][row["judge"]] = row["judgement"]["label"]
        value = row["stance"] if row["lean"] is None else row["lean"]
        values[row["judge"]][key] += [] if value is None else [value]
    # in turn from the judges, so that each scale has its say
    apart = [
        sorted(of, key=lambda key, of=of: (min(of[key], default=0) - max(of[key], default=0), key))
        for of in values.values()
    ]
    most = [key for turn in itertools.zip_longest(*apart) for key in turn if key is not None]
    most = list(dict.fromkeys(most))[:N_EXAMPLES]
    return [
        {
            "item": key[0],
            "prompt": prompts.get(key, key[0]),
            "answers": [by_prompt[key][name] for name in names if name in by_prompt[key]],
        }
        for key in most
    ]
