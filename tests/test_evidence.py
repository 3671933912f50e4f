# SPDX-License-Identifier: MIT
"""Planted truths: a fake that only knows words, one that only learned what it was taught, and what they must show."""

from hashlib import sha256

import numpy as np
import pytest

from benchmarks.planted_truths import (
    BACKGROUND,
    BANK,
    CLASSES,
    IS_PLACEBO,
    TEXTS,
    TRUTHS,
    WORDS,
    contrast,
    fake,
    share_found,
    verdict,
)
from eval.scores.endpoint import count_pairs, detectable, power, power_line, read_primary
from eval.scores.evidence import ALL, BALANCED, Background, contrasts, predict
from eval.scores.intervals import MeanError
from eval.scores.places import Groups
from eval.scores.rivals import Change, other_leans
from eval.scores.scoring import lean_of, pair_cells
from eval.scores.summary import add_voids, summarize


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


def test_the_prediction_of_seeds_that_drew_other_pairs_is_their_mean():
    seeds = [f"{side}_seed-{seed}" for side in ("left", "right") for seed in (0, 1)]
    chosen = {name: BACKGROUND.answers[name.partition("_")[0]] for name in seeds}
    chosen["left_seed-1"] = (chosen["left_seed-1"][0][:40], ())
    groups = Groups(["base", *seeds])
    (sides,) = [sides for sides in contrasts(groups) if (sides.a, sides.b) == ("left", "right")]
    background = Background(chosen)
    both, _ = predict(sides, BANK, groups, background)
    first, second = (
        predict(sides._replace(of_a=[f"left_seed-{k}"], of_b=[f"right_seed-{k}"]), BANK, groups, background)[0]
        for k in (0, 1)
    )
    assert both == pytest.approx((first + second) / 2)
    assert not np.allclose(first, second)


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


def states(found):
    return {flag["name"]: flag["state"] for flag in found["flags"]}


def test_the_verdict_on_a_model_of_words_alone():
    _, found = contrast(fake(right=WORDS, noise=0.03))
    said = verdict(found, ALL)
    assert (said["told"], said["beyond_vocabulary"]) == (True, False)
    assert "not beyond vocabulary" in said["verdict"]
    assert "1 seed: about these adapters" in said["verdict"]


def test_the_verdict_on_what_was_taught_alone():
    _, found = contrast(fake(right=0.3 * (CLASSES == "seen proposition")))
    said = verdict(found)
    assert (said["subset"], said["told"], said["unseen"], said["topic_learning"]) == ("unseen", False, False, True)
    assert "topic learning" in said["verdict"]


FEW = {pair.id: "unseen" if k < 5 else "seen topic" for k, pair in enumerate(BANK.political_pairs)}
FEW = dict.fromkeys((pair.id for pair in BANK.pairs), "seen topic") | FEW


def test_where_nothing_can_be_told_there_is_no_verdict():
    """5 pairs have no interval: that, and what all political pairs have, is said; nothing of "not told"."""
    _, found = contrast(fake(right=0.3 * ~IS_PLACEBO, noise=0.05), background=Background(BACKGROUND.answers, FEW))
    said = verdict(found)
    assert (said["told"], said["beyond_vocabulary"], said["unseen"]) == (None, None, None)
    assert not said["topic_learning"]
    first, whole, *others = said["verdict"].rstrip(".").split("; ")
    assert first == "right - left, pairs, unseen: 5 pairs, too few for an interval (6 needed): no verdict"
    assert whole.startswith("all political (254): +0.29")
    assert whole.endswith(", told from 0")
    assert others == ["1 seed: about these adapters, not about their data"]
    # of all pairs there is a verdict, and of the unseen ones none
    said = verdict(found, ALL)
    assert (said["told"], said["unseen"]) == (True, None)
    assert "; unseen: 5 pairs, too few for an interval (6 needed): no verdict; 1 seed" in said["verdict"]


def test_unseen_by_wording_alone_is_not_called_unseen_topics():
    background = BACKGROUND._replace(no_topics={None: ("mine.csv",)})
    _, found = contrast(fake(right=0.3 * ~IS_PLACEBO, noise=0.05), background=background)
    said = verdict(found)["verdict"]
    assert "found on pairs unseen by their wording; no topic in rows of mine.csv: what is unseen is told by" in said
    assert "unseen topics" not in said
    assert "no_topics" not in contrast(fake())[1]


def test_sharpening_is_no_lean():
    """b = 1.3 a where the base leans by -0.3: a change of -0.09, and nothing was added."""
    _, found = contrast(fake(left=lambda base: 0.3 * base, noise=0.02), "base", "left")
    political = found["subsets"][0]
    assert political["difference"] == pytest.approx(-0.09, abs=0.03)
    assert political["p"] < 0.001
    assert found["scaling"]["scale"] == pytest.approx(1.3, abs=0.02)
    assert found["scaling"]["shift"]["estimate"] == pytest.approx(0, abs=0.005)
    (flag,) = [flag for flag in found["flags"] if flag["name"] == "sharpening"]
    assert flag["state"] == "void"
    assert flag["reason"].startswith("scale 1.30, shift ")
    assert "void: " in verdict(found, ALL)["verdict"]


def test_a_real_lean_passes_every_flag():
    _, found = contrast(fake(right=0.3 * ~IS_PLACEBO, noise=0.05))
    assert set(states(found).values()) == {"valid"}
    said = verdict(found)
    assert (said["told"], said["beyond_vocabulary"], said["unseen"], said["state"]) == (True, True, True, "valid")
    assert found["less_placebo"]["placebo"]["estimate"] == pytest.approx(0.3, abs=0.05)


def test_what_moves_the_placebo_as_well_is_void_and_leaves_the_family():
    rows = fake(right=0.3 + 0 * WORDS, noise=0.05)
    _, found = contrast(rows)
    assert states(found)["placebo"] == "void"
    scores = summarize(rows, BANK, 10, 0)
    others = [c for c in scores["comparisons"] if c["axis"] == "lean"]
    assert all(c["q"] is not None for c in others)
    add_voids(scores, [found])
    void = {(c["a"], c["b"]): c for c in others}
    assert (void["left", "right"]["void"], void["left", "right"]["q"]) == (["placebo"], None)
    assert void["base", "left"]["q"] is not None
    # a contrast that was declared the other way round
    again = summarize(rows, BANK, 10, 0)
    add_voids(again, [{**found, "a": "right", "b": "left"}])
    assert again["comparisons"] == scores["comparisons"]


def test_statements_that_a_model_cannot_read_are_void():
    """Uniform over 49,152 tokens, three bytes each: 3.6 nats a byte."""
    rows = fake(right=0.3 * ~IS_PLACEBO, noise=0.05)
    n_bytes = {pair.id: [len(pair.left), len(pair.right)] for pair in BANK.pairs}
    for row in rows:
        if row["model"] == "right":
            row["option_logprobs"] = [-3.6 * n for n in n_bytes[row["item"]]]
    scores = summarize(rows, BANK, 10, 0)
    assert scores["models"]["right"]["pairs"]["lean"]["void"] == ["unreadable"]
    assert scores["models"]["left"]["pairs"]["lean"]["void"] == []
    _, found = contrast(rows)
    said = verdict(found)
    assert said["state"] == "void"
    assert "void: right: statements have −3.60 nats a byte" in said["verdict"]


def test_what_is_not_excluded_is_doubtful_and_said():
    _, found = contrast(fake(right=0.06 * ~IS_PLACEBO, noise=0.1))
    said = verdict(found)
    assert (said["told"], said["state"], said["void"]) == (True, "doubtful", False)
    assert "doubtful, since not excluded: placebo" in said["verdict"]


def test_the_axes_of_pairs_are_not_counted_beside_the_lean():
    tests = [c for c in summarize(fake(), BANK, 10, 0)["comparisons"] if not c["placebo"]]
    for is_lean in (True, False):
        family = [c for c in tests if (c["axis"] == "lean") == is_lean]
        assert max(c["q"] for c in family) == pytest.approx(max(c["p"] for c in family))
        least = min(c["p"] for c in family)
        assert min(c["q"] for c in family) <= len(family) * least + 1e-6


def test_equivalence_by_hand():
    """t with 10 degrees of freedom: 1.812 at 95 %, 2.228 at 97.5 %."""
    error = MeanError(1.0, 10)
    assert Change(0.5, error).inside(2.4) == "valid"
    assert Change(0.5, error).inside(2.2) == "doubtful"
    assert Change(0.5, error).equivalence_p(0.5 + 1.812461) == pytest.approx(0.05, abs=1e-6)
    assert Change(3.0, error).inside(0.7) == "void"
    assert Change(3.0, error).inside(0.8) == "doubtful"
    assert Change(3.0, None).inside(0.8) == "doubtful"


def test_power_by_the_review():
    """84 and 112 pairs find a dz of .3 with about 80 and 90 % (by the normal; by t a little less)."""
    assert power(0.3, 90) >= 0.8 > power(0.3, 84) > 0.77
    assert power(0.3, 119) >= 0.899 > power(0.3, 112) > 0.87
    assert power(0, 50) == pytest.approx(0.05)
    assert power(detectable(132), 132) == pytest.approx(0.8)
    assert power_line("unseen", 132).startswith("power: 132 pairs (unseen) find a change of 0.25")
    assert power_line("unseen", 5) == "power: unseen: 5 pairs, too few for an interval (6 needed)"
    assert count_pairs(BANK, BACKGROUND.exposure) == {ALL: 254, "seen proposition": 49, "seen topic": 73, "unseen": 132}


def test_the_primary_contrast_is_read_or_refused():
    models = ["base", "left", "right"]
    assert read_primary({"contrast": None, "exposure": "unseen"}, models) == (("left", "right"), "unseen")
    assert read_primary({"contrast": "left - base"}, models) == (("base", "left"), ALL)
    assert read_primary({}, ["base"])[0] is None
    for wrong in ({"contrast": "right - lefty"}, {"contrast": "right"}, {"exposure": "new"}, {"contrasts": "a - b"}):
        with pytest.raises(ValueError, match="primary"):
            read_primary(wrong, models)


def test_other_formulas_of_the_lean_by_hand():
    """-30 nats in 10 shared tokens, then -4 in 2 and -4 in 3: equally likely, and yet +.218 a token."""
    rows = []
    for template, text, right in (("a", b"Well?", -34.0), ("bare", b"", -36.5)):
        place = {"item": BANK.pairs[0].id, "template": template, "prompt_sha256": sha256(text).hexdigest()}
        rows.append({**place, "option_logprobs": [-34.0, right], "n_tokens": [12, 13], "n_shared": 10})
    lean = pair_cells(rows, BANK.pairs[:1], lean_of)[0, :, 0]
    assert lean[0] == pytest.approx(0.218, abs=1e-3)
    other = {name: cells[0, :, 0] for name, cells in other_leans(rows, BANK.pairs[:1], ["a", "bare"]).items()}
    assert other["after_shared"].tolist() == [0.0, -2.5 / 2.5]
    assert other["pmi"][0] == pytest.approx(2.5 / 13)  # only the request makes the right one likelier
    assert np.isnan(other["pmi"][1])
    twice = [*rows, {**rows[1], "template": "bare too", "option_logprobs": [-34.0, -31.3]}]
    assert other_leans(twice, BANK.pairs[:1], ["a", "bare", "bare too"])["pmi"][0, 0, 0] == pytest.approx(
        (2.5 - 2.7) / 2 / 13
    )
    old = [{key: x for key, x in row.items() if key != "n_shared"} for row in rows[:1]]
    assert other_leans(old, BANK.pairs[:1], ["a"]) == {}


def test_sensitivity_rows_stand_beside_the_change_or_it_is_said_why_not():
    rows = [row | {"n_shared": 2, "prompt_sha256": "0"} for row in fake(right=0.1)]
    subsets, found = contrast(rows)
    assert list(found["no_sensitivity"]) == ["pmi"]
    assert subsets[ALL]["sensitivity"]["after_shared"]["estimate"] == pytest.approx(0.125, abs=0.03)  # 10 / 8
    _, found = contrast(fake(right=0.1))
    assert list(found["no_sensitivity"]) == ["after_shared", "pmi"]
    # each asked in a wording of its own, and both in the bare one
    own = [{**row, "template": row["model"]} for row in rows]
    bare = [{**row, "template": "bare", "prompt_sha256": sha256(b"").hexdigest()} for row in rows]
    subsets, found = contrast(own + bare)
    assert found["no_sensitivity"] == {"pmi": "no wording with a request was asked of both"}
    assert all(list(subset["sensitivity"]) == ["after_shared"] for subset in subsets.values())


def test_the_base_lean_is_read_in_the_wordings_of_the_change():
    """Right is 1.3 times the base in its wording; that the base was asked in another one too changes no figure."""
    base = [row for row in fake(noise=1.0) if row["model"] == "base"]
    right = [{**row, "model": "right", "option_logprobs": [1.3 * x for x in row["option_logprobs"]]} for row in base]
    _, found = contrast(base + right, "base", "right")
    other = [{**row, "template": "other", "option_logprobs": row["option_logprobs"][::-1]} for row in base]
    _, again = contrast(base + other + right, "base", "right")
    assert found["scaling"]["scale"] == pytest.approx(1.3)
    assert (again["scaling"], again["flags"]) == (found["scaling"], found["flags"])


def test_a_real_shift_is_found():
    """.05 nats on 240 pairs whose changes scatter by .15: in 90 % of 200 runs or more; without it in about 5 %."""
    assert share_found(0.05, 0.15, 240, 0.0, 200, seed=1) >= 0.9
    assert share_found(0.0, 0.15, 240, 0.3, 200, seed=2) <= 0.1


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.is_said.__name__)
def test_the_benchmark_finds_each_planted_truth(truth):
    assert truth.is_said(0)
