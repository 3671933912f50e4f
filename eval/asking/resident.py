# SPDX-License-Identifier: MIT
"""The resident torchtune model and its adapters: loaded once, asked by log-probability and in writing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torchtune import config, training

from eval.asking.generate import iterate_generations
from eval.asking.interview import WRITTEN, Interview
from eval.asking.questions import Question, to_questions
from eval.asking.respond import Rows, iterate_answers
from eval.asking.respondents import Respondent
from finetune.adapters.blends import AdapterSet
from finetune.adapters.resident import AdaptedModel


class ResidentModel:
    """Questions first, then the weights: what is wrong with the questions is found before a minute of loading.

    Args:
        cfg: The recipe's; of it ``model``, ``tokenizer``, ``checkpointer``, and how many prompts are asked at once.
        interview: What is asked.
        respondents: The base and whoever else is this model with something added.

    Raises:
        ValueError: If the tokenizer cannot render a prompt, or two options begin alike.
    """

    def __init__(self, cfg: DictConfig, interview: Interview, respondents: Sequence[Respondent]) -> None:
        self._cfg, self._interview = cfg, interview
        self._tokenizer = load_tokenizer(cfg)
        self._questions: dict[tuple, list[Question]] = {}
        for respondent in respondents:
            if _asked_as(respondent) not in self._questions:  # base and adapters are asked the same
                prompts = interview.of(tuple(mode for mode in respondent.modes if mode not in WRITTEN))
                questions = to_questions(prompts, self._tokenizer, respondent.system_prompt)
                self._questions[_asked_as(respondent)] = questions

    def load(self, adapters: AdapterSet, device: torch.device, dtype: torch.dtype) -> None:
        """Load the base with its adapters."""
        self._model = load_adapted(self._cfg, adapters, device, dtype)

    def ask(self, respondent: Respondent, is_known: Callable[[Rows], bool]) -> Iterator[Rows]:
        """Yield the rows of one respondent.

        Args:
            respondent: Who is asked.
            is_known: Says whether rows are answered already; these are not asked again.
        """
        cfg, interview, name = self._cfg, self._interview, respondent.name
        questions = self._questions[_asked_as(respondent)]
        prompts = interview.of(tuple(mode for mode in respondent.modes if mode in WRITTEN))
        with self._model.using(respondent.adapter) as model:
            if questions:
                yield from iterate_answers(model, name, questions, cfg.max_tokens_per_forward, is_known)
            if prompts:
                yield from iterate_generations(
                    model,
                    name,
                    prompts,
                    self._tokenizer,
                    interview.options,
                    interview.decodings,
                    cfg.prompts_per_batch,
                    respondent.system_prompt,
                    is_known,
                )


def load_tokenizer(cfg: DictConfig) -> Any:
    """Build the tokenizer of a config.

    Raises:
        ValueError: If it cannot render a prompt.
    """
    tokenizer = config.instantiate(cfg.tokenizer)
    if not hasattr(tokenizer, "prompt_tokens"):
        raise ValueError(
            f"tokenizer._component_={cfg.tokenizer._component_} cannot render a prompt; use "
            f"finetune.tokenizers.hf_chat_tokenizer with path={cfg.checkpointer.checkpoint_dir}"
        )
    return tokenizer


def load_adapted(cfg: DictConfig, adapters: AdapterSet, device: torch.device, dtype: torch.dtype) -> AdaptedModel:
    """Load the base of a config (its ``model`` and ``checkpointer``) with its adapters."""
    checkpointer = config.instantiate(cfg.checkpointer)
    with training.set_default_dtype(dtype), device:
        model = config.instantiate(cfg.model)
    model.load_state_dict(checkpointer.load_checkpoint()[training.MODEL_KEY])
    return AdaptedModel(model.eval(), adapters.folders, cfg.checkpointer.checkpoint_dir, adapters.blends)


def _asked_as(respondent: Respondent) -> tuple:
    return respondent.modes, respondent.system_prompt
