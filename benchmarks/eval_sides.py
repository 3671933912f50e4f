# SPDX-License-Identifier: MIT
"""Our sides of the evaluation speed benchmark, each in a process of its own.

    python -m benchmarks.eval_sides prompts|ours|adapters|alone FOLDER    reads FOLDER/settings.json

``prompts`` writes what all sides answer (token ids, so that none can read another prompt) and two LoRA adapters.
The others answer it and write seconds and log-probabilities into FOLDER: ``ours`` is the base, ``adapters`` the base
and then both adapters, ``alone`` the second adapter.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torchtune import training
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

from benchmarks.child_process import REPO
from data.pairs.tokens import Continuation
from data.recipe.memory import keep_freed_blocks
from eval.asking.questions import Question, to_questions
from eval.asking.respond import answer_questions, load_base
from eval.statements.instruments import draw, load_instrument
from eval.statements.prompts import choice_prompts, load_templates
from finetune.adapters.resident import AdaptedModel
from finetune.tokenizers import hf_chat_tokenizer
from finetune.tree.prefix_tree import count_tokens, cut_by_tokens

CONFIG = REPO / "configs" / "political_compass.yaml"
ADAPTERS = ("first", "second")
PASSES = {"ours": [None], "adapters": [None, *ADAPTERS], "alone": [ADAPTERS[-1]]}


def write_prompts(folder: Path, settings: dict[str, Any]) -> None:
    """Write ``prompts.jsonl`` (rows with the ids of prompt and options) and ``counts.json``."""
    instrument = load_instrument("compass60")
    political = tuple(item for item in instrument.items if not set(item.weights) <= instrument.placebo)
    instrument = instrument.keep(draw(political, settings["items"], seed=0))
    tokenizer = hf_chat_tokenizer(settings["model"])
    size = (settings["templates"], settings["orders"], [settings["labels"]])
    questions = to_questions(choice_prompts(instrument, load_templates(instrument.language), *size), tokenizer)
    with (folder / "prompts.jsonl").open("w") as file:
        for question in questions:
            first, labels = question.answers[0]
            n_prompt = labels.count(CROSS_ENTROPY_IGNORE_IDX)
            answers = [answer.tokens[n_prompt:] for answer in question.answers]
            file.write(json.dumps({"row": question.row, "prompt": first[:n_prompt], "answers": answers}) + "\n")
    # every option in a sequence of its own, and merged as we run them
    ordered = sorted((question.answers for question in questions), key=lambda answers: answers[0].tokens)
    forwards = cut_by_tokens(ordered, settings["max_tokens"])
    merged = sum(count_tokens([a.tokens for k in forward for a in ordered[k]]) for forward in forwards)
    single = sum(len(answer.tokens) - 1 for answers in ordered for answer in answers)
    counts = {"prompts": len(questions), "items": len(instrument.items), "tokens": single, "merged_tokens": merged}
    (folder / "counts.json").write_text(json.dumps(counts))


def write_adapters(folder: Path, model: str) -> None:
    """Write two PEFT adapters of the shape that the quickstart trains, with random weights that are not zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    names = ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    for seed, name in enumerate(ADAPTERS):
        torch.manual_seed(seed)
        lora = LoraConfig(r=16, lora_alpha=32, target_modules=names, init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora).save_pretrained(folder / name)


def _questions(folder: Path) -> list[Question]:
    return [
        Question(
            entry["row"],
            [
                Continuation(entry["prompt"] + answer, [CROSS_ENTROPY_IGNORE_IDX] * len(entry["prompt"]) + answer)
                for answer in entry["answers"]
            ],
        )
        for entry in map(json.loads, (folder / "prompts.jsonl").read_text().splitlines())
    ]


def answer_ours(folder: Path, settings: dict[str, Any], names: list[str | None]) -> tuple[list[float], np.ndarray]:
    """Return the seconds of each pass and their log-probabilities, ``[passes, N, options]``."""
    cpu, cfg = torch.device("cpu"), OmegaConf.load(CONFIG)
    cfg.checkpointer.output_dir = str(folder / "unused")
    keep_freed_blocks()
    model = load_base(cfg, cpu, training.get_dtype(settings["dtype"], cpu))  # as the recipe does
    adapters = {name: Path(settings["inputs"]) / name for name in names if name is not None}
    resident = AdaptedModel(model, adapters, settings["model"])
    questions = _questions(folder)
    # what else a machine does counts less in the process's own time
    clock = time.process_time if settings["threads"] == 1 else time.monotonic
    seconds, found = [], []
    for name in names:
        with resident.using(name) as respondent:
            answer_questions(respondent, "warm-up", questions[:4], settings["max_tokens"])
            started = clock()
            rows = answer_questions(respondent, name or "base", questions, settings["max_tokens"])
            seconds.append(clock() - started)
        found.append([row["option_logprobs"] for row in rows])
    return seconds, np.array(found)


def main() -> None:
    """Do one side's work."""
    side, folder = sys.argv[1], Path(sys.argv[2])
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    if side == "prompts":
        write_prompts(folder, settings)
        write_adapters(folder, settings["model"])
        return
    seconds, logprobs = answer_ours(folder, settings, PASSES[side])
    np.save(folder / f"{side}.npy", logprobs)
    (folder / f"{side}.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
