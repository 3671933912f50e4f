#!/usr/bin/env bash
# Guess: answers under `--use_cache FILE` are kept by model, so a base model and its adapter can share the file, as one run and its repetition do.
# Behaviour: the key is the request alone. The second model is never asked, and gets the scores of the first under its own name, down to the last
# digit: "the tuning changed nothing". One file for each model is right.
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
    """A model that finds one of the choices certain, and counts what it is asked."""

    def __init__(self, said):
        super().__init__()
        self.said, self.asked = said, 0

    def loglikelihood(self, requests):
        self.asked += len(requests)
        answers = [(0.0 if request.args[1].strip() == self.said else -9.0, False) for request in requests]
        for request, answer in zip(requests, answers):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    generate_until = loglikelihood_rolling

    def get_model_info(self):
        return {"pretrained": f"always-{self.said}"}


def accuracy(model, **settings):
    result = lm_eval.simple_evaluate(model, tasks=[task], bootstrap_iters=0, **settings)
    return result["results"]["stance"]["acc,none"], model.asked


Path("rows.jsonl").write_text("".join(json.dumps({"text": f"Text {k} is on the"}) + "\n" for k in range(4)))
task = {
    "task": "stance",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": ["left", "right"],
    "doc_to_target": "left",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
print("lm_eval", version("lm_eval"))
alone = [accuracy(Always(said)) for said in ("left", "right")]
shared = [accuracy(Always(said), use_cache="answers") for said in ("left", "right")]
print("accuracy and requests of two models, without a file:", alone, "with one file:", shared)
assert alone == [(1, 8), (0, 8)]
assert shared == [(1, 8), (1, 0)], "changed: answers are kept by model"
PY
