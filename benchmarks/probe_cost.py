# SPDX-License-Identifier: MIT
"""What the probe costs a training run, and that it changes nothing.

    python -m benchmarks.probe_cost --steps 30

The packaged model's DPO run is done with and without ``probe=eval.probe.Probe`` as it comes. The cost is taken within
one process, as the seconds spent in the probe over those of the rest of the training: two runs' wall times differ by
more than a probe on a shared machine. All losses and the adapters must be bit-identical.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.child_process import REPO, run_child
from benchmarks.step_log import write_event
from eval.probe import Probe

CONFIG = "configs/smollm2_135m_lora_dpo_cpu.yaml"
ADAPTER = Path("epoch_0") / "adapter_model.safetensors"


class TimedProbe(Probe):
    """The probe, with the seconds of each measurement in ``log_file``."""

    def __init__(self, run: Any, log_file: str) -> None:
        super().__init__(run)
        self._log_file = log_file
        write_event(log_file, event="train_start")

    def begin(self, *arguments: Any) -> dict[str, float]:  # noqa: D102
        return self._timed(super().begin, *arguments)

    def measure(self, *arguments: Any) -> dict[str, float]:  # noqa: D102
        return self._timed(super().measure, *arguments)

    def _timed(self, method: Any, *arguments: Any) -> dict[str, float]:
        started = time.monotonic()
        values = method(*arguments)
        write_event(self._log_file, event="probe", seconds=time.monotonic() - started, measured=bool(values))
        return values


def train(folder: Path, args: argparse.Namespace, probe: bool) -> list[dict[str, Any]]:
    """Train once; return what the step log says."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log_file = folder / "steps.jsonl"
    overrides = {
        "output_dir": folder / "output",
        "dataset": args.dataset,
        "max_steps_per_epoch": args.steps,
        "reference_cache_dir": folder / "reference_cache",
        "metric_logger": "benchmarks.step_log.StepLog",
        "metric_logger.log_file": log_file,
        "~metric_logger.log_dir": None,
    }
    if probe:
        overrides |= {"probe._component_": "benchmarks.probe_cost.TimedProbe", "probe.log_file": log_file}
    tune = Path(sys.executable).with_name("tune")
    arguments = [key if value is None else f"{key}={value}" for key, value in overrides.items()]
    command = [tune, "run", "finetune/dpo_finetune.py", "--config", CONFIG, *arguments]
    run_child("with the probe" if probe else "without", command, folder, args.threads)
    return [json.loads(line) for line in log_file.read_text().splitlines()]


def main() -> None:
    """Train twice and print the share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of 4 pairs (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dataset", default="data.datasets.mirrored_left", help="a builder (%(default)s)")
    args = parser.parse_args()
    folder = REPO / "outputs" / "benchmarks" / "probe_cost"
    watched, plain = (train(folder / name, args, name == "with") for name in ("with", "without"))
    losses = [[e["loss"] for e in events if "loss" in e] for events in (watched, plain)]
    adapters = [(folder / name / "output" / ADAPTER).read_bytes() for name in ("with", "without")]
    measured = [e["seconds"] for e in watched if e.get("measured")]
    probe_s = sum(e["seconds"] for e in watched if e.get("event") == "probe")
    start = next(e["time"] for e in watched if e.get("event") == "train_start")
    training_s = max(e["time"] for e in watched if "loss" in e) - start - probe_s
    result = {
        "steps": len(losses[1]), "measurements": len(measured), "probe_s": probe_s, "training_s": training_s,
        "share": probe_s / training_s, "identical": losses[0] == losses[1] and adapters[0] == adapters[1],
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(not result["identical"])


if __name__ == "__main__":
    main()
