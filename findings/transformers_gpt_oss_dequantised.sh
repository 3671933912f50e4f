#!/usr/bin/env bash
# Guess: gpt-oss in MXFP4, loaded with Mxfp4Config(dequantize=True) and saved, is a folder in bf16 that from_pretrained reads again.
# Behaviour: the bf16 experts are saved under the names of the packed ones (…_blocks) and the config says nothing of a quantization, so
# the folder loads with random experts, a printed report and no error. Saved from its state_dict by name, the model comes back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.23.0 torch==2.13.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, Mxfp4Config

experts, hidden, inner = 4, 64, 64
config = GptOssConfig(
    vocab_size=256, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, num_local_experts=experts, num_experts_per_tok=2, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, layer_types=["full_attention"],
)
torch.manual_seed(0)
state = {k: v.bfloat16() for k, v in AutoModelForCausalLM.from_config(config).state_dict().items()}
place = "model.layers.0.mlp.experts."
for name, rows, columns in (("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)):
    del state[place + name]
    shape = (experts, rows, columns // 32)
    state[place + name + "_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
    state[place + name + "_scales"] = torch.randint(118, 124, shape, dtype=torch.uint8)
Path("packed").mkdir()
save_file(state, "packed/model.safetensors", metadata={"format": "pt"})
kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
fields = config.to_dict() | {"architectures": ["GptOssForCausalLM"]}
fields["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
Path("packed/config.json").write_text(json.dumps(fields))

plain = Mxfp4Config(dequantize=True)
model, info = AutoModelForCausalLM.from_pretrained(
    "packed", quantization_config=plain, dtype=torch.bfloat16, output_loading_info=True
)
assert not info["missing_keys"]
model.save_pretrained("saved")
by_name = Path("by_name")
by_name.mkdir()
by_name.joinpath("config.json").write_text(Path("saved/config.json").read_text())
save_file(model.state_dict(), by_name / "model.safetensors", metadata={"format": "pt"})


def missing(folder):
    again, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    there = again.model.layers[0].mlp.experts.down_proj
    return sorted(info["missing_keys"]), torch.equal(there, model.model.layers[0].mlp.experts.down_proj)


saved, named = missing("saved"), missing("by_name")
print("transformers", transformers.__version__, "save_pretrained:", saved, "by name:", named)
assert len(saved[0]) == 2, "changed: the experts are found again"
assert not saved[1], "changed: the experts are the same"
assert named == ([], True), "changed: saving by name does not help"
PY
