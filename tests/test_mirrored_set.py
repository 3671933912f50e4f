# SPDX-License-Identifier: MIT
import json
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.pairs.records import Pair
from data.quality import measures
from data.quality.contamination import overlaps, shipped_statements
from data.quality.defects import Checks, row_defects
from data.quality.duplicates import near_duplicate_clusters
from data.quality.phrases import wrong_size

N_WORDS = (35, 75)
LINES = files("data").joinpath("mirrored", "pairs.jsonl").read_text(encoding="utf-8").splitlines()
ROWS = [json.loads(line) for line in LINES]
TOPICS = sorted({row["topic"] for row in ROWS})
PROMPTS, LEFT, RIGHT = ([row[field] for row in ROWS] for field in ("prompt", "left", "right"))


def of_topic(topic):
    return [row for row in ROWS if row["topic"] == topic]


def style_accuracy(left, right, topics):
    """How often style alone tells the side of an answer, on topics that the classifier has not seen."""
    features = measures.style_features([*left, *right])
    side = np.repeat(["left", "right"], len(left))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000))
    guessed = cross_val_predict(classifier, features, side, groups=[*topics, *topics], cv=LeaveOneGroupOut())
    return np.mean(guessed == side)


def test_size_and_balance():
    assert len(ROWS) >= 160
    assert len(TOPICS) == 20
    assert len({len(of_topic(topic)) for topic in TOPICS}) == 1
    axes = {topic: {row["axis"] for row in of_topic(topic)} for topic in TOPICS}
    assert all(len(axis) == 1 for axis in axes.values())
    assert Counter(axis for (axis,) in axes.values()) == {"economic": 10, "social": 10}


def test_rows_are_well_formed():
    keys = ["id", "axis", "topic", "prompt", "left", "right"]
    assert all(list(row) == keys for row in ROWS)
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    for topic in TOPICS:
        ids = [row["id"] for row in of_topic(topic)]
        assert ids == [f"{topic.replace('_', '-')}-{n:02d}" for n in range(1, len(ids) + 1)]
    for row in ROWS:
        for field in keys:
            assert row[field].isascii(), row["id"]
            assert row[field] == " ".join(row[field].split()), row["id"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_row_passes_every_gate(row):
    assert row_defects(Pair(1, row["prompt"], row["left"], row["right"]), Checks()) == []
    assert [wrong_size(row[side], N_WORDS) for side in ("left", "right")] == [None, None]


def test_no_text_occurs_twice():
    assert near_duplicate_clusters(PROMPTS) == list(range(len(PROMPTS)))
    assert near_duplicate_clusters([*LEFT, *RIGHT]) == list(range(2 * len(LEFT)))


@pytest.mark.parametrize("topic", TOPICS)
def test_no_side_is_longer_within_a_topic(topic):
    rows = of_topic(topic)
    share = measures.longer_share([row["left"] for row in rows], [row["right"] for row in rows])
    assert share == pytest.approx(0.5, abs=0.02)


def test_length_does_not_tell_the_side():
    assert measures.length_rule_accuracy(LEFT, RIGHT) <= 0.52
    longer_in_characters = np.mean([len(a) > len(b) for a, b in zip(LEFT, RIGHT)])
    assert longer_in_characters == pytest.approx(0.5, abs=0.02)


def test_style_does_not_tell_the_side():
    topics = [row["topic"] for row in ROWS]
    assert style_accuracy(LEFT, RIGHT, topics) <= 0.55
    # and would be seen if it did: one more comma, one function word in every other answer
    assert style_accuracy([text.replace(" and ", ", and ", 1) for text in LEFT], RIGHT, topics) > 0.55
    hedged = [f"{text[:-1]} perhaps." if n % 2 else text for n, text in enumerate(LEFT)]
    assert style_accuracy(hedged, RIGHT, topics) > 0.55


def test_no_opening_belongs_to_a_side():
    for word in ("Yes", "No"):
        n_left, n_right = (sum(text.startswith(f"{word},") for text in side) for side in (LEFT, RIGHT))
        assert abs(n_left - n_right) <= 0.1 * (n_left + n_right), word


def test_shares_no_statement_with_the_instruments():
    known = shipped_statements()
    assert len(known) > 200
    texts = [text for row in ROWS for text in (row["prompt"], row["left"], row["right"])]
    found = overlaps(texts, known)
    assert [overlap.shared for overlap in found if overlap.shared] == []
    assert max(overlap.similarity for overlap in found) < 0.25
    assert overlaps([f"I say: {known[0].text}"], known)[0].shared  # and would be seen


def test_the_pairs_about_taste_are_as_even_and_argue_nothing():
    lines = files("data").joinpath("mirrored", "taste.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert Counter(row["topic"] for row in rows) == dict.fromkeys({row["topic"] for row in rows}, 8)
    assert all(list(row) == ["id", "topic", "prompt", "first", "second"] for row in rows)
    assert len({row["id"] for row in rows}) == len({row["prompt"] for row in rows}) == len(rows) == 64
    n_words = {side: np.array([len(row[side].split()) for row in rows]) for side in ("first", "second")}
    ratio = n_words["first"] / n_words["second"]
    assert 8 / 9 - 1e-9 <= ratio.min() <= ratio.max() <= 10 / 9 + 1e-9
    assert abs(n_words["first"].mean() - n_words["second"].mean()) < 0.1
    texts = [row[field] for row in rows for field in ("prompt", "first", "second")]
    assert max(overlap.similarity for overlap in overlaps(texts, shipped_statements())) < 0.25
    first, second = ([row[side] for row in rows] for side in ("first", "second"))
    assert style_accuracy(first, second, [row["topic"] for row in rows]) <= 0.65
