# SPDX-License-Identifier: MIT
"""Answers to a bank of requests: this project beside ``generate`` of transformers, in turn, on the same prompts.

    python -m benchmarks.write_speed
    python -m benchmarks.write_speed dtype=bf16 tokens=128 batch=64 peer_batches=[16,64]

Both write the same prompts greedily, to the same greatest length, in the same dtype. Transformers gets the prompts of a
batch padded on the left, in the order of their lengths, so that little is padded, with each number of prompts at a time
of ``peer_batches``; its fastest counts. Tokens count up to the end of an answer. No answer may end early unless
``may_end=1``: what is compared is then the work for the same number of tokens. Seconds are those of the processor, on
one thread, so that other work on the machine counts little.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from omegaconf import OmegaConf
from torchtune import training
from transformers import AutoModelForCausalLM

from eval.asking.generate import iterate_generations
from eval.asking.questions import prompt_tokens
from eval.asking.respond import load_base, load_tokenizer
from eval.asking.written_answers import Decoding
from eval.statements.instruments import load_instrument
from eval.statements.requests import WRITE, write_prompts

DEFAULTS = {
    "bank": "issues40", "n_issues": 8, "n_templates": 5, "dtype": "fp32", "batch": 64, "peer_batches": [64],
    "tokens": 64, "rounds": 3, "may_end": 0,
}  # fmt: skip


def main() -> None:
    """Time both in turn and print tokens a second of processor time, of each round."""
    asked = OmegaConf.merge(DEFAULTS, OmegaConf.from_dotlist(sys.argv[1:]))
    torch.set_num_threads(1)
    cfg = OmegaConf.load("configs/write.yaml")
    folder = cfg.checkpointer.checkpoint_dir
    tokenizer = load_tokenizer(cfg)
    dtype = training.get_dtype(asked.dtype, torch.device("cpu"))
    model = load_base(cfg, torch.device("cpu"), dtype)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    bank = load_instrument(asked.bank).sample(asked.n_issues, 0)
    prompts = write_prompts(bank, asked.n_templates, 1, {}, None, 0)
    ids = [prompt_tokens(tokenizer, prompt.text) for prompt in prompts]
    ends = list(tokenizer.stop_tokens) if asked.may_end else []

    def ours() -> int:
        tokenizer.stop_tokens = ends
        decodings = {WRITE: Decoding(0.0, None, asked.tokens, 0)}
        made = iterate_generations(model, "base", prompts, tokenizer, (), decodings, batch_size=asked.batch)
        return sum(row["n_tokens"][0] for rows in made for row in rows)

    @torch.no_grad()
    def generate(at_a_time: int) -> int:
        n_tokens = 0
        order = sorted(range(len(ids)), key=lambda k: len(ids[k]))
        for start in range(0, len(order), at_a_time):
            batch = [ids[k] for k in order[start : start + at_a_time]]
            width = max(map(len, batch))
            padded = torch.tensor([[0] * (width - len(p)) + p for p in batch])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch])
            written = theirs.generate(
                input_ids=padded, attention_mask=mask, do_sample=False, max_new_tokens=asked.tokens,
                eos_token_id=ends or None, min_new_tokens=None if ends else asked.tokens, pad_token_id=0,
            )  # fmt: skip
            for answer in written[:, width:].tolist():
                n_tokens += next((k + 1 for k, token in enumerate(answer) if token in ends), len(answer))
        return n_tokens

    def speed(write: Callable[[], int]) -> float:
        start = time.process_time()
        n_tokens = write()
        return n_tokens / (time.process_time() - start)

    lengths = sorted(map(len, ids))
    print(f"{asked.bank}: {len(ids)} prompts of {lengths[0]} to {lengths[-1]} tokens, {asked}")
    for _ in range(asked.rounds):
        a = speed(ours)
        by_batch = {n: speed(partial(generate, n)) for n in asked.peer_batches}
        said = ", ".join(f"{b:.1f} with {n} at a time" for n, b in by_batch.items())
        ratio = a / max(by_batch.values())
        print(f"ours {a:.1f} tokens a second, transformers {said}, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
