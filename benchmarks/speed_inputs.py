# SPDX-License-Identifier: MIT
"""What every system of the speed benchmark trains on: the same rows, tokens and first LoRA weights.

    python -m benchmarks.speed_inputs FOLDER    reads FOLDER/settings.json

Writes ``rows.jsonl`` (torchtune's side), ``trl.jsonl`` (the same as text with the chat template applied, and
the ids that must come out of it), ``lora_a.safetensors`` (peft's names) and ``inputs.json`` (counts).
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torchtune import config
from torchtune.models.convert_weights import tune_to_peft_adapter_weights
from torchtune.modules.peft import LoRALinear
from transformers import AutoTokenizer

from benchmarks.speed_components import initial_lora_a
from data.datasets import preference_pairs
from data.pairs.tokens import Continuation
from finetune.models import SMOLLM2_135M, lora_smollm2_135m
from finetune.tree.prefix_tree import count_tokens, cut_by_tokens

LORA_SEED = 0


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read ``prompt, chosen, rejected`` from JSON lines; a mirrored row's left answer is the chosen one."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    answers = ("left", "right") if rows and "left" in rows[0] else ("chosen", "rejected")
    missing = [k for k, row in enumerate(rows, 1) if not {"prompt", *answers} <= row.keys()]
    if missing or not rows:
        raise ValueError(f"{path}: row {missing[0] if missing else 1} lacks prompt, {answers[0]} or {answers[1]}")
    return [{"prompt": r["prompt"], "chosen": r[answers[0]], "rejected": r[answers[1]]} for r in rows]


def as_text(hf_tokenizer: Any, row: dict[str, str]) -> dict[str, str]:
    """Render a row as TRL takes plain text: the prompt up to where the answer begins, answers with their end token."""
    turns = [{"role": "user", "content": row["prompt"]}]
    prompt = hf_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return {"prompt": prompt, **{side: row[side] + hf_tokenizer.eos_token for side in ("chosen", "rejected")}}


def count(pairs: list[tuple[Continuation, Continuation]], batch_size: int, max_tokens: int) -> dict[str, int]:
    """Count tokens of an epoch: real, padded as stock pads them, and of our trees.

    Args:
        pairs: Pairs in training order.
        batch_size: Pairs a step.
        max_tokens: The recipe's ``max_tokens_per_forward``.
    """
    policy = forwards = padded = 0
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        padded += 2 * len(batch) * max(len(answer.tokens) for pair in batch for answer in pair)
        for forward in cut_by_tokens(batch, max_tokens):
            policy += count_tokens([answer.tokens for k in forward for answer in batch[k]])
            forwards += 1
    return {
        "pairs": len(pairs),
        "real_tokens": sum(len(answer.tokens) for pair in pairs for answer in pair),
        "padded_tokens": padded,
        "policy_tokens": policy,
        "reference_tokens": sum(count_tokens([answer.tokens for answer in pair]) for pair in pairs),
        # the first token has no predictor
        "scored_tokens": sum(sum(x != -100 for x in answer.labels[1:]) for pair in pairs for answer in pair),
        "forwards": forwards,
    }


def main(folder: Path) -> None:
    """Write the inputs of one benchmark into ``folder``."""
    settings = json.loads((folder / "settings.json").read_text())
    cfg = OmegaConf.load(settings["config"])
    rows = read_rows(Path(settings["data"]))
    candidates = folder / "candidates.jsonl"
    candidates.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = config.instantiate(cfg.tokenizer)
    dataset = preference_pairs(tokenizer, source="json", data_files=str(candidates), invalid_rows="drop")
    candidates.unlink()
    hf_tokenizer = AutoTokenizer.from_pretrained(cfg.tokenizer.path)

    kept, left_out = [], 0
    for number, item in zip(dataset.rows, dataset):
        if len(kept) == settings["rows"]:
            break
        text = as_text(hf_tokenizer, rows[number - 1])
        ids = {side: item[f"{side}_input_ids"] for side in ("chosen", "rejected")}
        # TRL tokenizes prompt and answer together: rows where this gives other ids would not be the same rows
        if any(hf_tokenizer(text["prompt"] + text[side])["input_ids"] != ids[side] for side in ids):
            left_out += 1
            continue
        kept.append((rows[number - 1], {**text, "expected_ids": ids}, item))
    if len(kept) < settings["rows"]:
        raise ValueError(f"{settings['data']}: {len(kept)} usable rows; lower --rows (or --steps) or give more data")
    for name, part in (("rows.jsonl", 0), ("trl.jsonl", 1)):
        (folder / name).write_text("".join(json.dumps(row[part]) + "\n" for row in kept))

    lora = {k: v for k, v in OmegaConf.to_container(cfg.model).items() if k != "_component_"}
    with torch.device("meta"):
        modules = lora_smollm2_135m(**lora).named_modules()
    weights = {
        f"{name}.lora_a.weight": initial_lora_a(name, module.rank, module.in_dim, LORA_SEED)
        for name, module in modules
        if isinstance(module, LoRALinear)
    }
    sizes = SMOLLM2_135M
    named = tune_to_peft_adapter_weights(
        weights, num_heads=sizes["num_heads"], num_kv_heads=sizes["num_kv_heads"], dim=sizes["embed_dim"]
    )
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, folder / "lora_a.safetensors")
    pairs = [
        tuple(Continuation(item[f"{side}_input_ids"], item[f"{side}_labels"]) for side in ("chosen", "rejected"))
        for _, _, item in kept
    ]
    inputs = {
        **count(pairs, settings["batch_size"], cfg.max_tokens_per_forward),
        "rows_tokenized_otherwise_by_trl": left_out,
        "sizes": sizes,
        **{k: lora[k] for k in ("lora_rank", "lora_attn_modules", "apply_lora_to_mlp")},
    }
    (folder / "inputs.json").write_text(json.dumps(inputs, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
