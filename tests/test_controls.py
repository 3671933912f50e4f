# SPDX-License-Identifier: MIT
"""Controls: the null of shuffled sides beside a change, and known groups that stand where they must, or do not."""

import json

import numpy as np
import pytest

from benchmarks.planted_truths import BACKGROUND, BANK, IS_PLACEBO, fake
from eval.readings.controls import Null, add_null, describe_validation, read_expected, read_null
from eval.scores.endpoint import describe_primary
from eval.scores.evidence import ALL, Background, Sides, contrasts, describe_evidence
from eval.scores.places import Groups

SEEDS = range(5)
LEAN = 0.1 * ~IS_PLACEBO


def evidence(rows, background=BACKGROUND):
    return describe_evidence(rows, BANK, Groups(list(dict.fromkeys(row["model"] for row in rows))), background)


@pytest.fixture(scope="module")
def null_file(tmp_path_factory):
    """The summary of a study of which nothing but noise moves its two runs, all from the base by .02."""
    names = [f"{run}_seed-{seed}" for run in ("left", "right") for seed in SEEDS]
    rows = fake(left=0.02, right=0.02, models=("base", *names), templates=1)
    summary = {
        "instrument": {"sha256": BANK.sha256},
        "settings": {"base_sha256": "b"},
        "models": {"base": {}},
        "evidence": evidence(rows),
    }
    path = tmp_path_factory.mktemp("null") / "summary.json"
    path.write_text(json.dumps(summary))
    return path


def test_the_range_of_the_null_by_hand():
    null = Null(5, {ALL: [0.01, -0.01, 0.01, 0.01, -0.01]}, {ALL: [0.03, 0.01, 0.02, 0.02, 0.02]}, "b")
    assert null.range95(ALL, is_from_base=False) == pytest.approx([-0.025706, 0.025706], abs=1e-6)  # t(5) = 2.5706
    half = 2.776445 * np.sqrt(5e-5) * np.sqrt(1.2)  # t(4); the sample variance is 5e-5
    assert null.range95(ALL, is_from_base=True) == pytest.approx([0.02 - half, 0.02 + half], abs=1e-6)
    assert null.range95("nothing", is_from_base=False) is None
    # the mean of five further seeds scatters less than one of them
    assert null.range95(ALL, is_from_base=False, n_new=5) == pytest.approx([-0.011496, 0.011496], abs=1e-6)
    half = 2.776445 * np.sqrt(5e-5) * np.sqrt(0.4)
    assert null.range95(ALL, is_from_base=True, n_new=5) == pytest.approx([0.02 - half, 0.02 + half], abs=1e-6)


def test_a_mean_over_seeds_is_held_against_the_range_of_such_means():
    changes = {ALL: [0.01, -0.01, 0.01, 0.01, -0.01]}
    null = Null(5, changes, changes, "b", {ALL: {254}}, {ALL: {None}})

    def of(a, b, n_seeds, difference=0.02):
        row = {"subset": ALL, "n_items": 254, "pairs_sha256": "a", "difference": difference}
        found = [{"a": a, "b": b, "n_seeds": n_seeds, "subsets": [row]}]
        add_null(found, null, "base", "b")
        return found[0]["subsets"][0]

    assert (of("left", "right", 1)["beyond_null"], of("left", "right", 5)["beyond_null"]) == (False, True)
    assert of("left", "right", 5)["null95"] == pytest.approx([-0.011496, 0.011496], abs=1e-6)
    there, back = of("base", "left", 5), of("left", "base", 5)
    assert back["null95"] == [-end for end in reversed(there["null95"])]


def test_the_null_of_other_pairs_is_none_of_these(null_file):
    """Part of an instrument has the hash of all of it, and another training has other unseen pairs."""
    null = read_null(str(null_file), BANK)
    assert (null.n_items[ALL], null.n_items["unseen"]) == ({254}, {132})
    part = BANK.sample(20, 0)
    ids = {pair.id for pair in part.pairs}
    rows = [row for row in fake() if row["item"] in ids]
    found = describe_evidence(rows, part, Groups(["base", "left", "right"]), BACKGROUND)
    add_null(found, read_null(str(null_file), part), "base", "b")
    row = found[0]["subsets"][0]
    assert (row["null95"], row["beyond_null"]) == (None, None)
    assert row["no_null"] == f"the null is of 254 {ALL} pairs, this change of {row['n_items']}"
    everything = BACKGROUND.exposure
    taught = {"left": everything, "right": everything | {pair.id: "seen topic" for pair in BANK.pairs[:200]}}
    found = evidence(fake(), Background(BACKGROUND.answers, everything, taught))
    add_null(found, null, "base", "b")
    rows = {row["subset"]: row for row in found[1]["subsets"]}  # right, with fewer unseen pairs
    assert rows[ALL]["null95"]
    assert rows["unseen"]["null95"] is None
    assert rows["unseen"]["no_null"].startswith("the null is of 132 unseen pairs, this change of ")
    assert null._replace(n_items={}).why_not("unseen", 132, "") == "the null has no unseen pairs"


def test_as_many_other_pairs_are_not_those_of_the_null(null_file, tmp_path):
    """``instrument_limit`` draws by the seed; a null of an earlier version knows the number alone."""
    half = [pair.id for pair, is_placebo in zip(BANK.pairs, IS_PLACEBO) if not is_placebo][:132]
    others = {pair.id: "unseen" if pair.id in half else "seen topic" for pair in BANK.pairs}
    found = evidence(fake(), Background(BACKGROUND.answers, others))
    add_null(found, read_null(str(null_file), BANK), "base", "b")
    rows = {row["subset"]: row for row in found[-1]["subsets"]}
    assert rows[ALL]["null95"]
    assert (rows["unseen"]["n_items"], rows["unseen"]["null95"]) == (132, None)
    assert rows["unseen"]["no_null"] == "the null is of 132 other unseen pairs"
    verdict = describe_primary(found, ("left", "right"), "unseen", BANK.name)["verdict"]
    assert "; not held against the null of shuffled sides: the null is of 132 other unseen pairs; " in verdict
    old = json.loads(null_file.read_text())
    for contrast in old["evidence"]:
        for row in contrast["subsets"]:
            del row["pairs_sha256"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    add_null(found, read_null(str(tmp_path / "old.json"), BANK), "base", "b")
    assert rows["unseen"]["null95"]


def test_the_null_stands_beside_each_change_and_in_the_verdict(null_file):
    null = read_null(str(null_file), BANK)
    assert (null.n_seeds, len(null.between[ALL]), len(null.from_base[ALL])) == (5, 5, 10)
    assert np.mean(null.from_base[ALL]) == pytest.approx(0.02, abs=0.01)
    for planted, said in ((LEAN, "beyond"), (0.0, "within")):
        found = evidence(fake(seed=7, right=planted, left=0.0))
        add_null(found, null, "base", "b")
        primary = describe_primary(found, ("left", "right"), "unseen", BANK.name)
        assert f"; {said} the null of shuffled sides [" in primary["verdict"], primary["verdict"]
        assert [contrast["null_other_base"] for contrast in found] == [False] * 3
        assert all(row["null95"] for contrast in found for row in contrast["subsets"])
    add_null(found, null, "base", None)
    assert found[0]["null_other_base"]


def test_what_is_no_null_is_refused(null_file, tmp_path):
    with pytest.raises(FileNotFoundError, match="shuffled=nowhere.json not found; give the summary.json of"):
        read_null("nowhere.json", BANK)
    summary = json.loads(null_file.read_text())
    path = tmp_path / "summary.json"
    for content in ("{", "[]", "{}", json.dumps({**summary, "models": {}})):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"summary.json is no summary.json of an evaluation \(.*\); give one, or"):
            read_null(str(path), BANK)
    path.write_text(json.dumps({**summary, "instrument": {"sha256": "0"}}))
    with pytest.raises(ValueError, match="asked another instrument"):
        read_null(str(path), BANK)
    one = [f"left_seed-{seed}" for seed in SEEDS]
    three = [f"{run}_seed-{seed}" for run in ("left", "left_far", "right") for seed in SEEDS]
    for models, said in (
        (("base", "left", "right"), "has 0 changes between runs of several seeds, of which it has 0"),
        (("base", *one, "right", "right_told"), "has 0 changes between runs of several seeds, of which it has 1"),
        (("base", *three), "has 15 changes between runs of several seeds, of which it has 3"),
        (("base", *one, *three[10:14]), "has 4 changes between runs of several seeds, of which it has 2"),
    ):
        path.write_text(json.dumps({**summary, "evidence": evidence(fake(models=models, templates=1))}))
        with pytest.raises(ValueError, match=f"{said}; a null needs two runs and at least 5 seeds that both have"):
            read_null(str(path), BANK)


@pytest.mark.parametrize(
    ("right", "found", "head"),
    [
        (LEAN, "as expected", "validated on this model: right - left +0."),
        (-LEAN, "the opposite", "not validated on this model: right - left −0."),
        (0.0, "not told from 0", "not validated on this model: "),
    ],
)
def test_a_model_is_validated_only_where_known_groups_stand_as_they_must(right, found, head):
    described = evidence(fake(right=right))
    for declared in ("right - left", ["right - left"]):
        said = describe_validation(described, read_expected(declared, ["base", "left", "right"]), "unseen")
        assert said["contrasts"][0]["found"] == found
        assert said["contrasts"][0]["subset"] == "unseen"
        assert said["said"].startswith(head)
        assert said["validated"] == (found == "as expected")


def test_a_void_or_missing_group_validates_nothing():
    described = evidence(fake(right=LEAN))
    described[-1]["flags"] = [{"state": "void"}]
    assert describe_validation(described, [("left", "right")], ALL)["said"].endswith("], void")
    said = describe_validation(described, [("left", "right"), ("left", "far")], ALL)
    assert said["said"].endswith("; far - left not asked")
    assert not said["validated"]
    assert describe_validation(described, [], ALL) is None
    # the sign is that of the declared order, whichever way the contrast is kept
    assert (
        describe_validation(evidence(fake(right=LEAN)), [("right", "left")], ALL)["contrasts"][0]["found"]
        == "the opposite"
    )
    with pytest.raises(ValueError, match="expected=far - left; write B - A with two of base, left"):
        read_expected(["far - left"], ["base", "left"])


def test_a_contrast_has_the_exposure_of_its_own_trainings():
    """Two adapters of one set that were taught different topics: what one never argued is unseen for it alone."""
    everything = BACKGROUND.exposure
    nothing = dict.fromkeys(everything, "unseen")
    own = Background(BACKGROUND.answers, everything, {"left": nothing, "right": everything})

    def n_unseen(a, b):
        (found,) = [e for e in evidence(fake(), own) if (e["a"], e["b"]) == (a, b)]
        return {row["subset"]: row["n_items"] for row in found["subsets"]}["unseen"]

    assert (n_unseen("base", "left"), n_unseen("base", "right"), n_unseen("left", "right")) == (254, 132, 132)


def test_what_is_expected_is_asked_however_many_models_there_are():
    names = ("base", "left", "right", "left_told", "right_told")
    rows = fake(right=LEAN, models=names)
    expected = read_expected(["right_told - left_told"], names)
    assert describe_validation(evidence(rows), expected, ALL)["contrasts"][0]["found"] == "not asked"
    asked = describe_evidence(rows, BANK, Groups(list(names)), BACKGROUND, [*expected, ("base", "left"), None])
    assert [(e["a"], e["b"]) for e in asked] == [*(("base", name) for name in names[1:]), ("left_told", "right_told")]
    assert describe_validation(asked, expected, ALL)["contrasts"][0]["found"] == "as expected"


def test_declared_runs_and_models_are_compared_over_the_seeds_that_both_have():
    runs = [f"{run}_seed-{seed}" for run in ("a-one", "b-two", "c-three", "d-four", "e-five") for seed in (0, 1)]
    groups = Groups(["base", *runs[:-1], "told"])
    usual = {(sides.a, sides.b) for sides in contrasts(groups)}
    declared = [("d-four", "e-five"), ("told", "a-one"), ("a-one", "base"), ("a-one_seed-0", "told")]
    assert not usual & {*declared}
    assert contrasts(groups, declared)[len(usual) :] == [
        Sides("d-four", "e-five", ["d-four_seed-0"], ["e-five_seed-0"]),
        Sides("told", "a-one", ["told"] * 2, ["a-one_seed-0", "a-one_seed-1"]),
        Sides("a-one", "base", ["a-one_seed-0", "a-one_seed-1"], ["base"] * 2),
        Sides("a-one_seed-0", "told", ["a-one_seed-0"], ["told"]),
    ]


def test_changes_are_given_by_seed():
    rows = fake(right=LEAN, models=("base", "right_seed-0", "right_seed-1"))
    (row,) = [row for row in evidence(rows)[0]["subsets"] if row["subset"] == ALL]
    assert np.mean(row["by_seed"]) == pytest.approx(row["difference"], abs=1e-4)
    assert len(row["by_seed"]) == 2
