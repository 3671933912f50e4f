# SPDX-License-Identifier: MIT
"""PEFT adapters on a resident model: any number, one or a blend of them switched on at a time.

The base is loaded once. peft's own LoRA layers are put around its linear layers, so whatever ``adapter_config.json``
asks for (rank, alpha, patterns, rsLoRA, DoRA) is peft's business; only the names and the rotary layout of the tensors
differ in a torchtune decoder from the Hugging Face model's.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from torchtune.modules import TransformerDecoder

from finetune.adapters.folders import ADAPTER_FILE, TORCHTUNE_NAMES, check_llama_targets, read_adapter_config
from finetune.causal.decoder import CausalLM
from finetune.tree.layers import accumulate_when_reading
from finetune.tree.logprobs import Decoder


def _to_torchtune(state: Mapping[str, Tensor], base: Mapping[str, Any]) -> dict[str, Tensor]:
    """Give adapter tensors torchtune's names, and query and key rows its interleaved rotary layout."""
    n_heads = {"q_proj": base["num_attention_heads"]}
    n_heads["k_proj"] = base.get("num_key_value_heads") or n_heads["q_proj"]
    converted = {}
    for hf_name, tensor in state.items():  # base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
        module, _, part = hf_name.removeprefix("base_model.model.").partition(".lora_")
        projection = module.rpartition(".")[2]
        if projection not in TORCHTUNE_NAMES or not part:
            raise ValueError(f"unknown adapter tensor {hf_name}; allowed are LoRA tensors on {sorted(TORCHTUNE_NAMES)}")
        # Only tensors that are indexed by output features (B, DoRA's magnitude) carry the rotary layout.
        if projection in n_heads and not part.startswith("A"):
            halves = tensor.reshape(n_heads[projection], 2, -1, *tensor.shape[1:])
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        converted[f"{_torchtune_name(module)}.lora_{part}"] = tensor
    return converted


def _torchtune_name(module: str) -> str:
    """Return torchtune's name of a projection, or of the module at a path."""
    parent, dot, projection = module.removeprefix("model.").rpartition(".")
    return parent.replace("self_attn", "attn") + dot + TORCHTUNE_NAMES[projection]


def _drop_base_head(state: dict[str, Tensor], output: Any, folder: str | Path) -> None:
    """Take out the base's own head, which peft always saves beside an adapter of ``lm_head``."""
    saved = state.pop("base_model.model.lm_head.base_layer.weight", None)
    if saved is None:
        return
    head = getattr(output, "base_layer", output).weight
    saved = saved.to(head.device)
    # one of them may have been rounded to the other's dtype
    if not (torch.equal(saved.to(head.dtype), head) or torch.equal(saved, head.to(saved.dtype))):
        raise ValueError(f"{folder}: it holds an lm_head of its own, which is not this base's: the base is another one")


def _inject_torchtune(model: TransformerDecoder, name: str, folder: Path, base: Mapping[str, Any]) -> None:
    """Put peft's layers of one adapter around a torchtune decoder's and fill them with the adapter's weights."""
    settings = check_llama_targets(folder)
    settings.target_modules = {_torchtune_name(m) for m in settings.target_modules}
    settings.rank_pattern = {TORCHTUNE_NAMES[m]: r for m, r in settings.rank_pattern.items()}
    settings.alpha_pattern = {TORCHTUNE_NAMES[m]: a for m, a in settings.alpha_pattern.items()}
    state = load_file(folder / ADAPTER_FILE)
    if "output" in settings.target_modules:
        if not isinstance(model.output, torch.nn.Module):
            raise ValueError(f"{folder}: adapts lm_head, but this base ties its head to the embedding")
        _drop_base_head(state, model.output, folder)
    _inject(model, name, settings, _to_torchtune(state, base), folder)


def _inject_transformers(decoder: CausalLM, name: str, folder: Path) -> None:
    """Do the same with a transformers model, for which nothing is renamed."""
    state = load_file(folder / ADAPTER_FILE)
    _drop_base_head(state, decoder.hf.get_output_embeddings(), folder)
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}
    _inject(decoder.hf, name, read_adapter_config(folder), state, folder)


def _inject(model: nn.Module, name: str, settings: LoraConfig, state: dict[str, Tensor], folder: Path) -> None:
    try:
        inject_adapter_in_model(settings, model, adapter_name=name)
        outcome = set_peft_model_state_dict(model, state, adapter_name=name)
    except (RuntimeError, ValueError) as error:  # a tensor of another shape, a layer that is not there
        first = " ".join(str(error).split("\n\t")[:2])  # a line for each tensor follows
        raise ValueError(f"{folder}: the adapter does not fit this base model: {first}") from error
    missing = [k for k in outcome.missing_keys if f".{name}." in k]
    if missing or outcome.unexpected_keys:
        raise ValueError(
            f"{folder}: the adapter does not fit this base model: {len(missing)} tensors missing "
            f"({missing[:3]}), {len(outcome.unexpected_keys)} unknown ({outcome.unexpected_keys[:3]})"
        )


class AdaptedModel:
    """A resident decoder with named adapters and blends of them, all off until one is asked for.

    A blend adds up its adapters' updates, each times a weight. peft's layers do that with whatever adapters are
    active, so a blend takes no memory; with weight 1 it is the adapter and with weight 0 the base, to the bit.

    Args:
        model: Plain decoder with the base weights loaded; changed in place.
        adapters: Name to PEFT folder.
        checkpoint_dir: The base model's Hugging Face folder; its ``config.json`` gives the head counts.
        blends: Name to weight of each adapter in it, checked by :func:`finetune.adapters.folders.read_adapters`.
    """

    def __init__(
        self,
        model: Decoder,
        adapters: Mapping[str, str | Path],
        checkpoint_dir: str | Path,
        blends: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.model = model
        self._weights = {name: {name: 1.0} for name in adapters} | dict(blends or {})
        base = json.loads((Path(checkpoint_dir) / "config.json").read_text())
        if not isinstance(model, CausalLM) and base["model_type"] not in ("llama", "mistral"):
            raise ValueError(f"{checkpoint_dir}: a {base['model_type']} model; supported: llama, mistral")
        for name, folder in adapters.items():
            if isinstance(model, CausalLM):
                _inject_transformers(model, name, Path(folder))
            else:
                _inject_torchtune(model, name, Path(folder), base)
        accumulate_when_reading(model)
        self._layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
        model.requires_grad_(False)
        model.eval()  # peft's new layers come with dropout switched on
        self._switch({})

    def _switch(self, weights: Mapping[str, float]) -> None:
        for layer in self._layers:
            # A layer that no adapter of these touches must not keep another one's update.
            present = [adapter for adapter, weight in weights.items() if weight and adapter in layer.lora_A]
            for adapter in present:
                layer.set_scale(adapter, weights[adapter])
            # peft's set_adapter and enable_adapters set these two, and the gradient of every parameter, which is off
            # here for good: that took as long as half a token.
            layer._active_adapter, layer._disable_adapters = present, not present

    @contextlib.contextmanager
    def using(self, name: str | Mapping[str, float] | None) -> Iterator[Decoder]:
        """Switch one adapter or blend on (None: the base; a mapping: weights by adapter) inside a ``with`` block."""
        weights = self._weights.get(name) if isinstance(name, str) else name or {}
        if weights is None or weights.keys() - {adapter for known in self._weights.values() for adapter in known}:
            raise KeyError(f"no adapter `{name}`; loaded: {list(self._weights)}")
        self._switch(weights)
        try:
            yield self.model
        finally:
            self._switch({})
