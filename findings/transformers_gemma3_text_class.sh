#!/usr/bin/env bash
# Guess: Gemma3ForCausalLM.from_pretrained reads the language model of a Gemma 3 that reads images too: both are the same library's
# classes, the second contains the first, and the config is taken over.
# Behaviour: the config is, the weights are not. Every weight is called missing in a printed report and filled with random numbers, and
# the result can be saved, tuned and asked. key_mapping={"^language_model.model": "model"} gives the right model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.23.0 torch==2.13.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
import torch
import transformers
from transformers import Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration

text = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}
vision = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14,
}
whole = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
whole.eval().save_pretrained("whole")
ids = torch.arange(5, 40)[None]
with torch.no_grad():
    expected = whole(input_ids=ids).logits


def difference(**settings):
    model, info = Gemma3ForCausalLM.from_pretrained("whole", output_loading_info=True, **settings)
    with torch.no_grad():
        return len(info["missing_keys"]), float((model.eval()(input_ids=ids).logits - expected).abs().max())


plain, mapped = difference(), difference(key_mapping={"^language_model.model": "model"})
print("transformers", transformers.__version__, "(weights missing, difference) plain:", plain, "mapped:", mapped)
assert plain[0] > 20, "changed: the language model's weights are found"
assert plain[1] > 0.01, "changed: the logits are those of the whole model"
assert mapped == (0, 0.0), "changed: key_mapping does not help"
PY
