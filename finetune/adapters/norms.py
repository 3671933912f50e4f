# SPDX-License-Identifier: MIT
"""Vectors behind norms: what peft's LoRA lacks for layers whose last step is a norm, as those of Gemma and OLMo are."""

import warnings
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

# How others load what :func:`is_behind_norm`.
HOW_BEHIND_NORM = "peft loads it, behind a norm, with config=finetune.adapters.folders.read_adapter_config(folder)"


class VectorBehindNorm(nn.Module, LoraLayer):
    """A norm, and the biases (``lora_bias``) of adapters that are added to what it gives; their matrices are not read.

    Raises:
        ValueError: If an adapter has no such bias.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, **settings: Any) -> None:
        super().__init__()
        with warnings.catch_warnings(action="ignore"):  # peft does not know the sizes of a norm
            LoraLayer.__init__(self, base_layer)
        own: Any = self
        self.in_features = self.out_features = len(own.get_base_layer().weight)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, **settings)

    def update_layer(self, adapter_name: str, *given: Any, **settings: Any) -> None:
        """Take one more adapter, as peft's own layers do."""
        if not settings.get("lora_bias"):
            raise ValueError("an adapter of a norm has lora_bias=True: nothing but a vector is added there")
        super().update_layer(adapter_name, *given, **settings)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the norm gives, and the vectors of the active adapters added to it."""
        own: Any = self
        y: Tensor = own.base_layer(x)
        for adapter in [] if own.disable_adapters else own.active_adapters:
            if adapter in own.lora_B:
                y = y + (own.lora_B[adapter].bias * own.scaling[adapter]).to(y.dtype)
        return y


def allow_norms(settings: LoraConfig) -> LoraConfig:
    """Let peft adapt norms too, by its own way of taking layers that it does not know, and return the settings."""
    layers: Any = {nn.Module: _behind_norm}
    settings._register_custom_module(layers)
    return settings


def is_behind_norm(settings: Mapping[str, Any]) -> bool:
    """Say whether the adapter of an ``adapter_config.json`` is such a vector, by the names of its modules."""
    return bool(settings.get("lora_bias")) and any(
        name.endswith("norm") for name in settings.get("target_modules") or ()
    )


def _behind_norm(target: Any, adapter_name: str, **settings: Any) -> nn.Module | None:
    """Return a norm's layer; None leaves any other module to peft."""
    module = target.get_base_layer() if isinstance(target, LoraLayer) else target
    return VectorBehindNorm(target, adapter_name, **settings) if is_norm(module) else None


def is_norm(module: nn.Module) -> bool:
    """Say whether a module has a weight for each feature of a hidden state and mixes none of them."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 1
