# SPDX-License-Identifier: MIT
"""Does a server say what the trained model says? Greedy answers of both, compared token by token.

    pip install -c constraints.txt "transformers[serving]" && make quickstart
    python -m benchmarks.served_answers

An adapter is merged into the base (``finetune/export.py``), served (``transformers serve``) and asked at temperature 0
through ``data/chat``; the model that was trained (torchtune's, base and adapter) writes to the same prompts by
``eval/asking/generate.py``. At the first token that differs both candidates' logits are compared, in the trained
model and in the merged one as transformers computes it: a difference is explained if they are within 1e-3 in both, so
that rounding decides. Results: ``OUTPUT.json``. Exits with 1 if a difference is not explained.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchtune.data import Message
from torchtune.training import FullModelHFCheckpointer

from benchmarks.child_process import REPO
from benchmarks.servers import serve
from data.chat import ChatClient, Reply, Request
from eval.asking.generate import write
from eval.asking.written_answers import Decoding
from finetune.adapters.resident import AdaptedModel
from finetune.models import smollm2_135m
from finetune.tokenizers import HFChatTokenizer, hf_chat_tokenizer

BASE = REPO / "outputs/models/SmolLM2-135M-Instruct"
EXPLAINED = 1e-3


def read_prompts(n: int) -> list[str]:
    """Return prompts of the shipped set, in turn from its 20 topics."""
    rows = list(map(json.loads, (REPO / "data/mirrored/pairs.jsonl").read_text(encoding="utf-8").splitlines()))
    topics = list(dict.fromkeys(row["topic"] for row in rows))
    by_topic = [[row["prompt"] for row in rows if row["topic"] == topic] for topic in topics]
    return [prompt for turn in zip(*by_topic) for prompt in turn][:n]


def ask_server(model: Path, prompts: Sequence[str], max_tokens: int) -> list[Reply]:
    """Return the greedy answers of a served Hugging Face folder.

    Raises:
        RuntimeError: If a call has no answer.
    """
    with tempfile.TemporaryDirectory() as cache, serve(model) as url:
        params = {"temperature": 0, "max_tokens": max_tokens}
        client = ChatClient(str(model), url, cache, params, max_concurrency=2, timeout_s=600)
        requests = [Request([{"role": "user", "content": prompt}]) for prompt in prompts]
        replies = [reply for _, reply in client.chat_many(requests, len(prompts), "asking the server")]
    if failed := [reply for reply in replies if not isinstance(reply, Reply)]:
        raise RuntimeError(f"{len(failed)} calls have no answer, the first: {failed[0]}")
    return replies


def first_difference(tokenizer: HFChatTokenizer, ours: Sequence[int], served: str) -> tuple[int, int] | None:
    """Return at which of our tokens a served text differs, and the token that it has there.

    A server gives text and no ids: what it has behind the tokens that agree is tokenized anew.

    Args:
        tokenizer: Of both models.
        ours: Ids, with the stop token if the answer ended by it.
        served: Text, without.
    """
    stop = tokenizer.stop_tokens[0]
    said = [token for token in ours if token != stop]
    if tokenizer.decode(said) == served:
        return None
    n = max(k for k in range(len(said) + 1) if served.startswith(tokenizer.decode(said[:k])))
    rest = tokenizer.encode(served[len(tokenizer.decode(said[:n])) :], add_bos=False, add_eos=False)
    return n, (rest or [stop])[0]


def _gap(logits: Tensor, token: int, other: int) -> float:
    return float(logits[token] - logits[other])


@torch.no_grad()
def compare(args: argparse.Namespace, merged: Path) -> list[dict[str, Any]]:
    """Return a row for each prompt: both answers and, where they differ, the fork."""
    prompts = read_prompts(args.prompts)
    replies = ask_server(merged, prompts, args.max_tokens)
    model = smollm2_135m()
    checkpointer = FullModelHFCheckpointer(str(BASE), ["model.safetensors"], "LLAMA3", str(merged.parent / "unused"))
    model.load_state_dict(checkpointer.load_checkpoint()["model"])
    resident, tokenizer = AdaptedModel(model.eval(), {"adapter": args.adapter}, BASE), hf_chat_tokenizer(str(BASE))
    ids = [tokenizer.prompt_tokens([Message(role="user", content=prompt)]) for prompt in prompts]
    rows = []
    with resident.using("adapter") as trained:
        greedy = Decoding(temperature=0, top_k=None, max_new_tokens=args.max_tokens, seed=0)
        written = write(trained, ids, greedy, [0] * len(ids), tokenizer.stop_tokens)
        for prompt, before, ours, reply in zip(prompts, ids, written, replies):
            row = {"prompt": prompt, "ours": tokenizer.decode(ours), "served": reply.text, "n_tokens": len(ours)}
            if fork := first_difference(tokenizer, ours, reply.text):
                k, theirs = fork
                mine = ours[k] if k < len(ours) else tokenizer.stop_tokens[0]
                context = torch.tensor([[*before, *ours[:k]]])
                in_trained = _gap(trained(context)[0, -1], mine, theirs)
                in_merged = _gap(_merged_logits(merged, context), theirs, mine)
                row["fork"] = {
                    "token": k, "ours": tokenizer.decode([mine], False), "served": tokenizer.decode([theirs], False),
                    "gap_trained": in_trained, "gap_merged": in_merged,
                    "explained": max(abs(in_trained), abs(in_merged)) < EXPLAINED,
                }  # fmt: skip
            rows.append(row)
    return rows


def _merged_logits(folder: Path, context: Tensor) -> Tensor:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(context).logits[0, -1]


def main() -> int:
    """Merge, serve, compare, print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adapter", type=Path, default=REPO / "outputs/quickstart/left/epoch_0", help="(%(default)s)")
    parser.add_argument("--prompts", type=int, default=20, help="of the shipped set (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer (%(default)s)")
    parser.add_argument("--output", type=Path, default=REPO / "outputs/benchmarks/served_answers.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "exported"
        # the config's blend is left with weight 1; its other adapter is not used, and need not be there
        settings = [f"adapters.{side}={args.adapter}" for side in ("left", "right")] + [f"base={BASE}"]
        settings += ["formats=[merged]", f"output_dir={exported}"]
        export = ["run", "finetune/export.py", "--config", "configs/export.yaml", *settings]
        subprocess.run([Path(sys.executable).with_name("tune"), *export], cwd=REPO, check=True)
        rows = compare(args, exported / "merged")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(rows, indent=1) + "\n")
    forks = [row["fork"] for row in rows if "fork" in row]
    print(f"{len(rows) - len(forks)} of {len(rows)} answers equal ({sum(row['n_tokens'] for row in rows)} tokens)")
    for row in rows:
        if fork := row.get("fork"):
            print(
                f"{row['prompt'][:60]!r}: token {fork['token']} is {fork['ours']!r}, served {fork['served']!r}; gap of "
                f"the logits {fork['gap_trained']:.1e} (trained), {fork['gap_merged']:.1e} (merged): "
                f"{'explained' if fork['explained'] else 'NOT explained'}"
            )
    return int(not all(fork["explained"] for fork in forks))


if __name__ == "__main__":
    sys.exit(main())
