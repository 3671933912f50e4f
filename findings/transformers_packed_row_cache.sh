#!/usr/bin/env bash
# Guess: texts packed into one row, told apart by positions that begin again at 0, are read each by itself, or all see what is before them; whether
# keys and values are kept (`use_cache`), or a mask of ones is given, changes no log-probability of one forward.
# Behaviour: they are told apart only without a mask and without a cache, and `use_cache` is on unless it is switched off, in training too. So
# the plain call lets the second text read the first, with positions that belong to neither reading; `use_cache=False` gives the values of the text alone
# to the last digit, and a mask of ones takes that away again. Losses differ by so little that nobody sees it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PY'
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

print("transformers", transformers.__version__, "torch", torch.__version__)
shape = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
for kind, settings in ((LlamaForCausalLM, LlamaConfig), (Qwen3ForCausalLM, Qwen3Config)):
    torch.manual_seed(0)
    model = kind(settings(**shape)).train()
    first, second = torch.randint(64, (1, 7)), torch.randint(64, (1, 9))
    row, positions = torch.cat([first, second], 1), torch.cat([torch.arange(7), torch.arange(9)])[None]
    alone = model(second).logits

    def off(**more):
        """Return how far the logits of the second text are from those of the text alone."""
        return float((model(row, position_ids=positions, **more).logits[:, 7:] - alone).abs().max())

    plain, uncached = off(), off(use_cache=False)
    masked = off(use_cache=False, attention_mask=torch.ones_like(row))
    print(f"{kind.__name__}: as called {plain:.6f}, use_cache=False {uncached:.6f}, and a mask of ones {masked:.6f}")
    assert uncached < 1e-5
    assert plain > 1e-2 and masked > 1e-2, "changed: packed texts are told apart"
PY
