# SPDX-License-Identifier: MIT
"""The matcher of meaning against propositions that were keyed by hand, on the bank it was made with and on another."""

import math

import pytest
from conftest import REPO

from data.pairs.rows import read_table
from data.quality.propositions import MATCH, TOPIC, PromptIndex
from eval.statements.exposure import exposures, read_sources, taught
from eval.statements.instruments import load_instrument

PAIRS = str(REPO / "data" / "mirrored" / "pairs.jsonl")


def recall_and_precision(name):
    """By keys against by meaning, each couple once, placebos left out of the first and counted in the second."""
    instrument = load_instrument(name)
    ids = [item.id for item in instrument.items if item.id < item.twin] + [pair.id for pair in instrument.pairs]
    truth = exposures(instrument, read_sources([PAIRS]))
    found = exposures(instrument, taught(read_table(PAIRS)))  # rows without keys
    both = sum(truth[i] == found[i] == "seen proposition" for i in ids)
    n_true, n_found = (sum(classes[i] == "seen proposition" for i in ids) for classes in (truth, found))
    return both / n_true, both / n_found, n_true, n_found


def test_finds_the_entries_of_compass60_without_their_keys():
    """The bank with which the matcher was made: 49 of 54, and 11 more."""
    recall, precision, n_true, n_found = recall_and_precision("compass60")
    assert (n_true, n_found) == (54, 60)
    assert recall >= 0.9
    assert precision >= 0.8


def test_on_a_bank_that_had_no_part_in_its_making():
    """Less: 53 of 62, and 23 more, of which 2 are on topics that the set does not touch."""
    recall, precision, n_true, _ = recall_and_precision("compass300")
    assert n_true == 62
    assert recall >= 0.85
    assert precision >= 0.69
    found = exposures(load_instrument("compass300"), taught(read_table(PAIRS)))
    unseen = [i for i, c in exposures(load_instrument("compass300"), read_sources([PAIRS])).items() if c == "unseen"]
    assert sum(found[i] == "seen proposition" for i in unseen) <= 0.02 * len(unseen)


def test_similarity_by_hand():
    """Three rows; "rent" and "cap" are in the first alone: rarity log(4 / 2). The statement shares both."""
    rows = [{"prompt": "Rents: a cap?", "topic": "t"}, {"prompt": "Guns?"}, {"prompt": "Guns and tea?"}]
    index = PromptIndex(rows)
    found = index.nearest(["Cap the rents."])
    assert found.row == 1
    assert found.similarity == pytest.approx(1)
    assert index.nearest(["Cap the rents."], "t").similarity == pytest.approx(1 + TOPIC)
    # one of two stems, equally rare: 1 / sqrt 2; a word that no row has makes the statement longer
    assert index.nearest(["The rent."]).similarity == pytest.approx(1 / math.sqrt(2))
    tea, guns = math.log(4 / 2), math.log(4 / 3)
    assert index.nearest(["Tea."]).similarity == pytest.approx(tea / math.hypot(tea, guns))
    assert index.nearest(["Zebra."]) == (0, 0.0)
    assert not index.nearest(["Zebra."]).is_match
    assert found.similarity >= MATCH
    assert found.is_match


def test_an_answer_counts_half():
    """One stem of the prompt and one of the answer, as rare: the shorter side has half the weight."""
    index = PromptIndex([{"prompt": "Rents?", "left": "Cap!", "right": None}, {"prompt": "Tea?"}])
    assert index.nearest(["Cap."]).similarity == pytest.approx(0.5 / math.hypot(1, 0.5))
    assert index.nearest(["Rent."]).similarity == pytest.approx(1 / math.hypot(1, 0.5))
