# SPDX-License-Identifier: MIT
"""Ask a real server: ``transformers serve`` with the packaged model, on the loopback.

    pip install -c constraints.txt "transformers[serving]" && make model
    python -m benchmarks.chat_transformers_serve

Prints what came back and in what time, asks the same again from the disk, and takes the replies to a client
without a server. Exits with 1 if a reply is missing or differs.
"""

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.servers import serve
from data.chat import ChatClient, Reply, Request
from data.judging.scales import LEAN_SCALE

MODEL = Path(__file__).parents[1] / "outputs/models/SmolLM2-135M-Instruct"
SUBJECTS = ["rent control", "school uniforms", "a flat tax", "public libraries", "toll roads", "working from home"]


def main() -> int:
    """Ask and print; return the exit status."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {"cache_dir": cache, "params": {"temperature": 0, "max_tokens": 40, "seed": 0}}
        with serve(MODEL) as url:
            client = ChatClient(str(MODEL), url, max_concurrency=2, **settings)
            requests = [
                Request([{"role": "user", "content": f"In one sentence, what is {subject}?"}]) for subject in SUBJECTS
            ]
            start = time.monotonic()
            replies = [reply for _, reply in client.chat_many(requests, total=len(requests), title="real server")]
            print(f"{len(replies)} calls in {time.monotonic() - start:.1f} s: {dict(client.counts)}")
            for reply in replies:
                print(" ", reply.text[:100] if isinstance(reply, Reply) else reply)
            question = [{"role": "user", "content": "How many days has a week? Answer with one integer, nothing else."}]
            print("score:", client.ask(Request(question, LEAN_SCALE.read, {"max_tokens": 8})))
            logprobs = client.ask(Request(question, None, {"logprobs": True, "top_logprobs": 5, "max_tokens": 1}))
            print("log-probabilities:", logprobs.top_logprobs if isinstance(logprobs, Reply) else logprobs)
        replay = ChatClient(str(MODEL), None, **settings)
        same = [reply for _, reply in replay.chat_many(requests)] == replies
        print("the same without the server:", same)
        return int(not (same and all(isinstance(reply, Reply) for reply in replies)))


if __name__ == "__main__":
    sys.exit(main())
