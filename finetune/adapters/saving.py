# SPDX-License-Identifier: MIT
"""What a run saves of its adapter: the folder that peft loads, with the fingerprint of its base."""

import json
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from torchtune import training
from torchtune.modules.peft import get_lora_module_names, get_merged_lora_ckpt

from finetune.adapters.folders import ADAPTER_FILE, BASE_FILE, fingerprint
from finetune.causal.decoder import CausalLM
from finetune.causal.loading import ADAPTER


def write_adapter(
    checkpointer: training.FullModelHFCheckpointer,
    cfg: DictConfig,
    folder: Path,
    adapter: Mapping[str, Tensor],
    model: Mapping[str, Tensor] | None,
) -> None:
    """Let a run's checkpointer write its adapter into ``epoch_N``, and complete the adapter's config.

    Tensors are on the CPU under torchtune's names. ``model`` is all weights, base and adapter, to be merged and written
    too; None writes the adapter alone.
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
    epoch = int(folder.name.removeprefix("epoch_"))
    checkpointer.save_checkpoint(checkpoint, epoch=epoch, adapter_only=model is None)
    if model is None:  # transformers would take a folder with the base's config for a whole model without weights
        (folder / "config.json").unlink(missing_ok=True)
    _write_base(folder, cfg.checkpointer.checkpoint_dir)
    # torchtune 0.6.1 leaves out what peft, vLLM and others expect
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings.setdefault("base_model_name_or_path", str(Path(cfg.checkpointer.checkpoint_dir).resolve()))
    settings |= {
        "task_type": "CAUSAL_LM",
        "lora_dropout": lora.get("lora_dropout", 0.0),
        "bias": "none",
        "inference_mode": True,
    }
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def write_peft_adapter(decoder: CausalLM, folder: Path, adapter: Mapping[str, Tensor]) -> None:
    """Write a transformers decoder's adapter as peft saves it; tensors are on the CPU under the decoder's names."""
    folder.mkdir(parents=True)
    state = {name.removeprefix("hf."): tensor for name, tensor in adapter.items()}
    tensors = get_peft_model_state_dict(decoder.hf, state, ADAPTER, save_embedding_layers=False)
    named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / ADAPTER_FILE, metadata={"format": "pt"})
    settings = decoder.hf.peft_config[ADAPTER]
    settings.inference_mode = True
    settings.save_pretrained(folder)
    _write_base(folder, decoder.folder)


def _write_base(folder: Path, base: str | Path) -> None:
    (folder / BASE_FILE).write_text(json.dumps({"sha256": fingerprint(base)}) + "\n")
