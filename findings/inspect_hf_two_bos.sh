#!/usr/bin/env bash
# Guess: the provider `hf` of inspect_ai gives a local chat model the tokens that its chat template stands for, as `apply_chat_template` does.
# Behaviour: it renders the template to a text, which begins with the first token where the template writes it (Llama 3, Gemma, Mistral), and tokenizes
# that text with special tokens, so that the model reads the first token twice. The answers' log-probabilities are those of another prompt.
# `-M tokenizer_call_args='{"add_special_tokens": false}'` gives the right ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet inspect_ai==0.3.285 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 env/bin/python - 2> log <<'PY' || { tail -30 log; exit 1; }
import asyncio
from importlib.metadata import version

import torch
from inspect_ai.model import GenerateConfig, get_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<bos>", "<eos>", "<unk>", *"should taxes rise or fall yes no perhaps they may".split()]
plain = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
plain.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")
tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}"
shape = LlamaConfig(
    vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=1,
)
torch.manual_seed(0)
model = LlamaForCausalLM(shape).eval()
model.save_pretrained("model")
tokenizer.save_pretrained("model")
right = tokenizer.apply_chat_template([{"role": "user", "content": "should taxes rise"}], add_generation_prompt=True)["input_ids"]


@torch.no_grad()
def direct(tokens):
    return torch.log_softmax(model(torch.tensor([tokens])).logits[0, -1], -1)


def ask(**arguments):
    """Return how many tokens the provider says the prompt has, and the log-probabilities of the first answered token."""
    asked = get_model("hf/local", model_path="model", device="cpu", do_sample=False, memoize=False, **arguments)
    settings = GenerateConfig(max_tokens=1, logprobs=True, top_logprobs=len(words))
    output = asyncio.run(asked.generate("should taxes rise", config=settings))
    listed = output.choices[0].logprobs.content[0].top_logprobs
    found = torch.empty(len(words))
    for one in listed:
        found[words.index(one.token)] = one.logprob
    return output.usage.input_tokens, found


def off(found, tokens):
    return float((found - direct(tokens)).abs().max())


print("inspect_ai", version("inspect_ai"), "transformers", version("transformers"))
count, found = ask()
mended, apart = ask(tokenizer_call_args={"add_special_tokens": False})
print(f"tokens of the prompt: by the template {len(right)}, in inspect {count}, without special tokens {mended}")
print(f"off from the template's prompt {off(found, right):.4f}, from one with two first tokens {off(found, [0, *right]):.6f}; mended {off(apart, right):.6f}")
assert right.count(0) == 1 and mended == len(right) and off(apart, right) < 1e-4
assert count == len(right) + 1 and off(found, [0, *right]) < 1e-4 and off(found, right) > 0.01, "changed: the first token is read once"
PY
