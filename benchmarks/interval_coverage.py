# SPDX-License-Identifier: MIT
"""Do the intervals cover, and does "the same lean twice" stay at 5 %? Simulated respondents of known lean.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/interval_coverage.py

What a respondent says to a statement is its planted lean, plus what the topic, the couple of twins, the template, the
order, the seed and their combinations add, plus noise. Each simulation draws all of these anew; the functions of
``eval/scores`` describe the answers. Counted is how often an interval holds the truth. Of a factor that the interval
says to speak of, the truth is what endless levels would give; of one that is given, what these levels give. "Items
fixed" has these statements, "items too" endless ones. A/A: two respondents of the same lean, the share of p < .05 of
their paired test. Both have the same effects of factors that are given; all else is drawn anew, or in "the same asked
twice" nothing but noise. A dash: the program gives no interval, and says why.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from eval.scores.comparisons import compare  # noqa: E402
from eval.scores.crossed import LEAST_LEVELS  # noqa: E402
from eval.scores.scoring import Values, describe  # noqa: E402

LEAN = 0.6  # in weight a statement, of at most 2: a coordinate of +3
# Standard deviations of what adds to an answer: g topic, c couple, t template, o order, s seed, and what they are of
# together; e noise.
NOISE = {"e": 0.7}
ITEMS = {"c": 0.7, "t": 0.07, "o": 0.07, "ct": 0.2, "co": 0.2, "to": 0.07, "e": 0.35}
TEMPLATES = ITEMS | {"c": 0.35, "t": 0.35}
ORDERS = ITEMS | {"c": 0.35, "o": 0.35}
ALL = ITEMS | {"c": 0.5, "t": 0.15, "o": 0.15, "to": 0.15}
TOPICS = {"g": 0.38, "c": 0.59, "t": 0.1, "ct": 0.2, "e": 0.2}  # correlation within a topic: .3
SEEDS = TOPICS | {"s": 0.1, "cs": 0.2}
WILD_SEEDS = TOPICS | {"s": 0.4, "cs": 0.2}
A_LITTLE = {"c": 0.1, "t": 0.03, "ct": 0.05, "co": 0.05, "e": 0.35}  # the worst case for what is pooled
SCENARIOS = {
    "noise alone": NOISE,
    "items differ": ITEMS,
    "templates matter": TEMPLATES,
    "templates matter a little": A_LITTLE,
    "orders matter": ORDERS,
    "all matter": ALL,
}
SOME = ("noise alone", "templates matter", "all matter")
COUPLES_15 = [2] * 15
FACTORS = {"t": "templates", "o": "orders", "s": "seeds"}


class Design(NamedTuple):
    """What is asked, and which answers are missing."""

    name: str
    couples: list[int]  # statements of each: twins, or one alone
    levels: dict[str, int]  # of templates, orders and seeds
    topics: list[int] | None = None  # couples of each; None: every couple has its own
    missing: float = 0.0  # share of the cells, at random
    refused: int = 0  # templates without any answer
    is_discrete: bool = False  # one answer of -2, -1, 1, 2 to each prompt
    is_again: bool = False  # A/A: the same respondent once more


FULL = Design("10 templates x 8 orders", COUPLES_15, {"t": 10, "o": 8})
PAIRS = Design("60 pairs, 20 topics, 10 templates", [1] * 60, {"t": 10}, [3] * 20)
UNEQUAL = FULL._replace(name=f"{FULL.name}, 10 couples and 20 alone", couples=[2] * 10 + [1] * 20)
FEW_TOPICS = FULL._replace(name=f"{FULL.name}, 15 couples in 10 topics", topics=[1] * 5 + [2] * 5)
NO_TOPICS = TOPICS | {"g": 0.0, "c": 0.7}


class Row(NamedTuple):
    """One line of the table."""

    design: Design
    scenario: str
    sd: dict[str, float]


def in_scenarios(design: Design, *names: str) -> list[Row]:
    return [Row(design, name, SCENARIOS[name]) for name in names]


def with_seeds(n: int) -> Design:
    return PAIRS._replace(name=f"{PAIRS.name}, {n} seed{'s' * (n > 1)}", levels={"t": 10, "s": n})


ROWS = [
    *in_scenarios(FULL, *SCENARIOS),
    *in_scenarios(FULL._replace(name=f"{FULL.name}, 10 % missing", missing=0.1), *SOME),
    *in_scenarios(FULL._replace(name=f"{FULL.name}, 30 % missing", missing=0.3), *SCENARIOS),
    *in_scenarios(FULL._replace(name=f"{FULL.name}, 60 % missing", missing=0.6), *SOME),
    *in_scenarios(FULL._replace(name=f"{FULL.name}, 3 templates refused", refused=3), *SOME),
    *in_scenarios(FULL._replace(name=f"{FULL.name}, drawn answers", is_discrete=True), *SOME),
    *in_scenarios(FULL._replace(name=f"{FULL.name}, the same asked twice", is_again=True), "all matter"),
    *in_scenarios(FULL._replace(name=f"{FULL.name}, 4 couples", couples=[2] * 4), "all matter"),
    *in_scenarios(UNEQUAL, "all matter"),
    *in_scenarios(UNEQUAL._replace(name=f"{UNEQUAL.name}, 30 % missing", missing=0.3), "all matter"),
    *in_scenarios(FULL._replace(name="10 templates x 4 orders", levels={"t": 10, "o": 4}), *SOME, "orders matter"),
    *in_scenarios(FULL._replace(name="2 templates x 4 orders", levels={"t": 2, "o": 4}), *SOME),
    *in_scenarios(Design("7 open prompts", [1] * 7, {}), "items differ"),
    *in_scenarios(Design("1 open template, 10 % missing", COUPLES_15, {"t": 1}, missing=0.1), "items differ"),
    *in_scenarios(Design("6 open templates", COUPLES_15, {"t": 6}), "templates matter"),
    Row(PAIRS, "topics matter", TOPICS),
    Row(PAIRS, "topics do not matter", NO_TOPICS),
    Row(PAIRS._replace(name="60 pairs, 20 topics, 4 templates", levels={"t": 4}), "topics matter", TOPICS),
    Row(PAIRS._replace(name=f"{PAIRS.name}, the same asked twice", is_again=True), "topics matter", TOPICS),
    Row(FEW_TOPICS, "topics matter", ALL | {"g": 0.4}),
    *(Row(with_seeds(n), "seeds differ", SEEDS) for n in range(1, 6)),
    Row(with_seeds(2), "seeds differ much", WILD_SEEDS),
    Row(with_seeds(5), "seeds differ much", WILD_SEEDS),
    Row(with_seeds(5), "seeds do not differ", TOPICS),
]


class Index(NamedTuple):
    """To which couple and topic each statement belongs, ``[I]``."""

    couple: np.ndarray
    topic: np.ndarray


def index_of(design: Design) -> Index:
    couple = np.repeat(np.arange(len(design.couples)), design.couples)
    topics = design.topics or [1] * len(design.couples)
    return Index(couple, np.repeat(np.arange(len(topics)), topics)[couple])


def draw(rng: np.random.Generator, design: Design, index: Index, sd: dict[str, float], span: str) -> np.ndarray:
    """Draw one effect; the statements of a couple have it in common."""
    shape = [design.levels.get(f, 1) if f in span else 1 for f in "tos"]
    if span == "e":
        return sd[span] * rng.normal(size=(len(index.couple), *(design.levels.get(f, 1) for f in "tos")))
    if "g" in span or "c" in span:
        of_item = index.topic if "g" in span else index.couple
        return (sd[span] * rng.normal(size=(of_item.max() + 1, *shape)))[of_item]
    return sd[span] * rng.normal(size=(1, *shape))


def option(latent: np.ndarray) -> np.ndarray:
    """Return the option that is said: -2, -1, 1 or 2."""
    return np.sign(latent) * np.where(np.abs(latent) > 1.5, 2, 1)


def mean_option(center: np.ndarray | float, sd: float) -> np.ndarray:
    """Return the mean of the options that are said about ``center``, with normal scatter."""
    return special.ndtr((center - 1.5) / sd) + special.ndtr((center + 1.5) / sd) + 2 * special.ndtr(center / sd) - 2


def answers(rng: np.random.Generator, design: Design, index: Index, parts: dict[str, np.ndarray]) -> Values:
    """Return the answers as the scores take them."""
    n = len(index.couple)
    cells = np.broadcast_to(LEAN + sum(parts.values()), (n, *(design.levels.get(f, 1) for f in "tos"))).copy()
    if design.is_discrete:
        cells = option(cells)
    cells[rng.random(cells.shape) < design.missing] = np.nan
    cells[:, : design.refused] = np.nan
    cells = cells if "s" in design.levels else cells[..., 0]
    low, high = np.full(cells.shape, -2.0), np.full(cells.shape, 2.0)
    items = tuple(map(str, range(n)))
    return Values(items, cells, None, low, high, index.couple.astype(str), index.topic.astype(str))


def truth(design: Design, sd: dict[str, float], parts: dict[str, np.ndarray], known: set[str]) -> float:
    """Return the mean that answers have in the long run, where the levels of the known factors stay as they are."""
    stays = {span for span in parts if set(span) <= known}
    center = LEAN + sum(np.asarray(parts[span]) for span in stays)
    if not design.is_discrete:
        return float(np.mean(center))
    scatter = np.sqrt(sum(x * x for span, x in sd.items() if span in parts and span not in stays))
    return float(np.mean(mean_option(center, scatter)))


class Shares(NamedTuple):
    """What a row counts; None where the program gives no interval."""

    fixed: float | None
    too: float | None
    speaks_of: str
    false_positives: float
    lean: float  # mean error of the estimate


def simulate(design: Design, sd: dict[str, float], n_simulations: int, seed: int = 0) -> Shares:
    """Return how often the intervals hold the truth, and how often two respondents of the same lean differ."""
    rng, index = np.random.default_rng(seed), index_of(design)
    # what a factor adds that is not asked in several levels belongs to what is
    spans = [span for span in sd if all(f in "gce" or f in design.levels for f in span)]
    given = {f for f, name in FACTORS.items() if design.levels.get(f, 1) < LEAST_LEVELS[name]}
    held: dict[str, list[bool]] = {"ci95_items_fixed": [], "ci95": []}
    n_false, errors, said = 0, [], {}
    for _ in range(n_simulations):
        parts = {span: draw(rng, design, index, sd, span) for span in spans}
        values = answers(rng, design, index, parts)
        said = describe(values)
        for key, known in (("ci95_items_fixed", given | {"g", "c"}), ("ci95", given)):
            if said[key]:
                low, high = said[key]
                held[key].append(low <= truth(design, sd, parts, known) <= high)
        stays = set(spans) - {"e"} if design.is_again else {span for span in spans if set(span) <= given}
        other = {span: parts[span] if span in stays else draw(rng, design, index, sd, span) for span in spans}
        p = compare(values, answers(rng, design, index, other))["p"]
        n_false += p is not None and p < 0.05
        errors.append(said["estimate"] - truth(design, sd, parts, given))
    fixed, too = (sum(counted) / n_simulations if counted else None for counted in held.values())
    return Shares(fixed, too, ", ".join(said["over"]) or "–", n_false / n_simulations, float(np.mean(errors)))


def describe_row(row: Row, n_simulations: int, seed: int) -> str:
    """Return a line of the table."""
    s = simulate(row.design, row.sd, n_simulations, seed)
    fixed, too, false = ("–" if x is None else f"{100 * x:.1f} %" for x in (s.fixed, s.too, s.false_positives))
    cells = [f"{row.design.name}: {row.scenario}", fixed, too, s.speaks_of, false, f"{s.lean:+.3f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--only", default="", help="rows whose first cell holds this")
    options = parser.parse_args()
    start = time.perf_counter()
    head = f"{options.simulations:,} simulations a row, nominal 95 %"
    print(f"| {head} | items fixed | items too | speaks of | A/A, p < .05 | error of the lean |")
    print("|---|---|---|---|---|---|")
    for number, row in enumerate(ROWS):
        if options.only in f"{row.design.name}: {row.scenario}":
            print(describe_row(row, options.simulations, seed=number), flush=True)
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
