# SPDX-License-Identifier: MIT
"""Models that YAML names: any decoder of the transformers library, and SmolLM2-135M, which torchtune 0.6.1 lacks.

``causal_lm`` takes a folder, or an id on the Hub, and needs no more: weights, tokenizer, chat template and end tokens
come from there, so ``tokenizer`` and ``checkpointer`` of a config may be left out. torchtune's builders are told the
sizes of a model and get the weights from ``checkpointer``; the paper's configs use them.

SmolLM2 is a Llama: grouped-query attention, SwiGLU, RMSNorm, rotary positions, output tied to the embedding.
torchtune's Llama-3.2 builders make exactly this; ``scale_factor=1`` switches off the long-context scaling of the rotary
frequencies, which SmolLM2 does not have.
Source of the sizes: the config.json of HuggingFaceTB/SmolLM2-135M-Instruct.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig
from torchtune import config
from torchtune.models.llama3_2 import llama3_2, lora_llama3_2
from torchtune.modules import TransformerDecoder
from torchtune.modules.peft import LORA_ATTN_MODULES

from data.recipe.config import component
from finetune.causal.decoder import CausalLM
from finetune.causal.folder import find_folder, read_folder, same_tokenizer
from finetune.causal.loading import load_decoder

# Keys of a config that causal_lm makes needless.
BROUGHT = ("tokenizer", "checkpointer")
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


def causal_lm(
    path: str,
    lora_rank: int | None = None,
    lora_alpha: float = 16,
    lora_dropout: float = 0.0,
    target_modules: list[str] | str = "all-linear",
    exclude_modules: list[str] | str | None = None,
    use_dora: bool = False,
    use_rslora: bool = False,
) -> CausalLM:
    """Load any decoder of the transformers library, in torch's default dtype and on its default device.

    On the meta device it is made without weights. Whether it reads the prefix tree as it reads plain sequences is
    measured once it has them (:func:`finetune.causal.agreement.choose_layout`). LoRA is peft's own: the keywords are
    its ``LoraConfig``'s, and an adapter's folder is what peft saves.

    Args:
        path: Folder of the model in Hugging Face format, or its id on the Hub (``owner/name``), which is fetched.
        lora_rank: Rank of the update (``r``); None: the base alone, as evaluations take it whatever is said here.
        lora_alpha: The update is scaled by ``lora_alpha / lora_rank``, with rsLoRA by ``lora_alpha / sqrt(lora_rank)``.
        lora_dropout: Dropout before the update, 0 to 1.
        target_modules: Names of the layers that are adapted, a regular expression of their paths, or ``all-linear``
            for every linear one but the head.
        exclude_modules: Names, or a regular expression, of layers that are not.
        use_dora: Learn each output's magnitude too (Liu et al. 2024, Eq. 5).
        use_rslora: Scale by the root of the rank (Kalajdzievski 2023).

    Raises:
        FileNotFoundError: If folder, config, weights or tokenizer are not there.
        ValueError: If it is no decoder of texts, runs code of its own, or is quantized.
    """
    lora = None
    if lora_rank is not None:
        lora = {
            "r": lora_rank,
            "lora_alpha": lora_alpha,
            "lora_dropout": lora_dropout,
            "target_modules": target_modules,
            "exclude_modules": exclude_modules,
            "use_dora": use_dora,
            "use_rslora": use_rslora,
        }
    folder = find_folder(path)
    # a local folder by its path: peft must find these weights, and not others of the same name
    return load_decoder(folder, lora, str(folder.resolve()) if Path(path).is_dir() else path)


def brings_weights(cfg_model: DictConfig | None) -> bool:
    """Say whether a model component reads its weights itself, so that there is no ``checkpointer``."""
    return cfg_model is not None and component(cfg_model["_component_"]) is causal_lm


def complete_model(cfg: DictConfig) -> DictConfig:
    """Fill in what a config need not say of its model, in place, or say what is missing.

    Raises:
        ValueError: If a key is missing beside ``model``, or does not belong to it.
        FileNotFoundError, ValueError: If the folder of a ``causal_lm`` cannot be used.
    """
    if cfg.model is None:
        return cfg
    if not brings_weights(cfg.model):
        if missing := [key for key in BROUGHT if cfg[key] is None]:
            raise ValueError(f"{' and '.join(missing)} missing; only finetune.models.causal_lm brings its own")
        return cfg
    if cfg.checkpointer is not None:
        raise ValueError("checkpointer is given, but causal_lm reads the weights of model.path: use checkpointer=null")
    folder = find_folder(cfg.model.path)
    read_folder(folder)
    if cfg.tokenizer is None:
        cfg.tokenizer = {"_component_": "finetune.tokenizers.hf_chat_tokenizer", "path": cfg.model.path}
    elif (path := cfg.tokenizer.get("path")) and not same_tokenizer(folder, path):
        raise ValueError(
            f"tokenizer.path={path} is another tokenizer than that of model.path={cfg.model.path}; tokenizer=null "
            "takes the model's own"
        )
    return cfg


def base_folder(cfg: DictConfig) -> Path:
    """Return the Hugging Face folder of a config's base model."""
    return find_folder(cfg.model.path) if brings_weights(cfg.model) else Path(cfg.checkpointer.checkpoint_dir)


def context_length(cfg_model: DictConfig) -> int | None:
    """Return the most tokens that a model component reads, built without its weights; None if it does not say."""
    if brings_weights(cfg_model):
        return read_folder(find_folder(cfg_model.path)).max_position_embeddings
    with torch.device("meta"):
        return getattr(config.instantiate(cfg_model), "max_seq_len", None)
