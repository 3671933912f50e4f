#!/usr/bin/env bash
# Guess: a folder's `tokenizer.json` says how text is split, whatever class its `tokenizer_config.json` names.
# Behaviour: in transformers 5 some classes (GPT2Tokenizer, Qwen2Tokenizer, GPTNeoXTokenizer) take words and ids from the file, and their own rule of splitting
# text in place of the file's. A rule with groups of up to three digits, which several models have under GPT-2's class, is lost: 2025 becomes
# other tokens than the model was trained on. Nothing is said, and `save_pretrained` writes the other rule. A `config.json` decides as well: with the
# type olmo2 it is right, with llama or none it is not. `PreTrainedTokenizerFast.from_pretrained` is always right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - 2> log <<'PY' || { tail -30 log; exit 1; }
import json
from importlib.metadata import version
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

RULE = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
TEXT = "Should taxes rise by 25 per cent in 2025?"
file = Tokenizer(models.BPE())
file.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(RULE), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
)
file.decoder = decoders.ByteLevel()
learn = trainers.BpeTrainer(
    vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
)
file.train_from_iterator([TEXT, "In 2024 or 2025, 25 of 250 agreed and 25 of 225 did not."] * 9, learn)


def folder(name, model_type):
    path = Path(f"{name}_{model_type}")
    path.mkdir()
    file.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "eos_token": "<|endoftext|>"}))
    if model_type:
        (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


def tokens(tokenizer):
    return tokenizer.convert_ids_to_tokens(tokenizer(TEXT)["input_ids"])


print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
right = file.encode(TEXT).tokens
print("the file:", *right)
found = {}
for name in ("GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer", "PreTrainedTokenizerFast"):
    for model_type in (None, "llama", "olmo2"):
        path = folder(name, model_type)
        loaded = AutoTokenizer.from_pretrained(path)
        found[name, model_type] = tokens(loaded)
        assert tokens(PreTrainedTokenizerFast.from_pretrained(path)) == right
        loaded.save_pretrained("saved")
        saved = Tokenizer.from_file("saved/tokenizer.json").encode(TEXT).tokens
        print(f"{name}, {model_type}:", "as the file" if found[name, model_type] == right else " ".join(found[name, model_type]))
        assert saved == found[name, model_type]
for (name, model_type), got in found.items():
    if name == "PreTrainedTokenizerFast" or model_type == "olmo2":
        assert got == right, (name, model_type)
    else:
        assert got != right, f"changed: {name} splits text as the file says"
PY
if grep -v "PyTorch was not found" "$folder/log" | grep -i "tokenizer"; then
    echo "changed: something is said"
    exit 1
fi
