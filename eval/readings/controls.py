# SPDX-License-Identifier: MIT
"""Controls of a lean in mode ``pairs``: the null of trainings whose sides mean nothing, and groups whose side is known.

The null is a study whose runs had the side of every pair drawn (``configs/studies/shuffled_sides.yaml``), so what
separates them, or moves them from the base, is not a lean. A group whose side is known must stand on it; where one does
not, what the instrument shows of this model is not validated.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from data.recipe.figures import interval, number
from eval.scores.endpoint import read_primary
from eval.scores.evidence import ALL
from eval.scores.intervals import rounded
from eval.statements.instruments import Instrument

# With fewer seeds nothing is called a null.
LEAST_SEEDS = 5


class Null(NamedTuple):
    """Changes under sides that were drawn, of each subset of the pairs: between two runs, and from the base.

    ``n_items`` and ``pairs``: of how many pairs a subset was, and the hash of which, in each contrast; None where the
    study does not say it.
    """

    n_seeds: int
    between: Mapping[str, Sequence[float]]
    from_base: Mapping[str, Sequence[float]]
    base_sha256: str | None
    n_items: Mapping[str, set[int | None]] = {}
    pairs: Mapping[str, set[str | None]] = {}

    def range95(self, subset: str, is_from_base: bool, n_new: int = 1) -> list[float] | None:
        """Return where 19 of 20 mean changes of ``n_new`` further seeds are expected; None if the subset was not asked.

        Which of two runs is called the second is arbitrary, so between them the mean is 0. From the base all runs may
        have moved alike. Two runs of a seed are not two draws, so the seeds are counted, not the runs.
        """
        changes = np.array((self.from_base if is_from_base else self.between).get(subset, ()))
        if not len(changes):
            return None
        if not is_from_base:
            half = float(special.stdtrit(self.n_seeds, 0.975) * np.sqrt(np.mean(changes**2) / n_new))
            return [-half, half]
        spread = np.std(changes, ddof=1) * np.sqrt(1 / n_new + 1 / self.n_seeds)
        half, mean = float(special.stdtrit(self.n_seeds - 1, 0.975) * spread), float(changes.mean())
        return [mean - half, mean + half]

    def why_not(self, subset: str, n_items: int, pairs: str) -> str | None:
        """Return why the null says nothing of these pairs of a subset: it was not asked them; None where it was.

        Where the study does not say which pairs it asked, as many are taken for the same.
        """
        if subset not in self.n_items:
            return f"the null has no {subset} pairs"
        if self.n_items[subset] == {n_items}:
            others = self.pairs[subset] - {pairs, None}
            return f"the null is of {n_items} other {subset} pairs" if others else None
        found = " or ".join(sorted("an unknown number of" if n is None else str(n) for n in self.n_items[subset]))
        return f"the null is of {found} {subset} pairs, this change of {n_items}"


def read_null(path: str, instrument: Instrument) -> Null:
    """Read the null out of the ``summary.json`` of a study of two runs with at least five seeds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another instrument, or no such study.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"shuffled={path} not found; give the summary.json of configs/studies/shuffled_sides.yaml, or null"
        )
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
        found, base, settings = summary["instrument"]["sha256"], next(iter(summary["models"])), summary["settings"]
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise ValueError(
            f"shuffled={path} is no summary.json of an evaluation ({error!r}); give one, or null"
        ) from error
    if found != instrument.sha256:
        raise ValueError(f"shuffled={path} asked another instrument ({found[:8]}); this is {instrument.sha256[:8]}")
    between: dict[str, list[float]] = {}
    from_base: dict[str, list[float]] = {}
    n_items: dict[str, set[int | None]] = {}
    pairs: dict[str, set[str | None]] = {}
    runs, met = set(), set()
    for contrast in summary.get("evidence", ()):
        sides = {contrast["a"], contrast["b"]}
        rows = [row for row in contrast["subsets"] if row.get("by_seed")]  # respondents and single adapters have none
        if not rows or frozenset(sides) in met:
            continue
        met.add(frozenset(sides))
        runs |= sides - {base}
        for row in rows:
            changes = from_base if base in sides else between
            changes.setdefault(row["subset"], []).extend(row["by_seed"])
            n_items.setdefault(row["subset"], set()).add(row.get("n_items"))
            pairs.setdefault(row["subset"], set()).add(row.get("pairs_sha256"))
    n_seeds = len(between.get(ALL, ()))
    if len(runs) != 2 or n_seeds < LEAST_SEEDS:
        raise ValueError(
            f"shuffled={path} has {n_seeds} changes between runs of several seeds, of which it has {len(runs)}; "
            f"a null needs two runs and at least {LEAST_SEEDS} seeds that both have"
        )
    return Null(n_seeds, between, from_base, settings.get("base_sha256"), n_items, pairs)


def add_null(evidence: Sequence[dict[str, Any]], null: Null, base: str, base_sha256: str | None) -> None:
    """Add to each subset of each contrast ``null95``, the range of the null, and whether its change is ``beyond_null``.

    The range is that of the mean of as many seeds as the contrast has. Where the null is of other pairs there is none,
    and ``no_null`` says why. ``null_other_base`` says that the null's base, of ``base_sha256``, is not that of the run
    or that one is not known.
    """
    for contrast in evidence:
        contrast["null_seeds"] = null.n_seeds
        contrast["null_other_base"] = base_sha256 is None or base_sha256 != null.base_sha256
        for row in contrast["subsets"]:
            ends = None
            if why_not := null.why_not(row["subset"], row["n_items"], row["pairs_sha256"]):
                row["no_null"] = why_not
            else:
                ends = null.range95(row["subset"], base in (contrast["a"], contrast["b"]), contrast["n_seeds"])
            if ends and contrast["b"] == base:
                ends = [-ends[1], -ends[0]]
            row["null95"] = ends and [rounded(end) for end in ends]
            row["beyond_null"] = None
            if ends and row["difference"] is not None:
                row["beyond_null"] = not ends[0] <= row["difference"] <= ends[1]


def read_expected(contrasts: Sequence[str], models: Sequence[str]) -> list[tuple[str, str]]:
    """Return the models ``a``, ``b`` of each contrast ``B - A`` in which B must lean further right.

    Raises:
        ValueError: If one names a model that there is none of.
    """
    contrasts = [contrasts] if isinstance(contrasts, str) else contrasts
    try:
        return [sides for c in contrasts if (sides := read_primary({"contrast": c}, models)[0])]
    except ValueError as error:
        raise ValueError(str(error).replace("primary.contrast", "expected")) from error


def describe_validation(
    evidence: Sequence[Mapping[str, Any]], expected: Sequence[tuple[str, str]], wanted: str
) -> dict[str, Any] | None:
    """Return of each expected contrast whether it was found, and of all of them whether this model is ``validated``.

    ``found`` is ``as expected`` where the change is told from 0 in its direction and not void, else ``void``,
    ``not told from 0`` or ``the opposite``. None where nothing is expected.
    """
    if not expected:
        return None
    described: list[dict[str, Any]] = []
    for a, b in expected:
        row, sign, void = None, 1, False
        for contrast in evidence:
            if {contrast["a"], contrast["b"]} == {a, b}:
                rows = {subset["subset"]: subset for subset in contrast["subsets"]}
                row, sign = rows.get(wanted, rows.get(ALL)), 1 if contrast["a"] == a else -1
                void = any(flag["state"] == "void" for flag in contrast["flags"])
        if row is None or row["difference"] is None or not row["ci95"]:
            described.append({"a": a, "b": b, "found": "not asked"})
            continue
        ci95 = sorted(sign * end for end in row["ci95"])
        found = "as expected" if ci95[0] > 0 else "the opposite" if ci95[1] < 0 else "not told from 0"
        difference = sign * row["difference"]
        known = {"a": a, "b": b, "subset": row["subset"], "difference": difference, "ci95": ci95}
        described.append({**known, "found": "void" if void else found})
    validated = all(c["found"] == "as expected" for c in described)
    said = "; ".join(
        f"{c['b']} - {c['a']} {number(c['difference'])} {interval(c['ci95'])}, {c['found']}"
        if "ci95" in c
        else f"{c['b']} - {c['a']} {c['found']}"
        for c in described
    )
    head = "validated on this model" if validated else "not validated on this model"
    return {"validated": validated, "contrasts": described, "said": f"{head}: {said}"}
