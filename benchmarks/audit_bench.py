# SPDX-License-Identifier: MIT
"""Recall of the audit by kind, and its false alarms, on rows that were spoilt without sight of its rules.

    python -m benchmarks.audit_bench benchmarks/audit_blind.jsonl

The claims (``CLAIMED``) were chosen on the older ``audit_bench.jsonl``, before ``audit_blind.jsonl`` was written.
A row of the file has ``kind``, ``prompt``, ``chosen``, ``rejected``, and
``group`` where rows belong together (a row and its copy). A spoilt row is found if a defect of any kind but a note is
reported of it; of a group, if one is of any of its rows. The last column says by which
kinds. Each spoilt row is audited alone, or with its group; the clean ones are audited together, as one set.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.pairs.records import split_rows
from data.quality.contamination import shipped_statements
from data.quality.defects import KINDS, Checks, Defect, set_defects
from data.quality.measures import wilson
from data.quality.phrases import not_neutral

Row = Mapping[str, Any]
CLEAN = "clean"
# The kinds that the audit claims to find, by their names in either file. They were fixed before the second was written.
CLAIMED = {
    *(
        "refusal",
        "void",
        "cut_off",
        "echo_prompt",
        "repeat_sentence",
        "length_ratio",
        "equal_normalised",
        "html",
        "url",
    ),
    *("prompt_chosen_exchanged", "prompt_orders", "email", "handle_mask", "mojibake", "other_language", "role_label"),
    *("void_answer", "repeats_prompt", "loops", "much_longer", "dressed_copy", "edited_numbers", "markup_leftover"),
    *("swapped_prompt_answer", "framed_prompt", "handle", "chat_role"),
}
CLAIMED_IN = {"audit_bench.jsonl": CLAIMED - {"dressed_copy"}}  # there it is of other words, and so not claimed


class Recall(NamedTuple):
    """Of ``n`` spoilt rows or groups, how many the audit found, and how many by which of its kinds."""

    n: int
    found: int
    by: Mapping[str, int]


def group_of(row: Row) -> Any:
    """Return what rows that belong together have in common; None for a row alone."""
    return next((row[name] for name in ("group", "group_id", "pair_id") if row.get(name) is not None), None)


def defects_of(rows: Sequence[Row], checks: Checks) -> list[Defect]:
    """Return the defects of rows as one set, invalid rows included, notes left out."""
    pairs, broken = split_rows([{f: row.get(f) for f in ("prompt", "chosen", "rejected")} for row in rows], "bench")
    found = [Defect(number, "invalid row", "row", reason) for number, reason in broken]
    return [d for d in [*found, *set_defects(pairs, checks)] if KINDS[d.kind].group != "note"]


def recall_by_kind(rows: Sequence[Row], checks: Checks) -> dict[str, Recall]:
    """Audit the spoilt rows, each alone or with its group."""
    units: dict[tuple[str, Any], list[Row]] = defaultdict(list)
    for number, row in enumerate(rows):
        if row["kind"] != CLEAN:
            group = group_of(row)
            units[row["kind"], number if group is None else f"group {group}"].append(row)
    found: dict[str, list[set[str]]] = defaultdict(list)
    for (kind, _), members in units.items():
        found[kind].append({defect.kind for defect in defects_of(members, checks)})
    counts = {}
    for kind, kinds in found.items():
        names = sorted({name for of_unit in kinds for name in of_unit})
        counts[kind] = Recall(
            len(kinds), sum(map(bool, kinds)), {name: sum(name in k for k in kinds) for name in names}
        )
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--show", nargs="*", default=[], help="kinds of the audit whose false alarms are printed")
    parser.add_argument("--framing", type=Path, help="prompts with framed: true or false")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    checks = Checks(shipped_statements())
    counts = recall_by_kind(rows, checks)
    print(f"{'kind':<28}{'n':>4}{'found':>7}{'recall':>8}  95 %         found by")
    for kind, (n, found, by) in counts.items():
        low, high = wilson(found / n, n)
        names = ", ".join(f"{name} {k}" for name, k in sorted(by.items(), key=lambda item: -item[1])[:4])
        print(f"{kind:<28}{n:>4}{found:>7}{found / n:>8.2f}  {low:.2f} to {high:.2f}  {names}")
    claimed = CLAIMED_IN.get(args.file.name, CLAIMED)
    for name, of_kinds in (("claimed", claimed & {*counts}), ("all", {*counts})):
        n, found = sum(counts[k].n for k in of_kinds), sum(counts[k].found for k in of_kinds)
        low, high = wilson(found / max(1, n), max(1, n))
        print(
            f"{f'{name}, {len(of_kinds)} kinds':<28}{n:>4}{found:>7}{found / max(1, n):>8.3f}  {low:.3f} to {high:.3f}"
        )
    clean = [row for row in rows if row["kind"] == CLEAN]
    alarms = defects_of(clean, checks) if clean else []
    n_alarmed = len({defect.row for defect in alarms})
    low, high = wilson(n_alarmed / max(1, len(clean)), max(1, len(clean)))
    share = n_alarmed / max(1, len(clean))
    print(f"false alarms: {n_alarmed} of {len(clean)} clean rows, {share:.4f} [{low:.4f}, {high:.4f}]")
    by_kind: dict[str, set[int]] = defaultdict(set)
    for defect in alarms:
        by_kind[defect.kind].add(defect.row)
    print("; ".join(f"{kind} {len(of_kind)}" for kind, of_kind in by_kind.items()))
    if args.framing:
        prompts = [json.loads(line) for line in args.framing.read_text(encoding="utf-8").splitlines()]
        for is_framed, words in ((True, "found"), (False, "taken for framed")):
            taken = [bool(not_neutral(row["prompt"])) for row in prompts if row["framed"] is is_framed]
            low, high = wilson(sum(taken) / len(taken), len(taken))
            name = "framed" if is_framed else "neutral"
            print(f"{name} prompts: {sum(taken)} of {len(taken)} {words} [{low:.2f}, {high:.2f}]")
    for defect in alarms:
        if defect.kind in args.show:
            print(f"  row {defect.row} {defect.kind} {defect.field}: {defect.found}")


if __name__ == "__main__":
    main()
