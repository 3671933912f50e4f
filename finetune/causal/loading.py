# SPDX-License-Identifier: MIT
"""A decoder of the transformers library with the weights of its folder, and with peft's LoRA where it is tuned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune.causal.decoder import CausalLM
from finetune.causal.folder import read_folder
from finetune.tree.layers import widen_adapter

ADAPTER = "default"  # the name of the adapter that is tuned, as in peft


def load_decoder(folder: Path, lora: Mapping[str, Any] | None = None, name: str | None = None) -> CausalLM:
    """Load a folder's decoder in torch's default dtype and on its default device; on ``meta`` without weights.

    ``lora`` is fields of peft's ``LoraConfig``. Its first weights come from torch's generator of the CPU, on whatever
    device. ``name`` is what the adapter's config calls its base.

    Raises:
        FileNotFoundError, ValueError: See :func:`finetune.causal.folder.read_folder`.
        ValueError: If weights are missing, or no layer has the name of a target.
    """
    config, dtype = read_folder(folder), torch.get_default_dtype()
    if torch.get_default_device().type == "meta":
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        model = _with_weights(folder, dtype)
    model.requires_grad_(False)
    if lora is not None:
        settings = LoraConfig(**lora, task_type="CAUSAL_LM", base_model_name_or_path=name or str(folder))
        try:
            inject_adapter_in_model(settings, model, ADAPTER)
        except ValueError as error:  # a target that no layer has; a layer that peft cannot adapt
            raise ValueError(f"model.target_modules={lora['target_modules']}: {error}") from error
        widen_adapter(model)
    return CausalLM(model.eval(), folder)


def _with_weights(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    # transformers would fill these with random numbers
    if absent := sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}):
        raise ValueError(
            f"{folder}: {len(absent)} weights of the model are missing or of another shape ({', '.join(absent[:3])}); "
            "download the folder again"
        )
    return model
