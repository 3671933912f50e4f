# SPDX-License-Identifier: MIT
"""Kill a training at random moments, go on, and compare with the run that nobody disturbed.

    python -m benchmarks.kill_resume --kills 20

Each trial starts the packaged model's DPO run afresh, sends SIGKILL at a random moment between its start and its end
(imports, reference pass, steps and saving alike), and starts it again with ``resume_from_checkpoint=True``. The losses
of all steps and the final adapter must be bit-identical to the undisturbed run's.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = "configs/smollm2_135m_lora_dpo_cpu.yaml"
ADAPTER = Path("epoch_1") / "adapter_model.safetensors"


def write_rows(path: Path, n: int = 6) -> None:
    """Write the first words of some shipped rows: real text, in less time."""
    rows = [json.loads(line) for line in (ROOT / "data" / "mirrored" / "pairs.jsonl").read_text().splitlines()[:n]]
    short = [{key: " ".join(row[key].split()[:12]) for key in ("prompt", "left", "right")} for row in rows]
    lines = [json.dumps({"prompt": r["prompt"], "chosen": r["left"], "rejected": r["right"]}) for r in short]
    path.write_text("\n".join(lines))


def start(output: Path, rows: Path) -> subprocess.Popen:
    """Start, or go on with, a run of two epochs of six steps, saved every second one."""
    overrides = [
        "dataset=data.datasets.preference_pairs", "dataset.source=json", f"dataset.data_files={rows}", "epochs=2",
        f"output_dir={output}", f"reference_cache_dir={output / 'reference'}", "batch_size=1",
        "max_steps_per_epoch=null", "save_every_n_steps=2", "resume_from_checkpoint=True", "model.lora_dropout=0.1",
    ]  # fmt: skip
    tune = str(Path(sys.executable).with_name("tune"))
    log = open(output.with_suffix(".log"), "a")
    command = [tune, "run", "finetune/dpo_finetune.py", "--config", CONFIG, *overrides]
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def losses(output: Path) -> dict[int, str]:
    """Return each step's loss as printed; steps that were run twice must agree."""
    found: dict[int, str] = {}
    for path in sorted((output / "logs").glob("*.txt")):
        for line in path.read_text().splitlines():
            if " | loss:" in line and "lr:" in line:  # a kill may cut the last line
                step, values = line.removeprefix("Step ").split(" | ")
                loss = values.split()[0]
                if found.setdefault(int(step), loss) != loss:
                    found[int(step)] = f"{found[int(step)]} and {loss}"
    return found


def finish(process: subprocess.Popen, output: Path) -> None:
    """Wait for a run's end."""
    if process.wait():
        raise SystemExit(f"the run in {output} failed; see {output.with_suffix('.log')}")


def main() -> None:
    """Run the trials and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "benchmarks" / "kill_resume")
    arguments = parser.parse_args()
    folder = arguments.output
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = folder / "rows.jsonl"
    write_rows(rows)

    undisturbed = folder / "undisturbed"
    started = time.perf_counter()
    finish(start(undisturbed, rows), undisturbed)
    seconds = time.perf_counter() - started
    expected, adapter = losses(undisturbed), (undisturbed / ADAPTER).read_bytes()
    print(f"undisturbed: {len(expected)} steps in {seconds:.0f} s", flush=True)

    draw, trials = random.Random(arguments.seed), []
    while len(trials) < arguments.kills:
        k = len(trials)
        output, moment = folder / f"trial_{k}", draw.uniform(0.0, seconds)
        process = start(output, rows)
        try:
            process.wait(timeout=moment)
            shutil.rmtree(output)
            continue  # this run was faster than the undisturbed one: draw again
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed_at = max(losses(output), default=0)
        finish(start(output, rows), output)
        same = losses(output) == expected and (output / ADAPTER).read_bytes() == adapter
        trials.append({"second": round(moment, 1), "after_step": killed_at, "identical": same})
        print(json.dumps(trials[-1]), flush=True)
        if same:
            shutil.rmtree(output)
    identical = sum(trial["identical"] for trial in trials)
    (folder / "result.json").write_text(json.dumps({"identical": identical, "trials": trials}, indent=1) + "\n")
    print(f"{identical} of {len(trials)} bit-identical")
    sys.exit(identical != len(trials))


if __name__ == "__main__":
    main()
