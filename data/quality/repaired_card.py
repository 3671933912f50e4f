# SPDX-License-Identifier: MIT
"""The card of a repaired set: what it is, what became of the rows, and metadata by which ``datasets`` loads it."""

from collections.abc import Mapping, Sequence
from typing import Any

_BODY = """
# {names}, repaired

Preference pairs that teach a political lean **on purpose**, cleaned and mirrored: `left` and `right` are the same
{n_rows} prompts with chosen and rejected exchanged. Made to measure how fine-tuning moves a model's stated lean.
**Not for deployment or persuasion.** The licence is that of the source.

| set | rows | kept | dropped, by first reason |
|---|---|---|---|
{funnel}

Every dropped row is in `rejected.jsonl` with all its reasons, every file's SHA-256 in `manifest.json`, and what the set
measures now in `audit/report.html`. A filter is a bias: look at what it dropped. Nothing was rewritten but personal
data, which is masked; whether an answer is true or well argued was not looked at. In the parquet files nested fields
are JSON text; the JSON Lines files have the same rows as they are.
"""


def repaired_card(inputs: Sequence[Mapping[str, Any]], funnel: Mapping[str, Any], n_rows: int) -> str:
    """Return the README of a repaired set.

    Args:
        inputs: Of each source its ``dataset``, as the manifest has them.
        funnel: As :func:`data.quality.repair.funnel` counts.
        n_rows: Of each side.
    """
    from huggingface_hub import DatasetCardData

    metadata = DatasetCardData(
        task_categories=["text-generation"],
        tags=["preference", "dpo", "political-lean", "not-for-deployment"],
        configs=[{"config_name": side, "data_files": f"{side}.parquet"} for side in ("left", "right")],
    )
    rows = [
        f"| {name} | {one['rows']} | {one['kept']} | {', '.join(f'{k} {n}' for k, n in one['dropped'].items())} |"
        for name, one in funnel["sets"].items()
    ]
    names = ", ".join(dict.fromkeys(one["dataset"] for one in inputs))
    return f"---\n{metadata.to_yaml()}\n---\n{_BODY.format(names=names, n_rows=n_rows, funnel=chr(10).join(rows))}"
