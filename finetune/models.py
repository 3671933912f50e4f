# SPDX-License-Identifier: MIT
"""Model builders that torchtune 0.6.1 lacks: SmolLM2-135M, plain and with LoRA.

SmolLM2 is a Llama: grouped-query attention, SwiGLU, RMSNorm, rotary positions, output tied to the embedding.
torchtune's Llama-3.2 builders make exactly this; ``scale_factor=1`` switches off the long-context scaling of the rotary
frequencies, which SmolLM2 does not have.
Source of the sizes: the config.json of HuggingFaceTB/SmolLM2-135M-Instruct.
"""

import torch
from omegaconf import DictConfig
from torchtune import config
from torchtune.models.llama3_2 import llama3_2, lora_llama3_2
from torchtune.modules import TransformerDecoder
from torchtune.modules.peft import LORA_ATTN_MODULES

SMOLLM2_135M = {
    "vocab_size": 49152,
    "num_layers": 30,
    "num_heads": 9,
    "num_kv_heads": 3,
    "embed_dim": 576,
    "intermediate_dim": 1536,
    "max_seq_len": 8192,
    "norm_eps": 1e-5,
    "rope_base": 100_000,
    "scale_factor": 1,
}


def smollm2_135m() -> TransformerDecoder:
    """Build SmolLM2-135M without adapters."""
    return llama3_2(**SMOLLM2_135M)


def lora_smollm2_135m(
    lora_attn_modules: list[LORA_ATTN_MODULES],
    apply_lora_to_mlp: bool = False,
    apply_lora_to_output: bool = False,
    lora_rank: int = 8,
    lora_alpha: float = 16,
    lora_dropout: float = 0.0,
    quantize_base: bool = False,
) -> TransformerDecoder:
    """Build SmolLM2-135M with LoRA.

    Args:
        lora_attn_modules: Any of ``q_proj, k_proj, v_proj, output_proj``.
        apply_lora_to_mlp: Adapt the three MLP projections too.
        apply_lora_to_output: Must be False: the head is tied to the embedding.
        lora_rank: Rank of the update.
        lora_alpha: The update is scaled by ``lora_alpha / lora_rank``.
        lora_dropout: Dropout before the update, 0 to 1.
        quantize_base: Hold the adapted base weights in NF4 (QLoRA).

    Raises:
        ValueError: If ``apply_lora_to_output`` is True.
    """
    return lora_llama3_2(
        lora_attn_modules,
        apply_lora_to_mlp,
        apply_lora_to_output,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        quantize_base=quantize_base,
        **SMOLLM2_135M,
    )


def context_length(cfg_model: DictConfig) -> int | None:
    """Return the most tokens that a model component reads, built without its weights; None if it does not say."""
    with torch.device("meta"):
        return getattr(config.instantiate(cfg_model), "max_seq_len", None)
