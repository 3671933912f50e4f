# SPDX-License-Identifier: MIT
"""A resident torchtune model answers questions by log-probability, many prompts in one forward.

All answers are merged into prefix trees: what prompts share (instructions, options, statements) is
computed once. The result does not depend on how the questions are cut into forwards.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from torchtune.modules import TransformerDecoder
from tqdm import tqdm

from eval.questions import Question
from finetune.logprobs import answer_logprobs
from finetune.prefix_tree import build_tree, cut_by_tokens


def answer_questions(
    model: TransformerDecoder, name: str, questions: Sequence[Question], max_tokens_per_forward: int
) -> list[dict[str, Any]]:
    """Return a row of ``results.jsonl`` for every question, in the order of the questions.

    Args:
        model: Resident decoder, its adapters switched as wanted.
        name: What the rows call it.
        questions: Of any modes.
        max_tokens_per_forward: Budget of merged tokens; memory and speed depend on it, results do not.

    Raises:
        FloatingPointError: If the model gives a log-probability that is not finite.
    """
    order = sorted(range(len(questions)), key=lambda k: questions[k].answers[0].tokens)
    forwards = cut_by_tokens([questions[k].answers for k in order], max_tokens_per_forward)
    rows: list[dict[str, Any]] = [{}] * len(questions)
    with tqdm(total=len(questions), desc=name, unit="prompt") as progress, torch.no_grad():
        for forward in forwards:
            asked = [order[k] for k in forward]
            tree = build_tree([answer for k in asked for answer in questions[k].answers])
            logprobs = iter(answer_logprobs(model, tree).tolist())
            for k in asked:
                rows[k] = _answer_row(name, questions[k], [next(logprobs) for _ in questions[k].answers])
            progress.update(len(asked))
    return rows


def _answer_row(name: str, question: Question, logprobs: list[float]) -> dict[str, Any]:
    if not all(map(math.isfinite, logprobs)):
        raise FloatingPointError(
            f"{name}: log-probabilities {logprobs} for {question.row['mode']} {question.row['item']}; "
            "the weights or the dtype overflow: try dtype=fp32, or check the adapter"
        )
    scored = [sum(label != CROSS_ENTROPY_IGNORE_IDX for label in a.labels) for a in question.answers]
    is_choice = question.row["mode"] == "choice"
    return {
        "model": name,
        **question.row,
        "option_logprobs": [round(x, 6) for x in logprobs],
        "n_tokens": scored,
        "option_mass": round(sum(map(math.exp, logprobs)), 6) if is_choice else None,
        "choice": max(range(len(logprobs)), key=logprobs.__getitem__) if is_choice else None,
        "stance": None,
        "refused": None,
        "text": None,
        "judge": None,
    }
