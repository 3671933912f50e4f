# SPDX-License-Identifier: MIT
"""A judge in memory: a torchtune model that is asked for a label and read by the log-probability of each."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import training, utils
from torchtune.data import Message
from torchtune.modules import TransformerDecoder

from data.judging.judges import Judge, Judgement, Text, make_judge
from data.judging.scales import JudgeScale, load_scale
from data.recipe.config import check_config
from eval.asking.questions import Question, answer_tokens, continuation
from eval.asking.respond import answer_questions, load_base, load_tokenizer
from finetune.adapters.folders import fingerprint, tokenizer_fingerprint


def resident_judge(
    name: str,
    model: DictConfig,
    tokenizer: DictConfig,
    checkpointer: DictConfig,
    scale: str = "stance",
    instruction: str | None = None,
    validation: str | None = None,
    device: str = "cpu",
    dtype: str = "fp32",
    max_tokens_per_forward: int = 2000,
) -> Judge:
    """Build a judge that is a torchtune model in memory: the likeliest label, its end of turn included, is its answer.

    It loads when it is first asked. Nothing is generated, so nothing can be misread; whether the likeliest label is
    any good is what a validation says.

    Args:
        name: Its name in files and in the report.
        model: Component of the plain base, without LoRA.
        tokenizer: ``finetune.tokenizers.hf_chat_tokenizer`` or one with ``prompt_tokens``.
        checkpointer: Component of its weights.
        scale: ``stance`` or ``lean``.
        instruction: Path of a text of your own; null takes the scale's.
        validation: ``validation.json`` that ``eval/validate_judge.py`` wrote about it.
        device: As in the recipes.
        dtype: As in the recipes.
        max_tokens_per_forward: Merged tokens of one forward; changes memory and speed alone.
    """
    judge_scale = load_scale(scale, instruction)
    parts = OmegaConf.create({"model": model, "tokenizer": tokenizer, "checkpointer": checkpointer})
    check_config(parts, set(parts), {})
    weights = parts.checkpointer.checkpoint_dir

    @cache
    def load() -> tuple[TransformerDecoder, Any]:
        torch_device = utils.get_device(device=device)
        torch_dtype = training.get_dtype(dtype, device=torch_device)
        return load_base(parts, torch_device, torch_dtype).requires_grad_(False), load_tokenizer(parts)

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        if not texts:
            return
        decoder, loaded_tokenizer = load()
        questions = _label_questions(judge_scale, loaded_tokenizer, texts)
        for row in answer_questions(decoder, f"judge {name}", questions, max_tokens_per_forward):
            logprobs = dict(zip(judge_scale.labels, row["option_logprobs"]))
            yield Judgement(max(logprobs, key=logprobs.__getitem__), logprobs, None, weights)

    tokenizer_settings: Any = OmegaConf.to_container(parts.tokenizer, resolve=True)
    about = {
        "weights": fingerprint(weights),
        "dtype": dtype,
        "model": str(parts.model),
        "tokenizer_files": tokenizer_fingerprint(tokenizer_settings.pop("path", None)),
        "tokenizer": tokenizer_settings,
    }
    return make_judge(name, "resident", judge_scale, ask, about, validation)


def _label_questions(scale: JudgeScale, tokenizer: Any, texts: Sequence[Text]) -> list[Question]:
    # with the end of the turn: without it 1 would be the beginning of 12
    answers = [answer_tokens(tokenizer, label, with_end=True) for label in scale.labels]
    questions = []
    for k, text in enumerate(texts):
        messages = [Message(role=m["role"], content=m["content"]) for m in scale.request(*text).messages]
        prompt = tokenizer.prompt_tokens(messages)
        row = {"mode": "judge", "item": str(k), "template": scale.name, "order": None, "labels": None, "sample": 0}
        questions.append(Question(row, [continuation(prompt, answer) for answer in answers]))
    return questions
