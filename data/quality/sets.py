# SPDX-License-Identifier: MIT
"""One or two preference sets as an audit looks at them: their rows and sides, what they measure, and the verdicts."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.language import lower_words, words
from data.pairs.records import (
    COLUMNS,
    OTHER_SIDE,
    SIDES,
    Pair,
    duplicate_ids,
    pair_key,
    read_figures,
    split_rows,
)
from data.pairs.rows import file_format, load_rows
from data.quality.classifiers import Measured, corrected_share
from data.quality.defects import KINDS, Defect
from data.quality.duplicates import near_duplicate_clusters
from data.quality.measures import N_FOLDS, Guess, longer_share, prompt_guess, style_guess, wilson
from data.quality.personal import mask_personal
from data.quality.sides import exchange

N_EXAMPLES = 5
N_INFLUENTIAL = 10
N_BINS = 15
# The gate of framed prompts on 100 framed and 100 neutral prompts that were written without sight of its rules:
# python -m benchmarks.audit_bench benchmarks/audit_bench.jsonl --framing benchmarks/framing_gold.jsonl
FRAMED = Measured(recall=0.61, n=100, false_alarms=0.01, n_others=100)
Rows = list[tuple[int, dict[str, Any]]]  # each with its number
# Each gate's name and the meaning of its value. A value over the limit fails.
GATES = {
    "hard_defects": "share of rows with a defect of the text or hard kinds",
    "framed_prompts": "share of prompts that name a side, or order, praise or presuppose a stance, as found",
    "length_mismatch": "share of rows whose answers' length ratio is outside the limits",
    "contamination": "share of rows that repeat an instrument",
    "personal_data": "share of rows with personal data",
    "toxicity": "share of rows with a text that scores more than max_toxicity",
    "length_rule": "accuracy of always taking the longer, or the shorter, answer",
    "topic_length_bias": "largest |share of chosen longer - .5| of any topic",
    "side_from_prompt": "how often the set is guessed from the words of the prompt",
    "side_from_style": "how often an answer's side is guessed from its style",
    "exchanged_sides": "least share of rows whose answers are exchanged, by its interval; a repair keeps them",
    "topic_imbalance": "largest difference between the sides in a topic's share",
}
# What a gate needs that not every audit has.
NEEDS = {
    "toxicity": "toxicity=null",
    "topic_length_bias": "needs a topic in every row (topic_column)",
    "side_from_prompt": f"needs source.left and source.right, with {N_FOLDS} different prompts each",
    "side_from_style": f"needs {N_FOLDS} rows with different prompts",
    "exchanged_sides": "needs a side (side, or source.left and source.right), and words that tell it",
    "topic_imbalance": "needs source.left and source.right with a topic in every row (topic_column)",
}
# Of fewer rows a share lies up to .1 beside the true one by chance (95 % interval), and no gate allows more than .05.
FEW_ROWS = 100
REPAIR_GATES = {"side_difference": "difference between the sides in the share of rows that the repair kept"}


class PreferenceSet(NamedTuple):
    """One set, or the rows of one side of a set."""

    name: str  # left, right, or set if the side is not known
    side: str | None  # of the chosen answers
    origin: str  # file or repository
    n_rows: int  # invalid ones included
    pairs: list[Pair]  # the valid rows, with their numbers in the whole file
    topics: list[str] | None  # of each pair; None without such a column
    ids: list[str]  # of each pair, or the number of its row
    broken: list[Defect]  # invalid rows, and ids that occur twice
    sha256: str  # of all rows

    @property
    def dataset(self) -> str:
        """The source that a row names: the repository, or a file without its folders."""
        return Path(self.origin).name if file_format(self.origin) else self.origin


def load_sets(
    source: str | Mapping[str, str],
    column_map: Mapping[str, str] | None = None,
    side: str | None = None,
    topic_column: str = "topic",
    split: str = "train",
    revision: str | None = None,
    name: str | Mapping[str, str] | None = None,
) -> list[PreferenceSet]:
    """Load one set or two; the arguments are keys of ``configs/audit.yaml``."""
    if source is None:
        raise ValueError("source is null; give source=FILE or source=owner/name, or source.left=… source.right=…")
    if isinstance(source, Mapping):
        if not source or not {*source} <= {*SIDES}:
            raise ValueError(f"source has {', '.join(map(str, source))}; use one path or name, or left and right")
        if side is not None:
            raise ValueError(f"side={side}, but source.left and source.right say the sides; leave side=null")
        named: dict[str | None, str] = {name: str(source[name]) for name in SIDES if name in source}
    else:
        named = {side: str(source)}
    sets = []
    for side_or_column, path in named.items():
        config = name.get(side_or_column or "") if isinstance(name, Mapping) else name
        rows, origin = load_rows(path, None, split, revision, config)
        numbered = list(enumerate(rows, start=1))
        if side_or_column is None or side_or_column in SIDES:
            parts: dict[str | None, Rows] = {side_or_column: numbered}
        else:
            parts = _by_column(side_or_column, origin, numbered)
        sets += [_make(name, origin, part, column_map, topic_column) for name, part in parts.items()]
    return sets


def _by_column(column: str, origin: str, numbered: Rows) -> dict[str | None, Rows]:
    parts: dict[str | None, Rows] = {side: [] for side in SIDES}
    for number, row in numbered:
        if row.get(column) not in SIDES:
            problem = f"{column}={row[column]!r}" if column in row else f"no column {column}"
            allowed = "left, right, or a column that holds one of them"
            raise ValueError(f"{origin} row {number}: {problem}; side must be {allowed}")
        parts[row[column]].append((number, row))
    return {side: part for side, part in parts.items() if part}


def _make(
    side: str | None, origin: str, numbered: Rows, column_map: Mapping[str, str] | None, topic_column: str
) -> PreferenceSet:
    numbers, rows = zip(*numbered) if numbered else ((), ())
    topic_column = (column_map or {}).get("topic", topic_column)
    valid, invalid = split_rows(rows, origin, column_map)
    broken = [Defect(numbers[row - 1], "invalid row", "row", mask_personal(reason)) for row, reason in invalid]
    for row, first, value in duplicate_ids(rows):
        like = f"id {mask_personal(repr(value))} is that of row {numbers[first - 1]}"
        broken.append(Defect(numbers[row - 1], "duplicate id", "row", like))
    kept = [rows[pair.row - 1] for pair in valid]
    pairs = [pair._replace(row=numbers[pair.row - 1]) for pair in valid]
    has_topics = kept and all(row.get(topic_column) for row in kept)
    topics = [str(row[topic_column]) for row in kept] if has_topics else None
    ids = [str(row.get("id") or f"{pair.row:06d}") for row, pair in zip(kept, pairs)]
    content = "\n".join(json.dumps(row, sort_keys=True, default=str) for row in rows)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return PreferenceSet(side or "set", side, origin, len(rows), pairs, topics, ids, broken, sha256)


def measure(
    sets: Sequence[PreferenceSet], defects: Mapping[str, Sequence[Defect]], seed: int, unasked: Collection[str]
) -> dict[str, Any]:
    """Measure one set, or a left and a right one, from all defects of each; the unasked kinds are left out."""
    prompts = [{tuple(lower_words(pair.prompt)) for pair in part.pairs} for part in sets]
    return {
        "sets": {part.name: _set_facts(part, defects[part.name]) for part in sets},
        "defects": [_class_facts(kind, sets, defects) for kind in KINDS if kind not in unasked],
        "framing": {part.name: framing(defects[part.name], part.n_rows) for part in sets},
        "sides": {part.name: exchange(part.pairs, part.topics, part.side) for part in sets},
        "guesses": {name: guess and guess._asdict() for name, guess in _guesses(sets, seed).items()},
        "topics": {part.name: dict(sorted(Counter(part.topics).items())) for part in sets if part.topics},
        "shared_prompts": len(prompts[0] & prompts[1]) if len(sets) == 2 else None,
    }


def influence_facts(sets: Sequence[PreferenceSet], path: str) -> dict[str, Any]:
    """Return how a file of ``eval/influence.py`` spreads over the rows of each set that it knows, and both its ends.

    Raises:
        FileNotFoundError, ValueError: If it is no such file, or knows no row.
    """
    figures, facts = read_figures(path, "influence"), {}
    for part in sets:
        known = [(figures[key], pair) for pair in part.pairs if (key := pair_key(pair)) in figures]
        if not known:
            continue
        known.sort(key=lambda row: -row[0])
        counts, edges = np.histogram([value for value, _ in known], bins=N_BINS)
        rows = [
            {"influence": value, "row": pair.row, **{field: mask_personal(getattr(pair, field)) for field in COLUMNS}}
            for value, pair in known
        ]
        facts[part.name] = {
            "n": len(known),
            "n_unknown": len(part.pairs) - len(known),
            "counts": counts.tolist(),
            "edges": edges.tolist(),
            "top": rows[:N_INFLUENTIAL],
            "bottom": rows[: -N_INFLUENTIAL - 1 : -1],
        }
    if not facts:
        raise ValueError(
            f"influence={path} knows none of these rows; it must be made of a training on them, with the same answers "
            "chosen (column_map, side)"
        )
    return facts


def framing(defects: Sequence[Defect], n_rows: int) -> dict[str, Any]:
    """Return the share of framed prompts as found, and as estimated by how often the classifier is wrong."""
    found = len({defect.row for defect in defects if defect.kind == "framed prompt"}) / n_rows
    return {"found": found, **corrected_share(found, n_rows, FRAMED)._asdict(), **FRAMED._asdict()}


def judge(report: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Compare a report with the limits; a gate without a limit, or that cannot be measured here, is not judged.

    Nor is one of length or style over its limit, if every set has fewer than ``FEW_ROWS`` rows and chance alone may do
    it: if the 95 % interval reaches down to the limit. ``note`` says why a gate did not pass.
    """
    values, low_ends, gates = _gate_values(report), _low_ends(report), []
    n_rows = max(facts["n_valid"] for facts in report["sets"].values())  # a set of many rows is judged as it is
    for name, meaning in (GATES | (REPAIR_GATES if "repair" in report else {})).items():
        value, limit = values[name], limits.get(name)
        passed = None if value is None or limit is None else bool(value <= limit + 1e-9)
        note = NEEDS.get(name, "") if value is None else ""
        if passed is False and value is not None and limit is not None:
            note = _length_note(report, value) if name == "length_rule" else meaning
            low = low_ends.get(name, value)
            if n_rows < FEW_ROWS and low <= limit:
                passed = None
                note += f"; {n_rows} rows are too few to judge it (95 % interval from {max(0.0, low):.3f})"
        gates.append({"gate": name, "meaning": meaning, "value": value, "limit": limit, "passed": passed, "note": note})
    return gates


def _length_note(report: Mapping[str, Any], accuracy: float) -> str:
    """Say which answer the length rule takes, of the set where it is right most often."""
    (which, *_) = (
        length["rule"] for facts in report["sets"].values() if (length := facts["length"])["rule_accuracy"] == accuracy
    )
    return f"the {which} answer is chosen in {100 * accuracy:.0f} %"


def _low_ends(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the least value of each gate of length or style that agrees with the rows, of the worst set."""
    sets, ends = report["sets"].values(), {}
    shares = [(facts["length"]["rule_accuracy"], facts["n_valid"]) for facts in sets]
    ends["length_rule"] = max((wilson(share, n)[0] for share, n in shares if n), default=0.0)
    topics = [topic for facts in sets for topic in facts["length"]["by_topic"].values()]
    shares = [(max(topic["chosen_longer"], 1 - topic["chosen_longer"]), topic["n"]) for topic in topics]
    ends["topic_length_bias"] = max((wilson(share, n)[0] - 0.5 for share, n in shares), default=0.0)
    for gate, kind in (("side_from_prompt", "side_from_prompt"), ("side_from_style", "style")):
        of_kind = [guess["ci95"][0] for name, guess in report["guesses"].items() if name.startswith(kind) and guess]
        ends[gate] = max(of_kind, default=0.0)
    return ends


def _gate_values(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the value that each gate judges: the worst of all sets."""
    by_kind = {entry["kind"]: max(entry["share"].values()) for entry in report["defects"]}
    lengths = [facts["length"] for facts in report["sets"].values()]
    biases = [abs(topic["chosen_longer"] - 0.5) for length in lengths for topic in length["by_topic"].values()]
    guesses = report["guesses"]
    exchanged = [sides["ci95"][0] for sides in report["sides"].values() if sides and sides["ci95"]]
    styles = [guess["accuracy"] for name, guess in guesses.items() if name.startswith("style") and guess]
    return {
        "hard_defects": max(facts["hard_defects"] for facts in report["sets"].values()),
        "framed_prompts": by_kind["framed prompt"],
        "length_mismatch": by_kind["length mismatch"],
        "contamination": by_kind["contamination"],
        "personal_data": by_kind["personal data"],
        "toxicity": by_kind.get("toxicity"),
        # nan where no row is valid
        "length_rule": max((x for length in lengths if (x := length["rule_accuracy"]) == x), default=None),
        "topic_length_bias": max(biases, default=None),
        "side_from_prompt": (guesses.get("side_from_prompt") or {}).get("accuracy"),
        "side_from_style": max(styles, default=None),
        "exchanged_sides": max(exchanged, default=None),
        "topic_imbalance": _topic_imbalance(*report["topics"].values()) if len(report["topics"]) == 2 else None,
        "side_difference": report.get("repair", {}).get("side_difference"),
    }


def _topic_imbalance(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    shares = [{topic: n / sum(counts.values()) for topic, n in counts.items()} for counts in (first, second)]
    return max(abs(shares[0].get(topic, 0) - shares[1].get(topic, 0)) for topic in {*first, *second})


def _set_facts(part: PreferenceSet, defects: Sequence[Defect]) -> dict[str, Any]:
    texts = {field: [getattr(pair, field) for pair in part.pairs] for field in COLUMNS}
    n_words = {field: [len(words(text)) for text in column] for field, column in texts.items()}
    with_defect: dict[str, set[int]] = defaultdict(set)
    for defect in defects:
        with_defect[KINDS[defect.kind].group].add(defect.row)
    by_topic: dict[str, list[Pair]] = defaultdict(list)
    for topic, pair in zip(part.topics or [], part.pairs):
        by_topic[topic].append(pair)
    topics = {}
    for topic, pairs in sorted(by_topic.items()):
        share = longer_share([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
        topics[topic] = {"n": len(pairs), "chosen_longer": share}
    first_longer = longer_share(texts["chosen"], texts["rejected"])
    return {
        "origin": part.origin,
        "dataset": part.dataset,
        "side": part.side,
        "sha256": part.sha256,
        "n_rows": part.n_rows,
        "n_valid": len(part.pairs),
        "text_defects": len(with_defect["text"]) / part.n_rows,
        "hard_defects": len(with_defect["text"] | with_defect["hard"]) / part.n_rows,
        "mean_words": {field: float(np.mean(counts)) for field, counts in n_words.items()},
        "length": {
            "chosen_longer": float(np.mean(np.array(n_words["chosen"]) > np.array(n_words["rejected"]))),
            "rule_accuracy": max(first_longer, 1 - first_longer),
            "rule": "longer" if first_longer >= 0.5 else "shorter",
            "by_topic": topics,
        },
    }


def _class_facts(kind: str, sets: Sequence[PreferenceSet], defects: Mapping[str, Sequence[Defect]]) -> dict[str, Any]:
    counts, examples = {}, []
    for part in sets:
        first: dict[int, Defect] = {}
        for defect in defects[part.name]:
            if defect.kind == kind:
                first.setdefault(defect.row, defect)
        counts[part.name] = len(first)
        pairs = {pair.row: pair for pair in part.pairs}
        # evenly over the file, so that they are not all of one kind
        for defect in list(first.values())[:: max(1, len(first) // N_EXAMPLES)][:N_EXAMPLES]:
            pair = pairs.get(defect.row)
            texts = {field: mask_personal(getattr(pair, field)) for field in COLUMNS} if pair else None
            examples.append({"set": part.name, **defect._asdict(), "texts": texts})
    shares = {part.name: counts[part.name] / part.n_rows for part in sets}
    return {"kind": kind, **KINDS[kind]._asdict(), "rows": counts, "share": shares, "examples": examples}


def _guesses(sets: Sequence[PreferenceSet], seed: int) -> dict[str, Guess | None]:
    """Guess the set from the prompt, and the side from style."""
    rows = [(part, pair) for part in sets for pair in part.pairs]
    prompts = [pair.prompt for _, pair in rows]
    groups: Sequence[Hashable] = near_duplicate_clusters(prompts)
    guesses: dict[str, Guess | None] = {}
    if len(sets) == 2:
        guesses["side_from_prompt"] = prompt_guess(prompts, [part.name for part, _ in rows], groups, seed)
    return guesses | style_guesses(sets, seed, groups)


def style_guesses(
    sets: Sequence[PreferenceSet], seed: int, groups: Sequence[Hashable] | None = None
) -> dict[str, Guess | None]:
    """Guess the side of answers from style, in each set and in both; prompts of one group stay in one fold."""
    rows = [(part, pair) for part in sets for pair in part.pairs]
    # a topic in one fold is the harder test; without topics the near duplicates are
    topics = [topic for part in sets for topic in part.topics or []]
    if len(set(topics)) > N_FOLDS and all(part.topics for part in sets):
        groups = topics
    elif groups is None:
        groups = near_duplicate_clusters([pair.prompt for _, pair in rows])
    assert groups is not None
    answers: dict[str, list[tuple[str, str, Hashable]]] = defaultdict(list)
    for (part, pair), group in zip(rows, groups):
        chosen, rejected = (part.side, OTHER_SIDE[part.side]) if part.side else ("chosen", "rejected")
        answers[part.name] += [(pair.chosen, chosen, group), (pair.rejected, rejected, group)]
    if len(sets) == 2:
        # an answer of a mirrored set is there twice, with one label
        answers["both"] = list(dict.fromkeys(answer for of_set in answers.values() for answer in of_set))
    guesses = {}
    for name, of_set in answers.items():
        texts, labels, together = zip(*of_set)
        guesses[f"style of {name}"] = style_guess(texts, labels, together, seed)
    return guesses
