# SPDX-License-Identifier: MIT
"""Time ``choice`` beside lm-evaluation-harness: same model, prompts (token ids), dtype and threads.

    python -m benchmarks.eval_speed --rounds 3

Both sides run in processes of their own, in turn, slice by slice of the prompts, so that a drift of the machine meets
both. lm-evaluation-harness first tries its batch sizes on a sample of the prompts and keeps the fastest. Ours also runs
with two adapters after the base, loaded once, and with one of them in a run of its own, whose answers must be the same.
Results: ``OUTPUT.json``, ``OUTPUT.md``. The same command again goes on after the last slice that was done. Imports no
torch: a child's peak memory starts at its parent's.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.child_process import REPO, run_child, versions_of
from benchmarks.eval_speed_report import PINS, differences, join_slices, markdown, summarize
from benchmarks.train_speed import machine

MODEL = REPO / "outputs" / "models" / "SmolLM2-135M-Instruct"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--items", type=int, default=60, help="statements (%(default)s)")
    add("--templates", type=int, default=10, help="(%(default)s)")
    add("--orders", type=int, default=8, help="(%(default)s)")
    add("--labels", default="letters", choices=["letters", "digits", "words"], help="letters: one token each, the "
        "harness's best case (%(default)s)")  # fmt: skip
    add("--dtype", default="fp32", choices=["fp32", "bf16"], help="of every side (%(default)s)")
    add("--batch-sizes", default="1,4,8,32", help="that lm-evaluation-harness tries (%(default)s)")
    add("--trial-prompts", type=int, default=96, help="of its trials (%(default)s)")
    add("--max-tokens", type=int, default=2400, help="merged tokens of one of our forwards (%(default)s)")
    add("--threads", type=int, default=os.cpu_count(), help="of every side (all cores)")
    add("--rounds", type=int, default=1, help="times that every side runs (%(default)s)")
    add("--slices", type=int, default=5, help="of the templates; the sides take turns after each (%(default)s)")
    add("--sides", default="ours,lm_eval,adapters,alone", help="which to run (%(default)s)")
    add("--lm-eval-python", type=Path, default=Path(sys.executable), help="python of an environment with the "
        "versions of PINS (this one)")  # fmt: skip
    add("--output", type=Path, default=REPO / "outputs" / "benchmarks" / "eval_speed", help="path without .json")
    return parser.parse_args()


def peer_versions(python: Path) -> dict[str, str]:
    """Return the versions that lm-evaluation-harness runs with.

    Raises:
        ValueError: If they are not those that are compared here; says what to install.
    """
    known = versions_of(python)
    found = {name: known.get(name, "none") for name in PINS}
    if found != PINS:
        raise ValueError(f'{python} has {found}, needed {PINS}: pip install -c constraints.txt -e ".[lm-eval]"')
    return found


def run_side(side: str, folder: Path, settings: dict[str, Any], python: Path, **changed: Any) -> dict[str, Any]:
    """Run one side once on the prompts of a folder.

    Raises:
        RuntimeError: If it failed; shows the end of its output.
    """
    (folder / "settings.json").write_text(json.dumps(settings | changed))
    module = f"benchmarks.eval_{'peer' if side == 'lm_eval' else 'sides'}"
    usage = run_child(
        side, [python, "-m", module, side, folder], folder, settings["threads"], {"PYTHONPATH": str(REPO)}
    )
    if side == "prompts":
        return {}
    seconds = json.loads((folder / f"{side}.json").read_text())
    memory = usage.peak_rss_bytes / 2**30
    return {"answer_s": sum(seconds), "passes_s": seconds, "whole_s": usage.seconds, "peak_rss_gib": memory}


def _lines(folder: Path) -> list[str]:
    return (folder / "prompts.jsonl").read_text().splitlines(keepends=True)


def best_batch_size(folder: Path, settings: dict[str, Any], args: argparse.Namespace) -> tuple[int, dict[str, float]]:
    """Return lm-evaluation-harness's fastest batch size on a sample of the prompts, and the seconds of each."""
    trial = folder / "trial"
    trial.mkdir(exist_ok=True)
    lines = _lines(folder)
    (trial / "prompts.jsonl").write_text("".join(lines[:: max(1, len(lines) // args.trial_prompts)]))
    seconds = {}
    for size in map(int, args.batch_sizes.split(",")):
        seconds[size] = run_side("lm_eval", trial, settings, args.lm_eval_python, batch_size=size)["answer_s"]
        print(f"lm-evaluation-harness, batches of {size}: {seconds[size]:.1f} s", flush=True)
    return min(seconds, key=seconds.get), {str(size): round(s, 2) for size, s in seconds.items()}


def cut_slices(folder: Path, n_slices: int) -> list[Path]:
    """Deal the templates out to folders, so that what the prompts of a template share stays together."""
    templates: dict[str, list[str]] = {}
    for line in _lines(folder):
        templates.setdefault(json.loads(line)["row"]["template"], []).append(line)
    slices = [list(templates)[k::n_slices] for k in range(min(n_slices, len(templates)))]
    for k, names in enumerate(slices):
        (folder / str(k)).mkdir(exist_ok=True)
        (folder / str(k) / "prompts.jsonl").write_text("".join(line for name in names for line in templates[name]))
    return [folder / str(k) for k in range(len(slices))]


def main() -> None:
    """Run all sides in turn, slice by slice, and report after every round."""
    args = _arguments()
    sides = args.sides.split(",")
    folder = Path(f"{args.output}-runs")
    settings = {
        key: getattr(args, key) for key in ("items", "templates", "orders", "labels", "dtype", "threads", "rounds")
    }
    settings |= {"model": str(MODEL), "max_tokens": args.max_tokens, "slices": args.slices, "inputs": str(folder)}
    versions = peer_versions(args.lm_eval_python) if "lm_eval" in sides else {}
    ours = Path(sys.executable)
    begun = folder / "begun.json"
    if not begun.exists() or json.loads(begun.read_text()) != [settings, versions]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run_side("prompts", folder, settings, ours)
        begun.write_text(json.dumps([settings, versions]))
    counts = json.loads((folder / "counts.json").read_text())
    batch_file = folder / "batch_size.json"
    if "lm_eval" in sides and not batch_file.exists():
        batch_file.write_text(json.dumps(best_batch_size(folder, settings, args)))
    batch_size, trials = json.loads(batch_file.read_text()) if "lm_eval" in sides else (None, {})
    slices = cut_slices(folder, args.slices)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for k in range(args.rounds):
        parts: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for n, part in enumerate(slices):
            turn = (k + n) % len(sides)
            for side in [*sides[turn:], *sides[:turn]]:
                done = part / f"{side}-round{k}.json"
                if not done.exists():
                    python = args.lm_eval_python if side == "lm_eval" else ours
                    done.write_text(json.dumps(run_side(side, part, settings, python, batch_size=batch_size)))
                parts[side].append(json.loads(done.read_text()))
                what = f"round {k + 1}, slice {n + 1} of {len(slices)}, {side}"
                print(f"{what}: {parts[side][-1]['answer_s']:.1f} s", flush=True)
        for side in sides:
            runs[side].append(join_slices(parts[side]))
        results = {
            **summarize(runs, counts["prompts"]), **differences(slices, sides), "batch_size": batch_size,
            "batch_size_trials_s": trials, "counts": counts, "settings": settings, "versions": versions,
            "machine": machine(),
        }  # fmt: skip
        Path(f"{args.output}.json").write_text(json.dumps(results, indent=1) + "\n")
        Path(f"{args.output}.md").write_text(markdown(results))
    print(markdown(results))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
