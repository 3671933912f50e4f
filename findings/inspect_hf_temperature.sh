#!/usr/bin/env bash
# Guess: temperature 0 takes the likeliest token in every provider of inspect_ai, as it does behind an API.
# Behaviour: the provider `hf` (models of the transformers library in this process) always samples and hands the 0 on, and transformers
# refuses it with a ValueError, so that a task or an eval set that fixes temperature 0 fails on local models alone. The remedy lies in an
# argument of the model: `-M do_sample=false` is greedy, with the same temperature; `--top-k 1` without a temperature gives the same text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet inspect_ai==0.3.285 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 env/bin/python - <<'PY'
import asyncio
from importlib.metadata import version

import torch
from inspect_ai.model import GenerateConfig, get_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<eos>", "<unk>", *"is the sky blue yes no perhaps it may be so".split()]
tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")
fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.3, eos_token_id=0, pad_token_id=0, bos_token_id=None,
    )
)
model.save_pretrained("model")
fast.save_pretrained("model")


def ask(memory, **settings):
    """Return what the local model writes, or the error."""
    asked = get_model("hf/local", model_path="model", device="cpu", memoize=False, **memory)
    try:
        return asyncio.run(asked.generate("is the sky blue", config=GenerateConfig(max_tokens=6, **settings))).completion
    except ValueError as error:
        return error


print("inspect_ai", version("inspect_ai"), "transformers", version("transformers"))
refused, greedy, likeliest = ask({}, temperature=0.0), ask({"do_sample": False}, temperature=0.0), ask({}, top_k=1)
print("temperature 0:", type(refused).__name__, str(refused)[:120])
print("temperature 0, do_sample=False:", greedy)
print("top_k 1:", likeliest)
assert isinstance(refused, ValueError), "behaviour changed"
assert "temperature" in str(refused), "behaviour changed"
assert isinstance(greedy, str), "the remedy fails"
assert greedy == likeliest, "the remedies differ"
PY
