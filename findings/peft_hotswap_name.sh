#!/usr/bin/env bash
# Guess: hot-swapping one adapter of a model changes that adapter alone, as loading another file under its name does.
# Behaviour: it sets another adapter whose name begins with the swapped one's name to zero. After "left" was swapped, "left_v2" answers as the base does,
# to the last digit; "right" is untouched. No warning is given. With names of which none begins with another one it is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 peft==0.21.2 transformers==5.23.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" CUDA_VISIBLE_DEVICES="" env/bin/python - 2> log <<'PY' || { tail -30 log; exit 1; }
import warnings
from importlib.metadata import version

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
shape = LlamaConfig(
    vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    initializer_range=0.3,
)
LlamaForCausalLM(shape).save_pretrained("base")
tokens = torch.arange(3, 15)[None]


def base():
    return LlamaForCausalLM.from_pretrained("base").eval()


@torch.no_grad()
def answers(model):
    return torch.log_softmax(model(tokens).logits, -1)


def off(first, second):
    return float((first - second).abs().max())


NEW = "new"
for name in ("left", "left_v2", "right", NEW):
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base(), settings, adapter_name=name).save_pretrained(".")
print("peft", version("peft"), "transformers", version("transformers"))
untuned = answers(base())
new = answers(PeftModel.from_pretrained(base(), NEW))


def swapped(names):
    """Load "left", "left_v2" and "right" under these names, swap the first one, and return what each answered before and after."""
    model = PeftModel.from_pretrained(base(), "left", adapter_name=names[0])
    for path, name in zip(("left_v2", "right"), names[1:], strict=True):
        model.load_adapter(path, adapter_name=name)

    def each():
        found = []
        for name in names:
            model.set_adapter(name)
            found.append(answers(model))
        return found

    before = each()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        hotswap_adapter(model, NEW, adapter_name=names[0])
    return list(zip(before, each(), strict=True)), [str(one.message) for one in warned]


for names in (["left", "left_v2", "right"], ["left_v1", "left_v2", "right"]):
    found, warned = swapped(names)
    print(f"swapped {names[0]!r}, warnings {warned}")
    for name, (before, after) in zip(names, found, strict=True):
        print(f"  {name}: off from itself {off(before, after):.3f}, from the base {off(after, untuned):.3f}, from the new adapter {off(after, new):.3f}")
    assert off(found[0][1], new) < 1e-5 and off(*found[2]) < 1e-5 and not warned
    if names[0] == "left_v1":
        assert off(*found[1]) < 1e-5
    else:
        assert off(found[1][0], untuned) > 0.5 and off(found[1][1], untuned) < 1e-6, "changed: the other adapter is left as it was"
PY
