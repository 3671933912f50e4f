# SPDX-License-Identifier: MIT
"""Length, style, and how well each tells the side: by hand, and on texts made for it."""

import re
import sys

import numpy as np
import pytest

from data.quality import measures


def test_length_rules_by_hand():
    first, second = ["a b", "a b c", "a", "a"], ["a", "a", "b", "a b"]
    assert measures.longer_share(first, second) == pytest.approx(2.5 / 4)
    assert measures.length_rule_accuracy(first, second) == pytest.approx(2.5 / 4)
    assert measures.length_rule_accuracy(second, first) == pytest.approx(2.5 / 4)


def test_style_features_by_hand():
    features = measures.style_features(["The cat, the dog.", "No! It isn't."])
    assert features.shape == (2, len(measures.STYLE_FEATURES))
    column = dict(zip(measures.STYLE_FEATURES, features.T))
    assert column["the"].tolist() == [50, 0]
    assert column["no"] == pytest.approx([0, 100 / 3])
    assert column[","].tolist() == [25, 0]
    assert column["n_words"].tolist() == [4, 3]
    assert column["n_characters"].tolist() == [17, 13]
    assert column["n_sentences"].tolist() == [1, 2]
    assert column["characters_per_word"] == pytest.approx([12 / 4, 9 / 3])
    assert column["words_per_sentence"].tolist() == [4, 1.5]
    assert len(set(measures.STYLE_FEATURES)) == len(measures.STYLE_FEATURES)
    assert np.isfinite(measures.style_features([""])).all()


def test_prompts_that_tell_the_side_are_seen_and_leaks_are_not():
    rng = np.random.default_rng(0)
    vocabulary = [f"word{n}" for n in range(200)]
    texts = [" ".join(rng.choice(vocabulary, 12)) for _ in range(200)]
    sides = ["left", "right"] * 100
    assert measures.prompt_guess(texts, sides, range(200)).accuracy == pytest.approx(0.5, abs=0.12)
    telling = [f"{text} wages" if side == "left" else text for text, side in zip(texts, sides)]
    guess = measures.prompt_guess(telling, sides, range(200))
    assert guess.accuracy > 0.9
    assert guess.telling[0] == ("wages", "left")
    # ten copies of each of 20 texts: a fold that shares copies would know them by heart
    copies, own_sides = texts[:20] * 10, sides[:20] * 10
    assert measures.prompt_guess(copies, own_sides, list(range(20)) * 10).accuracy < 0.8
    assert measures.prompt_guess(copies, own_sides, range(200)).accuracy > 0.95


def test_style_is_measured_without_words_of_content():
    left, right = [f"I say thing{n}, and it is so." for n in range(60)], [f"Thing{n} will come!" for n in range(60)]
    guess = measures.style_guess([*left, *right], ["left"] * 60 + ["right"] * 60, [*range(60)] * 2)
    assert guess.accuracy == 1
    assert measures.style_guess(left, ["left"] * 60, range(60)) is None


def test_scikit_learn_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=re.escape('pip install -c constraints.txt -e ".[audit]"')):
        measures.require_sklearn()
