# SPDX-License-Identifier: MIT
"""Ask a real server: ``transformers serve`` with the packaged model, on the loopback.

    pip install "transformers[serving]" && make model
    python benchmarks/chat_transformers_serve.py

Prints what came back and in what time, asks the same again from the disk, and takes the replies to a client
without a server. Exits with 1 if a reply is missing or differs.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO))

from data.chat import ChatClient, Reply, Request  # noqa: E402
from data.replies import score_parser  # noqa: E402

MODEL = str(REPO / "outputs/models/SmolLM2-135M-Instruct")
PORT = 8765
SUBJECTS = ["rent control", "school uniforms", "a flat tax", "public libraries", "toll roads", "working from home"]


def wait_until_up(process: subprocess.Popen, limit_s: float = 300) -> float:
    start = time.monotonic()
    while time.monotonic() - start < limit_s:
        if process.poll() is not None:
            raise RuntimeError(f"transformers serve ended with {process.returncode}; is transformers[serving] there?")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2)
            return time.monotonic() - start
        except OSError:
            time.sleep(1)
    raise TimeoutError(f"no answer on port {PORT} in {limit_s} s")


def main() -> int:
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", MODEL, "--port", str(PORT)]
    with tempfile.TemporaryDirectory() as cache, open(os.devnull, "w") as silence:
        process = subprocess.Popen(command, stdout=silence, stderr=silence, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            print(f"up after {wait_until_up(process):.0f} s")
            settings = {"cache_dir": cache, "params": {"temperature": 0, "max_tokens": 40, "seed": 0}}
            client = ChatClient(MODEL, f"http://127.0.0.1:{PORT}/v1", max_concurrency=2, **settings)
            requests = [
                Request([{"role": "user", "content": f"In one sentence, what is {subject}?"}]) for subject in SUBJECTS
            ]
            start = time.monotonic()
            replies = [reply for _, reply in client.chat_many(requests, total=len(requests), title="real server")]
            print(f"{len(replies)} calls in {time.monotonic() - start:.1f} s: {dict(client.counts)}")
            for reply in replies:
                print(" ", reply.text[:100] if isinstance(reply, Reply) else reply)
            question = [{"role": "user", "content": "How many days has a week? Answer with one integer, nothing else."}]
            print("score:", client.ask(Request(question, score_parser(range(21)), {"max_tokens": 8})))
            logprobs = client.ask(Request(question, None, {"logprobs": True, "top_logprobs": 5, "max_tokens": 1}))
            print("log-probabilities:", logprobs.top_logprobs if isinstance(logprobs, Reply) else logprobs)
        finally:
            process.terminate()
            process.wait(30)
        replay = ChatClient(MODEL, None, **settings)
        same = [reply for _, reply in replay.chat_many(requests)] == replies
        print("the same without the server:", same)
        return int(not (same and all(isinstance(reply, Reply) for reply in replies)))


if __name__ == "__main__":
    sys.exit(main())
