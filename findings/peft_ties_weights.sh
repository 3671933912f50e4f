#!/usr/bin/env bash
# Guess: TIES takes the mean of the entries that agree, so two copies of one adapter at weights 0.5 and 0.5 merge into that adapter, as
# with `cat` and `dare_linear_svd` (density 1, where nothing is cut). Weights 1 and 1 would then be twice as much.
# Behaviour: the weights are applied first and the mean is taken of what they leave, divided by the number of adapters and not by the sum
# of weights. So 0.5 and 0.5 give half of the adapter, 1 and 1 give it once, and four adapters at 0.25 each give a quarter. Nothing is
# said. Whoever compares merges at weights that sum to 1 compares TIES at half of the dose of the others.
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
from peft import LoraConfig, get_peft_model
from torch import nn

warnings.simplefilter("ignore")
torch.manual_seed(0)


def dose(kind, weights):
    """Return the merged update over that of the adapter, of copies of one adapter whose scale is 1."""
    settings = LoraConfig(r=4, lora_alpha=4, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(nn.Sequential(nn.Linear(16, 16)), settings, adapter_name="a0")
    layer = model.base_model.model[0]
    for k in range(1, len(weights)):
        model.add_adapter(f"a{k}", settings)
        for part in (layer.lora_A, layer.lora_B):
            part[f"a{k}"].load_state_dict(part["a0"].state_dict())
    names = [f"a{k}" for k in range(len(weights))]
    model.add_weighted_adapter(names, weights, "merged", kind, density=1.0, svd_rank=4)
    one, merged = layer.get_delta_weight("a0"), layer.get_delta_weight("merged")
    share = float((one * merged).sum() / (one * one).sum())
    assert torch.allclose(merged, share * one, atol=1e-4), kind
    return share


print("peft", version("peft"))
found = {}
for kind in ("cat", "dare_linear_svd", "ties_svd"):
    for weights in ([0.5, 0.5], [1.0, 1.0], [0.25] * 4):
        found[kind, len(weights), weights[0]] = dose(kind, weights)
        print(f"{kind:16} weights {weights}: {found[kind, len(weights), weights[0]]:.3f} of the adapter")
for kind in ("cat", "dare_linear_svd"):
    assert abs(found[kind, 2, 0.5] - 1) < 1e-3, "the guess holds for a sum"
assert abs(found["ties_svd", 2, 0.5] - 0.5) < 1e-3, "behaviour changed"
assert abs(found["ties_svd", 4, 0.25] - 0.25) < 1e-3, "behaviour changed"
PY
