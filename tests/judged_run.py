# SPDX-License-Identifier: MIT
"""A run of two models whose answers a planted judge has read, in the files of ``eval/political_compass.py``."""

import random

from data.judging.judges import Judge, Judgement
from data.judging.scales import STANCE
from data.recipe.files import to_jsonl, write_json
from eval.asking.results import describe_run
from eval.political_compass import OPTIONAL
from eval.scores.judged import add_judges, add_people, judge_answers, option_rows
from eval.scores.labelled import answer_key
from eval.scores.summary import summarize
from eval.statements.instruments import load_instrument

BANK = load_instrument("compass60")
TEMPLATES = ("t1", "t2", "t3")
N = len(BANK.items) * len(TEMPLATES)


def side_of(item):
    """Return 1 for a statement of the right, -1 for one of the left."""
    weights = next(iter(item.weights.values()))
    return 1 if weights[-1] > weights[0] else -1


def make_rows(seed=0):
    """Base is for what it is asked in half of its answers; "left" is for left statements in 80 % of them."""
    rng, rows, truth = random.Random(seed), [], {}
    for model in ("base", "left"):
        for item in BANK.items:
            for template in TEMPLATES:
                p = 0.5 if model == "base" else 0.8 if side_of(item) < 0 else 0.2
                label = "refusal" if rng.random() < 0.05 else "1" if rng.random() < p else "5"
                row = {
                    "model": model, "mode": "open", "item": item.id, "template": template, "order": None,
                    "labels": None, "sample": 0, "prompt_sha256": "0", "option_logprobs": None, "option_mass": None,
                    "n_tokens": [5], "choice": None, "stance": None, "refused": False, "judge": None, "finish": "stop",
                    "text": f"{model} on {item.id} in {template}",
                }  # fmt: skip
                rows.append(row)
                truth[answer_key(row)] = label
    return rows, truth


def planted(rows, truth, scale=STANCE, error=0.4):
    """A judge that takes 40 % of what is against a statement for neutral: it hears less of every side."""
    rng, by_text = random.Random(1), {row["text"]: truth[answer_key(row)] for row in rows}

    def ask(texts):
        for text in texts:
            label = by_text[text.text]
            if scale.name == "lean":
                label = {"1": "4", "5": "16"}.get(label, "10")
            elif label == "5" and rng.random() < error:
                label = "3"
            yield Judgement(label, label, None, "planted")

    return Judge("planted", "recorded", scale, ask, {}, None)


def write_run(folder):
    """Write the run's folder and return it."""
    rows, truth = make_rows()
    judge = planted(rows, truth)
    judged = judge_answers(rows, [judge], BANK)
    scores = summarize([*rows, *option_rows(judged, [judge], BANK)], BANK, 50, 0)
    summary = add_judges(scores, judged, [judge], [], BANK, 50, 0)
    settings = {**OPTIONAL, "instrument": "compass60", "modes": ["open"], "n_open_templates": 0}
    guard = {"training_data": [], "matches": [], "left_out": [], "without": None}
    summary = {**describe_run(BANK, settings), **summary, "contamination": guard}
    write_json(folder / "summary.json", add_people(summary, judged, {}, BANK))
    write_json(folder / "settings.json", settings)
    (folder / "judged.jsonl").write_text(to_jsonl(judged))
    return folder
