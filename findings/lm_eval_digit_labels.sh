#!/usr/bin/env bash
# Guess: in a task of multiple choice whose choices are 1 to 5 and whose gold answer is the text "2", the model that prefers "2" is right.
# Behaviour: a gold answer of digits is a place counted from 0, even where the choices hold that very text: "2" means the third choice, "3". The
# model that always says 2 has an accuracy of 0, the one that always says 3 has 1. Letters are read as texts.
# Documented: a maintainer says in pull request 1447 that `doc_to_target` is meant to be the place in `doc_to_choice`. The guess is still natural, since the
# text of the answer is read as such where it is a letter, and nothing tells the two readings of a digit apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet lm_eval==0.4.13 datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - 2> log <<'PY' || { tail -30 log; exit 1; }
import json
from importlib.metadata import version
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM


class Always(LM):
    """A model that finds one of the choices certain, whatever it is asked."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def loglikelihood(self, requests):
        return [(0.0 if request.args[1].strip() == self.said else -9.0, False) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    generate_until = loglikelihood_rolling


def accuracy(said, gold, choices):
    Path("rows.jsonl").write_text("".join(json.dumps({"text": f"Text {k} is", "gold": gold}) + "\n" for k in range(4)))
    task = {
        "task": "likert",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": choices,
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    return lm_eval.simple_evaluate(Always(said), tasks=[task], bootstrap_iters=0)["results"]["likert"]["acc,none"]


print("lm_eval", version("lm_eval"))
digits, letters = list("12345"), list("ABCDE")
right, other, letter = accuracy("2", "2", digits), accuracy("3", "2", digits), accuracy("B", "B", letters)
print(f'gold "2": a model that says 2 has {right}, one that says 3 has {other}; gold "B": one that says B has {letter}')
assert letter == 1
assert (right, other) == (0, 1), "changed: digits are read as texts"
PY
