# SPDX-License-Identifier: MIT
"""What one or two preference sets measure: defects, length, what tells the side, topics, and the verdict on each."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from data.language import words
from data.quality.classifiers import N_FOLDS, Guess, prompt_guess, style_guess
from data.quality.defects import KINDS, Defect
from data.quality.duplicates import near_duplicate_clusters
from data.quality.measures import length_rule_accuracy, longer_share
from data.quality.sets import PreferenceSet

N_EXAMPLES = 5
# What is judged: the gate's name, and what its value means. A value over the limit fails.
GATES = {
    "hard_defects": "share of rows with a defect of the text or hard kinds",
    "framed_prompts": "share of prompts that name a side or order a stance",
    "length_mismatch": "share of rows whose answers' length ratio is outside the limits",
    "contamination": "share of rows that repeat an instrument",
    "personal_data": "share of rows with personal data",
    "toxicity": "share of rows with a text that scores more than max_toxicity",
    "length_rule": "accuracy of always taking the longer, or the shorter, answer",
    "topic_length_bias": "largest |share of chosen longer - .5| of any topic",
    "side_from_prompt": "how often the set is guessed from the words of the prompt",
    "side_from_style": "how often an answer's side is guessed from its style",
    "topic_imbalance": "largest difference between the sides in a topic's share",
}


def measure(
    sets: Sequence[PreferenceSet],
    defects: Mapping[str, Sequence[Defect]],
    seed: int,
    not_looked_for: Collection[str] = ("toxicity",),
) -> dict[str, Any]:
    """Measure sets as a report states them.

    Args:
        sets: One set, or a left and a right one.
        defects: Of each set by name, as :func:`data.quality.defects.set_defects` gives them, broken rows included.
        seed: Of the classifiers' folds.
        not_looked_for: Kinds of defects that the report leaves out, since nobody looked for them.

    Returns:
        ``sets`` (rows, lengths), ``defects`` (a class with its rates and examples), ``guesses``, ``topics``,
        ``shared_prompts``.
    """
    return {
        "sets": {s.name: _set_facts(s, defects[s.name]) for s in sets},
        "defects": [_class_facts(kind, sets, defects) for kind in KINDS if kind not in not_looked_for],
        "guesses": _guesses(sets, seed),
        "topics": {s.name: dict(sorted(Counter(s.topics).items())) for s in sets if s.topics},
        "shared_prompts": _shared_prompts(sets),
    }


def judge(report: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Compare a report with the limits; a gate without a limit, or that cannot be measured here, is not judged."""
    values = gate_values(report)
    return [
        {
            "gate": name,
            "meaning": meaning,
            "value": values[name],
            "limit": limits.get(name),
            "passed": None
            if values[name] is None or limits.get(name) is None
            else bool(values[name] <= limits[name] + 1e-9),
        }
        for name, meaning in GATES.items()
    ]


def gate_values(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the value that each gate judges: the worst of all sets."""
    by_kind = {entry["kind"]: max(entry["share"].values()) for entry in report["defects"]}
    lengths = [facts["length"] for facts in report["sets"].values()]
    topics = [topic["chosen_longer"] for length in lengths for topic in length["by_topic"].values()]
    guesses = report["guesses"]
    styles = [guess["accuracy"] for name, guess in guesses.items() if name.startswith("style") and guess]
    prompt = guesses.get("side_from_prompt")
    return {
        "hard_defects": max(facts["hard_defects"] for facts in report["sets"].values()),
        "framed_prompts": by_kind["framed prompt"],
        "length_mismatch": by_kind["length mismatch"],
        "contamination": by_kind["contamination"],
        "personal_data": by_kind["personal data"],
        "toxicity": by_kind.get("toxicity"),
        "length_rule": max(length["rule_accuracy"] for length in lengths),
        "topic_length_bias": max((abs(share - 0.5) for share in topics), default=None),
        "side_from_prompt": prompt["accuracy"] if prompt else None,
        "side_from_style": max(styles, default=None),
        "topic_imbalance": _topic_imbalance(report["topics"]),
    }


def _set_facts(one: PreferenceSet, defects: Sequence[Defect]) -> dict[str, Any]:
    chosen, rejected = ([getattr(pair, field) for pair in one.pairs] for field in ("chosen", "rejected"))
    n_words = {f: [len(words(getattr(p, f))) for p in one.pairs] for f in ("prompt", "chosen", "rejected")}
    more = np.array(n_words["chosen"]) > np.array(n_words["rejected"])
    rows: dict[str, set[int]] = defaultdict(set)
    for defect in defects:
        rows[KINDS[defect.kind].group].add(defect.row)
    by_topic: dict[str, list[int]] = defaultdict(list)
    for index, topic in enumerate(one.topics or []):
        by_topic[topic].append(index)
    return {
        "origin": one.origin,
        "dataset": one.dataset,
        "side": one.side,
        "sha256": one.sha256,
        "n_rows": one.n_rows,
        "n_valid": len(one.pairs),
        "text_defects": len(rows["text"]) / one.n_rows,
        "hard_defects": len(rows["text"] | rows["hard"]) / one.n_rows,
        "mean_words": {field: float(np.mean(counts)) for field, counts in n_words.items()},
        "length": {
            "chosen_longer": float(np.mean(more)),
            "rule_accuracy": length_rule_accuracy(chosen, rejected),
            "by_topic": {
                topic: {
                    "n": len(own),
                    "chosen_longer": longer_share([chosen[i] for i in own], [rejected[i] for i in own]),
                }
                for topic, own in sorted(by_topic.items())
            },
        },
    }


def _class_facts(kind: str, sets: Sequence[PreferenceSet], defects: Mapping[str, Sequence[Defect]]) -> dict[str, Any]:
    counts, shares, examples = {}, {}, []
    for one in sets:
        first = {}
        for defect in defects[one.name]:
            if defect.kind == kind:
                first.setdefault(defect.row, defect)
        counts[one.name], shares[one.name] = len(first), len(first) / one.n_rows
        texts = {pair.row: pair for pair in one.pairs}
        # evenly over the file, so that they are not all of one kind
        chosen = list(first.values())[:: max(1, len(first) // N_EXAMPLES)][:N_EXAMPLES]
        for defect in chosen:
            pair = texts.get(defect.row)
            shown = {f: getattr(pair, f) for f in ("prompt", "chosen", "rejected")} if pair else None
            examples.append({"set": one.name, **defect._asdict(), "texts": shown})
    group, meaning = KINDS[kind]
    return {"kind": kind, "group": group, "meaning": meaning, "rows": counts, "share": shares, "examples": examples}


def _guesses(sets: Sequence[PreferenceSet], seed: int) -> dict[str, dict[str, Any] | None]:
    pairs = [(one, index, pair) for one in sets for index, pair in enumerate(one.pairs)]
    together = near_duplicate_clusters([pair.prompt for _, _, pair in pairs])
    guesses: dict[str, Guess | None] = {}
    if len(sets) == 2:
        prompts, names = [pair.prompt for _, _, pair in pairs], [one.name for one, _, _ in pairs]
        guesses["side_from_prompt"] = prompt_guess(prompts, names, together, seed)
    # a topic in one fold is the harder test; without topics the near duplicates are
    topics = {topic for one in sets for topic in one.topics or []}
    groups = together
    if len(topics) > N_FOLDS and all(one.topics for one in sets):
        groups = [one.topics[index] for one, index, _ in pairs]
    answers = []
    for (one, _, pair), group in zip(pairs, groups):
        other = {"left": "right", "right": "left"}.get(one.side)
        answers.append((pair.chosen, one.side or "chosen", group, one.name))
        answers.append((pair.rejected, other or "rejected", group, one.name))
    for one in sets:
        own = [answer[:3] for answer in answers if answer[3] == one.name]
        guesses[f"style of {one.name}"] = style_guess(*zip(*own), seed)
    if len(sets) == 2:
        # an answer of a mirrored set is there twice, with one label
        guesses["style of both"] = style_guess(*zip(*dict.fromkeys(answer[:3] for answer in answers)), seed)
    return {name: guess._asdict() if guess else None for name, guess in guesses.items()}


def _shared_prompts(sets: Sequence[PreferenceSet]) -> int | None:
    if len(sets) != 2:
        return None
    first, second = ({" ".join(words(pair.prompt)).lower() for pair in one.pairs} for one in sets)
    return len(first & second)


def _topic_imbalance(topics: Mapping[str, Mapping[str, int]]) -> float | None:
    if len(topics) != 2:
        return None
    first, second = topics.values()
    shares = [{t: n / sum(counts.values()) for t, n in counts.items()} for counts in (first, second)]
    return max(abs(shares[0].get(topic, 0) - shares[1].get(topic, 0)) for topic in {*first, *second})
