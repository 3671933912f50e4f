# SPDX-License-Identifier: MIT
"""A linear head on vectors of texts: fitted as scikit-learn fits it, and measured on topics that it has not seen."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from data.judging.judges import Text
from data.judging.trained import (
    FORMS,
    WORDS_PER_PIECE,
    Setting,
    Vectors,
    choose,
    cross_validate,
    embed_texts,
    fit,
    pieces,
    topic_folds,
)


def planted(n=120, dims=10, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.integers(n_classes, size=n)
    x = rng.normal(size=(n, dims)) + 1.5 * np.eye(n_classes, dims)[classes]
    return x / np.linalg.norm(x, axis=1, keepdims=True), classes


@pytest.mark.parametrize(("dims", "strength"), [(10, 0.5), (10, 30), (300, 3)])
def test_the_fit_is_the_one_of_scikit_learn(dims, strength):
    x, classes = planted(dims=dims)
    head = fit(x, classes, 3, strength)
    peer = LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(x, classes)
    new = planted(40, dims, seed=1)[0]
    assert np.exp(head.log_probabilities(new)) == pytest.approx(peer.predict_proba(new), abs=2e-4)


def test_a_class_that_nobody_named_is_hardly_said():
    x, classes = planted()
    assert np.exp(fit(x, classes, 4, 1.0).log_probabilities(x))[:, 3].max() < 1e-3


def test_pieces_hold_every_word_once():
    text = "One sentence here. " * 90 + "word " * 300 + "\nA line without an end\n\nAnd a last one!"
    found = pieces(text)
    assert " ".join(found).split() == text.split()
    assert max(len(piece.split()) for piece in found) <= WORDS_PER_PIECE
    assert found[0].endswith("here.")
    assert pieces("A short text.") == ["A short text."]
    assert pieces(" \n ") == []


def test_vectors_are_means_of_pieces_and_each_is_encoded_once():
    asked = []

    def embed(texts):
        asked.extend(texts)
        return np.array([[len(text), 1.0] for text in texts])

    long = "word " * 150
    texts = [Text(long, "tea"), Text("short", "tea"), Text("short", "")]
    found = embed_texts(embed, texts)
    assert len(asked) == len(set(asked)) == 4
    ends = [np.array([len(piece), 1.0]) / np.hypot(len(piece), 1) for piece in pieces(long)]
    assert found.text[0] == pytest.approx(np.mean(ends, axis=0) / np.linalg.norm(np.mean(ends, axis=0)))
    assert np.linalg.norm(found.text, axis=1) == pytest.approx(1)
    assert found.target[2].tolist() == [0, 0]
    assert found.form("text and target").shape == (3, 4)
    with pytest.raises(ValueError, match=r"the encoder gave \(1,\) for 4 texts"):
        embed_texts(lambda texts: np.zeros(1), texts)


def test_folds_hold_whole_topics_and_about_as_many_texts():
    topics = [f"t{k % 23}" for k in range(200)]
    folds = topic_folds(topics, 5, 0)
    assert all(len({fold for fold, topic in zip(folds, topics) if topic == name}) == 1 for name in set(topics))
    sizes = np.bincount(folds)
    assert sizes.min() >= 30
    assert (topic_folds(topics, 5, 1) != folds).any()
    with pytest.raises(ValueError, match="23 topics for 30 folds; use fewer folds"):
        topic_folds(topics, 30, 0)


def test_what_is_known_of_a_topic_is_no_help_on_another():
    """Features that name the topic, which decides the label: right on texts seen, chance on held-out topics."""
    rng = np.random.default_rng(0)
    topics = np.repeat(np.arange(40), 8)
    labels = rng.integers(2, size=40)[topics]
    x = np.eye(40)[topics] + 0.1 * rng.normal(size=(320, 40))
    vectors = Vectors(x, np.zeros_like(x))
    setting, names = [Setting("text", 10.0)], [f"t{k}" for k in topics]
    seen = fit(x, labels, 2, 10.0).log_probabilities(x).argmax(1)
    assert (seen == labels).mean() > 0.95
    held_out = cross_validate(vectors, labels, 2, names, setting, topic_folds(names, 8, 0), 0)
    assert 0.2 < (held_out.classes == labels).mean() < 0.7
    assert held_out.settings == setting * 8


def test_a_setting_is_chosen_on_held_out_topics():
    x, classes = planted(200, 30)
    topics = [f"t{k % 20}" for k in range(200)]
    settings = [Setting("text", s) for s in (1e-4, 1.0, 1e4)]
    vectors = Vectors(x, np.zeros_like(x))
    assert choose(vectors, classes, 3, topics, settings, 0).strength == 1.0
    noise = np.random.default_rng(1).normal(size=(200, 30))
    assert choose(Vectors(noise, noise), classes, 3, topics, settings, 0).strength == 1e-4
    # a label that only the product of text and target shows
    rng = np.random.default_rng(2)
    text, target = (rng.choice([-1.0, 1.0], size=(200, 1)) * np.ones(4) / 2 for _ in range(2))
    said = (text[:, 0] * target[:, 0] > 0).astype(int)
    both = [Setting(form, 10.0) for form in FORMS]
    assert choose(Vectors(text, target), said, 2, topics, both, 0).form == "text and target"
