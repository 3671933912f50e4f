# SPDX-License-Identifier: MIT
"""What the evaluation speed benchmark says: sums over slices, medians over rounds, ratios, differences, the table."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

PINS = {"torch": "2.13.0", "transformers": "5.23.0", "lm_eval": "0.4.13"}


def join_slices(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what one side took for all slices of a round."""
    passes = [sum(seconds) for seconds in zip(*(part["passes_s"] for part in parts))]
    peak = max(part["peak_rss_gib"] for part in parts)
    return {
        "answer_s": sum(passes),
        "passes_s": passes,
        "whole_s": sum(p["whole_s"] for p in parts),
        "peak_rss_gib": peak,
    }


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
             "adapters": "this project, base and two adapters",
             "alone": "this project, the second adapter alone"}  # fmt: skip
    lines = ["| system | statements/s | seconds | with loading, s | peak RSS, GiB |", "|---|---|---|---|---|"]
    for side, m in results["sides"].items():
        cells = (f"{m['prompts_per_s']:.1f}", f"{m['answer_s']:.0f}", f"{m['whole_s']:.0f}", f"{m['peak_rss_gib']:.2f}")
        lines.append(f"| {names[side]} | {' | '.join(cells)} |")
    counts, settings = results["counts"], results["settings"]
    lines += ["", f"{counts['prompts']} prompts ({counts['items']} items x {settings['templates']} templates x "
              f"{settings['orders']} orders, {settings['labels']}), SmolLM2-135M, {settings['dtype']}, "
              f"{settings['threads']} threads, {results['machine']['cpu']}; {counts['tokens']} tokens one option at a "
              f"time, {counts['merged_tokens']} merged. Medians of {settings['rounds']} round(s), the sides "
              f"in turn after each of {settings['slices']} slices."]  # fmt: skip
    if results["speed_against_lm_eval"]:
        lines.append(
            f"{results['speed_against_lm_eval']:.2f} times lm-evaluation-harness at its best batch size "
            f"({results['batch_size']}); largest difference of a log-probability {results['max_difference']:.1e}."
        )
    if results["adapters_answer_ratio"]:
        lines.append(f"Base and two adapters took {results['adapters_answer_ratio']:.2f} times the base alone "
                     f"({results['adapters_whole_ratio']:.2f} times with loading).")  # fmt: skip
    if results["adapters_difference"] is not None:
        lines.append("Largest difference of an adapter's log-probability there and in a run of its own: "
                     f"{results['adapters_difference']:.1e}.")  # fmt: skip
    return "\n".join(lines) + "\n"


def differences(slices: list[Path], sides: list[str]) -> dict[str, float | None]:
    """Return the largest differences between log-probabilities that should be the same."""

    def largest(a: str, pass_a: int, b: str) -> float | None:
        if not {a, b} <= set(sides):
            return None
        return max(float(np.abs(np.load(p / f"{a}.npy")[pass_a] - np.load(p / f"{b}.npy")[0]).max()) for p in slices)

    return {"max_difference": largest("ours", 0, "lm_eval"), "adapters_difference": largest("adapters", -1, "alone")}
