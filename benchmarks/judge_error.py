# SPDX-License-Identifier: MIT
"""Is a judge's error taken out of shares, means and differences? Planted judges of known confusion matrices.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/judge_error.py

Two respondents, a and b, write about 200 items under 5 templates each. What a text says (for, neutral, against or
refusal) depends on the respondent and on a stance of the item that both share. The judge errs on texts that are for
with one rate and on texts that are against with another, and may err otherwise about b than about a. People label some
prompts of each respondent, drawn at random, and are right. Each simulation draws all of this anew. "Truth" is what
endless items would give. Errors are mean estimate less truth, coverage is in percent.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from eval.scores.judge_error import (  # noqa: E402
    Estimate,
    Quantity,
    confusion_corrected,
    describe_estimate,
    judge_alone,
    prediction_powered,
    subtract,
)

N_ITEMS, N_TEMPLATES = 200, 5
FOR, NEUTRAL, AGAINST, REFUSAL = range(4)
VALUES = np.array([1.0, 0.0, -1.0, 0.0])  # of a stance; a refusal has none
COUNTS = np.array([1.0, 1.0, 1.0, 0.0])
IS_FOR, ALL = np.array([1.0, 0.0, 0.0, 0.0]), np.ones(4)
# mean shares of for, neutral, against and refusal; the item's stance moves for and against
SHARES = {"a": np.array([0.35, 0.25, 0.30, 0.10]), "b": np.array([0.50, 0.20, 0.20, 0.10])}
ITEM_SD = 0.15
METHODS = ("uncorrected", "prediction-powered", "confusion matrix", "labels alone")


class Judge(NamedTuple):
    """Share of its errors on texts that are for, against, and on the rest."""

    on_for: float
    on_against: float
    on_rest: float

    def matrix(self) -> np.ndarray:
        """Return the confusion matrix, rows the truth: half of the errors go to neutral, or to either side."""
        matrix = np.eye(4)
        for row, error, where in (
            (FOR, self.on_for, (NEUTRAL, AGAINST)),
            (AGAINST, self.on_against, (NEUTRAL, FOR)),
            (NEUTRAL, self.on_rest, (FOR, AGAINST)),
            (REFUSAL, self.on_rest, (NEUTRAL, AGAINST)),
        ):
            matrix[row, row] -= error
            matrix[row, list(where)] += error / 2
        return matrix


SCENARIOS = {
    "no error": (Judge(0, 0, 0), Judge(0, 0, 0)),
    "2 % everywhere": (Judge(0.02, 0.02, 0.02), Judge(0.02, 0.02, 0.02)),
    "10 % everywhere": (Judge(0.1, 0.1, 0.1), Judge(0.1, 0.1, 0.1)),
    "30 % on for, 0 on against": (Judge(0.3, 0, 0.1), Judge(0.3, 0, 0.1)),
    "30 % on against, 5 % on for": (Judge(0.05, 0.3, 0.1), Judge(0.05, 0.3, 0.1)),
    "a: 5 %; b: 30 % on for": (Judge(0.05, 0.05, 0.05), Judge(0.3, 0.05, 0.05)),
    "a: 30 % against; b: 30 % for": (Judge(0.05, 0.3, 0.1), Judge(0.3, 0.05, 0.1)),
    "30 % everywhere": (Judge(0.3, 0.3, 0.3), Judge(0.3, 0.3, 0.3)),
}


def draw(rng: np.random.Generator, judges: dict[str, Judge], n_labelled: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Return, by respondent, what the judge says of each text and what people say (-1 where not asked)."""
    stance = np.clip(rng.normal(0, ITEM_SD, N_ITEMS), -0.19, 0.19)
    order = rng.permutation(N_ITEMS * N_TEMPLATES)[:n_labelled]  # the same prompts of both
    drawn = {}
    for name, shares in SHARES.items():
        p = shares + stance[:, None] * np.array([1, 0, -1, 0])
        cumulated = np.repeat(p, N_TEMPLATES, axis=0).cumsum(1)
        true = (rng.random((len(cumulated), 1)) > cumulated[:, :-1]).sum(1)
        confused = judges[name].matrix()[true].cumsum(1)
        said = (rng.random((len(true), 1)) > confused[:, :-1]).sum(1)
        asked = np.full(len(true), -1)
        asked[order] = true[order]
        drawn[name] = said, asked
    return drawn


def estimate(method: str, said: np.ndarray, true: np.ndarray, amount: np.ndarray, count: np.ndarray) -> Estimate:
    """Return one respondent's estimate."""
    unit = np.repeat(np.arange(N_ITEMS), N_TEMPLATES)
    if method == "confusion matrix":
        return confusion_corrected(said, true, amount, count, unit, N_ITEMS)
    known = true >= 0
    of_people = (np.where(known, table[true], np.nan) for table in (amount, count))
    quantity = Quantity(amount[said], count[said], *of_people, unit, N_ITEMS)
    if method == "uncorrected":
        return judge_alone(quantity)
    return prediction_powered(quantity, 0.0 if method == "labels alone" else None)


def truths() -> dict[str, float]:
    """Return the true share of texts that are for, mean stance, and the differences b - a of both."""
    share = {name: p[FOR] for name, p in SHARES.items()}
    mean = {name: VALUES @ p / (COUNTS @ p) for name, p in SHARES.items()}
    return {
        "share": share["b"], "share, b - a": share["b"] - share["a"], "mean": mean["b"],
        "mean, b - a": mean["b"] - mean["a"],
    }  # fmt: skip


def simulate(scenario: str, n_labelled: int, n_simulations: int, seed: int = 0) -> dict[tuple[str, str], np.ndarray]:
    """Return, by quantity and method, error, whether the interval covers, and its half-width, a row a simulation."""
    rng = np.random.default_rng(seed)
    judges = dict(zip(SHARES, SCENARIOS[scenario]))
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(n_simulations):
        drawn = draw(rng, judges, n_labelled)
        for method in METHODS:
            for name, (amount, count) in {"share": (IS_FOR, ALL), "mean": (VALUES, COUNTS)}.items():
                a, b = (estimate(method, *drawn[who], amount, count) for who in SHARES)
                for quantity, of in ((name, b), (f"{name}, b - a", subtract(b, a))):
                    found, truth = describe_estimate(of), truths()[quantity]
                    of_method = rows.setdefault((quantity, method), [])
                    if found["ci95"]:  # the labelled texts may show no matrix that can be inverted
                        low, high = found["ci95"]
                        of_method.append((found["estimate"] - truth, float(low <= truth <= high), (high - low) / 2))
    return {key: np.array(values) for key, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--labelled", type=int, nargs="+", default=[100, 200])
    options = parser.parse_args()
    start = time.perf_counter()
    print(f"{options.simulations} simulations each; error of the estimate, coverage in percent, half-width")
    for n_labelled in options.labelled:
        print(f"\n{n_labelled} of {N_ITEMS * N_TEMPLATES} texts labelled for each respondent")
        print(f"{'judge':29}{'quantity':14}" + "".join(f"{method:>23}" for method in METHODS))
        for scenario in SCENARIOS:
            found = simulate(scenario, n_labelled, options.simulations)
            for quantity in truths():
                cells = []
                for method in METHODS:
                    error, covers, half = found[quantity, method].mean(0)
                    cells.append(f"{error:+.3f} {100 * covers:5.1f} ±{half:.3f}")
                print(f"{scenario:29}{quantity:14}" + "".join(f"{cell:>23}" for cell in cells), flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
