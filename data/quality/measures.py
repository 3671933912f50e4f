# SPDX-License-Identifier: MIT
"""Measures of a set's answers and prompts: length, features of style, and how well each of them tells the side.

The classifiers are cross-validated. Texts that belong together (near duplicates, both answers of a row, a topic) stay
in one fold, or the figure would only show that the classifier has seen the row before.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.language import lower_words, words

# Words that carry grammar rather than a subject: what style is made of once content is taken away.
FUNCTION_WORDS = tuple(
    """a about above after again against all almost also although always am among an and another any anyone
    are as at be because been before being below best better between both but by can cannot come could did do
    does down each either else enough even ever every everyone few fewer first for from full had has have he
    hence her here hers him his how however i if in instead into is it its itself just last least less let
    many may me might mine more most much must my neither never no nobody none nor not nothing now of off on
    once one only or other others ought our ours out over own perhaps quite rather same shall she should since
    so some somebody someone something sooner still such than that the their theirs them themselves then there
    these they this those though through thus to together too under until up upon us very was we well were
    what when where whether which while who whoever whole whom whose why will with within without would yes
    yet you your""".split()
)
PUNCTUATION = (",", ".", ";", ":", "!", "?", "-", "'", '"', "(")
STYLE_FEATURES = (
    *(*FUNCTION_WORDS, *PUNCTUATION, "n_words", "n_characters", "n_sentences"),
    *("characters_per_word", "words_per_sentence"),
)
N_FOLDS = 5
N_DRAWS = 3  # of the folds: with one the accuracy moves by up to a point
MAX_TEXTS = 20_000


def longer_share(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the share of pairs whose first text has more words; a tie counts one half."""
    lengths = [(len(words(a)), len(words(b))) for a, b in zip(first, second, strict=True)]
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in lengths]))


def length_rule_accuracy(first: Sequence[str], second: Sequence[str]) -> float:
    """Return how often the better of "take the longer" and "take the shorter" finds the first text."""
    share = longer_share(first, second)
    return max(share, 1 - share)


def wilson(p: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share ``p`` of ``n`` (Wilson 1927, JASA 22); scipy takes only whole successes."""
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def style_features(texts: Sequence[str]) -> np.ndarray:
    """Return ``STYLE_FEATURES`` of each text, float ``[N, F]``; words and punctuation are counted per 100 words."""
    rows = []
    for text in texts:
        tokens = lower_words(text)
        n_words, n_sentences = max(1, len(tokens)), max(1, sum(map(text.count, ".!?")))
        rate, counts = 100 / n_words, Counter(tokens)
        rows.append(
            [counts[word] * rate for word in FUNCTION_WORDS]
            + [text.count(mark) * rate for mark in PUNCTUATION]
            + [n_words, len(text), n_sentences, sum(map(len, tokens)) / n_words, n_words / n_sentences]
        )
    return np.array(rows, dtype=float)


class Guess(NamedTuple):
    """How well a label can be guessed."""

    accuracy: float  # share guessed right, 0 to 1, mean over the labels and over the draws of folds; .5 is chance
    ci95: tuple[float, float]  # Wilson interval, as of so many independent guesses as there are groups
    n: int  # texts
    n_groups: int  # that stayed together
    telling: list[tuple[str, str]]  # words or features that tell the labels apart best, each with its label


def prompt_guess(
    texts: Sequence[str], labels: Sequence[str], groups: Sequence[Hashable], seed: int = 0
) -> Guess | None:
    """Guess labels from the words of a text, as a set; arguments as :func:`style_guess`."""
    from sklearn.feature_extraction.text import CountVectorizer

    texts, labels, groups = _sample(texts, labels, groups, seed)
    # a word that only the held-out fold has gets no weight, so one vocabulary for all folds leaks nothing
    vectorizer = CountVectorizer(analyzer=lower_words, binary=True)
    features = vectorizer.fit_transform(texts)
    return _guess(_classifier(is_scaled=False), features, vectorizer.get_feature_names_out(), labels, groups, seed)


def style_guess(texts: Sequence[str], labels: Sequence[str], groups: Sequence[Hashable], seed: int = 0) -> Guess | None:
    """Guess labels from style; None with one label, or fewer groups, which stay in one fold, than folds."""
    texts, labels, groups = _sample(texts, labels, groups, seed)
    return _guess(_classifier(is_scaled=True), style_features(texts), STYLE_FEATURES, labels, groups, seed)


def style_scores(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return log-odds, ``[N]``, of the second of two labels (by name) given style, from folds without the text."""
    y = np.unique(labels, return_inverse=True)[1]
    return _from_other_folds(_classifier(is_scaled=True), features, y, groups, seed, method="decision_function")


def require_sklearn() -> None:
    """Refuse early, with an ImportError that says what to install."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError('an audit needs scikit-learn: pip install -c constraints.txt -e ".[audit]"') from error


def _classifier(is_scaled: bool) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(*([StandardScaler()] if is_scaled else []), LogisticRegression(solver="liblinear"))


def _guess(
    classifier: Any, features: Any, names: Sequence[str], labels: list[str], groups: list[Hashable], seed: int
) -> Guess | None:
    from sklearn.metrics import balanced_accuracy_score

    kinds, y = np.unique(labels, return_inverse=True)
    n_groups = len(set(map(repr, groups)))
    if len(kinds) != 2 or n_groups < N_FOLDS or min(np.bincount(y)) < N_FOLDS:
        return None
    draws = [_from_other_folds(classifier, features, y, groups, seed + draw) for draw in range(N_DRAWS)]
    accuracy = float(np.mean([balanced_accuracy_score(y, guessed) for guessed in draws]))
    weights = classifier.fit(features, y)[-1].coef_[0]
    order = np.argsort(-np.abs(weights), kind="stable")[:10]
    telling = [(str(names[i]), str(kinds[int(weights[i] > 0)])) for i in order if weights[i]]
    return Guess(accuracy, wilson(accuracy, min(len(y), n_groups)), len(y), n_groups, telling)


def _from_other_folds(
    classifier: Any, features: Any, y: np.ndarray, groups: Iterable[Hashable], seed: int, *, method: str = "predict"
) -> np.ndarray:
    """Return what a classifier says of each text after it was fitted on the folds without the text."""
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    group_ids = np.unique(list(map(repr, groups)), return_inverse=True)[1]
    return cross_val_predict(classifier, features, y, groups=group_ids, cv=folds, method=method)


def _sample(texts: Sequence[str], labels: Sequence[str], groups: Sequence[Hashable], seed: int) -> tuple[list, ...]:
    """Draw whole groups until the limit, so that a big set costs minutes and not hours."""
    if len(texts) <= MAX_TEXTS:
        return list(texts), list(labels), list(groups)
    order = np.random.default_rng(seed).permutation(len(texts))[:MAX_TEXTS]
    drawn = {repr(groups[i]) for i in order[: MAX_TEXTS // 2]}
    kept = [i for i in range(len(texts)) if repr(groups[i]) in drawn][:MAX_TEXTS]
    return tuple([column[i] for i in kept] for column in (texts, labels, groups))
