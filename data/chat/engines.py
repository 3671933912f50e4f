# SPDX-License-Identifier: MIT
"""What vLLM, llama.cpp and SGLang can beyond chat: score given token ids, and be told every sampling parameter.

Each scores a statement in its own way: vLLM and SGLang give the log-probabilities of a prompt, llama.cpp writes the
statement under a grammar that allows nothing else. All of them are raw, before temperature and cuts.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# What an engine reads in a request to choose or scale an adapter; vLLM chooses by the model's name.
ADAPTER_PARAMS = ("lora", "lora_path")
# What leaves the distribution alone, where vLLM and SGLang else take the model's generation_config.json,
_PLAIN = {"top_p": 1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
# and llama.cpp the GGUF file's general.sampling.*, its command line or its own cuts.
_PLAIN_LLAMA_CPP = {
    "top_p": 1, "min_p": 0, "repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0, "typical_p": 1,
    "top_n_sigma": -1, "xtc_probability": 0, "dry_multiplier": 0, "dynatemp_range": 0, "mirostat": 0,
    "samplers": ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
}  # fmt: skip


class TokenRequest(NamedTuple):
    """Token ids of which those after the first ``n_prompt`` are to be scored.

    ``model`` and ``params`` (of ``ADAPTER_PARAMS``) say by whom.
    """

    engine: "Engine"
    model: str
    tokens: list[int]
    n_prompt: int
    params: Mapping[str, Any] = {}

    @property
    def answer(self) -> list[int]:
        """The ids that are scored."""
        return self.tokens[self.n_prompt :]

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        return self.engine.ask(self)


class TokenReply(NamedTuple):
    """Log-probabilities of the scored tokens in nats.

    ``text`` is what the server's own tokenizer says that these ids mean; ``model`` is how the server calls itself.
    """

    logprobs: list[float]
    text: str
    model: str


class Engine(NamedTuple):
    """An inference engine.

    Attributes:
        name: What a config calls it.
        owner: What it says of itself in ``/v1/models`` (``owned_by``).
        path: Where token ids are scored, after the server's address.
        ask: Makes the body of that call.
        read: Reads its answer. Raises ValueError if it holds no log-probabilities, or other ids than were sent.
        plain: Parameters of a chat that leave the distribution as the model has it. Without them the engine takes its
            own, or those of the model's ``generation_config.json``.
        every_token: Its ``top_k`` for "all of them".
        budget: Its parameter for the most tokens of a reasoning; None if no request can set it.
    """

    name: str
    owner: str
    path: str
    ask: Callable[[TokenRequest], dict[str, Any]]
    read: Callable[[Mapping[str, Any], TokenRequest], TokenReply]
    plain: Mapping[str, Any]
    every_token: int
    budget: str | None

    def score(self, model: str, tokens: list[int], n_prompt: int, params: Mapping[str, Any]) -> TokenRequest:
        """Return the request that scores ``tokens`` after the first ``n_prompt``."""
        chosen = {name: params[name] for name in ADAPTER_PARAMS if params.get(name) is not None}
        return TokenRequest(self, model, tokens, n_prompt, chosen)


def _ask_vllm(request: TokenRequest) -> dict[str, Any]:
    return {
        "model": request.model,
        "prompt": request.tokens,
        "max_tokens": 0,
        "echo": True,
        "logprobs": 0,
        "temperature": 0,
        "return_token_ids": True,
    }


def _read_vllm(answer: Mapping[str, Any], request: TokenRequest) -> TokenReply:
    choice = answer["choices"][0]
    said = choice.get("logprobs") or {}
    logprobs = said.get("token_logprobs") or []
    if len(logprobs) < len(request.tokens):  # a server that does not know `echo` gives the next token alone
        raise ValueError("no log-probabilities of the prompt")
    _check_ids(choice.get("prompt_token_ids"), request.tokens)
    scored = slice(request.n_prompt, len(request.tokens))
    return TokenReply(_numbers(logprobs[scored]), "".join(said["tokens"][scored]), _model_of(answer))


def _ask_llama_cpp(request: TokenRequest) -> dict[str, Any]:
    return {
        "model": request.model,
        "prompt": request.tokens[: request.n_prompt],
        "n_predict": len(request.answer),
        "n_probs": 1,
        "temperature": 0,
        "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in request.answer),
        "cache_prompt": False,  # a state that another LoRA scale left in memory would be taken for this one's
        **request.params,
    }


def _read_llama_cpp(answer: Mapping[str, Any], request: TokenRequest) -> TokenReply:
    written = answer.get("completion_probabilities") or []
    if not written:
        raise ValueError("no log-probabilities of what it wrote")
    _check_ids([token.get("id") for token in written], request.answer)
    if answer.get("tokens_evaluated") != request.n_prompt or answer.get("truncated"):
        n_read = answer.get("tokens_evaluated")
        raise ValueError(f"it read {n_read} tokens before the answer, not the {request.n_prompt} that were sent")
    logprobs = _numbers([token.get("logprob") for token in written])
    return TokenReply(logprobs, answer["content"], _model_of(answer))


def _ask_sglang(request: TokenRequest) -> dict[str, Any]:
    return {
        "input_ids": request.tokens,
        "sampling_params": {"max_new_tokens": 0, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": request.n_prompt - 1,  # the first entry has no log-probability
        "return_text_in_logprobs": True,
        **request.params,
    }


def _read_sglang(answer: Mapping[str, Any], request: TokenRequest) -> TokenReply:
    entries = (answer.get("meta_info") or {}).get("input_token_logprobs") or []
    scored = entries[len(entries) - len(request.answer) :]
    if not entries or len(entries) < len(request.answer):
        raise ValueError("no log-probabilities of the prompt")
    _check_ids([token for _, token, _ in scored], request.answer)
    texts = "".join(text or "" for _, _, text in scored)
    return TokenReply(_numbers([x for x, _, _ in scored]), texts, _model_of(answer))


def _check_ids(got: Any, sent: list[int]) -> None:
    if got != sent:
        raise ValueError(f"it scored the token ids {str(got)[:60]}, not {str(sent)[:60]}, which were sent")


def _numbers(logprobs: list[Any]) -> list[float]:
    if not all(isinstance(x, int | float) and math.isfinite(x) and x <= 0 for x in logprobs):
        raise ValueError(f"log-probabilities {str(logprobs)[:60]}; want finite numbers up to 0")
    return [float(x) for x in logprobs]


def _model_of(answer: Mapping[str, Any]) -> str:
    return "@".join(filter(None, (answer.get("model"), answer.get("system_fingerprint"))))


_VLLM = Engine(
    name="vllm",
    owner="vllm",
    path="/v1/completions",
    ask=_ask_vllm,
    read=_read_vllm,
    plain=_PLAIN,
    every_token=0,
    budget="thinking_token_budget",
)
_LLAMA_CPP = Engine(
    name="llama.cpp",
    owner="llamacpp",
    path="/completion",
    ask=_ask_llama_cpp,
    read=_read_llama_cpp,
    plain={**_PLAIN_LLAMA_CPP, "cache_prompt": False},
    every_token=0,
    budget="reasoning_budget_tokens",
)
_SGLANG = Engine(
    name="sglang",
    owner="sglang",
    path="/generate",
    ask=_ask_sglang,
    read=_read_sglang,
    plain=_PLAIN,
    every_token=-1,
    budget=None,
)
# In the order in which they are tried.
ENGINES = {engine.name: engine for engine in (_VLLM, _LLAMA_CPP, _SGLANG)}
