#!/usr/bin/env bash
# Guess: a model whose adapter is disabled is its base again, whatever the adapter's initialisation was.
# Behaviour: PiSSA and OLoRA take their first factors out of the base's weights. Loading such an adapter on a fresh base changes the
# base in memory, and disabling the adapter does not give it back. Whoever compares "base" and "tuned" by disabling compares with a third
# model; a second adapter that is loaded beside it stands on the changed base too. With the adapter on, everything is as expected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 peft==0.18.1 transformers==5.23.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 env/bin/python - <<'PY'
import warnings
from importlib.metadata import version

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

warnings.simplefilter("ignore")
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
weights = AutoModelForCausalLM.from_config(config).state_dict()
tokens = torch.arange(10)[None]


def base():
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def distances(init):
    """Greatest difference to the base's logits, adapter on and off; the adapter is as it was initialised."""
    settings = LoraConfig(r=4, init_lora_weights=init, target_modules=["q_proj", "v_proj"])
    get_peft_model(base(), settings).save_pretrained(f"{init}")
    loaded, wanted = PeftModel.from_pretrained(base(), f"{init}").eval(), base()(tokens).logits
    on = loaded(tokens).logits
    with loaded.disable_adapter():
        off = loaded(tokens).logits
    return float((on - wanted).abs().max()), float((off - wanted).abs().max())


print("peft", version("peft"))
for init in (True, "pissa", "olora"):
    on, off = distances(init)
    print(f"init_lora_weights={init}: adapter on {on:.6f}, adapter disabled {off:.6f}")
    assert on < 1e-5, "changed: an untrained adapter moves the model"
    assert (off > 0.05) == (init is not True), "changed: what a disabled adapter leaves behind"
PY
