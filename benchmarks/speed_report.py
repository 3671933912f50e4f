# SPDX-License-Identifier: MIT
"""From the runs of all rounds to medians, ratios and a table. Pure arithmetic on what was measured."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.speed_flops import body_linears, run_flops
from benchmarks.speed_systems import SYSTEMS

# ratio -> (ours, theirs)
RATIOS = {
    "stock": ("ours", "stock"),
    "stock_checkpointing": ("ours", "stock_checkpointing"),
    "stock_bf16": ("ours_bf16", "stock_bf16"),
    "trl_tuned_bf16": ("ours_bf16", "trl_tuned_bf16"),
    "trl_default": ("ours", "trl_default"),
    "trl_tuned": ("ours", "trl_tuned"),
    "ours_transformers": ("ours", "ours_transformers"),
    "ours_transformers_trl_tuned": ("ours_transformers", "trl_tuned"),
    "ours_bf16": ("ours_bf16", "ours"),
    "against": ("ours", "against"),
    "against_bf16": ("ours_bf16", "against_bf16"),
}
LABELS = {
    "ours": "this project, fp32",
    "ours_transformers": "this project, `causal_lm`, fp32",
    "stock": "torchtune 0.6.1, fp32",
    "stock_checkpointing": "torchtune 0.6.1, activation checkpointing, fp32",
    "trl_default": "TRL 1.16.0, default, fp32",
    "trl_tuned": "TRL 1.16.0, reference precomputed, no checkpointing, fp32",
    "ours_bf16": "this project, bf16",
    "trl_tuned_bf16": "TRL 1.16.0, reference precomputed, no checkpointing, bf16 autocast",
    "stock_bf16": "torchtune 0.6.1, bf16",
    "against": "this project, the other revision, fp32",
    "against_bf16": "this project, the other revision, bf16",
}
GIB = 2**30


def figures(run: Mapping[str, Any], inputs: Mapping[str, Any], epochs: int) -> dict[str, float]:
    """Return what one run says about ``epochs`` epochs.

    A run that trained fewer is taken to go on at its own mean pace, without another reference pass: so a
    cache that is used in every epoch counts as much as it is worth.

    Args:
        run: From ``run_system``; its ``step_s`` cover one or more whole epochs.
        inputs: Counts of one epoch.
        epochs: Epochs that the figures are for.
    """
    steps = inputs["pairs"] // inputs["batch_size"]
    epochs_run = len(run["step_s"]) / steps
    if epochs_run not in (1, epochs):
        raise ValueError(
            f"{len(run['step_s'])} steps are {epochs_run} epochs of {steps} steps; 1 or {epochs} are needed"
        )
    seconds = run["cache_s"] + run["train_s"] * epochs / epochs_run
    by_epoch = [sum(run["step_s"][k : k + steps]) for k in range(0, len(run["step_s"]), steps)]
    # a cache that is filled during the first epoch shows as what that epoch took longer
    filled = by_epoch[0] - statistics.median(by_epoch[1:]) if len(by_epoch) > 1 else 0.0
    pairs_per_s = epochs * inputs["pairs"] / seconds
    cpu_seconds = run["cache_cpu_s"] + run["cpu_s"] * epochs / epochs_run
    return {
        "pairs_per_s": pairs_per_s,
        "pairs_per_cpu_s": epochs * inputs["pairs"] / cpu_seconds,
        "real_tokens_per_s": pairs_per_s * inputs["real_tokens"] / inputs["pairs"],
        "setup_s": run["setup_s"],
        "reference_s": run["cache_s"] or max(filled, 0.0),
        "median_step_s": statistics.median(run["step_s"]),
        "peak_rss_gib": run["peak_rss_bytes"] / GIB,
    }


def matmul_share(run: Mapping[str, Any], inputs: Mapping[str, Any], epochs: int) -> dict[str, float]:
    """Return the operations a second that our run needed, and their share of the machine's own rate."""
    sizes = inputs["sizes"]
    flops = run_flops(
        body_linears(sizes, inputs["lora_attn_modules"], inputs["apply_lora_to_mlp"]),
        (sizes["vocab_size"], sizes["embed_dim"]),
        inputs["lora_rank"],
        inputs["policy_tokens"],
        inputs["reference_tokens"],
        inputs["scored_tokens"],
        epochs,
    )
    rate = run["matmul_flop_per_s"]
    needed = flops / (run["train_s"] + run["cache_s"])
    return {"needed_gflop_per_s": needed / 1e9, "matmul_gflop_per_s": rate / 1e9, "matmul_share": needed / rate}


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of every figure over the rounds."""
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def paired_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """Return the median over common rounds of ours / theirs: the machine's drift between rounds cancels."""
    common = sorted(ours.keys() & theirs.keys())
    return statistics.median(ours[k] / theirs[k] for k in common) if common else None


def loss_difference(losses: Sequence[float], expected: Sequence[float]) -> dict[str, float]:
    """Return the largest and the mean absolute difference over the steps that both have."""
    gaps = [abs(a - b) for a, b in zip(losses, expected)]
    return {"steps": len(gaps), "max": max(gaps), "mean": statistics.fmean(gaps)}


def summarize(
    runs: Mapping[str, Mapping[int, Mapping[str, Any]]],
    inputs: Mapping[str, Any],
    epochs: int,
) -> dict[str, Any]:
    """Put every system's rounds together.

    Args:
        runs: By system and round; ours with ``matmul_flop_per_s``, the machine's rate measured right after it.
        inputs: Counts of one epoch, and ``batch_size``.
        epochs: Epochs that the figures are for.

    Returns:
        ``systems`` (medians, rounds, differences of the losses from stock's), ``ratios`` (pairs/s, ours over
        theirs; None if one of the two was not run), ``cpu_ratios`` (pairs a CPU second) and ``peak_rss_ratios``.
    """
    by_round: dict[str, dict[int, dict[str, float]]] = {}
    for name, rounds in runs.items():
        by_round[name] = {k: figures(run, inputs, epochs) for k, run in rounds.items()}
        for k, run in rounds.items():
            if "matmul_flop_per_s" in run:
                by_round[name][k] |= matmul_share(run, inputs, epochs)
    systems = {
        name: {
            "median": medians(list(by_round[name].values())),
            "rounds": [{"round": k, **by_round[name][k], **run} for k, run in sorted(rounds.items())],
        }
        for name, rounds in runs.items()
    }
    for system in systems.values() if "stock" in runs else ():
        system["loss_against_stock"] = loss_difference(
            system["rounds"][0]["losses"], systems["stock"]["rounds"][0]["losses"]
        )

    def ratio(figure: str, ours: str, theirs: str) -> float | None:
        return paired_ratio(
            *({k: values[figure] for k, values in by_round.get(name, {}).items()} for name in (ours, theirs))
        )

    return {
        "systems": systems,
        "ratios": {name: ratio("pairs_per_s", *pair) for name, pair in RATIOS.items()},
        "cpu_ratios": {name: ratio("pairs_per_cpu_s", *pair) for name, pair in RATIOS.items()},
        "peak_rss_ratios": {name: ratio("peak_rss_gib", *pair) for name, pair in RATIOS.items()},
    }


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table of medians, with a line that says what was run where."""
    data, machine = results["data"], results["machine"]
    lines = [
        "| system | pairs/s | ours is | pairs a CPU second | ours is | real tokens/s | peak RSS, GiB | set-up, s "
        "| reference pass, s | loss against stock, max (mean) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, label in LABELS.items():
        if name not in results["systems"]:
            continue
        system = results["systems"][name]
        m, loss = system["median"], system.get("loss_against_stock")
        faster, cpu_faster = results["ratios"].get(name), results["cpu_ratios"].get(name)
        memory = results["peak_rss_ratios"].get(name)
        # with one epoch, what filling a cache took cannot be told from the steps
        without = "in the steps" if SYSTEMS[name].reuses_reference else "each step"
        cells = [
            label,
            f"{m['pairs_per_s']:.3f}",
            (f"{faster:.2f}× our fp32" if name == "ours_bf16" else f"{faster:.2f}×") if faster else "",
            f"{m['pairs_per_cpu_s']:.3f}",
            f"{cpu_faster:.2f}×" if cpu_faster else "",
            f"{m['real_tokens_per_s']:.0f}",
            f"{m['peak_rss_gib']:.2f}" + (f" (ours {memory:.2f}×)" if memory and name != "ours_bf16" else ""),
            f"{m['setup_s']:.1f}",
            f"{m['reference_s']:.1f}" if m["reference_s"] else without,
            f"{loss['max']:.1e} ({loss['mean']:.1e})" if loss and name != "stock" else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{results['settings'].get('objective', 'dpo').upper()}. "
        f"Medians of {results['settings']['rounds']} rounds, the systems in turn, on {machine['cpu']}, "
        f"{results['settings']['threads']} threads: {data['pairs']} pairs of {data['name']} in steps of "
        f"{results['settings']['batch_size']}, {results['settings']['epochs']} epochs' worth of reference reuse, the "
        "reference pass included, set-up apart.",
    ]
    for name in ("ours", "ours_bf16"):
        m = results["systems"].get(name, {"median": {}})["median"]
        if "matmul_share" in m:
            lines.append(
                f"{LABELS[name].capitalize()}: {m['matmul_share']:.0%} of the machine's own rate of plain matrix "
                f"products of the same shapes ({m['needed_gflop_per_s']:.0f} of {m['matmul_gflop_per_s']:.0f} GFLOP/s)."
            )
    return "\n".join(lines) + "\n"
