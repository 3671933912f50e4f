# SPDX-License-Identifier: MIT
"""lm-evaluation-harness's side of the evaluation speed benchmark; needs nothing of this project.

    python -m benchmarks.eval_peer lm_eval FOLDER    reads FOLDER/settings.json and prompts.jsonl

It is asked as its own tasks ask it once their text is tokenized, so both sides score the same ids.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM


def main() -> None:
    """Score every option of every prompt; write seconds and log-probabilities into FOLDER."""
    folder = Path(sys.argv[2])
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[settings["dtype"]]
    lm = HFLM(pretrained=settings["model"], device="cpu", dtype=dtype, batch_size=settings["batch_size"])
    entries = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    requests = [
        ((f"prompt {k}", f"option {j}"), entry["prompt"], answer)
        for k, entry in enumerate(entries)
        for j, answer in enumerate(entry["answers"])
    ]
    lm._loglikelihood_tokens(requests[:16], disable_tqdm=True)  # warm-up
    clock = time.process_time if settings["threads"] == 1 else time.monotonic
    started = clock()
    found = lm._loglikelihood_tokens(requests)
    (folder / "lm_eval.json").write_text(json.dumps([clock() - started]))
    np.save(folder / "lm_eval.npy", np.array([logprob for logprob, _ in found]).reshape(1, len(entries), -1))


if __name__ == "__main__":
    main()
