# SPDX-License-Identifier: MIT
"""A resident model answers in writing, many prompts at once, keys and values cached.

Legend: B prompts of a batch, W tokens of the longest prompt, T tokens with what is written, V vocabulary.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchtune.generation import get_causal_mask_from_padding_mask, get_position_ids_from_padding_mask, sample
from torchtune.modules import KVCache, TransformerDecoder
from tqdm import tqdm

from eval.asking.questions import prompt_tokens
from eval.asking.results import Row
from eval.asking.written_answers import Decoding, Writing, written_row
from eval.statements.prompts import Prompt, with_system
from finetune.causal.decoder import CausalLM
from finetune.tree.logprobs import Decoder

# tqdm's own, but for prompts of which a part is written
_BAR = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def iterate_generations(
    model: Decoder,
    name: str,
    prompts: Sequence[Prompt],
    tokenizer: Any,
    options: Sequence[str],
    decodings: Mapping[str, Decoding],
    *,
    batch_size: int,
    system_prompt: str | None = None,
    is_known: Callable[[list[Row]], bool] = lambda rows: False,
) -> Iterator[list[Row]]:
    """Yield the rows of ``results.jsonl``, batch by batch, as they are written.

    Memory and speed depend on ``batch_size``, and in the last digits the logits. A batch whose rows are all known is
    left out. Batches are cut the same way whatever is known, so that every row is the same.
    """
    prompts = [with_system(prompt, system_prompt) for prompt in prompts]
    ids = [prompt_tokens(tokenizer, prompt.text, system_prompt) for prompt in prompts]
    # alike in length, so that little is padded
    order = sorted(range(len(prompts)), key=lambda k: (prompts[k].row["mode"], len(ids[k]), k))
    groups = [list(group) for _, group in itertools.groupby(order, key=lambda k: prompts[k].row["mode"])]
    batches = [group[k : k + batch_size] for group in groups for k in range(0, len(group), batch_size)]
    with tqdm(total=len(prompts), desc=f"{name}, writing", unit="prompt", bar_format=_BAR) as progress:
        for n_before, batch in zip(itertools.accumulate(map(len, batches), initial=0), batches):
            if not is_known([{"model": name, **prompts[k].row} for k in batch]):
                decoding = decodings[prompts[batch[0]].row["mode"]]
                seeds = [decoding.seed_of(prompts[k].row) for k in batch]
                a_token = partial(progress.update, len(batch) / decoding.max_new_tokens)
                written = write(model, [ids[k] for k in batch], decoding, seeds, tokenizer.stop_tokens, a_token)
                rows = []
                for k, tokens in zip(batch, written):
                    has_ended = tokens[-1] in tokenizer.stop_tokens
                    text = tokenizer.decode(tokens[:-1] if has_ended else tokens)
                    writing = Writing(text, "stop" if has_ended else "length", len(tokens))
                    rows.append(written_row(name, prompts[k], options, decoding, writing))
                yield rows
            progress.update(n_before + len(batch) - progress.n)


def write(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    seeds: Sequence[int],
    stop_tokens: Sequence[int],
    tell: Callable[[], Any] = lambda: None,
) -> list[list[int]]:
    """Return what the model writes after each prompt, its stop token included; see :func:`iterate_steps`.

    ``tell`` is called after every step.
    """
    written: list[list[int]] = [[] for _ in prompts]
    for step in iterate_steps(model, prompts, decoding, seeds, stop_tokens):
        for k, token in step.items():
            written[k].append(token)
        tell()
    return written


@torch.no_grad()
def iterate_steps(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    seeds: Sequence[int],
    stop_tokens: Sequence[int],
    max_tokens_per_forward: int | None = None,
) -> Iterator[dict[int, int]]:
    """Yield the next token of each prompt that is not at its end, by the prompt's place.

    Keys and values belong to this iterator and lie in the model only while a step is computed, so between two steps
    the model may be used for anything else, and many iterators may take turns. The adapters must be the same at every
    step. Each prompt has a seed of its own. A prompt longer than ``max_tokens_per_forward`` is read in several steps,
    which yield nothing but ``{}``.

    ``torchtune.generation.generate`` would draw all prompts from one stream of numbers, so that an answer
    depended on its neighbours, and take the head over every token of every prompt. Its parts are used here.

    Raises:
        ValueError: If a prompt and its answer are longer than the model's context.
    """
    device = next(model.parameters()).device
    n, width = len(prompts), max(map(len, prompts))
    total = width + decoding.max_new_tokens
    if total > model.max_seq_len:
        raise ValueError(
            f"a prompt of {width} tokens and an answer of {decoding.max_new_tokens} exceed the model's context of "
            f"{model.max_seq_len}: lower max_new_tokens or open_max_new_tokens, or raise model.max_seq_len"
        )
    tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)  # [B, W]
    is_token = torch.tensor([[False] * (width - len(p)) + [True] * (total - width + len(p)) for p in prompts])
    is_token = is_token.to(device)  # [B, T]
    reader: _TorchtuneReader | _TransformersReader
    if isinstance(model, CausalLM):
        reader = _TransformersReader(model, is_token)
    else:
        reader = _TorchtuneReader(model, is_token, width)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    under_way = set(range(n))
    done, most = 0, max_tokens_per_forward or width
    while width - done > most:
        reader.next_logits(tokens[:, done : done + most], done)
        done += most
        yield {}
    tokens = tokens[:, done:]
    for end in range(width, total):
        tokens, done = _draw(reader.next_logits(tokens, done), decoding, generators, under_way), end
        written = {k: int(tokens[k]) for k in sorted(under_way)}
        under_way -= {k for k, token in written.items() if token in stop_tokens}
        yield written
        if not under_way:
            return


class _TorchtuneReader:
    """Keys and values of a torchtune decoder, which lie in the model only while a step is computed."""

    def __init__(self, model: TransformerDecoder, is_token: Tensor, width: int) -> None:
        weight, (n, total) = next(model.tok_embeddings.parameters()), is_token.shape
        self._model, self._is_token = model, is_token
        self._positions = get_position_ids_from_padding_mask(is_token)
        self._prompt_mask = get_causal_mask_from_padding_mask(is_token[:, :width], target_seq_len=total)  # [B, W, T]
        with weight.device:
            self._caches = [
                KVCache(n, total, layer.attn.num_kv_heads, layer.attn.head_dim, weight.dtype) for layer in model.layers
            ]

    def next_logits(self, tokens: Tensor, start: int) -> Tensor:
        """Return the logits after ``tokens [B, n]``, which follow ``start`` others: float32 ``[B, V]``."""
        model, end = self._model, start + tokens.shape[1]
        if end <= self._prompt_mask.shape[1]:
            mask = self._prompt_mask[:, start:end]
        else:
            mask = self._is_token[:, None, :].clone()
            mask[:, :, end:] = False
        for layer, cache in zip(model.layers, self._caches):
            layer.attn.kv_cache, layer.attn.cache_enabled = cache, True
        try:
            hidden = model.tok_embeddings(tokens)
            for layer in model.layers:
                hidden = layer(hidden, mask=mask, input_pos=self._positions[:, start:end])
        finally:
            for layer in model.layers:
                layer.attn.kv_cache, layer.attn.cache_enabled = None, False
        return model.output(model.norm(hidden[:, -1:]))[:, 0].float()


class _TransformersReader:
    """The same for a transformers decoder."""

    def __init__(self, model: CausalLM, is_token: Tensor) -> None:
        self._model, self._is_token = model, is_token
        self._positions = get_position_ids_from_padding_mask(is_token)
        self._cache = model.new_cache()

    def next_logits(self, tokens: Tensor, start: int) -> Tensor:
        end = start + tokens.shape[1]
        return self._model.next_logits(self._cache, tokens, self._is_token[:, :end], self._positions[:, start:end])


def _draw(logits: Tensor, decoding: Decoding, generators: Sequence[torch.Generator], under_way: set[int]) -> Tensor:
    """Return the next token of each prompt, ``[B, 1]``; those that have ended get any."""
    if decoding.temperature == 0:
        return logits.argmax(-1, keepdim=True)
    # an exponential race, with numbers of each prompt's own, made on the CPU: the same on every device
    q = torch.ones(logits.shape)
    for k in under_way:
        q[k].exponential_(1, generator=generators[k])
    return sample(logits, temperature=decoding.temperature, top_k=decoding.top_k, q=q.to(logits.device)).long()
