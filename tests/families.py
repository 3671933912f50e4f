# SPDX-License-Identifier: MIT
"""Shrunken checkpoints of the families that configs name: two random layers in the true layout, saved by transformers.

The turns are in each family's form, in our words. Mistral's tokenizer comes with mistral-common; the others, which no
package of the tests ships (Llama's takes ten seconds to convert), are the packaged model's.
"""

import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from conftest import TINY
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, LlamaTokenizer

from benchmarks.model_families import EXPERTS, SIZES, TWO_WINDOWS
from finetune.packaged_model import PLAIN_TURNS

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
# an empty block of thought before the last answer, and on request before the next one
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ strftime_now('%d %b %Y') }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL_V3 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
HARMONY = (
    "<|start|>system<|message|>Current date: {{ strftime_now('%Y-%m-%d') }}<|end|>{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


class Shrunken(NamedTuple):
    """A checkpoint of a config, shrunken."""

    kind: str  # its model_type
    turns: str  # its chat template
    own: dict[str, Any] = {}  # noqa: RUF012 - settings beside SIZES


LLAMA31 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# by the name of the folder in the config
SHRUNKEN = {
    "Qwen3-8B": Shrunken("qwen3", THINKING),
    "gemma-3-4b-it-text": Shrunken("gemma3_text", GEMMA, TWO_WINDOWS),
    "Llama-3.1-8B-Instruct": Shrunken(
        "llama", LLAMA3, {"rope_parameters": {**LLAMA31, "original_max_position_embeddings": 64}}
    ),
    "Olmo-3-7B-Instruct": Shrunken("olmo3", CHATML + ASKED, TWO_WINDOWS),
    "Mistral-7B-Instruct-v0.3": Shrunken("mistral", MISTRAL_V3, {"sliding_window": None}),
    "SmolLM3-3B": Shrunken("smollm3", THINKING, {"no_rope_layers": [1, 0]}),
    "gemma-3-270m": Shrunken("gemma3_text", PLAIN_TURNS.read_text(), TWO_WINDOWS),
    "gpt-oss-20b-BF16": Shrunken("gpt_oss", HARMONY, {**TWO_WINDOWS, **EXPERTS}),
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}


@cache
def mistral_v3() -> dict[str, str]:
    """Return the tokenizer's files of Mistral-7B-Instruct-v0.3."""
    shipped = Path(find_spec("mistral_common").submodule_search_locations[0]) / "data"
    with TemporaryDirectory() as folder:
        shutil.copy(shipped / "mistral_instruct_tokenizer_240323.model.v3", Path(folder) / "tokenizer.model")
        LlamaTokenizer.from_pretrained(folder, legacy=False).save_pretrained(folder)
        return {name: (Path(folder) / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")}


def write_family(folder: Path, name: str, tiny_model_dir: Path) -> Path:
    """Write the shrunken checkpoint of one name into a folder, in bf16 as on the Hub, with its tokenizer."""
    family = SHRUNKEN[name]
    sizes = {
        **SIZES,
        "vocab_size": 32_768 if family.kind == "mistral" else TINY["vocab_size"],
        "max_position_embeddings": 2048,
    }
    config = CONFIG_MAPPING[family.kind](**{**sizes, **family.own})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder, name, tiny_model_dir)
    return folder


def write_images_too(folder: Path, name: str, tiny_model_dir: Path) -> Path:
    """Write the same language model in the layout of a model that reads images too, as on the Hub."""
    sizes = {**SIZES, "vocab_size": TINY["vocab_size"], "max_position_embeddings": 2048, **SHRUNKEN[name].own}
    images = {**VISION, "image_size": 28, "patch_size": 14}
    config = CONFIG_MAPPING["gemma3"](text_config=sizes, vision_config=images, mm_tokens_per_image=4)
    AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder, name, tiny_model_dir)
    return folder


def write_tokenizer(folder: Path, name: str, tiny_model_dir: Path) -> None:
    """Write tokenizer and chat template of one name."""
    if SHRUNKEN[name].kind == "mistral":
        for file, text in mistral_v3().items():
            (folder / file).write_text(text)
    else:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            text = (tiny_model_dir / file).read_text()
            if SHRUNKEN[name].turns is THINKING:  # in place of two tokens that no text has
                text = text.replace("<repo_name>", "<think>").replace("<file_sep>", "</think>")
            (folder / file).write_text(text)
    (folder / "chat_template.jinja").write_text(SHRUNKEN[name].turns)
