# SPDX-License-Identifier: MIT
"""Make a steering vector: what the two answers of preference pairs differ by, in one layer of a model.

    tune run eval/steering.py --config configs/steering.yaml

The vector is the mean, over pairs, of the hidden state over the chosen answer less that over the rejected one, behind
one layer (Rimsky et al. 2024, arXiv 2312.06681, section 3, with means over an answer's tokens). It is written as a PEFT
adapter of rank 1 whose matrices are 0 and whose bias is the vector, so that every recipe here, and peft, can load it,
weigh it, turn it round and put it beside adapters that were trained. Its length is the largest of ``strengths`` (shares
of the mean length of the hidden states) that costs at most ``max_surprise`` nats a token on neutral text, both ways.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torchtune import config, utils
from tqdm import tqdm
from transformers.pytorch_utils import Conv1D

from data.pairs.tokens import Continuation
from data.recipe.config import check_config, check_place, entry_point
from data.recipe.files import write_json
from eval.asking.respond import load_base
from eval.effects.prompts import load_neutral
from finetune.adapters.cards import write_card
from finetune.adapters.norms import allow_norms, is_norm
from finetune.adapters.saving import write_peft_adapter
from finetune.causal.decoder import CausalLM
from finetune.causal.loading import ADAPTER
from finetune.models import BROUGHT, base_folder, brings_weights, complete_model
from finetune.run.batches import PairSet, first_scored, load_pairs
from finetune.run.precision import settle_dtype
from finetune.run.processes import whole_adapter
from finetune.tree.prefix_tree import build_tree, cut_by_tokens

log = utils.get_logger("INFO")

REQUIRED = {"output_dir", "model", "tokenizer", "checkpointer", "dataset", "device", "dtype"}
OPTIONAL: dict[str, Any] = {
    "layer": None,
    "strengths": [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4],
    "max_surprise": 0.05,
    "neutral_text": "en",
    "max_tokens_per_forward": 800,
}


class Contrast(NamedTuple):
    """The answers' mean hidden states behind one layer."""

    chosen: Tensor  # [N, D]
    rejected: Tensor  # [N, D]
    length: float  # mean length of a hidden state over the answers' tokens

    def direction(self) -> Tensor:
        """Return the mean difference with length 1, ``[D]``."""
        return nn.functional.normalize((self.chosen - self.rejected).mean(0), dim=0)

    def separation(self) -> float:
        """Return in which share of the pairs the chosen answer lies further along the direction of the other half."""
        halves = [Contrast(self.chosen[k::2], self.rejected[k::2], self.length) for k in (0, 1)]
        gaps = [(a.chosen - a.rejected) @ b.direction() for a, b in (halves, halves[::-1])]
        return float((torch.cat(gaps) > 0).double().mean())


def layer_of(decoder: CausalLM, given: int | None) -> int:
    """Return the number of the layer behind which the vector is added; None is the middle one.

    Raises:
        ValueError: If there is no such layer.
    """
    n = len(decoder.layers)
    if given is None:
        return n // 2
    if not 0 <= given < n:
        raise ValueError(f"layer={given}; the model has layers 0 to {n - 1}; null takes the middle one")
    return given


def contrast(decoder: CausalLM, pairs: PairSet, layer: int) -> Contrast:
    """Read every answer with its prompt, and keep its mean hidden state behind a layer."""
    means: list[list[Tensor]] = [[], []]
    total, n = 0.0, 0
    with _behind(decoder.layers[layer]) as hidden:
        for pair in tqdm(pairs.pairs, desc="hidden states"):
            for side, answer in zip(means, pair):
                _read(decoder, answer)
                states = hidden.pop()[0, first_scored(answer) :].float()
                side.append(states.mean(0))
                total, n = total + float(states.norm(dim=-1).sum()), n + len(states)
    return Contrast(torch.stack(means[0]), torch.stack(means[1]), total / n)


class Steered(NamedTuple):
    """Where a vector is added."""

    bias: nn.Parameter  # [D], 0 yet
    gain: float  # what of it reaches the hidden state behind the layer


def add_vector(decoder: CausalLM, layer: int, probe: Continuation, base: str) -> Steered:
    """Put the adapter into the decoder.

    Raises:
        ValueError: If nothing that any of the layer's linear modules and norms gives comes out of the layer as it is.
    """
    block = decoder.layers[layer]
    name, gain = _last_step(decoder, block, probe)
    root = next(path for path, module in decoder.hf.named_modules() if module is block)
    target = f"{root}.{name}"
    settings = LoraConfig(
        r=1, lora_alpha=1, lora_bias=True, target_modules=[target], task_type="CAUSAL_LM", base_model_name_or_path=base
    )
    inject_adapter_in_model(allow_norms(settings), decoder.hf, ADAPTER)
    adapted: Any = decoder.hf.get_submodule(target)
    nn.init.zeros_(adapted.lora_A[ADAPTER].weight)
    return Steered(adapted.lora_B[ADAPTER].bias, gain)


class _LastStep(NamedTuple):
    """A module of a layer, and the share of what is added to its output that comes out of the layer."""

    name: str
    gain: float


def _last_step(decoder: CausalLM, block: nn.Module, probe: Continuation) -> _LastStep:
    """Return the last module of a layer behind which a vector is added to the hidden state alone.

    That is the last linear one where the layer ends with it, the norm behind it in Gemma 2 and 3 and OLMo 2 and 3.
    It is measured: one amount is added to all that a module gives, and must come out of the layer, or a share of it.
    """
    modules = [*block.named_modules()][::-1]
    linear = [(name, m) for name, m in modules if isinstance(m, nn.Linear | Conv1D)]
    norms = [(name, m) for name, m in modules if is_norm(m) and len(m.weight) == decoder.hf.config.hidden_size]
    with _behind(block) as hidden:
        _read(decoder, probe)
        before = hidden.pop().float()
        amount = float(before.abs().mean())
        rounding = 4 * torch.finfo(decoder.hf.dtype).eps * before.abs()
        for name, module in [*linear, *norms]:
            with module.register_forward_hook(lambda module, given, result: result + amount):
                _read(decoder, probe)
            added = (hidden.pop().float() - before) / amount
            gain = float(f"{float(added.median()):.2g}")
            if gain > 0 and float(((added - gain).abs() > 0.05 * gain + rounding / amount).float().mean()) <= 0.01:
                return _LastStep(name, gain)
    raise ValueError(
        f"model: in a layer of a {decoder.hf.config.model_type} model no linear module and no norm gives what comes "
        "out of it as it is (in a mixture of experts a sum over experts does); no vector can be added there"
    )


def surprise(decoder: CausalLM, texts: Sequence[Continuation], max_tokens: int) -> float:
    """Return the mean negative log-probability of a token, nats; ``max_tokens`` are read at a time."""
    n = sum(len(text.tokens) - 1 for text in texts)
    forwards = cut_by_tokens([[text] for text in texts], max_tokens)
    return -sum(float(decoder.read_logprobs(build_tree([texts[k] for k in part])).sum()) for part in forwards) / n


@contextmanager
def _behind(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer gives, ``[1, T, D]`` a forward."""
    found: list[Tensor] = []
    hook = layer.register_forward_hook(
        lambda module, given, result: found.append(result if isinstance(result, Tensor) else result[0])
    )
    try:
        yield found
    finally:
        hook.remove()


def _read(decoder: CausalLM, answer: Continuation) -> None:
    ids = torch.as_tensor(list(answer.tokens), device=decoder.hf.device)[None]
    decoder.hf.base_model(input_ids=ids, use_cache=False)


def _check(cfg: DictConfig) -> None:
    if not brings_weights(cfg.model):
        raise ValueError(
            "model: steering needs model=finetune.models.causal_lm with model.path, tokenizer and checkpointer null"
        )
    strengths = list(cfg.strengths)
    numbers = all(isinstance(x, int | float) for x in strengths)
    if not strengths or not numbers or strengths != sorted(set(strengths)) or strengths[0] <= 0:
        raise ValueError(f"strengths={strengths}; give positive numbers, each larger than the one before")
    if (folder := Path(cfg.output_dir) / "vector").exists():
        raise FileExistsError(f"{folder} is there already; choose another output_dir")


@entry_point
@torch.no_grad()
def recipe_main(cfg: DictConfig) -> None:
    """Make a steering vector; see configs/steering.yaml for the keys."""
    cfg = complete_model(check_config(cfg, REQUIRED, OPTIONAL, set(), BROUGHT))
    check_place(cfg)
    _check(cfg)
    neutral = load_neutral(cfg.neutral_text)
    tokenizer = config.instantiate(cfg.tokenizer)
    pairs = load_pairs(cfg.dataset, tokenizer)
    device = utils.get_device(device=cfg.device)
    decoder: Any = load_base(cfg, device, settle_dtype(cfg, device, base_folder(cfg)))
    layer = layer_of(decoder, cfg.layer)
    found = contrast(decoder, pairs, layer)
    lines = [tokenizer.encode(prompt.answers[0], add_bos=True, add_eos=False) for prompt in neutral.prompts]
    texts = [Continuation(ids, [-100, *ids[1:]]) for ids in lines if len(ids) > 1]
    base = surprise(decoder, texts, cfg.max_tokens_per_forward)
    bias, gain = add_vector(decoder, layer, pairs.pairs[0][0], str(base_folder(cfg).resolve()))
    vector = found.direction().to(bias.dtype) * found.length / gain
    doses = [{"strength": 0.0, "surprise_chosen": 0.0, "surprise_rejected": 0.0}]
    for strength in cfg.strengths:
        extra = []
        for sign in (1, -1):
            bias.copy_(vector * strength * sign)
            extra.append(surprise(decoder, texts, cfg.max_tokens_per_forward) - base)
        doses.append({"strength": strength, "surprise_chosen": extra[0], "surprise_rejected": extra[1]})
        log.info(f"strength {strength:g}: surprise at neutral text {extra[0]:+.4f} and, turned round, {extra[1]:+.4f}")
        if max(extra) > cfg.max_surprise:
            break
    allowed = [d for d in doses if max(d["surprise_chosen"], d["surprise_rejected"]) <= cfg.max_surprise]
    if not (strength := allowed[-1]["strength"]):
        raise ValueError(
            f"strengths={list(cfg.strengths)}: the first costs {max(extra):.3f} nats a token on neutral text, more "
            f"than max_surprise={cfg.max_surprise}; give smaller ones"
        )
    bias.copy_(vector * strength)
    folder = Path(cfg.output_dir) / "vector"
    write_peft_adapter(decoder, folder, whole_adapter(decoder))
    cfg.loss = {"_component_": "difference of means (eval/steering.py)"}
    write_card(folder, cfg, base_folder(cfg), f"{len(pairs.pairs)} pairs from {pairs.origin}", 0)
    about = {
        "layer": layer, "n_layers": len(decoder.layers), "n_pairs": len(pairs.pairs), "strength": strength,
        "separation": found.separation(), "max_surprise": cfg.max_surprise, "neutral_surprise": base, "doses": doses,
    }  # fmt: skip
    write_json(folder / "steering.json", about)
    log.info(
        f"{folder}: behind layer {layer} of {len(decoder.layers)}, {strength:g} of a hidden state's mean length; the "
        f"chosen answer lies further along it in {about['separation']:.0%} of pairs of the other half. Weigh it like "
        "any adapter, for example in configs/dial.yaml"
    )


if __name__ == "__main__":
    sys.exit(recipe_main())
