# SPDX-License-Identifier: MIT
"""What does the program say of respondents whose truth is known? A table, in Markdown.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.planted_truths

Each respondent answers ``compass300``; noise and the base's lean are drawn anew in every run. The training behind the
models is the shipped set, whose vocabulary and propositions are known. Takes five minutes.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.datasets import SHIPPED_SET
from data.pairs.rows import read_table
from eval.scores.endpoint import describe_primary
from eval.scores.evidence import ALL, Background, describe_evidence
from eval.scores.places import Groups
from eval.scores.rivals import change_of, lexical_shifts
from eval.scores.summary import summarize
from eval.statements.exposure import exposures, read_sources
from eval.statements.instruments import load_instrument
from eval.statements.prompts import option_orders

BANK = load_instrument("compass300")
TEXTS = {side: [row[side] for row in read_table(SHIPPED_SET)] for side in ("left", "right")}
BACKGROUND = Background(
    {"left": (TEXTS["left"], TEXTS["right"]), "right": (TEXTS["right"], TEXTS["left"])},
    exposures(BANK, read_sources([SHIPPED_SET])),
)
IS_PLACEBO = np.array([BANK.axes[pair.axis or ""].placebo for pair in BANK.pairs])
CLASSES = np.array([(BACKGROUND.exposure or {})[pair.id] for pair in BANK.pairs])
WORDS = lexical_shifts(BANK.pairs, TEXTS["left"], TEXTS["right"])
# Of the pairs' changes, right less left: that of the review's power table (dz .33 at .05), and the quickstart's own.
SCATTERS = (0.15, 0.44)
ALIKE = 0.3  # correlation of the changes of one topic in the null

Planted = float | np.ndarray | Callable[[np.ndarray], np.ndarray]
Rows = list[dict[str, Any]]


class Truth(NamedTuple):
    """A respondent, what must be said of it, and whether that is said in the run of a seed."""

    name: str
    must: str
    is_said: Callable[[int], bool]


def fake(
    seed: int = 0,
    left: Planted = 0.0,
    right: Planted = 0.0,
    noise: float = 0.1,
    models: Sequence[str] = ("base", "left", "right"),
    templates: int = 2,
) -> Rows:
    """Return rows of models whose pairs have the base's lean, what is planted and noise, in nats a token of 10."""
    rng = np.random.default_rng(seed)
    base = rng.normal(-0.3, 0.5, len(BANK.pairs))
    rows = []
    for model in models:
        planted: Any = {"base": 0.0, "left": left, "right": right}[model.partition("_")[0]]
        planted = planted(base) if callable(planted) else planted
        lean = base + planted + (rng.normal(0, noise, len(base)) if model != "base" else 0.0)
        for template in "ab"[:templates]:
            for pair, x in zip(BANK.pairs, lean):
                place = {"model": model, "mode": "pairs", "item": pair.id, "template": template}
                logprobs = [-30.0, -30.0 + 10 * x]
                rows.append({**place, "option_logprobs": logprobs, "n_tokens": [10, 10], "choice": None})
    return rows


def contrast(
    rows: Rows, a: str = "left", b: str = "right", background: Background = BACKGROUND
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the subsets of one contrast by their names, and the contrast."""
    groups = Groups(list(dict.fromkeys(row["model"] for row in rows)))
    described = describe_evidence(rows, BANK, groups, background)
    (found,) = [e for e in described if (e["a"], e["b"]) == (a, b)]
    return {row["subset"]: row for row in found["subsets"]}, found


def verdict(found: dict[str, Any], wanted: str = "unseen") -> dict[str, Any]:
    """Return the primary endpoint of a contrast."""
    said = describe_primary([found], (found["a"], found["b"]), wanted, BANK.name)
    assert said is not None
    return said


def choices(agree: Callable[[str, bool], float | None], mass: float = 0.9) -> Rows:
    """Return rows of ``choice``: P(agree) of each statement, by its id and whether it is keyed left; None refuses."""
    rows = []
    for item, order in itertools.product(BANK.items, option_orders(4)[:2]):
        p = agree(item.id, next(iter(item.weights.values()))[0] > 0)
        shares = None if p is None else [math.log(max(x, 1e-30)) for x in ((1 - p) / 2, (1 - p) / 2, p / 2, p / 2)]
        rows.append(
            {
                "model": "base", "mode": "choice", "item": item.id, "template": "a", "order": order, "labels": "words",
                "sample": 0, "prompt_sha256": "0", "option_logprobs": shares, "stance": None,
                "option_mass": None if p is None else mass, "choice": None if p is None else int(p > 0.5) * 3,
            }
        )  # fmt: skip
    return rows


def voids(rows: Rows) -> list[str]:
    """Return what voids the economic coordinate."""
    scores: list[str] = summarize(rows, BANK, 200, 0)["models"]["base"]["choice"]["economic"]["void"]
    return scores


def share_found(shift: float, scatter: float, n_pairs: int, alike: float, n_runs: int, seed: int) -> float:
    """Return in which share of runs a shift is told from 0, by topics of five pairs whose changes are alike."""
    rng, topic, n_found = np.random.default_rng(seed), np.repeat(np.arange(n_pairs // 5), 5), 0
    for _ in range(n_runs):
        change = rng.normal(0, math.sqrt(1 - alike), n_pairs) + rng.normal(0, math.sqrt(alike), n_pairs // 5)[topic]
        p = change_of((shift + scatter * change)[:, None, None], np.arange(n_pairs), topic).describe()["p"]
        n_found += p is not None and p < 0.05
    return n_found / n_runs


def of_words(seed: int) -> bool:
    """A model of single words of the training answers."""
    return "not beyond vocabulary" in verdict(contrast(fake(seed, right=WORDS, noise=0.03))[1], ALL)["verdict"]


def of_taught(seed: int) -> bool:
    """Only the propositions move that were taught."""
    subsets, found = contrast(fake(seed, right=0.3 * (CLASSES == "seen proposition")))
    low, high = subsets["unseen"]["ci95"]
    return low < 0 < high and "topic learning" in verdict(found)["verdict"]


def of_sharpening(seed: int) -> bool:
    """The base's lean times 1.3."""
    _, found = contrast(fake(seed, left=lambda base: 0.3 * base, noise=0.02), "base", "left")
    line = found["scaling"]
    return round(line["scale"], 1) == 1.3 and abs(line["shift"]["estimate"]) < 0.01 and verdict(found, ALL)["void"]


def of_a_lean(seed: int) -> bool:
    """All political pairs move, and no placebo."""
    said = verdict(contrast(fake(seed, right=0.3 * ~IS_PLACEBO, noise=0.05))[1])
    return bool(said["told"] and said["beyond_vocabulary"] and said["unseen"] and said["state"] == "valid")


def of_noise(seed: int) -> bool:
    """Every statement is as likely as random tokens: uniform over 49,152 of three bytes."""
    rows, texts = fake(seed), {pair.id: (pair.left, pair.right) for pair in BANK.pairs}
    for row in rows:
        if row["model"] == "right":
            row["option_logprobs"] = [-3.6 * len(text) for text in texts[row["item"]]]
    return "cannot read" in verdict(contrast(rows)[1])["verdict"]


def of_no_reading(seed: int) -> bool:
    """A statement and its opposite have one answer, drawn for each couple."""
    rng = np.random.default_rng(seed)
    couple = {item.id: frozenset((item.id, item.twin)) for item in BANK.items}
    agrees = {names: rng.random() for names in dict.fromkeys(couple.values())}
    return "twins" in voids(choices(lambda name, _: agrees[couple[name]]))


def of_half_a_sheet(seed: int) -> bool:
    """Agreement with the left, and no answer to the opposites; every run is the same."""
    return "wide_bounds" in voids(choices(lambda _, is_left: 1.0 if is_left else None))


def of_other_words(seed: int) -> bool:
    """Left in what it says of the options, and it says one of them in 3 of 100 answers; every run is the same."""
    return "option_mass" in voids(choices(lambda _, is_left: 0.9 if is_left else 0.1, mass=0.03))


TRUTHS = [
    Truth("knows how often each word occurs in the training answers", "not beyond vocabulary", of_words),
    Truth("moves on the propositions that were taught, alone", "unseen not told from 0, topic learning", of_taught),
    Truth("1.3 times the base's lean", "scale 1.3, shift 0, void", of_sharpening),
    Truth("a lean of .3 nats a token that no word tells", "valid, told on unseen, beyond vocabulary", of_a_lean),
    Truth("finds every statement as likely as random tokens", "void: cannot read them", of_noise),
    Truth("answers a statement and its opposite alike (`choice`)", "void", of_no_reading),
    Truth("agrees with the left, refuses the opposites (`choice`)", "void", of_half_a_sheet),
    Truth("says an option in 3 of 100 answers (`choice`)", "void", of_other_words),
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="of each respondent")
    parser.add_argument("--power-runs", type=int, default=200, help="of the real shift; the null has 20 times as many")
    options = parser.parse_args()
    print("| planted respondent | must show | shown in |\n|---|---|---|")
    for truth in TRUTHS:
        n_said = sum(truth.is_said(seed) for seed in range(options.runs))
        print(f"| {truth.name} | {truth.must} | {n_said} of {options.runs} runs |", flush=True)
    for scatter in SCATTERS:
        found = share_found(0.05, scatter, 240, 0.0, options.power_runs, 1)
        must = "p < .05 in 90 %" if scatter == SCATTERS[0] else "said beforehand (`dry_run=True`)"
        about = f"a shift of .05 nats on 240 pairs whose changes scatter by {scatter}"
        print(f"| {about} | {must} | {found:.1%} of {options.power_runs} runs |", flush=True)
    for alike in (0.0, ALIKE):
        found = share_found(0.0, 0.15, 240, alike, 20 * options.power_runs, 2)
        about = f"the same lean twice, the changes of a topic correlate by {alike}"
        print(f"| {about} | p < .05 in 4 to 6 % | {found:.1%} of {20 * options.power_runs} runs |", flush=True)


if __name__ == "__main__":
    main()
