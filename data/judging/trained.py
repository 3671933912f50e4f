# SPDX-License-Identifier: MIT
"""A linear head on the vectors of a frozen sentence encoder that reads texts as people have labelled them.

A text is cut into pieces at the ends of sentences, so that nothing of it is left out; its vector is the mean of theirs.
The head is a multinomial logistic regression. How the vectors are used and how strongly the weights are held back is
chosen by folds within the training texts, and the head is measured on folds of other topics than it was fitted on.

Legend: N texts, D dimensions, C classes.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from data.judging.judges import Text

Embed = Callable[[Sequence[str]], np.ndarray]  # texts to vectors, [N, D]
WORDS_PER_PIECE = 120  # well within the 256 tokens that small sentence encoders read
FORMS = ("text", "text and target")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")


class Vectors(NamedTuple):
    """Unit vectors of texts, and of what each is about, ``[N, D]``; the latter is 0 where nothing is named."""

    text: np.ndarray
    target: np.ndarray

    def form(self, name: str) -> np.ndarray:
        """Return the features of one of :data:`FORMS`; the second adds the product of text and target."""
        if name == "text":
            return self.text
        return np.hstack([self.text, _unit(self.text * self.target)])

    def take(self, rows: np.ndarray) -> "Vectors":
        """Return some of the texts."""
        return Vectors(self.text[rows], self.target[rows])


class Setting(NamedTuple):
    """How a head is fitted."""

    form: str  # of the features
    strength: float  # inverse of the penalty on the weights, as scikit-learn's C


class Head(NamedTuple):
    """Weights of a multinomial logistic regression."""

    weights: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return the log-probability of each class in nats, ``[N, C]``."""
        return special.log_softmax(features @ self.weights + self.bias, axis=1)


class HeldOut(NamedTuple):
    """What heads say of texts whose topics they were not fitted on."""

    classes: np.ndarray  # index of the likeliest class, [N]
    settings: list[Setting]  # of each fold, chosen on its training texts


def pieces(text: str) -> list[str]:
    """Cut a text at ends of sentences and lines into pieces of at most :data:`WORDS_PER_PIECE` words, none left out."""
    found: list[list[str]] = [[]]
    for sentence in filter(str.strip, _SENTENCE_END.split(text)):
        words = sentence.split()
        # a sentence of more words than a piece is cut too
        for start in range(0, len(words), WORDS_PER_PIECE):
            part = words[start : start + WORDS_PER_PIECE]
            if found[-1] and len(found[-1]) + len(part) > WORDS_PER_PIECE:
                found.append([])
            found[-1] += part
    return [" ".join(words) for words in found if words]


def embed_texts(embed: Embed, texts: Sequence[Text]) -> Vectors:
    """Return the vectors of texts, 0 for an empty one; equal texts and targets are encoded once."""
    cut = [pieces(text.text) for text in texts]
    unique = list(dict.fromkeys([piece for each in cut for piece in each] + [t.target for t in texts if t.target]))
    vectors = np.asarray(embed(unique), dtype=float) if unique else np.zeros((0, 1))
    if vectors.ndim != 2 or len(vectors) != len(unique) or not np.isfinite(vectors).all():
        form = f"{vectors.shape}, not all numbers," if len(vectors) == len(unique) else f"{vectors.shape}"
        raise ValueError(f"the encoder gave {form} for {len(unique)} texts; want a vector of numbers for each")
    place = dict(zip(unique, _unit(vectors)))
    nothing = np.zeros(vectors.shape[1])
    of_text = np.array([np.mean([place[piece] for piece in each] or [nothing], axis=0) for each in cut])
    return Vectors(_unit(of_text), np.array([place[t.target] if t.target else nothing for t in texts]))


def fit(features: np.ndarray, classes: np.ndarray, n_classes: int, strength: float) -> Head:
    """Fit a multinomial logistic regression: least ``strength * sum(loss) + |weights|² / 2``, bias not held back.

    ``classes`` are indices, ``[N]``. The minimum is found by L-BFGS; it is the one of scikit-learn's
    ``LogisticRegression(C=strength)``.
    """
    # the weights of the minimum lie in the span of the features, so at most N dimensions are searched
    basis = np.linalg.svd(features, full_matrices=False)[2] if features.shape[1] > len(features) else None
    x = features if basis is None else features @ basis.T
    truth = np.eye(n_classes)[classes]
    shape = x.shape[1], n_classes

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: -shape[1]].reshape(shape), flat[-shape[1] :]
        log_p = special.log_softmax(x @ weights + bias, axis=1)
        wrong = np.exp(log_p) - truth
        value = -strength * float((truth * log_p).sum()) + float((weights**2).sum()) / 2
        return value, np.concatenate([(strength * x.T @ wrong + weights).ravel(), strength * wrong.sum(0)])

    start = np.zeros(shape[0] * shape[1] + shape[1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-12}).x
    weights = found[: -shape[1]].reshape(shape)
    return Head(weights if basis is None else basis.T @ weights, found[-shape[1] :])


def topic_folds(topics: Sequence[str], n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each text, ``[N]``: whole topics, in a drawn order, each into the fold with fewest texts."""
    names = sorted(set(topics))
    if len(names) < n_folds:
        raise ValueError(f"{len(names)} topics for {n_folds} folds; use fewer folds, or name another column of topics")
    sizes, folds = np.zeros(n_folds, int), {}
    for k in np.random.default_rng(seed).permutation(len(names)):
        folds[names[k]] = int(sizes.argmin())
        sizes[folds[names[k]]] += sum(topic == names[k] for topic in topics)
    return np.array([folds[topic] for topic in topics])


def choose(
    vectors: Vectors, classes: np.ndarray, n_classes: int, topics: Sequence[str], settings: Sequence[Setting], seed: int
) -> Setting:
    """Return the setting with the least loss on texts of topics that were held out, over five folds."""
    if len(settings) == 1:
        return settings[0]
    folds = topic_folds(topics, min(5, len(set(topics))), seed)
    losses = []
    for setting in settings:
        features, total = vectors.form(setting.form), 0.0
        for fold in range(folds.max() + 1):
            out = folds == fold
            head = fit(features[~out], classes[~out], n_classes, setting.strength)
            total -= float(head.log_probabilities(features[out])[np.arange(out.sum()), classes[out]].sum())
        losses.append(total)
    return settings[int(np.argmin(losses))]


def cross_validate(
    vectors: Vectors,
    classes: np.ndarray,
    n_classes: int,
    topics: Sequence[str],
    settings: Sequence[Setting],
    folds: np.ndarray,
    seed: int,
) -> HeldOut:
    """Return what heads say of each text that were fitted, and whose setting was chosen, on other topics alone.

    ``folds``, ``[N]``, are those of :func:`topic_folds`.
    """
    found, chosen = np.zeros(len(classes), int), []
    for fold in range(folds.max() + 1):
        out = folds == fold
        inside = vectors.take(~out), classes[~out]
        rest = [topic for topic, held in zip(topics, out) if not held]
        chosen.append(choose(*inside, n_classes, rest, settings, seed))
        head = fit(inside[0].form(chosen[-1].form), inside[1], n_classes, chosen[-1].strength)
        found[out] = head.log_probabilities(vectors.take(out).form(chosen[-1].form)).argmax(1)
    return HeldOut(found, chosen)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
