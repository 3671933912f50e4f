#!/usr/bin/env bash
# Guess: answers that inspect_ai keeps under `cache=True` belong to the model that gave them, so another folder under `-M model_path` is asked anew.
# Behaviour: the second of two folders is given the first one's answers. `CachePolicy(scopes={"model": folder})` keeps them apart. No other argument of a model
# is tried here.
# Documented: inspect's page on caching lists what the key is made of: the model's name and base URL, the prompt, the epoch, the generate config and the
# tools. The guess is still natural, since a name usually tells models apart, but every local folder is named `hf/local`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet inspect_ai==0.3.285 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 INSPECT_CACHE_DIR="$folder/answers" env/bin/python - <<'PY'
import asyncio
from importlib.metadata import version

import torch
import transformers
from inspect_ai.model import CachePolicy, GenerateConfig, get_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

transformers.utils.logging.disable_progress_bar()
words = ["<eos>", "<unk>", *"should taxes rise or fall yes no perhaps they may".split()]
tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")
fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
shape = LlamaConfig(
    vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, initializer_range=0.3, eos_token_id=0, pad_token_id=0, bos_token_id=None,
)
for name, seed in (("base", 0), ("tuned", 1)):
    torch.manual_seed(seed)
    LlamaForCausalLM(shape).save_pretrained(name)
    fast.save_pretrained(name)


def ask(name, cache):
    """Return what the model of a folder writes, the likeliest token each time."""
    asked = get_model("hf/local", model_path=name, device="cpu", do_sample=False, memoize=False)
    return asyncio.run(asked.generate("should taxes rise", config=GenerateConfig(max_tokens=6), cache=cache)).completion


print("inspect_ai", version("inspect_ai"))
plain = [ask(name, False) for name in ("base", "tuned")]
kept = [ask(name, True) for name in ("base", "tuned")]
apart = [ask(name, CachePolicy(scopes={"model": name})) for name in ("base", "tuned")]
print("base and tuned, not kept:", plain, "kept:", kept, "kept in two scopes:", apart)
assert plain[0] != plain[1] and apart == plain
assert kept == [plain[0], plain[0]], "changed: the folder of a model is part of the key"
PY
