# SPDX-License-Identifier: MIT
"""Two DPO steps of a shipped config at its true size, on a CPU in bf16, with the peak memory.

    python -m benchmarks.full_size --model llama8b
    python -m benchmarks.full_size --model mistral7b

The weights are random, written shard by shard in the layout of the Hugging Face repository, so nothing is downloaded:
it shows that the config fits, loads, trains and saves, not what it learns. Needs 16 GB of disk and 24 GB of memory;
prints the losses of the two steps, the peak resident set and the size of the adapter.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).parents[1]


class Model(NamedTuple):
    """A shipped config, the file of a PyPI package that holds the model's real tokenizer, and its tensors' shapes."""

    config: str
    tokenizer: tuple[str, str]
    model_type: str


MODELS = {
    "llama8b": Model("llama8b_lora_dpo_single_device", ("llama_models", "llama3/tokenizer.model"), "llama"),
    "mistral7b": Model("mistral7b_lora_dpo_single_device", ("mistral_common", "data/tokenizer.model.v1"), "mistral"),
}


def tensors(sizes, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's tensors under Hugging Face's names, one at a time, random as at the start of a pre-training."""
    dim, hidden = sizes.embed_dim, sizes.intermediate_dim
    kv = dim // sizes.num_heads * sizes.num_kv_heads

    def random(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)

    yield "model.embed_tokens.weight", random(sizes.vocab_size, dim)
    for k in range(sizes.num_layers):
        layer = f"model.layers.{k}"
        for name, rows in (("q", dim), ("k", kv), ("v", kv), ("o", dim)):
            yield f"{layer}.self_attn.{name}_proj.weight", random(rows, dim)
        yield f"{layer}.mlp.gate_proj.weight", random(hidden, dim)
        yield f"{layer}.mlp.up_proj.weight", random(hidden, dim)
        yield f"{layer}.mlp.down_proj.weight", random(dim, hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{name}.weight", torch.ones(dim, dtype=torch.bfloat16)
    yield "model.norm.weight", torch.ones(dim, dtype=torch.bfloat16)
    yield "lm_head.weight", random(sizes.vocab_size, dim)


def write_checkpoint(folder: Path, cfg, model: Model) -> None:
    """Write random weights in the files that the config names; at most one file's tensors are in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes, files = cfg.model, list(cfg.checkpointer.checkpoint_files)
    n_tensors = 3 + 9 * sizes.num_layers
    per_file, part, weight_map = -(-n_tensors // len(files)), {}, {}
    for k, (name, tensor) in enumerate(tensors(sizes, torch.Generator().manual_seed(0)), start=1):
        part[name] = tensor
        weight_map[name] = files[(k - 1) // per_file]
        if k % per_file == 0 or k == n_tensors:
            print(f"writing {weight_map[name]}", flush=True)
            save_file(part, folder / weight_map[name], metadata={"format": "pt"})
            part = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {
        "model_type": model.model_type,
        "hidden_size": sizes.embed_dim,
        "num_attention_heads": sizes.num_heads,
        "num_key_value_heads": sizes.num_kv_heads,
        "rope_theta": sizes.get("rope_base", 10_000),
        "rms_norm_eps": float(sizes.norm_eps),
        "sliding_window": None,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_rows(path: Path, n: int = 2) -> None:
    """Write the shortest rows of the shipped set."""
    rows = [json.loads(line) for line in (ROOT / "data" / "mirrored" / "pairs.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: len(row["prompt"] + row["left"] + row["right"]))
    lines = [json.dumps({"prompt": r["prompt"], "chosen": r["left"], "rejected": r["right"]}) for r in rows[:n]]
    path.write_text("\n".join(lines))


def main() -> None:
    """Write, train, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="llama8b")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks" / "full_size")
    parser.add_argument("--keep", action="store_true", help="keep the random weights for another run")
    arguments = parser.parse_args()
    model = MODELS[arguments.model]
    cfg_path = ROOT / "configs" / f"{model.config}.yaml"
    cfg = OmegaConf.load(cfg_path)
    folder = arguments.output / arguments.model
    weights, run = folder / "weights", folder / "run"
    if not (weights / "config.json").exists():
        write_checkpoint(weights, cfg, model)
    shutil.rmtree(run, ignore_errors=True)
    write_rows(folder / "rows.jsonl")
    package, file = model.tokenizer
    overrides = [
        f"output_dir={run}", f"checkpointer.checkpoint_dir={weights}", "dataset.source=json",
        f"dataset.data_files={folder / 'rows.jsonl'}", "device=cpu", "dtype=bf16", "batch_size=1",
        f"tokenizer.path={Path(find_spec(package).submodule_search_locations[0]) / file}", "epochs=1",
        "gradient_accumulation_steps=1", "lr_scheduler.num_warmup_steps=0",
        f"reference_cache_dir={folder / 'reference'}",
    ]  # fmt: skip
    started = time.perf_counter()
    tune = Path(sys.executable).with_name("tune")
    command = [tune, "run", "finetune/dpo_finetune.py", "--config", cfg_path.relative_to(ROOT), *overrides]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode} after {seconds:.0f} s; see above")
    logs = "".join(path.read_text() for path in sorted((run / "logs").glob("*.txt")))
    result = {
        "config": model.config,
        "losses": [float(line.split("loss:")[1].split()[0]) for line in logs.splitlines()],
        "peak_rss_gib": usage.ru_maxrss / 2**20,
        "seconds": seconds,
        "adapter_mib": (run / "epoch_0" / "adapter_model.safetensors").stat().st_size / 2**20,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if not arguments.keep:
        shutil.rmtree(weights)


if __name__ == "__main__":
    main()
