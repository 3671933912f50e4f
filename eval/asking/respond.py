# SPDX-License-Identifier: MIT
"""A resident torchtune model answers questions by log-probability, many prompts in one forward.

All answers are merged into prefix trees: what prompts share (instructions, options, statements) is
computed once. The result does not depend on how the questions are cut into forwards.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from torchtune.modules import TransformerDecoder
from tqdm import tqdm

from eval.asking.questions import Question
from eval.asking.results import row_key
from finetune.tree.logprobs import answer_logprobs
from finetune.tree.prefix_tree import build_tree, cut_by_tokens

Rows = list[dict[str, Any]]


def iterate_answers(
    model: TransformerDecoder,
    name: str,
    questions: Sequence[Question],
    max_tokens_per_forward: int,
    is_known: Callable[[Rows], bool] = lambda rows: False,
) -> Iterator[Rows]:
    """Yield the rows of ``results.jsonl``, forward by forward, as they are answered.

    Args:
        model: Resident decoder, its adapters switched as wanted.
        name: What the rows call it.
        questions: Of any modes.
        max_tokens_per_forward: Budget of merged tokens; memory and speed depend on it, results do not.
        is_known: Says of the unanswered rows of a forward whether all are answered already; such a forward is
            left out. Forwards are cut the same way whatever is known, so that every row is the same to the bit.

    Raises:
        FloatingPointError: If the model gives a log-probability that is not finite.
    """
    order = sorted(range(len(questions)), key=lambda k: questions[k].answers[0].tokens)
    forwards = cut_by_tokens([questions[k].answers for k in order], max_tokens_per_forward)
    with tqdm(total=len(questions), desc=name, unit="prompt") as progress, torch.no_grad():
        for forward in forwards:
            asked = [questions[order[k]] for k in forward]
            if not is_known([{"model": name, **question.row} for question in asked]):
                yield answer_together(model, name, asked)
            progress.update(len(asked))


def answer_together(model: TransformerDecoder, name: str, questions: Sequence[Question]) -> Rows:
    """Return the rows of questions, all answered in one forward; gradients must be off."""
    tree = build_tree([answer for question in questions for answer in question.answers])
    logprobs = iter(answer_logprobs(model, tree).tolist())
    return [answer_row(name, q, [next(logprobs) for _ in q.answers]) for q in questions]


def answer_questions(
    model: TransformerDecoder, name: str, questions: Sequence[Question], max_tokens_per_forward: int
) -> Rows:
    """Return all rows of :func:`iterate_answers` at once, in the order of the questions."""
    forwards = iterate_answers(model, name, questions, max_tokens_per_forward)
    rows = {row_key(row): row for rows in forwards for row in rows}
    return [rows[row_key({"model": name, **question.row})] for question in questions]


def answer_row(name: str, question: Question, logprobs: list[float]) -> dict[str, Any]:
    """Return the row of ``results.jsonl`` about one answered question.

    Raises:
        FloatingPointError: If a log-probability is not finite.
    """
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
