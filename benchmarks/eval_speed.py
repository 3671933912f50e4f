# SPDX-License-Identifier: MIT
"""Time ``choice`` beside lm-evaluation-harness: same model, prompts (token ids), dtype and threads.

    python -m benchmarks.eval_speed --rounds 3

Both sides run in processes of their own, in turn. lm-evaluation-harness first tries its batch sizes on a sample of the
prompts and keeps the fastest. Ours also runs with two adapters after the base, loaded once. Results: ``OUTPUT.json``,
``OUTPUT.md``. Imports no torch: a child's peak memory starts at its parent's.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed_systems import MEMORY_UNIT, REPO, child_environment
from benchmarks.train_speed import machine

PINS = {"torch": "2.13.0", "transformers": "5.23.0", "lm_eval": "0.4.13"}
MODEL = REPO / "outputs" / "models" / "SmolLM2-135M-Instruct"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--items", type=int, default=60, help="statements (%(default)s)")
    add("--templates", type=int, default=10, help="(%(default)s)")
    add("--orders", type=int, default=8, help="(%(default)s)")
    add("--labels", default="letters", choices=["letters", "digits", "words"], help="letters: one token each, the "
        "harness's best case (%(default)s)")  # fmt: skip
    add("--batch-sizes", default="1,4,8,32", help="that lm-evaluation-harness tries (%(default)s)")
    add("--trial-prompts", type=int, default=96, help="of its trials (%(default)s)")
    add("--max-tokens", type=int, default=800, help="merged tokens of one of our forwards (%(default)s)")
    add("--threads", type=int, default=os.cpu_count(), help="of every side (all cores)")
    add("--rounds", type=int, default=1, help="times that every side runs (%(default)s)")
    add("--sides", default="ours,lm_eval,adapters", help="which to run (%(default)s)")
    add("--lm-eval-python", type=Path, default=Path(sys.executable), help="python of an environment with the "
        "versions of PINS (this one)")  # fmt: skip
    add("--output", type=Path, default=REPO / "outputs" / "benchmarks" / "eval_speed", help="path without .json")
    return parser.parse_args()


def peer_versions(python: Path) -> dict[str, str]:
    """Return the versions that lm-evaluation-harness runs with.

    Raises:
        ValueError: If they are not those that are compared here; says what to install.
    """
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.name.replace('-', '_'): d.version for d in m.distributions()}))"
    )
    known = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
    found = {name: known.get(name, "none").partition("+")[0] for name in PINS}
    if found != PINS:
        raise ValueError(f'{python} has {found}, needed {PINS}: pip install -c constraints.txt -e ".[lm-eval]"')
    return found


def run_side(side: str, folder: Path, settings: dict[str, Any], python: Path, **changed: Any) -> dict[str, Any]:
    """Run one side once.

    Raises:
        RuntimeError: If it failed; shows the end of its output.
    """
    (folder / "settings.json").write_text(json.dumps(settings | changed))
    environment = child_environment(settings["threads"]) | {"PYTHONPATH": str(REPO)}
    with open(folder / "output.txt", "w", encoding="utf-8") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [python, "-m", f"benchmarks.eval_{'peer' if side == 'lm_eval' else 'sides'}", side, folder],
            cwd=REPO, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            # wait4 and not wait: it gives the peak of this child alone
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
    whole = time.monotonic() - started
    if process.returncode != 0:
        tail = "\n".join((folder / "output.txt").read_text(errors="replace").splitlines()[-25:])
        raise RuntimeError(f"{side} ended with {process.returncode}:\n{tail}")
    if side == "prompts":
        return {}
    seconds = json.loads((folder / f"{side}.json").read_text())
    memory = usage.ru_maxrss * MEMORY_UNIT / 2**30
    return {"answer_s": sum(seconds), "passes_s": seconds, "whole_s": whole, "peak_rss_gib": memory}


def best_batch_size(folder: Path, settings: dict[str, Any], args: argparse.Namespace) -> tuple[int, dict[str, float]]:
    """Return lm-evaluation-harness's fastest batch size on a sample of the prompts, and the seconds of each."""
    trial = folder / "trial"
    trial.mkdir()
    lines = (folder / "prompts.jsonl").read_text().splitlines(keepends=True)
    step = max(1, len(lines) // args.trial_prompts)
    (trial / "prompts.jsonl").write_text("".join(lines[::step]))
    seconds = {}
    for size in map(int, args.batch_sizes.split(",")):
        seconds[size] = run_side("lm_eval", trial, settings, args.lm_eval_python, batch_size=size)["answer_s"]
        print(f"lm-evaluation-harness, batches of {size}: {seconds[size]:.1f} s", flush=True)
    return min(seconds, key=seconds.get), {str(size): round(s, 2) for size, s in seconds.items()}


def summarize(runs: dict[str, list[dict[str, Any]]], n_prompts: int) -> dict[str, Any]:
    """Return medians of each side, and ratios as medians over rounds so that a drift of the machine cancels."""
    sides = {
        side: {
            "prompts_per_s": statistics.median(len(r["passes_s"]) * n_prompts / r["answer_s"] for r in rounds),
            **{key: statistics.median(r[key] for r in rounds) for key in ("answer_s", "whole_s", "peak_rss_gib")},
            "rounds": rounds,
        }
        for side, rounds in runs.items()
        if rounds
    }

    def ratio(a: str, b: str, key: str) -> float | None:
        pairs = list(zip(runs.get(a, []), runs.get(b, [])))
        return statistics.median(x[key] / y[key] for x, y in pairs) if pairs else None

    return {
        "sides": sides,
        "speed_against_lm_eval": ratio("lm_eval", "ours", "answer_s"),
        "memory_against_lm_eval": ratio("lm_eval", "ours", "peak_rss_gib"),
        "adapters_answer_ratio": ratio("adapters", "ours", "answer_s"),
        "adapters_whole_ratio": ratio("adapters", "ours", "whole_s"),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the table, with a line that says what was run where."""
    names = {"ours": "this project", "lm_eval": f"lm-evaluation-harness {PINS['lm_eval']}",
             "adapters": "this project, base and two adapters"}  # fmt: skip
    lines = ["| system | statements/s | seconds | with loading, s | peak RSS, GiB |", "|---|---|---|---|---|"]
    for side, m in results["sides"].items():
        cells = (f"{m['prompts_per_s']:.1f}", f"{m['answer_s']:.0f}", f"{m['whole_s']:.0f}", f"{m['peak_rss_gib']:.2f}")
        lines.append(f"| {names[side]} | {' | '.join(cells)} |")
    counts, settings = results["counts"], results["settings"]
    lines += ["", f"{counts['prompts']} prompts ({counts['items']} items x {settings['templates']} templates x "
              f"{settings['orders']} orders, {settings['labels']}), SmolLM2-135M, fp32, {settings['threads']} threads, "
              f"{results['machine']['cpu']}; {counts['tokens']} tokens one option at a time, {counts['merged_tokens']} "
              f"merged. Medians of {settings['rounds']} round(s), the sides in turn."]  # fmt: skip
    if results["speed_against_lm_eval"]:
        lines.append(
            f"{results['speed_against_lm_eval']:.2f} times lm-evaluation-harness at its best batch size "
            f"({results['batch_size']}); largest difference of a log-probability {results['max_difference']:.1e}."
        )
    if results["adapters_answer_ratio"]:
        lines.append(f"Base and two adapters took {results['adapters_answer_ratio']:.2f} times the base alone "
                     f"({results['adapters_whole_ratio']:.2f} times with loading).")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all sides in turn, and report after every round."""
    args = _arguments()
    sides = args.sides.split(",")
    settings = {key: getattr(args, key) for key in ("items", "templates", "orders", "labels", "threads", "rounds")}
    settings |= {"model": str(MODEL), "max_tokens": args.max_tokens, "adapters": "adapters" in sides}
    versions = peer_versions(args.lm_eval_python) if "lm_eval" in sides else {}
    folder = Path(f"{args.output}-runs")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ours = Path(sys.executable)
    run_side("prompts", folder, settings, ours)
    counts = json.loads((folder / "counts.json").read_text())
    batch_size, trials = best_batch_size(folder, settings, args) if "lm_eval" in sides else (None, {})
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for k in range(args.rounds):
        for side in [*sides[k % len(sides) :], *sides[: k % len(sides)]]:
            python = args.lm_eval_python if side == "lm_eval" else ours
            runs[side].append(run_side(side, folder, settings, python, batch_size=batch_size))
            print(f"round {k + 1}, {side}: {runs[side][-1]['answer_s']:.1f} s", flush=True)
        found = {side: np.load(folder / f"{side}.npy") for side in sides}
        both = {"ours", "lm_eval"} <= found.keys()
        results = {
            **summarize(runs, counts["prompts"]),
            "max_difference": float(np.abs(found["ours"] - found["lm_eval"]).max()) if both else None,
            "batch_size": batch_size, "batch_size_trials_s": trials,
            "counts": counts, "settings": settings, "versions": versions, "machine": machine(),
        }  # fmt: skip
        Path(f"{args.output}.json").write_text(json.dumps(results, indent=1) + "\n")
        Path(f"{args.output}.md").write_text(markdown(results))
    print(markdown(results))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
