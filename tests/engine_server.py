# SPDX-License-Identifier: MIT
"""A server that answers as vLLM 0.32, llama.cpp (October 2026) and SGLang do, with log-probabilities of a real model.

The fields of vLLM's and llama.cpp's answers were seen on the running servers; SGLang's follow its source.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler

import torch
from fault_server import ManyAtOnce


class EngineServer:
    """Listens on the loopback while the context is open; ``url`` is its base_url.

    Args:
        kind: ``vllm``, ``llama.cpp``, ``sglang``; ``chat`` is a server that only chats.
        resident: An ``AdaptedModel``, whose adapters are served.
        tokenizer: Says what token ids mean.
        changes: Takes an answer and the body of its call, and returns what is sent instead.
    """

    def __init__(self, kind, resident, tokenizer, changes=lambda answer, body: answer):
        self.kind, self.resident, self.tokenizer, self.changes = kind, resident, tokenizer, changes
        self.adapters = [name for name in resident._weights]
        self.calls, self.lock, self.scales = [], threading.Lock(), {}
        self.http = ManyAtOnce(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self):
        # looks every 10 ms whether to stop, for the end of the context waits for that
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    @torch.no_grad()
    def logprobs(self, weights, tokens):
        """Of each token after those before it; None for the first."""
        with self.resident.using(weights) as model:
            logits = model(torch.tensor([tokens]))[0, :-1].log_softmax(-1)
        return [None, *logits[range(len(tokens) - 1), tokens[1:]].tolist()]

    def texts(self, tokens):
        return [self.tokenizer.decode([token], skip_special_tokens=False) for token in tokens]

    def get(self, path):
        if path == "/v1/models":
            if self.kind == "vllm":
                return {"object": "list", "data": [self._model("base"), *map(self._model, self.adapters)]}
            if self.kind == "llama.cpp":
                meta = {"vocab_type": 2, "n_vocab": 8192, "ftype": "all F32"}
                return {"object": "list", "data": [self._model("tiny.gguf", owned_by="llamacpp", meta=meta)]}
            if self.kind == "sglang":
                return {"object": "list", "data": [self._model("base", owned_by="sglang")]}
        if path == "/lora-adapters" and self.kind == "llama.cpp":
            return [{"id": k, "path": f"{name}.gguf", "scale": self.scales.get(k, 0.0), "task_name": ""}
                    for k, name in enumerate(self.adapters)]  # fmt: skip
        return None

    def _model(self, name, **more):
        return {"id": name, "object": "model", "created": 1795858584, "owned_by": "vllm", "max_model_len": 512} | more

    def answer(self, path, body):
        if path == "/v1/chat/completions":
            return self._chat(body)
        if path == "/v1/completions" and self.kind == "vllm":
            return self._vllm(body)
        if path == "/v1/completions" and self.kind == "llama.cpp":
            choice = {"text": " The", "index": 0, "logprobs": None, "finish_reason": "length"}
            return {"choices": [choice], "model": "tiny.gguf", "system_fingerprint": "b0-unknown"}
        if path == "/completion" and self.kind == "llama.cpp":
            return self._llama_cpp(body)
        if path == "/generate" and self.kind == "sglang":
            return self._sglang(body)
        return None

    def _chat(self, body):
        message = {"role": "assistant", "content": "2"}
        if (body.get("chat_template_kwargs") or {}).get("enable_thinking"):
            message["reasoning" if self.kind == "vllm" else "reasoning_content"] = "Let me weigh it."
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
        return {"model": body["model"], "choices": choices, "usage": usage}

    def _vllm(self, body):
        ids, model = body["prompt"], body["model"]
        if model not in ("base", *self.adapters):
            return None
        logprobs = self.logprobs(None if model == "base" else model, ids)
        said = {"text_offset": [0] * len(ids), "token_logprobs": logprobs, "tokens": self.texts(ids)}
        choice = {"index": 0, "text": "", "logprobs": said, "finish_reason": "length", "token_ids": [378],
                  "prompt_token_ids": ids if body.get("return_token_ids") else None}  # fmt: skip
        return {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": model, "choices": [choice],
                "system_fingerprint": "vllm-0.32.0-6dd27e04", "usage": {"prompt_tokens": len(ids)}}  # fmt: skip

    def _llama_cpp(self, body):
        rule = body["grammar"].removeprefix("root ::= ").split()
        answer = [int(part.strip("<[]>")) for part in rule]
        weights = {self.adapters[one["id"]]: one["scale"] for one in body.get("lora", ()) if one["id"] < 2}
        logprobs = self.logprobs(weights, body["prompt"] + answer)[len(body["prompt"]) :]
        written = [{"id": i, "token": t, "bytes": list(t.encode()), "logprob": x, "top_logprobs": []}
                   for i, t, x in zip(answer, self.texts(answer), logprobs)]  # fmt: skip
        return {"index": 0, "content": "".join(self.texts(answer)), "tokens": [], "stop": True, "model": "tiny.gguf",
                "tokens_predicted": len(answer), "tokens_evaluated": len(body["prompt"]), "truncated": False,
                "stop_type": "limit", "completion_probabilities": written}  # fmt: skip

    def _sglang(self, body):
        ids, start = body["input_ids"], body["logprob_start_len"]
        logprobs = self.logprobs(body.get("lora_path"), ids)[start:]
        logprobs[0] = None
        entries = [list(entry) for entry in zip(logprobs, ids[start:], self.texts(ids[start:]))]
        meta = {"id": "0", "finish_reason": {"type": "length", "length": 0}, "prompt_tokens": len(ids)}
        return {"text": "", "output_ids": [], "meta_info": meta | {"input_token_logprobs": entries}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body waits 40 ms for the client to acknowledge the headers

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._send(self.owner.get(self.path))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.owner.lock:
            self.owner.calls.append((self.path, body))
            answer = self.owner.answer(self.path, body)
            self._send(answer and self.owner.changes(answer, body))

    def _send(self, answer):
        content = json.dumps({"error": {"message": "not found", "code": 404}} if answer is None else answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
