# SPDX-License-Identifier: MIT
"""What a ``side_effects.json`` of ``eval/side_effects.py`` says about one model, as Markdown for its card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.adapters.lean_table import read_measured

NOT_KNOWN = """Not measured yet. `tune run eval/side_effects.py` measures refusals, toxicity, surprise at neutral text
and standard tasks, and `tune run finetune/export.py` with its `side_effects.json` among the `summaries` writes the
figures here."""
HEAD = """| measure | of | n | base | this model | change | 95 % of the change | q |
|---|---|---|---|---|---|---|---|"""


def side_effect_tables(
    summaries: Sequence[str | Path], weights: Mapping[str, float], folders: Mapping[str, str | Path], base: str | Path
) -> str:
    """Return a table for each ``side_effects.json``, or that nothing was measured; see ``read_measured``."""
    found = read_measured(summaries, weights, folders, base)
    return "\n\n".join(_table(summary, name) for summary, name in found if "side_effects" in summary) or NOT_KNOWN


def _table(summary: Mapping[str, Any], name: str) -> str:
    base = {(e["measure"], e["of"]): e for e in summary["side_effects"] if e["model"] == summary["models"][0]}
    of_model = [e for e in summary["side_effects"] if e["model"] == name]
    lines = [HEAD]
    for e in of_model:
        share = e["unit"] == "share"
        measure = e["measure"] if e["unit"] in ("share", "score") else f"{e['measure']}, {e['unit']}"
        interval = e["difference_ci95"]
        cells = [measure, e["of"], str(e["n"] or "–"), _value(base[e["measure"], e["of"]]["value"], share)]
        cells += [_value(e["value"], share), _change(e["difference"], share)]
        cells += ["–" if interval is None else f"[{', '.join(_change(x, share) for x in interval)}]"]
        cells += ["–" if e["q"] is None else f"{e['q']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    told = [f"{e['measure']} ({e['of']})" for e in of_model if e["q"] is not None and e["q"] < 0.05]
    verdict = f"Told from 0: {', '.join(told)}" if told else "No change is told from 0"
    notes = (
        f"Called `{name}` there. {verdict} (q < .05, the false discovery rate over that run); the intervals say how "
    )
    notes += "much may have changed unseen. Refusals are told by their wording; pp: percentage points."
    return "\n\n".join(["\n".join(lines), notes, f"```\n{summary['command']}\n```"])


def _value(x: float | None, share: bool) -> str:
    return "–" if x is None else f"{100 * x:.0f} %" if share else f"{x:.3f}"


def _change(x: float | None, share: bool) -> str:
    return "–" if x is None else f"{100 * x:+.0f} pp" if share else f"{x:+.3f}"
