# SPDX-License-Identifier: MIT
"""The one way to ask a language model behind a URL: OpenAI, vLLM, llama.cpp, Ollama, ``transformers serve``.

:class:`ChatClient` asks many questions at once, keeps every reply on the disk and never pays for one twice.
What an answer may be is said by a parser; what does not fit is an error, never a guess.
"""

from data.chat.client import REPAIR, ChatClient, Failure, Reply, Request

__all__ = ["REPAIR", "ChatClient", "Failure", "Reply", "Request"]
