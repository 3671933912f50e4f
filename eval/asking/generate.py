# SPDX-License-Identifier: MIT
"""A resident model answers in writing, many prompts at once, keys and values cached.

Legend: B prompts of a batch, W tokens of the longest prompt, T tokens with what is written, V vocabulary.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchtune.generation import get_causal_mask_from_padding_mask, get_position_ids_from_padding_mask, sample
from torchtune.modules import KVCache, MultiHeadAttention, TransformerDecoder
from tqdm import tqdm

from eval.asking.questions import prompt_tokens
from eval.asking.results import Row
from eval.asking.thinking import Thinking, with_thinking
from eval.asking.written_answers import Decoding, Writing, written_row
from eval.statements.prompts import Prompt, with_system
from eval.statements.requests import WRITE
from finetune.causal.decoder import CausalLM
from finetune.tree.attention import attend
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
    thinking: Thinking | None = None,
    is_known: Callable[[list[Row]], bool] = lambda rows: False,
) -> Iterator[list[Row]]:
    """Yield the rows of ``results.jsonl``, batch by batch, as they are written.

    Memory and speed depend on ``batch_size``, and in the last digits the logits. A batch whose rows are all known is
    left out. Batches are cut the same way whatever is known, so that every row is the same.
    """
    prompts = with_thinking(
        [with_system(prompt, system_prompt) for prompt in prompts], thinking.said if thinking else None
    )
    ids = [prompt_tokens(tokenizer, prompt.text, prompt.system) for prompt in prompts]
    most = (thinking and thinking.max_tokens) or 0

    def beside(k: int) -> tuple[Any, ...]:
        """Put prompts together that begin alike, or are alike in length: little is read twice, or padded."""
        mode = prompts[k].row["mode"]
        return mode, ids[k] if mode == WRITE else len(ids[k]), k

    order = sorted(range(len(prompts)), key=beside)
    groups = [list(group) for _, group in itertools.groupby(order, key=lambda k: prompts[k].row["mode"])]
    batches = [group[k : k + batch_size] for group in groups for k in range(0, len(group), batch_size)]
    with tqdm(total=len(prompts), desc=f"{name}, writing", unit="prompt", bar_format=_BAR) as progress:
        for n_before, batch in zip(itertools.accumulate(map(len, batches), initial=0), batches):
            if not is_known([{"model": name, **prompts[k].row} for k in batch]):
                decoding = decodings[prompts[batch[0]].row["mode"]]
                seeds = [decoding.seed_of(prompts[k].row) for k in batch]
                a_token = partial(progress.update, len(batch) / (decoding.max_new_tokens + most))
                asked = [ids[k] for k in batch]
                thoughts: list[list[int]] = [[] for _ in asked]
                if most:
                    thoughts = _think(model, asked, decoding, seeds, tokenizer, most, a_token)
                asked = [[*prompt, *thought] for prompt, thought in zip(asked, thoughts)]
                written = write(model, asked, decoding, seeds, tokenizer.stop_tokens, a_token)
                rows = []
                for k, thought, tokens in zip(batch, thoughts, written):
                    has_ended = tokens[-1] in tokenizer.stop_tokens
                    answer, more = tokens[:-1] if has_ended else tokens, Row()
                    if thinking and thinking.is_on:
                        answer, more = _split(thought, answer, tokenizer)
                    text = tokenizer.decode(answer)
                    finish, n_tokens = "stop" if has_ended else "length", len(thought) + len(tokens)
                    writing = Writing(text.lstrip() if more else text, finish, n_tokens)
                    rows.append(written_row(name, prompts[k], options, decoding, writing) | more)
                yield rows
            progress.update(n_before + len(batch) - progress.n)


def _think(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    seeds: Sequence[int],
    tokenizer: Any,
    most: int,
    tell: Callable[[], Any],
) -> list[list[int]]:
    """Return the reasoning of each prompt with the end of its block, which is put where ``most`` tokens have none.

    The answers then draw the random numbers that they draw without a reasoning.
    """
    close = tokenizer.end_of_thought
    own_seeds, stops = [seed + 1 for seed in seeds], [*tokenizer.stop_tokens, close]
    thoughts = write(model, prompts, decoding._replace(max_new_tokens=most), own_seeds, stops, tell)
    for thought in thoughts:
        if thought[-1] != close:
            del thought[len(thought) - (thought[-1] in stops) :]  # the end of a turn
            thought += tokenizer.cut_thought()
    return thoughts


def _split(thought: list[int], answer: list[int], tokenizer: Any) -> tuple[list[int], Row]:
    """Return an answer without its reasoning, and that reasoning for its row; one that did not end has no answer."""
    close, whole = tokenizer.end_of_thought, [*thought, *answer]
    end = whole.index(close) if close in whole else len(whole)
    is_cut = thought[-1] != close if thought else end == len(whole)
    return whole[end + 1 :], {"reasoning": tokenizer.decode(whole[:end]).strip(), "reasoning_cut": is_cut}


def write(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    seeds: Sequence[int],
    stop_tokens: Sequence[int],
    tell: Callable[[], Any] = lambda: None,
) -> list[list[int]]:
    """Return what the model writes after each prompt, its stop token included; see :func:`iterate_steps`.

    ``tell`` is called after every token.
    """
    written: list[list[int]] = [[] for _ in prompts]
    for step in iterate_steps(model, prompts, decoding, seeds, stop_tokens):
        for k, token in step.items():
            written[k].append(token)
        if step:
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
    keeps_tokens = _keeps_tokens(model)
    shared = _shared(prompts) if keeps_tokens and total <= _window(model) else 0
    pads = [width - len(p) for p in prompts]
    tokens = torch.tensor([[*p[:shared], *[0] * pad, *p[shared:]] for p, pad in zip(prompts, pads)], device=device)
    is_token = torch.ones(n, total, dtype=torch.bool)  # [B, T]
    for row, pad in zip(is_token, pads):
        row[shared : shared + pad] = False
    is_token = is_token.to(device)
    reader: _TorchtuneReader | _TransformersReader
    if isinstance(model, CausalLM):
        reader = _TransformersReader(model, is_token)
    else:
        reader = _TorchtuneReader(model, is_token, width)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows, under_way = list(range(n)), set(range(n))
    # what all prompts begin with is read once, as one row; the last piece gives the logits
    cuts = [0, *_pieces(0, shared, max_tokens_per_forward), *_pieces(shared, width, max_tokens_per_forward)]
    for start, end in itertools.pairwise(cuts[:-1]):
        reader.next_logits(tokens[: 1 if end <= shared else n, start:end], start)
        yield {}
    tokens, done = tokens[:, cuts[-2] :], cuts[-2]
    for end in range(width, total):
        tokens, done = _draw(reader.next_logits(tokens, done), decoding, generators), end
        written = {k: int(token) for k, token in zip(rows, tokens) if k in under_way}
        under_way -= {k for k, token in written.items() if token in stop_tokens}
        yield written
        if not under_way:
            return
        # rows that have ended are computed on until they are some: to take them out copies all keys and values
        if keeps_tokens and len(under_way) <= len(rows) * 3 / 4:
            going = [row for row, k in enumerate(rows) if k in under_way]
            reader.keep(going)
            tokens, generators, rows = tokens[going], [generators[i] for i in going], [rows[i] for i in going]


def _keeps_tokens(model: Decoder) -> bool:
    """Return whether all layers keep keys and values of every token, and none a state of all that it has read."""
    kinds = getattr(model.hf.config, "layer_types", None) if isinstance(model, CausalLM) else None
    return {*(kinds or ())} <= {"full_attention", "sliding_attention"}


def _window(model: Decoder) -> int:
    """Return how many places back a layer sees; padding would count as places."""
    window = getattr(model.hf.config, "sliding_window", None) if isinstance(model, CausalLM) else None
    return window or model.max_seq_len


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with; each keeps one of its own, which is read to go on from."""
    if len(prompts) == 1:
        return 0
    first, last = min(map(list, prompts)), max(map(list, prompts))  # of all in their order, these share least
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last))
    return min(sum(1 for _ in same), min(map(len, prompts)) - 1)


def _pieces(start: int, end: int, most: int | None) -> list[int]:
    """Return where to cut tokens ``[start, end)`` so that no piece is longer, the end included."""
    return [*range(start, end, most or max(end - start, 1))][1:] + ([end] if end > start else [])


class _Cache(KVCache):
    """Keys and values of one layer; what one row reads is there for all rows.

    It grows by ``ROOM`` places and is read whole: products of many small matrices copy what does not lie together.
    """

    ROOM = 64
    k_cache: Tensor
    v_cache: Tensor

    def __init__(self, n_rows: int, *sizes: Any) -> None:
        super().__init__(n_rows, 0, *sizes)
        self.n_read = 0

    def update(self, k_val: Tensor, v_val: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values ``[B or 1, K, n, H]`` and return all so far."""
        n_rows, start, end = len(k_val), self.n_read, self.n_read + k_val.shape[2]
        if (more := end - self.k_cache.shape[2]) > 0:
            places = 0, 0, 0, -(-more // self.ROOM) * self.ROOM
            self.k_cache, self.v_cache = F.pad(self.k_cache, places), F.pad(self.v_cache, places)
        for store, new in ((self.k_cache, k_val), (self.v_cache, v_val)):
            store[:, :, start:end] = new
        self.n_read = end
        return self.k_cache[:n_rows, :, :end], self.v_cache[:n_rows, :, :end]

    def keep(self, rows: list[int]) -> None:
        """Leave out all other rows."""
        self.k_cache, self.v_cache = self.k_cache[rows], self.v_cache[rows]


class _TorchtuneReader:
    """Keys and values of a torchtune decoder, which lie in the model only while a step is computed."""

    def __init__(self, model: TransformerDecoder, is_token: Tensor, width: int) -> None:
        weight, n = next(model.tok_embeddings.parameters()), len(is_token)
        self._model, self._is_token = model, is_token
        self._positions = get_position_ids_from_padding_mask(is_token)
        self._prompt_mask = get_causal_mask_from_padding_mask(is_token[:, :width])  # [B, W, W]
        with weight.device:
            self._caches = [
                _Cache(n, layer.attn.num_kv_heads, layer.attn.head_dim, weight.dtype) for layer in model.layers
            ]

    def next_logits(self, tokens: Tensor, start: int) -> Tensor:
        """Return the logits after ``tokens [B, n]``, which follow ``start`` others: float32 ``[B, V]``.

        A single row is read for all of them.
        """
        model, n_rows, end = self._model, len(tokens), start + tokens.shape[1]
        if end <= self._prompt_mask.shape[1]:
            mask = self._prompt_mask[:n_rows, start:end, :end]
        else:
            mask = self._is_token[:, None, :end]
        positions = self._positions[:n_rows, start:end]
        attentions: list[Any] = [layer.attn for layer in model.layers]
        kept = {attn: vars(attn).get("forward") for attn in attentions if _is_plain(attn)}
        for attn, cache in zip(attentions, self._caches):
            attn.kv_cache, attn.cache_enabled = cache, True
        for attn in kept if tokens.shape[1] == 1 else ():
            attn.forward = partial(_attend_once, attn)
        try:
            hidden = model.tok_embeddings(tokens)
            for layer in model.layers:
                hidden = layer(hidden, mask=mask, input_pos=positions)
        finally:
            for attn in attentions:
                attn.kv_cache, attn.cache_enabled = None, False
            for attn, forward in kept.items():
                vars(attn).pop("forward", None)
                if forward is not None:
                    attn.forward = forward
        return model.output(model.norm(hidden[:, -1:]))[:, 0].float()

    def keep(self, rows: list[int]) -> None:
        """Leave out all other rows."""
        self._is_token, self._positions = self._is_token[rows], self._positions[rows]
        for cache in self._caches:
            cache.keep(rows)


def _is_plain(attn: Any) -> bool:
    """Return whether an attention is torchtune's own, or the same on a prefix tree."""
    forward = vars(attn).get("forward")
    return type(attn) is MultiHeadAttention and (forward is None or forward.__func__ is attend)


def _attend_once(attn: MultiHeadAttention, x: Tensor, y: Tensor, *, mask: Tensor, input_pos: Tensor) -> Tensor:
    """Return what torchtune's attention does for one more token of each row, ``[B, 1, D]``.

    The query heads of a key-value head are its queries, so that keys and values need not be copied for each of them.
    """
    n, group = len(x), attn.num_heads // attn.num_kv_heads
    q, k, v = (linear(x).view(n, 1, -1, attn.head_dim) for linear in (attn.q_proj, attn.k_proj, attn.v_proj))
    if attn.pos_embeddings is not None:
        q, k = (attn.pos_embeddings(part, input_pos=input_pos) for part in (q, k))
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    if attn.q_norm is not None:
        q, k = attn.q_norm(q), attn.k_norm(k)
    keys, values = attn.kv_cache.update(k, v.transpose(1, 2))
    q = q.reshape(n, attn.num_kv_heads, group, attn.head_dim)
    if x.is_cuda:
        out = F.scaled_dot_product_attention(q, keys, values, mask[:, None])
    else:
        out = _attend_to_all(q, attn.kv_cache.k_cache[:n], attn.kv_cache.v_cache[:n], mask)
    return attn.output_proj(out.reshape(n, 1, -1))


def _attend_to_all(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return the attention of ``q [B, K, G, H]`` to ``[B, K, C, H]``; places behind ``mask [B, 1, T]`` are empty."""
    n, n_heads, group, width = q.shape
    scores = torch.bmm(q.reshape(n * n_heads, group, width), keys.flatten(0, 1).transpose(1, 2))
    hidden = ~F.pad(mask, (0, keys.shape[2] - mask.shape[2]))
    wide = scores.view(n, n_heads, group, -1).float().mul_(width**-0.5).masked_fill_(hidden[:, None], -math.inf)
    weights = wide.softmax(-1).to(values.dtype)
    return torch.bmm(weights.flatten(0, 1), values.flatten(0, 1)).view(n, n_heads, group, width)


class _TransformersReader:
    """The same for a transformers decoder."""

    def __init__(self, model: CausalLM, is_token: Tensor) -> None:
        self._model, self._is_token = model, is_token
        self._positions = get_position_ids_from_padding_mask(is_token)
        self._cache = model.new_cache()
        self._n_rows = 0

    def next_logits(self, tokens: Tensor, start: int) -> Tensor:
        n_rows, end = len(tokens), start + tokens.shape[1]
        if 0 < self._n_rows < n_rows:  # one was read for all
            self._cache.batch_repeat_interleave(n_rows)
        self._n_rows = n_rows
        at = slice(n_rows), slice(end)
        positions = self._positions[:n_rows, start:end]
        return self._model.next_logits(self._cache, tokens, self._is_token[at], positions)

    def keep(self, rows: list[int]) -> None:
        self._is_token, self._positions, self._n_rows = self._is_token[rows], self._positions[rows], len(rows)
        self._cache.batch_select_indices(torch.tensor(rows, device=self._is_token.device))


def _draw(logits: Tensor, decoding: Decoding, generators: Sequence[torch.Generator]) -> Tensor:
    """Return the next token of each prompt, ``[B, 1]``."""
    if decoding.temperature == 0:
        return logits.argmax(-1, keepdim=True)
    # an exponential race, with numbers of each prompt's own, made on the CPU: the same on every device
    q = torch.ones(logits.shape)
    for row, generator in zip(q, generators):
        row.exponential_(1, generator=generator)
    return sample(logits, temperature=decoding.temperature, top_k=decoding.top_k, q=q.to(logits.device)).long()
