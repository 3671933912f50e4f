# SPDX-License-Identifier: MIT
"""How many seeded defects the audit finds, and how often it sees one where there is none.

    python -m benchmarks.audit_recall

Recall is over all classes of all rows that were given one; a false alarm is a row of which a class is reported that it
was not given.
"""

import argparse

from benchmarks.seeded_defects import CLASSES, FOLLOWS, seeded_rows
from data.pairs.records import split_rows
from data.quality.contamination import shipped_statements
from data.quality.defects import KINDS, Checks, set_defects


def score(n_rows: int = 1000, seed: int = 0) -> dict:
    """Seed, audit, and compare; return recall and false alarms, over all and by class, and what went wrong."""
    rows, truth = seeded_rows(n_rows, seed=seed)
    pairs, broken = split_rows(rows, "seeded rows")
    assert not broken, broken
    defects = set_defects(pairs, Checks(shipped_statements()))
    reported = [set() for _ in rows]
    for defect in defects:
        if KINDS[defect.kind].group != "note":
            reported[defect.row - 1].add(defect.kind)
    may_follow = [set().union(*(FOLLOWS.get(kind, ()) for kind in given)) for given in truth]
    classes = {}
    for kind in CLASSES:
        have = [i for i, kinds in enumerate(truth) if kind in kinds]
        missed = [i for i in have if kind not in reported[i]]
        false = [i for i, kinds in enumerate(reported) if kind in kinds - truth[i] - may_follow[i]]
        classes[kind] = {"n": len(have), "missed": [rows[i] for i in missed], "false": [rows[i] for i in false]}
    n_seeded = sum(entry["n"] for entry in classes.values())
    n_missed = sum(len(entry["missed"]) for entry in classes.values())
    alarmed = sum(bool(found - given - follow) for found, given, follow in zip(reported, truth, may_follow))
    return {
        "recall": 1 - n_missed / n_seeded,
        "false_alarms": alarmed / len(rows),
        "n_seeded": n_seeded,
        "classes": classes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print what was missed and what was seen wrongly")
    args = parser.parse_args()
    result = score(args.rows, args.seed)
    print(f"{'class':<24}{'seeded':>8}{'missed':>8}{'false':>8}")
    for kind, entry in result["classes"].items():
        print(f"{kind:<24}{entry['n']:>8}{len(entry['missed']):>8}{len(entry['false']):>8}")
        for name in ("missed", "false") if args.show else ():
            for row in entry[name]:
                print(f"  {name}: {row}")
    print(
        f"recall {result['recall']:.4f} of {result['n_seeded']}, rows with a false alarm {result['false_alarms']:.4f}"
    )


if __name__ == "__main__":
    main()
