# SPDX-License-Identifier: MIT
"""What a ``summary.json`` of ``eval/political_compass.py`` says about one model, as Markdown for its card."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.adapters.folders import fingerprint

NOT_MEASURED = """Not measured yet. `tune run eval/political_compass.py` measures it, and `tune run finetune/export.py`
with `summaries=[that run's summary.json]` writes the figures here."""
HEAD = """| mode | axis | score | 95 %, items fixed | 95 %, items too | minus base | 95 %, items too | q | items |
|---|---|---|---|---|---|---|---|---|"""


def lean_tables(
    summaries: Sequence[str | Path], weights: Mapping[str, float], folders: Mapping[str, str | Path], base: str | Path
) -> str:
    """Return a table for each ``summary.json``, or that nothing was measured; see :func:`read_measured`."""
    found = read_measured(summaries, weights, folders, base)
    tables = [_table(summary, name) for summary, name in found if "side_effects" not in summary]
    return "\n\n".join(tables) or NOT_MEASURED


def read_measured(
    summaries: Sequence[str | Path], weights: Mapping[str, float], folders: Mapping[str, str | Path], base: str | Path
) -> list[tuple[dict[str, Any], str]]:
    """Return each file with the name that it has for this very model, by the weights' hashes, not by a name.

    Args:
        summaries: Paths of ``summary.json`` and ``side_effects.json``.
        weights: Weight of each adapter; those at 0 do not count.
        folders: Name to folder of each adapter.
        base: The base model's folder.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If one measured no model of these weights on this base.
    """
    wanted = _by_hash({name: fingerprint(folders[name]) for name in weights}, weights)
    measured = []
    for path in map(Path, summaries):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} not found; give the summary.json of a run of eval/political_compass.py, "
                "or the side_effects.json of one of eval/side_effects.py"
            )
        summary = json.loads(path.read_text(encoding="utf-8"))
        settings = summary["settings"]
        hashes = settings["adapters_sha256"]
        models = {name: {sha256: 1.0} for name, sha256 in hashes.items()}
        for name, blend in settings.get("blends", {}).items():
            models[name] = _by_hash(hashes, blend)
        found = [name for name, made_of in models.items() if made_of == wanted and name in summary["models"]]
        if not found or settings["base_sha256"] != fingerprint(base):
            what = (
                f"none of its models ({', '.join(models)}) has these weights" if not found else "it is of another base"
            )
            raise ValueError(f"{path} did not measure this model: {what}; score the same folders, or leave it out")
        measured.append((summary, found[0]))
    return measured


def _by_hash(hashes: Mapping[str, str], weights: Mapping[str, float]) -> dict[str, float]:
    """Weight of each set of adapter weights; one that has two names counts with the sum."""
    total: Counter[str] = Counter()
    for name, weight in weights.items():
        total[hashes[name]] += float(weight)
    return {sha256: weight for sha256, weight in total.items() if weight}


def _table(summary: Mapping[str, Any], name: str) -> str:
    base, instrument = next(iter(summary["models"])), summary["instrument"]
    changes = {(c["mode"], c["axis"]): c for c in summary["comparisons"] if (c["a"], c["b"]) == (base, name)}
    placebo = {axis for axis, about in instrument["axes"].items() if about["placebo"]}
    lines, notes = [HEAD], []
    for mode, axes in summary["models"][name].items():
        for axis, score in axes.items():
            change = changes.get((mode, axis), {})
            label = f"{axis} (placebo: must not move)" if axis in placebo else axis
            cells = [mode, label, _number(score["estimate"]), _interval(score["ci95_items_fixed"])]
            cells += [_interval(score["ci95"]), _number(change.get("difference")), _interval(change.get("ci95"))]
            cells += [_number(change.get("q"), ""), f"{score['n_answered']} of {score['n_items']}"]
            lines.append(f"| {' | '.join(cells)} |")
            if score.get("void"):
                notes.append(f"Void: {mode}, {axis} ({', '.join(score['void'])}).")
        political = [axis for axis in axes if axis not in placebo]
        of_base = summary["models"][base].get(mode, {})
        if not any(of.get(axis, {}).get("void") for of in (axes, of_base) for axis in political):
            notes.append(_magnitude(mode, {axis: changes.get((mode, axis)) for axis in political}))
    axes = "; ".join(f"{axis}: low is {a['low']}, high is {a['high']}" for axis, a in instrument["axes"].items())
    head = (
        f"**{instrument['name']} {instrument['version']}** (SHA-256 `{instrument['sha256'][:16]}`), called `{name}` "
        f"there. {axes}. `pairs` is in nats a token, negative where the left statement is likelier."
    )
    made = f"```\n{summary['command']}\n```"
    return "\n\n".join([head, "\n".join(lines), " ".join(note for note in notes if note), made])


def _magnitude(mode: str, changes: Mapping[str, Mapping[str, Any] | None]) -> str:
    """How far a mode moved from the base, and whether that is told from 0."""
    parts = {"lean": changes.get("lean")} if "lean" in changes else changes  # the axes of pairs are parts of the lean
    if any(change is None or change["difference"] is None for change in parts.values()):
        return ""
    distance = math.hypot(*(change["difference"] for change in parts.values()))
    told = [axis for axis, change in parts.items() if change["q"] is not None and change["q"] < 0.05]
    return (
        f"Distance from the base in `{mode}`: {distance:.3f}, "
        f"{'told from 0 on ' + ', '.join(told) if told else 'not told from 0'} (q < .05)."
    )


def _number(x: float | None, sign: str = "+") -> str:
    return "–" if x is None else f"{x:{sign}.3f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"[{interval[0]:+.3f}, {interval[1]:+.3f}]"
