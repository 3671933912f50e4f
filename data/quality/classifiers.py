# SPDX-License-Identifier: MIT
"""Can the side be told from what should not tell it? Cross-validated classifiers on prompts and on style.

What belongs together (near duplicates, both answers of a row, a topic) stays in one fold, or the figure would only
show that the classifier has seen the row before. Chance is .5 whatever the sizes of the sides.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from data.language import words
from data.quality.measures import STYLE_FEATURES, style_features

N_FOLDS = 5
N_DRAWS = 3  # of the folds: with one the accuracy moves by up to a point
MAX_TEXTS = 20_000


class Guess(NamedTuple):
    """How well a label can be guessed.

    Attributes:
        accuracy: Mean over the labels, and over ``N_DRAWS`` draws of the folds, of the share guessed right, 0 to 1; .5
            is chance for two.
        ci95: Wilson interval of the accuracy, as of ``n_groups`` independent guesses at least.
        n: Texts.
        n_groups: Groups that stayed together.
        telling: Words or features that tell the labels apart best, each with the label that it speaks for.
    """

    accuracy: float
    ci95: tuple[float, float]
    n: int
    n_groups: int
    telling: list[tuple[str, str]]


def prompt_guess(
    texts: Sequence[str], labels: Sequence[str], groups: Sequence[Hashable], seed: int = 0
) -> Guess | None:
    """Guess labels from the words of a text, as a set; arguments as :func:`style_guess`."""
    require_sklearn()
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels, groups = _sample(texts, labels, groups, seed)
    # a word that only the held-out fold has gets no weight, so one vocabulary for all folds leaks nothing
    vectorizer = CountVectorizer(analyzer=_lower_words, binary=True)
    features = vectorizer.fit_transform(texts)
    classifier = make_pipeline(LogisticRegression(solver="liblinear"))
    return _guess(classifier, features, labels, groups, seed, vectorizer.get_feature_names_out())


def style_guess(texts: Sequence[str], labels: Sequence[str], groups: Sequence[Hashable], seed: int = 0) -> Guess | None:
    """Guess labels from function words, punctuation and length.

    Args:
        texts: Answers.
        labels: The side, or ``chosen`` and ``rejected``, of each.
        groups: What stays in one fold, of each.
        seed: Of the folds, and of the sample if there are more than ``MAX_TEXTS``.

    Returns:
        None if there is one label only, or fewer groups than folds.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    require_sklearn()
    texts, labels, groups = _sample(texts, labels, groups, seed)
    return _guess(_style_classifier(), style_features(texts), labels, groups, seed, STYLE_FEATURES)


def style_scores(features: np.ndarray, labels: Sequence[str], groups: Sequence[Hashable], seed: int = 0) -> np.ndarray:
    """Return how strongly style speaks for the second of two labels (by name), from folds without the text itself.

    Args:
        features: As :func:`data.quality.measures.style_features` gives them, ``[N, F]``.
        labels: Two labels, of each text.
        groups: What stays in one fold, of each; at least ``N_FOLDS`` different ones.
        seed: Of the folds.

    Returns:
        Log-odds, float ``[N]``; above 0 speaks for the second label.
    """
    require_sklearn()
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    y = np.unique(labels, return_inverse=True)[1]
    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    group_ids = np.unique([repr(group) for group in groups], return_inverse=True)[1]
    return cross_val_predict(_style_classifier(), features, y, groups=group_ids, cv=folds, method="decision_function")


def require_sklearn() -> None:
    """Refuse early what would fail late.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError('an audit needs scikit-learn: pip install -c constraints.txt -e ".[audit]"') from error


def _style_classifier():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(solver="liblinear"))


def _guess(classifier, features, labels: list, groups: list, seed: int, names: Sequence[str]) -> Guess | None:
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    kinds, y = np.unique(labels, return_inverse=True)
    group_ids = np.unique([repr(group) for group in groups], return_inverse=True)[1]
    n_groups = int(group_ids.max()) + 1 if len(group_ids) else 0
    if len(kinds) != 2 or n_groups < N_FOLDS or min(np.bincount(y)) < N_FOLDS:
        return None
    draws = []
    for draw in range(seed, seed + N_DRAWS):
        folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=draw)
        guessed = cross_val_predict(classifier, features, y, groups=group_ids, cv=folds)
        draws.append(np.mean([np.mean(guessed[y == k] == k) for k in range(2)]))
    accuracy = float(np.mean(draws))
    weights = classifier.fit(features, y)[-1].coef_[0]
    order = np.argsort(-np.abs(weights), kind="stable")[:10]
    telling = [(str(names[i]), str(kinds[int(weights[i] > 0)])) for i in order if weights[i]]
    return Guess(accuracy, wilson(accuracy, min(len(y), n_groups)), len(y), n_groups, telling)


def wilson(p: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share ``p`` of ``n`` (Wilson 1927, JASA 22)."""
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _lower_words(text: str) -> list[str]:
    return [word.lower() for word in words(text)]


def _sample(texts: Sequence[str], labels: Sequence[str], groups: Sequence[Hashable], seed: int) -> tuple[list, ...]:
    """Draw whole groups until the limit, so that a big set costs minutes and not hours."""
    if len(texts) <= MAX_TEXTS:
        return list(texts), list(labels), list(groups)
    order = np.random.default_rng(seed).permutation(len(texts))[:MAX_TEXTS]
    drawn = {repr(groups[i]) for i in order[: MAX_TEXTS // 2]}
    kept = [i for i in range(len(texts)) if repr(groups[i]) in drawn][:MAX_TEXTS]
    return tuple([column[i] for i in kept] for column in (texts, labels, groups))
