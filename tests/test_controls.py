# SPDX-License-Identifier: MIT
"""Controls: the null of shuffled sides beside a change, and known groups that stand where they must, or do not."""

import json

import numpy as np
import pytest

from benchmarks.planted_truths import BACKGROUND, BANK, IS_PLACEBO, fake
from eval.readings.controls import Null, add_null, describe_validation, read_expected, read_null
from eval.scores.endpoint import describe_primary
from eval.scores.evidence import ALL, Background, describe_evidence
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
    path.write_text(json.dumps({**summary, "instrument": {"sha256": "0"}}))
    with pytest.raises(ValueError, match="asked another instrument"):
        read_null(str(path), BANK)
    path.write_text(json.dumps({**summary, "evidence": evidence(fake())}))
    with pytest.raises(ValueError, match="has 1 seeds of two runs; a null needs at least 5"):
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


def test_changes_are_given_by_seed():
    rows = fake(right=LEAN, models=("base", "right_seed-0", "right_seed-1"))
    (row,) = [row for row in evidence(rows)[0]["subsets"] if row["subset"] == ALL]
    assert np.mean(row["by_seed"]) == pytest.approx(row["difference"], abs=1e-4)
    assert len(row["by_seed"]) == 2
