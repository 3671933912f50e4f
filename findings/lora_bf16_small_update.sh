#!/usr/bin/env bash
# Guess: an adapter on a bf16 layer changes what the layer gives by its update, however small that is: a float32 adapter (peft's default) is
# added in float32, and roundings of single numbers cancel in the mean, so a small update is noisy and not lost.
# Behaviour: the layer's own product is rounded to bf16 before the update is added, and the sum lies next to a number that bf16 has. What is
# less than half of a last digit is rounded back. Of an update of .0004 of the output a quarter arrives, in peft (adapter in float32)
# and in torchtune (adapter in bf16) alike; of one of .1 all of it. The same sum rounded once has the whole of it. LoRA starts at 0, so the
# first steps of a training, and whoever reads what a weak adapter does, see much of nothing. Nothing is said.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 torchao==0.13.0 peft==0.18.1 transformers==5.23.0 accelerate==1.15.0 torchtune==0.6.1
cd "$folder"
HF_HUB_OFFLINE=1 env/bin/python - <<'PY'
import warnings
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torchtune.modules.peft import LoRALinear

warnings.simplefilter("ignore")
D, R = 576, 16
torch.manual_seed(0)
x = torch.randn(400, D).bfloat16()
weight = (torch.randn(D, D) / D**0.5).bfloat16()
a, b = torch.randn(R, D) / D**0.5, torch.randn(D, R) / R**0.5
base = x.double() @ weight.double().T


def of_peft(b):
    layer = nn.Linear(D, D, bias=False, dtype=torch.bfloat16)
    layer.weight.data = weight
    model = get_peft_model(nn.Sequential(layer), LoraConfig(r=R, lora_alpha=R, target_modules=["0"]))
    adapted = model.base_model.model[0]
    assert adapted.lora_A["default"].weight.dtype == torch.float32
    adapted.lora_A["default"].weight.data, adapted.lora_B["default"].weight.data = a, b
    return adapted(x)


def of_torchtune(b):
    layer = LoRALinear(D, D, rank=R, alpha=R).bfloat16()
    layer.weight.data = weight
    layer.lora_a.weight.data, layer.lora_b.weight.data = a.bfloat16(), b.bfloat16()
    return layer(x)


def rounded_once(b):
    return (base + x.double() @ a.double().T @ b.double().T).bfloat16()


print("torch", version("torch"), "peft", version("peft"), "torchtune", version("torchtune"))
found = {}
with torch.no_grad():
    for size in (0.1, 0.01, 0.001, 0.0004):
        update = size * (x.double() @ a.double().T @ b.double().T)
        for kind in (of_peft, of_torchtune, rounded_once):
            arrived = kind(size * b).double() - base
            found[kind, size] = float((arrived * update).sum() / update.square().sum())
        print(f"update {size:g} of the output; arrived:", *(f"{k.__name__} {found[k, size]:.2f}" for k in (of_peft, of_torchtune, rounded_once)))
for kind in (of_peft, of_torchtune):
    assert 0.9 < found[kind, 0.1] < 1.1, "a large update arrives"
    assert found[kind, 0.0004] < 0.5, "behaviour changed"
assert 0.8 < found[rounded_once, 0.0004] < 1.2, "rounded once it is all there"
PY
