# SPDX-License-Identifier: MIT
"""The resident model and its adapters: loaded once, asked by log-probability and in writing.

All answers that are compared are merged into prefix trees: what prompts share (instructions, options, statements) is
computed once. The result does not depend on how the questions are cut into forwards.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torchtune import config, training
from torchtune.data import CROSS_ENTROPY_IGNORE_IDX
from tqdm import tqdm

from data.recipe.memory import MappedFiles
from eval.asking.generate import iterate_generations
from eval.asking.questions import Question, n_shared, prompt_tokens, to_questions
from eval.asking.respondents import WRITTEN, Interview, Respondent
from eval.asking.results import Row, result_row, row_key
from eval.asking.thinking import CLOSED, with_thinking
from eval.statements.prompts import LABELS, with_system
from finetune.adapters.folders import AdapterSet, check_bases, check_llama_targets
from finetune.adapters.resident import AdaptedModel
from finetune.causal.agreement import choose_layout
from finetune.causal.decoder import CausalLM
from finetune.models import base_folder, brings_weights, context_length
from finetune.run.bases import take_weights
from finetune.run.policy import Policy, check_builder, load_weights
from finetune.tree.layers import use_fast_layers
from finetune.tree.logprobs import Decoder
from finetune.tree.prefix_tree import build_tree, cut_by_tokens
from finetune.tree.reading import read_logprobs

log = logging.getLogger(__name__)


class Questionnaire(NamedTuple):
    """An interview as a resident model reads it: what is wrong with it is found before a minute of loading."""

    tokenizers: dict[bool | None, Any]  # by whether they open the block of thought; None: as the template has it
    interview: Interview
    # those that are answered by log-probability, by the modes, the system prompt and the thinking of a respondent
    questions: dict[tuple[Any, ...], list[Question]]


def prepare_questions(cfg: DictConfig, interview: Interview, respondents: Sequence[Respondent]) -> Questionnaire:
    """Return what the base, and whoever else is this model with something added, are asked.

    Raises:
        ValueError: If the tokenizer cannot render a prompt, two options begin alike, a prompt with its answer is longer
            than the model's context, or its thinking cannot be switched.
    """
    check_base(cfg)
    tokenizers: dict[bool | None, Any] = {None: load_tokenizer(cfg)}
    questions = {}
    context = context_length(cfg.model)
    for modes, system_prompt, thinking in {(r.modes, r.system_prompt, r.thinking) for r in respondents}:
        for way in (False, thinking.is_on) if thinking else ():
            if way not in tokenizers:
                tokenizers[way] = load_tokenizer(cfg, way)
        prompts = interview.of_modes({*modes} - {*WRITTEN})
        asked = to_questions(
            with_thinking(prompts, CLOSED if thinking else None), tokenizers[False if thinking else None], system_prompt
        )
        questions[modes, system_prompt, thinking] = asked
        for question in asked:
            check_length(question.row, max(len(answer.tokens) for answer in question.answers), context)
        writing, room = tokenizers[thinking.is_on if thinking else None], 0
        if thinking and thinking.max_tokens is not None:
            room = thinking.max_tokens + len(writing.cut_thought())
        for prompt in interview.of_modes({*modes} & {*WRITTEN}):
            told = with_system(prompt, system_prompt)
            n_tokens = len(prompt_tokens(writing, told.text, told.system)) + room
            check_length(prompt.row, n_tokens + interview.decodings[prompt.row["mode"]].max_new_tokens, context)
    return Questionnaire(tokenizers, interview, questions)


def check_length(row: Row, n_tokens: int, context: int | None) -> None:
    """Refuse a prompt that is with its answer longer than the context of its model (None: no limit)."""
    if context is not None and n_tokens > context:
        raise ValueError(
            f"mode {row['mode']}, item {row['item']}, template {row['template']}: {n_tokens} tokens with the answer "
            f"exceed the model's context of {context}; shorten the text or the system prompt, or lower "
            "max_new_tokens or open_max_new_tokens"
        )


def ask_resident(
    cfg: DictConfig,
    model: AdaptedModel,
    questionnaire: Questionnaire,
    respondent: Respondent,
    is_known: Callable[[list[Row]], bool],
) -> Iterator[list[Row]]:
    """Yield the rows of one respondent, as many at once as the config allows.

    ``is_known`` says whether rows are answered already; these are not asked again.
    """
    name, interview, thinking = respondent.name, questionnaire.interview, respondent.thinking
    prompts = interview.of_modes({*respondent.modes} & {*WRITTEN})
    with model.using(respondent.adapter) as decoder:
        if questions := questionnaire.questions[respondent.modes, respondent.system_prompt, thinking]:
            yield from iterate_answers(decoder, name, questions, cfg.max_tokens_per_forward, is_known)
        if prompts:
            yield from iterate_generations(
                decoder,
                name,
                prompts,
                questionnaire.tokenizers[thinking.is_on if thinking else None],
                interview.options,
                interview.decodings,
                batch_size=cfg.prompts_per_batch,
                system_prompt=respondent.system_prompt,
                thinking=thinking,
                is_known=is_known,
            )


def iterate_answers(
    model: Decoder,
    name: str,
    questions: Sequence[Question],
    max_tokens_per_forward: int,
    is_known: Callable[[list[Row]], bool] = lambda rows: False,
) -> Iterator[list[Row]]:
    """Yield the rows of ``results.jsonl``, forward by forward, as they are answered.

    ``max_tokens_per_forward`` merged tokens set memory and speed; results do not depend on them. A forward whose rows
    are all known is left out. Forwards are cut the same way whatever is known, so that every row is the same to the
    bit.
    """
    order = sorted(range(len(questions)), key=lambda k: tuple(questions[k].answers[0].tokens))
    forwards = cut_by_tokens([questions[k].answers for k in order], max_tokens_per_forward)
    with tqdm(total=len(questions), desc=name, unit="prompt") as progress, torch.no_grad():
        for forward in forwards:
            batch = [questions[order[k]] for k in forward]
            if not is_known([{"model": name, **question.row} for question in batch]):
                yield answer_together(model, name, batch)
            progress.update(len(batch))


def answer_together(model: Decoder, name: str, questions: Sequence[Question]) -> list[Row]:
    """Return the rows of questions, all answered in one forward; gradients must be off."""
    tree = build_tree([answer for question in questions for answer in question.answers])
    logprobs = iter(read_logprobs(model, tree).tolist())
    return [answer_row(name, q, [next(logprobs) for _ in q.answers]) for q in questions]


def answer_questions(
    model: Decoder, name: str, questions: Sequence[Question], max_tokens_per_forward: int
) -> list[Row]:
    """Return all rows of :func:`iterate_answers` at once, in the order of the questions."""
    forwards = iterate_answers(model, name, questions, max_tokens_per_forward)
    rows = {row_key(row): row for forward in forwards for row in forward}
    return [rows[row_key({"model": name, **question.row})] for question in questions]


def answer_row(name: str, question: Question, logprobs: list[float]) -> Row:
    """Return the row of ``results.jsonl`` about one answered question; every log-probability must be finite."""
    if not all(map(math.isfinite, logprobs)):
        raise FloatingPointError(
            f"{name}: log-probabilities {logprobs} for {question.row['mode']} {question.row['item']}; "
            "the weights or the dtype overflow: try dtype=fp32, or check the adapter"
        )
    # of two whole statements the likelier a token counts, which the row does not say
    is_choice = question.row["mode"] == "choice" or question.row["labels"] in LABELS
    more: dict[str, Any] = {} if is_choice else {"n_shared": n_shared(question)}
    return result_row(
        name,
        question.row,
        option_logprobs=[round(x, 6) for x in logprobs],
        n_tokens=[sum(label != CROSS_ENTROPY_IGNORE_IDX for label in a.labels) for a in question.answers],
        option_mass=round(sum(map(math.exp, logprobs)), 6) if is_choice else None,
        choice=max(range(len(logprobs)), key=logprobs.__getitem__) if is_choice else None,
        **more,
    )


def load_tokenizer(cfg: DictConfig, thinking: bool | None = None) -> Any:
    """Build the tokenizer of a config; one that cannot render a prompt, or switch the thinking, is refused."""
    tokenizer = config.instantiate(cfg.tokenizer, **({} if thinking is None else {"thinking": thinking}))
    if thinking:
        tokenizer.end_of_thought  # noqa: B018 - says that there is none
    if not hasattr(tokenizer, "prompt_tokens"):
        raise ValueError(
            f"tokenizer._component_={cfg.tokenizer._component_} cannot render a prompt; use "
            f"finetune.tokenizers.hf_chat_tokenizer with path={base_folder(cfg)}"
        )
    return tokenizer


def check_base(cfg: DictConfig) -> None:
    """Refuse a ``model`` that is not the one whose weights ``checkpointer`` reads, before it takes memory."""
    if brings_weights(cfg.model):  # complete_model has read its folder
        return
    with torch.device("meta"):
        check_builder(config.instantiate(cfg.model), cfg.checkpointer.checkpoint_dir)


def check_adapter_bases(cfg: DictConfig, adapters: AdapterSet) -> list[str]:
    """Warn of adapters that name another base than a config's, and return the warnings; refuse those that have one."""
    if cfg.model is None:
        return []
    if not brings_weights(cfg.model):
        for folder in adapters.folders.values():
            check_llama_targets(folder)
    warnings = check_bases(adapters.folders, base_folder(cfg))
    for line in warnings:
        log.warning(line)
    return warnings


def load_adapted(cfg: DictConfig, adapters: AdapterSet, device: torch.device, dtype: torch.dtype) -> AdaptedModel:
    """Load the base of a config with its adapters."""
    model = load_base(cfg, device, dtype)
    return AdaptedModel(model, adapters.folders, base_folder(cfg), adapters.blends)


def load_base(cfg: DictConfig, device: torch.device, dtype: torch.dtype) -> Decoder:
    """Load the base of a config: its ``model``, and ``checkpointer`` where that has the weights."""
    check_base(cfg)
    if brings_weights(cfg.model):
        with training.set_default_dtype(dtype), device:
            causal: CausalLM = config.instantiate(cfg.model, lora_rank=None)
        choose_layout(causal)
        return causal
    checkpointer = config.instantiate(cfg.checkpointer)
    with training.set_default_dtype(dtype), torch.device("meta"):  # to draw first weights took longer than to read them
        model = config.instantiate(cfg.model)
    weights = checkpointer.load_checkpoint()[training.MODEL_KEY]  # mapped from disk, read as it is used
    files = MappedFiles(cfg.checkpointer.checkpoint_dir)
    load_weights(Policy(model), take_weights(weights, files), {}, device)
    use_fast_layers(model.requires_grad_(False))
    return model.eval()
