#!/usr/bin/env bash
# Guess: `add_weighted_adapter` with one adapter at weight 1 gives that adapter, and with weights that sum to 1 one of the same strength, whatever its scale.
# Behaviour: with rank-stabilised LoRA (`use_rslora=True`) the merged adapter is too strong by the root of its rank, by every way of combining: 4 times at
# rank 16, and 8 times where two of rank 32 are concatenated. The scale is put into the matrices, the new alpha is set to the rank, so that
# alpha / rank is 1, but the merged adapter inherits `use_rslora` and divides by the root alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 peft==0.21.2 transformers==5.23.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 env/bin/python - <<'PY'
import warnings
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

warnings.simplefilter("ignore")


def strength(kind, rank, weights, stabilised):
    """Return the merged update over that of the adapter, of copies of one adapter."""
    torch.manual_seed(0)
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"], init_lora_weights=False, use_rslora=stabilised)
    model = get_peft_model(nn.Sequential(nn.Linear(64, 64)), settings, adapter_name="a0")
    layer = model.base_model.model[0]
    for k in range(1, len(weights)):
        model.add_adapter(f"a{k}", settings)
        for part in (layer.lora_A, layer.lora_B):
            part[f"a{k}"].load_state_dict(part["a0"].state_dict())
    model.add_weighted_adapter([f"a{k}" for k in range(len(weights))], weights, "merged", kind, density=1.0)
    one, merged = layer.get_delta_weight("a0"), layer.get_delta_weight("merged")
    share = float((one * merged).sum() / (one * one).sum())
    assert torch.allclose(merged, share * one, rtol=1e-3, atol=1e-3 * float(one.abs().max())), kind
    return share


print("peft", version("peft"))
for kind, rank, weights, factor in (
    ("cat", 16, [1.0], 4),
    ("svd", 16, [1.0], 4),
    ("linear", 16, [1.0], 4),
    ("dare_linear", 16, [1.0], 4),
    ("cat", 32, [0.5, 0.5], 8),
):
    plain, stabilised = strength(kind, rank, weights, False), strength(kind, rank, weights, True)
    print(f"{kind:12} rank {rank} weights {weights}: {plain:.3f} of the adapter; with rsLoRA {stabilised:.3f}")
    assert abs(plain - 1) < 1e-3
    assert abs(stabilised / factor - 1) < 1e-3, "changed: the strength of merged rsLoRA adapters"
PY
