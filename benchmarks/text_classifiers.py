# SPDX-License-Identifier: MIT
"""Make ``data/quality/classifiers.json``, and say how often each classifier is wrong on texts that it has not seen.

    python -m benchmarks.text_classifiers --data FOLDER

The texts of each kind are our own (``benchmarks/audit_texts``, a text a line). Texts that are not of the kind are our
own neutral prompts, the shipped set, and from ``FOLDER``: IdeoINST's prompts without their lists of options
(``ideoinst/pairs.jsonl``, MIT, Chen et al. 2024) and TwinViews' statements (``twinviews_4000.csv``, CC BY 4.0, Fulay et
al. 2024). Requests for opposed stances (``paired_prompts_400.csv``, CC BY 4.0, Anthropic 2025) are framed prompts too.
None of their text is written down, only weights of words. Figures are of ten folds; the threshold of a kind is the
lowest from which at most ``MAX_FALSE`` of the other texts are taken for it.

Sides are told by weights that are fitted on the answers of the shipped set, of IdeoINST where its authors' labels of
both answers are the sides, and on TwinViews' statements. Each of the three is told by weights of the other two.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import vstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from data.language import letter_runs, sentences
from data.pairs.records import SIDES
from data.pairs.rows import read_table
from data.quality.classifiers import ANCHORS, Classifier, Measured, features, stored, words_of
from data.quality.phrases import preamble_words, refusal_words
from data.quality.sides import side_score

TEXTS = Path(__file__).with_name("audit_texts")
TARGET = Path(__file__).parents[1] / "data" / "quality" / "classifiers.json"
# rows of a source that is not seen which sides may take for exchanged, and what its weights are fitted with
MAX_EXCHANGED, SIDE_PENALTY, MIN_TEXTS, MIN_SIDE_WEIGHT, MIN_TOPIC = 0.005, 0.1, 4, 0.05, 50
LANGUAGE = TARGET.parents[1] / "language.json"
MAX_FALSE = {"framed": 0.01, "unseen": 0.003, "refusal": 0.0002, "preamble": 0.0002}
MAX_FALSE_HELD = 0.001
MIN_THRESHOLD = {"framed": 0.75, "unseen": 2.0}  # log-odds, else .5: of texts by other writers more are on the edge
INVERSE_PENALTY = 3.0
N_FOLDS = 10
_OPTIONS = re.compile(r"(?<=[?.!])[^?.!]*/[^?]*$")  # of IdeoINST's prompts
_OPEN = re.compile(r"\?|\b(?:whether|views?|opinions?|thoughts?|stance|feelings?)\b")  # its others may be framed
_STANCE_ORDERED = ("Argue", "Write", "Convince", "Tell")  # templates of the paired requests that order a stance


class Text(NamedTuple):
    """A text, whether it is of the kind, how much it counts, and whether figures are taken over it.

    The held ones are all scored by a model that has seen none of them: they show what another writer's texts get.
    """

    text: str
    is_kind: bool
    weight: float = 1.0
    counts: bool = True
    is_held: bool = False


def own(*names: str) -> list[str]:
    """Return the lines of files of our own texts."""
    return [line for name in names for line in (TEXTS / f"{name}.txt").read_text(encoding="utf-8").splitlines() if line]


def corpus(folder: Path, n_sentences: int = 20_000) -> dict[str, list[Text]]:
    """Return the texts of each classifier, those of its kind first."""
    shipped = read_table(files("data").joinpath("mirrored", "pairs.jsonl"))
    ideo = [row["prompt"] for row in read_table(folder / "ideoinst" / "pairs.jsonl")]
    ideo = [_OPTIONS.sub("", prompt).replace("\nExpected", "").strip() for prompt in ideo]
    ideo = [prompt for prompt in ideo if _OPEN.search(prompt)]
    pairs = [
        row for row in read_table(folder / "paired_prompts_400.csv") if row["template"].startswith(_STANCE_ORDERED)
    ]
    twins = [row[side] for row in read_table(folder / "twinviews_4000.csv") for side in ("l", "r")]
    ideologues = [row[side] for row in read_table(folder / "ideoinst" / "pairs.jsonl") for side in SIDES]
    answers = twins + ideologues
    framed, unseen, refusals, preambles = map(own, ("framed", "unseen", "refusal", "preamble"))
    preambles += own("closing")
    neutral = [Text(t, False) for t in [*own("neutral", "seen"), *(row["prompt"] for row in shipped)]]
    neutral += [Text(t, False, 0.4) for t in ideo]
    # a prompt's sentences are looked at one by one too
    alone = [
        Text(t, False, 0.5, False)
        for prompt in neutral
        if len(sentences(prompt.text)) > 1
        for t in sentences(prompt.text)
    ]
    prompts = [Text(t.text, False, 0.4, False) for t in neutral] + [
        Text(t, False, 0.4, False) for t in [*framed, *unseen]
    ]
    rng = random.Random(0)
    # sentences of the shipped answers, which speak in the first person as a good answer does, set the thresholds
    spoken = [Text(t, False) for t in own("answer")]
    held = [Text(t, False, is_held=True) for row in shipped for side in SIDES for t in sentences(row[side])]
    said = [sentence for answer in answers for sentence in sentences(answer) if not refusal_words(sentence)]
    first = [sentences(answer)[0] for answer in answers]
    first = [sentence for sentence in first if not preamble_words(sentence)]
    return {
        "framed": [Text(t, True) for t in framed]
        + [Text(row[f"prompt_{which}"], True, 0.15, False) for row in pairs for which in "ab"]
        + neutral
        + alone,
        "unseen": [Text(t, True) for t in unseen] + neutral + [Text(t, False, 0.5) for t in framed],
        "refusal": [Text(t, True) for t in refusals]
        + [Text(t, False, 0.3) for t in rng.sample(said, min(n_sentences, len(said)))]
        + [Text(t, False, 1.0, False) for t in preambles]
        + held
        + spoken
        + prompts,
        "preamble": [Text(t, True) for t in preambles]
        + [Text(t, False, 1.0, False) for t in refusals]
        + [Text(t, False, 0.3) for t in rng.sample(first, min(n_sentences, len(first)))]
        + held
        + spoken
        + prompts,
    }


def letters(folder: Path) -> str:
    """Return the text of ``data/language.json``: which runs of letters are those of English, and which of others."""
    shipped = read_table(files("data").joinpath("mirrored", "pairs.jsonl"))
    others = own("foreign")
    rows = read_table(folder / "ideoinst" / "pairs.jsonl")
    english = [s for row in shipped for name in ("prompt", *SIDES) for s in sentences(row[name])]
    english += [s for row in rows for side in SIDES for s in sentences(row[side])]
    english += [row[side] for row in read_table(folder / "twinviews_4000.csv") for side in ("l", "r")]
    english += own("framed", "neutral", "unseen", "seen", "refusal", "preamble", "closing", "answer")
    texts = [*others, *english]
    y = np.arange(len(texts)) < len(others)
    weight = np.where(y, 1.0, 0.3)
    vectorizer = CountVectorizer(analyzer=letter_runs, binary=True, min_df=2)
    found = vectorizer.fit_transform(texts)
    scores = np.zeros(len(y))
    for rows_, rest in StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(found, y):
        model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear").fit(
            found[rows_], y[rows_], sample_weight=weight[rows_]
        )
        scores[rest] = model.decision_function(found[rest])
    threshold = float(np.quantile(scores[~y], 1 - 2e-4))
    found_share, false_share = np.mean(scores[y] > threshold), np.mean(scores[~y] > threshold)
    print(f"language: {found_share:.3f} of {y.sum()} found, {false_share:.5f} of {(~y).sum()} sentences of English")
    model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear").fit(found, y, sample_weight=weight)
    weights = dict(zip(vectorizer.get_feature_names_out().tolist(), model.coef_[0].tolist()))
    kept = {run: round(value, 2) for run, value in sorted(weights.items()) if abs(value) >= 0.05}
    return (
        json.dumps(
            {"bias": round(float(model.intercept_[0]) - threshold, 3), "weights": kept}, indent=0, ensure_ascii=False
        )
        + "\n"
    )


def fit(name: str, texts: Sequence[Text]) -> Classifier:
    """Fit a classifier on all texts, after its threshold and its figures are taken from folds without the text."""
    y, weight = np.array([t.is_kind for t in texts]), np.array([t.weight for t in texts])
    counts = np.array([t.counts for t in texts])
    vectorizer = CountVectorizer(analyzer=features, binary=True, min_df=2)
    found = vectorizer.fit_transform([t.text for t in texts])

    def fitted(rows: np.ndarray) -> LogisticRegression:
        model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear")
        return model.fit(found[rows], y[rows], sample_weight=weight[rows])

    scores = np.zeros(len(y))
    for rows, others in StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(found, y):
        scores[others] = fitted(rows).decision_function(found[others])
    held = np.array([t.is_held for t in texts])
    if held.any():
        scores[held] = fitted(np.flatnonzero(~held)).decision_function(found[held])
    if anchor := ANCHORS.get(name):
        scores[[not anchor.search(t.text) for t in texts]] = -np.inf
    of_kind, of_others = scores[y & counts], scores[~y & counts]
    threshold = max(MIN_THRESHOLD.get(name, 0.5), float(np.quantile(of_others, 1 - MAX_FALSE[name], method="lower")))
    if held.any():
        threshold = max(threshold, float(np.quantile(scores[held], 1 - MAX_FALSE_HELD, method="lower")))
    measured = Measured(
        round(float(np.mean(of_kind > threshold)), 4),
        len(of_kind),
        round(float(np.mean(of_others > threshold)), 4),
        len(of_others),
    )
    model = fitted(np.arange(len(y)))
    weights = dict(zip(vectorizer.get_feature_names_out().tolist(), model.coef_[0].tolist()))
    return Classifier(weights, float(model.intercept_[0]), threshold, measured)


class Opposed(NamedTuple):
    """What the two sides say, and on which topic."""

    topic: str
    left: str
    right: str


def opposed(folder: Path) -> dict[str, list[Opposed]]:
    """Return the pairs of each source."""
    ideo = [
        row
        for row in read_table(folder / "ideoinst" / "pairs.jsonl")
        if all(side in str(row[f"{side}_label"]).lower() for side in SIDES)
    ]
    shipped = read_table(files("data").joinpath("mirrored", "pairs.jsonl"))
    return {
        "TwinViews": [Opposed(row["topic"], row["l"], row["r"]) for row in read_table(folder / "twinviews_4000.csv")],
        "IdeoINST": [Opposed(row["topic"], row["left"], row["right"]) for row in ideo],
        "shipped": [Opposed(row["axis"], row["left"], row["right"]) for row in shipped],
    }


def side_weights(pairs: Sequence[Opposed]) -> dict[str, float]:
    """Fit the weights of words by which a left answer is told from a right one."""
    vectorizer = CountVectorizer(analyzer=words_of, binary=True, min_df=MIN_TEXTS)
    found = vectorizer.fit_transform([p.left for p in pairs] + [p.right for p in pairs]).astype(float)
    differences = found[: len(pairs)] - found[len(pairs) :]
    model = LogisticRegression(C=SIDE_PENALTY, solver="liblinear", fit_intercept=False)
    model.fit(vstack([differences, -differences]).tocsr(), np.repeat([1, 0], len(pairs)))
    weights = zip(vectorizer.get_feature_names_out().tolist(), model.coef_[0].tolist())
    return {name: round(weight, 2) for name, weight in sorted(weights) if abs(weight) >= MIN_SIDE_WEIGHT}


def side(folder: Path) -> dict[str, Any]:
    """Return what is stored of sides, and print how often the weights are right about a source that is not theirs."""
    sources = opposed(folder)
    scores = {}
    for name, pairs in sources.items():
        weights = side_weights([pair for other, rest in sources.items() if other != name for pair in rest])
        scores[name] = np.array([side_score(pair.left, pair.right, weights) for pair in pairs])
    threshold = max(float(-np.quantile(of_source, MAX_EXCHANGED)) for of_source in scores.values())
    held_out = {}
    for name, pairs in sources.items():
        topics = np.array([pair.topic.lower() for pair in pairs])
        often = [topic for topic, n in Counter(topics.tolist()).most_common() if n >= MIN_TOPIC]
        places = {topic: topics == topic for topic in often} | {"others": ~np.isin(topics, often)}
        for topic, there in places.items():
            s = scores[name][there]
            if len(s):
                told = [len(s), int((s > threshold).sum()), int((s < -threshold).sum())]
                held_out[f"{name}: {topic}"] = told
                print(f"side {name}: {topic} {told}, right with no threshold {np.mean(s > 0):.3f}")
    weights = side_weights([pair for pairs in sources.values() for pair in pairs])
    return {"threshold": round(threshold, 3), "held_out": held_out, "weights": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with the public sets")
    folder = parser.parse_args().data
    LANGUAGE.write_text(letters(folder), encoding="utf-8")
    kinds = {name: fit(name, texts) for name, texts in corpus(folder).items()}
    TARGET.write_text(stored(kinds, side(folder)), encoding="utf-8")
    print(f"{'kind':<10}{'recall':>8}{'of':>6}{'false':>8}{'of':>6}{'threshold':>11}{'weights':>9}")
    for name, kind in kinds.items():
        m = kind.measured
        print(
            f"{name:<10}{m.recall:>8.3f}{m.n:>6}{m.false_alarms:>8.4f}{m.n_others:>6}{kind.threshold:>11.2f}{len(kind.weights):>9}"
        )


if __name__ == "__main__":
    main()
