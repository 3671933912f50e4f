# SPDX-License-Identifier: MIT
"""Time one epoch of the Llama-3-8B config at its true size on a GPU, beside torchtune's recipe, on the same rows.

    python -m benchmarks.gpu_speed --data politune_left.jsonl --rows 400
    python -m benchmarks.gpu_speed --data politune_left.jsonl --rows 400 --systems ours compile=True
    python -m benchmarks.gpu_speed --device cpu --tiny --rows 32

The weights are random, so nothing is downloaded; dropout is 0, a step has 16 pairs, and torchtune recomputes the
activations of all layers. ``KEY=VALUE`` changes our run alone. The time is that of the whole epoch, with the reference
and with what is compiled; beside it stand the peak memory and the share of the device's own rate of bf16 products of
the same shapes, measured after the runs. ``--tiny`` is a trial of the command. Results: ``OUTPUT/result.json``.
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torchtune import config

from benchmarks.child_process import REPO
from benchmarks.full_size import MODELS, write_checkpoint
from benchmarks.speed_flops import body_linears, products, run_flops, seconds_of, weighted_rate
from benchmarks.speed_inputs import count, read_rows
from benchmarks.speed_systems import OURS, STOCK, System, run_system
from finetune.run.batches import load_pairs

TINY = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 64, "intermediate_dim": 128}
BATCH, ACCUMULATED = 4, 4


def needed_flops(cfg: DictConfig, counts: dict[str, int]) -> int:
    """Return the operations that an epoch needs, with its reference."""
    model = cfg.model
    linears = body_linears(model, model.lora_attn_modules, model.apply_lora_to_mlp)
    tokens = (counts["policy_tokens"], counts["reference_tokens"], counts["scored_tokens"])
    return run_flops(linears, (model.vocab_size, model.embed_dim), model.lora_rank, *tokens, epochs=1)


def product_rate(cfg: DictConfig, counts: dict[str, int], device: str) -> float:
    """Return the operations a second of bf16 products of the shapes of our mean forward."""
    model = cfg.model
    shapes = products(
        body_linears(model, model.lora_attn_modules, model.apply_lora_to_mlp),
        (model.vocab_size, model.embed_dim),
        round(counts["policy_tokens"] / counts["forwards"]),
        round(counts["scored_tokens"] / counts["forwards"]),
    )
    return weighted_rate(shapes, {shape: seconds_of(shape, torch.bfloat16, device) for shape in shapes})


def main() -> None:
    """Write weights and rows, run each system, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPO / "data" / "mirrored" / "pairs.jsonl", help="JSON lines")
    parser.add_argument("--rows", type=int, default=400, help="of an epoch, a multiple of 16 (%(default)s)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the command")
    parser.add_argument("--systems", default="ours,stock")
    parser.add_argument("--output", type=Path, default=REPO / "outputs" / "benchmarks" / "gpu_speed")
    arguments, ours = parser.parse_known_args()
    model = MODELS["llama8b"]
    path = REPO / "configs" / f"{model.config}.yaml"
    sizes = TINY if arguments.tiny else {}
    cfg = OmegaConf.merge(OmegaConf.load(path), {"model": sizes}, OmegaConf.from_dotlist(ours))
    rows = read_rows(arguments.data)[: arguments.rows // (BATCH * ACCUMULATED) * BATCH * ACCUMULATED]
    if len(rows) < BATCH * ACCUMULATED or len(rows) % (BATCH * ACCUMULATED):
        parser.error(f"--rows {arguments.rows} of {arguments.data}: {len(rows)} rows; a multiple of 16 is needed")
    folder = arguments.output / ("tiny" if arguments.tiny else "llama8b")
    if not (folder / "weights" / "config.json").exists():
        write_checkpoint(folder / "weights", cfg, model)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    package, file = model.tokenizer
    common = {
        "model._component_": cfg.model["_component_"],
        **{f"model.{key}": value for key, value in sizes.items()},
        "model.lora_dropout": 0.0,
        "tokenizer.path": Path(find_spec(package).submodule_search_locations[0]) / file,
        "checkpointer.checkpoint_dir": folder / "weights",
        "device": arguments.device,
        "gradient_accumulation_steps": ACCUMULATED,
        "seed": 0,
    }
    cfg.tokenizer.path = str(common["tokenizer.path"])
    data = {"_component_": "data.datasets.preference_pairs", "source": "json", "data_files": str(folder / "rows.jsonl")}
    pairs = load_pairs(OmegaConf.merge(cfg.dataset, data), config.instantiate(cfg.tokenizer)).pairs
    if len(pairs) != len(rows):
        parser.error(f"{arguments.data}: only {len(pairs)} of {len(rows)} rows can be used; give others")
    counts = {name: int(n) for name, n in count(pairs, BATCH * ACCUMULATED, cfg.max_tokens_per_forward).items()}
    n_steps = len(pairs) // (BATCH * ACCUMULATED)
    settings = {"config": path.relative_to(REPO), "objective": "dpo", "batch_size": BATCH, "epochs": 1,
                "schedule_steps": n_steps, "threads": torch.get_num_threads()}  # fmt: skip
    systems = {
        "ours": System(OURS, "bf16", common | dict(change.split("=", 1) for change in ours), True),
        "stock": System(STOCK, "bf16", common | {"enable_activation_checkpointing": True}),
    }
    runs = {name: run_system(name, folder, folder / "scratch", settings, systems[name])
            for name in arguments.systems.split(",")}  # fmt: skip
    rate, needed = product_rate(cfg, counts, arguments.device), needed_flops(cfg, counts)
    card = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    result = {"device": card, "tiny": arguments.tiny, "ours": ours, **counts, "product_tflop_per_s": rate / 1e12}
    for name, run in runs.items():
        result[name] = {
            "pairs_per_s": len(pairs) / run["train_s"],
            "peak_gib": run["peak_device_gib"] or run["peak_rss_bytes"] / 2**30,
            "needed_of_product_rate": needed / run["train_s"] / rate,
            "first_and_last_loss": [run["losses"][0], run["losses"][-1]],
            "seconds": run["train_s"],
        }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
