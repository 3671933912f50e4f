# SPDX-License-Identifier: MIT
"""Do the intervals cover, and does "the same model twice" stay at 5 %? Simulated respondents of known lean.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/interval_coverage.py

A respondent answers 30 statements (15 couples of twins) in crossed templates and orders. What it says to a
statement is its planted lean, plus what the couple, the template, the order and their combinations add, plus
noise. Each simulation draws all of these anew. Counted is how often an interval holds the truth: for "items
fixed" the mean over these statements and all prompts, for "items too" the planted lean. Beside our interval
stands that of the plain percentile crossed bootstrap (the pigeonhole bootstrap of Owen 2007, Ann. Appl. Stat.
1(2)), from which we moved away. A/A: two respondents of the same lean, the share of p < 0.05 of their paired test.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from eval.scores.comparisons import compare  # noqa: E402
from eval.scores.intervals import t_interval  # noqa: E402
from eval.scores.scoring import Values, item_means, mean_errors  # noqa: E402

N_COUPLES = 15
LEAN = 0.6  # in weight a statement, of at most 2: a coordinate of +3
# standard deviations of: couple, template, order, couple x template, couple x order, template x order, noise
SCENARIOS = {
    "noise alone": (0, 0, 0, 0, 0, 0, 0.7),
    "items differ": (0.7, 0.07, 0.07, 0.2, 0.2, 0.07, 0.35),
    "templates matter": (0.35, 0.35, 0.07, 0.2, 0.2, 0.07, 0.35),
    "orders matter": (0.35, 0.07, 0.35, 0.2, 0.2, 0.07, 0.35),
    "all matter": (0.5, 0.15, 0.15, 0.2, 0.2, 0.15, 0.35),
}
DESIGNS = {"10 templates x 8 orders": (10, 8), "2 templates x 4 orders": (2, 4)}


def respond(rng: np.random.Generator, deviations: tuple, shape: tuple[int, int], lean: float = LEAN):
    """Return the answers as values, and the mean over these statements that endless prompts would give."""
    t, o = shape
    sizes = [(N_COUPLES, 1, 1), (1, t, 1), (1, 1, o), (N_COUPLES, t, 1), (N_COUPLES, 1, o), (1, t, o)]
    effects = [deviation * rng.normal(size=size) for deviation, size in zip(deviations, sizes)]
    couples = np.broadcast_to(lean + sum(effects), (N_COUPLES, t, o))
    # the two statements of a couple differ by noise alone
    cells = np.repeat(couples, 2, axis=0) + deviations[-1] * rng.normal(size=(2 * N_COUPLES, t, o))
    items = tuple(f"{k}" for k in range(2 * N_COUPLES))
    unit = np.repeat(np.arange(N_COUPLES), 2)
    low, high = np.full(len(items), -2.0), np.full(len(items), 2.0)
    return Values(items, cells, None, low, high, unit), lean + effects[0].mean()


def crossed_bootstrap(cells: np.ndarray, rng: np.random.Generator, n: int, with_items: bool) -> np.ndarray:
    """Return the plain percentile interval of the mean, all factors resampled at once."""
    couples = cells.reshape(N_COUPLES, 2, *cells.shape[1:]).mean(1)
    u, t, o = couples.shape
    weights = [rng.multinomial(k, np.full(k, 1 / k), n) / k for k in (u, t, o)]
    if not with_items:
        weights[0] = np.full((n, u), 1 / u)
    means = (weights[0] @ couples.reshape(u, -1)).reshape(n, t, o)
    return np.quantile(np.einsum("nto,nt,no->n", means, *weights[1:]), [0.025, 0.975])


def simulate(scenario: str, design: str, n_simulations: int, n_bootstrap: int, seed: int = 0) -> dict[str, float]:
    """Return shares: coverage of both intervals by both methods, false positives, and the mean error of the lean."""
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(("fixed", "too", "fixed_bootstrap", "too_bootstrap", "false_positives", "lean"), 0.0)
    for _ in range(n_simulations):
        values, truth = respond(rng, SCENARIOS[scenario], DESIGNS[design])
        estimate = item_means(values.cells).mean()
        for name, error, true in zip(("fixed", "too"), mean_errors(values.cells, values.unit), (truth, LEAN)):
            low, high = t_interval(estimate, error)
            counts[name] += low <= true <= high
            if n_bootstrap:
                low, high = crossed_bootstrap(values.cells, rng, n_bootstrap, name == "too")
                counts[f"{name}_bootstrap"] += low <= true <= high
        again, _ = respond(rng, SCENARIOS[scenario], DESIGNS[design])
        counts["false_positives"] += compare(values, again)["p"] < 0.05
        counts["lean"] += estimate
    shares = {name: count / n_simulations for name, count in counts.items()}
    shares["lean"] -= LEAN
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--bootstrap", type=int, default=500, help="resamples of the plain bootstrap; 0 leaves it out")
    options = parser.parse_args()
    start = time.perf_counter()
    print(f"{options.simulations} simulations each; percent; bootstrap: plain percentiles")
    print(f"{'':44}items fixed       items too         A/A p<.05  error of the lean")
    for design in DESIGNS:
        for scenario in SCENARIOS:
            s = simulate(scenario, design, options.simulations, options.bootstrap)
            ours = [f"{100 * s[k]:5.1f} ({100 * s[k + '_bootstrap']:5.1f})" for k in ("fixed", "too")]
            rest = f"{100 * s['false_positives']:5.1f}    {s['lean']:+.4f}"
            print(f"{design:25}{scenario:19}{'     '.join(ours)}     {rest}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s; in parentheses: plain percentile bootstrap")


if __name__ == "__main__":
    main()
