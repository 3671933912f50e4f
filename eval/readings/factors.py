# SPDX-License-Identifier: MIT
"""Main effects of the factors of requests, and of the wordings of a judge, with Holm's correction."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.readings.outcomes import Outcome, values_of
from eval.scores.comparisons import describe_change
from eval.scores.intervals import add_holm
from eval.scores.scoring import Row
from eval.statements.banks import LEANS, SIDES, Bank


def describe_factors(
    outcomes: Sequence[tuple[Outcome, Sequence[Row]]], like: Sequence[Row], names: Sequence[str], bank: Bank
) -> list[dict[str, Any]]:
    """Return the main effect of every factor on every outcome of every model: on less off, over all wordings.

    In each issue and template every factor is on in half of the answers and balanced with every other, so the effect is
    that of the factor alone. A judge's further instruction is a factor too: what it reads less what the first reads of
    the same answers. ``p_holm`` is corrected over all of them (Holm 1979, Scandinavian Journal of Statistics 6(2)).
    """
    factors = list(dict.fromkeys(name for row in like for name in row["levels"]))
    found: list[dict[str, Any]] = []
    first = {outcome.name: (outcome, rows) for outcome, rows in outcomes}
    for outcome, rows in outcomes:
        name, _, wording = outcome.name.partition(", ")
        for model in names:
            of_model = [row for row in rows if row["model"] == model and _counts(row, outcome)]
            for factor in factors if not wording else ():
                off, on = ([row for row in of_model if row["levels"][factor] == level] for level in (False, True))
                found.append(_effect(model, factor, outcome, off, on, like, bank))
            if wording:
                base, base_rows = first[name]
                before = [row for row in base_rows if row["model"] == model and _counts(row, base)]
                factor = f"judge's instruction: {wording}"
                found.append(_effect(model, factor, base, before, of_model, like, bank, outcome))
    add_holm(found)
    return found


def _effect(
    model: str,
    factor: str,
    outcome: Outcome,
    off: Sequence[Row],
    on: Sequence[Row],
    like: Sequence[Row],
    bank: Bank,
    outcome_on: Outcome | None = None,
) -> dict[str, Any]:
    a, b = values_of(off, outcome, like, bank), values_of(on, outcome_on or outcome, like, bank)
    change = describe_change(a, b.cells - a.cells)
    levels = {"off": _mean(a.cells), "on": _mean(b.cells)}
    return {"model": model, "outcome": outcome.name, "factor": factor, **levels, **change}


def _counts(row: Row, outcome: Outcome) -> bool:
    """Say whether a request can have an outcome: a neutral one takes no side that could be supported."""
    return not outcome.is_of_sides or row["side"] in (*SIDES, *LEANS)


def _mean(cells: np.ndarray) -> float | None:
    return None if np.isnan(cells).all() else round(float(np.nanmean(cells)), 6)
