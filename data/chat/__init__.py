# SPDX-License-Identifier: MIT
"""The one way to ask a language model behind a URL: OpenAI, vLLM, llama.cpp, Ollama, ``transformers serve``.

The front door is :class:`ChatClient`: it asks many questions at once, keeps every reply on the disk and never pays for
one twice. A parser says what an answer may be; what does not fit is an error, never a guess.
"""

from data.chat.client import ChatClient, Failure, Reply, Request

__all__ = ["ChatClient", "Failure", "Reply", "Request"]
