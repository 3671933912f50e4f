# SPDX-License-Identifier: MIT
"""A study in words: what it will train and cost, and what it found."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchtune import config

from data.recipe.figures import interval, number, p_value
from eval.pages.panels import unit_of_mode
from eval.scores.places import verdict
from eval.study_plan import ModelPlan, Run, as_overrides
from finetune.run.batches import PairBatches, PairSet, load_pairs, split_by_prompt

# Name of a run to the pairs and tokens that it trains on.
Counts = Mapping[str, tuple[int, int]]


def count_pairs(runs: Sequence[Run]) -> Counts:
    """Return how many pairs and tokens each run trains on, every epoch counted.

    Raises:
        OSError: If a tokenizer or a set cannot be had.
        ValueError: If a set cannot be used.
    """
    sets: dict[str, PairSet] = {}
    counts = {}
    for run in runs:
        cfg = run.cfg
        key = "\n".join(as_overrides({"dataset": cfg.dataset, "tokenizer": cfg.tokenizer}))
        if key not in sets:
            sets[key] = load_pairs(cfg.dataset, config.instantiate(cfg.tokenizer))
        pairs = sets[key] if cfg.validation_share is None else split_by_prompt(sets[key], cfg.validation_share)[0]
        per_step = cfg.batch_size * cfg.gradient_accumulation_steps
        batches = PairBatches(pairs, per_step, cfg.seed, cfg.shuffle, cfg.max_steps_per_epoch)
        n_pairs = min(len(pairs.pairs), per_step * batches.steps_per_epoch)
        counts[run.name] = (cfg.epochs * n_pairs, cfg.epochs * batches.count_tokens())
    return counts


def describe_plan(plan: ModelPlan, counts: Counts) -> str:
    """Return a line for each run with its command below it, and what all of them cost; without counts, no cost."""
    lines = []
    for run in plan.runs:
        state = "complete" if run.is_complete() else "begun" if Path(run.cfg.output_dir).exists() else "new"
        cost = "{:,} pairs, {:,} tokens".format(*counts[run.name]) if counts else "pairs not counted"
        lines += [f"{plan.name}, {run.name}: {state}; {cost}", f"    {shlex.join(run.command)}"]
    asked = f"{len(plan.runs) + 1} models asked in {plan.evaluation.output_dir}"
    return "\n".join([*lines, f"{plan.name}: {len(plan.runs)} runs{_total(counts)}; {asked}"])


def describe_results(
    plans: Sequence[ModelPlan], summaries: Mapping[str, Mapping[str, Any]], counts: Mapping[str, Counts]
) -> str:
    """Return the report of a study in Markdown.

    Args:
        plans: One for each model.
        summaries: Name of the model to what ``summary.json`` of its evaluation holds.
        counts: Name of the model to the cost of its runs.
    """
    lines = [f"# {Path(plans[0].evaluation.output_dir).parent.parent.name}", ""]
    for plan in plans:
        summary, folder = summaries[plan.name], Path(plan.evaluation.output_dir)
        about = summary["instrument"]
        lines += [
            f"## {plan.name}",
            "",
            f"{len(plan.runs)} runs{_total(counts[plan.name])}. Stance under {about['name']} {about['version']} and "
            f"these prompts. Everything: [report.html]({folder.relative_to(folder.parent.parent)}/report.html).",
            "",
        ]
        base = next(iter(summary["models"]))
        for mode in summary["models"][base]:
            lines += _tables(summary, mode, counts[plan.name])
        lines += [
            f"- {c['run']} along {c['kind']}, {c['mode']} {c['axis']}: {verdict(c)}."
            + _void(summary, _models_of(summary, c["models"]), c["mode"], c["axis"])
            for c in summary["curves"]
            if c["mode"] != "pairs" or c["axis"] == "lean"
        ]
        lines.append("")
    lines.append(
        "Differences are paired by prompt, with 95 % intervals over statements, prompts and seeds. A seed is a "
        "replicate, not more statements; range: least and greatest seed. q: false discovery rate over all differences "
        "of one model's runs, placebos apart. Void: see the flags in report.html; nothing is concluded."
    )
    return "\n".join(lines) + "\n"


def _tables(summary: Mapping[str, Any], mode: str, counts: Counts) -> list[str]:
    """The scores of the runs of one mode, and their differences on every axis."""
    base, of_base = next((name, of[mode]) for name, of in summary["models"].items())
    axes, replicates = list(of_base), summary["replicates"]
    found = {(run["run"], run["axis"]): run for run in replicates["runs"] if run["mode"] == mode}
    first = axes[0]  # lean, in pairs
    lines = [
        f"| {mode}, {unit_of_mode(mode)} | pairs | seeds | {first}: mean | range |",
        "|---|---|---|---|---|",
        f"| {base} | 0 | | {number(of_base[first]['estimate'])} {interval(of_base[first]['ci95'])} | |",
    ]
    for run in [run for (_, axis), run in found.items() if axis == first]:
        n_pairs = {counts[name][0] for name in run["models"]}
        seeds, n = ", ".join(map(str, run["seeds"])), "–".join(f"{n:,}" for n in sorted(n_pairs))
        cells = [
            run["run"] + _void(summary, run["models"], mode, first),
            n,
            seeds,
            number(run["mean"]),
            interval(run["range"]) if run["seeds"][1:] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for c in replicates["comparisons"]:
        if c["mode"] == mode:
            rows.setdefault(f"{c['b']} − {c['a']}", {})[c["axis"]] = c
    n_items = {axis: next(c[axis]["n_items"] for c in rows.values()) for axis in axes} if rows else {}
    lines += ["", "| difference | " + " | ".join(f"{axis} (n = {n})" for axis, n in n_items.items()) + " |"]
    lines.append("|---|" + "---|" * len(n_items))
    for name, of in rows.items():
        cells = [
            f"{number(c['difference'])} {interval(c['ci95'])} q {p_value(c['q'])}"
            + _void(summary, _models_of(summary, [c["a"], c["b"]]), mode, axis)
            for axis, c in of.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _models_of(summary: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The models that are named, themselves or as a run over its seeds."""
    seeds = {run["run"]: run["models"] for run in summary["replicates"]["runs"]}
    return [model for name in names for model in seeds.get(name, [name])]


def _void(summary: Mapping[str, Any], models: Sequence[str], mode: str, axis: str) -> str:
    """A mark where the score of any of these models is void."""
    return " (void)" if any(summary["models"][name][mode][axis]["void"] for name in models) else ""


def _total(counts: Counts) -> str:
    return ", {:,} pairs and {:,} tokens in all".format(*map(sum, zip(*counts.values()))) if counts else ""
