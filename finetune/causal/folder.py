# SPDX-License-Identifier: MIT
"""A model's Hugging Face folder: found, or refused in one line before any weight is read."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

# What is fetched of a repository on the Hub: one form of the weights, and no code.
FETCHED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt")


def find_folder(path: str | Path) -> Path:
    """Return the folder of a model: a local one as it is, else the Hub's (``owner/name``), fetched if it must be.

    Raises:
        FileNotFoundError: If it is neither.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(path).count("/") != 1 or str(path).startswith((".", "~")):
        raise FileNotFoundError(
            f"model {path}: no such folder from {Path.cwd()}; give a model's folder, or its id on the Hub (owner/name)"
        )
    try:
        return _fetch(str(path))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise FileNotFoundError(
            f"model {path}: no folder of this name, and the Hub does not give it{offline}: {reason}"
        ) from error


@cache
def _fetch(name: str) -> Path:
    return Path(snapshot_download(name, allow_patterns=FETCHED))


def read_folder(folder: str | Path) -> PreTrainedConfig:
    """Return the config of a decoder's folder, with all that this project needs beside it.

    Raises:
        FileNotFoundError: If config, weights or tokenizer are not there.
        ValueError: If it is no decoder of texts that transformers has, or its weights are quantized.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no config.json; give the folder of a model in Hugging Face format")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        kind = fields["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no config of a model ({error!r}); give a folder in Hugging Face format") from error
    if fault := _fault(fields, kind):
        raise ValueError(f"{folder}: {fault}")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"{folder}: no tokenizer ({', '.join(TOKENIZER_FILES[:3])}); put the model's own there")
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder}: no *.safetensors; download the weights in this format")
    config = AutoConfig.from_pretrained(folder)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{folder}: {kind} models give no next token; give a decoder (…ForCausalLM)")
    return config


def _fault(fields: dict[str, Any], kind: str) -> str | None:
    """Say why a model cannot be used, from the fields of its ``config.json``."""
    architectures = fields.get("architectures") or []
    names = ", ".join(architectures) or kind
    if kind not in CONFIG_MAPPING:
        if fields.get("auto_map"):
            return f"{names} runs code of its own folder, which is never run here; use a model that transformers has"
        return f"model_type {kind}: the installed transformers has no such model; use another, or a newer transformers"
    if fields.get("is_encoder_decoder"):
        return f"{names} is an encoder with a decoder; give a decoder alone (…ForCausalLM)"
    if parts := [key for key in ("vision_config", "audio_config") if fields.get(key)]:
        return (
            f"{names} reads more than text ({', '.join(parts)}); save its language model into a folder of its own, "
            "which its adapters then fit in peft and servers too, by the line at the head of "
            "configs/gemma3_4b_lora_dpo_single_device.yaml"
        )
    if architectures and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        return f"{names} gives no next token (an encoder, or another head); give a decoder (…ForCausalLM)"
    if quantized := fields.get("quantization_config"):
        if quantized.get("quant_method") == "mxfp4":
            return (
                "its weights are quantized (mxfp4); configs/gpt_oss_20b_lora_dpo_single_device.yaml writes them in bf16"
            )
        return (
            f"its weights are quantized ({quantized.get('quant_method', 'unknown method')}), so no LoRA on them is "
            "exact; give the checkpoint in bf16 or fp32"
        )
    return None


def same_tokenizer(folder: Path, path: str | Path) -> bool:
    """Say whether a folder has the tokenizer of another one; chat templates may differ."""
    names = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return any(_same_file(folder / name, find_folder(path) / name) for name in names)


def _same_file(a: Path, b: Path) -> bool:
    return b.is_file() and a.read_bytes() == b.read_bytes()
