# SPDX-License-Identifier: MIT
"""Planted truths: a fake that only knows words, one that only learned what it was taught, and what they must show."""

import numpy as np
import pytest

from data.datasets import SHIPPED_SET
from data.pairs.rows import read_table
from eval.scores.evidence import ALL, BALANCED, Background, describe_evidence
from eval.scores.lexical import lexical_shifts
from eval.scores.places import Groups
from eval.statements.exposure import exposures, read_taught
from eval.statements.instruments import load_instrument

BANK = load_instrument("compass300")
TEXTS = {side: [row[side] for row in read_table(SHIPPED_SET)] for side in ("left", "right")}
BACKGROUND = Background(
    {"left": (TEXTS["left"], TEXTS["right"]), "right": (TEXTS["right"], TEXTS["left"])},
    exposures(BANK, read_taught(SHIPPED_SET)),
)
IS_PLACEBO = np.array([BANK.axes[pair.axis].placebo for pair in BANK.pairs])
CLASSES = np.array([BACKGROUND.exposure[pair.id] for pair in BANK.pairs])
WORDS = lexical_shifts(BANK.pairs, TEXTS["left"], TEXTS["right"])


def fake(seed=0, left=0.0, right=0.0, noise=0.1, models=("base", "left", "right"), templates=2):
    """Rows of models whose pairs have the base's lean, what is planted and noise, in nats a token; 10 tokens each."""
    rng = np.random.default_rng(seed)
    base = rng.normal(-0.3, 0.5, len(BANK.pairs))
    rows = []
    for model in models:
        planted = {"base": 0.0, "left": left, "right": right}[model.partition("_")[0]]
        planted = planted(base) if callable(planted) else planted
        lean = base + planted + (rng.normal(0, noise, len(base)) if model != "base" else 0.0)
        for template in "ab"[:templates]:
            for pair, x in zip(BANK.pairs, lean):
                place = {"model": model, "mode": "pairs", "item": pair.id, "template": template}
                logprobs = [-30.0, -30.0 + 10 * x]
                rows.append({**place, "option_logprobs": logprobs, "n_tokens": [10, 10], "choice": None})
    return rows


def contrast(rows, a="left", b="right", background=BACKGROUND):
    groups = Groups(list(dict.fromkeys(row["model"] for row in rows)))
    described = describe_evidence(rows, BANK, groups, background)
    (found,) = [e for e in described if (e["a"], e["b"]) == (a, b)]
    return {row["subset"]: row for row in found["subsets"]}, found


def test_a_model_of_words_alone_is_not_beyond_vocabulary():
    subsets, _ = contrast(fake(right=WORDS, noise=0.03))
    political = subsets[ALL]
    assert political["p"] < 0.05
    assert political["difference"] == pytest.approx(political["lexical"], abs=0.02)
    assert political["slope"]["estimate"] == pytest.approx(1, abs=0.2)
    low, high = political["beyond"]["ci95"]
    assert low < 0 < high
    assert subsets[BALANCED]["lexical"] == 0
    assert subsets["lexical"]["difference"] > 3 * political["difference"]


def test_a_lean_that_no_word_tells_is_beyond_vocabulary():
    subsets, _ = contrast(fake(right=0.1 * ~IS_PLACEBO))
    for name in (ALL, BALANCED, "unseen"):
        assert subsets[name]["beyond"]["ci95"][0] > 0.05, name
    assert subsets["placebo"]["ci95"][0] < 0 < subsets["placebo"]["ci95"][1]
    assert subsets[ALL]["up"]["share"] > 0.7
    assert subsets[ALL]["dz"] == pytest.approx(0.1 / (0.1 * 2**0.5), abs=0.2)


def test_what_was_taught_alone_is_told_from_what_was_not():
    subsets, _ = contrast(fake(right=0.3 * (CLASSES == "seen proposition")))
    assert [subsets[name]["n_items"] for name in ("seen proposition", "seen topic", "unseen")] == [49, 73, 132]
    assert subsets["seen proposition"]["ci95"][0] > 0.2
    assert subsets["unseen"]["ci95"][0] < 0 < subsets["unseen"]["ci95"][1]


def test_against_the_base_words_go_from_the_dispreferred_to_the_preferred():
    subsets, _ = contrast(fake(), "base", "left")
    assert subsets[ALL]["lexical"] == pytest.approx(-WORDS[~IS_PLACEBO].mean(), abs=1e-6)


def test_without_known_data_there_is_no_prediction():
    subsets, found = contrast(fake(), background=Background({"left": BACKGROUND.answers["left"]}))
    assert found["no_lexical"] == "the training answers of right are not known"
    assert list(subsets) == [ALL, BALANCED, "placebo", "lexical"]
    assert subsets[ALL]["beyond"] is subsets[ALL]["lexical"] is None
    tuned = Background({"left": (TEXTS["left"], [])})
    assert "preferred answers alone" in contrast(fake(), "base", "left", tuned)[1]["no_lexical"]


def test_seeds_of_a_run_are_one_contrast():
    rows = fake(right=0.1, models=("base", "left_seed-1", "left_seed-2", "right_seed-1", "right_seed-2"))
    answers = {f"{side}_seed-{seed}": BACKGROUND.answers[side] for side in TEXTS for seed in (1, 2)}
    subsets, found = contrast(rows, background=Background(answers, BACKGROUND.exposure))
    assert found["n_seeds"] == 2
    assert subsets[ALL]["difference"] == pytest.approx(0.1, abs=0.02)
