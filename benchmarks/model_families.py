# SPDX-License-Identifier: MIT
"""Every family of decoders that was tried on the prefix tree: a random model of two layers, tree against sequences.

    python -m benchmarks.model_families

prints the table of docs/train/models.md. Sizes are tiny and weights random, so what is tested is the form of a family:
its layers, masks, positions and head. Windows are 16 tokens, so that the measured prompts pass them.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finetune.causal.agreement import TOLERANCE, measure_layouts
from finetune.causal.decoder import CausalLM

SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 16}
TWO_WINDOWS = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


class Family(NamedTuple):
    """A family of decoders."""

    name: str
    kind: str  # its model_type
    own: dict[str, Any] = {}  # noqa: RUF012 - settings beside SIZES
    on_tree: bool = True  # whether it must read the tree


FAMILIES = (
    Family("Llama", "llama"),
    Family("Mistral", "mistral", WINDOW),
    Family("Ministral 3", "ministral3", WINDOW),
    Family("Mixtral", "mixtral", {**WINDOW, **EXPERTS}),
    Family("Qwen2", "qwen2"),
    Family("Qwen2, windows", "qwen2", {**TWO_WINDOWS, "use_sliding_window": True}),
    Family("Qwen3", "qwen3"),
    Family("Qwen3-MoE", "qwen3_moe", EXPERTS),
    Family(
        "Qwen3-Next",
        "qwen3_next",
        {
            **EXPERTS,
            "layer_types": ["linear_attention", "full_attention"],
            "shared_expert_intermediate_size": 32,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        on_tree=False,
    ),
    Family(
        "Qwen3.5",
        "qwen3_5_text",
        {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        on_tree=False,
    ),
    Family("Gemma", "gemma"),
    Family("Gemma 2", "gemma2", TWO_WINDOWS),
    Family("Gemma 3", "gemma3_text", TWO_WINDOWS),
    Family(
        "Gemma 4",
        "gemma4_text",
        {**TWO_WINDOWS, "vocab_size_per_layer_input": 256, "hidden_size_per_layer_input": 16, "global_head_dim": 16},
    ),
    Family("Phi-3, Phi-4-mini", "phi3", WINDOW),
    Family("OLMo 2", "olmo2"),
    Family("OLMo 3", "olmo3", TWO_WINDOWS),
    Family("SmolLM3", "smollm3", {"no_rope_layers": [1, 0]}),
    Family("Granite", "granite", {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
    Family("Cohere", "cohere"),
    Family("Cohere 2", "cohere2", TWO_WINDOWS),
    Family("gpt-oss", "gpt_oss", {**TWO_WINDOWS, **EXPERTS}),
    Family("GLM-4", "glm4"),
    Family("EXAONE 4", "exaone4", TWO_WINDOWS),
    Family("StableLM", "stablelm"),
    Family("StarCoder 2", "starcoder2", WINDOW),
    Family("GPT-NeoX", "gpt_neox"),
    Family("GPT-2", "gpt2"),
    Family("Phi", "phi"),
    Family("OPT", "opt"),
    Family("Nemotron", "nemotron"),
    Family("Hunyuan", "hunyuan_v1_dense"),
    Family("ERNIE 4.5", "ernie4_5"),
    Family("LFM2", "lfm2", {"layer_types": ["conv", "full_attention"]}, on_tree=False),
    Family("BLOOM", "bloom", on_tree=False),
)
IDS = torch.randint(3, 256, [400], generator=torch.Generator().manual_seed(0)).tolist()


def tiny_model(family: Family, seed: int = 0) -> CausalLM:
    """Return a random model of two layers; its weights are large enough that every layer counts."""
    config = CONFIG_MAPPING[family.kind](**{**SIZES, **family.own})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).requires_grad_(False)
        for parameter in model.parameters():
            scale, mean = (0.1, 0.0) if parameter.dim() > 1 else (0.2, 1.0)
            parameter.normal_(mean, scale)
    return CausalLM(model.eval(), Path(family.kind))


def table() -> str:
    """Return the table of docs/train/models.md."""
    lines = ["| family | `model_type` | on the tree | difference, nats a token |", "|---|---|---|---|"]
    for family in FAMILIES:
        measured = measure_layouts(tiny_model(family), IDS)
        least = min(measured.values(), default=None)
        fits = least is not None and least <= TOLERANCE[torch.float32]
        shown = "no mask of this form" if least is None else f"{least:.0e}"
        how = "yes" if fits and family.on_tree else "no: one by one"
        lines.append(f"| {family.name} | `{family.kind}` | {how} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
