# SPDX-License-Identifier: MIT
"""Time this project's DPO recipe beside torchtune's own and TRL's, on the same rows and at the same losses.

    python -m benchmarks.train_speed --data /path/to/left.jsonl --rows 64 --rounds 3

Each system runs in a process of its own, one after the other, in rounds. Ours trains ``--epochs`` epochs from
an empty reference cache; the others one, as no later epoch would differ. A finished run is kept in
``OUTPUT-runs``, so an interrupted benchmark goes on. Results: ``OUTPUT.json``, ``OUTPUT.md``.
Imports no torch: a child's peak memory starts at its parent's.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.child_process import REPO, child_environment
from benchmarks.revision import checkout
from benchmarks.speed_report import figures, markdown, summarize
from benchmarks.speed_systems import OBJECTIVES, SYSTEMS, run_system, trl_versions

CONFIG = "configs/smollm2_135m_lora_dpo_cpu.yaml"
DECIDING = ("child_process", "speed_components", "speed_inputs", "speed_systems", "trl_trainers")
PEFT_NAMES = {"output_proj": "o_proj"}
MLP = ["gate_proj", "up_proj", "down_proj"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, default=REPO / "data" / "mirrored" / "pairs.jsonl", help="JSON lines of prompt, chosen, "
        "rejected; default: the shipped set, its left answers chosen")  # fmt: skip
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--rows", type=int, help="pairs of an epoch, a multiple of --batch-size (64)")
    amount.add_argument("--steps", type=int, help="the same in optimizer steps (16)")
    add("--objective", choices=OBJECTIVES, default="dpo", help="of others than dpo only ours and TRL's are there")
    add("--batch-size", type=int, default=4, help="pairs in a step (%(default)s)")
    add("--epochs", type=int, default=4, help="epochs over which reference values are reused (%(default)s)")
    add("--rounds", type=int, default=3, help="times that every system runs (%(default)s)")
    add("--threads", type=int, default=os.cpu_count(), help="threads of every system (all cores)")
    ours = [name for name in SYSTEMS if not SYSTEMS[name].is_other]
    add("--systems", help=f"which to run (of dpo {','.join(ours)}; of others those of ours and TRL)")
    add("--against", metavar="REV", help="a git revision, whose recipe runs in turn with ours")
    add("--trl-python", type=Path, help="python of an environment with TRL; by default one is made")
    add("--output", type=Path, default=REPO / "outputs" / "benchmarks" / "train_speed", help="path without .json")
    args = parser.parse_args()
    can_run = [name for name in ours if args.objective == "dpo" or not name.startswith("stock")]
    default = can_run if args.objective == "dpo" else ["ours", "trl_default", "trl_tuned"]
    args.systems = args.systems.split(",") if args.systems else default
    args.rows = args.rows or (args.steps or 16) * args.batch_size
    if unknown := set(args.systems) - set(can_run):
        parser.error(f"--objective {args.objective}: no systems {sorted(unknown)}; known: {', '.join(can_run)}")
    if args.against is not None:
        others = {"ours": "against", "ours_bf16": "against_bf16"}
        args.systems += [others[name] for name in args.systems if name in others]
    if min(args.rows, args.batch_size, args.epochs, args.rounds, args.threads) < 1 or args.rows % args.batch_size:
        parser.error(f"--rows {args.rows} must be a positive multiple of --batch-size {args.batch_size}")
    return args


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


def our_code() -> str:
    """Return a hash of what our runs depend on: they are repeated when it changes, the peers' are kept."""
    files = [path for folder in ("finetune", "data/pairs") for path in sorted((REPO / folder).rglob("*.py"))]
    files.append(REPO / "data" / "datasets.py")
    return _digest(*(path.read_bytes() for path in files))


def machine() -> dict[str, Any]:
    """Describe the machine: what figures depend on, and nothing that names it."""
    info = Path("/proc/cpuinfo")
    lines = dict(x.split(":", 1) for x in info.read_text().splitlines() if ":" in x) if info.exists() else {}
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    wanted = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "asimd"}
    return {
        "cpu": lines.get("model name", platform.processor() or platform.machine()),
        "cpu_features": sorted(wanted & set(lines.get("flags", lines.get("Features", "")).split())),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def peft_settings(cfg: dict[str, Any]) -> dict[str, Any]:
    """Return our config in the words of peft and TRL."""
    model = cfg["model"]
    targets = [PEFT_NAMES.get(name, name) for name in model["lora_attn_modules"]]
    return {
        "model": str(REPO / cfg["checkpointer"]["checkpoint_dir"]),
        "lora_rank": model["lora_rank"],
        "lora_alpha": model["lora_alpha"],
        "target_modules": targets + (MLP if model["apply_lora_to_mlp"] else []),
        # YAML 1.1 reads 1e-3 as text
        "learning_rate": float(cfg["optimizer"]["lr"]),
        "weight_decay": float(cfg["optimizer"]["weight_decay"]),
        "warmup_steps": cfg["lr_scheduler"]["num_warmup_steps"],
        "beta": float(cfg["loss"]["beta"]),
    }


def _child(module: str, argument: Path, threads: int) -> str:
    """Run a helper module in a process of its own and return what it printed."""
    command = [sys.executable, "-m", module, str(argument)]
    environment = child_environment(threads)
    done = subprocess.run(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{module} failed with {done.returncode}: its message is above")
    return done.stdout


def main() -> None:
    """Run what is missing, and report after every run."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped benchmark ends its child too
    cfg = yaml.safe_load((REPO / CONFIG).read_text())
    names = ("torch", "torchtune", "torchao", "transformers", "peft", "datasets", "numpy")
    versions = {"ours": {name: importlib.metadata.version(name) for name in names}}
    trl_python = args.trl_python or REPO / "outputs" / "benchmarks" / "trl" / "bin" / "python"
    if any(SYSTEMS[name].trainer == "trl" for name in args.systems):
        print(f"TRL's environment: {trl_python}", flush=True)
        versions["trl"] = trl_versions(trl_python, create=args.trl_python is None)
    settings = {
        "config": CONFIG,
        "data": str(args.data.resolve()),
        **{key: getattr(args, key) for key in ("objective", "rows", "batch_size", "epochs", "threads")},
        # as long as our run, so that all systems take the same steps
        "schedule_steps": args.epochs * args.rows // args.batch_size,
    }
    # whatever decides what the peers do; our own code is recorded with each of our runs
    parts = [args.data, REPO / CONFIG, *(REPO / "benchmarks" / f"{name}.py" for name in DECIDING)]
    identity = json.dumps([settings, machine(), versions["ours"]]).encode()
    runs_folder = Path(f"{args.output}-runs") / _digest(identity, *(path.read_bytes() for path in parts))
    inputs_folder = runs_folder / "inputs"
    inputs_folder.mkdir(parents=True, exist_ok=True)
    (inputs_folder / "settings.json").write_text(json.dumps(settings, indent=2))
    _child("benchmarks.speed_inputs", inputs_folder, args.threads)
    inputs = json.loads((inputs_folder / "inputs.json").read_text()) | {"batch_size": args.batch_size}
    if args.against is not None:
        settings["against"] = str(checkout(args.against, Path(f"{args.output}-revisions")))
    settings |= {"trl_python": str(trl_python.absolute()), "trl": peft_settings(cfg)}

    code = our_code()
    runs: dict[str, dict[int, Any]] = {}
    for k in range(1, args.rounds + 1):
        first = (k - 1) % len(args.systems)
        for name in [*args.systems[first:], *args.systems[:first]]:
            kept = runs_folder / f"round_{k}_{name}.json"
            wanted = code if name.startswith("ours") else settings["against"] if SYSTEMS[name].is_other else "peer"
            record = json.loads(kept.read_text()) if kept.exists() else {}
            if record.get("code") != wanted:
                run = run_system(name, inputs_folder, runs_folder / "scratch", settings)
                if name.startswith("ours") and args.objective == "dpo":  # right after the run that it is compared with
                    rates = json.loads(_child("benchmarks.speed_flops", inputs_folder / "inputs.json", args.threads))
                    run["matmul_flop_per_s"] = rates[SYSTEMS[name].dtype]
                record = {"code": wanted, "run": run}
                kept.write_text(json.dumps(record))
            runs.setdefault(name, {})[k] = record["run"]
            f = figures(record["run"], inputs, args.epochs)
            print(
                f"round {k}/{args.rounds} {name}: {f['pairs_per_s']:.3f} pairs/s, {f['median_step_s']:.2f} s a step, "
                f"{f['peak_rss_gib']:.2f} GiB, set-up {f['setup_s']:.0f} s",
                flush=True,
            )
            results = {
                "settings": {key: settings[key] for key in ("config", "objective", "batch_size", "epochs", "threads")}
                | {"rounds": k, "systems": args.systems},
                "data": {"name": args.data.name, **inputs},
                "machine": machine(),
                "versions": versions,
                **summarize(runs, inputs, args.epochs),
            }
            args.output.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
            args.output.with_suffix(".md").write_text(markdown(results))
    print(args.output.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
