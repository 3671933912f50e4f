# SPDX-License-Identifier: MIT
"""A decoder of the transformers library that reads prefix trees: a mask and positions are all that it is given.

Legend: T tokens of the tree, S scored tokens, N answers, B sequences, D embedding, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from finetune.causal.attention import BRANCHES, use_branches
from finetune.tree.attention import CALL_SCORES, READ_CALL_SCORES, block_mask, cut_tree
from finetune.tree.layers import use_fast_transformers_layers
from finetune.tree.logprobs import Head, TreeDecoder, answer_sums, get_head
from finetune.tree.prefix_tree import PrefixTree
from finetune.tree.reading import read_sums

# How a tree may be shown to a decoder: one mask for all layers, a mask for each kind of layer, or not at all.
LAYOUTS = ("by_layer", "one_mask", "sequences")


class CausalLM(TreeDecoder):
    """A transformers model and how it reads a tree.

    Args:
        model: An ``AutoModelForCausalLM``, with or without peft's LoRA layers in it.
        folder: Where its weights and tokenizer lie.
    """

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        super().__init__()
        self.hf = model
        self.folder = folder
        # sequences one by one until a measurement allows more (finetune/causal/agreement.py)
        self.layout = "sequences"

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers."""
        n_layers = self.hf.config.num_hidden_layers
        return next(m for m in self.hf.modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers)

    @property
    def max_seq_len(self) -> int:
        """Most tokens that it reads."""
        return self.hf.config.max_position_embeddings

    def train(self, mode: bool = True) -> "CausalLM":
        """Train the adapters; the base stays as it is read: its own dropout and its routers' noise are off."""
        super().train(False)
        self.training = mode
        for module in self.hf.modules():
            if isinstance(module, BaseTunerLayer):
                module.train(mode)
                module.get_base_layer().eval()
        return self

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Switch all of peft's layers off inside a ``with`` block."""
        layers = [m for m in self.hf.modules() if isinstance(m, BaseTunerLayer)]
        before = [layer._disable_adapters for layer in layers]
        # enable_adapters would change which parameters are trained too
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, value in zip(layers, before):
                layer._disable_adapters = value

    def answer_logprobs(self, tree: PrefixTree) -> Tensor:
        """Return the summed log-probability of each answer of a tree, nats ``[N]``."""
        tree = tree.to(self.hf.device)
        if self.layout == "sequences":
            return self.sequence_logprobs(tree)
        return answer_sums(F.embedding(tree.predictor, self._read(tree)), self._head(), tree)

    def read_logprobs(self, tree: PrefixTree) -> Tensor:
        """Return the same where no gradient will be asked for, the head once for each token that predicts."""
        tree = tree.to(self.hf.device)
        if self.layout == "sequences":
            return self.sequence_logprobs(tree)
        rows, row = tree.predictor.unique(return_inverse=True)
        return read_sums(self._read(tree, READ_CALL_SCORES)[rows], row, self._head(), tree)

    def _read(self, tree: PrefixTree, call_scores: int = CALL_SCORES) -> Tensor:
        """Return the hidden states that the head sees, ``[T, D]``."""
        if self.hf.device.type == "cuda":
            # cuDNN plans its attention anew for every number of tokens, and trees differ in size
            torch.backends.cuda.enable_cudnn_sdp(False)
        read = self.hf.base_model(
            input_ids=tree.tokens,
            attention_mask=self._masks(tree, call_scores),
            position_ids=tree.input_pos,
            use_cache=False,
        )
        return read.last_hidden_state[0]

    def sequence_logprobs(self, tree: PrefixTree) -> Tensor:
        """Return the same, each answer read with its prompt as a sequence by itself: any decoder can do that."""
        sums, start = [], 0
        index = torch.arange(tree.tokens.shape[1], device=tree.tokens.device)
        for end in tree.answer_ends:
            predictor, target = tree.predictor[start:end], tree.target[start:end]
            start = end
            if not len(target):
                sums.append(torch.zeros((), device=index.device))
                continue
            path = index[(index <= predictor[-1]) & (predictor[-1] < tree.subtree_end)]
            logits = self.hf(input_ids=tree.tokens[:, path], use_cache=False).logits[0, tree.input_pos[0, predictor]]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            sums.append(torch.log_softmax(logits, -1).gather(1, target[:, None]).sum())
        return torch.stack(sums)

    def _masks(self, tree: PrefixTree, call_scores: int) -> Tensor | Mapping[str, Tensor | None]:
        """Return what attention adds to its scores, ``[1, 1, T, T]``: for all layers, or by the kind of layer.

        A window counts depths, as it does in a sequence, and not places in the row.
        """
        config = self.hf.config
        visible = tree.mask()[None]
        least = torch.finfo(self.hf.dtype).min
        full = torch.where(visible, 0.0, least).to(self.hf.dtype)
        if self.hf.config._attn_implementation == BRANCHES:
            # the same attention without what the mask hides; the mask is there for layers that cannot use it
            branches = cut_tree(tree, call_scores) if full.device.type == "cpu" else block_mask(tree)
            setattr(full, BRANCHES, branches)
        depth = tree.input_pos[0]
        behind = depth[:, None] - depth[None, :]

        def near(size: int | None) -> Tensor:
            if size is None or int(depth.max()) < size:
                return full
            return torch.where(visible & (behind < size), 0.0, least).to(full.dtype)

        def in_chunk(size: int | None) -> Tensor:
            if size is None or int(depth.max()) < size:
                return full
            chunk = depth // size
            return torch.where(visible & (chunk[:, None] == chunk[None, :]), 0.0, least).to(full.dtype)

        # a key that a family does not know may stand in any config.json
        window = getattr(config, "sliding_window", None) if "sliding_window" in _fields(config) else None
        if self.layout == "one_mask":
            return near(window if getattr(config, "use_sliding_window", True) else None)
        masks = {
            "full_attention": full,
            "sliding_attention": near(window),
            "chunked_attention": in_chunk(getattr(config, "attention_chunk_size", None)),
        }
        return {kind: masks.get(kind) for kind in config.layer_types}

    def _head(self) -> Head:
        """Return the output projection, with the factor and the cap that some families put on its logits."""
        config = self.hf.config
        factor = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return get_head(self.hf.get_output_embeddings())._replace(factor=factor, cap=cap)

    def new_cache(self) -> DynamicCache:
        """Return an empty store of keys and values, for :meth:`next_logits`."""
        return DynamicCache(config=self.hf.config)

    def next_logits(self, cache: DynamicCache, tokens: Tensor, is_token: Tensor, positions: Tensor) -> Tensor:
        """Read more tokens ``[B, n]`` of sequences and return the logits of what follows them, float32 ``[B, V]``.

        ``is_token [B, all so far]`` is False where a sequence is padded; ``positions [B, n]`` count without padding.
        """
        read = self.hf(
            input_ids=tokens, attention_mask=is_token.long(), position_ids=positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return read.logits[:, -1].float()


def _fields(config: PreTrainedConfig) -> set[str]:
    return {field.name for field in fields(type(config))}


def read_fast(decoder: CausalLM) -> None:
    """Let a model read trees along their branches where its attention is torch's own, and with less memory traffic."""
    use_fast_transformers_layers(decoder.hf)
    if decoder.hf.config._attn_implementation == "sdpa":
        use_branches(decoder.hf)
