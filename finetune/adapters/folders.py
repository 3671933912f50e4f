# SPDX-License-Identifier: MIT
"""The folder of a PEFT adapter: what torchtune's checkpointer writes, completed."""

import json
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor
from torchtune import training
from torchtune.modules.peft import get_lora_module_names, get_merged_lora_ckpt

LLAMA_LIKE = ("LLAMA2", "LLAMA3", "LLAMA3_2", "MISTRAL")


def check_adapter_settings(cfg: DictConfig) -> None:
    """Refuse what would fail, or be written wrongly, only when the first checkpoint is saved.

    Raises:
        ValueError: If no PEFT adapter can come out of these settings; says what to change.
    """
    if cfg.checkpointer["_component_"].rpartition(".")[2] != "FullModelHFCheckpointer":
        raise ValueError(
            f"checkpointer._component_={cfg.checkpointer['_component_']} writes no PEFT adapter; use "
            "torchtune.training.FullModelHFCheckpointer on a folder in Hugging Face format"
        )
    # torchtune permutes the query and key rows of every adapter as Llama's must be: wrong for other families
    if cfg.checkpointer.model_type not in LLAMA_LIKE:
        raise ValueError(f"checkpointer.model_type={cfg.checkpointer.model_type}; supported: {LLAMA_LIKE}")
    missing = [k for k in ("lora_rank", "lora_alpha", "lora_attn_modules") if k not in cfg.model]
    if missing:
        raise ValueError(f"give model.{', model.'.join(missing)}: the adapter's config is written from them")
    if cfg.model.get("use_dora", False):
        raise ValueError("model.use_dora=True is not supported (torchtune leaves its magnitudes empty); use LoRA")


def write_adapter(
    checkpointer: training.FullModelHFCheckpointer,
    cfg: DictConfig,
    epoch: int,
    adapter: Mapping[str, Tensor],
    model: Mapping[str, Tensor] | None,
) -> None:
    """Let torchtune's checkpointer write an adapter, and the merged model if asked, into its ``epoch_N`` folder.

    Args:
        checkpointer: Has loaded the base.
        cfg: The run's config.
        epoch: The folder's number.
        adapter: LoRA tensors under torchtune's names, on the CPU.
        model: All weights, base and adapter, to be merged and written too; None writes the adapter alone.
    """
    lora = cfg.model
    checkpoint = {
        training.ADAPTER_KEY: dict(adapter),
        training.ADAPTER_CONFIG: {
            "r": lora.lora_rank,
            "lora_alpha": lora.lora_alpha,
            "target_modules": get_lora_module_names(
                list(lora.lora_attn_modules),
                lora.get("apply_lora_to_mlp", False),
                lora.get("apply_lora_to_output", False),
            ),
            "peft_type": "LORA",
        },
    }
    if model is not None:
        checkpoint[training.MODEL_KEY] = get_merged_lora_ckpt(dict(model), rank=lora.lora_rank, alpha=lora.lora_alpha)
    checkpointer.save_checkpoint(checkpoint, epoch=epoch, adapter_only=model is None)


def complete_adapter_config(folder: Path, checkpoint_dir: Path, lora_dropout: float) -> None:
    """Add what torchtune 0.6.1 leaves out of ``adapter_config.json`` and peft, vLLM and others expect."""
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings.setdefault("base_model_name_or_path", str(checkpoint_dir.resolve()))
    settings |= {
        "task_type": "CAUSAL_LM",
        "lora_dropout": lora_dropout,
        "bias": "none",
        "inference_mode": True,
    }
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
