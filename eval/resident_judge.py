# SPDX-License-Identifier: MIT
"""A judge in memory: a model that is asked for a label and read by the log-probability of each."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchtune import training, utils
from torchtune.data import Message

from data.judging.judges import Judge, Judgement, Text, make_judge
from data.judging.scales import load_scale
from data.recipe.config import check_config, device_problems, model_problems
from eval.asking.questions import Question, answer_tokens, continuation
from eval.asking.respond import answer_questions, check_length, load_base, load_tokenizer
from finetune.adapters.folders import fingerprint, tokenizer_fingerprint
from finetune.models import BROUGHT, base_folder, complete_model, context_length
from finetune.tree.logprobs import Decoder


def resident_judge(
    name: str,
    model: DictConfig,
    tokenizer: DictConfig | None = None,
    checkpointer: DictConfig | None = None,
    scale: str = "stance",
    instruction: str | None = None,
    validation: str | None = None,
    device: str = "cpu",
    dtype: str = "fp32",
    max_tokens_per_forward: int = 2000,
) -> Judge:
    """Build a judge that is a model in memory: the likeliest label, its end of turn included, is its answer.

    It loads when it is first asked. Nothing is generated, so nothing can be misread; whether the likeliest label is
    any good is what a validation says.

    ``model`` is the plain base, without LoRA, ``checkpointer`` has its weights, and ``tokenizer`` is
    ``finetune.tokenizers.hf_chat_tokenizer`` or one with ``prompt_tokens``; ``finetune.models.causal_lm`` needs neither
    of them. ``device`` and ``dtype`` are as in the
    recipes; ``max_tokens_per_forward``, the merged tokens of one forward, changes memory and speed alone. The other
    arguments are as for :func:`eval.judges.chat_judge`.

    Raises:
        ValueError: If the device or the model's files are not here; when it is asked, if a text is longer than the
            model's context.
    """
    judge_scale = load_scale(scale, instruction)
    parts = OmegaConf.create({"model": model, "tokenizer": tokenizer, "checkpointer": checkpointer})
    parts = complete_model(check_config(parts, set(parts), {}, nullable=BROUGHT))
    faults = [*device_problems(device), *(model_problems(parts.checkpointer) if parts.checkpointer else [])]
    if faults:
        raise ValueError("\n  - ".join([f"judge {name} cannot run here:", *faults]))
    weights = str(base_folder(parts))

    @cache
    def load() -> Decoder:
        torch_device = utils.get_device(device=device)
        torch_dtype = training.get_dtype(dtype, device=torch_device)
        return load_base(parts, torch_device, torch_dtype).requires_grad_(False)

    read_tokenizer = cache(partial(load_tokenizer, parts))

    def ask(texts: Sequence[Text]) -> Iterator[Judgement]:
        if not texts:
            return
        loaded_tokenizer = read_tokenizer()
        # with the end of the turn: without it 1 would be the beginning of 12
        answers = [answer_tokens(loaded_tokenizer, label, with_end=True) for label in judge_scale.labels]
        questions = []
        for k, text in enumerate(texts):
            messages = [Message.from_dict(dict(m)) for m in judge_scale.request(*text).messages]
            prompt = loaded_tokenizer.prompt_tokens(messages)
            place = {"mode": "judge", "item": str(k), "template": scale, "order": None, "labels": None, "sample": 0}
            questions.append(Question(place, [continuation(prompt, answer) for answer in answers]))
        context = context_length(parts.model)
        for question in questions:  # before a minute of loading
            check_length(question.row, max(len(answer.tokens) for answer in question.answers), context)
        for row in answer_questions(load(), f"judge {name}", questions, max_tokens_per_forward):
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
